"""Detection metrics: precision, recall, F1, mAP and count error, in total, by class and by photo.

A product is detected if a detection of its class overlaps it with an IoU of at least 0.5. A ratio
0/0 is 1 if there is neither a labelled product nor a detection, otherwise 0, so an empty photo
without detections is correct.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.metrics.matching import MATCH_IOU, match
from shelfcount.records import Dataset, Detections, ShelfcountError
from shelfcount.vision.boxes import area, xyxy_to_xywh
from shelfcount.words import plural

# Photos of shelves can contain more than COCO's limit of 100 objects. 300 detections is the limit
# that SKU-110K uses (Goldman et al. 2019, arXiv:1904.00853). The first two entries only fill COCO's
# recall columns.
MAX_DETECTIONS = (1, 100, 300)


@dataclass(frozen=True)
class DetectionCounts:
    """Numbers of ground-truth products, detections and true positives.

    Attributes:
        truth: Number of labelled products, without ignored boxes.
        predicted: Number of detections, without those that `match` leaves out.
        tp: Number of true positives.
    """

    truth: int
    predicted: int
    tp: int

    @property
    def precision(self) -> float:
        """Share of the detections that are true positives."""
        return float(safe_ratio(self.tp, self.predicted, self.truth))

    @property
    def recall(self) -> float:
        """Share of the labelled products that were detected."""
        return float(safe_ratio(self.tp, self.truth, self.predicted))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return float(safe_ratio(2 * self.tp, self.truth + self.predicted, 0))

    def to_json(self) -> dict[str, Any]:
        """Return the numbers with precision, recall and F1, as a JSON object."""
        return {
            "truth": self.truth,
            "found": self.predicted,
            "tp": self.tp,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }


def safe_ratio(part: Any, total: Any, other: Any) -> NDArray[np.float64]:
    """Divide `part` by `total` with a defined result for 0/0.

    Args:
        part: Numerator: numbers of any shape.
        total: Denominator, broadcast with `part`.
        other: The number on the other side of the comparison, for entries in which `total` is 0:
            the result is 1 if `other` is 0 too, otherwise 0.

    Returns:
        The quotients, in the broadcast shape.
    """
    part, total, other = np.broadcast_arrays(part, total, other)
    quotients: NDArray[np.float64] = np.where(total > 0, part / np.maximum(total, 1), other == 0)
    return quotients


@dataclass(frozen=True)
class ClassScore:
    """Metrics of one class over all photos.

    Attributes:
        name: Name of the class.
        score: Numbers of products, detections and true positives at IoU 0.5.
        count_mae: Mean absolute count error per photo: mean of |predicted - truth|, in products.
        count_bias: Mean count error per photo: mean of predicted - truth, in products. A positive
            value means that the class is overcounted.
    """

    name: str
    score: DetectionCounts
    count_mae: float
    count_bias: float

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as a JSON object."""
        return {
            "name": self.name,
            **self.score.to_json(),
            "count_mae": self.count_mae,
            "count_bias": self.count_bias,
        }


@dataclass(frozen=True)
class PhotoScore:
    """Metrics of one photo over all classes. Sort by ``score.f1`` to find the worst photos.

    Attributes:
        path: The photo.
        score: Numbers of products, detections and true positives at IoU 0.5.
    """

    path: Path
    score: DetectionCounts


