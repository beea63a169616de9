"""Homographies: camera views of a flat shelf, and photos, points and boxes mapped between views."""

from __future__ import annotations

from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections
from shelfcount.vision import boxes as box_math

# Focal length of a phone's main camera as a share of the longer side of the photo. There are two
# values, since measured figures depend on each:
# - The assumed lens sees 65 degrees, 1 / (2 tan 32.5 degrees). Front views of shelves
#   (shelf/front_view.py) and the angles of the photo gate are computed with it; its limits and the
#   accuracy of facings (benchmarks/results/photo_gate.json, placement.json) were measured with it.
# - The simulated lens sees 69 degrees, 26 mm on 36 mm film. The views of `view_homography`, and so
#   the robustness figures, are photos taken with it. A yaw of 38 degrees in such a view is measured
#   as 41 degrees.
# Main cameras are equivalent to 24 to 28 mm, so both are within the range of real phones.
FOCAL_LENGTH = 0.785
SIMULATED_FOCAL_LENGTH = 26 / 36
Level = TypeVar("Level", np.uint8, np.int16, np.float32)
# A product of whose box a smaller share is left in the frame is marked `ignore`, in training and in
# robustness tests.
MIN_VISIBLE = 0.35


def map_detections(
    detections: Detections, homography: NDArray[np.float64], width: int, height: int
) -> tuple[Detections, NDArray[np.int64]]:
    """Map boxes by a homography, by the rule "ellipse", and clip them at the new frame.

    Args:
        detections: n boxes on the original photo.
        homography: (3, 3) from its pixels to the new ones.
        width, height: Size of the new frame in pixels.

    Returns:
        The m boxes that are at least partly in the frame, marked `ignore` if the visible share is
        less than `MIN_VISIBLE`; and (m,) int64, the index of each in `detections`.
    """
    identity = np.array_equal(homography, np.eye(3))
    mapped = (
        detections.boxes.astype(np.float64)
        if identity
        else map_boxes(detections.boxes, homography, "ellipse")
    )
    inside = box_math.clip(mapped, width, height)
    with np.errstate(invalid="ignore"):
        visible = np.where(
            box_math.area(mapped) > 0, box_math.area(inside) / box_math.area(mapped), 0.0
        )
        kept = np.flatnonzero((inside[:, 2:] > inside[:, :2]).all(axis=1))
    result = detections[kept].replace(boxes=inside[kept])
    return result.replace(ignore=result.ignore | (visible[kept] < MIN_VISIBLE)), kept


