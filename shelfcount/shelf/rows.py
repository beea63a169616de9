"""Which shelf row each product stands in, and where in the row, from the boxes alone.

Products of one row stand on one shelf, so the *bottom* edges line up, whatever the heights. In a
tilted photo, or one taken from the side, the shelves are no level lines but lines of one pencil
that meet far outside the photo. So: find the pencil that lines up most bottoms, read each bottom's
height on the middle of the photo along it, and the rows are the heights where many meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

# Steepest shelf in the middle of the photo (tilt of 15 degrees and some yaw above or below the
# camera) and strongest convergence: a yaw of 30 degrees through a phone's 65-degree lens makes the
# products at one side 1 / (1 - 0.64 * 0.58) = 1.6 times as large as in the middle.
STEEPEST = 0.45
MOST_CONVERGENCE = 0.6
# All below are shares of a product's height. Bottoms of one row scatter by the detector's error and
# by products that stand further back; rows are more than a product apart.
ROW_SCATTER = 0.25
# A product may rest on another if its bottom is at most so far above (gap) or below (overlap) the
# other's top: boxes of stacked cans overlap, a shelf board and the hand's room make a gap.
STACK_GAP = 0.2
STACK_OVERLAP = 0.35
# A line of bottoms is a layer, and no shelf, if more than this share of it rests on one other line.
# It and the gaps were chosen by eye on seven drinks training photos, with stacks or with tight shelves.
STACK_VOTE = 0.6
# Stacked products are alike: width and height differ by less than this factor, middles by less than
# this share of the width.
STACK_LIKENESS = 1.35
STACK_SHIFT = 0.3


@dataclass(frozen=True, eq=False)
class Placement:
    """Row and position of each box, in the order of the boxes.

    Attributes:
        row: (n,) int64, 0 for the top row.
        position: (n,) int64, 0 for the leftmost product of its row, each number once in a row. Of
            stacked products, which belong to the row they rest on, the lowest comes first.
        n_rows: How many rows there are.
    """

    row: np.ndarray
    position: np.ndarray
    n_rows: int


@dataclass(frozen=True)
class _Pencil:
    """Shelf lines: the one at height v in the middle of the photo is ``y = v + (tilt + fan * v) * x``.

    x and y are measured from the middle of the boxes, x in units of half their extent `half` (pixels).
    """

    middle: tuple[float, float]
    half: float
    tilt: float
    fan: float

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Where the shelf line through each point (pixels) crosses the middle of the photo, pixels."""
        x, y = (x - self.middle[0]) / self.half, y - self.middle[1]
        return (y - self.tilt * x) / (1 + self.fan * x)

    def scale(self, x: np.ndarray) -> np.ndarray:
        """Upright pixels at x in pixels for one pixel in the middle of the photo."""
        return 1 + self.fan * (x - self.middle[0]) / self.half


@dataclass(frozen=True)
class _Standing:
    """The boxes as they would stand in a level photo taken from the front.

    All (n,) float64, pixels, y down. `lean` is (n, 2): least and most that one pixel upwards moves a
    product to the right. Tilt leans products and yaw does not, and boxes alone don't tell the two apart.
    """

    x: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    width: np.ndarray
    lean: np.ndarray

    @property
    def height(self) -> np.ndarray:
        return self.bottom - self.top