@dataclass(frozen=True)
class CountError:
    """Count error over all photos.

    Attributes:
        mae: Mean error per photo, in products.
        rmse: Root mean square error per photo, in products.
        relative: Sum of the errors divided by the number of labelled products. None if no product
            is labelled but some were counted.
    """

    mae: float
    rmse: float
    relative: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of a detector on labelled photos at one score threshold.

    Attributes:
        classes: Names of the C classes, in the order of `per_class` and `confusion`.
        threshold: Score threshold. Detections below it are left out of all metrics except `map` and
            `map50`.
        micro: Class-aware totals over all boxes.
        class_agnostic: Class-agnostic totals over all boxes.
        macro_f1: Mean F1 over the classes with labelled products; F1 of `micro` if there are none.
        map: Mean average precision over IoU 0.50 to 0.95 with at most 300 detections per photo, as
            COCO defines it. None if it was not requested or no product is labelled.
        map50: Mean average precision at IoU 0.5. None if `map` is None.
        count_by_class: Count error by class. The error of a photo is the sum over classes of
            |predicted - truth|: a missed product counts once, a confused one twice.
        count_total: Error of the total count. The error of a photo is
            |all predicted - all truth|, in which errors of opposite sign cancel.
        count_bias: Mean over photos of (all predicted - all truth), in products.
        per_class: Metrics of each class.
        photos: Metrics of each photo, in the order of the data set.
        confusion: (C + 1, C + 1) int64 confusion matrix of the class-agnostic matches. Rows are
            true classes, columns predicted classes. The last column counts missed products, the
            last row detections on background.
    """

    classes: tuple[str, ...]
    threshold: float
    micro: DetectionCounts
    class_agnostic: DetectionCounts
    macro_f1: float
    map: float | None
    map50: float | None
    count_by_class: CountError
    count_total: CountError
    count_bias: float
    per_class: tuple[ClassScore, ...]
    photos: tuple[PhotoScore, ...]
    confusion: NDArray[np.int64]

    def _names(self) -> list[str]:
        """Return the paths relative to their common folder: results contain no local paths."""
        folder = (
            os.path.commonpath([row.path.absolute().parent for row in self.photos])
            if self.photos
            else ""
        )
        return [os.path.relpath(row.path.absolute(), folder) for row in self.photos]

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as a JSON object. Metrics that were not measured are null."""
        return {
            "photos": len(self.photos),
            "boxes": self.micro.truth,
            "threshold": self.threshold,
            "iou": MATCH_IOU,
            **{key: value for key, value in self.micro.to_json().items() if key != "truth"},
            "macro_f1": self.macro_f1,
            "any_class": self.class_agnostic.to_json(),
            "map": self.map,
            "map50": self.map50,
            "count_error": {
                "by_class": dataclasses.asdict(self.count_by_class),
                "total": dataclasses.asdict(self.count_total),
                "bias": self.count_bias,
            },
            "per_class": [row.to_json() for row in self.per_class],
            "per_photo": [
                {"path": name, **row.score.to_json()}
                for name, row in zip(self._names(), self.photos, strict=True)
            ],
            "confusion": {"classes": list(self.classes), "matrix": self.confusion.tolist()},
        }


