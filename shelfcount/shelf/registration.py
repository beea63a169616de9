"""Registration of several photos of one shelf to its front: a graph of pairs, adjusted jointly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import ShelfcountError
from shelfcount.shelf.merged_front import NORMAL, fit_fronts
from shelfcount.shelf.photo_features import (
    KeypointMatches,
    PhotoFeatures,
    match_keypoints,
)
from shelfcount.shelf.photo_pairs import (
    GRID,
    INLIER_UNITS,
    MIN_POINTS,
    SEARCH_UNITS,
    SUPPORT_UNITS,
    PairFit,
    fit_pair,
    is_view_change,
    score_fit,
    supporting,
)
from shelfcount.vision.homography import inverse, map_points

# Indices of the photos of each group.
Groups = tuple[tuple[int, ...], ...]

# The number of pairs is quadratic: 40 photos are 780 pairs of about 0.05 s.
MAX_MERGED_PHOTOS = 40
# Two poses of a photo are the same if they differ by less than this in the overlap of the photos:
# it is less than half a product, and more than the drift of a chain of photos.
SAME_POSE_UNITS = 20.0
ROUNDS = 6
# Damping makes the adjustment solvable, as the pose of the whole group is not determined.
DAMPING = 1e-4


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
    steps: Mapping[tuple[int, int], NDArray[np.float64]]
    fronts: tuple[NDArray[np.float64], ...]
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
        views: Registration data of at most `MAX_MERGED_PHOTOS` photos.

    Raises:
        ShelfcountError: If there are more than `MAX_MERGED_PHOTOS`.
    """
    if len(views) > MAX_MERGED_PHOTOS:
        raise ShelfcountError(
            f"at most {MAX_MERGED_PHOTOS} photos can be merged at once, got {len(views)}. "
            "Merge them shelf by shelf."
        )
    matches = {
        (a, b): match_keypoints(views[a], views[b]) for a, b in combinations(range(len(views)), 2)
    }
    links = {(a, b): fit_pair((a, b), views[a], views[b], near) for (a, b), near in matches.items()}
    compared = _Compared(tuple(views), matches, links)
    groups, poses = _place(compared)
    steps: dict[tuple[int, int], NDArray[np.float64]] = {}
    fronts: dict[int, NDArray[np.float64]] = {}
    for group in groups:
        placed = {photo: poses[photo] for photo in sorted(group)}
        adjusted = _adjust(placed, compared)
        known = _steps(placed, adjusted, compared)
        steps |= known
        fronts |= fit_fronts(adjusted, {photo: views[photo] for photo in placed}, known)
    best = tuple(found[0] for found in links.values() if found)
    return Registration(groups, steps, tuple(fronts[i] for i in range(len(views))), best)


@dataclass(frozen=True, eq=False)
class _Compared:
    """Photos with the matches and possible registrations of each pair (a, b), a < b."""

    views: tuple[PhotoFeatures, ...]
    matches: Mapping[tuple[int, int], KeypointMatches]
    links: Mapping[tuple[int, int], Sequence[PairFit]]


def _place(compared: _Compared) -> tuple[Groups, dict[int, NDArray[np.float64]]]:
    """Return the groups and the pose of each photo.

    A pose is (3, 3), from units of the photo to units of the first photo of its group.
    """
    views = compared.views
    steps: dict[int, list[tuple[int, NDArray[np.float64], float]]] = {
        i: [] for i in range(len(views))
    }
    for (a, b), found in compared.links.items():
        for link in found:
            if link.is_valid:
                steps[a].append((b, link.homography, link.score))
                steps[b].append((a, inverse(link.homography), link.score))
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
    poses: Mapping[int, NDArray[np.float64]],
    views: Sequence[PhotoFeatures],
    steps: Sequence[tuple[int, NDArray[np.float64], float]],
) -> tuple[int, NDArray[np.float64], float]:
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
                    inverse(poses[other]) @ pose,
                    inverse(poses[other]) @ rival,
                    views[photo],
                    views[other],
                )
                < SAME_POSE_UNITS
            ):
                votes[other] = max(score, votes.get(other, 0.0))
        totals.append(sum(votes.values()))
    best = int(np.argmax(totals))
    return photo, options[best][1], totals[best]