def rows(boxes: np.ndarray) -> Placement:
    """Rows from top to bottom, and positions from left to right.

    Holds for tilt to 15 degrees with yaw to 30 degrees, products of different heights and gaps;
    stacks are told from shelves reliably to a yaw of 15 degrees.

    Args:
        boxes: (n, 4) xyxy pixels, any order; boxes of no size count as one pixel.

    Returns:
        n entries; no rows for no boxes.

    Raises:
        ValueError: If `boxes` is not (n, 4).

    >>> rows(np.array([[50, 0, 90, 80], [0, 10, 40, 81], [0, 150, 40, 220]])).position.tolist()
    [1, 0, 0]
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (n, 4), got {boxes.shape}")
    if not len(boxes):
        return Placement(np.zeros(0, np.int64), np.zeros(0, np.int64), 0)
    standing = _straighten(boxes, _fit_pencil(boxes))
    below, gap = _stacked_on(standing)
    row = _join(standing, below, gap, _lines(standing))
    position = np.zeros(len(boxes), np.int64)
    # A stack stays one column, though tilt leans it over its neighbours.
    foot = _ends(np.where(row[below] == row, below, np.arange(len(boxes))))
    for number in range(row.max() + 1):
        members = np.flatnonzero(row == number)
        order = np.lexsort((-standing.bottom[members], foot[members], standing.x[foot[members]]))
        position[members[order]] = np.arange(len(members))
    return Placement(row, position, int(row.max()) + 1)


def _fit_pencil(boxes: np.ndarray) -> _Pencil:
    """The pencil of lines on which most bottoms meet: a search from coarse to fine."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]
    height = float(max(np.median(boxes[:, 3] - boxes[:, 1]), 1))
    middle = ((x.min() + x.max()) / 2, (y.min() + y.max()) / 2)
    half, reach = max((x.max() - x.min()) / 2, height), max((y.max() - y.min()) / 2, height)
    # One step moves the outermost bottom by as much as the blur of the coarse search forgives.
    blur = 0.2 * height
    tilts = np.linspace(-1, 1, 2 * int(np.ceil(STEEPEST * half / blur)) + 1) * STEEPEST * half
    fans = (
        np.linspace(-1, 1, 2 * int(np.ceil(MOST_CONVERGENCE * reach / blur)) + 1) * MOST_CONVERGENCE
    )
    best = (0.0, 0.0)
    tilt_step, fan_step = tilts[1] - tilts[0], fans[1] - fans[0]
    candidates = list(product(tilts, fans))
    for _ in range(4):
        scores = [
            _meeting(_Pencil(middle, half, *c).height(x, y), blur) - _oddness(c, half, len(x))
            for c in candidates
        ]
        best = candidates[int(np.argmax(scores))]
        blur, tilt_step, fan_step = blur / 1.6, tilt_step / 2, fan_step / 2
        candidates = [
            (best[0] + i * tilt_step, best[1] + j * fan_step)
            for i in range(-2, 3)
            for j in range(-2, 3)
        ]
    return _Pencil(middle, half, *best)


def _meeting(heights: np.ndarray, blur: float) -> float:
    """About how many pairs of heights lie within `blur` of each other: a histogram's products, O(n)."""
    bins = ((heights - heights.min()) / blur).astype(int)
    count = np.bincount(bins, minlength=2)
    return float((count * (count - 1)).sum() / 2 + (count[1:] * count[:-1]).sum() / 2)


def _oddness(candidate: tuple[float, float], half: float, n: int) -> float:
    """Pairs that must meet for a steep pencil to be preferred to a level one; decides where boxes are few."""
    tilt, fan = candidate
    return n / 4 * ((tilt / half / STEEPEST) ** 2 + (fan / MOST_CONVERGENCE) ** 2)


def _straighten(boxes: np.ndarray, pencil: _Pencil) -> _Standing:
    x = (boxes[:, 0] + boxes[:, 2]) / 2
    width, height = np.maximum(boxes[:, 2:] - boxes[:, :2], 1).T
    tilt = pencil.tilt / pencil.half
    slope = (pencil.tilt + pencil.fan * pencil.height(x, boxes[:, 3])) / pencil.half
    lean = np.stack([np.minimum(slope, min(tilt, 0)), np.maximum(slope, max(tilt, 0))], axis=1)
    # The box around a slanting product ends below its foot and above its head, by half its width's
    # slant; part of the box's width is the product's height, leaning.
    width = np.clip((width - abs(tilt) * height) / (1 - tilt**2), 0.3 * width, width)
    overhang = np.minimum(np.abs(slope) * width / 2, height / 4)
    bottom = pencil.height(x, boxes[:, 3] - overhang)
    scale = pencil.scale(x)
    upright = (height - 2 * overhang) * (1 + tilt**2) / scale
    return _Standing(x - tilt * height / 2, bottom - upright, bottom, width / scale, lean)