def _around_ellipses(
    boxes: NDArray[np.floating], homography: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the bounding boxes of the mapped ellipses that fill (n, 4) boxes.

    Returns:
        (n, 4) float64 xyxy; NaN for an ellipse that reaches behind the camera.
    """
    left, top, right, bottom = np.asarray(boxes, np.float64).T
    # Tangents of a conic map linearly: the dual conic C becomes H C H^T, and the line x = c touches
    # it if (1, 0, -c) is a tangent.
    dual = np.zeros((len(boxes), 3, 3))
    dual[:, 0, 0], dual[:, 1, 1], dual[:, 2, 2] = (
        ((right - left) / 2) ** 2,
        ((bottom - top) / 2) ** 2,
        -1,
    )
    shift = np.tile(np.eye(3), (len(boxes), 1, 1))
    shift[:, 0, 2], shift[:, 1, 2] = (left + right) / 2, (top + bottom) / 2
    image = homography @ shift @ dual @ shift.transpose(0, 2, 1) @ homography.T
    depth = (homography @ shift)[:, 2, 2]
    w = np.where(
        (image[:, 2, 2] < 0) & (depth * np.sign(homography[2, 2]) > 0), image[:, 2, 2], np.nan
    )
    center = np.stack([image[:, 0, 2], image[:, 1, 2]], axis=1) / w[:, None]
    spread = np.sqrt(
        np.maximum(center**2 - np.stack([image[:, 0, 0], image[:, 1, 1]], axis=1) / w[:, None], 0)
    )
    return np.concatenate([center - spread, center + spread], axis=1)


def view_homography(degrees: float, axis: str, width: int, height: int) -> NDArray[np.float64]:
    """Return the (3, 3) homography of a flat shelf seen by a rotated camera.

    The middle of the photo keeps its position and scale. The lens is `SIMULATED_FOCAL_LENGTH`.

    Args:
        degrees: Angle of rotation about the axis; right-handed.
        axis: 'x' for a view from above or below, 'y' for a view from the side, 'z' for a tilted
            phone.
        width, height: Size of the photo in pixels.
    """
    angle, focal = np.radians(degrees), SIMULATED_FOCAL_LENGTH * max(width, height)
    cos, sin = np.cos(angle), np.sin(angle)
    columns = {
        "x": [(1, 0), (0, cos), (0, sin)],
        "y": [(cos, 0), (0, 1), (-sin, 0)],
        "z": [(cos, -sin), (sin, cos), (0, 0)],
    }[axis]
    # The shelf is the plane z = 0 at a distance of the focal length, so that one pixel on the shelf
    # is one pixel on the photo.
    pose = np.column_stack([np.array(columns, np.float64), [0, 0, focal]])
    lens = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    homography = lens @ pose @ np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    return np.asarray(homography / homography[2, 2])


def inverse(homography: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (3, 3) homography of the opposite direction."""
    return np.asarray(np.linalg.inv(homography), np.float64)


def map_points(
    points: NDArray[np.floating], homography: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Map (n, 2) points by a homography and return (n, 2) float64 points.

    Points behind the camera are NaN. The origin, in units the middle of the photo, is in front of
    the camera.
    """
    mapped = (points @ homography[:, :2].T + homography[:, 2]) * np.sign(homography[2, 2])
    result = np.full((len(points), 2), np.nan)
    np.divide(mapped[:, :2], mapped[:, 2:], out=result, where=mapped[:, 2:] > 0)
    return result


def map_boxes(
    boxes: NDArray[np.floating],
    homography: NDArray[np.float64],
    rule: Literal["edges", "ellipse", "corners"] = "edges",
) -> NDArray[np.float64]:
    """Map (n, 4) xyxy boxes by a homography and return (n, 4) float64 xyxy boxes.

    Args:
        boxes: (n, 4) xyxy.
        homography: (3, 3), in the units of the boxes.
        rule: "edges" puts the sides of the new box at the mapped middles of the edges. It is exact
            for views of the same tilt, such as neighbouring photos of a shelf, and fast. "ellipse"
            puts the new box around the mapped ellipse that fills the box, as a person would label a
            bottle or a can that was rotated. "corners" puts it around the mapped corners: right for
            a flat rectangle, too large for products, which do not reach into the corners of their
            boxes.

    Returns:
        New boxes; NaN for a box that reaches behind the camera, see `map_points`.
    """
    if rule == "ellipse":
        return _around_ellipses(boxes, homography)
    if rule == "corners":
        corners = np.asarray(boxes, np.float64)[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        mapped = map_points(corners, homography).reshape(-1, 4, 2)
        return np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1)
    left, top, right, bottom = (
        map_points(edge_middles(boxes), homography).reshape(-1, 4, 2).transpose(1, 2, 0)
    )
    return np.stack([left[0], top[1], right[0], bottom[1]], axis=1)


def edge_middles(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (4 n, 2) float64 middles of the left, top, right and bottom edges of (n, 4) boxes."""
    left, top, right, bottom = np.asarray(boxes, np.float64).T
    x, y = (left + right) / 2, (top + bottom) / 2
    return np.stack([left, y, x, top, right, y, x, bottom], axis=1).reshape(-1, 2)


def warp(
    image: NDArray[Level],
    homography: NDArray[np.float64],
    size: tuple[int, int],
    border: int = cv2.BORDER_CONSTANT,
    *,
    interpolation: int = cv2.INTER_LINEAR,
    fill: int = 0,
) -> NDArray[Level]:
    """Map an image by a homography for which pixel i covers [i, i + 1), as for boxes.

    OpenCV's warp places the centre of pixel i at i, half a pixel aside.

    Args:
        image: (h, w) or (h, w, channels) of a type that OpenCV's warp supports.
        homography: (3, 3) from pixels of the image to pixels of the result.
        size: Width and height of the result in pixels.
        border: OpenCV's rule for pixels outside the image, for example ``cv2.BORDER_REPLICATE``.
        interpolation: OpenCV's rule between pixels.
        fill: Level outside the image for ``cv2.BORDER_CONSTANT``, in all channels.

    Returns:
        (height, width) or (height, width, channels), of the type of the image.
    """
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    centres = np.linalg.inv(half) @ homography @ half
    warped = cv2.warpPerspective(
        image, centres, size, flags=interpolation, borderMode=border, borderValue=(fill,) * 3
    )
    return np.asarray(warped, image.dtype)
