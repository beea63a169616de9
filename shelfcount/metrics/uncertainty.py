"""Uncertainty of F1: influence of each photo, standard errors and bootstrap intervals.

The unit is the photo: products on one photo share light, distance and camera.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shelfcount.metrics.scoring import Evaluation

# Bootstrap over the photos: number of resamples, and percentiles of the 95 % interval.
RESAMPLES, CERTAIN = 2000, (2.5, 97.5)


def f1_difference_interval(
    ours: NDArray[np.int64], reference: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """Estimate the difference in F1 of two models by a paired bootstrap over the photos.

    Args:
        ours, reference: (n, 3) int64; labelled products, detections and true positives on each
            photo.
        rng: Random generator of the bootstrap. Both models get the same resamples.

    Returns:
        Lower and upper limit of the 95 % interval of F1 of `ours` minus F1 of `reference`. If it
        contains 0, these photos show no difference.
    """
    low, high = np.percentile(bootstrap_f1_differences(ours, reference, rng), CERTAIN)
    return float(low), float(high)


def bootstrap_f1_differences(
    ours: NDArray[np.int64], reference: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Compute the difference in F1 of two models on resamples of the photos.

    Args:
        ours, reference: (n, 3) int64; labelled products, detections and true positives on each
            photo.
        rng: Random generator of the bootstrap. Both models get the same resamples.

    Returns:
        (RESAMPLES,) float64; F1 of `ours` minus F1 of `reference` on each resample. Their standard
        deviation is the standard error of the difference.
    """
    chosen = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
    return f1_of(ours[chosen].sum(axis=1)) - f1_of(reference[chosen].sum(axis=1))


def f1_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute F1 from counts.

    Args:
        counts: (..., 3) int64; labelled products, detections and true positives.

    Returns:
        (...) float64 F1; 1 if there are neither products nor detections.
    """
    truth, detected, tp = np.moveaxis(counts, -1, 0)
    return np.where(truth + detected > 0, 2 * tp / np.maximum(truth + detected, 1), 1.0)


def photo_counts(result: Evaluation) -> NDArray[np.int64]:
    """Return the counts of each photo.

    Args:
        result: Metrics on n photos.

    Returns:
        (n, 3) int64; labelled products, detections and true positives on each photo.
    """
    rows = [(p.score.truth, p.score.predicted, p.score.tp) for p in result.photos]
    return np.array(rows, np.int64).reshape(-1, 3)


def f1_influence(result: Evaluation) -> NDArray[np.float64]:
    """Compute the influence of each photo on F1.

    Args:
        result: Metrics on n photos.

    Returns:
        (n,) float64; change of F1 by each photo, to first order.
    """
    truth, predicted, tp = photo_counts(result).T
    whole = max(result.micro.truth + result.micro.predicted, 1)
    return influence_on_f1(tp, truth + predicted, result.micro.f1, whole)


def influence_on_f1(
    tp: NDArray[np.int64],
    boxes: NDArray[np.int64],
    f1: float | NDArray[np.float64],
    total: int | NDArray[np.int64],
) -> NDArray[np.float64]:
    """Compute influences on F1 from counts (the delta method for a ratio of sums).

    Args:
        tp: (n,) int64; true positives on each photo, or on one photo at n thresholds.
        boxes: (n,) int64; labelled products plus detections.
        f1: F1 over all photos, or (n,) at each threshold.
        total: Labelled products plus detections over all photos, at least 1; or (n,).

    Returns:
        (n,) float64; change of F1, to first order.
    """
    return (2 * tp - f1 * boxes) / total


def standard_error(influences: NDArray[np.float64]) -> float | None:
    """Compute the standard error of a metric from the influence of each photo on it.

    Args:
        influences: (n,) float64; influence of each photo.

    Returns:
        The standard error over the photos. None for a single photo.
    """
    n = len(influences)
    return (
        float(np.sqrt(n / (n - 1) * ((influences - influences.mean()) ** 2).sum()))
        if n > 1
        else None
    )


def difference_standard_error(
    influences: Iterator[NDArray[np.float64]], top: int
) -> NDArray[np.float64]:
    """Compute the standard errors of the differences of k metrics to one of them.

    This is `standard_error` of `influence[j] - influence[top]` for each j. It reads one photo at a
    time, since k is the number of scores on all photos.

    Args:
        influences: For each photo, its (k,) float64 influences on the metrics.
        top: Index of the metric that the others are compared with.

    Returns:
        (k,) float64 standard errors over the photos; 0 for a single photo.
    """
    n, total, squares = 0, 0.0, 0.0
    for influence in influences:
        difference = influence - influence[top]
        n, total, squares = n + 1, total + difference, squares + difference**2
    spread = np.maximum(np.asarray(squares) - np.asarray(total) ** 2 / n, 0.0)
    return np.sqrt(spread * n / (n - 1)) if n > 1 else np.zeros_like(spread)
