"""Enlarged crops of photos with boxes drawn on them, for reviewing labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shelfcount.drawing.marks import PAPER, Mark, draw_box, draw_tag, make_font
from shelfcount.records import Dataset
from shelfcount.vision.boxes import clip
from shelfcount.vision.images import read_photo

# Longest side of a crop in pixels: twice its size in points on a phone screen.
CROP_SIDE = 520
# Side of the visible part, relative to the longer side of its box.
SURROUNDINGS = 3.0
# Minimum side of the visible part in photo pixels.
MIN_WINDOW = 110.0
# Font size of tags in pixels.
FONT = 19
# Number of examples of a class, and their height in pixels.
_EXAMPLES = 4
EXAMPLE_HEIGHT = 150

# Crops of one photo usually follow one another.
photo_at = lru_cache(maxsize=4)(read_photo)


def crop(
    image: NDArray[np.uint8],
    box: NDArray[np.floating],
    marks: Sequence[Mark],
    surroundings: float = SURROUNDINGS,
) -> NDArray[np.uint8]:
    """Return the part of a photo around a box, enlarged and with marks.

    Args:
        image: (h, w, 3) uint8 RGB.
        box: (4,) xyxy pixels.
        marks: Boxes to draw, in pixels of `image`. Later ones cover earlier ones.
        surroundings: Side of the visible part, relative to the longer side of the box.

    Returns:
        (H, W, 3) uint8 RGB with longest side `CROP_SIDE`.
    """
    left, top, right, bottom = window_around(box, image.shape[1], image.shape[0], surroundings)
    return draw_marks(image[top:bottom, left:right], marks, (left, top))


def window_around(
    box: Sequence[float] | NDArray[np.floating],
    width: int,
    height: int,
    surroundings: float = SURROUNDINGS,
    min_side: float = MIN_WINDOW,
) -> tuple[int, int, int, int]:
    """Return the part of a photo to show around a box: a square, cut at the border of the photo.

    Args:
        box: (4,) xyxy pixels.
        width, height: Size of the photo in pixels.
        surroundings: Side of the square, relative to the longer side of the box.
        min_side: Minimum side of the square in pixels.

    Returns:
        (left, top, right, bottom) in pixels, at least one pixel wide and high.
    """
    half = max(min_side, surroundings * float(max(box[2] - box[0], box[3] - box[1]))) / 2
    middle = (np.asarray(box[:2], np.float64) + box[2:]) / 2
    square = np.array([[*(middle - half), *(middle + half)]])
    visible = clip(square, width, height)[0]
    left, top = np.floor(visible[:2]).astype(int).tolist()
    right, bottom = np.ceil(visible[2:]).astype(int).tolist()
    return left, top, max(right, left + 1), max(bottom, top + 1)


def draw_marks(
    image: NDArray[np.uint8],
    marks: Sequence[Mark],
    origin: tuple[int, int] = (0, 0),
    side: int = CROP_SIDE,
) -> NDArray[np.uint8]:
    """Scale a part of a photo to a given size and draw marks on it.

    Args:
        image: (h, w, 3) uint8 RGB, a part of the photo or the whole photo.
        marks: Boxes to draw, in pixels of the photo. Later ones cover earlier ones.
        origin: (x, y) of the part's top left corner in the photo, in pixels.
        side: Longest side of the result in pixels.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    scale = side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = Image.fromarray(
        cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    )
    pen, font = ImageDraw.Draw(picture, "RGBA"), make_font(FONT)
    placed = [
        Mark((m.box - np.tile(origin, 2)) * scale, m.colour, m.tag, m.dashed, m.filled)
        for m in marks
    ]
    for mark in placed:
        draw_box(pen, mark, 4 if mark.tag else 2)
    for mark in placed:
        # Above the box, so that the product stays visible.
        draw_tag(pen, (mark.box[0], mark.box[1] - 1.4 * FONT), mark.tag, font, mark.colour, size)
    return np.asarray(picture)


def example_crops(
    dataset: Dataset, class_: int, max_examples: int = _EXAMPLES
) -> list[NDArray[np.uint8]]:
    """Cut out labelled products of one class, the largest one of each photo.

    Args:
        dataset: Labelled photos.
        class_: Index of the class.
        max_examples: Maximum number of products.

    Returns:
        Crops from different photos, each (EXAMPLE_HEIGHT, w, 3) uint8 RGB. The list is empty if
        no product of the class is labelled.

    Raises:
        ShelfcountError: If a photo cannot be read.
    """
    crops: list[NDArray[np.uint8]] = []
    for photo in dataset.photos:
        which = np.flatnonzero((photo.truth.classes == class_) & ~photo.truth.ignore)
        if not len(which) or len(crops) == max_examples:
            continue
        boxes = photo.truth.boxes[which]
        # The largest product shows most details.
        left, top, right, bottom = (
            boxes[np.argmax(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))]
            .round()
            .astype(int)
            .tolist()
        )
        cut = photo_at(photo.path)[top : max(bottom, top + 1), left : max(right, left + 1)]
        width = max(1, min(round(cut.shape[1] * EXAMPLE_HEIGHT / cut.shape[0]), 2 * EXAMPLE_HEIGHT))
        resized = cv2.resize(cut, (width, EXAMPLE_HEIGHT), interpolation=cv2.INTER_CUBIC)
        crops.append(np.asarray(resized, np.uint8))
    return crops


def side_by_side(pictures: Sequence[NDArray[np.uint8]], gap: int = 6) -> NDArray[np.uint8]:
    """Join pictures of the same height in a row.

    Args:
        pictures: At least one picture, each (h, w, 3) uint8 RGB.
        gap: Pixels between two pictures.

    Returns:
        (h, W, 3) uint8 RGB.
    """
    space = np.full((pictures[0].shape[0], gap, 3), PAPER, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, space)][:-1], axis=1)


def grid(
    pictures: Sequence[NDArray[np.uint8]], columns: int, cell: int, gap: int = 6
) -> NDArray[np.uint8]:
    """Arrange pictures in a grid on white, each scaled to fit a square cell.

    Args:
        pictures: Pictures, each (h, w, 3) uint8 RGB.
        columns: Number of pictures per row.
        cell: Side of a cell in pixels.
        gap: Pixels between two cells.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows = max(1, -(-len(pictures) // columns))
    sheet = np.full((rows * (cell + gap) - gap, columns * (cell + gap) - gap, 3), PAPER, np.uint8)
    for i, picture in enumerate(pictures):
        scale = cell / max(picture.shape[:2])
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        fitted = cv2.resize(
            picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        )
        top, left = (
            (i // columns) * (cell + gap) + (cell - size[1]) // 2,
            (i % columns) * (cell + gap) + (cell - size[0]) // 2,
        )
        sheet[top : top + size[1], left : left + size[0]] = fitted
    return sheet
