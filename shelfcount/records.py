"""The records that everything else passes around: frozen, validated, numpy only.

Coordinates: boxes are xyxy (left, top, right, bottom) in pixels of the upright photo, x to the
right and y down, unless a name says otherwise. Arrays inside a record are read-only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class ShelfcountError(Exception):
    """What the user has to hear: the command line prints it and exits with 2."""


def _require(good: np.ndarray, rule: str, rows: np.ndarray) -> None:
    if not good.all():
        first = int(np.argmin(good))
        raise ValueError(f"{rule}, got {rows[first].tolist()} in row {first} of {len(rows)}")


def _frozen(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    if array.base is not None or array.flags.writeable:
        array = array.copy()
        array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes on one photo, truth and prediction alike.

    Attributes:
        boxes: (n, 4) float32, xyxy, pixels of the upright photo.
        classes: (n,) int64, indices into the class list that goes with the photo or the model.
        scores: (n,) float32 in [0, 1]; 1 for truth.
        ignore: (n,) bool; a truth box where a person can't tell (COCO ``iscrowd``, VOC
            ``difficult``). It neither has to be found nor counts against who finds it.

    Raises:
        ValueError: If a shape is wrong, a number is not finite, a box ends before it begins or a
            score is outside [0, 1]. A box of no size is allowed: it is what the photo's border
            leaves of a box beyond it.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    ignore: np.ndarray

    def __init__(
        self,
        boxes: Any,
        classes: Any,
        scores: Any = None,
        ignore: Any = None,
    ) -> None:
        boxes = np.asarray(boxes, np.float32)
        if boxes.size == 0:
            boxes = boxes.reshape(0, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes must have shape (n, 4), got {boxes.shape}")
        n = len(boxes)
        columns: dict[str, np.ndarray] = {
            "classes": np.asarray(classes, np.int64),
            "scores": np.ones(n, np.float32) if scores is None else np.asarray(scores, np.float32),
            "ignore": np.zeros(n, bool) if ignore is None else np.asarray(ignore, bool),
        }
        for name, column in columns.items():
            if column.shape != (n,) and not (n == 0 and column.size == 0):
                raise ValueError(
                    f"{name} must have shape ({n},) as there are {n} boxes, got {column.shape}"
                )
            object.__setattr__(self, name, _frozen(column.reshape(n)))
        _require(np.isfinite(boxes).all(axis=1), "boxes must be finite", boxes)
        upright = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
        _require(
            upright,
            "boxes must be (left, top, right, bottom) with right >= left and bottom >= top",
            boxes,
        )
        # Written so that NaN fails it too.
        _require((self.scores >= 0) & (self.scores <= 1), "scores must be in [0, 1]", self.scores)
        object.__setattr__(self, "boxes", _frozen(boxes))

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"Detections({len(self)} boxes, {len(np.unique(self.classes))} classes)"

    def __getitem__(self, index: Any) -> Detections:
        """The boxes at `index`: a boolean mask, a slice or an array of integers."""
        return Detections(
            self.boxes[index], self.classes[index], self.scores[index], self.ignore[index]
        )

    def replace(self, **columns: Any) -> Detections:
        """The same boxes with some columns exchanged."""
        old = {
            "boxes": self.boxes,
            "classes": self.classes,
            "scores": self.scores,
            "ignore": self.ignore,
        }
        return Detections(**{**old, **columns})

    def counts(self, classes: Sequence[str]) -> dict[str, int]:
        """How many boxes of each class stand here, most frequent first; absent classes left out."""
        index, number = np.unique(self.classes[~self.ignore], return_counts=True)
        order = np.lexsort((index, -number))
        return {classes[index[i]]: int(number[i]) for i in order}

    @staticmethod
    def empty() -> Detections:
        return Detections(np.zeros((0, 4)), np.zeros(0))

    @staticmethod
    def concat(parts: Sequence[Detections]) -> Detections:
        if not parts:
            return Detections.empty()
        return Detections(
            *(
                np.concatenate([getattr(p, k) for p in parts])
                for k in ("boxes", "classes", "scores", "ignore")
            )
        )


@dataclass(frozen=True)
class Photo:
    """One labelled photo.

    Attributes:
        path: Where the photo lies.
        width, height: Pixels of the upright photo (EXIF orientation applied).
        truth: The labelled products.
        group: Photos of one group (store, bay, near-duplicates) never part between splits.
    """

    path: Path
    width: int
    height: int
    truth: Detections
    group: str = ""

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(
                f"a photo must have a size, got {self.width} x {self.height} for '{self.path}'"
            )


@dataclass(frozen=True)
class Dropped:
    """Something that was read and not used, so that nothing vanishes silently.

    Attributes:
        where: File and row, or file and record number.
        reason: What must hold and what was got.
    """

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True)
class Dataset:
    """Labelled photos with one list of classes.

    Attributes:
        classes: Class names; `Detections.classes` are indices into it.
        photos: In the order of the file they were read from.
        dropped: What was left out while reading, with the reason for each.
        name: Where it came from, for messages.
        licence: As the file states it, or empty.
        attribution: Who has to be named where the data or weights made from it are passed on.
    """

    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    dropped: tuple[Dropped, ...] = ()
    name: str = ""
    licence: str = ""
    attribution: str = ""

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            double = sorted({c for c in self.classes if self.classes.count(c) > 1})
            raise ValueError(
                f"class names must differ, got {double} more than once in {self.name or 'the data'}"
            )
        for photo in self.photos:
            wrong = photo.truth.classes[
                (photo.truth.classes < 0) | (photo.truth.classes >= len(self.classes))
            ]
            if len(wrong):
                raise ValueError(
                    f"class indices must be at least 0 and below {len(self.classes)}, got {wrong[0]} on '{photo.path}'"
                )

    def __len__(self) -> int:
        return len(self.photos)

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The photos at `indices`, everything else unchanged."""
        return dataclasses.replace(self, photos=tuple(self.photos[i] for i in indices))

    @property
    def boxes(self) -> int:
        """Of products; areas to ignore are none."""
        return sum(int((~p.truth.ignore).sum()) for p in self.photos)


