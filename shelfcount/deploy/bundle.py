"""Bundle writer: the folder with the exported models and everything an app needs to use them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.deploy import convert, flatbuffer, metadata
from shelfcount.records import Dataset, ModelSpec, ShelfcountError
from shelfcount.runtime.bundle import FORMAT, LOWEST_SCORE, Bundle, digest, label_lines, read_bundle
from shelfcount.stamp import versions
from shelfcount.vision.images import read_photo, stretch


def artifact(
    model: bytes, spec: ModelSpec, recipe: str, calibration: Sequence[np.ndarray]
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
    return metadata.describe(
        flatbuffer.finish(convert.quantize(model, recipe, calibration), spec, LOWEST_SCORE), spec
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
    return metadata.raw_artifact(convert.quantize(model, "float16", []), spec)


def calibration_photos(
    train: Dataset, spec: ModelSpec, most: int, seed: int = 0
) -> list[np.ndarray]:
    """Read a random sample of the training photos as network inputs.

    Args:
        train: Training photos.
        spec: Specification of the model; it gives the input size.
        most: Maximum number of photos.
        seed: Seed of the sample.

    Returns:
        Photos stretched to the input size, each (H, W, 3) uint8 RGB.

    Raises:
        ShelfcountError: If a photo cannot be read.
    """
    chosen = np.random.default_rng(seed).permutation(len(train))[:most]
    return [stretch(read_photo(train.photos[i].path), spec.height, spec.width) for i in chosen]


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
        files: Content of the files by their name in the bundle: model.tflite (from `artifact`),
            model-raw.tflite (from `raw_artifact`) and any others. This function adds labels.txt and
            model.json.
        recipe: Quantization recipe of model.tflite.
        measured: Metrics of the model, for model.json.
        force: Replace an existing bundle at `out`.

    Returns:
        The bundle, read again and checked.

    Raises:
        ShelfcountError: If `out` exists and `force` is not given, if `out` is not a bundle, or if
            the written bundle fails the checks of `read_bundle`.
    """
    check_free(out, force)
    spec = replace(spec, provenance={**spec.provenance, "export_versions": versions()})
    draft = out.with_name(f".{out.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    contents = {**files, "labels.txt": label_lines(spec.classes)}
    for name, data in contents.items():
        (draft / name).parent.mkdir(exist_ok=True)
        (draft / name).write_bytes(data)
    head: dict[str, Any] = {
        "format": FORMAT,
        "recipe": recipe,
        "spec": spec.to_json(),
        "measured": dict(measured),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }
    (draft / "model.json").write_text(json.dumps({**head, "digest": digest(head)}, indent=2))
    # An error up to here does not change the old bundle.
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    draft.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return read_bundle(out)


def check_free(out: Path, force: bool) -> None:
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
