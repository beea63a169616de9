"""Annotated photos: boxes with their classes, and a legend with counts.

If class names do not fit into the boxes of a dense shelf, the tag of every box is the number of its
class in the legend instead, so that the text does not cover the products.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from shelfcount.drawing.marks import (
    DRAWING_SIDE,
    FALSE_ALARM,
    FOUND,
    INK,
    MISSED,
    NOT_EVALUATED,
    TAG_HEIGHT,
    Colour,
    Entry,
    Mark,
    draw_box,
    draw_tag,
    drawing_unit,
    make_font,
    shorten_name,
    text_size,
    with_legend,
)
from shelfcount.metrics.matching import match
from shelfcount.records import Detections
from shelfcount.vision.images import stretch
from shelfcount.words import plural

# Number of distinct class colours.
PALETTE_SIZE = 48


def annotate(
    image: NDArray[np.uint8],
    detections: Detections,
    classes: Sequence[str],
    *,
    rows: Sequence[tuple[int, int]] | None = None,
    scores: bool = False,
    truth: Detections | None = None,
) -> NDArray[np.uint8]:
    """Draw detections on a photo, with a legend of the counts.

    Without `truth`, every class has its own colour, the same on every photo. With `truth`, the
    colours show the evaluation: green for true positives, dashed red for missed products, orange
    for false positives, as matched by `matching.match` at IoU 0.5 within a class. Grey
    boxes are not evaluated.

    Args:
        image: (h, w, 3) uint8 RGB.
        detections: Detections in pixels of `image`.
        classes: Class names; `detections.classes` are indices into them.
        rows: (row, position) of each detection, printed at the bottom of its box. Default: not
            printed.
        scores: Whether to print each score after its class.
        truth: Ground truth in pixels of `image`. Default: no evaluation.

    Returns:
        (H, W, 3) uint8 RGB: the photo in the top left corner, enlarged to a longest side of at
        least `DRAWING_SIDE` pixels, and the legend to its right, or below a wide photo.

    Raises:
        ValueError: If the image is not (h, w, 3) uint8, or `rows` and `detections` differ in
            length.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be (h, w, 3) uint8 RGB, got {image.shape} {image.dtype}")
    if rows is not None and len(rows) != len(detections):
        raise ValueError(
            "rows must contain one (row, position) for "
            f"each of the {plural(len(detections), 'detection')}, got {len(rows)}"
        )
    scale = max(1.0, DRAWING_SIDE / max(image.shape[:2]))
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    photo = Image.fromarray(
        cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else image
    )
    unit = drawing_unit(size)
    drawn_boxes = detections if truth is None else Detections.concat([detections, truth])
    font = make_font(unit * text_size(drawn_boxes.boxes * scale / unit))

    if truth is None:
        marks, entries = _counted(detections, classes, scale, font, scores=scores)
        title = (
            f"Products: {(~detections.ignore).sum()}, classes: {sum(e.count > 0 for e in entries)}"
        )
    else:
        marks, entries = _compared_marks(detections, truth, classes, scale, scores=scores)
        title = f"Products labelled: {(~truth.ignore).sum()}"

    draw = ImageDraw.Draw(photo, "RGBA")
    for mark in marks:
        draw_box(draw, mark, line=max(2, round(font.size / 6)))
    # Tags are drawn after all boxes, as boxes would cut through the tags on a dense shelf.
    for mark in marks:
        draw_tag(draw, (mark.box[0], mark.box[1]), mark.tag, font, mark.colour, size)
    if rows is not None:
        title += "\nrow/position at the bottom of each box"
        for (left, _, _, bottom), position in zip(detections.boxes * scale, rows, strict=True):
            draw_tag(
                draw,
                (left, bottom - font.size * TAG_HEIGHT),
                "{}/{}".format(*position),
                font,
                INK,
                size,
            )
    return with_legend(photo, title, entries, make_font(17 * unit))


