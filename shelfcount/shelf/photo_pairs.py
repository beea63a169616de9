"""How two photos of one shelf fit on each other: points and detections judge together.

A shelf's front is nearly flat, so a homography takes one photo to the other. Points that look alike propose it. On
a shelf that repeats itself they may propose one that is some facings off, so each proposal is also tried moved by what
the boxes suggest, and the one wins under which points and products of what both photos show agree best.

Lengths are in *units*, measured from a photo's middle: a thousandth of the square root of its area, which is a pixel
at one megapixel. So a tolerance means the same share of every photo, whichever phone took it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from shelfcount.records import Detections
from shelfcount.vision import boxes as box_math

SIDE_UNITS = 1000.0
# More points find no better homography on synthetic shelves, and cost time with every pair.
POINTS = 2000
# Half of OpenCV's default: labels in the shade of a cooler have little contrast.
LEAST_CONTRAST = 0.02
# So many look-alikes of each point are kept: on a shelf that repeats itself the nearest is often a neighbour's.
NEAREST = 5
# Lowe 2004, section 7.1, has 0.8; the few more wrong ones are left to the robust fit.
RATIO = 0.85
INLIER_UNITS = 3.0
FEWEST_POINTS = 8
# How far look-alikes may lie from where a homography takes a point: before it is refined, in between, and after.
SEARCH_UNITS = (12.0, 6.0)
SUPPORT_UNITS = 4.0
# These bound the time of a pair: moves tried of each proposal, proposals refined, and steps from there.
SHIFTS = 6
REFINED = 4
CLIMBS = 8
CLIMB_FACINGS = 2.5
# A product is expected in the other photo if so much of it lies there.
SEEN_SHARE = 0.6
SAME_PLACE_IOU = 0.5
# A square counts if it holds so many points, and is covered if two and this share of them fit.
SQUARE_UNITS = 60.0
SQUARE_POINTS = 5
SQUARE_SHARE = 0.1
# Scores of `Link`. Both ends are in benchmarks/results/merge_views.json, "pairs": what right and wrong fits reach. Below
# the lowest no step leads anywhere; above the highest there is nothing to look for.
HOPELESS_SCORE, LEAST_SCORE, SURE_SCORE = 0.5, 1.4, 2.0
# With so many products in common, some must be recognised for a fit to hold.
ENOUGH_PRODUCTS = 6
LEAST_AGREEMENT = 0.1
# Seen at 45 degrees through a phone's 65-degree lens, the far side of a photo is 1.64 / 0.36 = 4.6 times as far away as
# the near one.
MOST_DEPTH_RATIO = 5.0
# Places all over a photo, in its half sides.
GRID = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)), axis=2).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class View:
    """What registration keeps of one photo.

    Attributes:
        width, height: Of the photo in pixels.
        points: (k, 2) float64 x, y in units.
        descriptors: (k, 128) float32 of length 1; their dot product tells how alike two points look.
        boxes: (n, 4) float64 xyxy in units.
        classes: (n,) int64.
        picture: (h, w, 3) uint8 RGB, the photo at one megapixel, or smaller if it is.
    """

    width: int
    height: int
    points: np.ndarray
    descriptors: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    picture: np.ndarray

    @property
    def half(self) -> np.ndarray:
        """(2,) half the photo's width and height in units."""
        return np.array([self.width, self.height]) * (
            SIDE_UNITS / 2 / np.sqrt(self.width * self.height)
        )

    @property
    def to_units(self) -> np.ndarray:
        """(3, 3) from pixels to units."""
        scale = SIDE_UNITS / np.sqrt(self.width * self.height)
        return np.array([[scale, 0, -self.half[0]], [0, scale, -self.half[1]], [0, 0, 1]])


