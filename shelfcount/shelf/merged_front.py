"""Front of a shelf on several registered photos: where each photo is on it, without perspective.

Registration leaves one homography for all photos undetermined. It is chosen so that photos are
taken from the front on average, and that products of one class have one height.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shelfcount.shelf.photo_features import SIDE_UNITS, PhotoFeatures
from shelfcount.shelf.photo_pairs import GRID, MAX_DEPTH_RATIO
from shelfcount.vision.homography import map_boxes, map_points

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
MAX_STRETCH = 1.5
# Weights of the shape and of the position of a photo in the affine fallback, relative to 1 for each
# grid point that two photos share.
KEEP_SHAPE, KEEP_PLACE = 3.0, 1e-3
# Maximum change of depth in one step, from the middle of the front to the standard deviation of the
# products' positions.
MAX_DEPTH_CHANGE = 0.2
# Each round equalizes the heights, and places the front upright again.
_ROUNDS = 6
# Scales units to numbers of about 1, so that translation, rotation and perspective have similar
# magnitudes.
NORMAL = np.diag([2 / SIDE_UNITS, 2 / SIDE_UNITS, 1.0])


def fit_fronts(
    poses: Mapping[int, NDArray[np.float64]],
    views: Mapping[int, PhotoFeatures],
    steps: Mapping[tuple[int, int], NDArray[np.float64]],
) -> dict[int, NDArray[np.float64]]:
    """Return the homography from the units of each photo to the front of the shelf.

    Photos are assumed to be taken from the front on average, so the horizon is placed as far away
    as possible for all photos together. They are assumed to be level and to keep their size on
    average. Products of a class are assumed to have the same size, which removes the remaining
    perspective.

    Args:
        poses: Homography of each photo of a group to a common plane, by index of the photo.
        views: Registration data of the same photos.
        steps: Homography from photo to photo of the pairs (a, b) that were registered.

    Returns:
        (3, 3) homography of each photo to the front.
    """
    plane = [pose / np.cbrt(np.linalg.det(pose)) for pose in poses.values()]
    looks = list(views.values())
    front = _upright(_far_horizon(plane), plane)
    levelled = np.zeros(2)
    for _ in range(_ROUNDS):
        fronts = [front @ pose for pose in plane]
        if not all(map(_is_plausible, fronts, looks)):
            return _laid_flat(views, steps)
        level, step = _alike_products(fronts, looks, levelled)
        levelled += step
        front = _upright(level @ front, plane)
    return dict(zip(poses, fronts, strict=True))


def _is_plausible(front: NDArray[np.float64], view: PhotoFeatures) -> bool:
    """Return whether the front of a photo has no horizon in it and is not stretched much."""
    depth = (GRID * view.half) @ front[2, :2] / front[2, 2] + 1
    largest, smallest = np.linalg.svd(_at_middle(front), compute_uv=False)
    return bool(
        depth.min() > 0
        and depth.max() < MAX_DEPTH_RATIO * depth.min()
        and largest < MAX_STRETCH * smallest
    )


def _at_middle(front: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (2, 2) Jacobian of a homography in the middle of a photo."""
    scaled = front[:2, :2] * front[2, 2] - np.outer(front[:2, 2], front[2, :2])
    return np.asarray(scaled / front[2, 2] ** 2)


def _laid_flat(
    views: Mapping[int, PhotoFeatures], steps: Mapping[tuple[int, int], NDArray[np.float64]]
) -> dict[int, NDArray[np.float64]]:
    """Return affine fronts of all photos by linear least squares.

    The common parts of two photos must coincide, and photos must keep their shape. This is the
    fallback for a lens with distortion: it bends a long chain of photos until some reach the
    horizon. The steps between pairs are still correct, so the photos are placed side by side
    without perspective.
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
    affine = (np.vstack([rows.T, [0, 0, 1]]) @ NORMAL for rows in found.reshape(n, 3, 2))
    return dict(zip(views, affine, strict=True))


def _upright(
    front: NDArray[np.float64], poses: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the front without the mean rotation, shear and scale at the middles of the photos."""
    turn = np.eye(3)
    turn[:2, :2] = np.linalg.inv(np.mean([_at_middle(front @ pose) for pose in poses], axis=0))
    return turn @ front


def _far_horizon(poses: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
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
    poses: Sequence[NDArray[np.float64]],
    views: Sequence[PhotoFeatures],
    levelled: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
    step = np.clip(step, *(sign * MAX_DEPTH_CHANGE * np.array([1, 2]) for sign in (-1, 1)))
    level, onto = np.eye(3), np.eye(3)
    level[2, :2] = step / (1, 2)
    onto[:2] = np.column_stack([np.eye(2), -middle]) / extent
    return level @ onto, step
