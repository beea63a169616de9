"""A bundle as a detector, on LiteRT alone: what an app does, in Python."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.records import Detections, ModelSpec, ShelfcountError
from shelfcount.vision.images import stretch
from shelfcount.vision.postprocess import ratios_to_pixels

# Of model.json; raised when a reader of the old form would go wrong.
FORMAT = 1
# Float16 heads without post-processing, for GPU and Core ML delegates.
RAW_MODEL = "model-raw.tflite"
# Below it the file itself does not look: low enough for precision-recall curves.
LOWEST_SCORE = 0.05


@dataclass(frozen=True)
class Bundle:
    """A folder that holds a model and all that is needed to use it.

    Attributes:
        path: The folder.
        spec: Turns pixels into boxes.
        recipe: 'float32', 'float16', 'dynamic' or 'int8'.
        files: sha256 of each file but model.json.
        measured: Figures taken when the bundle was made.
        sha256: Of model.json, and through `files` of everything.
    """

    path: Path
    spec: ModelSpec
    recipe: str
    files: Mapping[str, str]
    measured: Mapping[str, Any]
    sha256: str

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def model_bytes(self) -> int:
        return (self.path / "model.tflite").stat().st_size


def read_bundle(path: Path | str) -> Bundle:
    """Read and check a bundle.

    Args:
        path: Its folder.

    Raises:
        ShelfcountError: If it is no bundle, is of a newer format, or a file differs from its sha256.
    """
    path = Path(path)
    try:
        text = (path / "model.json").read_bytes()
        data = json.loads(text)
    except (OSError, ValueError) as error:
        raise ShelfcountError(
            f"'{path}' is not a bundle: {error}. `shelfcount export RUN --out BUNDLE` makes one."
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        got = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise ShelfcountError(
            f"'{path / 'model.json'}' must have format {FORMAT}, got {got}. It was made by another version of shelfcount."
        )
    try:
        spec, files = (
            ModelSpec.from_json(data["spec"]),
            {str(k): str(v) for k, v in data["files"].items()},
        )
        recipe, measured = str(data["recipe"]), dict(data["measured"])
    except ShelfcountError as error:
        raise ShelfcountError(f"'{path / 'model.json'}': {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ShelfcountError(f"'{path / 'model.json'}' lacks or mistypes {error!r}") from error
    if data.get("digest") != digest(data):
        raise ShelfcountError(
            f"'{path / 'model.json'}' was changed or damaged: what it holds does not fit its own digest. Export it again."
        )
    for wanted in ("model.tflite", RAW_MODEL, "labels.txt"):
        if wanted not in files:
            raise ShelfcountError(
                f"'{path / 'model.json'}' must list {wanted}, got {sorted(files)}"
            )
    for name, expected in files.items():
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ShelfcountError(
                f"'{path / 'model.json'}' lists '{name}', which lies outside the bundle"
            )
        try:
            actual = hashlib.sha256((path / name).read_bytes()).hexdigest()
        except OSError as error:
            raise ShelfcountError(f"bundle '{path}' lacks '{name}': {error.strerror}") from error
        if actual != expected:
            raise ShelfcountError(
                f"'{path / name}' was changed or damaged: its sha256 must be {expected[:12]}..., got {actual[:12]}... Export it again."
            )
    labels = (path / "labels.txt").read_bytes()
    if labels != label_lines(spec.classes):
        got = labels.count(b"\n")
        raise ShelfcountError(
            f"'{path / 'labels.txt'}' must list the {len(spec.classes)} classes of model.json in their order, got {got} lines"
        )
    return Bundle(path, spec, recipe, files, measured, hashlib.sha256(text).hexdigest())


def digest(head: Mapping[str, Any]) -> str:
    """sha256 over what model.json holds beside its key ``digest``, whatever its spacing and order."""
    rest = {key: value for key, value in head.items() if key != "digest"}
    return hashlib.sha256(
        json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def label_lines(classes: Sequence[str]) -> bytes:
    """labels.txt for these classes: UTF-8, one a line."""
    return "".join(f"{name}\n" for name in classes).encode()


class LiteRTDetector:
    """A .tflite file with post-processing inside as a `Detector`.

    Args:
        model: The file's bytes.
        spec: Of the model.
        threads: Of the interpreter.
        score_threshold: Other than the spec's; not below `LOWEST_SCORE`.
    """

    def __init__(
        self, model: bytes, spec: ModelSpec, threads: int = 1, score_threshold: float | None = None
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter

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
        wanted = (1, spec.height, spec.width, 3)
        if (
            tuple(self._input["shape"]) != wanted
            or self._input["dtype"] != np.uint8
            or len(self._outputs) != 4
        ):
            got = f"{self._input['dtype'].__name__} {tuple(self._input['shape'].tolist())} and {len(self._outputs)} outputs"
            raise ShelfcountError(
                f"the model must take uint8 {wanted} and give 4 outputs, got {got}"
            )

    @staticmethod
    def open(
        bundle: Bundle | Path | str, threads: int = 1, score_threshold: float | None = None
    ) -> LiteRTDetector:
        """The main artifact of a bundle."""
        bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        return LiteRTDetector(
            (bundle.path / "model.tflite").read_bytes(), bundle.spec, threads, score_threshold
        )

    def invoke(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run the file on one input.

        Args:
            pixels: (H, W, 3) uint8 RGB, already stretched.

        Returns:
            boxes (n, 4) (ymin, xmin, ymax, xmax) as ratios, classes (n,), scores (n,), all float32.
        """
        self.interpreter.set_tensor(self._input["index"], pixels[None])
        self.interpreter.invoke()
        boxes, classes, scores, count = (self.interpreter.get_tensor(i) for i in self._outputs)
        # What lies behind the count was never written.
        n = int(count[0])
        return boxes[0, :n], classes[0, :n], scores[0, :n]

    def detect(self, image: np.ndarray) -> Detections:
        return self.detect_stretched(
            stretch(image, self.spec.height, self.spec.width), image.shape[1], image.shape[0]
        )

    def detect_stretched(self, pixels: np.ndarray, width: int, height: int) -> Detections:
        """As `detect`, for a photo of `width` x `height` pixels that was stretched to (H, W, 3) elsewhere."""
        boxes, classes, scores = self.invoke(pixels)
        kept = scores >= self.spec.score_threshold
        return Detections(ratios_to_pixels(boxes[kept], width, height), classes[kept], scores[kept])
