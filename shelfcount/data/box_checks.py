"""What the boxes of one photo say by themselves: doubled, far too large, askew, and gaps in their rows.

The limits were chosen on the training photos of the drinks data (180 photos, 5,285 boxes) and on
the same photos with a fault put in; each constant says what was seen there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shelfcount.vision import boxes as box_math

# Two products never overlapped by an IoU of 0.3 or more; the one doubled box did by 0.9. Two people drawing one
# product agree to 0.6 and more.
DOUBLED_IOU = 0.6
# Of each of its 5 nearest neighbours' kind a box is compared with the median, which one odd neighbour cannot move.
NEIGHBOURS = 5
# A box grown by half to 1.8 times its sides passes both limits in 97 of 100 cases, and no box as labelled does: bottles
# of 1.5 litres beside those of half a litre pass the first, but do not reach over their neighbours.
OVERSIZED = 1.4
OVERSIZED_COVER = 0.2
# Rows that neighbours show: pairs that overlap upright by half, are alike in height to 20 %, and stand at most 3 widths apart.
ROW_OVERLAP = 0.5
PAIR_LIKENESS = 1.2
PAIR_REACH = 3.0
FEWEST_PAIRS = 6
# A product fits a gap of 0.8 of its neighbour's width, as boxes are drawn with some air. Gaps of more than 3.5 are
# mostly the end of one shelf and the beginning of the next.
FEWEST_IN_ROW = 3
LEAST_GAP = 0.8
MOST_GAP = 3.5
# Steps from one product to the next on a full shelf, in widths.
STEP = 1.03
STEEPEST = 0.3
# More of a proposed box, or of its neighbour, than this covered by labelled boxes means that it is no gap.
MOST_COVERED = 0.25


class Gap(NamedTuple):
    """A place in a row where a product may have been left unlabelled.

    Attributes:
        box: (4,) float64 xyxy, where it would stand.
        beside: Index of the labelled box that it was derived from.
    """

    box: np.ndarray
    beside: int


def doubled(boxes: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of boxes that lie on one product.

    Args:
        boxes: (n, 4) xyxy.

    Returns:
        Indices, the lower first, and IoU of each pair.
    """
    overlap = np.triu(box_math.iou(boxes, boxes), 1)
    return [(int(i), int(j), float(overlap[i, j])) for i, j in np.argwhere(overlap >= DOUBLED_IOU)]


def oversized(boxes: np.ndarray, classes: np.ndarray) -> list[tuple[int, float]]:
    """Boxes much wider or higher than those of their class and of their row around them, that reach over a neighbour.

    Args:
        boxes: (n, 4) xyxy pixels.
        classes: (n,) class indices.

    Returns:
        Index, and how many times as wide or high as its neighbours (the lesser of class and row).
    """
    boxes = boxes.astype(np.float64)
    sides, middles = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    covered = box_math.intersection(boxes, boxes) / np.maximum(box_math.area(boxes), 1)
    # Doubled boxes are told as such, and a box does not cover itself.
    covered[box_math.iou(boxes, boxes) >= DOUBLED_IOU] = 0
    found = []
    for i in np.flatnonzero(covered.max(axis=1, initial=0) >= OVERSIZED_COVER).tolist():
        distance = np.hypot(*(middles - middles[i]).T)
        ratios = []
        # One of its class says more than one that merely stands beside it.
        for alike, fewest in ((classes == classes[i], 1), (_same_row(boxes, i), 2)):
            others = np.flatnonzero(alike & (np.arange(len(boxes)) != i))
            if len(others) >= fewest:
                nearest = others[np.argsort(distance[others], kind="stable")[:NEIGHBOURS]]
                ratios.append(float((sides[i] / np.median(sides[nearest], axis=0)).max()))
        if ratios and min(ratios) >= OVERSIZED:
            found.append((i, min(ratios)))
    return found


def _same_row(boxes: np.ndarray, i: int) -> np.ndarray:
    """(n,) bool: stands beside box i, which is itself among them."""
    height = boxes[:, 3] - boxes[:, 1]
    common = np.minimum(boxes[:, 3], boxes[i, 3]) - np.maximum(boxes[:, 1], boxes[i, 1])
    return common > ROW_OVERLAP * np.minimum(height, height[i])


def tilt(boxes: np.ndarray) -> float | None:
    """Slope of the shelves in degrees, from the feet of neighbours; positive where the right side hangs down.

    The median over all pairs: seen from the side, shelves above and below the camera slope against each
    other and cancel.

    Args:
        boxes: (n, 4) xyxy pixels.

    Returns:
        None where fewer than `FEWEST_PAIRS` neighbours tell it.
    """
    boxes = boxes.astype(np.float64)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    x = (boxes[:, 0] + boxes[:, 2]) / 2
    slopes = []
    for i in range(len(boxes)):
        ratio = height / max(height[i], 1e-6)
        aside = x - x[i]
        reachable = (aside > width[i] / 2) & (aside < PAIR_REACH * width[i])
        pairs = np.flatnonzero(
            _same_row(boxes, i) & (ratio < PAIR_LIKENESS) & (ratio > 1 / PAIR_LIKENESS) & reachable
        )
        if len(pairs):
            nearest = pairs[aside[pairs].argmin()]
            slopes.append((boxes[nearest, 3] - boxes[i, 3]) / aside[nearest])
    return float(np.degrees(np.arctan(np.median(slopes)))) if len(slopes) >= FEWEST_PAIRS else None


def gaps(boxes: np.ndarray, ignored: np.ndarray, width: int, height: int) -> list[Gap]:
    """Places between two boxes of a row that a product like one of them would fill.

    The ends of rows are left out: the drinks photos mostly show the side of the cooler there.

    Args:
        boxes: (n, 4) xyxy pixels.
        ignored: (m, 4) boxes marked `ignore`; what they cover is no gap.
        width, height: Of the photo.

    Returns:
        At most one on each side of each box; those derived from both sides of a gap overlap.
    """
    boxes = boxes.astype(np.float64)
    x, taken = (boxes[:, 0] + boxes[:, 2]) / 2, np.concatenate([boxes, ignored])
    found = []
    for i in range(len(boxes)):
        row = _same_row(boxes, i)
        if row.sum() < FEWEST_IN_ROW:
            continue
        for side in (1, -1):
            ahead = np.flatnonzero(row & ((x - x[i]) * side > 0))
            if not len(ahead):
                continue
            neighbour = ahead[np.abs(x[ahead] - x[i]).argmin()]
            own = boxes[i, 2] - boxes[i, 0]
            gap = (
                boxes[neighbour, 0] - boxes[i, 2] if side > 0 else boxes[i, 0] - boxes[neighbour, 2]
            )
            if not LEAST_GAP * own <= gap <= MOST_GAP * own:
                continue
            slope = np.clip(
                (boxes[neighbour, 3] - boxes[i, 3]) / (x[neighbour] - x[i]), -STEEPEST, STEEPEST
            )
            place = boxes[i] + STEP * own * side * np.array([1, slope, 1, slope])
            covered = box_math.overlap_of_smaller(place[None], taken).max()
            if (
                covered <= MOST_COVERED
                and (place[:2] >= 0).all()
                and place[2] <= width
                and place[3] <= height
            ):
                found.append(Gap(place, i))
    return found
