"""Disagreement between two detectors: the photos on which their detections differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfcount.metrics.matching import Matches, match
from shelfcount.records import Dataset, Detections, Photo


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Differences between the detections of two models on one photo.

    Attributes:
        photo: Photo with its ground truth of m boxes.
        first, second: Detections of each model at its score threshold.
        matches: Matches of each model's detections with the ground truth.
        differ: (m,) bool, labelled products that one model detected and the other missed.
        alone: One (n,) bool array per model: false positives that the other model does not have.
    """

    photo: Photo
    first: Detections
    second: Detections
    matches: tuple[Matches, Matches]
    differ: NDArray[np.bool_]
    alone: tuple[NDArray[np.bool_], NDArray[np.bool_]]

    @property
    def products(self) -> int:
        """Number of labelled products and false positives on which the models differ."""
        return int(self.differ.sum() + self.alone[0].sum() + self.alone[1].sum())

    @property
    def gained(self) -> tuple[int, int]:
        """Numbers of labelled products that only the first and only the second model detected."""
        first, second = (int((self.differ & ~m.missed).sum()) for m in self.matches)
        return first, second


def find_disagreement(photo: Photo, first: Detections, second: Detections) -> Disagreement:
    """Compare the detections of two models on a photo, at IoU 0.5 within a class.

    Args:
        photo: Labelled photo.
        first, second: Detections of each model at its score threshold.

    Returns:
        The differences. A false positive that both models have at the same place is none.
    """
    matches = match(photo.truth, first), match(photo.truth, second)
    wrong = [~m.hit & ~m.absorbed for m in matches]
    shared = match(second[wrong[1]], first[wrong[0]])
    alone = wrong[0].copy(), wrong[1].copy()
    alone[0][np.flatnonzero(wrong[0])[shared.hit]] = False
    alone[1][np.flatnonzero(wrong[1])[shared.partner[shared.hit]]] = False
    return Disagreement(
        photo, first, second, matches, matches[0].missed != matches[1].missed, alone
    )


def largest_disagreements(
    dataset: Dataset, first: Sequence[Detections], second: Sequence[Detections], max_photos: int
) -> list[Disagreement]:
    """Return the photos on which two models differ most, most differences first.

    Args:
        dataset: n labelled photos.
        first, second: Detections of each model on each photo, at its score threshold.
        max_photos: Maximum number of photos.

    Returns:
        At most `max_photos` entries; photos without differences are left out.
    """
    all_photos = [
        find_disagreement(*row) for row in zip(dataset.photos, first, second, strict=True)
    ]
    chosen = sorted(all_photos, key=lambda d: -d.products)[:max_photos]
    return [d for d in chosen if d.products]
