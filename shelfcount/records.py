"""Data records that all modules share: detections, photos, data sets and model specifications.

Records are frozen and validated, and their arrays are read-only. Boxes are xyxy (left, top,
right, bottom) in pixels of the upright photo, x to the right and y down, unless a name says
otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]


class ShelfcountError(Exception):
    """Error with a message for the user. The command line prints it and exits with status 2."""


def _require(good: NDArray[np.bool_], rule: str, rows: NDArray[Any]) -> None:
    if not good.all():
        first = int(np.argmin(good))
        raise ValueError(f"{rule}, got {rows[first].tolist()} in row {first} of {len(rows)}")


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array = np.ascontiguousarray(array)
    if array.base is not None or array.flags.writeable:
        array = array.copy()
        array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes on one photo, either ground truth or predictions.

    Attributes:
        boxes: (n, 4) float32, xyxy, pixels of the upright photo.
        classes: (n,) int64, indices into the class list of the photo or the model.
        scores: (n,) float32 in [0, 1]; 1 for ground truth.
        ignore: (n,) bool; ground-truth boxes that are left out of all metrics (COCO ``iscrowd``,
            VOC ``difficult``). A missed one is no false negative, and a detection on one is no
            false positive.

    Raises:
        ValueError: If a shape is wrong, a value is not finite, the right or bottom edge is before
            the left or top edge, or a score is outside [0, 1]. Boxes of zero size are allowed:
            clipping at the border of the photo makes them.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]
    ignore: NDArray[np.bool_]

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
        columns: dict[str, NDArray[Any]] = {
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
        # NaN fails this comparison too.
        _require((self.scores >= 0) & (self.scores <= 1), "scores must be in [0, 1]", self.scores)
        object.__setattr__(self, "boxes", _frozen(boxes))

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"Detections(boxes={len(self)}, classes={len(np.unique(self.classes))})"

    def __getitem__(self, index: Any) -> Detections:
        """Return the boxes at `index`: a boolean mask, a slice or an array of integers."""
        return Detections(
            self.boxes[index], self.classes[index], self.scores[index], self.ignore[index]
        )

    def replace(self, **columns: Any) -> Detections:
        """Return the same boxes with the columns in `columns` replaced."""
        old = {
            "boxes": self.boxes,
            "classes": self.classes,
            "scores": self.scores,
            "ignore": self.ignore,
        }
        return Detections(**{**old, **columns})

    def counts(self, classes: Sequence[str]) -> dict[str, int]:
        """Return the number of boxes of each class, most frequent first.

        Ignored boxes are not counted, and classes without a box are left out.

        Args:
            classes: Names that `Detections.classes` are indices into.
        """
        index, number = np.unique(self.classes[~self.ignore], return_counts=True)
        order = np.lexsort((index, -number))
        return {classes[index[i]]: int(number[i]) for i in order}

    @staticmethod
    def empty() -> Detections:
        """Return a record without boxes."""
        return Detections(np.zeros((0, 4)), np.zeros(0))

    @staticmethod
    def concat(parts: Sequence[Detections]) -> Detections:
        """Return the boxes of all parts as one record, in order."""
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
        path: Path of the image file.
        width, height: Size of the upright photo in pixels (EXIF orientation applied).
        truth: Ground truth: the labelled products.
        group: Group of photos (same store, same bay, near-duplicates) that a split never divides.
    """

    path: Path
    width: int
    height: int
    truth: Detections
    group: str = ""

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(
                f"photo '{self.path}' has a size of {self.width} x {self.height} pixels. "
                "Width and height must be at least 1."
            )


