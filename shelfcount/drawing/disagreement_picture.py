"""Pictures of a photo on which two detectors disagree, side by side with the labels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shelfcount.drawing.marks import (
    DRAWING_SIDE,
    FALSE_ALARM,
    FOUND,
    MISSED,
    NOT_EVALUATED,
    OKABE_ITO,
    Mark,
    draw_box,
    draw_tag,
    make_font,
    text_size,
)
from shelfcount.metrics.disagreement import Disagreement
from shelfcount.records import Detections
from shelfcount.vision.images import read_photo

_LABELLED = OKABE_ITO["blue"]
DISAGREEMENT_LEGEND = (
    "Colours mark the products on which the two models differ. Blue: labelled product. "
    "Green: detected correctly by this model only. Dashed red: missed by this model, detected by "
    "the other. Orange: false positive of this model only. Grey: the models agree."
)


def draw_disagreement(
    disagreement: Disagreement, classes: Sequence[str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
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
    scale = max(1.0, DRAWING_SIDE / max(image.shape[:2]))
    truth = disagreement.photo.truth
    labelled = [
        *_marks(truth, ~disagreement.differ, NOT_EVALUATED),
        *_marks(truth, disagreement.differ, _LABELLED, classes),
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
                *_marks(detections, ~right & ~alone, NOT_EVALUATED),
                *_marks(truth, disagreement.differ & matches.missed, MISSED, classes, dashed=True),
                *_marks(detections, alone, FALSE_ALARM, classes),
                *_marks(detections, right, FOUND, classes),
            ]
        )
    drawn = [_panel(image, scale, marks) for marks in panels]
    return drawn[0], drawn[1], drawn[2]


def _marks(
    boxes: Detections,
    chosen: NDArray[np.bool_],
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


def _panel(image: NDArray[np.uint8], scale: float, marks: Sequence[Mark]) -> NDArray[np.uint8]:
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    photo = Image.fromarray(
        cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else image
    )
    unit = max(size) / DRAWING_SIDE
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
        draw_box(pen, mark, line if mark.colour == NOT_EVALUATED else 2 * line)
    for mark in placed:
        draw_tag(pen, (mark.box[0], mark.box[1]), mark.tag, font, mark.colour, size)
    return np.asarray(photo)
