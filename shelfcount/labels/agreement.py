"""Agreement between two labellings of the same photos: pairing of boxes, and comparison.

Neither labelling is assumed to be right. Boxes are paired on each photo so that the sum of
their overlaps is largest, whatever their classes; boxes left over were labelled by one alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from shelfcount.data.datasets import align_classes
from shelfcount.files import sha256_of
from shelfcount.labels.agreement_scores import Agreement, PhotoAgreement, interval
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError
from shelfcount.vision.boxes import area, intersection, iou
from shelfcount.vision.images import photo_bytes
from shelfcount.words import plural

# Minimum IoU of a pair; the same as for a true positive in the detection metrics.
SAME_LABELLED_IOU = 0.5
# Bonus of a pair with equal classes, which decides between assignments of equal overlap. It is too
# small to outweigh a difference of 0.01 in IoU.
CLASS_BONUS = 1e-3


def is_second_labelling(first: Dataset, second: Dataset) -> bool:
    """Return True if `second` is another annotation of photos of `first`.

    This is the case if every photo of `second` is the same file as a photo of `first`, by path or
    by content, and at least one label differs. The same photos with identical labels are a copy.

    Args:
        first: Labelled photos.
        second: Labelled photos to compare with them.

    Returns:
        True for a second annotation, False for a copy or for other photos.

    Raises:
        ShelfcountError: If a photo whose path is not in both cannot be read.
    """
    pairs = shared_photos(first, second)
    if len(pairs) < len(second):
        return False
    a, b = align_classes(first, second)
    return any(not _same_labels(a.photos[i].truth, b.photos[j].truth) for i, j in pairs)


def _same_labels(a: Detections, b: Detections) -> bool:
    columns = [
        [part.classes.tolist(), part.boxes.tolist(), part.ignore.tolist()] for part in (a, b)
    ]
    rows = [sorted(zip(*three, strict=True)) for three in columns]
    return rows[0] == rows[1]


def shared_photos(first: Dataset, second: Dataset) -> list[tuple[int, int]]:
    """Return the indices of photos that are the same file in both data sets.

    Args:
        first, second: Data sets to compare.

    Returns:
        (index in first, index in second) of each photo with the same path or the same content,
        in the order of `first`.

    Raises:
        ShelfcountError: If a photo whose path is not in both cannot be read.
    """
    by_path = {photo.path.resolve(): i for i, photo in enumerate(first.photos)}
    matches = {
        j: by_path[photo.path.resolve()]
        for j, photo in enumerate(second.photos)
        if photo.path.resolve() in by_path
    }
    unmatched = [j for j in range(len(second)) if j not in matches]
    if unmatched:
        taken = set(matches.values())
        digests = {
            sha256_of(photo_bytes(photo.path)): i
            for i, photo in enumerate(first.photos)
            if i not in taken
        }
        matches |= {
            j: digests[digest]
            for j in unmatched
            if (digest := sha256_of(photo_bytes(second.photos[j].path))) in digests
        }
    return sorted((i, j) for j, i in matches.items())


def compare_labellings(
    first: Dataset, second: Dataset, rng: np.random.Generator | None = None
) -> Agreement:
    """Measure the agreement of two annotations of the same photos.

    Args:
        first, second: Annotations to compare. Their class lists may differ. Photos that only one
            of them has are named in the result and not compared.
        rng: Random generator that draws the resamples for the confidence intervals. Default: no
            intervals are computed.

    Returns:
        Agreement per photo, per class and over all photos.

    Raises:
        ShelfcountError: If the annotations share no photo, give a photo two sizes, or a photo
            cannot be read.
    """
    names = Path(first.name).name or "first", Path(second.name).name or "second"
    a, b = align_classes(first, second)
    shared = shared_photos(a, b)
    if not shared:
        raise ShelfcountError(
            f"'{names[0]}' ({plural(len(a), 'photo')}) and '{names[1]}' "
            f"({plural(len(b), 'photo')}) have no photo in common. Agreement is measured on photos "
            "that are in both: give two annotations of the same photos."
        )
    photos = tuple(_compare(a.photos[i], b.photos[j]) for i, j in shared)
    unshared = [
        tuple(
            photo.path.name
            for k, photo in enumerate(data.photos)
            if k not in {pair[side] for pair in shared}
        )
        for side, data in enumerate((a, b))
    ]
    return Agreement(
        names, a.classes, photos, (unshared[0], unshared[1]), interval(photos, rng) if rng else {}
    )


def _compare(photo: Photo, other: Photo) -> PhotoAgreement:
    if (photo.width, photo.height) != (other.width, other.height):
        sizes = f"{photo.width} x {photo.height} and {other.width} x {other.height}"
        raise ShelfcountError(
            f"photo '{photo.path.name}' has two sizes in the two annotations, {sizes}. "
            "Export both annotations from the same photos."
        )
    a, b = photo.truth, other.truth
    # In float64, so that swapping the annotations does not change the decision on boxes whose IoU
    # is exactly at the limit.
    overlap = iou(a.boxes.astype(np.float64), b.boxes.astype(np.float64))
    overlap[a.ignore] = 0
    overlap[:, b.ignore] = 0
    near = overlap >= SAME_LABELLED_IOU
    pairs = np.stack(
        linear_sum_assignment(
            np.where(near, overlap + CLASS_BONUS * (a.classes[:, None] == b.classes), 0),
            maximize=True,
        ),
        1,
    )
    pairs = pairs[near[pairs[:, 0], pairs[:, 1]]].astype(np.int64)
    alone = _alone(a, b, pairs[:, 0]), _alone(b, a, pairs[:, 1])
    return PhotoAgreement(photo, a, b, pairs, overlap[pairs[:, 0], pairs[:, 1]], alone)


def _alone(mine: Detections, other: Detections, paired: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (n,) bool: unpaired products of `mine` outside the `ignore` boxes of `other`."""
    alone = ~mine.ignore
    alone[paired] = False
    inside = intersection(
        mine.boxes.astype(np.float64), other.boxes[other.ignore].astype(np.float64)
    )
    return alone & ~(inside >= SAME_LABELLED_IOU * area(mine.boxes)[:, None]).any(axis=1)
