"""Choice of the score threshold on validation photos, and validation results of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shelfcount.metrics.matching import best_first, match
from shelfcount.metrics.scoring import per_class_counts, require_scorable, safe_ratio, score
from shelfcount.metrics.uncertainty import difference_standard_error, influence_on_f1
from shelfcount.records import Dataset, Detections
from shelfcount.vision.postprocess import LOWEST_SCORE


@dataclass(frozen=True)
class Validation:
    """Validation metrics of one epoch.

    Attributes:
        f1: F1 at `threshold`.
        threshold: Score threshold that maximises F1 on the validation photos.
        mean_ap: mAP over IoU 0.50 to 0.95. Training keeps the epoch with the highest value.
    """

    f1: float
    threshold: float
    mean_ap: float


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Metrics at every score threshold on the same photos.

    Attributes:
        thresholds: (k,) float64, ascending. The values of entry i apply to any threshold above
            entry i - 1 and up to entry i.
        precision, recall, f1: (k,) float64, over all boxes, class-aware, at IoU 0.5.
        count_error: (k,) int64; sum over photos and classes of |predicted - truth|, in products.
    """

    thresholds: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    count_error: NDArray[np.int64]

    @property
    def best_f1(self) -> tuple[float, float]:
        """(threshold, F1) at the highest F1. Optimistic if it is computed on the test photos."""
        top = int(self.f1.argmax())
        return float(self.thresholds[top]), float(self.f1[top])


@dataclass(frozen=True, eq=False)
class _Matched:
    """Matches of one photo. Detections that `match` leaves out are not contained.

    Attributes:
        truth: Number of labelled products.
        scores: (n,) float64; scores of the detections, highest first.
        hits: (n,) bool; whether the detection is a true positive.
        steps: (n,) int64; change of the photo's count error by class if the detection is added: -1
            or 1.
    """

    truth: int
    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    steps: NDArray[np.int64]


def choose_threshold(
    dataset: Dataset,
    detections: Sequence[Detections],
    by: Literal["f1", "count"] = "f1",
    *,
    floor: float = 0.0,
) -> tuple[float, ThresholdCurve]:
    """Choose the score threshold. Use validation photos, never test photos.

    Thresholds whose value is within one standard error of the best one (over photos, of the
    difference to the best) cannot be distinguished. They form plateaus. The middle of the widest
    plateau is chosen, since it is the most robust on other photos.

    Args:
        dataset: Validation photos, at least one.
        detections: Detections on each photo, in the order of the photos, with scores down
            to `floor`.
        by: "f1" for the highest F1 over all boxes, "count" for the lowest count error by class.
        floor: Score threshold of the detector, in [0, 1]. No plateau extends below it.

    Returns:
        The threshold, and the curve it was chosen from.

    Raises:
        ValueError: If `by` is neither "f1" nor "count", or `floor` is outside [0, 1].
        ShelfcountError: For the reasons given at `require_scorable`.
    """
    if by not in ("f1", "count"):
        raise ValueError(f"by must be 'f1' or 'count', got '{by}'")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be in [0, 1], got {floor}")
    require_scorable(dataset, detections)
    photos = _matched_all(dataset, detections)
    curve = _curve(photos)
    value = curve.f1 if by == "f1" else -curve.count_error
    top = int(value.argmax())
    influence = _f1_influence(photos, curve) if by == "f1" else _count_influence(photos, curve)
    near = np.concatenate(
        [[False], value >= value[top] - difference_standard_error(influence, top), [False]]
    )
    first, last = np.flatnonzero(near[1:] & ~near[:-1]), np.flatnonzero(near[:-1] & ~near[1:]) - 1
    lowest = min(floor, curve.thresholds[0])
    low, high = np.concatenate([[lowest], curve.thresholds])[first], curve.thresholds[last]
    widest = np.argmax(high - low)
    # Scores are float32: the middle of two adjacent values may round to the lower one, which is
    # excluded.
    middle = np.float32((low[widest] + high[widest]) / 2)
    return float(middle if middle > low[widest] else high[widest]), curve


def threshold_curve(dataset: Dataset, detections: Sequence[Detections]) -> ThresholdCurve:
    """Compute the metrics at every score threshold.

    The difference between `ThresholdCurve.best_f1` and F1 at the chosen threshold is the cost of
    that choice on these photos. It is large if the scores have shifted, for example with a new
    phone or other light.

    Args:
        dataset: Labelled photos, at least one.
        detections: Detections on each photo, in the order of the photos.

    Returns:
        The curve over all thresholds.

    Raises:
        ShelfcountError: For the reasons given at `require_scorable`.
    """
    require_scorable(dataset, detections)
    return _curve(_matched_all(dataset, detections))


