"""Checks of the boxes of one photo: duplicate boxes, oversized boxes, and gaps in rows.

The limits were chosen on the training photos of the drinks data (180 photos, 5,285 boxes) and on
the same photos with artificial faults. The comment on each constant gives the measured values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shelfcount.vision import boxes as box_math

# Minimum IoU of duplicate boxes. The IoU of two products was always below 0.3, that of the one
# duplicate box 0.9. Two annotators' boxes of one product have an IoU of at least 0.6.
DOUBLED_IOU = 0.6
# A box is compared with the median of its 5 nearest neighbours of the same class, and of the same
# row: the median is robust to one bad box.
NEIGHBOURS = 5
# Minimum ratio of sides, and minimum share of a neighbour that an oversized box covers. Of boxes
# enlarged to 1.5 to 1.8 times their sides, 97 % exceed both limits; no box as labelled does.
# Bottles of 1.5 litres beside bottles of 0.5 litres exceed the first, but do not cover their
# neighbours.
OVERSIZED = 1.4
OVERSIZED_COVER = 0.2
# Minimum vertical overlap of two boxes of a row, as a share of the lower one.
ROW_OVERLAP = 0.5
# Widths of gaps, as shares of the neighbour's width. A product fits into a gap of 0.8, since boxes
# are drawn with a margin. Most gaps of more than 3.5 are between two separate shelves.
MIN_IN_ROW = 3
_MIN_GAP = 0.8
MAX_GAP = 3.5
# Distance from one product to the next on a full shelf, in widths, and maximum absolute slope of a
# row.
_STEP = 1.03
_MAX_SLOPE = 0.3
# Maximum overlap of a proposed box with a labelled or ignored box, as a share of the smaller of the
# two.
MAX_COVERED_SHARE = 0.25


class LabelGap(NamedTuple):
    """Gap in a row that may contain an unlabelled product.

    Attributes:
        box: (4,) float64 xyxy, pixels, box that the product would have.
        beside: Index of the labelled box from which `box` was derived.
    """

    box: NDArray[np.float64]
    beside: int


def find_duplicate_boxes(boxes: NDArray[np.floating]) -> list[tuple[int, int, float]]:
    """Return pairs of boxes that likely label the same product.

    Args:
        boxes: (n, 4) xyxy, pixels.

    Returns:
        (lower index, higher index, IoU) of each pair with an IoU of at least `DOUBLED_IOU`.
    """
    overlap = np.triu(box_math.iou(boxes, boxes), 1)
    return [(int(i), int(j), float(overlap[i, j])) for i, j in np.argwhere(overlap >= DOUBLED_IOU)]


def oversized(boxes: NDArray[np.floating], classes: NDArray[np.int64]) -> list[tuple[int, float]]:
    """Return boxes that are much larger than their neighbours and cover one of them in part.

    Args:
        boxes: (n, 4) xyxy, pixels.
        classes: (n,) int64, class indices.

    Returns:
        (index, ratio) of each such box. The ratio is that of its width or height, whichever is
        larger, to the median of its neighbours: of the same class or of the same row, whichever
        gives the smaller ratio.
    """
    boxes = boxes.astype(np.float64)
    sides, middles = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    covered = box_math.intersection(boxes, boxes) / np.maximum(box_math.area(boxes), 1)
    # Duplicate boxes have a finding of their own, and a box does not cover itself.
    covered[box_math.iou(boxes, boxes) >= DOUBLED_IOU] = 0
    large = []
    for i in np.flatnonzero(covered.max(axis=1, initial=0) >= OVERSIZED_COVER).tolist():
        distance = np.hypot(*(middles - middles[i]).T)
        ratios = []
        # A box of the same class is better evidence than a box of the same row, so one is enough.
        for alike, minimum in ((classes == classes[i], 1), (_same_row(boxes, i), 2)):
            others = np.flatnonzero(alike & (np.arange(len(boxes)) != i))
            if len(others) >= minimum:
                nearest = others[np.argsort(distance[others], kind="stable")[:NEIGHBOURS]]
                ratios.append(float((sides[i] / np.median(sides[nearest], axis=0)).max()))
        if ratios and min(ratios) >= OVERSIZED:
            large.append((i, min(ratios)))
    return large


def _same_row(boxes: NDArray[np.floating], i: int) -> NDArray[np.bool_]:
    """Return (n,) bool: boxes in the row of box i, including box i itself."""
    height = boxes[:, 3] - boxes[:, 1]
    common = np.minimum(boxes[:, 3], boxes[i, 3]) - np.maximum(boxes[:, 1], boxes[i, 1])
    return np.asarray(common > ROW_OVERLAP * np.minimum(height, height[i]))


def find_label_gaps(
    boxes: NDArray[np.floating], ignored: NDArray[np.floating], width: int, height: int
) -> list[LabelGap]:
    """Return gaps between two boxes of a row into which a product like one of them would fit.

    The ends of rows are left out: most of the drinks photos show the side of the cooler there.

    Args:
        boxes: (n, 4) xyxy, pixels of the photo.
        ignored: (m, 4) xyxy, boxes marked `ignore`. Areas that they cover are not gaps.
        width, height: Size of the photo in pixels.

    Returns:
        At most one gap on each side of each box. Gaps derived from both sides of the same gap
        overlap.
    """
    boxes = boxes.astype(np.float64)
    x, taken = (boxes[:, 0] + boxes[:, 2]) / 2, np.concatenate([boxes, ignored])
    places = []
    for i in range(len(boxes)):
        row = _same_row(boxes, i)
        if row.sum() < MIN_IN_ROW:
            continue
        for side in (1, -1):
            ahead = np.flatnonzero(row & ((x - x[i]) * side > 0))
            if not len(ahead):
                continue
            neighbour = ahead[np.abs(x[ahead] - x[i]).argmin()]
            box_width = boxes[i, 2] - boxes[i, 0]
            gap = (
                boxes[neighbour, 0] - boxes[i, 2] if side > 0 else boxes[i, 0] - boxes[neighbour, 2]
            )
            if not _MIN_GAP * box_width <= gap <= MAX_GAP * box_width:
                continue
            slope = np.clip(
                (boxes[neighbour, 3] - boxes[i, 3]) / (x[neighbour] - x[i]), -_MAX_SLOPE, _MAX_SLOPE
            )
            place = boxes[i] + _STEP * box_width * side * np.array([1, slope, 1, slope])
            covered = box_math.overlap_of_smaller(place[None], taken).max()
            if (
                covered <= MAX_COVERED_SHARE
                and (place[:2] >= 0).all()
                and place[2] <= width
                and place[3] <= height
            ):
                places.append(LabelGap(place, i))
    return places
