"""Detections of one product in several photos: grouping, class vote, and choice of the best view.

Detections of two photos are one product if they agree inside the part of the shelf that both
photos show; two detections of one photo never are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections
from shelfcount.shelf.count import CountedPhoto
from shelfcount.shelf.photo_features import PhotoFeatures
from shelfcount.shelf.registration import Registration
from shelfcount.vision import boxes as box_math
from shelfcount.vision.homography import inverse, map_boxes

# Minimum IoU in the common part for two detections to be one product, if they have the same class
# and if they do not. Products at the back of the board shift against the others from photo to
# photo.
SAME_CLASS_IOU = 0.3
OTHER_CLASS_IOU = 0.5
# Minimum share of a product that the common part must contain for a comparison.
MIN_PART = 0.1
# A box is cut if it ends this close to the border, as a share of its side. It is a piece of another
# box that contains at least this share of its area.
_CUT_SHARE = 0.05
_PIECE_SHARE = 0.8
# A photo that shows the position of a product but does not detect it gets this share of the score
# threshold as its score. On 24 drinks validation photos, each cut in three and counted by the int8
# detector, the merged count was 105 % of the labelled products, and 115 % without this vote. Shares
# from 0 to 0.75 made no difference to the count error.
MISSING_VOTE = 0.5


# ---------------------------------------------------------------------------- one shelf


@dataclass(frozen=True, eq=False)
class ShelfDetections:
    """Detections of all photos of a shelf; index i of each array is detection i.

    Attributes:
        detections: Detections of all photos, each with its box in units of its photo.
        photo: (n,) int64, photo of each detection.
        index: (n,) int64, index of each detection in its photo.
        cut: (n,) bool, whether the box ends at the border of its photo.
        views: Registration data of the photos.
        onto: (photos, n, 4) float64, box of each detection in units of each photo; NaN if the two
            photos show no common part of the shelf.
        front: (n, 4) float64, box of each detection on the front of the shelf.
    """

    detections: Detections
    photo: NDArray[np.int64]
    index: NDArray[np.int64]
    cut: NDArray[np.bool_]
    views: tuple[PhotoFeatures, ...]
    onto: NDArray[np.float64]
    front: NDArray[np.float64]


def gather_detections(
    group: Sequence[int],
    photos: Sequence[CountedPhoto],
    views: Sequence[PhotoFeatures],
    registration: Registration,
) -> ShelfDetections:
    """Collect the detections of the photos of `group`, which are renumbered from 0 on."""
    looks = [views[photo] for photo in group]
    cuts = []
    for view in looks:
        frame = np.concatenate([-view.half, view.half])
        cuts.append(
            (
                np.abs(view.boxes - frame)
                < _CUT_SHARE * np.tile(view.boxes[:, 2:] - view.boxes[:, :2], 2)
            ).any(axis=1)
        )
    lengths = [len(view.boxes) for view in looks]
    steps = {(photo, photo): np.eye(3) for photo in group} | dict(registration.steps)
    steps |= {(b, a): inverse(step) for (a, b), step in registration.steps.items()}
    unknown = np.full((3, 3), np.nan)
    return ShelfDetections(
        Detections.concat(
            [
                photos[photo].detections.replace(boxes=view.boxes)
                for photo, view in zip(group, looks, strict=True)
            ]
        ),
        np.repeat(np.arange(len(group)), lengths),
        np.concatenate([np.arange(length) for length in lengths]),
        np.concatenate(cuts),
        tuple(looks),
        np.array(
            [
                np.concatenate(
                    [map_boxes(views[a].boxes, steps.get((a, b), unknown)) for a in group]
                )
                for b in group
            ]
        ),
        np.concatenate(
            [map_boxes(views[photo].boxes, registration.fronts[photo]) for photo in group]
        ),
    )


def group_detections(shelf: ShelfDetections) -> NDArray[np.int64]:
    """Return (n,) int64 numbers that are equal for detections of one product."""
    product = np.arange(len(shelf.detections))
    showing = [{int(photo)} for photo in shelf.photo]
    pairs = [
        same for a, b in combinations(range(len(shelf.views)), 2) for same in _same(shelf, a, b)
    ]
    for _, i, j in sorted(pairs, reverse=True):
        kept, dropped = product[i], product[j]
        if kept != dropped and not showing[kept] & showing[dropped]:
            product[product == dropped] = kept
            showing[kept] |= showing[dropped]
    # A piece that is too thin to agree with another photo's box is inside that box.
    for piece in np.flatnonzero(shelf.cut):
        others = np.flatnonzero(~shelf.cut & (shelf.photo != shelf.photo[piece]))
        if len(others) and (product == product[piece]).sum() == 1:
            inside = box_math.pieces_inside(
                shelf.onto[shelf.photo[others], piece], shelf.detections.boxes[others]
            )
            if inside.max() > _PIECE_SHARE:
                product[piece] = product[others[inside.argmax()]]
    return product


def _same(shelf: ShelfDetections, a: int, b: int) -> Iterator[tuple[float, int, int]]:
    """Yield detections of photos a and b that may be one product.

    Yields:
        Their IoU in the common part, increased for equal classes, and the indices of the two.
    """
    in_a, in_b = np.flatnonzero(shelf.photo == a), np.flatnonzero(shelf.photo == b)
    # The part of each box that the other photo shows too: boxes of a in units of b, and boxes of b
    # in units of a.
    mapped_a, mapped_b = shelf.onto[b, in_a], shelf.onto[a, in_b]
    part_a, part_b = _within(mapped_a, shelf.views[b]), _within(mapped_b, shelf.views[a])
    enough = [
        box_math.area(part) > MIN_PART * box_math.area(whole)
        for part, whole in ((part_a, mapped_a), (part_b, mapped_b))
    ]
    overlap = box_math.iou(part_a, _same_part(part_b, mapped_b, shelf.detections.boxes[in_b]))
    alike = shelf.detections.classes[in_a][:, None] == shelf.detections.classes[in_b][None]
    # Equal classes get a bonus: the difference between the two thresholds.
    agreement = overlap + alike * (OTHER_CLASS_IOU - SAME_CLASS_IOU)
    for i, j in np.argwhere((agreement > OTHER_CLASS_IOU) & enough[0][:, None] & enough[1][None]):
        yield float(agreement[i, j]), int(in_a[i]), int(in_b[j])


def _same_part(
    parts: NDArray[np.float64], wholes: NDArray[np.float64], boxes: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the part of each box that corresponds to `parts` of `wholes`; all are (n, 4)."""
    size = np.tile(np.maximum(wholes[:, 2:] - wholes[:, :2], 1e-9), 2)
    ratios = (parts - np.tile(wholes[:, :2], 2)) / size
    return np.asarray(
        np.tile(boxes[:, :2], 2) + ratios * np.tile(boxes[:, 2:] - boxes[:, :2], 2), np.float64
    )