def validate(dataset: Dataset, detections: Sequence[Detections]) -> Validation:
    """Return the validation metrics of one epoch of training.

    Args:
        dataset: Validation photos.
        detections: Detections on each photo, in the order of the photos, with scores down to
            `LOWEST_SCORE`.

    Returns:
        The chosen score threshold, F1 at this threshold, and mAP.

    Raises:
        ShelfcountError: For the reasons given at `require_scorable`.
    """
    threshold, _ = choose_threshold(dataset, detections, floor=LOWEST_SCORE)
    evaluation = score(dataset, detections, threshold)
    # mAP is undefined if every box is marked `ignore`; F1 is then 0 too.
    return Validation(evaluation.micro.f1, threshold, evaluation.map or 0.0)


def _matched_all(dataset: Dataset, detections: Sequence[Detections]) -> list[_Matched]:
    return [
        _matched(photo.truth, low, len(dataset.classes))
        for photo, low in zip(dataset.photos, detections, strict=True)
    ]


def _matched(truth: Detections, detections: Detections, classes: int) -> _Matched:
    matches = match(truth, detections)
    order = best_first(detections)
    order = order[~matches.absorbed[order]]
    labelled = per_class_counts(truth, ~truth.ignore, classes)
    # Each detection of a class reduces the count error until the labelled number is reached, then
    # increases it.
    predicted = detections.classes[order]
    rank = np.tril(predicted[:, None] == predicted, -1).sum(axis=1)
    steps = np.where(rank < labelled[predicted], -1, 1)
    return _Matched(
        int(labelled.sum()), detections.scores[order].astype(np.float64), matches.hit[order], steps
    )


def _curve(photos: Sequence[_Matched]) -> ThresholdCurve:
    truth = sum(photo.truth for photo in photos)
    confidence = np.concatenate([photo.scores for photo in photos])
    order = np.argsort(-confidence, kind="stable")
    confidence = confidence[order]
    hits = np.concatenate([photo.hits for photo in photos])[order]
    steps = np.concatenate([photo.steps for photo in photos])[order]
    # Index 0 is a threshold above every score. Detections with equal scores are kept or left out
    # together.
    kept = np.concatenate([[0], np.flatnonzero(np.diff(confidence, append=-1.0)) + 1])
    tp = np.concatenate([[0], np.cumsum(hits)])[kept]
    error = truth + np.concatenate([[0], np.cumsum(steps)])[kept]
    thresholds = np.concatenate([[1.0], confidence[kept[1:] - 1]])
    # No threshold is above a score of 1.
    above = slice(int(len(kept) > 1 and thresholds[1] >= 1.0), None)
    columns: tuple[NDArray[Any], ...] = (
        thresholds,
        safe_ratio(tp, kept, truth),
        safe_ratio(tp, truth, kept),
        safe_ratio(2 * tp, truth + kept, 0),
        error,
    )
    return ThresholdCurve(*(column[above][::-1] for column in columns))


def _at(
    thresholds: NDArray[np.float64], photo: _Matched
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return a photo's (k,) detections, true positives and sum of steps at each threshold."""
    detected = len(photo.scores) - np.searchsorted(photo.scores[::-1], thresholds)
    return (
        detected,
        np.concatenate([[0], np.cumsum(photo.hits)])[detected],
        np.concatenate([[0], np.cumsum(photo.steps)])[detected],
    )


def _f1_influence(
    photos: Sequence[_Matched], curve: ThresholdCurve
) -> Iterator[NDArray[np.float64]]:
    """Yield for each photo its (k,) influence on F1 at each threshold."""
    truth = sum(photo.truth for photo in photos)
    whole = np.maximum(truth + sum(_at(curve.thresholds, photo)[0] for photo in photos), 1)
    for photo in photos:
        detected, hits, _ = _at(curve.thresholds, photo)
        yield influence_on_f1(hits, photo.truth + detected, curve.f1, whole)


def _count_influence(
    photos: Sequence[_Matched], curve: ThresholdCurve
) -> Iterator[NDArray[np.float64]]:
    """Yield for each photo its (k,) share of the count error, negative since less is better."""
    for photo in photos:
        yield -(photo.truth + _at(curve.thresholds, photo)[2]).astype(np.float64)
