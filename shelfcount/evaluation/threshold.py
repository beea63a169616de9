"""The score threshold: what each one gives on validation photos, and which serves best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shelfcount.evaluation.metrics import best_first, check, match, per_class_counts, ratio
from shelfcount.records import Dataset, Detections


@dataclass(frozen=True, eq=False)
class Curve:
    """What each score threshold gives on the same photos.

    Attributes:
        thresholds: (k,) float64, ascending. The values of entry i hold for any threshold above
            entry i - 1 and up to entry i.
        precision, recall, f1: (k,) float64, micro, at IoU 0.5.
        count_error: (k,) int64; sum over photos and classes of |found - truth|, products.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    count_error: np.ndarray


def best_threshold(
    dataset: Dataset, found: Sequence[Detections], by: Literal["f1", "count"] = "f1", *, floor: float = 0.0
) -> tuple[float, Curve]:
    """The score threshold that serves best; choose it on validation photos, never on the test.

    Thresholds between two neighbouring scores give the same, and the best of them form a plateau:
    its middle is taken, of several plateaus the widest's, as it stands new photos best.

    Args:
        dataset: Validation photos, at least one.
        found: Detections on each of them, down to `floor`.
        by: "f1", the highest micro F1; or "count", the lowest count error by class.
        floor: The score at which the detector was cut, in [0, 1]. What lies below was never seen, so
            no plateau reaches below it.

    Returns:
        The threshold and the curve it was read from.

    Raises:
        ValueError: If `by` is neither or `floor` is outside [0, 1].
        ShelfcountError: As `score` does.
    """
    if by not in ("f1", "count"):
        raise ValueError(f"by must be 'f1' or 'count', got '{by}'")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must be in [0, 1], got {floor}")
    check(dataset, found)
    curve = _curve(dataset, found)
    value = curve.f1 if by == "f1" else -curve.count_error
    best = np.concatenate([[False], value == value.max(), [False]])
    first, last = np.flatnonzero(best[1:] & ~best[:-1]), np.flatnonzero(best[:-1] & ~best[1:]) - 1
    lowest = min(floor, curve.thresholds[0])
    low, high = np.concatenate([[lowest], curve.thresholds])[first], curve.thresholds[last]
    widest = np.argmax(high - low)
    # Scores are float32: the middle of two neighbours may round to the lower one, which is outside.
    middle = np.float32((low[widest] + high[widest]) / 2)
    return float(middle if middle > low[widest] else high[widest]), curve


def _curve(dataset: Dataset, found: Sequence[Detections]) -> Curve:
    scores, hits, steps = [], [], []
    truth = 0
    for photo, low in zip(dataset.photos, found, strict=True):
        matches = match(photo.truth, low)
        order = best_first(low)
        order = order[~matches.absorbed[order]]
        standing = per_class_counts(photo.truth, ~photo.truth.ignore, len(dataset.classes))
        truth += int(standing.sum())
        # The k-th best detection of a class mends the photo's count while k products stand there, then harms it.
        classes = low.classes[order]
        rank = np.tril(classes[:, None] == classes, -1).sum(axis=1)
        scores.append(low.scores[order])
        hits.append(matches.hit[order])
        steps.append(np.where(rank < standing[classes], -1, 1))

    confidence = np.concatenate(scores).astype(np.float64)
    order = np.argsort(-confidence, kind="stable")
    confidence = confidence[order]
    # Index 0 stands for a threshold above every score; equal scores come and go together.
    kept = np.concatenate([[0], np.flatnonzero(np.diff(confidence, append=-1.0)) + 1])
    tp = np.concatenate([[0], np.cumsum(np.concatenate(hits)[order])])[kept]
    error = truth + np.concatenate([[0], np.cumsum(np.concatenate(steps)[order])])[kept]
    thresholds = np.concatenate([[1.0], confidence[kept[1:] - 1]])
    above = slice(int(len(kept) > 1 and thresholds[1] >= 1.0), None)  # no threshold lies above a score of 1
    columns = (thresholds, ratio(tp, kept, truth), ratio(tp, truth, kept), ratio(2 * tp, truth + kept, 0), error)
    return Curve(*(column[above][::-1] for column in columns))
