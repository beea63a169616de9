"""Front view of a shelf on one photo: the camera's angles, fitted to rows and sizes of products.

Two properties of boxes determine it: products of one row have one floor, and products of one
class have one size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shelfcount.vision.homography import FOCAL_LENGTH

# Standard deviation of a box's edge as a share of the product's height, and of the logarithm of
# the size within one class.
EDGE_SCATTER = 0.05
SIZE_SCATTER = 0.06
# Roll, pitch and yaw of a hand-held camera in radians: standard deviation, and maximum.
USUAL_ANGLES = np.radians([8.0, 8.0, 20.0])
MAX_ANGLES = np.radians([25.0, 25.0, 40.0])
MAX_STEPS = 30
# Smooths the absolute value in the lean at 0. Without it, the fit cannot tell a lean to the left
# from one to the right. Chosen on synthetic shelves.
CORNER = 0.03


def fit_front(
    boxes: NDArray[np.float64],
    classes: NDArray[np.int64],
    board: NDArray[np.int64],
    size: tuple[int, int],
) -> NDArray[np.float64]:
    """Fit the camera for which rows are level and products of one class have the same size.

    Levenberg-Marquardt optimization of its three angles with a robust loss.

    Args:
        boxes: (n, 4) float64 xyxy pixels.
        classes: (n,) int64 class indices.
        board: (n,) int64 board on which each product is placed, -1 if it is on another product.
        size: (width, height) of the photo in pixels.

    Returns:
        (3, 3) homography from the photo to the front view.
    """
    rows, kinds = _groups(board), _groups(classes)
    if not rows and not kinds:
        return _to_front(np.zeros(3), size)

    def oddness(angles: NDArray[np.float64]) -> NDArray[np.float64]:
        return _oddness(boxes, _to_front(angles, size), rows, kinds)

    def cost(angles: NDArray[np.float64], odd: NDArray[np.float64]) -> float:
        # Cauchy loss: the influence of an outlier decreases with its residual.
        return float(2 * np.log1p(odd**2 / 4).sum() + ((angles / USUAL_ANGLES) ** 2).sum() / 2)

    angles, damping = np.zeros(3), 1e-3
    odd = oddness(angles)
    for _ in range(MAX_STEPS):
        slope = np.stack(
            [(oddness(angles + step) - odd) / step.sum() for step in np.eye(3) * 1e-3], axis=1
        )
        weighted = slope.T / (1 + odd**2 / 4)
        normal = weighted @ slope + np.diag(1 / USUAL_ANGLES**2)
        change = np.linalg.solve(
            normal + damping * np.diag(np.diag(normal)), -weighted @ odd - angles / USUAL_ANGLES**2
        )
        tried = np.clip(angles + change, -MAX_ANGLES, MAX_ANGLES)
        tried_odd = oddness(tried)
        gain = cost(angles, odd) - cost(tried, tried_odd)
        if gain > 0:
            angles, odd = tried, tried_odd
        damping *= 0.1 if gain > 0 else 10
        if abs(gain) < 1e-3:
            break
    return _to_front(angles, size)


def _to_front(angles: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the (3, 3) homography from photo to front view for camera angles.

    Args:
        angles: Roll, pitch and yaw in radians.
        size: (width, height) of the photo in pixels.
    """
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


def upright_outlines(
    boxes: NDArray[np.float64], to_front: NDArray[np.float64], corner: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the upright products in the front view whose images the boxes enclose.

    Args:
        boxes: (n, 4) float64 xyxy pixels of the photo.
        to_front: (3, 3) homography from the photo to the front view.
        corner: Smoothing of the absolute value of the lean at 0.

    Returns:
        (n, 2) middles in the front view; (n, 2) half widths and half heights in the front view; (n,
        2, 2) lean: half the width of a photo box is lean[0, 0] * half width + lean[0, 1] * half
        height, and likewise half its height with lean[1].
    """
    half = _half(boxes)
    point = np.column_stack([boxes[:, :2] + half, np.ones(len(boxes))]) @ to_front.T
    depth, point = point[:, 2, None], point[:, :2] / point[:, 2:]
    # Close to the middle of a product the homography is approximately linear.
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


def _half(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 1) / 2


def _oddness(
    boxes: NDArray[np.float64],
    to_front: NDArray[np.float64],
    rows: Sequence[NDArray[np.int64]],
    kinds: Sequence[NDArray[np.int64]],
) -> NDArray[np.float64]:
    """Return the residuals of rows and sizes in units of their standard deviations.

    They are the distances of bottom edges from the median of their row, and the log ratios of box
    sizes and the size that the median product of their class has at their position.
    """
    middle, size, lean = upright_outlines(boxes, to_front, CORNER)
    foot = (middle[:, 1] + size[:, 1]) / (2 * np.median(size[:, 1])) / EDGE_SCATTER
    feet = [foot[own] - np.median(foot[own]) for own in rows]
    # Compared in the photo, in which the scatter of a box's edges does not depend on the lean.
    sizes = [
        np.log(_half(boxes[own]) / (lean[own] @ np.median(size[own], axis=0))).ravel()
        / SIZE_SCATTER
        for own in kinds
    ]
    return np.concatenate(feet + sizes)


def _groups(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the indices of each number that occurs more than once; negative ones are left out."""
    groups = (np.flatnonzero(numbers == number) for number in np.unique(numbers[numbers >= 0]))
    return [members for members in groups if len(members) > 1]
