"""Writing of a bundle: the model file, its specification, labels, card and golden photos."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shelfcount.deploy import convert, flatbuffer, metadata
from shelfcount.files import sha256_of
from shelfcount.records import ModelSpec, ShelfcountError
from shelfcount.runtime.bundle import FORMAT, Bundle, labels_txt, read_bundle, spec_digest
from shelfcount.stamp import package_versions
from shelfcount.vision.postprocess import LOWEST_SCORE


class BundleFile(NamedTuple):
    """One row of `BUNDLE_FILES`.

    Attributes:
        content: What the file contains.
        maker: Dotted name, below `shelfcount`, of the function that makes the content.
        reader: Who reads the file.
    """

    content: str
    maker: str
    reader: str


# What is written into a bundle, by file name or pattern. `write_bundle` refuses any other file.
BUNDLE_FILES = {
    "model.tflite": BundleFile(
        "The main artifact: uint8 input, post-processing inside, metadata embedded.",
        "deploy.bundle.main_artifact",
        "shelfcount, MediaPipe Tasks, LiteRT, TensorFlow Lite",
    ),
    "model-raw.tflite": BundleFile(
        "Raw outputs with float16 weights and no custom operator, metadata embedded.",
        "deploy.bundle.raw_artifact",
        "GPU and Core ML delegates, MediaPipe Tasks",
    ),
    "model.json": BundleFile(
        "Specification: classes, input, thresholds, anchors, metrics, sha256 of each file.",
        "deploy.bundle.write_bundle",
        "shelfcount, the web client, apps",
    ),
    "labels.txt": BundleFile(
        "Class names, one per line, in the order of the model's class indices.",
        "runtime.bundle.labels_txt",
        "apps",
    ),
    "golden/*": BundleFile(
        "Sample photos, the detections of the model on them, and the tolerance for apps.",
        "deploy.golden.make_golden",
        "`shelfcount verify` and the tests of apps",
    ),
    "MODEL_CARD.md": BundleFile(
        "Intended use, training data and licence, metrics and known failures.",
        "deploy.card.model_card",
        "people",
    ),
}


def main_artifact(
    model: bytes, spec: ModelSpec, recipe: str, calibration: Sequence[NDArray[np.uint8]]
) -> bytes:
    """Create the content of model.tflite, the main artifact of a bundle.

    The network is quantized; then the uint8 input, the post-processing operator and the metadata
    are added.

    Args:
        model: Float32 .tflite file from `convert.to_litert`.
        spec: Specification of the model.
        recipe: Quantization recipe, one of `convert.RECIPES`.
        calibration: Training photos as network inputs, each (H, W, 3) uint8 RGB. Needed for int8
            only, and only if `model` does not contain quantization ranges.

    Returns:
        Content of the file.

    Raises:
        ShelfcountError: If the recipe is unknown, the model does not fit `spec`, or there are no
            photos to calibrate int8 on.
    """
    return metadata.embed_metadata(
        flatbuffer.add_input_and_postprocess(
            convert.quantize(model, recipe, calibration), spec, LOWEST_SCORE
        ),
        spec,
    )


def raw_artifact(model: bytes, spec: ModelSpec) -> bytes:
    """Create the content of model-raw.tflite, the artifact for GPU and Core ML delegates.

    It has float16 weights, no post-processing, and metadata.

    Args:
        model: Float32 .tflite file from `convert.to_litert`.
        spec: Specification of the model.

    Returns:
        Content of the file.

    Raises:
        ShelfcountError: If the model does not fit `spec`.
    """
    return metadata.embed_raw_metadata(convert.quantize(model, "float16", []), spec)


def write_bundle(
    out: Path,
    spec: ModelSpec,
    files: Mapping[str, bytes],
    recipe: str,
    measured: Mapping[str, Any],
    *,
    force: bool = False,
) -> Bundle:
    """Write a bundle completely or not at all.

    Args:
        out: Folder of the bundle; it is created.
        spec: Specification of the model.
        files: Content of the files by their name in the bundle: model.tflite (from
            `main_artifact`), model-raw.tflite (from `raw_artifact`) and any others. This function
            adds labels.txt and model.json.
        recipe: Quantization recipe of model.tflite.
        measured: Metrics of the model, for model.json.
        force: Replace an existing bundle at `out`.

    Returns:
        The bundle, read again and checked.

    Raises:
        ShelfcountError: If `out` exists and `force` is not given, if `out` is not a bundle, or if
            the written bundle fails the checks of `read_bundle`.
        ValueError: If a file is not in `BUNDLE_FILES`.
    """
    for name in files:
        if not any(fnmatch(name, pattern) for pattern in BUNDLE_FILES):
            raise ValueError(f"'{name}' is not a file of a bundle: {', '.join(BUNDLE_FILES)}")
    require_replaceable(out, force)
    spec = replace(spec, provenance={**spec.provenance, "export_versions": package_versions()})
    draft = out.with_name(f".{out.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    contents = {**files, "labels.txt": labels_txt(spec.classes)}
    for name, data in contents.items():
        (draft / name).parent.mkdir(exist_ok=True)
        (draft / name).write_bytes(data)
    head: dict[str, Any] = {
        "format": FORMAT,
        "recipe": recipe,
        "spec": spec.to_json(),
        "measured": dict(measured),
        "files": {name: sha256_of(data) for name, data in contents.items()},
    }
    (draft / "model.json").write_text(json.dumps({**head, "digest": spec_digest(head)}, indent=2))
    # An error up to here does not change the old bundle.
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    draft.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return read_bundle(out)


def require_replaceable(out: Path, force: bool) -> None:
    """Check that a bundle may be written to a folder.

    Args:
        out: Folder of the bundle.
        force: Whether an existing bundle may be replaced.

    Raises:
        ShelfcountError: If `out` exists and `force` is not given, or if it is neither a bundle nor
            an empty folder.
    """
    if out.exists() and not force:
        raise ShelfcountError(
            f"'{out}' exists already. Choose another --out, or replace it with --force."
        )
    if out.exists() and not _is_bundle(out) and (not out.is_dir() or any(out.iterdir())):
        raise ShelfcountError(
            f"'{out}' is not a bundle; --force replaces bundles only. Choose another --out."
        )


def _is_bundle(folder: Path) -> bool:
    # The keys are checked, since other tools (such as TensorFlow.js) write a model.json too. A
    # bundle with other damage counts as a bundle, so it can be replaced.
    try:
        head = json.loads((folder / "model.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and {"format", "recipe", "files"} <= head.keys()
