"""Photos on which two models disagree most: ground truth and both detections side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from shelfcount.evaluation.metrics import Matches, match
from shelfcount.records import Dataset, Detections, Photo
from shelfcount.report.pictures import (
    FALSE_ALARM,
    FOUND,
    LONGEST_SIDE,
    MISSED,
    NOT_JUDGED,
    Mark,
    draw_box,
    draw_tag,
    make_font,
    text_size,
)
from shelfcount.vision.images import read_photo

LABELLED = (0, 114, 178)  # Okabe and Ito's blue
LEGEND = (
    "Colours mark the products on which the two models differ. Blue: labelled product. "
    "Green: detected correctly by this model only. Dashed red: missed by this model, detected by "
    "the other. Orange: false positive of this model only. Grey: the models agree."
)


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Differences between the detections of two models on one photo.

    Attributes:
        photo: Photo with its ground truth of m boxes.
        first, second: Detections of each model at its score threshold.
        matches: Matches of each model's detections with the ground truth.
        differ: (m,) bool, labelled products that one model detected and the other missed.
        alone: One (n,) bool array per model: false positives that the other model does not have.
    """

    photo: Photo
    first: Detections
    second: Detections
    matches: tuple[Matches, Matches]
    differ: np.ndarray
    alone: tuple[np.ndarray, np.ndarray]

    @property
    def products(self) -> int:
        """Number of labelled products and false positives on which the models differ."""
        return int(self.differ.sum() + self.alone[0].sum() + self.alone[1].sum())

    @property
    def gained(self) -> tuple[int, int]:
        """Numbers of labelled products that only the first and only the second model detected."""
        first, second = (int((self.differ & ~m.missed).sum()) for m in self.matches)
        return first, second


def compare(photo: Photo, first: Detections, second: Detections) -> Disagreement:
    """Compare the detections of two models on a photo, at IoU 0.5 within a class.

    Args:
        photo: Labelled photo.
        first, second: Detections of each model at its score threshold.

    Returns:
        The differences. A false positive that both models have at the same place is none.
    """
    matches = match(photo.truth, first), match(photo.truth, second)
    wrong = [~m.hit & ~m.absorbed for m in matches]
    shared = match(second[wrong[1]], first[wrong[0]])
    alone = wrong[0].copy(), wrong[1].copy()
    alone[0][np.flatnonzero(wrong[0])[shared.hit]] = False
    alone[1][np.flatnonzero(wrong[1])[shared.partner[shared.hit]]] = False
    return Disagreement(
        photo, first, second, matches, matches[0].missed != matches[1].missed, alone
    )


def largest(
    dataset: Dataset, first: Sequence[Detections], second: Sequence[Detections], most: int
) -> list[Disagreement]:
    """Return the photos on which two models differ most, most differences first.

    Args:
        dataset: n labelled photos.
        first, second: Detections of each model on each photo, at its score threshold.
        most: Maximum number of photos.

    Returns:
        At most `most` entries; photos without differences are left out.
    """
    all_photos = [compare(*row) for row in zip(dataset.photos, first, second, strict=True)]
    chosen = sorted(all_photos, key=lambda d: -d.products)[:most]
    return [d for d in chosen if d.products]


def draw(
    disagreement: Disagreement, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the photo three times: with its ground truth and with the detections of each model.

    Args:
        disagreement: Differences on the photo, which is read again.
        classes: Class names.

    Returns:
        Three (H, W, 3) uint8 RGB pictures: ground truth, first model, second model.

    Raises:
        ShelfcountError: If the photo cannot be read.
    """
    image = read_photo(disagreement.photo.path)
    scale = max(1.0, LONGEST_SIDE / max(image.shape[:2]))
    truth = disagreement.photo.truth
    labelled = [
        *_marks(truth, ~disagreement.differ, NOT_JUDGED),
        *_marks(truth, disagreement.differ, LABELLED, classes),
    ]
    panels = [labelled]
    for detections, matches, alone in zip(
        (disagreement.first, disagreement.second),
        disagreement.matches,
        disagreement.alone,
        strict=True,
    ):
        right = matches.hit & disagreement.differ[matches.partner] if len(truth) else matches.hit
        panels.append(
            [
                *_marks(detections, ~right & ~alone, NOT_JUDGED),
                *_marks(truth, disagreement.differ & matches.missed, MISSED, classes, dashed=True),
                *_marks(detections, alone, FALSE_ALARM, classes),
                *_marks(detections, right, FOUND, classes),
            ]
        )
    drawn = [_panel(image, scale, marks) for marks in panels]
    return drawn[0], drawn[1], drawn[2]


def _marks(
    boxes: Detections,
    chosen: np.ndarray,
    colour: tuple[int, int, int],
    classes: Sequence[str] = (),
    *,
    dashed: bool = False,
) -> list[Mark]:
    return [
        Mark(
            boxes.boxes[i],
            colour,
            classes[boxes.classes[i]] if classes else "",
            dashed=dashed,
            filled=bool(classes) and not dashed,
        )
        for i in np.flatnonzero(chosen)
    ]


def _panel(image: np.ndarray, scale: float, marks: Sequence[Mark]) -> np.ndarray:
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    photo = Image.fromarray(
        cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else image
    )
    unit = max(size) / LONGEST_SIDE
    boxes = np.array([mark.box for mark in marks], np.float32).reshape(-1, 4) * scale
    font = make_font(unit * text_size(boxes / unit))
    pen = ImageDraw.Draw(photo, "RGBA")
    placed = [
        Mark(box, mark.colour, mark.tag, mark.dashed, mark.filled)
        for box, mark in zip(boxes, marks, strict=True)
    ]
    line = max(2, round(font.size / 6))
    for mark in placed:
        # Thin lines for the boxes on which both agree.
        draw_box(pen, mark, line if mark.colour == NOT_JUDGED else 2 * line)
    for mark in placed:
        draw_tag(pen, (mark.box[0], mark.box[1]), mark.tag, font, mark.colour, size)
    return np.asarray(photo)
