"""One picture of a shelf from the photos that were merged, for people to look at; nothing is counted on it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np

from shelfcount.records import Detections
from shelfcount.shelf.facings import Arrangement, arrange
from shelfcount.shelf.merge import MergedShelf
from shelfcount.shelf.photo_pairs import GRID, View, map_boxes, map_points
from shelfcount.vision import boxes as box_math

MOST_PIXELS = 16_000_000
# Units around the products.
MARGIN = 60.0
# Over so much of a photo's half side a seam fades from one photo to the other.
SEAM = 0.04
# Photos are shrunk to so many pixels a side to compare their colours.
COARSE = 32
# How much a photo insists on its own brightness, against 1 for being like one neighbour: just enough to fix the whole.
KEEP_GAIN = 0.1


@dataclass(frozen=True, eq=False)
class Frame:
    """The part of the shelf's front that its picture shows.

    Attributes:
        width, height: Of the picture in pixels, at most `MOST_PIXELS` in all.
        onto: (3, 3) float64, from the shelf's front to the picture's pixels.
        products: Boxes in these pixels.
    """

    width: int
    height: int
    onto: np.ndarray
    products: Detections


def frame(shelf: MergedShelf) -> Frame:
    """The shelf from the front, as far as products stand on it; all that the photos show if none do."""
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
            np.maximum(low, boxes[:, :2].min(axis=0) - MARGIN),
            np.minimum(high, boxes[:, 2:].max(axis=0) + MARGIN),
        )
    size = high - low
    scale = min(1.0, np.sqrt(MOST_PIXELS / size.prod()))
    onto = np.array([[scale, 0, -scale * low[0]], [0, scale, -scale * low[1]], [0, 0, 1]])
    width, height = ((size * scale).astype(int) + 1).tolist()
    return Frame(
        width,
        height,
        onto,
        shelf.products.replace(
            boxes=box_math.clip(map_boxes(shelf.products.boxes, onto), width, height)
        ),
    )


def arranged(shelf: MergedShelf) -> Arrangement:
    """Facings, stacks and gaps of the whole shelf, in pixels of its picture."""
    framed = frame(shelf)
    names = [shelf.photos[0].classes[i] for i in framed.products.classes]
    return arrange(framed.products.boxes, names, shelf.placement, (framed.width, framed.height))


def panorama(shelf: MergedShelf) -> tuple[np.ndarray, Detections]:
    """The picture of a `frame`.

    Returns:
        (h, w, 3) uint8 RGB, white where no photo shows the shelf; and the products, with boxes in its pixels.
    """
    framed = frame(shelf)
    width, height = framed.width, framed.height
    picture = np.full((height, width, 3), 255, np.uint8)
    depth = np.zeros((height, width), np.float32)
    for view, homography, gain in zip(shelf.views, shelf.homographies, _gains(shelf), strict=True):
        _paint(
            picture,
            depth,
            cv2.multiply(view.picture, np.append(gain, 1.0)),
            view,
            framed.onto @ homography,
        )
    return picture, framed.products


def _gains(shelf: MergedShelf) -> np.ndarray:
    """(photos, 3) factors for red, green and blue that make photos alike where they show the same.

    After Brown and Lowe 2007, section 6, on logarithms, which makes it linear.
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


def _common_colours(shelf: MergedShelf, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours of places on a grid over photo a that both photos show: (k, 3) float64 in a and in b, 1 to 256."""
    one, other = shelf.views[a], shelf.views[b]
    there = GRID * one.half
    here = map_points(there, np.linalg.inv(shelf.fronts[b]) @ shelf.fronts[a])
    common = (np.abs(here) < other.half).all(axis=1)
    return _colours(one, there[common]), _colours(other, here[common])


def _colours(view: View, places: np.ndarray) -> np.ndarray:
    # Averaged coarsely, since a grid point of a label may come to lie beside a letter or on it.
    coarse = cv2.resize(view.picture, (COARSE, COARSE), interpolation=cv2.INTER_AREA)
    column, row = ((places / view.half + 1) * (COARSE - 1) / 2).round().astype(int).T
    return coarse[row, column].astype(np.float64) + 1


def _paint(
    picture: np.ndarray, depth: np.ndarray, photo: np.ndarray, view: View, homography: np.ndarray
) -> None:
    """Lay a photo over the picture where it is further from its border than what lies there, `depth`, from its own.

    Args:
        picture: (h, w, 3) uint8, changed.
        depth: (h, w) float32, 0 where nothing lies yet, 1 in the middle of a photo; changed.
        photo: `view.picture`, its brightness made like the others'.
        view: Of the photo.
        homography: From its pixels to those of the picture.
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
    # OpenCV has pixel i centred at i, homographies have it cover [i, i + 1).
    shrink = np.diag([view.width / width, view.height / height, 1]) @ np.array(
        [[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]
    )
    warp = np.array([[1, 0, -left - 0.5], [0, 1, -top - 0.5], [0, 0, 1]]) @ homography @ shrink
    inside = (
        np.minimum.outer(
            1 - np.abs(np.linspace(-1, 1, height)), 1 - np.abs(np.linspace(-1, 1, width))
        ).astype(np.float32)
        + 1e-3
    )
    own = cv2.warpPerspective(inside, warp, size)
    laid = cv2.warpPerspective(photo, warp, size, borderMode=cv2.BORDER_REPLICATE)
    share = np.where(depth[window] > 0, np.clip((own - depth[window]) / SEAM + 0.5, 0, 1), own > 0)[
        ..., None
    ]
    picture[window] = (laid * share + picture[window] * (1 - share)).astype(np.uint8)
    np.maximum(depth[window], own, out=depth[window])


def _corners(view: View) -> np.ndarray:
    """(4, 2) of a photo in its pixels."""
    return np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]) * (view.width, view.height)
