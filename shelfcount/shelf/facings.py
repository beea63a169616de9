"""Facings: the shelf as it looks from the front, what stands beside and on what, and where something is sold out.

A photo is turned into the front view of the shelf by one homography. Two things that boxes tell are
used to find it: products of one row stand at one height, and products of one class have one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shelfcount.shelf.rows import Placement

# How much a box's edge scatters around the product's, as a share of its height, and how much the sizes of one class differ.
EDGE_SCATTER = 0.05
SIZE_SCATTER = 0.06
# A phone's main camera sees about 65 degrees along the longer side: 1 / (2 tan 32.5 degrees) of it.
FOCAL_LENGTH = 0.785
# How a camera in the hand is rolled, turned up or down, and sideways, in radians: one standard deviation, and at most.
USUAL_ANGLES = np.radians([8.0, 8.0, 20.0])
MOST_ANGLES = np.radians([25.0, 25.0, 40.0])
MOST_STEPS = 30
# Rounds the corner at no lean, where the fit would take a lean to the left for one to the right. Chosen on synthetic shelves.
CORNER = 0.03
# A product rests on another if its foot is higher by this share of its height, and half of the narrower one's width is shared.
RISE_OF_STACKED = 0.4
SHARED_WIDTH = 0.5
# A hole is a gap from this share of the narrower neighbour's width, beyond the usual space between products. Of 180
# sold-out facings on tilted synthetic shelves 99 % left more, and no other space more than 0.4; on the drinks training
# photos 1.9 % of the spaces are larger, and the 18 looked at all hold a product that has no box or stands further back.
LEAST_GAP = 0.6
# More space than this, as a share of a product's width, is never usual.
MOST_SPACING = 0.4


@dataclass(frozen=True)
class Gap:
    """A place in a row where at least one product more would stand, and none was found.

    Attributes:
        row: 0 for the top row.
        after: Column of the facing to its left.
        facings: How many of the narrower neighbour fit.
        box: xyxy, pixels of the photo.
        front_box: xyxy in the front view.
    """

    row: int
    after: int
    facings: int
    box: tuple[float, float, float, float]
    front_box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Arrangement:
    """How n products are arranged on their shelf.

    A *facing* is a place on the shelf board with what is stacked on it; a product that stands on the
    board itself has level 0.

    Attributes:
        names: n class names.
        boxes: (n, 4) float64 xyxy, pixels of the photo.
        front_boxes: (n, 4) float64 xyxy of the upright products in the front view: rows level, in pixels
            that are those of the photo in its middle.
        row: (n,) int64, 0 for the top row.
        column: (n,) int64, number of the facing in its row from the left.
        level: (n,) int64, 0 on the board, 1 on top of a product that stands there, and so on.
        rests_on: (n,) int64, index of the product below, -1 for the board.
        foot: (n,) int64, index of the lowest product of the stack, its own for a product on the board.
        left, right: (n,) int64, index of the neighbour on the board, -1 at a row's end, beside a gap and for stacked products.
        gaps: By row and column.
        n_rows: How many rows there are.
        to_front: (3, 3) float64 homography from the photo to the front view.
    """

    names: tuple[str, ...]
    boxes: np.ndarray
    front_boxes: np.ndarray
    row: np.ndarray
    column: np.ndarray
    level: np.ndarray
    rests_on: np.ndarray
    foot: np.ndarray
    left: np.ndarray
    right: np.ndarray
    gaps: tuple[Gap, ...]
    n_rows: int
    to_front: np.ndarray

    def facings(self, row: int) -> np.ndarray:
        """Indices of the products on the board of a row, from left to right."""
        members = np.flatnonzero((self.row == row) & (self.level == 0))
        return members[np.argsort(self.column[members])]


@dataclass(frozen=True)
class Share:
    """What one class has of one row, or of the whole shelf.

    Attributes:
        name: Of the class.
        row: 0 for the top row; None for the whole shelf.
        facings: Places on the board.
        products: With those that are stacked.
        by_count: Its share of all facings there, 0 to 1.
        by_width: Its share of the width of all facings there, 0 to 1.
    """

    name: str
    row: int | None
    facings: int
    products: int
    by_count: float
    by_width: float


def arrange(
    boxes: np.ndarray, names: Sequence[str], placement: Placement, size: tuple[int, int]
) -> Arrangement:
    """From boxes and their rows to facings, stacks and gaps.

    On 1,000 photos of synthetic shelves of 10 to 16 facings (edges off by 3 % of the product, lenses of 56 to 73 degrees) at
    tilts to 15 and yaws to 30 degrees, 99.9 % of the products are in the right row and column, 99.9 % of single sold-out
    facings are gaps, as 99.9 % of the gaps are sold-out facings, and 9 of 10 edges of the front view are within 0.21 widths of
    a product sideways and 0.12 heights upright of their place on the whole shelf. See benchmarks/results/placement.json.

    Args:
        boxes: (n, 4) xyxy pixels of the photo.
        names: n class names; products of one class have one size.
        placement: `rows(boxes)`.
        size: (width, height) of the photo in pixels; the boxes lie within it.

    Raises:
        ValueError: If boxes, names and placement are not of one length.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not len(boxes) == len(names) == len(placement.row):
        raise ValueError(
            f"boxes, names and placement must be of one length, got {len(boxes)}, {len(names)} and {len(placement.row)}"
        )
    to_front = _fit_front(
        boxes, np.unique(list(names), return_inverse=True)[1], placement.row, size
    )
    middle, half, _ = _outlines(boxes, to_front)
    front = np.column_stack([middle - half, middle + half])
    rests_on = _rests_on(front, placement.row)
    foot, level = _stacks(rests_on)
    boards = [
        np.flatnonzero((placement.row == row) & (level == 0)) for row in range(placement.n_rows)
    ]
    boards = [board[np.argsort(middle[board, 0])] for board in boards]
    gaps = _gaps(front, boards, np.linalg.inv(to_front))
    column, left, right = (np.full(len(boxes), -1, np.int64) for _ in range(3))
    for board in boards:
        column[board] = np.arange(len(board))
        left[board[1:]], right[board[:-1]] = board[:-1], board[1:]
    for gap in gaps:
        before, behind = boards[gap.row][gap.after : gap.after + 2]
        right[before] = left[behind] = -1
    return Arrangement(
        names=tuple(names),
        boxes=boxes,
        front_boxes=front,
        row=placement.row,
        column=column[foot],
        level=level,
        rests_on=rests_on,
        foot=foot,
        left=left,
        right=right,
        gaps=tuple(gaps),
        n_rows=placement.n_rows,
        to_front=to_front,
    )


