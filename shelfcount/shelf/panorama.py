"""Panorama of a shelf from the merged photos, for display only. Nothing is counted on it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections
from shelfcount.shelf.facings import Arrangement, arrange
from shelfcount.shelf.merge import MergedShelf
from shelfcount.shelf.photo_features import PhotoFeatures
from shelfcount.shelf.photo_pairs import GRID
from shelfcount.vision import boxes as box_math
from shelfcount.vision.homography import map_boxes, map_points, warp

MAX_PANORAMA_PIXELS = 16_000_000
# Margin around the products in units.
_MARGIN = 60.0
# Width of the blend between two photos, as a share of a photo's half side.
SEAM = 0.04
# Number of pixels per side of the photos when their colours are compared.
_COARSE = 32
# Weight of keeping a photo's own brightness, relative to 1 for equality with one neighbour. A small
# weight is enough to determine the overall brightness.
KEEP_GAIN = 0.1


@dataclass(frozen=True, eq=False)
class PanoramaFrame:
    """Part of the front of the shelf that the panorama shows.

    Attributes:
        width, height: Size in pixels; the panorama has at most about `MAX_PANORAMA_PIXELS`.
        onto: (3, 3) float64, from the front of the shelf to the pixels of the panorama.
        products: Boxes in pixels of the panorama.
    """

    width: int
    height: int
    onto: NDArray[np.float64]
    products: Detections


def panorama_frame(shelf: MergedShelf) -> PanoramaFrame:
    """Return the part of the front with products; the area of all photos if there are none."""
    shown = np.concatenate(
        [
            map_points(_corners(view), h)
            for view, h in zip(shelf.views, shelf.homographies, strict=True)
        ]
    )
    low, high = shown.min(axis=0), shown.max(axis=0)
    if len(shelf.products):
        boxes = shelf.products.boxes
        low, high = (
            np.maximum(low, boxes[:, :2].min(axis=0) - _MARGIN),
            np.minimum(high, boxes[:, 2:].max(axis=0) + _MARGIN),
        )
    size = high - low
    scale = min(1.0, np.sqrt(MAX_PANORAMA_PIXELS / size.prod()))
    onto = np.array([[scale, 0, -scale * low[0]], [0, scale, -scale * low[1]], [0, 0, 1]])
    width, height = ((size * scale).astype(int) + 1).tolist()
    return PanoramaFrame(
        width,
        height,
        onto,
        shelf.products.replace(
            boxes=box_math.clip(map_boxes(shelf.products.boxes, onto), width, height)
        ),
    )


def arrange_merged(shelf: MergedShelf) -> Arrangement:
    """Return facings, stacks and gaps of the whole shelf, in pixels of the panorama."""
    framed = panorama_frame(shelf)
    names = [shelf.photos[0].classes[i] for i in framed.products.classes]
    return arrange(framed.products.boxes, names, shelf.placement, (framed.width, framed.height))


def panorama(shelf: MergedShelf) -> tuple[NDArray[np.uint8], Detections]:
    """Draw the panorama of a shelf.

    Returns:
        (h, w, 3) uint8 RGB, white in areas that no photo shows; and the products, with boxes in its
        pixels.
    """
    framed = panorama_frame(shelf)
    width, height = framed.width, framed.height
    picture = np.full((height, width, 3), 255, np.uint8)
    depth = np.zeros((height, width), np.float32)
    for view, homography, gain in zip(shelf.views, shelf.homographies, _gains(shelf), strict=True):
        equalized = np.asarray(cv2.multiply(view.picture, np.append(gain, 1.0)), np.uint8)
        _paint(picture, depth, equalized, view, framed.onto @ homography)
    return picture, framed.products


def _gains(shelf: MergedShelf) -> NDArray[np.float64]:
    """Return (photos, 3) factors for red, green and blue that equalize overlapping photos.

    Based on Brown and Lowe 2007, section 6, applied to logarithms, which makes the problem linear.
    """
    n = len(shelf.views)
    left, right = [np.eye(n) * KEEP_GAIN], [np.zeros((n, 3))]
    for a, b in combinations(range(n), 2):
        colours = _common_colours(shelf, a, b)
        if len(colours[0]):
            row = np.zeros((1, n))
            row[0, [a, b]] = 1, -1
            left.append(row)
            right.append(np.log(colours[1].mean(axis=0) / colours[0].mean(axis=0))[None])
    return np.exp(np.linalg.lstsq(np.concatenate(left), np.concatenate(right), rcond=None)[0])


def _common_colours(
    shelf: MergedShelf, a: int, b: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the colours of points of a grid over photo a that both photos show.

    Returns:
        (k, 3) float64 in photo a and (k, 3) float64 in photo b, 1 to 256.
    """
    one, other = shelf.views[a], shelf.views[b]
    grid = GRID * one.half
    mapped = map_points(grid, np.linalg.inv(shelf.fronts[b]) @ shelf.fronts[a])
    common = (np.abs(mapped) < other.half).all(axis=1)
    return _colours(one, grid[common]), _colours(other, mapped[common])


def _colours(view: PhotoFeatures, places: NDArray[np.float64]) -> NDArray[np.float64]:
    # Coarse averages, since a small registration error moves a grid point on or off a letter.
    coarse = np.asarray(
        cv2.resize(view.picture, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA), np.float64
    )
    column, row = ((places / view.half + 1) * (_COARSE - 1) / 2).round().astype(int).T
    return np.asarray(coarse[row, column] + 1)


def _paint(
    picture: NDArray[np.uint8],
    depth: NDArray[np.float32],
    photo: NDArray[np.uint8],
    view: PhotoFeatures,
    homography: NDArray[np.float64],
) -> None:
    """Paint a photo onto the panorama wherever it is further from its border than `depth`.

    Args:
        picture: (h, w, 3) uint8 panorama, modified in place.
        depth: (h, w) float32, largest distance from the border of a photo painted so far: 0 if
            there is none, 1 in the middle of a photo; modified in place.
        photo: (h, w, 3) uint8, `view.picture` with equalized brightness.
        view: Registration data of the photo.
        homography: (3, 3) from the pixels of the photo to those of the panorama.
    """
    height, width = photo.shape[:2]
    corners = map_points(_corners(view), homography)
    (left, top), (right, bottom) = (
        corners.min(axis=0).clip(0).astype(int),
        corners.max(axis=0).clip(0).astype(int) + 1,
    )
    window = (slice(top, bottom), slice(left, right))
    size = depth[window].shape[::-1]
    if min(size) == 0:
        return
    shrink = np.diag([view.width / width, view.height / height, 1])
    to_window = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]]) @ homography @ shrink
    inside = (
        np.minimum.outer(
            1 - np.abs(np.linspace(-1, 1, height)), 1 - np.abs(np.linspace(-1, 1, width))
        ).astype(np.float32)
        + 1e-3
    )
    distance = warp(inside, to_window, size)
    warped = warp(photo, to_window, size, cv2.BORDER_REPLICATE)
    share = np.where(
        depth[window] > 0, np.clip((distance - depth[window]) / SEAM + 0.5, 0, 1), distance > 0
    )[..., None]
    picture[window] = (warped * share + picture[window] * (1 - share)).astype(np.uint8)
    np.maximum(depth[window], distance, out=depth[window])


def _corners(view: PhotoFeatures) -> NDArray[np.float64]:
    """Return the (4, 2) corners of a photo in its pixels."""
    return np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]) * (view.width, view.height)