def score(
    dataset: Dataset,
    detections: Sequence[Detections],
    threshold: float,
    *,
    average_precision: bool = True,
) -> Evaluation:
    """Compute the metrics of detections against the ground truth.

    Args:
        dataset: Labelled photos, at least one.
        detections: Detections on each photo, in the order of the photos. For mAP, detections with
            scores of `vision.postprocess.LOWEST_SCORE` and above must be included.
        threshold: Score threshold. Detections below it are left out of all metrics except mAP.
        average_precision: Whether to measure mAP, which takes the most time. If False, its fields
            are None.

    Returns:
        The metrics of the detections.

    Raises:
        ValueError: If `threshold` is outside [0, 1].
        ShelfcountError: If there is no photo, `detections` does not have one entry per photo, the
            class of a detection is not a class of the data set, or a labelled box has no area.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    require_scorable(dataset, detections)
    classes = len(dataset.classes)
    truths, predicted, hits = (np.zeros((len(dataset), classes), np.int64) for _ in range(3))
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    for p, (photo, low) in enumerate(zip(dataset.photos, detections, strict=True)):
        boxes = low[low.scores >= threshold]
        aware = match(photo.truth, boxes)
        truths[p] = per_class_counts(photo.truth, ~photo.truth.ignore, classes)
        predicted[p] = per_class_counts(boxes, ~aware.absorbed, classes)
        hits[p] = per_class_counts(boxes, aware.hit, classes)

        agnostic = match(photo.truth, boxes, by_class=False)
        matched = photo.truth.classes[agnostic.partner[agnostic.hit]]
        np.add.at(confusion, (matched, boxes.classes[agnostic.hit]), 1)
        confusion[:-1, -1] += per_class_counts(photo.truth, agnostic.missed, classes)
        false_positive = ~agnostic.hit & ~agnostic.absorbed
        confusion[-1, :-1] += per_class_counts(boxes, false_positive, classes)
    confusion.setflags(write=False)

    errors = predicted - truths
    per_class = tuple(
        ClassScore(
            name,
            _total(truths[:, c], predicted[:, c], hits[:, c]),
            float(np.abs(errors[:, c]).mean()),
            float(errors[:, c].mean()),
        )
        for c, name in enumerate(dataset.classes)
    )
    micro = _total(truths, predicted, hits)
    with_truth = [row.score.f1 for row in per_class if row.score.truth]
    mean_ap, mean_ap50 = (
        _average_precision(dataset, detections)
        if average_precision and micro.truth
        else (None, None)
    )
    return Evaluation(
        classes=dataset.classes,
        threshold=float(threshold),
        micro=micro,
        class_agnostic=_total(confusion[:-1], confusion[:, :-1], confusion[:-1, :-1]),
        macro_f1=float(np.mean(with_truth)) if with_truth else micro.f1,
        map=mean_ap,
        map50=mean_ap50,
        count_by_class=_count_error(np.abs(errors).sum(axis=1), micro.truth),
        count_total=_count_error(np.abs(errors.sum(axis=1)), micro.truth),
        count_bias=float(errors.sum(axis=1).mean()),
        per_class=per_class,
        photos=tuple(
            PhotoScore(photo.path, _total(truths[p], predicted[p], hits[p]))
            for p, photo in enumerate(dataset.photos)
        ),
        confusion=confusion,
    )


def require_scorable(dataset: Dataset, detections: Sequence[Detections]) -> None:
    """Check that detections can be compared with the ground truth of a data set.

    Args:
        dataset: Labelled photos.
        detections: Detections on each photo, in the order of the photos.

    Raises:
        ShelfcountError: If there is no photo, `detections` does not have one entry per photo, the
            class of a detection is not a class of the data set, or a labelled box has no area.
    """
    name = dataset.name or "the data"
    if not len(dataset):
        raise ShelfcountError(f"{name} must contain at least one photo for an evaluation, got 0")
    if len(detections) != len(dataset):
        raise ShelfcountError(
            f"got detections for {plural(len(detections), 'photo')}, but {name} has "
            f"{len(dataset)}. "
            "Give one entry per photo, in the order of the photos."
        )
    for photo, boxes in zip(dataset.photos, detections, strict=True):
        unknown = boxes.classes[(boxes.classes < 0) | (boxes.classes >= len(dataset.classes))]
        if len(unknown):
            raise ShelfcountError(
                f"a detection on '{photo.path}' has the class index {unknown[0]}. Indices must be "
                f"from 0 to {len(dataset.classes) - 1}."
            )
        flat = np.flatnonzero((area(photo.truth.boxes) <= 0) & ~photo.truth.ignore)
        if len(flat):
            raise ShelfcountError(
                f"labelled box {flat[0]} of '{photo.path}' has no area: left, top, right, bottom = "
                f"{photo.truth.boxes[flat[0]].tolist()}. Correct or remove it."
            )


def per_class_counts(boxes: Detections, mask: NDArray[np.bool_], classes: int) -> NDArray[np.int64]:
    """Count boxes by class.

    Args:
        boxes: n boxes.
        mask: (n,) bool; the boxes to count.
        classes: Number of classes C.

    Returns:
        (C,) int64; number of selected boxes of each class.
    """
    return np.bincount(boxes.classes[mask], minlength=classes)


def _total(
    truths: NDArray[np.int64], predicted: NDArray[np.int64], hits: NDArray[np.int64]
) -> DetectionCounts:
    return DetectionCounts(int(truths.sum()), int(predicted.sum()), int(hits.sum()))


def _count_error(errors: NDArray[np.int64], truth: int) -> CountError:
    relative = float(errors.sum() / truth) if truth else (None if errors.any() else 0.0)
    return CountError(float(errors.mean()), float(np.sqrt(np.mean(errors**2.0))), relative)


def _average_precision(dataset: Dataset, detections: Sequence[Detections]) -> tuple[float, float]:
    """Return mAP and mAP50 from faster-coco-eval. At least one labelled box must not be ignored."""
    from faster_coco_eval import COCO, COCOeval_faster

    frame = {
        "images": [
            {"id": p, "width": photo.width, "height": photo.height}
            for p, photo in enumerate(dataset.photos)
        ],
        "categories": [{"id": c, "name": name} for c, name in enumerate(dataset.classes)],
    }
    truth = COCO({**frame, "annotations": _annotations([photo.truth for photo in dataset.photos])})
    predicted = COCO(
        {**frame, "annotations": _annotations([boxes[~boxes.ignore] for boxes in detections])}
    )
    coco = COCOeval_faster(truth, predicted, iouType="bbox")
    coco.params.maxDets = list(MAX_DETECTIONS)
    # One range for all sizes, since the size in pixels depends mostly on the distance of the
    # camera. The range has no upper limit, since COCO does not count false positives whose area is
    # outside it.
    coco.params.areaRng, coco.params.areaRngLbl = [[0.0, np.inf]], ["all"]
    coco.evaluate()
    coco.accumulate()
    # Axes: IoU, recall, class, size range, maximum number of detections. -1 for classes without
    # labels.
    precision = np.asarray(coco.eval["precision"])[..., 0, -1]
    of_class = precision[:, :, precision[0, 0] > -1]
    return float(of_class.mean()), float(of_class[0].mean())


def _annotations(photos: Sequence[Detections]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for p, boxes in enumerate(photos):
        columns = (
            xyxy_to_xywh(boxes.boxes.astype(np.float64)),
            boxes.classes,
            boxes.scores,
            boxes.ignore,
        )
        for box, c, confidence, ignore in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            # In COCO's matching, id 0 means "no match", so ids start at 1.
            row = {
                "id": len(rows) + 1,
                "image_id": p,
                "category_id": c,
                "bbox": box,
                "area": box[2] * box[3],
            }
            rows.append({**row, "score": confidence, "iscrowd": int(ignore)})
    return rows