def _within(boxes: NDArray[np.floating], view: PhotoFeatures) -> NDArray[np.float64]:
    return np.clip(boxes, *(sign * np.tile(view.half, 2) for sign in (-1, 1)))


def elect_class(shelf: ShelfDetections, members: NDArray[np.int64]) -> int:
    """Return the class with the highest sum of scores among the detections of one product.

    Cut detections are left out if another detection is complete.
    """
    voters = members[~shelf.cut[members]] if not shelf.cut[members].all() else members
    return int(
        np.bincount(shelf.detections.classes[voters], shelf.detections.scores[voters]).argmax()
    )


def best_detection(shelf: ShelfDetections, members: NDArray[np.int64], elected: int) -> int:
    """Return the detection with the best view of a product.

    Complete detections are preferred, then those of the elected class, then the highest score. If
    all detections are cut, it is the largest.
    """
    if shelf.cut[members].all():
        return int(members[box_math.area(shelf.front[members]).argmax()])
    order = np.lexsort(
        (
            shelf.detections.scores[members],
            shelf.detections.classes[members] == elected,
            ~shelf.cut[members],
        )
    )
    return int(members[order[-1]])


def product_front_box(
    shelf: ShelfDetections, members: NDArray[np.int64], best: int
) -> NDArray[np.float64]:
    """Return the (4,) xyxy box of a product on the front.

    It encloses all pieces if no photo shows the product completely.
    """
    if not shelf.cut[best]:
        return np.asarray(shelf.front[best])
    return np.asarray(box_math.enclosing_box(shelf.front[members]), np.float64)


def believed_products(
    shelf: ShelfDetections,
    members: Sequence[NDArray[np.int64]],
    best: NDArray[np.int64],
    score_threshold: float,
) -> NDArray[np.bool_]:
    """Return (n,) bool: whether the mean score of a product is at least the score threshold.

    The mean is over all photos that detect the product or show its position completely. Without
    this vote, each further photo would add its false positives to the count, while other photos
    make up for its false negatives.
    """
    score = np.full((len(members), len(shelf.views)), -1.0)
    for row, detections in zip(score, members, strict=True):
        np.maximum.at(row, shelf.photo[detections], shelf.detections.scores[detections])
    for column, view in enumerate(shelf.views):
        mapped = shelf.onto[column, best]
        missed = (_within(mapped, view) == mapped).all(axis=1) & (score[:, column] < 0)
        score[missed, column] = MISSING_VOTE * score_threshold
    voting = score >= 0
    total = np.where(voting, score, 0).sum(axis=1)
    return np.asarray(total >= (score_threshold - 1e-6) * voting.sum(axis=1))