def shares(arrangement: Arrangement) -> list[Share]:
    """Facings of each class: of the whole shelf first, then row by row; the class with most facings first."""
    board = arrangement.level == 0
    width = arrangement.front_boxes[:, 2] - arrangement.front_boxes[:, 0]
    names = np.array(arrangement.names, object)
    found = []
    for row in (None, *range(arrangement.n_rows)):
        here = np.ones_like(board) if row is None else arrangement.row == row
        of_row = []
        for name in sorted(set(names[here])):
            own, facing = here & (names == name), here & board & (names == name)
            by_count, by_width = (
                facing.sum() / (here & board).sum(),
                width[facing].sum() / width[here & board].sum(),
            )
            of_row.append(
                Share(
                    name, row, int(facing.sum()), int(own.sum()), float(by_count), float(by_width)
                )
            )
        found += sorted(of_row, key=lambda share: -share.facings)
    return found


def to_json(arrangement: Arrangement) -> dict[str, Any]:
    """Products in the order of the boxes, gaps and shares, as plain lists and numbers; boxes are (x, y, width, height)."""
    a = arrangement
    columns = {
        key: getattr(a, key).tolist()
        for key in ("row", "column", "level", "rests_on", "left", "right")
    }
    products = [
        {
            "class": name,
            "box": xywh(a.boxes[i]),
            "front_box": xywh(a.front_boxes[i]),
            **{key: column[i] for key, column in columns.items()},
        }
        for i, name in enumerate(a.names)
    ]
    gaps = [
        {**asdict(gap), "box": xywh(gap.box), "front_box": xywh(gap.front_box)} for gap in a.gaps
    ]
    return {
        "products": products,
        "gaps": gaps,
        "shares": [asdict(s) for s in shares(a)],
        "to_front": a.to_front.tolist(),
    }


