"""Registration of several photos of one shelf to its front: a graph of pairs, adjusted jointly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from shelfcount.records import ShelfcountError
from shelfcount.shelf.photo_pairs import (
    FEWEST_POINTS,
    GRID,
    INLIER_UNITS,
    MOST_DEPTH_RATIO,
    SEARCH_UNITS,
    SIDE_UNITS,
    SUPPORT_UNITS,
    KeypointMatches,
    PairFit,
    PhotoFeatures,
    fit_pair,
    is_view_change,
    match_keypoints,
    score_fit,
    supporting,
)
from shelfcount.vision.homography import map_boxes, map_points

# Indices of the photos of each group.
Groups = tuple[tuple[int, ...], ...]

# The number of pairs is quadratic: 40 photos are 780 pairs of about 0.05 s.
MAX_MERGED_PHOTOS = 40
# Two poses of a photo are the same if they differ by less than this in the overlap of the photos:
# it
# is less than half a product, and more than the drift of a chain of photos.
SAME_POSE_UNITS = 20.0
ROUNDS = 6
# Damping makes the adjustment solvable, as the pose of the whole group is not determined.
DAMPING = 1e-4
# Products outside this share of the photo's half sides may be cut by its border.
WHOLE_SHARE = 0.97
# Standard deviation of the logarithm of height within a class: detectors are off by about 5 %, and
# products of a wrong class by more.
HEIGHT_SPREAD = 0.1
# Usual change of that logarithm, horizontally and vertically, over the standard deviation of the
# products' positions. Horizontally the errors of photos add up. Vertically, products of the same
# class may really differ in size, such as bottles of water in the lower rows.
USUAL_SLOPE = (0.3, 0.04)
# At 45 degrees, a wall appears narrower by a factor of 1.41.
MOST_STRETCH = 1.5
# Weights of the shape and of the position of a photo in the affine fallback, relative to 1 for each
# grid point that two photos share.
KEEP_SHAPE, KEEP_PLACE = 3.0, 1e-3
# Maximum change of depth in one step, from the middle of the front to the standard deviation of the
# products' positions.
MOST_LEVELLED = 0.2
# Scales units to numbers of about 1, so that translation, rotation and perspective have similar
# magnitudes.
_NORMAL = np.diag([2 / SIDE_UNITS, 2 / SIDE_UNITS, 1.0])


@dataclass(frozen=True, eq=False)
class Registration:
    """Groups of photos that belong together, and their homographies.

    Attributes:
        groups: Indices of the photos of each group, the largest group first; every photo is in one
            group.
        steps: (3, 3) float64 for each pair (a, b) of photos, a < b, with a known common part: from
            units of a to units of b.
        fronts: (3, 3) float64 for each photo, from its units to the front of its group, with
            approximately the same scale.
        links: Best registration of each pair of photos that could be compared, whether accepted or
            not.
    """

    groups: Groups
    steps: Mapping[tuple[int, int], np.ndarray]
    fronts: tuple[np.ndarray, ...]
    links: tuple[PairFit, ...]

    def best_link(self, photo: int, others: Sequence[int]) -> PairFit | None:
        """Return the best registration of a photo to one of `others`, whether accepted or not.

        None if the photo could not be compared with any of them.
        """
        candidates = [
            link
            for link in self.links
            if (link.a == photo and link.b in others) or (link.b == photo and link.a in others)
        ]
        return max(candidates, key=lambda link: link.score, default=None)


def register(views: Sequence[PhotoFeatures]) -> Registration:
    """Register photos of one shelf, in any order, to its front.

    The time is bounded by limits for keypoints per photo, proposals per pair, trials per fit and
    rounds of the adjustment.

    Args:
        views: Registration data of at most `MOST_PHOTOS` photos.

    Raises:
        ShelfcountError: If there are more than `MOST_PHOTOS`.
    """
    if len(views) > MAX_MERGED_PHOTOS:
        raise ShelfcountError(
            f"at most {MAX_MERGED_PHOTOS} photos can be merged at once, got {len(views)}. "
            "Merge them shelf by shelf."
        )
    nears = {
        (a, b): match_keypoints(views[a], views[b]) for a, b in combinations(range(len(views)), 2)
    }
    links = {(a, b): fit_pair((a, b), views[a], views[b], near) for (a, b), near in nears.items()}
    compared = _Compared(tuple(views), nears, links)
    groups, poses = _place(compared)
    steps: dict[tuple[int, int], np.ndarray] = {}
    fronts: dict[int, np.ndarray] = {}
    for group in groups:
        placed = {photo: poses[photo] for photo in sorted(group)}
        adjusted = _adjust(placed, compared)
        known = _steps(placed, adjusted, compared)
        steps |= known
        fronts |= _fronts(adjusted, {photo: views[photo] for photo in placed}, known)
    best = tuple(found[0] for found in links.values() if found)
    return Registration(groups, steps, tuple(fronts[i] for i in range(len(views))), best)


@dataclass(frozen=True, eq=False)
class _Compared:
    """Photos with the matches and possible registrations of each pair (a, b), a < b."""

    views: tuple[PhotoFeatures, ...]
    nears: Mapping[tuple[int, int], KeypointMatches]
    links: Mapping[tuple[int, int], Sequence[PairFit]]


def _place(compared: _Compared) -> tuple[Groups, dict[int, np.ndarray]]:
    """Return the groups and the pose of each photo.

    A pose is (3, 3), from units of the photo to units of the first photo of its group.
    """
    views = compared.views
    steps: dict[int, list[tuple[int, np.ndarray, float]]] = {i: [] for i in range(len(views))}
    for (a, b), found in compared.links.items():
        for link in found:
            if link.holds:
                steps[a].append((b, link.homography, link.score))
                steps[b].append((a, np.linalg.inv(link.homography), link.score))
    poses = {i: np.eye(3) for i in range(len(views))}
    remaining = set(range(len(views)))
    groups = []
    while remaining:
        # The photo with the best links to others: a chain from the middle drifts half as far.
        first = max(
            sorted(remaining),
            key=lambda i: sum(score for other, _, score in steps[i] if other in remaining),
        )
        group = [first]
        remaining.remove(first)
        while choices := [
            _best_pose(i, group, poses, views, steps[i])
            for i in sorted(remaining)
            if any(o in group for o, _, _ in steps[i])
        ]:
            photo, pose, _ = max(choices, key=lambda choice: choice[2])
            poses[photo] = pose
            group.append(photo)
            remaining.remove(photo)
        groups.append(tuple(group))
    return tuple(sorted(groups, key=len, reverse=True)), poses


def _best_pose(
    photo: int,
    group: Sequence[int],
    poses: Mapping[int, np.ndarray],
    views: Sequence[PhotoFeatures],
    steps: Sequence[tuple[int, np.ndarray, float]],
) -> tuple[int, np.ndarray, float]:
    """Return the photo, the pose that its links to the group support most, and the total score."""
    options = [
        (other, poses[other] @ homography, score)
        for other, homography, score in steps
        if other in group
    ]
    totals = []
    for _, pose, _ in options:
        votes: dict[int, float] = {}
        for other, rival, score in options:
            if (
                _gap(
                    np.linalg.inv(poses[other]) @ pose,
                    np.linalg.inv(poses[other]) @ rival,
                    views[photo],
                    views[other],
                )
                < SAME_POSE_UNITS
            ):
                votes[other] = max(score, votes.get(other, 0.0))
        totals.append(sum(votes.values()))
    best = int(np.argmax(totals))
    return photo, options[best][1], totals[best]


def _gap(one: np.ndarray, other: np.ndarray, photo: PhotoFeatures, onto: PhotoFeatures) -> float:
    """Return the median distance in units of two homographies in the overlap of two photos."""
    grid = GRID * photo.half
    p, q = map_points(grid, one), map_points(grid, other)
    shown = (np.abs(q) <= onto.half).all(axis=1)
    return float(np.median(np.hypot(*(p - q)[shown].T))) if shown.any() else np.inf


def _adjust(poses: Mapping[int, np.ndarray], compared: _Compared) -> dict[int, np.ndarray]:
    """Adjust the poses of a group jointly to the matches of all pairs.

    Gauss-Newton optimization with Cauchy weights. It minimizes the distance between a keypoint and
    the mapped match of the other photo, in units of one of the photos. Distances on the front
    would be smallest if the photos shrank to a point.
    """
    photos, views = list(poses), compared.views
    normal = [poses[photo] @ np.linalg.inv(_NORMAL) for photo in photos]
    for reach in (SEARCH_UNITS[-1], SUPPORT_UNITS):
        pairs = []
        for (i, a), (j, b) in combinations(enumerate(photos), 2):
            homography = np.linalg.inv(normal[j] @ _NORMAL) @ normal[i] @ _NORMAL
            if is_view_change(homography, views[a], views[b]):
                p, q = supporting(homography, views[a], views[b], compared.nears[a, b], reach)
                if len(p) >= FEWEST_POINTS:
                    pairs.append(
                        (
                            i,
                            j,
                            map_points(views[a].points[p], _NORMAL),
                            map_points(views[b].points[q], _NORMAL),
                        )
                    )
        for _ in range(ROUNDS):
            normal = [
                pose @ turn for pose, turn in zip(normal, _gauss_newton(normal, pairs), strict=True)
            ]
    return {photo: pose @ _NORMAL for photo, pose in zip(photos, normal, strict=True)}


def _steps(
    placed: Mapping[int, np.ndarray], adjusted: Mapping[int, np.ndarray], compared: _Compared
) -> dict[tuple[int, int], np.ndarray]:
    """Return `Registration.steps` of a group.

    It is the accepted link of a pair that agrees with the poses, or, if there is none, the adjusted
    pose if it is accepted. In a long chain, poses may drift until photos seem to overlap that do
    not.
    """
    steps = {}
    for a, b in combinations(placed, 2):
        one, other = compared.views[a], compared.views[b]
        onto = np.linalg.inv(placed[b]) @ placed[a]
        links = [
            link
            for link in compared.links[a, b]
            if link.holds and _gap(link.homography, onto, one, other) < SAME_POSE_UNITS
        ]
        onto = np.linalg.inv(adjusted[b]) @ adjusted[a]
        if links:
            steps[a, b] = links[0].homography
        elif (
            is_view_change(onto, one, other)
            and score_fit((a, b), one, other, compared.nears[a, b], onto).holds
        ):
            steps[a, b] = onto
    return steps


def _gauss_newton(
    poses: Sequence[np.ndarray], pairs: Sequence[tuple[int, int, np.ndarray, np.ndarray]]
) -> list[np.ndarray]:
    """Return a (3, 3) correction for each pose, close to the identity.

    The pose must be multiplied with it from the right.
    """
    n = 8 * len(poses)
    curvature, slope = np.zeros((n, n)), np.zeros(n)
    for a, b, p, q in pairs:
        step = np.linalg.inv(poses[b]) @ poses[a]
        source = np.append(p, np.ones((len(p), 1)), axis=1)
        mapped = source @ step.T
        place = mapped[:, :2] / mapped[:, 2:]
        # Derivative of the perspective division: (k, 2, 3).
        divide = np.zeros((len(p), 2, 3))
        divide[:, [0, 1], [0, 1]] = 1 / mapped[:, 2:]
        divide[:, :, 2] = -place / mapped[:, 2:]
        # A small change D of pose a moves the mapped point by `step @ D @ source`, one of pose b by
        # `-D @ mapped`.
        by_a = np.einsum("kdm,mr,kc->kdrc", divide, step, source).reshape(-1, 2, 9)[..., :8]
        by_b = -np.einsum("kdr,kc->kdrc", divide, mapped).reshape(-1, 2, 9)[..., :8]
        error = place - q
        weight = 1 / (1 + (error**2).sum(axis=1) / (INLIER_UNITS * _NORMAL[0, 0]) ** 2)
        jacobian = np.concatenate([by_a, by_b], axis=2)
        at = np.concatenate([np.arange(8 * a, 8 * a + 8), np.arange(8 * b, 8 * b + 8)])
        curvature[np.ix_(at, at)] += np.einsum(
            "k,kdi,kdj->ij", weight, jacobian, jacobian, optimize=True
        )
        slope[at] += np.einsum("k,kdi,kd->i", weight, jacobian, error)
    damped = curvature + np.diag(DAMPING * np.diag(curvature) + 1e-9)
    change = np.linalg.solve(damped, -slope).reshape(-1, 8)
    return [np.append(c, 0.0).reshape(3, 3) + np.eye(3) for c in change]


# ---------------------------------------------------------------------------- the front


def _fronts(
    poses: Mapping[int, np.ndarray],
    views: Mapping[int, PhotoFeatures],
    steps: Mapping[tuple[int, int], np.ndarray],
) -> dict[int, np.ndarray]:
    """Return the homography from the units of each photo to the front of the shelf.

    Photos are assumed to be taken from the front on average, so the horizon is placed as far away
    as possible for all photos together. They are assumed to be level and to keep their size on
    average.
    Products of a class are assumed to have the same size, which removes the remaining perspective.
    """
    plane = [pose / np.cbrt(np.linalg.det(pose)) for pose in poses.values()]
    looks = list(views.values())
    front = _upright(_far_horizon(plane), plane)
    levelled = np.zeros(2)
    for _ in range(ROUNDS):
        fronts = [front @ pose for pose in plane]
        if not all(map(_is_plausible, fronts, looks)):
            return _laid_flat(views, steps)
        level, step = _alike_products(fronts, looks, levelled)
        levelled += step
        front = _upright(level @ front, plane)
    return dict(zip(poses, fronts, strict=True))


def _is_plausible(front: np.ndarray, view: PhotoFeatures) -> bool:
    """Return whether the front of a photo has no horizon in it and is not stretched much."""
    depth = (GRID * view.half) @ front[2, :2] / front[2, 2] + 1
    most, least = np.linalg.svd(_at_middle(front), compute_uv=False)
    return bool(
        depth.min() > 0
        and depth.max() < MOST_DEPTH_RATIO * depth.min()
        and most < MOST_STRETCH * least
    )


def _at_middle(front: np.ndarray) -> np.ndarray:
    """Return the (2, 2) Jacobian of a homography in the middle of a photo."""
    return (front[:2, :2] * front[2, 2] - np.outer(front[:2, 2], front[2, :2])) / front[2, 2] ** 2


def _laid_flat(
    views: Mapping[int, PhotoFeatures], steps: Mapping[tuple[int, int], np.ndarray]
) -> dict[int, np.ndarray]:
    """Return affine fronts of all photos by linear least squares.

    The common parts of two photos must coincide, and photos must keep their shape. This is the
    fallback for a lens with distortion: it bends a long chain of photos until some reach the
    horizon. The steps between pairs are still correct, so the photos are placed side by side
    without
    perspective.
    """
    n, at = len(views), {photo: 3 * i for i, photo in enumerate(views)}
    # The unknowns are three rows for each photo that map (x, y, 1), x and y in half sides, to the
    # front.
    keep = np.tile([KEEP_SHAPE, KEEP_SHAPE, KEEP_PLACE], n)[:, None]
    left, right = (
        [keep * np.eye(3 * n)],
        [keep * np.tile([[SIDE_UNITS / 2, 0], [0, SIDE_UNITS / 2], [0, 0]], (n, 1))],
    )
    for (a, b), step in steps.items():
        grid = GRID * views[a].half
        mapped = map_points(grid, step)
        common = (np.abs(mapped) < views[b].half).all(axis=1)
        meet = np.zeros((common.sum(), 3 * n))
        for photo, points, sign in ((a, grid, 1), (b, mapped, -1)):
            meet[:, at[photo] : at[photo] + 3] = sign * np.append(
                points[common] * 2 / SIDE_UNITS, np.ones((len(meet), 1)), axis=1
            )
        left.append(meet)
        right.append(np.zeros((len(meet), 2)))
    found = np.linalg.lstsq(np.concatenate(left), np.concatenate(right), rcond=None)[0]
    affine = (np.vstack([rows.T, [0, 0, 1]]) @ _NORMAL for rows in found.reshape(n, 3, 2))
    return dict(zip(views, affine, strict=True))


def _upright(front: np.ndarray, poses: Sequence[np.ndarray]) -> np.ndarray:
    """Return the front without the mean rotation, shear and scale at the middles of the photos."""
    turn = np.eye(3)
    turn[:2, :2] = np.linalg.inv(np.mean([_at_middle(front @ pose) for pose in poses], axis=0))
    return turn @ front


def _far_horizon(poses: Sequence[np.ndarray]) -> np.ndarray:
    """Return the (3, 3) homography that maps the common horizon of the photos to infinity.

    The horizon is the line that is farthest from the middles of all photos together.
    """
    near = sum(pose @ np.diag([1, 1, 0]) @ pose.T * (SIDE_UNITS / 2) ** 2 for pose in poses)
    far = sum(np.outer(pose[:, 2], pose[:, 2]) for pose in poses)
    values, vectors = np.linalg.eig(np.linalg.solve(near + far, near))
    horizon = vectors[:, values.real.argmin()].real
    horizon *= np.sign(sum(horizon @ pose[:, 2] for pose in poses))
    # The other two rows are arbitrary, as long as the matrix is invertible.
    return np.concatenate([np.linalg.svd(horizon[None])[2][1:], horizon[None]])


def _alike_products(
    poses: Sequence[np.ndarray], views: Sequence[PhotoFeatures], levelled: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a (3, 3) homography that equalizes the heights of products of a class, and its step.

    Widths are not used, since the width of a box grows with the tilt of the photo.

    Args:
        poses: (3, 3) homography of each photo to the front.
        views: Registration data of the photos.
        levelled: (2,) sum of the steps so far.

    Returns:
        (3, 3) homography; (2,) step: change of the logarithm of height, horizontally and
        vertically, from the middle to the standard deviation of the products' positions.
    """
    boxes = np.concatenate(
        [map_boxes(view.boxes, pose) for view, pose in zip(views, poses, strict=True)]
    )
    classes = np.concatenate([view.classes for view in views])
    whole = np.concatenate(
        [(np.abs(view.boxes) < WHOLE_SHARE * np.tile(view.half, 2)).all(axis=1) for view in views]
    )
    whole &= boxes[:, 3] > boxes[:, 1]
    if not whole.any():
        return np.eye(3), np.zeros(2)
    boxes, kind = boxes[whole], np.unique(classes[whole], return_inverse=True)[1]
    places = (boxes[:, :2] + boxes[:, 2:]) / 2
    middle, extent = places.mean(axis=0), max(places.std(axis=0).max(), 1e-9)
    columns = np.column_stack([np.log(boxes[:, 3] - boxes[:, 1]), (places - middle) / extent])
    # Relative to the mean of each class, since different classes may differ in size.
    columns -= (
        np.stack([np.bincount(kind, c) for c in columns.T], axis=1)[kind]
        / np.bincount(kind)[kind, None]
    )
    height, place = columns[:, 0], columns[:, 1:]
    weight = 1 / (1 + (height / HEIGHT_SPREAD) ** 2)
    prior, weighted = (
        np.diag((HEIGHT_SPREAD / np.array(USUAL_SLOPE)) ** 2),
        (place * weight[:, None]).T,
    )
    step = np.linalg.solve(weighted @ place + prior, weighted @ height - prior @ levelled)
    # If depth grows by g, a height shrinks by g; by 2 g if the depth grows vertically.
    step = np.clip(step, *(sign * MOST_LEVELLED * np.array([1, 2]) for sign in (-1, 1)))
    level, onto = np.eye(3), np.eye(3)
    level[2, :2] = step / (1, 2)
    onto[:2] = np.column_stack([np.eye(2), -middle]) / extent
    return level @ onto, step