@dataclass(frozen=True)
class Dropped:
    """Input that was read but not used, so that nothing is left out silently.

    Attributes:
        where: File and row, or file and record number.
        reason: Why the input was not used.
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
        photos: Photos in the order of the file they were read from.
        dropped: Input that was left out while reading, with the reason for each.
        name: Source of the data, for messages.
        licence: Licence as the file states it, or empty.
        attribution: Authors to credit if the data, or weights trained on it, are redistributed.
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
                f"duplicate class names {double} in {self.name or 'the data set'}. "
                "Class names must be unique."
            )
        for photo in self.photos:
            wrong = photo.truth.classes[
                (photo.truth.classes < 0) | (photo.truth.classes >= len(self.classes))
            ]
            if len(wrong):
                raise ValueError(
                    f"class index {wrong[0]} on '{photo.path}' is out of range. "
                    f"Class indices must be at least 0 and below {len(self.classes)}."
                )

    def __len__(self) -> int:
        return len(self.photos)

    def subset(self, indices: Sequence[int]) -> Dataset:
        """Return the data set with only the photos at `indices`, in that order."""
        return dataclasses.replace(self, photos=tuple(self.photos[i] for i in indices))

    @property
    def boxes(self) -> int:
        """Number of labelled products, without ignored areas."""
        return sum(int((~p.truth.ignore).sum()) for p in self.photos)


@dataclass(frozen=True)
class AnchorLevel:
    """Anchors of one level of the feature pyramid.

    Attributes:
        stride: Distance between neighbouring anchor locations in input pixels.
        sizes: (height, width) of each anchor at a location, in input pixels.
    """

    stride: int
    sizes: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if self.stride <= 0 or not self.sizes or any(h <= 0 or w <= 0 for h, w in self.sizes):
            raise ValueError(
                "an anchor level must have a stride and sizes above 0, "
                f"got stride {self.stride} and sizes {self.sizes}"
            )


@dataclass(frozen=True)
class ModelSpec:
    """Metadata that turns the output of a network into boxes; part of the `model.json` of a bundle.

    Attributes:
        name: Name of the model, for people.
        architecture: Key of the architecture, such as ``mobilenet_v2``.
        classes: Class names in the order of the score columns.
        height, width: Size of the input in pixels. A photo is stretched to this size.
        levels: Anchor levels, finest stride first, in the order of the outputs.
        score_threshold: Score below which boxes are not counted; chosen on validation photos.
        nms_iou: IoU threshold of non-maximum suppression, which ignores the class.
        max_detections: Maximum number of boxes that the network returns for one photo or tile.
        product_px: 10th, 50th and 90th percentile of sqrt(box area) in the training data, in input
            pixels. Tiling enlarges products to about the 50th.
        provenance: Free-form facts: training data and its fingerprint, licence, versions, seed.

    Raises:
        ValueError: If a class name is missing, empty or not one line, a threshold is out of range,
            or the input size is not a multiple of every stride.
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
            raise ValueError("the model has no classes. It must have at least one.")
        if broken := [c for c in self.classes if not c or "\n" in c or "\r" in c]:
            raise ValueError(
                f"class names {broken} are empty or contain a line break. "
                "labels.txt has one class name per line."
            )
        if not (0 <= self.score_threshold <= 1 and 0 < self.nms_iou <= 1):
            raise ValueError(
                "score_threshold must be in [0, 1] and nms_iou in (0, 1], "
                f"got {self.score_threshold} and {self.nms_iou}"
            )
        for level in self.levels:
            if self.height % level.stride or self.width % level.stride:
                size = f"{self.height} x {self.width}"
                raise ValueError(
                    "the input size must be a multiple of every stride, "
                    f"got {size} and stride {level.stride}"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain lists, numbers and strings."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ModelSpec:
        """Return the spec that `to_json` made `data` from.

        Raises:
            ShelfcountError: If a field is missing, unknown or has a wrong value.
        """
        try:
            fields = dict(data)
            if unknown := sorted(fields.keys() - ModelSpec.__dataclass_fields__.keys()):
                raise TypeError(f"unknown field '{unknown[0]}'")
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
            cause = f"field {error} is missing" if isinstance(error, KeyError) else error
            raise ShelfcountError(
                f"invalid model spec: {cause}. "
                "Export the model again with this version of shelfcount."
            ) from error


class Progress(Protocol):
    """Interface of the callbacks that show the progress of a task."""

    def __call__(self, done: int, total: int, description: str = ..., /) -> None:
        """Report progress.

        Args:
            done: Number of steps done.
            total: Number of all steps.
            description: What is being done at present. Default: the title of the task.
        """
        ...


class Detector(Protocol):
    """Interface of a model for counting, evaluation and merging."""

    spec: ModelSpec

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """Return the products on one photo.

        Args:
            image: (height, width, 3) uint8 RGB, upright, any size.

        Returns:
            Boxes in pixels of `image`, highest score first. No score is below the score threshold
            of the spec.
        """
        ...
