"""Photo quality measured on pixels: exposure, glare, view and sharpness.

The photo gate and the data check measure photos with these functions and compare the values with
limits of their own (`shelf.photo_gate`). export/web/photogate.js repeats the formulas, so sums are
of integers if possible.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.vision.homography import FOCAL_LENGTH
from shelfcount.vision.images import stretch

# Approximate length of the longer side of the small copy in pixels.
COPY_SIDE = 416
# A pixel is overexposed if its brightest channel is at least 250 of 255; JPEG leaves few at 255.
BLOWN = 250
# Glare is white and without detail: blocks of this many pixels per side of the copy, with a mean of
# the darkest channel of at least `BLOWN` and a standard deviation of grey levels below 15. White
# labels have print on them, and white walls are at 220 to 245.
GLARE_BLOCK = 8
GLARE_DETAIL = 15
# The strongest edge in each of 24 x 24 cells, of at least 10 grey levels and within 35 degrees
# (tan = 0.7) of horizontal or vertical. The response of a Sobel kernel of 5 pixels to an edge of
# one level is 48.
_CELLS = 24
MIN_EDGE = 10 * 48
MIN_EDGE_CELLS = 40
# Angles in degrees. A line agrees with a camera angle within `AGREEMENT`, which becomes smaller at
# each step of the search. Of two equally good angles the one closer to level is chosen.
SEARCH_TILT, TILT_STEP = 27.0, 3.0
SEARCH_TURN, TURN_STEP = 42.0, 7.0
AGREEMENT = 3.0
SEARCHES = 3
LEVELNESS = 0.015
# Minimum agreement of the lines, 0 to 1, for a valid camera angle. Lines in all directions (20
# photos of noise) reach 0.043; the median of the drinks photos is 0.09 for horizontal lines and
# 0.065 for vertical ones.
MIN_AGREEING = 0.045
# Sharpness is measured on 3 x 3 windows of at most this many pixels per side of the measured scale.
WINDOWS = 3
WINDOW_SIDE = 96
DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1))
_FINE, _COARSE = 1, 4
# 99th percentile of the blur in the most blurred direction, over 180 drinks training photos.
# Sharper photos have no motion blur.
USUAL_BLUR = 0.74


# ---------------------------------------------------------------- light


def small_copy(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a copy of about `COPY_SIDE` pixels on its longer side.

    Each pixel is the mean of four pixels of the photo, which is fast for large photos.

    Args:
        image: (height, width, 3) uint8.

    Returns:
        (h, w, 3) uint8.
    """
    step = max(1, int(max(image.shape[:2]) / COPY_SIDE + 0.5))
    if step == 1:
        return image
    height, width = (side - side % step or 1 for side in image.shape[:2])
    down, right = (min(step // 2, side - 1) for side in image.shape[:2])
    four = [
        image[top : height + top : step, left : width + left : step].astype(np.uint16)
        for top in (0, down)
        for left in (0, right)
    ]
    return np.asarray((np.sum(four, axis=0, dtype=np.uint16) + 2) >> 2, np.uint8)


def light(copy: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Measure the exposure and the glare of a photo.

    Args:
        copy: (h, w, 3) uint8 RGB, from `small_copy`.

    Returns:
        ``dark``: the lowest grey level, 0 to 255, that at least 90 % of the pixels do not exceed.
        ``bright``: share of overexposed pixels. ``glare``: share of the blocks of `GLARE_BLOCK`
        pixels per side that are white and without detail.
    """
    grey = np.asarray(cv2.cvtColor(copy, cv2.COLOR_RGB2GRAY), np.uint8)
    up_to = np.cumsum(np.bincount(grey.ravel(), minlength=256))
    dark = int(np.searchsorted(up_to * 10, 9 * grey.size))
    # cv2.max instead of max(axis=2), as numpy is slow along an axis of length three.
    red, green, blue = cv2.split(copy)
    bright = float((cv2.max(cv2.max(red, green), blue) >= BLOWN).mean())
    n = GLARE_BLOCK**2
    darkest = np.asarray(cv2.min(cv2.min(red, green), blue), np.uint8)
    whiteness, levels = _blocks(darkest).sum(axis=2), _blocks(grey)
    blank = n * (levels**2).sum(axis=2) - levels.sum(axis=2) ** 2 < (GLARE_DETAIL * n) ** 2
    white = blank & (whiteness >= BLOWN * n)
    return float(dark), bright, float(white.mean()) if white.size else 0.0


def white_share(copy: NDArray[np.uint8], area: NDArray[np.bool_]) -> float:
    """Return the share of an area whose pixels are overexposed in every channel.

    Args:
        copy: (h, w, 3) uint8 RGB, from `small_copy`.
        area: (h, w) bool mask with at least one pixel.
    """
    red, green, blue = cv2.split(copy)
    return float((cv2.min(cv2.min(red, green), blue) >= BLOWN)[area].mean())


def _blocks(levels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Split (h, w) levels into (rows, columns, pixels) int64 blocks; the remainder is left out."""
    rows, columns = (side // GLARE_BLOCK for side in levels.shape)
    cut = levels[: rows * GLARE_BLOCK, : columns * GLARE_BLOCK].astype(np.int64)
    return (
        cut.reshape(rows, GLARE_BLOCK, columns, GLARE_BLOCK)
        .transpose(0, 2, 1, 3)
        .reshape(rows, columns, GLARE_BLOCK**2)
    )


# ---------------------------------------------------------------- view


def view(copy: NDArray[np.uint8]) -> tuple[float | None, float | None, float | None]:
    """Estimate the angles of the camera from the lines on a photo.

    Boards and the edges of products are horizontal or vertical on the shelf. In an oblique photo,
    the horizontal ones meet in one vanishing point far outside the photo, and so do the vertical
    ones. Each vanishing point gives two angles of the camera.

    Args:
        copy: (h, w, 3) uint8 RGB, from `small_copy`.

    Returns:
        ``tilt``, ``yaw`` and ``pitch`` in degrees. An angle is None if too few lines agree.
    """
    grey = cv2.cvtColor(copy, cv2.COLOR_RGB2GRAY)
    across, down = (
        cv2.Sobel(grey, cv2.CV_32F, *step, ksize=5).astype(np.int64) for step in ((1, 0), (0, 1))
    )
    focal, (height, width) = FOCAL_LENGTH * max(grey.shape), grey.shape
    level = _lines(across, down, width, height, focal)
    # Mirrored at the diagonal, vertical lines are horizontal.
    upright = _lines(down.T, across.T, height, width, focal)
    tilt, turn = _meeting_point(*level) if level else (None, None)
    _, nod = _meeting_point(*upright) if upright else (None, None)
    return tilt, None if turn is None else -turn, nod


def _lines(
    across: NDArray[np.int64], down: NDArray[np.int64], width: int, height: int, focal: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the strongest nearly horizontal edge of each cell; None if there are too few.

    Returns:
        (n, 2) positions x, y from the middle in focal lengths; (n, 2) unit gradients x, y.
    """
    # The kernel is 5 pixels wide, so the outermost two pixels depend on pixels outside the photo.
    step_x, step_y = (width - 4) // _CELLS, (height - 4) // _CELLS
    if min(step_x, step_y) < 1:
        return None
    inner = slice(2, 2 + _CELLS * step_y), slice(2, 2 + _CELLS * step_x)
    gx, gy = across[inner], down[inner]
    strength = np.where(10 * np.abs(gx) <= 7 * np.abs(gy), gx**2 + gy**2, 0)
    cells = (
        strength.reshape(_CELLS, step_y, _CELLS, step_x)
        .transpose(0, 2, 1, 3)
        .reshape(_CELLS, _CELLS, -1)
    )
    strongest = cells.argmax(axis=2)
    row, column = np.nonzero(cells.max(axis=2) >= MIN_EDGE**2)
    if len(row) < MIN_EDGE_CELLS:
        return None
    within = strongest[row, column]
    y, x = row * step_y + within // step_x, column * step_x + within % step_x
    gradient = np.stack([gx[y, x], gy[y, x]], axis=1) / np.sqrt(strength[y, x])[:, None]
    return (np.stack([x, y], axis=1) + 2.5 - [width / 2, height / 2]) / focal, gradient


def _meeting_point(
    places: NDArray[np.float64], gradients: NDArray[np.float64]
) -> tuple[float, float] | tuple[None, None]:
    """Return tilt and turn in degrees of the direction that most lines share.

    The search is coarse to fine. Both angles are None if too few lines agree.
    """
    tilts, turns = (
        np.arange(-SEARCH_TILT, SEARCH_TILT + 1, TILT_STEP),
        np.arange(-SEARCH_TURN, SEARCH_TURN + 1, TURN_STEP),
    )
    tilt_step, turn_step, within = TILT_STEP, TURN_STEP, AGREEMENT
    for _ in range(SEARCHES):
        candidates = np.stack(np.meshgrid(tilts, turns, indexing="ij"), axis=2).reshape(-1, 2)
        agreeing = _agreeing(places, gradients, np.radians(candidates), np.sin(np.radians(within)))
        odd = LEVELNESS * ((candidates / [SEARCH_TILT, SEARCH_TURN]) ** 2).sum(axis=1)
        best = int(np.argmax(agreeing - odd))
        tilt, turn = candidates[best].tolist()
        tilt_step, turn_step, within = tilt_step / 2, turn_step / 2, within / 1.5
        tilts, turns = tilt + tilt_step * np.arange(-2, 3), turn + turn_step * np.arange(-2, 3)
    return (tilt, turn) if agreeing[best] >= MIN_AGREEING else (None, None)


def _agreeing(
    places: NDArray[np.float64],
    gradients: NDArray[np.float64],
    angles: NDArray[np.float64],
    within: float,
) -> NDArray[np.float64]:
    """Return the share of lines that point to the vanishing point of each camera angle.

    Args:
        places: (n, 2) positions of the lines.
        gradients: (n, 2) unit gradients of the lines.
        angles: (k, 2) tilt and turn in radians.
        within: Sine of the maximum deviation. Lines count less, the larger their deviation is.

    Returns:
        (k,) float64 in [0, 1].
    """
    (tilt, turn), (x, y), (gx, gy) = angles.T[:, :, None], places.T, gradients.T
    right, down = (
        np.cos(turn) * np.cos(tilt) - np.sin(turn) * x,
        np.cos(turn) * np.sin(tilt) - np.sin(turn) * y,
    )
    off = np.abs(right * gx + down * gy) / np.sqrt(right**2 + down**2)
    return np.asarray(np.maximum(1 - off / within, 0).mean(axis=1))


# ---------------------------------------------------------------- sharpness


def sharpness(
    image: NDArray[np.uint8], shrink: tuple[float, float]
) -> tuple[float | None, float | None, float]:
    """Return the blur and the motion blur of a photo at a scale, and the direction of the motion.

    At a sharp edge, the grey level changes within a pixel: by as much between pixels one apart as
    between pixels four apart, but four times as many pairs four apart cross the edge. Differences
    thus grow with the square root of the distance, and print in the photo makes them grow less. If
    an edge is blurred over four pixels or more, they grow in proportion to the distance. Motion
    blurs the edges of one direction only.

    Args:
        image: (height, width, 3) uint8 RGB.
        shrink: Pixels of the photo per pixel of the measured scale, x and y. A photo is never
            enlarged, so values below 1 count as 1.

    Returns:
        Blur, the exponent of the growth of differences with distance, mean of four directions:
        below 0.5 for a sharp photo, up to 1. Motion blur, the excess of the blur in the most
        blurred direction over `USUAL_BLUR`, times one minus the ratio of edge strengths along the
        weakest and the strongest direction. Both are None for a photo without any detail.
        Direction in degrees from horizontal, -90 to 90, in which edges are weakest.
    """
    near, far, tensor = np.zeros(4), np.zeros(4), np.zeros((2, 2))
    for grey in _windows(image, shrink):
        if min(grey.shape) > _COARSE:
            near += [_difference(grey, _FINE * x, _FINE * y) for x, y in DIRECTIONS]
            far += [_difference(grey, _COARSE * x, _COARSE * y) for x, y in DIRECTIONS]
            tensor += _tensor(grey)
    if not near.all():
        return None, None, 0.0
    blur = np.log(far / near) / np.log(_COARSE / _FINE) / 2
    spread = np.hypot(tensor[0, 0] - tensor[1, 1], 2 * tensor[0, 1])
    weakest = np.sqrt(max(tensor.trace() - spread, 0.0) / (tensor.trace() + spread))
    strong = np.degrees(np.arctan2(2 * tensor[0, 1], tensor[0, 0] - tensor[1, 1])) / 2
    return (
        float(blur.mean()),
        float(max(blur.max() - USUAL_BLUR, 0.0) * (1 - weakest)),
        float(strong - 90 if strong > 0 else strong + 90),
    )


def _windows(image: NDArray[np.uint8], shrink: tuple[float, float]) -> Iterator[NDArray[np.uint8]]:
    """Yield (h, w) uint8 grey windows at a scale, but never enlarged."""
    height, width = image.shape[:2]
    across, down = (max(1.0, factor) for factor in shrink)
    sides = min(width, int(WINDOW_SIDE * across + 0.5)), min(height, int(WINDOW_SIDE * down + 0.5))
    places = [
        [int((i + 1) * (whole - side) / (WINDOWS + 1)) for i in range(WINDOWS)]
        for whole, side in zip((width, height), sides, strict=True)
    ]
    for top in places[1]:
        for left in places[0]:
            cut = np.ascontiguousarray(image[top : top + sides[1], left : left + sides[0]])
            window = stretch(cut, min(sides[1], WINDOW_SIDE), min(sides[0], WINDOW_SIDE))
            yield np.asarray(cv2.cvtColor(window, cv2.COLOR_RGB2GRAY), np.uint8)


def _difference(grey: NDArray[np.uint8], right: int, down: int) -> float:
    """Return the mean squared difference of pixels that are `right` and `down` pixels apart."""
    height, width = grey.shape
    first = grey[max(0, -down) : height - max(0, down), : width - right]
    second = grey[max(0, down) : height - max(0, -down), right:]
    return float(cv2.norm(first, second, cv2.NORM_L2SQR) / first.size)


def _tensor(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the (2, 2) float64 structure tensor: sums of products of the x and y gradients."""
    levels = grey.astype(np.int64)
    across, down = levels[1:-1, 2:] - levels[1:-1, :-2], levels[2:, 1:-1] - levels[:-2, 1:-1]
    mixed = (across * down).sum()
    return np.array([[(across**2).sum(), mixed], [mixed, (down**2).sum()]], np.float64)