def _gap(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    photo: PhotoFeatures,
    onto: PhotoFeatures,
) -> float:
    """Return the median distance in units of two homographies in the overlap of two photos."""
    grid = GRID * photo.half
    p, q = map_points(grid, first), map_points(grid, second)
    shown = (np.abs(q) <= onto.half).all(axis=1)
    return float(np.median(np.hypot(*(p - q)[shown].T))) if shown.any() else np.inf


def _adjust(
    poses: Mapping[int, NDArray[np.float64]], compared: _Compared
) -> dict[int, NDArray[np.float64]]:
    """Adjust the poses of a group jointly to the matches of all pairs.

    Gauss-Newton optimization with Cauchy weights. It minimizes the distance between a keypoint and
    the mapped match of the other photo, in units of one of the photos. Distances on the front
    would be smallest if the photos shrank to a point.
    """
    photos, views = list(poses), compared.views
    normal = [poses[photo] @ inverse(NORMAL) for photo in photos]
    for reach in (SEARCH_UNITS[-1], SUPPORT_UNITS):
        pairs = []
        for (i, a), (j, b) in combinations(enumerate(photos), 2):
            homography = inverse(normal[j] @ NORMAL) @ normal[i] @ NORMAL
            if is_view_change(homography, views[a], views[b]):
                p, q = supporting(homography, views[a], views[b], compared.matches[a, b], reach)
                if len(p) >= MIN_POINTS:
                    pairs.append(
                        (
                            i,
                            j,
                            map_points(views[a].points[p], NORMAL),
                            map_points(views[b].points[q], NORMAL),
                        )
                    )
        for _ in range(ROUNDS):
            normal = [
                pose @ turn for pose, turn in zip(normal, _gauss_newton(normal, pairs), strict=True)
            ]
    return {photo: pose @ NORMAL for photo, pose in zip(photos, normal, strict=True)}


def _steps(
    placed: Mapping[int, NDArray[np.float64]],
    adjusted: Mapping[int, NDArray[np.float64]],
    compared: _Compared,
) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Return `Registration.steps` of a group.

    It is the accepted link of a pair that agrees with the poses, or, if there is none, the adjusted
    pose if it is accepted. In a long chain, poses may drift until photos seem to overlap that do
    not.
    """
    steps = {}
    for a, b in combinations(placed, 2):
        one, other = compared.views[a], compared.views[b]
        onto = inverse(placed[b]) @ placed[a]
        links = [
            link
            for link in compared.links[a, b]
            if link.is_valid and _gap(link.homography, onto, one, other) < SAME_POSE_UNITS
        ]
        onto = inverse(adjusted[b]) @ adjusted[a]
        if links:
            steps[a, b] = links[0].homography
        elif (
            is_view_change(onto, one, other)
            and score_fit((a, b), one, other, compared.matches[a, b], onto).is_valid
        ):
            steps[a, b] = onto
    return steps


def _gauss_newton(
    poses: Sequence[NDArray[np.float64]],
    pairs: Sequence[tuple[int, int, NDArray[np.float64], NDArray[np.float64]]],
) -> list[NDArray[np.float64]]:
    """Return a (3, 3) correction for each pose, close to the identity.

    The pose must be multiplied with it from the right.
    """
    n = 8 * len(poses)
    curvature, slope = np.zeros((n, n)), np.zeros(n)
    for a, b, p, q in pairs:
        step = inverse(poses[b]) @ poses[a]
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
        weight = 1 / (1 + (error**2).sum(axis=1) / (INLIER_UNITS * NORMAL[0, 0]) ** 2)
        jacobian = np.concatenate([by_a, by_b], axis=2)
        at = np.concatenate([np.arange(8 * a, 8 * a + 8), np.arange(8 * b, 8 * b + 8)])
        curvature[np.ix_(at, at)] += np.einsum(
            "k,kdi,kdj->ij", weight, jacobian, jacobian, optimize=True
        )
        slope[at] += np.einsum("k,kdi,kd->i", weight, jacobian, error)
    damped = curvature + np.diag(DAMPING * np.diag(curvature) + 1e-9)
    change = np.linalg.solve(damped, -slope).reshape(-1, 8)
    return [np.append(c, 0.0).reshape(3, 3) + np.eye(3) for c in change]