@dataclass(frozen=True, eq=False)
class Link:
    """How well one photo fits on another.

    Points are judged by the squares of `SQUARE_UNITS` of photo b that they lie in: a repeated product has hundreds of
    points that fit where they don't belong, but only on its own squares.

    Attributes:
        a, b: Indices of the photos.
        homography: (3, 3) float64, units of a to units of b.
        points: How many points of a have a look-alike in b where the homography takes them.
        covered: Squares of which points fit.
        squares: Squares that points of a are taken into.
        agreeing: Products that both photos show at the same place and of the same class.
        products: Products that at least one of them shows where both should.
    """

    a: int
    b: int
    homography: np.ndarray
    points: int
    covered: int
    squares: int
    agreeing: int
    products: int

    @property
    def cover(self) -> float:
        """Share of squares that are covered, less where they are few."""
        return self.covered / (self.squares + 2)

    @property
    def agreement(self) -> float:
        """Share of products that agree, less where they are few."""
        return self.agreeing / (self.products + 4)

    @property
    def score(self) -> float:
        """To compare fits by, 0 to 3. Points count double: detectors miss and misname products, and so can't agree in full."""
        return 2 * self.cover + self.agreement

    @property
    def holds(self) -> bool:
        """Whether the photos show one place, as far as can be told."""
        contradicted = self.agreement < LEAST_AGREEMENT and self.products >= ENOUGH_PRODUCTS
        return self.points >= FEWEST_POINTS and self.score > LEAST_SCORE and not contradicted


def look(image: np.ndarray, detections: Detections) -> View:
    """Find the points of a photo.

    Args:
        image: (height, width, 3) uint8 RGB, upright; shrunk to one megapixel for the search.
        detections: Products on it, boxes in its pixels.
    """
    height, width = image.shape[:2]
    shrink = min(1.0, SIDE_UNITS / np.sqrt(width * height))
    size = max(round(width * shrink), 1), max(round(height * shrink), 1)
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if shrink < 1 else image
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = cv2.SIFT_create(
        nfeatures=POINTS, contrastThreshold=LEAST_CONTRAST
    ).detectAndCompute(grey, None)  # type: ignore[attr-defined]
    # OpenCV has pixel i centred at i, boxes have it cover [i, i + 1).
    places = (
        (np.array([k.pt for k in keypoints], np.float64).reshape(-1, 2) + 0.5)
        * np.array([width, height])
        / size
    )
    # Arandjelovic and Zisserman 2012, "RootSIFT": compared by the roots of their shares, gradients match better.
    shares = np.zeros((0, 128), np.float32) if descriptors is None else descriptors
    roots = np.sqrt(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)
    empty = View(
        width, height, np.zeros((0, 2)), roots, np.zeros((0, 4)), detections.classes, picture
    )
    boxes = map_boxes(detections.boxes, empty.to_units)
    return replace(empty, points=map_points(places, empty.to_units), boxes=boxes)