def _stacked_on(standing: _Standing) -> tuple[np.ndarray, np.ndarray]:
    """The product each one may rest on, and the gap between as a share of their height.

    Returns:
        (n,) int64 indices, a box's own where it rests on none; (n,) float64, negative for overlap.
    """
    n = len(standing.x)
    height, width = standing.height, standing.width
    gap = (standing.top[None] - standing.bottom[:, None]) / np.minimum(
        height[:, None], height[None]
    )
    alike = np.ones((n, n), bool)
    for size in (height, width):
        alike &= np.maximum(size[:, None] / size[None], size[None] / size[:, None]) < STACK_LIKENESS
    aside = standing.x[:, None] - standing.x[None]
    least, most = standing.lean.T * height
    shift = np.maximum(least[None] - aside, aside - most[None]) / np.minimum(
        width[:, None], width[None]
    )
    rests = alike & (gap < STACK_GAP) & (gap > -STACK_OVERLAP) & (shift < STACK_SHIFT)
    np.fill_diagonal(rests, False)
    below = np.where(
        rests.any(axis=1), np.where(rests, np.abs(gap), np.inf).argmin(axis=1), np.arange(n)
    )
    return below, gap[np.arange(n), below]


def _ends(following: np.ndarray) -> np.ndarray:
    """(n,) where one ends up who goes from i to following[i] and on, until a place leads to itself."""
    while (further := following[following]).tolist() != following.tolist():
        following = further
    return following


def _lines(standing: _Standing) -> list[np.ndarray]:
    """Indices of the boxes of each line on which bottoms meet, the fullest line first."""
    left = np.arange(len(standing.x))
    lines = []
    while len(left):
        bottom, scatter = standing.bottom[left], ROW_SCATTER * standing.height[left]
        fullest = (np.abs(bottom[:, None] - bottom[None]) < scatter[None]).sum(axis=1).argmax()
        members = np.abs(bottom - bottom[fullest]) < scatter
        members = (np.abs(bottom - np.median(bottom[members])) < scatter) | (
            np.arange(len(left)) == fullest
        )
        lines.append(left[members])
        left = left[~members]
    return lines


def _join(
    standing: _Standing, below: np.ndarray, gap: np.ndarray, lines: list[np.ndarray]
) -> np.ndarray:
    """(n,) row numbers, 0 for the top: a line joins the one that most of it rests on, or the fuller one it stands beside."""
    line_of = np.zeros(len(standing.x), np.int64)
    for number, members in enumerate(lines):
        line_of[members] = number
    joined = np.arange(len(lines))
    for number, members in enumerate(lines):
        for other in np.flatnonzero(joined != number):
            resting = members[line_of[below[members]] == other]
            # The mean gap of many is better known than the gap of one.
            stacked = len(resting) > STACK_VOTE * len(members) and gap[
                resting
            ].mean() < STACK_GAP / np.sqrt(len(resting))
            if stacked or (
                other < number and _beside(standing, members, lines[other]).mean() > 0.5
            ):
                joined[joined == number] = joined[other]
                break
    row = joined[line_of]
    kept = np.unique(row)
    heights = [np.median(standing.bottom[lines[number]]) for number in kept]
    return np.argsort(np.argsort(heights))[np.searchsorted(kept, row)]


def _beside(standing: _Standing, members: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(len(members),) bool: overlaps the nearest of `others` upright by more than half of the shorter one."""
    nearest = others[np.abs(standing.x[members][:, None] - standing.x[others][None]).argmin(axis=1)]
    common = np.minimum(standing.bottom[members], standing.bottom[nearest]) - np.maximum(
        standing.top[members], standing.top[nearest]
    )
    return common > 0.5 * np.minimum(standing.height[members], standing.height[nearest])
