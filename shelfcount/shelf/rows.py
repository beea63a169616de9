"""Shelf rows: row and position of each product, from the boxes alone.

Products of one row share a shelf board, so their *bottom* edges line up, whatever their heights.
In a photo that is tilted or taken from the side, the boards are not parallel lines but a pencil of
lines that meet far outside the photo. The search finds the pencil that lines up most bottom edges,
projects each bottom edge along it onto the middle of the photo, and takes the heights at which many
of them meet as rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

# Maximum slope of a shelf in the middle of the photo (a tilt of 15 degrees and some yaw above or
# below the camera) and maximum convergence: at a yaw of 30 degrees through a phone's 65-degree
# lens, products at one side are 1 / (1 - 0.64 * 0.58) = 1.6 times as large as in the middle.
_MAX_SLOPE = 0.45
MAX_CONVERGENCE = 0.6
# The following lengths are shares of a product's height. Bottom edges of one row scatter because
# of the detector's error and of products at the back of the board; rows are more than a product
# apart.
ROW_SCATTER = 0.25
# Maximum distance of a product's bottom above (gap) or below (overlap) the top of the product it
# rests on. Boxes of stacked cans overlap; a shelf board and the space above products make a gap.
STACK_GAP = 0.2
STACK_OVERLAP = 0.35
# A line of bottom edges is the upper layer of a stack, not a shelf, if more than this share of it
# rests on one other line. This share and the gaps were chosen by eye on seven drinks training
# photos, with stacks or with narrow shelves.
STACK_VOTE = 0.6
# Stacked products have similar sizes: width and height differ by less than this factor, and the
# middles by less than this share of the width.
STACK_LIKENESS = 1.35
STACK_SHIFT = 0.3


@dataclass(frozen=True, eq=False)
class Placement:
    """Row and position of each box, in the order of the boxes.

    Attributes:
        row: (n,) int64, 0 for the top row.
        position: (n,) int64, 0 for the leftmost product of its row; unique within a row. Stacked
            products belong to the row of the product they rest on, and the lowest has the lowest
            position.
        n_rows: Number of rows.
    """

    row: NDArray[np.int64]
    position: NDArray[np.int64]
    n_rows: int

    def pairs(self) -> list[tuple[int, int]]:
        """Return (row, position) of each box."""
        return list(zip(self.row.tolist(), self.position.tolist(), strict=True))

    def by_row(self, names: Sequence[str]) -> list[list[str]]:
        """Return the names of each row from left to right, the top row first.

        Args:
            names: Name of each box.
        """
        named: list[list[str]] = [[] for _ in range(self.n_rows)]
        for i in np.lexsort((self.position, self.row)):
            named[self.row[i]].append(names[i])
        return named


@dataclass(frozen=True)
class _Pencil:
    """Pencil of shelf lines: ``y = v + (tilt + fan * v) * x`` is the line of height v.

    v is the height at which the line crosses the middle of the photo. x and y are measured from the
    middle of the boxes; x is in units of half the horizontal extent of the boxes, `half` (pixels).
    """

    middle: tuple[float, float]
    half: float
    tilt: float
    fan: float

    def height(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the height in pixels at which the line through each point crosses the middle."""
        x, y = (x - self.middle[0]) / self.half, y - self.middle[1]
        return (y - self.tilt * x) / (1 + self.fan * x)

    def scale(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the vertical scale at x (pixels) relative to the middle of the photo."""
        return 1 + self.fan * (x - self.middle[0]) / self.half


@dataclass(frozen=True)
class _Standing:
    """Boxes as in a level photo from the front.

    All arrays are (n,) float64, pixels, y down. `lean` is (n, 2): minimum and maximum displacement
    to the right per pixel upwards. Tilt makes products lean and yaw does not, but boxes alone do
    not distinguish tilt and yaw.
    """

    x: NDArray[np.float64]
    top: NDArray[np.float64]
    bottom: NDArray[np.float64]
    width: NDArray[np.float64]
    lean: NDArray[np.float64]

    @property
    def height(self) -> NDArray[np.float64]:
        return self.bottom - self.top


def assign_rows(boxes: NDArray[np.floating]) -> Placement:
    """Return the rows of boxes from top to bottom, and their positions from left to right.

    Rows are reliable up to a tilt of 15 degrees with a yaw of 30 degrees, for products of different
    heights and with gaps. Stacks are distinguished from shelves reliably up to a yaw of 15 degrees.

    Args:
        boxes: (n, 4) xyxy pixels, any order; boxes of zero size count as one pixel.

    Returns:
        Placement with n entries; it has no rows if there are no boxes.

    Raises:
        ValueError: If `boxes` is not (n, 4).

    >>> boxes = np.array([[50.0, 0, 90, 80], [0, 10, 40, 81], [0, 150, 40, 220]])
    >>> assign_rows(boxes).position.tolist()
    [1, 0, 0]
    """
    exact = np.asarray(boxes, np.float64)
    if exact.ndim != 2 or exact.shape[1] != 4:
        raise ValueError(f"boxes must have shape (n, 4), got {exact.shape}")
    if not len(exact):
        return Placement(np.zeros(0, np.int64), np.zeros(0, np.int64), 0)
    standing = _straighten(exact, _fit_pencil(exact))
    below, gap = _stacked_on(standing)
    row = _join(standing, below, gap, _lines(standing))
    position = np.zeros(len(row), np.int64)
    # A stack is one column, even if it leans over its neighbours in a tilted photo.
    foot = _ends(np.where(row[below] == row, below, np.arange(len(row))))
    for number in range(row.max() + 1):
        members = np.flatnonzero(row == number)
        order = np.lexsort((-standing.bottom[members], foot[members], standing.x[foot[members]]))
        position[members[order]] = np.arange(len(members))
    return Placement(row, position, int(row.max()) + 1)


def _fit_pencil(boxes: NDArray[np.float64]) -> _Pencil:
    """Return the pencil that lines up most bottom edges, by a coarse-to-fine search."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]
    height = float(max(np.median(boxes[:, 3] - boxes[:, 1]), 1))
    middle = ((x.min() + x.max()) / 2, (y.min() + y.max()) / 2)
    half, reach = max((x.max() - x.min()) / 2, height), max((y.max() - y.min()) / 2, height)
    # One step moves the outermost bottom edge by the tolerance of the coarse search.
    blur = 0.2 * height
    tilts = np.linspace(-1, 1, 2 * int(np.ceil(_MAX_SLOPE * half / blur)) + 1) * _MAX_SLOPE * half
    fans = (
        np.linspace(-1, 1, 2 * int(np.ceil(MAX_CONVERGENCE * reach / blur)) + 1) * MAX_CONVERGENCE
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


def _meeting(heights: NDArray[np.float64], blur: float) -> float:
    """Return roughly the number of pairs of heights within `blur` of each other.

    It is computed from a histogram in O(n).
    """
    bins = ((heights - heights.min()) / blur).astype(int)
    count = np.bincount(bins, minlength=2)
    return float((count * (count - 1)).sum() / 2 + (count[1:] * count[:-1]).sum() / 2)


def _oddness(candidate: tuple[float, float], half: float, n: int) -> float:
    """Return the penalty of a pencil for its slope and convergence, in pairs of bottom edges.

    A sloping pencil needs this many more pairs than a level one. It matters if there are few boxes.
    """
    tilt, fan = candidate
    return n / 4 * ((tilt / half / _MAX_SLOPE) ** 2 + (fan / MAX_CONVERGENCE) ** 2)


def _straighten(boxes: NDArray[np.float64], pencil: _Pencil) -> _Standing:
    x = (boxes[:, 0] + boxes[:, 2]) / 2
    width, height = np.maximum(boxes[:, 2:] - boxes[:, :2], 1).T
    tilt = pencil.tilt / pencil.half
    slope = (pencil.tilt + pencil.fan * pencil.height(x, boxes[:, 3])) / pencil.half
    lean = np.stack([np.minimum(slope, min(tilt, 0)), np.maximum(slope, max(tilt, 0))], axis=1)
    # The box around a slanting product extends below its foot and above its head by half the slant
    # of its width. A part of the width of the box comes from the product's height, as it leans.
    width = np.clip((width - abs(tilt) * height) / (1 - tilt**2), 0.3 * width, width)
    overhang = np.minimum(np.abs(slope) * width / 2, height / 4)
    bottom = pencil.height(x, boxes[:, 3] - overhang)
    scale = pencil.scale(x)
    upright = (height - 2 * overhang) * (1 + tilt**2) / scale
    return _Standing(x - tilt * height / 2, bottom - upright, bottom, width / scale, lean)


def _stacked_on(standing: _Standing) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the product that each product may rest on, and the gap between the two.

    Returns:
        (n,) int64 indices, the product's own index if it rests on none; (n,) float64 gaps as a
        share of the smaller height, negative for overlap.
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
    lowest, highest = standing.lean.T * height
    shift = np.maximum(lowest[None] - aside, aside - highest[None]) / np.minimum(
        width[:, None], width[None]
    )
    rests = alike & (gap < STACK_GAP) & (gap > -STACK_OVERLAP) & (shift < STACK_SHIFT)
    np.fill_diagonal(rests, False)
    below = np.where(
        rests.any(axis=1), np.where(rests, np.abs(gap), np.inf).argmin(axis=1), np.arange(n)
    )
    return below, gap[np.arange(n), below]


def _ends(following: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the (n,) indices reached by following `following` until an index refers to itself."""
    while (further := following[following]).tolist() != following.tolist():
        following = further
    return following


def _lines(standing: _Standing) -> list[NDArray[np.int64]]:
    """Return the indices of the boxes of each line of bottom edges, the fullest line first."""
    remaining = np.arange(len(standing.x))
    lines = []
    while len(remaining):
        bottom, scatter = standing.bottom[remaining], ROW_SCATTER * standing.height[remaining]
        fullest = (np.abs(bottom[:, None] - bottom[None]) < scatter[None]).sum(axis=1).argmax()
        members = np.abs(bottom - bottom[fullest]) < scatter
        members = (np.abs(bottom - np.median(bottom[members])) < scatter) | (
            np.arange(len(remaining)) == fullest
        )
        lines.append(remaining[members])
        remaining = remaining[~members]
    return lines


def _join(
    standing: _Standing,
    below: NDArray[np.int64],
    gap: NDArray[np.float64],
    lines: list[NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Join lines of bottom edges to rows and return the (n,) row numbers, 0 for the top row.

    A line is joined to the line that most of it rests on, or to a fuller line that it is beside.
    """
    line_of = np.zeros(len(standing.x), np.int64)
    for number, members in enumerate(lines):
        line_of[members] = number
    joined = np.arange(len(lines))
    for number, members in enumerate(lines):
        for other in np.flatnonzero(joined != number):
            resting = members[line_of[below[members]] == other]
            # The more products, the smaller the error of the mean gap, and the lower its limit.
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


def _beside(
    standing: _Standing, members: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return for each of `members` whether it is beside the nearest of `others`.

    Two products are beside each other if they overlap vertically by more than half the height of
    the shorter one.
    """
    nearest = others[np.abs(standing.x[members][:, None] - standing.x[others][None]).argmin(axis=1)]
    common = np.minimum(standing.bottom[members], standing.bottom[nearest]) - np.maximum(
        standing.top[members], standing.top[nearest]
    )
    lower = np.minimum(standing.height[members], standing.height[nearest])
    return np.asarray(common > 0.5 * lower)
