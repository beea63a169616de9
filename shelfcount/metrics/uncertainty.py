"""Uncertainty of F1: influence of each photo, standard errors and bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shelfcount.metrics.scoring import Evaluation

# Bootstrap over the photos: number of resamples, and percentiles of the 95 % interval.
RESAMPLES, CERTAIN = 2000, (2.5, 97.5)


def f1_difference_interval(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """Estimate the difference in F1 of two models by a paired bootstrap over the photos.

    Args:
        ours, theirs: (n, 3) int64; labelled products, detections and true positives on each photo.
        rng: Random generator of the bootstrap. Both models get the same resamples.

    Returns:
        Lower and upper limit of the 95 % interval of F1 of `ours` minus F1 of `theirs`. If it
        contains 0, these photos show no difference.
    """
    chosen = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
    gains = f1_of(ours[chosen].sum(axis=1)) - f1_of(theirs[chosen].sum(axis=1))
    low, high = np.percentile(gains, CERTAIN)
    return float(low), float(high)


def f1_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute F1 from counts.

    Args:
        counts: (..., 3) int64; labelled products, detections and true positives.

    Returns:
        (...) float64 F1; 1 if there are neither products nor detections.
    """
    truth, detected, tp = np.moveaxis(counts, -1, 0)
    return np.where(truth + detected > 0, 2 * tp / np.maximum(truth + detected, 1), 1.0)


def f1_influence(result: Evaluation) -> NDArray[np.float64]:
    """Compute the influence of each photo on F1 (the delta method for a ratio of sums).

    Args:
        result: Metrics on n photos.

    Returns:
        (n,) float64; change of F1 by each photo, to first order.
    """
    f1, whole = result.micro.f1, max(result.micro.truth + result.micro.found, 1)
    return np.array(
        [(2 * p.score.tp - f1 * (p.score.truth + p.score.found)) / whole for p in result.photos]
    )


def standard_error(influences: NDArray[np.float64]) -> float | None:
    n = len(influences)
    return (
        float(np.sqrt(n / (n - 1) * ((influences - influences.mean()) ** 2).sum()))
        if n > 1
        else None
    )


def difference_standard_error(
    influences: Iterator[NDArray[np.float64]], top: int
) -> NDArray[np.float64]:
    """Return the (k,) standard errors of the differences to entry `top`; 0 for a single photo."""
    n, total, squares = 0, 0.0, 0.0
    for influence in influences:
        difference = influence - influence[top]
        n, total, squares = n + 1, total + difference, squares + difference**2
    spread = np.maximum(np.asarray(squares) - np.asarray(total) ** 2 / n, 0.0)
    return np.sqrt(spread * n / (n - 1)) if n > 1 else np.zeros_like(spread)