def xywh(box: Sequence[float] | np.ndarray) -> list[float]:
    """One xyxy box as JSON holds it: (x, y, width, height), two digits."""
    left, top, right, bottom = (float(v) for v in box)
    return [round(v, 2) for v in (left, top, right - left, bottom - top)]


# ---------------------------------------------------------------- front view


def _fit_front(
    boxes: np.ndarray, classes: np.ndarray, row: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The camera before which rows are level and products of one class alike: Levenberg-Marquardt on its three angles."""
    on_board = _rests_on(boxes, row) < 0
    rows, kinds = _groups(np.where(on_board, row, -1)), _groups(classes)
    if not rows and not kinds:
        return _to_front(np.zeros(3), size)

    def oddness(angles: np.ndarray) -> np.ndarray:
        return _oddness(boxes, _to_front(angles, size), rows, kinds)

    def cost(angles: np.ndarray, odd: np.ndarray) -> float:
        # Cauchy's: a stray box pulls the less, the further off it is.
        return float(2 * np.log1p(odd**2 / 4).sum() + ((angles / USUAL_ANGLES) ** 2).sum() / 2)

    angles, damping = np.zeros(3), 1e-3
    odd = oddness(angles)
    for _ in range(MOST_STEPS):
        slope = np.stack(
            [(oddness(angles + step) - odd) / step.sum() for step in np.eye(3) * 1e-3], axis=1
        )
        weighted = slope.T / (1 + odd**2 / 4)
        normal = weighted @ slope + np.diag(1 / USUAL_ANGLES**2)
        change = np.linalg.solve(
            normal + damping * np.diag(np.diag(normal)), -weighted @ odd - angles / USUAL_ANGLES**2
        )
        tried = np.clip(angles + change, -MOST_ANGLES, MOST_ANGLES)
        tried_odd = oddness(tried)
        gain = cost(angles, odd) - cost(tried, tried_odd)
        if gain > 0:
            angles, odd = tried, tried_odd
        damping *= 0.1 if gain > 0 else 10
        if abs(gain) < 1e-3:
            break
    return _to_front(angles, size)


def _to_front(angles: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(3, 3) photo to front view, for a camera rolled, turned up or down, and sideways by angles in radians."""
    roll, nod, turn = np.sin(angles)
    rolled, nodded, turned = np.cos(angles)
    rotation = (
        np.array([[rolled, -roll, 0], [roll, rolled, 0], [0, 0, 1]])
        @ np.array([[1, 0, 0], [0, nodded, -nod], [0, nod, nodded]])
        @ np.array([[turned, 0, turn], [0, 1, 0], [-turn, 0, turned]])
    )
    focal, x, y = FOCAL_LENGTH * max(size), size[0] / 2, size[1] / 2
    to_photo = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]]) @ np.column_stack(
        [rotation[:, :2], (0, 0, focal)]
    )
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) @ np.linalg.inv(to_photo)


