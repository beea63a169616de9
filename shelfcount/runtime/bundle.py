"""Bundles as detectors: reading a bundle folder and running its model on LiteRT."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from shelfcount.files import sha256_json, sha256_of
from shelfcount.records import Detections, ModelSpec, ShelfcountError
from shelfcount.vision.images import stretch
from shelfcount.vision.postprocess import ratios_to_pixels
from shelfcount.words import plural

# Version of the format of model.json. It is increased if older readers would misread a file.
FORMAT = 1
# Float16 model with raw head outputs, without post-processing, for GPU and Core ML delegates.
RAW_MODEL = "model-raw.tflite"
_PACKAGE = Path(__file__).parents[1]
# Released bundles are in the first folder of an installed package, in the second of a checkout.
RELEASE_FOLDERS = (_PACKAGE / "bundles", _PACKAGE.parent / "export" / "release")


@dataclass(frozen=True)
class Bundle:
    """A folder with a model and all files that are needed to use it.

    Attributes:
        path: Path of the folder.
        spec: Metadata that turns the output of the model into boxes.
        recipe: Quantization recipe: 'float32', 'float16', 'dynamic' or 'int8'.
        files: sha256 of each file except model.json.
        measured: Metrics measured when the bundle was written.
        sha256: sha256 of model.json. As model.json lists the sha256 of every other file, it covers
            all files.
    """

    path: Path
    spec: ModelSpec
    recipe: str
    files: Mapping[str, str]
    measured: Mapping[str, Any]
    sha256: str

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def model_bytes(self) -> int:
        """Size of model.tflite in bytes."""
        return (self.path / "model.tflite").stat().st_size


def packaged_bundles() -> dict[str, Path]:
    """Return the folders of the bundles that come with the package, by name."""
    heads = [path for folder in RELEASE_FOLDERS for path in folder.glob("*/model.json")]
    return {path.parent.name: path.parent for path in sorted(heads)}


def find_bundle(path: Path | str) -> Path:
    """Return the folder of a bundle.

    Args:
        path: Path of the folder, or the name of a bundle that comes with the package. A file or
            folder of this name takes precedence.
    """
    path = Path(path)
    return path if path.exists() else packaged_bundles().get(str(path), path)


def read_bundle(path: Path | str) -> Bundle:
    """Read a bundle and check its files.

    Args:
        path: Path of the folder, or the name of a bundle that comes with the package.

    Raises:
        ShelfcountError: If the folder is not a bundle, has another format version, a file is
            missing or differs from its sha256, or labels.txt differs from the classes of
            model.json.
    """
    path = find_bundle(path)
    text, data = _read_head(path)
    for name, kind in (("spec", dict), ("files", dict), ("recipe", str), ("measured", dict)):
        if not isinstance(data.get(name), kind):
            fault = "has the wrong type" if name in data else "is missing"
            raise ShelfcountError(
                f"'{path / 'model.json'}': field '{name}' {fault}. Export the bundle again."
            )
    try:
        spec = ModelSpec.from_json(data["spec"])
    except ShelfcountError as error:
        raise ShelfcountError(f"'{path / 'model.json'}': {error}") from error
    if data.get("digest") != spec_digest(data):
        raise ShelfcountError(
            f"'{path / 'model.json'}' was changed or damaged: its content does not match its "
            "digest. Export the bundle again."
        )
    files = {name: str(sha256) for name, sha256 in data["files"].items()}
    _check_files(path, files)
    labels = (path / "labels.txt").read_bytes()
    if labels != labels_txt(spec.classes):
        listed, got = plural(len(spec.classes), "class", "classes"), labels.count(b"\n")
        raise ShelfcountError(
            f"'{path / 'labels.txt'}' must list the {listed} of model.json in their order, "
            f"got {plural(got, 'line')}"
        )
    return Bundle(path, spec, data["recipe"], files, data["measured"], sha256_of(text))


def _read_head(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the content of model.json, as bytes and parsed, in the current format."""
    try:
        text = (path / "model.json").read_bytes()
        data = json.loads(text)
    except (OSError, ValueError) as error:
        if path.exists():
            reason = str(error)
        else:
            reason = (
                "there is no such folder, and no bundle of this name comes with shelfcount, "
                f"only: {', '.join(packaged_bundles()) or 'none'}"
            )
        raise ShelfcountError(
            f"'{path}' is not a bundle: {reason}. "
            "`shelfcount export RUN --out BUNDLE` writes a bundle."
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        got = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise ShelfcountError(
            f"'{path / 'model.json'}' must have format {FORMAT}, got {got}. "
            "It was written by another version of shelfcount; export the bundle again."
        )
    return text, data


def _check_files(path: Path, files: Mapping[str, str]) -> None:
    """Check that the listed files are in the bundle and unchanged.

    Args:
        path: Folder of the bundle.
        files: sha256 of each file, as model.json lists it.

    Raises:
        ShelfcountError: If a required file is not listed, or a listed file is outside the bundle,
            missing or changed.
    """
    for required in ("model.tflite", RAW_MODEL, "labels.txt"):
        if required not in files:
            raise ShelfcountError(
                f"'{path / 'model.json'}' does not list {required}, only {sorted(files)}. "
                "Export the bundle again."
            )
    for name, expected in files.items():
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ShelfcountError(
                f"'{path / 'model.json'}' lists '{name}', which is outside the bundle"
            )
        try:
            actual = sha256_of(path / name)
        except OSError as error:
            raise ShelfcountError(
                f"cannot read '{name}' of bundle '{path}': {error.strerror}"
            ) from error
        if actual != expected:
            raise ShelfcountError(
                f"'{path / name}' was changed or damaged: its sha256 must be {expected[:12]}..., "
                f"got {actual[:12]}... Export the bundle again."
            )


def spec_digest(head: Mapping[str, Any]) -> str:
    """Return the sha256 of the content of model.json without its key ``digest``.

    It does not depend on spacing and the order of the keys.
    """
    content = {key: value for key, value in head.items() if key != "digest"}
    return sha256_json(content, canonical=True)


def labels_txt(classes: Sequence[str]) -> bytes:
    """Return the content of labels.txt: UTF-8, one class name per line."""
    return "".join(f"{name}\n" for name in classes).encode()


class LiteRTDetector:
    """`Detector` for a .tflite file that includes the post-processing.

    Args:
        model: Content of the file.
        spec: Metadata of the model.
        threads: Number of LiteRT interpreter threads.
        score_threshold: Score threshold, at least `LOWEST_SCORE`. Default: that of `spec`.

    Raises:
        ShelfcountError: If LiteRT cannot load the model, or its input or outputs do not match
            `spec`.
    """

    def __init__(
        self, model: bytes, spec: ModelSpec, threads: int = 1, score_threshold: float | None = None
    ) -> None:
        self.spec = (
            spec if score_threshold is None else replace(spec, score_threshold=score_threshold)
        )
        try:
            self.interpreter = Interpreter(model_content=model, num_threads=threads)
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ShelfcountError(f"LiteRT cannot load the model: {error}") from error
        (self._input,) = self.interpreter.get_input_details()
        self._outputs = [o["index"] for o in self.interpreter.get_output_details()]
        shape = (1, spec.height, spec.width, 3)
        if (
            tuple(self._input["shape"]) != shape
            or self._input["dtype"] != np.uint8
            or len(self._outputs) != 4
        ):
            got = (
                f"{self._input['dtype'].__name__} {tuple(self._input['shape'].tolist())} "
                f"and {plural(len(self._outputs), 'output')}"
            )
            raise ShelfcountError(
                f"the model must take uint8 {shape} and give 4 outputs, got {got}"
            )

    @staticmethod
    def open(
        bundle: Bundle | Path | str, threads: int = 1, score_threshold: float | None = None
    ) -> LiteRTDetector:
        """Open the model of a bundle and return its detector.

        Args:
            bundle: Bundle, the path of its folder, or the name of a bundle that comes with the
                package.
            threads: Number of LiteRT interpreter threads.
            score_threshold: Score threshold, at least `LOWEST_SCORE`. Default: that of the bundle.

        Raises:
            ShelfcountError: If the bundle cannot be read, or LiteRT cannot load the model.
        """
        bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        return LiteRTDetector(
            (bundle.path / "model.tflite").read_bytes(), bundle.spec, threads, score_threshold
        )

    def invoke(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Run the model on one input.

        Args:
            pixels: (H, W, 3) uint8 RGB, already resized to the input of the model.

        Returns:
            boxes (n, 4) (ymin, xmin, ymax, xmax) as ratios, classes (n,) and scores (n,), all
            float32.
        """
        self.interpreter.set_tensor(self._input["index"], pixels[None])
        self.interpreter.invoke()
        boxes, classes, scores, count = (self.interpreter.get_tensor(i) for i in self._outputs)
        # The entries after the first `count` are not written.
        n = int(count[0])
        return boxes[0, :n], classes[0, :n], scores[0, :n]

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """Return the products on a photo, see `Detector.detect`."""
        return self.detect_stretched(
            stretch(image, self.spec.height, self.spec.width), image.shape[1], image.shape[0]
        )

    def detect_stretched(self, pixels: NDArray[np.uint8], width: int, height: int) -> Detections:
        """Return the products on a photo that is already resized to the input of the model.

        Args:
            pixels: (H, W, 3) uint8 RGB, the resized photo.
            width, height: Size of the original photo in pixels.

        Returns:
            Boxes in pixels of the original photo, highest score first.
        """
        boxes, classes, scores = self.invoke(pixels)
        kept = scores >= self.spec.score_threshold
        return Detections(ratios_to_pixels(boxes[kept], width, height), classes[kept], scores[kept])
