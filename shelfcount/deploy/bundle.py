"""Writing a bundle: the folder that leaves the building."""

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
    """A converted network as the main artifact: quantized, uint8 in, post-processing inside, described.

    Args:
        model: From `convert.to_litert`.
        spec: Of the model.
        recipe: One of `convert.RECIPES`.
        calibration: (H, W, 3) uint8 training photos; used for int8.
    """
    return metadata.describe(
        flatbuffer.finish(convert.quantize(model, recipe, calibration), spec, LOWEST_SCORE), spec
    )


def raw_artifact(model: bytes, spec: ModelSpec) -> bytes:
    """A converted network as the artifact for delegates: float16 weights, the heads as they are, described."""
    return metadata.raw_artifact(convert.quantize(model, "float16", []), spec)


def calibration_photos(
    train: Dataset, spec: ModelSpec, most: int, seed: int = 0
) -> list[np.ndarray]:
    """Training photos as the network sees them at test time, (H, W, 3) uint8, chosen by seed."""
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
    """Write a bundle whole or not at all.

    Args:
        out: Folder to make.
        spec: Of the model.
        files: Name in the bundle to content: model.tflite (from `artifact`), model-raw.tflite (from
            `raw_artifact`), and what goes along with them. labels.txt and model.json are written here.
        recipe: How it was quantized.
        measured: Figures to keep with it.
        force: Replace what stands at `out`.

    Raises:
        ShelfcountError: If `out` exists and `force` is not given.
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
    # What goes wrong up to here leaves the old bundle as it was.
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    draft.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return read_bundle(out)


def check_free(out: Path, force: bool) -> None:
    """Refuse to write over what must be kept.

    Raises:
        ShelfcountError: If `out` exists and `force` is not given, or it is no bundle.
    """
    if out.exists() and not force:
        raise ShelfcountError(
            f"'{out}' exists already. Choose another --out, or replace it with --force."
        )
    if out.exists() and not _is_bundle(out) and (not out.is_dir() or any(out.iterdir())):
        raise ShelfcountError(f"'{out}' is not a bundle; --force replaces bundles only")


def _is_bundle(folder: Path) -> bool:
    # Others call a file model.json too, TensorFlow.js for one; a damaged bundle may be replaced all the same.
    try:
        head = json.loads((folder / "model.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and {"format", "recipe", "files"} <= head.keys()