def _outlines(
    boxes: np.ndarray, to_front: np.ndarray, corner: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The upright products whose outlines, seen through the camera, the boxes enclose.

    Returns:
        (n, 2) middles and (n, 2) half widths and heights, front view; (n, 2, 2) what half a photo box's
        width is made of, lean[0, 0] * half width + lean[0, 1] * half height, and likewise its height.
    """
    half = _half(boxes)
    point = np.column_stack([boxes[:, :2] + half, np.ones(len(boxes))]) @ to_front.T
    depth, point = point[:, 2, None], point[:, :2] / point[:, 2:]
    # Near the middle of a product the camera is linear.
    ahead = (to_front[None, :2, :2] - point[:, :, None] * to_front[None, 2:, :2]) / depth[
        :, :, None
    ]
    lean = np.abs(np.linalg.inv(ahead))
    lean[:, [0, 1], [1, 0]] = np.hypot(lean[:, [0, 1], [1, 0]], corner)
    upright = half / lean[:, [0, 1], [0, 1]]
    return (
        point,
        np.clip(np.linalg.solve(lean, half[:, :, None])[:, :, 0], 0.3 * upright, upright),
        lean,
    )


def _half(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 1) / 2


def _oddness(
    boxes: np.ndarray, to_front: np.ndarray, rows: Sequence[np.ndarray], kinds: Sequence[np.ndarray]
) -> np.ndarray:
    """How far feet are from their row's height, and boxes from the size that their class would have there, in units of the scatter."""
    middle, size, lean = _outlines(boxes, to_front, CORNER)
    foot = (middle[:, 1] + size[:, 1]) / (2 * np.median(size[:, 1])) / EDGE_SCATTER
    feet = [foot[own] - np.median(foot[own]) for own in rows]
    # Compared in the photo, where a box's edges scatter alike at every lean.
    sizes = [
        np.log(_half(boxes[own]) / (lean[own] @ np.median(size[own], axis=0))).ravel()
        / SIZE_SCATTER
        for own in kinds
    ]
    return np.concatenate(feet + sizes)


def _groups(numbers: np.ndarray) -> list[np.ndarray]:
    """Indices of each number that occurs more than once; negative ones are left out."""
    found = (np.flatnonzero(numbers == number) for number in np.unique(numbers[numbers >= 0]))
    return [own for own in found if len(own) > 1]


# ---------------------------------------------------------------- stacks and gaps


def _rests_on(boxes: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(n,) index of the product below in the same row, -1 where there is none."""
    left, top, right, bottom = boxes.T
    width, height = right - left, bottom - top
    common = np.minimum(right[:, None], right[None]) - np.maximum(left[:, None], left[None])
    rests = common > SHARED_WIDTH * np.minimum(width[:, None], width[None])
    rests &= (bottom[None] - bottom[:, None] > RISE_OF_STACKED * height[:, None]) & (
        row[:, None] == row[None]
    )
    distance = np.where(rests, np.abs(top[None] - bottom[:, None]), np.inf)
    return np.where(rests.any(axis=1), distance.argmin(axis=1) if len(boxes) else 0, -1)


def _stacks(rests_on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the lowest product of each one's stack, and how many products are below it."""
    foot, level = np.arange(len(rests_on)), np.zeros(len(rests_on), np.int64)
    # Every product is lower than what rests on it, so there are no circles.
    while (upper := rests_on[foot] >= 0).any():
        foot, level = np.where(upper, rests_on[foot], foot), level + upper
    return foot, level


def _gaps(front: np.ndarray, boards: Sequence[np.ndarray], to_photo: np.ndarray) -> list[Gap]:
    """Holes between facings, `boards` holding the indices of each row's facings from left to right."""
    places = [(row, after) for row, board in enumerate(boards) for after in range(len(board) - 1)]
    if not places:
        return []
    left, right = (front[[boards[row][after + side] for row, after in places]] for side in (0, 1))
    hole = (right[:, 0] - left[:, 2]) / np.minimum(
        left[:, 2] - left[:, 0], right[:, 2] - right[:, 0]
    )
    # Of the whole shelf, since a row that is half sold out has few usual spaces.
    usual = np.clip(np.median(hole), 0, MOST_SPACING)
    # k products more in a hole have k + 1 spaces between them.
    fitting = (hole - usual) / (1 + usual)
    gaps = []
    for k in np.flatnonzero(fitting > LEAST_GAP):
        top, bottom = max(left[k, 1], right[k, 1]), (left[k, 3] + right[k, 3]) / 2
        box = (float(left[k, 2]), float(top), float(right[k, 0]), float(bottom))
        gaps.append(Gap(*places[k], max(1, round(fitting[k])), _around(box, to_photo), box))
    return gaps


def _around(
    box: tuple[float, float, float, float], homography: np.ndarray
) -> tuple[float, float, float, float]:
    """The upright xyxy box around the corners of a box that a homography maps."""
    left, top, right, bottom = box
    corners = np.array([(x, y, 1) for x in (left, right) for y in (top, bottom)]) @ homography.T
    x, y = (corners[:, :2] / corners[:, 2:]).T
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())