def shrunk(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scale a picture down to a longest side of at most `side` pixels.

    Args:
        picture: (h, w, 3) uint8.
        side: Maximum length of the longest side in pixels.

    Returns:
        (H, W, 3) uint8; a small picture keeps its size.
    """
    factor = min(1.0, side / max(picture.shape[:2]))
    return stretch(
        picture, max(round(picture.shape[0] * factor), 1), max(round(picture.shape[1] * factor), 1)
    )


@lru_cache(maxsize=16)
def class_colours(classes: tuple[str, ...]) -> dict[str, Colour]:
    """Return an RGB colour for each class name, all different for up to `PALETTE_SIZE` classes.

    The colour depends on the name and not on its index. If a class is added to a model, most other
    classes keep their colours.

    Args:
        classes: Class names.
    """
    palette = _palette()
    colours: dict[str, Colour] = {}
    taken: set[int] = set()
    for name in sorted(classes):
        if len(taken) == len(palette):
            taken.clear()
        slot = zlib.crc32(name.encode()) % len(palette)
        while slot in taken:
            slot = (slot + 1) % len(palette)
        taken.add(slot)
        colours[name] = palette[slot]
    return colours


@lru_cache(maxsize=1)
def _palette() -> tuple[Colour, ...]:
    """Return `PALETTE_SIZE` RGB colours by farthest-point sampling in CIELAB."""
    steps = np.linspace(0, 255, 16, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 1, 3)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[:, 0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    # Dark colours are hard to see in the shade of a cooler, light ones on white shelves, and grey
    # ones everywhere.
    vivid = (lab[:, 0] > 42) & (lab[:, 0] < 88) & (chroma > 32)
    rgb, lab = rgb[vivid, 0], lab[vivid]
    chosen = [int(np.argmax(chroma[vivid]))]
    distance = np.full(len(lab), np.inf)
    while len(chosen) < PALETTE_SIZE:
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(distance)))
    return tuple((int(r), int(g), int(b)) for r, g, b in rgb[chosen])


def _counted(
    detections: Detections,
    classes: Sequence[str],
    scale: float,
    font: ImageFont.FreeTypeFont,
    *,
    scores: bool,
) -> tuple[list[Mark], list[Entry]]:
    """Return boxes in the colours of their classes, and the legend with their counts.

    Classes whose boxes are all ignored are last in the legend, with a count of 0.
    """
    counts = detections.counts(classes)
    counts |= {
        classes[i]: 0
        for i in np.unique(detections.classes[detections.ignore])
        if classes[i] not in counts
    }
    colours = class_colours(tuple(classes))
    number = {name: str(i) for i, name in enumerate(counts, start=1)}
    names = [classes[i] for i in detections.classes]
    widths = (detections.boxes[:, 2] - detections.boxes[:, 0]) * scale
    # Tags are either all names or all numbers, as a mixture is hard to read.
    fits = [font.getlength(f" {shorten_name(n)} ") <= w for n, w in zip(names, widths, strict=True)]
    named = bool(fits) and np.mean(fits) > 0.8
    tags = [shorten_name(n) if named else number[n] for n in names]
    marks = [
        Mark(box, colours[name], f"{tag} {score:.2f}" if scores else tag, filled=True)
        for box, name, tag, score in zip(
            detections.boxes * scale, names, tags, detections.scores, strict=True
        )
    ]
    return marks, [
        Entry(colours[name], "" if named else number[name], name, n) for name, n in counts.items()
    ]


def _compared_marks(
    detections: Detections, truth: Detections, classes: Sequence[str], scale: float, *, scores: bool
) -> tuple[list[Mark], list[Entry]]:
    """Return boxes in the colours of the evaluation, and the legend with their counts.

    Only errors have tags. They are drawn over the true positives.
    """
    matches = match(truth, detections)
    wrong = ~matches.hit & ~matches.absorbed

    def mark(
        boxes: Detections,
        chosen: NDArray[np.bool_],
        colour: Colour,
        *,
        named: bool,
        dashed: bool = False,
        score: bool = False,
    ) -> list[Mark]:
        marks = []
        for i in np.flatnonzero(chosen):
            tag = shorten_name(classes[boxes.classes[i]]) if named else ""
            marks.append(
                Mark(
                    boxes.boxes[i] * scale,
                    colour,
                    f"{tag} {boxes.scores[i]:.2f}".strip() if score else tag,
                    dashed=dashed,
                )
            )
        return marks

    marks = [
        *mark(truth, truth.ignore, NOT_EVALUATED, named=False, dashed=True),
        *mark(detections, matches.absorbed, NOT_EVALUATED, named=False, score=scores),
        *mark(detections, matches.hit, FOUND, named=False, score=scores),
        *mark(detections, wrong, FALSE_ALARM, named=True, score=scores),
        *mark(truth, matches.missed, MISSED, named=True, dashed=True),
    ]
    entries = [
        Entry(FOUND, "", "true positives", int(matches.hit.sum())),
        Entry(MISSED, "", "missed", int(matches.missed.sum())),
        Entry(FALSE_ALARM, "", "false positives", int(wrong.sum())),
        Entry(NOT_EVALUATED, "", "not evaluated", int(matches.absorbed.sum())),
    ]
    return marks, [e for e in entries if e.count or e.text != "not evaluated"]
