"""Registration of two photos of one shelf: a homography from keypoints, checked with detections.

Keypoint matches propose homographies. On a repetitive shelf a proposal may be off by some
facings, so each is also tried shifted by the spacing of the boxes; the one with the best
agreement of keypoints and products is kept. Lengths are in the units of `photo_features`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.shelf.photo_features import KeypointMatches, PhotoFeatures
from shelfcount.vision import boxes as box_math
from shelfcount.vision.homography import edge_middles, inverse, map_boxes, map_points

INLIER_UNITS = 3.0
MIN_POINTS = 8
# Maximum distance of a match from the mapped keypoint: before the refinement, during it, and after.
SEARCH_UNITS = (12.0, 6.0)
SUPPORT_UNITS = 4.0
# Limits for the time of a pair: shifts of each proposal, refined proposals, and further shifts.
SHIFTS = 6
REFINED = 4
CLIMBS = 8
CLIMB_FACINGS = 2.5
# A product is expected in the other photo if at least this share of it is in that photo.
SEEN_SHARE = 0.6
SAME_PLACE_IOU = 0.5
# A square counts if it contains this many keypoints. It is covered if at least two and this share
# of them match.
SQUARE_UNITS = 60.0
SQUARE_POINTS = 5
SQUARE_SHARE = 0.1
# Scores of `PairFit`. The scores that correct and wrong registrations reach are in
# benchmarks/results/merge_views.json, "pairs". Below the lowest score no further shift is tried;
# above the highest the search ends.
HOPELESS_SCORE, MIN_SCORE, CERTAIN_SCORE = 0.5, 1.4, 2.0
# With at least this many products in the common part, this share of them must agree.
MIN_COMMON_PRODUCTS = 6
MIN_AGREEMENT = 0.1
# At 45 degrees through a phone's 65-degree lens, the far side of a photo is 1.64 / 0.36 = 4.6 times
# as far away as the near side.
MAX_DEPTH_RATIO = 5.0
# Grid of points over a photo, in units of its half sides.
GRID = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)), axis=2).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class PairFit:
    """Registration of one photo to another, with its quality.

    Keypoints are counted by squares of `SQUARE_UNITS` of photo b: hundreds of keypoints of a
    repeated product may match at a wrong position, but only in the squares of that product.

    Attributes:
        a, b: Indices of the photos.
        homography: (3, 3) float64, units of a to units of b.
        points: Number of keypoints of a that have a match at their mapped position in b.
        covered: Number of squares in which keypoints match.
        squares: Number of squares with enough mapped keypoints of a.
        agreeing: Number of products that both photos show at the same position and with the same
            class.
        products: Number of products in the common part that at least one of the photos shows.
    """

    a: int
    b: int
    homography: NDArray[np.float64]
    points: int
    covered: int
    squares: int
    agreeing: int
    products: int

    @property
    def cover(self) -> float:
        """Share of squares that are covered, reduced if there are few squares."""
        return self.covered / (self.squares + 2)

    @property
    def agreement(self) -> float:
        """Share of products that agree, reduced if there are few products."""
        return self.agreeing / (self.products + 4)

    @property
    def score(self) -> float:
        """Quality of the registration, 0 to 3.

        Keypoints count twice, since products cannot agree completely: detectors miss products and
        confuse classes.
        """
        return 2 * self.cover + self.agreement

    @property
    def is_valid(self) -> bool:
        """Whether the registration is accepted: the photos show a common part of the shelf."""
        contradicted = self.agreement < MIN_AGREEMENT and self.products >= MIN_COMMON_PRODUCTS
        return self.points >= MIN_POINTS and self.score > MIN_SCORE and not contradicted


def fit_pair(
    pair: tuple[int, int], a: PhotoFeatures, b: PhotoFeatures, matches: KeypointMatches
) -> list[PairFit]:
    """Return possible registrations of two photos, the best first; none if there are no matches.

    Args:
        pair: Indices of the photos.
        a, b: Registration data of the photos.
        matches: Matches of the keypoints of a in b.
    """
    if not len(matches.index):
        return []

    def evaluated(
        homographies: Iterable[NDArray[np.float64]], reach: float = SUPPORT_UNITS
    ) -> list[PairFit]:
        possible = (
            score_fit(pair, a, b, matches, h, reach)
            for h in homographies
            if is_view_change(h, a, b)
        )
        return sorted(possible, key=lambda link: -link.score)

    bases = _proposals(a, b, matches)
    links = evaluated(_refine(h, a, b, matches) for h in bases[:1])
    if links and links[0].score > CERTAIN_SCORE:
        return links
    rough = evaluated(
        (h for base in bases for h in (base, *_shifted(base, a, b))), SEARCH_UNITS[0]
    )[:REFINED]
    links = evaluated(
        [link.homography for link in links]
        + [_refine(link.homography, a, b, matches) for link in rough]
    )
    # If a registration is off by some facings, a shift by one facing often improves it. Repeated
    # shifts reach the correct one step by step.
    for _ in range(CLIMBS if links and links[0].score > HOPELESS_SCORE else 0):
        moved = evaluated(
            _refine(h, a, b, matches) for h in _shifted(links[0].homography, a, b, CLIMB_FACINGS)
        )
        if not moved or moved[0].score <= links[0].score:
            break
        links.insert(0, moved[0])
    return links


def _proposals(
    a: PhotoFeatures, b: PhotoFeatures, matches: KeypointMatches
) -> list[NDArray[np.float64]]:
    """Return homographies from distinct matches, from the remaining ones, and from box sizes."""
    unexplained = np.flatnonzero(matches.distinct)
    homographies = []
    for _ in range(2):
        homography, inliers = _fit(a.points[unexplained], b.points[matches.index[0, unexplained]])
        if homography is not None:
            homographies.append(homography)
            unexplained = unexplained[~inliers]
    if len(a.boxes) and len(b.boxes):
        zoom = np.sqrt(
            max(np.median(box_math.area(b.boxes)), 1.0)
            / max(np.median(box_math.area(a.boxes)), 1.0)
        )
        homographies.append(np.diag([zoom, zoom, 1.0]))
    return homographies


def _shifted(
    base: NDArray[np.float64], a: PhotoFeatures, b: PhotoFeatures, facings: float = np.inf
) -> Iterator[NDArray[np.float64]]:
    """Yield the homography, shifted so that many boxes of a are on boxes of their class in b.

    Args:
        base: (3, 3) homography, units of a to units of b.
        a, b: Registration data of the photos.
        facings: Maximum shift in widths and heights of the median product.
    """
    mapped = map_boxes(a.boxes, base)
    i, j = np.nonzero(a.classes[:, None] == b.classes[None])
    if not len(i):
        return
    move = (b.boxes[j, :2] + b.boxes[j, 2:] - mapped[i, :2] - mapped[i, 2:]) / 2
    facing = np.maximum(np.median(b.boxes[:, 2:] - b.boxes[:, :2], axis=0), 2.0)
    near = (np.abs(move) < facings * facing).all(axis=1)
    i, j, move = i[near], j[near], move[near]
    # Products of a frequent class agree under many shifts, so a pair of them has a low weight.
    weight = 1 / np.sqrt(
        np.bincount(a.classes)[a.classes[i]] * np.bincount(b.classes)[b.classes[j]]
    )
    at = np.unique(np.floor(move / (facing / 2)), axis=0, return_inverse=True)[1].ravel()
    for best in np.argsort(-np.bincount(at, weight), kind="stable")[:SHIFTS]:
        x, y = np.median(move[at == best], axis=0)
        yield np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) @ base


def _fit(
    p: NDArray[np.float64], q: NDArray[np.float64]
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    """Fit a robust homography from points p to points q.

    Returns:
        (3, 3) homography, or None; (n,) bool, the inliers.
    """
    nothing = np.zeros(len(p), bool)
    if len(p) < MIN_POINTS:
        return None, nothing
    homography, inliers = cv2.findHomography(
        p, q, cv2.USAC_MAGSAC, INLIER_UNITS, maxIters=2000, confidence=0.999
    )
    if homography is None or not np.isfinite(homography).all():
        return None, nothing
    return np.asarray(homography, np.float64), inliers.ravel().astype(bool)


def _refine(
    homography: NDArray[np.float64], a: PhotoFeatures, b: PhotoFeatures, matches: KeypointMatches
) -> NDArray[np.float64]:
    """Refit a homography to overlapping products of the same class, then to nearby matches."""
    i, j = _mutual(map_boxes(a.boxes, homography), b.boxes)
    same = a.classes[i] == b.classes[j]
    homography = _refit(
        homography, edge_middles(a.boxes[i[same]]), edge_middles(b.boxes[j[same]]), a, b
    )
    for reach in SEARCH_UNITS:
        i, j = supporting(homography, a, b, matches, reach)
        homography = _refit(homography, a.points[i], b.points[j], a, b)
    return homography


def _refit(
    homography: NDArray[np.float64],
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    a: PhotoFeatures,
    b: PhotoFeatures,
) -> NDArray[np.float64]:
    found, _ = _fit(p, q)
    return homography if found is None or not is_view_change(found, a, b) else found


def supporting(
    homography: NDArray[np.float64],
    a: PhotoFeatures,
    b: PhotoFeatures,
    matches: KeypointMatches,
    reach: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of keypoints of a and of their matches in b near the mapped keypoints.

    Each keypoint of b is used once.

    Args:
        homography: (3, 3), units of a to units of b.
        a, b: Registration data of the photos.
        matches: Matches of the keypoints of a in b.
        reach: Maximum distance of a match from the mapped keypoint in units.
    """
    i, j, _ = _supporting(map_points(a.points, homography), b, matches, reach)
    return i, j