@dataclass(frozen=True)
class AnchorLevel:
    """The anchors of one level of the pyramid.

    Attributes:
        stride: Input pixels from one place to the next.
        sizes: (height, width) of each anchor at a place, in input pixels.
    """

    stride: int
    sizes: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if self.stride <= 0 or not self.sizes or any(h <= 0 or w <= 0 for h, w in self.sizes):
            raise ValueError(
                f"an anchor level needs a stride and sizes above 0, got {self.stride} and {self.sizes}"
            )


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to turn pixels into boxes; `model.json` of a bundle holds it.

    Attributes:
        name: Of the model, for people.
        architecture: Key into the model family, such as ``mobilenet_v2``.
        classes: Class names in the order of the score columns.
        height, width: Of the input in pixels. A photo is stretched to it.
        levels: Anchors, finest stride first; their order is the order of the outputs.
        score_threshold: Chosen on validation photos; boxes below it are not counted.
        nms_iou: Boxes that overlap a better one by more are dropped, whatever their class.
        max_detections: At most so many boxes leave the network for one photo or tile.
        product_px: 10th, 50th and 90th percentile of sqrt(box area) in training, input pixels;
            tiling brings products to this size.
        provenance: Free facts: training data and its fingerprint, licence, versions, seed.
    """

    name: str
    architecture: str
    classes: tuple[str, ...]
    height: int
    width: int
    levels: tuple[AnchorLevel, ...]
    score_threshold: float = 0.4
    nms_iou: float = 0.5
    max_detections: int = 300
    product_px: tuple[float, float, float] = (20.0, 40.0, 80.0)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("a model needs at least one class")
        if broken := [c for c in self.classes if not c or "\n" in c or "\r" in c]:
            raise ValueError(
                f"class names must be one line of text each, as labels.txt has one a line, got {broken}"
            )
        if not (0 <= self.score_threshold <= 1 and 0 < self.nms_iou <= 1):
            raise ValueError(
                f"score_threshold and nms_iou must be in [0, 1], got {self.score_threshold} and {self.nms_iou}"
            )
        for level in self.levels:
            if self.height % level.stride or self.width % level.stride:
                size = f"{self.height} x {self.width}"
                raise ValueError(
                    f"the input must be a multiple of every stride, got {size} and stride {level.stride}"
                )

    def to_json(self) -> dict[str, Any]:
        """As plain lists, numbers and strings."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `to_json`.

        Raises:
            ShelfcountError: If a field is missing, unknown or of the wrong form.
        """
        try:
            fields = dict(data)
            if not all(
                isinstance(fields[key], list | tuple) for key in ("classes", "product_px", "levels")
            ):
                raise TypeError("classes, product_px and levels must be lists")
            for key, kind in (
                ("name", str),
                ("architecture", str),
                ("height", int),
                ("width", int),
                ("max_detections", int),
            ):
                if not isinstance(fields[key], kind):
                    raise TypeError(f"{key} must be {kind.__name__}, got {fields[key]!r}")
            fields["classes"] = tuple(str(c) for c in fields["classes"])
            fields["product_px"] = tuple(float(v) for v in fields["product_px"])
            fields["levels"] = tuple(
                AnchorLevel(int(lv["stride"]), tuple((float(h), float(w)) for h, w in lv["sizes"]))
                for lv in fields["levels"]
            )
            return ModelSpec(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise ShelfcountError(
                f"this is not a model spec as shelfcount writes it: {error!r}"
            ) from error


class Detector(Protocol):
    """What evaluation, robustness, latency and merging know of a model."""

    spec: ModelSpec

    def detect(self, image: np.ndarray) -> Detections:
        """Products on one photo.

        Args:
            image: (height, width, 3) uint8 RGB, upright, any size.

        Returns:
            Boxes in pixels of `image`, best score first, all at or above the spec's threshold.
        """
        ...