def map_points(points: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """(n, 2) float64 points where a homography takes (n, 2) points; NaN where it takes them behind the camera.

    In front is the side that the origin lies on: in units, a photo's middle.
    """
    mapped = (points @ homography[:, :2].T + homography[:, 2]) * np.sign(homography[2, 2])
    return np.divide(
        mapped[:, :2], mapped[:, 2:], out=np.full((len(points), 2), np.nan), where=mapped[:, 2:] > 0
    )


def map_boxes(boxes: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """(n, 4) float64 xyxy boxes where a homography takes (n, 4) boxes; NaN as for `map_points`.

    A mapped box reaches as far as the middles of its edges do. A product has nothing in the corners of its box, and
    around those a box would grow with every degree of tilt.
    """
    left, top, right, bottom = (
        map_points(_edges(boxes), homography).reshape(-1, 4, 2).transpose(1, 2, 0)
    )
    return np.stack([left[0], top[1], right[0], bottom[1]], axis=1)


def _edges(boxes: np.ndarray) -> np.ndarray:
    """(4 n, 2) float64 middles of the left, top, right and bottom edge of each of (n, 4) boxes."""
    left, top, right, bottom = np.asarray(boxes, np.float64).T
    x, y = (left + right) / 2, (top + bottom) / 2
    return np.stack([left, y, x, top, right, y, x, bottom], axis=1).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class Near:
    """Look-alikes of each point of a among those of b.

    Attributes:
        index: (NEAREST, k) int64, points of b, the most alike first.
        distinct: (k,) bool, the first is clearly more alike than the second, and chooses the point of a too.
    """

    index: np.ndarray
    distinct: np.ndarray


def nearest(a: View, b: View) -> Near:
    """Compare all points of two photos; with too few points for that, no point has look-alikes."""
    if min(len(a.points), len(b.points)) < NEAREST:
        return Near(np.zeros((0, len(a.points)), np.int64), np.zeros(len(a.points), bool))
    alike = a.descriptors @ b.descriptors.T
    chosen_by_b, everyone = alike.argmax(axis=0), np.arange(len(alike))
    index, likeness = [], []
    for _ in range(NEAREST):
        index.append(alike.argmax(axis=1))
        likeness.append(alike[everyone, index[-1]])
        alike[everyone, index[-1]] = -1
    distance = np.sqrt(np.maximum(2 - 2 * np.array(likeness[:2]), 0))
    distinct = (distance[0] < RATIO * distance[1]) & (chosen_by_b[index[0]] == everyone)
    return Near(np.array(index), distinct)


def fits(pair: tuple[int, int], a: View, b: View, near: Near) -> list[Link]:
    """What two photos may have to do with each other, the best first; nothing if nothing can be compared."""
    if not len(near.index):
        return []

    def judged(homographies: Iterable[np.ndarray], reach: float = SUPPORT_UNITS) -> list[Link]:
        possible = (
            judge(pair, a, b, near, h, reach) for h in homographies if is_view_change(h, a, b)
        )
        return sorted(possible, key=lambda link: -link.score)

    bases = _proposals(a, b, near)
    links = judged(_refine(h, a, b, near) for h in bases[:1])
    if links and links[0].score > SURE_SCORE:
        return links
    rough = judged((h for base in bases for h in (base, *_shifted(base, a, b))), SEARCH_UNITS[0])[
        :REFINED
    ]
    links = judged(
        [link.homography for link in links]
        + [_refine(link.homography, a, b, near) for link in rough]
    )
    # A fit that is some facings off is often better one facing on, and so to the right one step by step.
    for _ in range(CLIMBS if links and links[0].score > HOPELESS_SCORE else 0):
        moved = judged(
            _refine(h, a, b, near) for h in _shifted(links[0].homography, a, b, CLIMB_FACINGS)
        )
        if not moved or moved[0].score <= links[0].score:
            break
        links.insert(0, moved[0])
    return links


def _proposals(a: View, b: View, near: Near) -> list[np.ndarray]:
    """Homographies from the distinct points, from what these leave over, and from the size of the boxes alone."""
    left = np.flatnonzero(near.distinct)
    found = []
    for _ in range(2):
        homography, inliers = _fit(a.points[left], b.points[near.index[0, left]])
        if homography is not None:
            found.append(homography)
            left = left[~inliers]
    if len(a.boxes) and len(b.boxes):
        zoom = np.sqrt(
            max(np.median(box_math.area(b.boxes)), 1.0)
            / max(np.median(box_math.area(a.boxes)), 1.0)
        )
        found.append(np.diag([zoom, zoom, 1.0]))
    return found


def _shifted(base: np.ndarray, a: View, b: View, facings: float = np.inf) -> Iterator[np.ndarray]:
    """The homography moved by up to so many facings, so that many boxes of a come to lie on boxes of their class in b."""
    mapped = map_boxes(a.boxes, base)
    i, j = np.nonzero(a.classes[:, None] == b.classes[None])
    if not len(i):
        return
    move = (b.boxes[j, :2] + b.boxes[j, 2:] - mapped[i, :2] - mapped[i, 2:]) / 2
    facing = np.maximum(np.median(b.boxes[:, 2:] - b.boxes[:, :2], axis=0), 2.0)
    near = (np.abs(move) < facings * facing).all(axis=1)
    i, j, move = i[near], j[near], move[near]
    # Many products of one class agree under many moves, so a pair of them says little.
    weight = 1 / np.sqrt(
        np.bincount(a.classes)[a.classes[i]] * np.bincount(b.classes)[b.classes[j]]
    )
    at = np.unique(np.floor(move / (facing / 2)), axis=0, return_inverse=True)[1].ravel()
    for best in np.argsort(-np.bincount(at, weight), kind="stable")[:SHIFTS]:
        x, y = np.median(move[at == best], axis=0)
        yield np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) @ base


def _fit(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Robust homography from points p to points q, or None, and which of them fit."""
    nothing = np.zeros(len(p), bool)
    if len(p) < FEWEST_POINTS:
        return None, nothing
    found, inliers = cv2.findHomography(
        p, q, cv2.USAC_MAGSAC, INLIER_UNITS, maxIters=2000, confidence=0.999
    )
    if found is None or not np.isfinite(found).all():
        return None, nothing
    return found, inliers.ravel().astype(bool)


def _refine(homography: np.ndarray, a: View, b: View, near: Near) -> np.ndarray:
    """Fitted anew to products that lie on their class, then to look-alikes around where it takes the points."""
    i, j = _mutual(map_boxes(a.boxes, homography), b.boxes)
    same = a.classes[i] == b.classes[j]
    homography = _refit(homography, _edges(a.boxes[i[same]]), _edges(b.boxes[j[same]]), a, b)
    for reach in SEARCH_UNITS:
        i, j = supporting(homography, a, b, near, reach)
        homography = _refit(homography, a.points[i], b.points[j], a, b)
    return homography


def _refit(homography: np.ndarray, p: np.ndarray, q: np.ndarray, a: View, b: View) -> np.ndarray:
    found, _ = _fit(p, q)
    return homography if found is None or not is_view_change(found, a, b) else found


def supporting(
    homography: np.ndarray, a: View, b: View, near: Near, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of points of a and of their look-alikes in b within `reach` units of where they go, each once."""
    i, j, _ = _supporting(map_points(a.points, homography), b, near, reach)
    return i, j


def _supporting(
    mapped: np.ndarray, b: View, near: Near, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`supporting` for points already taken to b, and (k,) bool whether they lie in it."""
    seen = (np.abs(mapped) < b.half).all(axis=1)
    close = (((mapped[None] - b.points[near.index]) ** 2).sum(axis=2) < reach**2) & seen
    i = np.flatnonzero(close.any(axis=0))
    j, first = np.unique(near.index[close.argmax(axis=0)[i], i], return_index=True)
    return i[first], j, seen


def judge(
    pair: tuple[int, int],
    a: View,
    b: View,
    near: Near,
    homography: np.ndarray,
    reach: float = SUPPORT_UNITS,
) -> Link:
    """How well photo a fits on photo b where a homography takes it, with look-alikes within `reach` units."""
    mapped = map_points(a.points, homography)
    i, _, seen = _supporting(mapped, b, near, reach)
    columns = int(2 * b.half[0] / SQUARE_UNITS) + 1
    square = ((mapped + b.half) // SQUARE_UNITS) @ (1, columns)
    there = np.bincount(square[seen].astype(np.int64))
    fitting = np.bincount(square[i].astype(np.int64), minlength=len(there))
    rich = there >= SQUARE_POINTS
    covered = rich & (fitting >= np.maximum(2, SQUARE_SHARE * there))
    return Link(
        *pair,
        homography,
        len(i),
        int(covered.sum()),
        int(rich.sum()),
        *_agreement(homography, a, b),
    )


def _agreement(homography: np.ndarray, a: View, b: View) -> tuple[int, int]:
    """`Link.agreeing` and `Link.products`."""
    mapped = map_boxes(a.boxes, homography)
    in_b = np.flatnonzero(_seen(mapped, b))
    in_a = np.flatnonzero(_seen(map_boxes(b.boxes, np.linalg.inv(homography)), a))
    i, j = _mutual(mapped[in_b], b.boxes[in_a])
    return int((a.classes[in_b[i]] == b.classes[in_a[j]]).sum()), len(in_b) + len(in_a) - len(i)


def _mutual(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of boxes that overlap each other most, and by more than `SAME_PLACE_IOU`."""
    if not len(a) or not len(b):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    overlap = box_math.iou(a, b)
    j = overlap.argmax(axis=1)
    i = np.flatnonzero(
        (overlap.max(axis=1) > SAME_PLACE_IOU) & (overlap.argmax(axis=0)[j] == np.arange(len(a)))
    )
    return i, j[i]


def _seen(boxes: np.ndarray, view: View) -> np.ndarray:
    """(n,) bool: enough of a box, in units of the view, lies in the view."""
    frame = np.tile(view.half, 2)
    return box_math.area(np.clip(boxes, -frame, frame)) > SEEN_SHARE * box_math.area(boxes)


def is_view_change(homography: np.ndarray, a: View, b: View) -> bool:
    """Whether two upright photos of one wall that show a part of it both can be so related."""
    # A homography of units has a determinant of about the square of the zoom between the photos; below 0 it mirrors.
    if abs(homography[2, 2]) < 1e-9 or np.linalg.det(homography / homography[2, 2]) < 1e-4:
        return False
    grid = GRID * a.half
    common = (np.abs(map_points(grid, homography)) < b.half).all(axis=1)
    depth = (grid[common] @ homography[2, :2]) / homography[2, 2] + 1
    return bool(common.any() and depth.max() < MOST_DEPTH_RATIO * depth.min())
