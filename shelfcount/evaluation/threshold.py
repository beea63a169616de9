"""The score threshold: what each one gives on validation photos, and which serves best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from shelfcount.evaluation.metrics import best_first, check, match, per_class_counts, ratio, score
from shelfcount.records import Dataset, Detections

if TYPE_CHECKING:
    from shelfcount.training.fit import Judgement


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

    @property
    def best_f1(self) -> tuple[float, float]:
        """(threshold, F1) where F1 is highest. On test photos a bound: nobody could have known that threshold."""
        top = int(self.f1.argmax())
        return float(self.thresholds[top]), float(self.f1[top])


@dataclass(frozen=True, eq=False)
class _Matched:
    """One photo.

    Attributes:
        truth: Products that stand there.
        scores: (n,) float64, of the detections that count, best first.
        hits: (n,) bool, which of them found a product.
        steps: (n,) int64, -1 for each that mends the photo's count by class, 1 for each that harms it.
    """

    truth: int
    scores: np.ndarray
    hits: np.ndarray
    steps: np.ndarray


def best_threshold(
    dataset: Dataset,
    found: Sequence[Detections],
    by: Literal["f1", "count"] = "f1",
    *,
    floor: float = 0.0,
) -> tuple[float, Curve]:
    """The score threshold that serves best; choose it on validation photos, never on the test.

    The best value is often shared, or missed by less than another draw of photos would change it: by
    one standard error of the difference to the best, photos being what was drawn. Thresholds so close
    can't be told apart and form plateaus; the middle of the widest is taken, as it stands new photos best.

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
    photos = _matched_all(dataset, found)
    curve = _curve(photos)
    value = curve.f1 if by == "f1" else -curve.count_error
    top = int(value.argmax())
    influence = _f1_influence(photos, curve) if by == "f1" else _count_influence(photos, curve)
    near = np.concatenate([[False], value >= value[top] - _standard_error(influence, top), [False]])
    first, last = np.flatnonzero(near[1:] & ~near[:-1]), np.flatnonzero(near[:-1] & ~near[1:]) - 1
    lowest = min(floor, curve.thresholds[0])
    low, high = np.concatenate([[lowest], curve.thresholds])[first], curve.thresholds[last]
    widest = np.argmax(high - low)
    # Scores are float32: the middle of two neighbours may round to the lower one, which is outside.
    middle = np.float32((low[widest] + high[widest]) / 2)
    return float(middle if middle > low[widest] else high[widest]), curve


def sweep(dataset: Dataset, found: Sequence[Detections]) -> Curve:
    """What each score threshold gives; arguments and errors as of `best_threshold`.

    How far F1 at the chosen threshold lies below `Curve.best_f1` says what the choice costs on these photos: much where
    scores have shifted, as on a new phone or in other light.
    """
    check(dataset, found)
    return _curve(_matched_all(dataset, found))


def judge(dataset: Dataset, found: Sequence[Detections]) -> Judgement:
    """What validation says of an epoch, as `training.fit.fit` wants it: F1 at the best threshold, and mAP to compare epochs by."""
    from shelfcount.training.fit import LOW_SCORE, Judgement

    threshold, _ = best_threshold(dataset, found, floor=LOW_SCORE)
    scored = score(dataset, found, threshold)
    return Judgement(scored.micro.f1, threshold, scored.map)


def _matched_all(dataset: Dataset, found: Sequence[Detections]) -> list[_Matched]:
    return [
        _matched(photo.truth, low, len(dataset.classes))
        for photo, low in zip(dataset.photos, found, strict=True)
    ]


def _matched(truth: Detections, low: Detections, classes: int) -> _Matched:
    matches = match(truth, low)
    order = best_first(low)
    order = order[~matches.absorbed[order]]
    standing = per_class_counts(truth, ~truth.ignore, classes)
    # The k-th best detection of a class mends the photo's count while k products stand there, then harms it.
    found = low.classes[order]
    rank = np.tril(found[:, None] == found, -1).sum(axis=1)
    steps = np.where(rank < standing[found], -1, 1)
    return _Matched(
        int(standing.sum()), low.scores[order].astype(np.float64), matches.hit[order], steps
    )


def _curve(photos: Sequence[_Matched]) -> Curve:
    truth = sum(photo.truth for photo in photos)
    confidence = np.concatenate([photo.scores for photo in photos])
    order = np.argsort(-confidence, kind="stable")
    confidence = confidence[order]
    hits = np.concatenate([photo.hits for photo in photos])[order]
    steps = np.concatenate([photo.steps for photo in photos])[order]
    # Index 0 stands for a threshold above every score; equal scores come and go together.
    kept = np.concatenate([[0], np.flatnonzero(np.diff(confidence, append=-1.0)) + 1])
    tp = np.concatenate([[0], np.cumsum(hits)])[kept]
    error = truth + np.concatenate([[0], np.cumsum(steps)])[kept]
    thresholds = np.concatenate([[1.0], confidence[kept[1:] - 1]])
    above = slice(
        int(len(kept) > 1 and thresholds[1] >= 1.0), None
    )  # no threshold lies above a score of 1
    columns = (
        thresholds,
        ratio(tp, kept, truth),
        ratio(tp, truth, kept),
        ratio(2 * tp, truth + kept, 0),
        error,
    )
    return Curve(*(column[above][::-1] for column in columns))


def _at(thresholds: np.ndarray, photo: _Matched) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(k,) detections, hits and sum of steps of one photo at each threshold."""
    found = len(photo.scores) - np.searchsorted(photo.scores[::-1], thresholds)
    return (
        found,
        np.concatenate([[0], np.cumsum(photo.hits)])[found],
        np.concatenate([[0], np.cumsum(photo.steps)])[found],
    )


def _f1_influence(photos: Sequence[_Matched], curve: Curve) -> Iterator[np.ndarray]:
    """For each photo (k,): by how much it moves F1, to first order (the delta method for a ratio of sums)."""
    truth = sum(photo.truth for photo in photos)
    whole = np.maximum(truth + sum(_at(curve.thresholds, photo)[0] for photo in photos), 1)
    for photo in photos:
        found, hits, _ = _at(curve.thresholds, photo)
        yield (2 * hits - curve.f1 * (photo.truth + found)) / whole


def _count_influence(photos: Sequence[_Matched], curve: Curve) -> Iterator[np.ndarray]:
    """For each photo (k,): its part of the count error, negative as less is better."""
    for photo in photos:
        yield -(photo.truth + _at(curve.thresholds, photo)[2]).astype(np.float64)


def _standard_error(influences: Iterator[np.ndarray], top: int) -> np.ndarray:
    """(k,) of the difference between each entry and entry `top`; 0 where one photo says nothing of others."""
    n, total, squares = 0, 0.0, 0.0
    for influence in influences:
        difference = influence - influence[top]
        n, total, squares = n + 1, total + difference, squares + difference**2
    spread = np.maximum(np.asarray(squares) - np.asarray(total) ** 2 / n, 0.0)
    return np.sqrt(spread * n / (n - 1)) if n > 1 else np.zeros_like(spread)
