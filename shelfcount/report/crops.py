"""Parts of photos, enlarged, with boxes drawn on them: what a person looks at to decide about a label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw

from shelfcount.records import Dataset
from shelfcount.report.pictures import PAPER, Mark, draw_box, draw_tag, make_font
from shelfcount.vision.boxes import clip
from shelfcount.vision.images import read_photo

# Longest side of a crop, twice what it has on a phone's screen in points.
CROP_SIDE = 520
# What is shown around a box, in its longer sides, and the least of a photo that is shown, in pixels.
SURROUNDINGS = 3.0
LEAST_WINDOW = 110.0
FONT = 19
# Examples of a class beside each other.
EXAMPLES = 4
EXAMPLE_HEIGHT = 150

# Crops of one photo mostly follow one another.
photo_at = lru_cache(maxsize=4)(read_photo)


def crop(
    image: np.ndarray, box: np.ndarray, marks: Sequence[Mark], surroundings: float = SURROUNDINGS
) -> np.ndarray:
    """The part of a photo around a box.

    Args:
        image: (h, w, 3) uint8 RGB.
        box: (4,) xyxy pixels.
        marks: To be drawn, in pixels of `image`; the later over the earlier.
        surroundings: Side of what is shown, in longer sides of the box.

    Returns:
        (H, W, 3) uint8 RGB, its longest side `CROP_SIDE`.
    """
    half = max(LEAST_WINDOW, surroundings * float(max(box[2] - box[0], box[3] - box[1]))) / 2
    middle = (np.asarray(box[:2], np.float64) + box[2:]) / 2
    shown = clip(np.array([[*(middle - half), *(middle + half)]]), image.shape[1], image.shape[0])[
        0
    ]
    left, top = np.floor(shown[:2]).astype(int).tolist()
    right, bottom = np.ceil(shown[2:]).astype(int).tolist()
    return drawn(image[top : max(bottom, top + 1), left : max(right, left + 1)], marks, (left, top))


def drawn(
    image: np.ndarray,
    marks: Sequence[Mark],
    origin: tuple[int, int] = (0, 0),
    side: int = CROP_SIDE,
) -> np.ndarray:
    """A picture scaled to a longest side, with marks given in pixels of the photo in which it begins at `origin`."""
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


def examples(dataset: Dataset, class_: int, most: int = EXAMPLES) -> list[np.ndarray]:
    """Labelled products of one class, each from another photo, (EXAMPLE_HEIGHT, w, 3) uint8 RGB; none where none are labelled.

    Args:
        dataset: Labelled photos.
        class_: Index of the class.
        most: At most so many.
    """
    crops: list[np.ndarray] = []
    for photo in dataset.photos:
        which = np.flatnonzero((photo.truth.classes == class_) & ~photo.truth.ignore)
        if not len(which) or len(crops) == most:
            continue
        boxes = photo.truth.boxes[which]
        # The largest shows most.
        left, top, right, bottom = (
            boxes[np.argmax(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))]
            .round()
            .astype(int)
            .tolist()
        )
        cut = photo_at(photo.path)[top : max(bottom, top + 1), left : max(right, left + 1)]
        width = max(1, min(round(cut.shape[1] * EXAMPLE_HEIGHT / cut.shape[0]), 2 * EXAMPLE_HEIGHT))
        crops.append(cv2.resize(cut, (width, EXAMPLE_HEIGHT), interpolation=cv2.INTER_CUBIC))
    return crops


def beside(pictures: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Pictures of one height in a row, (h, W, 3) uint8 RGB; at least one."""
    space = np.full((pictures[0].shape[0], gap, 3), PAPER, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, space)][:-1], axis=1)


def grid(pictures: Sequence[np.ndarray], columns: int, cell: int, gap: int = 6) -> np.ndarray:
    """Pictures in rows of so many, each fitted into a square of `cell` pixels, on white; (H, W, 3) uint8 RGB."""
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