def _supporting(
    mapped: NDArray[np.float64], b: PhotoFeatures, matches: KeypointMatches, reach: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return `supporting` for mapped keypoints, and (k,) bool, whether they are in photo b."""
    seen = (np.abs(mapped) < b.half).all(axis=1)
    close = (((mapped[None] - b.points[matches.index]) ** 2).sum(axis=2) < reach**2) & seen
    i = np.flatnonzero(close.any(axis=0))
    j, first = np.unique(matches.index[close.argmax(axis=0)[i], i], return_index=True)
    return i[first], j, np.asarray(seen)


def score_fit(
    pair: tuple[int, int],
    a: PhotoFeatures,
    b: PhotoFeatures,
    matches: KeypointMatches,
    homography: NDArray[np.float64],
    reach: float = SUPPORT_UNITS,
) -> PairFit:
    """Evaluate a homography and return the registration with its quality.

    Args:
        pair: Indices of the photos.
        a, b: Registration data of the photos.
        matches: Matches of the keypoints of a in b.
        homography: (3, 3), units of a to units of b.
        reach: Maximum distance of a match from the mapped keypoint in units.
    """
    mapped = map_points(a.points, homography)
    i, _, seen = _supporting(mapped, b, matches, reach)
    columns = int(2 * b.half[0] / SQUARE_UNITS) + 1
    square = ((mapped + b.half) // SQUARE_UNITS) @ (1, columns)
    mapped_points = np.bincount(square[seen].astype(np.int64))
    fitting = np.bincount(square[i].astype(np.int64), minlength=len(mapped_points))
    rich = mapped_points >= SQUARE_POINTS
    covered = rich & (fitting >= np.maximum(2, SQUARE_SHARE * mapped_points))
    return PairFit(
        *pair,
        homography,
        len(i),
        int(covered.sum()),
        int(rich.sum()),
        *_agreement(homography, a, b),
    )


def _agreement(
    homography: NDArray[np.float64], a: PhotoFeatures, b: PhotoFeatures
) -> tuple[int, int]:
    """Return `PairFit.agreeing` and `PairFit.products`."""
    mapped = map_boxes(a.boxes, homography)
    in_b = np.flatnonzero(_in_view(mapped, b))
    in_a = np.flatnonzero(_in_view(map_boxes(b.boxes, inverse(homography)), a))
    i, j = _mutual(mapped[in_b], b.boxes[in_a])
    return int((a.classes[in_b[i]] == b.classes[in_a[j]]).sum()), len(in_b) + len(in_a) - len(i)


def _mutual(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of boxes that are each other's best overlap above `SAME_PLACE_IOU`."""
    if not len(a) or not len(b):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    overlap = box_math.iou(a, b)
    j = overlap.argmax(axis=1)
    i = np.flatnonzero(
        (overlap.max(axis=1) > SAME_PLACE_IOU) & (overlap.argmax(axis=0)[j] == np.arange(len(a)))
    )
    return i, j[i]


def _in_view(boxes: NDArray[np.float64], view: PhotoFeatures) -> NDArray[np.bool_]:
    """Return (n,) bool: whether more than `SEEN_SHARE` of a box, in units of `view`, is in it."""
    frame = np.tile(view.half, 2)
    return box_math.area(np.clip(boxes, -frame, frame)) > SEEN_SHARE * box_math.area(boxes)


def is_view_change(homography: NDArray[np.float64], a: PhotoFeatures, b: PhotoFeatures) -> bool:
    """Return whether a homography is plausible for two upright photos with a common part."""
    # The determinant of a homography in units is about the square of the zoom between the photos.
    # It is negative for a mirrored photo.
    if abs(homography[2, 2]) < 1e-9 or np.linalg.det(homography / homography[2, 2]) < 1e-4:
        return False
    grid = GRID * a.half
    common = (np.abs(map_points(grid, homography)) < b.half).all(axis=1)
    depth = (grid[common] @ homography[2, :2]) / homography[2, 2] + 1
    return bool(common.any() and depth.max() < MAX_DEPTH_RATIO * depth.min())
