"""Annotated photos: boxes with their classes, and a legend with counts.

If class names do not fit into the boxes of a dense shelf, the tag of every box is the number of its
class in the legend instead, so that the text does not cover the products.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shelfcount.metrics.matching import match
from shelfcount.records import Detections
from shelfcount.vision.images import stretch
from shelfcount.words import plural

Colour = tuple[int, int, int]

# Longest side in pixels to which small photos are enlarged, so that tags on small products are
# legible.
DRAWING_SIDE = 1200
# Number of distinct class colours.
PALETTE_SIZE = 48
# Colour-blind safe palette of Okabe and Ito: bluish green, vermilion, orange; grey for boxes that
# are not evaluated.
FOUND, MISSED, FALSE_ALARM, NOT_JUDGED = (
    (0, 158, 115),
    (213, 40, 20),
    (245, 150, 0),
    (130, 138, 148),
)
INK, PAPER = (28, 32, 38), (255, 255, 255)
# Maximum number of characters of a tag, and of a text in the legend.
LONGEST_NAME = 30
LONGEST_ENTRY = 44
# Height of a tag, relative to the font size.
TAG_HEIGHT = 1.35


@dataclass(frozen=True)
class Mark:
    """One box to draw.

    Attributes:
        box: (4,) xyxy pixels of the picture.
        colour: RGB colour of outline and tag.
        tag: Text of the tag; empty for none.
        dashed: Whether the outline is dashed.
        filled: Whether the box is filled with its colour, almost transparent.
    """

    box: np.ndarray
    colour: Colour
    tag: str = ""
    dashed: bool = False
    filled: bool = False


@dataclass(frozen=True)
class Entry:
    """One line of the legend.

    Attributes:
        colour: RGB colour of the boxes.
        key: Text of the boxes' tags that `text` explains, or empty.
        text: Description, such as a class name.
        count: Number at the end of the line.
    """

    colour: Colour
    key: str
    text: str
    count: int


def annotate(
    image: np.ndarray,
    detections: Detections,
    classes: Sequence[str],
    *,
    rows: Sequence[tuple[int, int]] | None = None,
    scores: bool = False,
    truth: Detections | None = None,
) -> np.ndarray:
    """Draw detections on a photo, with a legend of the counts.

    Without `truth`, every class has its own colour, the same on every photo. With `truth`, the
    colours show the evaluation: green for true positives, dashed red for missed products, orange
    for false positives, as matched by `evaluation.metrics.match` at IoU 0.5 within a class. Grey
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
        least `LONGEST_SIDE` pixels, and the legend to its right, or below a wide photo.

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
        marks, entries = _judged(detections, truth, classes, scale, scores=scores)
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


def shrunk(picture: np.ndarray, side: int) -> np.ndarray:
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
    fits = [font.getlength(f" {_shorten(n)} ") <= w for n, w in zip(names, widths, strict=True)]
    named = bool(fits) and np.mean(fits) > 0.8
    tags = [_shorten(n) if named else number[n] for n in names]
    marks = [
        Mark(box, colours[name], f"{tag} {score:.2f}" if scores else tag, filled=True)
        for box, name, tag, score in zip(
            detections.boxes * scale, names, tags, detections.scores, strict=True
        )
    ]
    return marks, [
        Entry(colours[name], "" if named else number[name], name, n) for name, n in counts.items()
    ]


def _judged(
    detections: Detections, truth: Detections, classes: Sequence[str], scale: float, *, scores: bool
) -> tuple[list[Mark], list[Entry]]:
    """Return boxes in the colours of the evaluation, and the legend with their counts.

    Only errors have tags. They are drawn over the true positives.
    """
    matches = match(truth, detections)
    wrong = ~matches.hit & ~matches.absorbed

    def mark(
        boxes: Detections,
        chosen: np.ndarray,
        colour: Colour,
        *,
        named: bool,
        dashed: bool = False,
        score: bool = False,
    ) -> list[Mark]:
        marks = []
        for i in np.flatnonzero(chosen):
            tag = _shorten(classes[boxes.classes[i]]) if named else ""
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
        *mark(truth, truth.ignore, NOT_JUDGED, named=False, dashed=True),
        *mark(detections, matches.absorbed, NOT_JUDGED, named=False, score=scores),
        *mark(detections, matches.hit, FOUND, named=False, score=scores),
        *mark(detections, wrong, FALSE_ALARM, named=True, score=scores),
        *mark(truth, matches.missed, MISSED, named=True, dashed=True),
    ]
    entries = [
        Entry(FOUND, "", "true positives", int(matches.hit.sum())),
        Entry(MISSED, "", "missed", int(matches.missed.sum())),
        Entry(FALSE_ALARM, "", "false positives", int(wrong.sum())),
        Entry(NOT_JUDGED, "", "not evaluated", int(matches.absorbed.sum())),
    ]
    return marks, [e for e in entries if e.count or e.text != "not evaluated"]


def drawing_unit(size: tuple[int, int]) -> float:
    """Return the factor for the size of text and lines on a picture.

    The factor grows with the picture, since large and small pictures are shown at the same size. On
    a picture with a ratio above 3 : 2 it grows with the shorter side.

    Args:
        size: (width, height) in pixels.
    """
    return max(1.0, min(max(size), 1.5 * min(size)) / DRAWING_SIDE)


def text_size(boxes: np.ndarray) -> float:
    """Return the font size of tags in pixels: a fifth of the median shorter side of the boxes.

    The size is limited to a range from 11 to 20 pixels.

    Args:
        boxes: (n, 4) xyxy, in pixels of a photo with a longest side of `LONGEST_SIDE`.
    """
    if not len(boxes):
        return 16.0
    shorter = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    return float(np.clip(np.median(shorter) / 5, 11, 20))


def make_font(size: float) -> ImageFont.FreeTypeFont:
    """Return the font of all pictures.

    Args:
        size: Font size in pixels.
    """
    # This font is part of matplotlib, so pictures look the same on every machine.
    return ImageFont.truetype(
        Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), round(size)
    )


def _shorten(name: str, longest: int = LONGEST_NAME) -> str:
    # Names from labelling tools can contain line breaks.
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "…"


def draw_box(draw: ImageDraw.ImageDraw, mark: Mark, line: int) -> None:
    """Draw the outline of a mark.

    Args:
        draw: Drawing context of the picture.
        mark: Box to draw.
        line: Width of the outline in pixels.
    """
    left, top, right, bottom = (round(float(v)) for v in mark.box)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    if mark.dashed:
        dash = 4 * line
        for x in range(left, right, 2 * dash):
            for y in (top, bottom - line):
                draw.rectangle((x, y, min(x + dash, right), y + line), mark.colour)
        for y in range(top, bottom, 2 * dash):
            for x in (left, right - line):
                draw.rectangle((x, y, x + line, min(y + dash, bottom)), mark.colour)
        return
    # A thin dark line on both sides makes light colours visible on a white shelf.
    draw.rectangle(
        (left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0, 110), width=line + 2
    )
    draw.rectangle(
        (left, top, right, bottom),
        fill=(*mark.colour, 34) if mark.filled else None,
        outline=mark.colour,
        width=line,
    )


def draw_tag(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont,
    colour: Colour,
    size: tuple[int, int],
) -> None:
    """Draw a small filled tag, moved into the photo if necessary.

    Args:
        draw: Drawing context of the picture.
        corner: (x, y) of the tag's top left corner in pixels.
        text: Text of the tag. An empty text draws nothing.
        font: Font of the text.
        colour: RGB colour of the tag. The text is dark or white, whichever is legible on it.
        size: (width, height) of the photo in pixels.
    """
    if not text:
        return
    width, height = font.getlength(text) + 0.6 * font.size, TAG_HEIGHT * font.size
    left, top = (
        max(0.0, min(corner[0], size[0] - width)),
        max(0.0, min(corner[1], size[1] - height)),
    )
    draw.rounded_rectangle(
        (left, top, left + width, top + height), radius=font.size / 5, fill=colour
    )
    draw.text(
        (left + width / 2, top + height / 2),
        text,
        fill=_readable_on(colour),
        font=font,
        anchor="mm",
    )


def _readable_on(colour: Colour) -> Colour:
    # Luma of ITU-R BT.601. On lighter colours, dark letters have the better contrast.
    return INK if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else PAPER


def with_legend(
    photo: Image.Image, title: str, entries: Sequence[Entry], font: ImageFont.FreeTypeFont
) -> np.ndarray:
    """Add a legend to the right of a photo, or below a wide photo.

    Args:
        photo: RGB photo.
        title: Title of the legend, one or more lines.
        entries: Lines of the legend.
        font: Font of the legend.

    Returns:
        (H, W, 3) uint8 RGB, with the photo in the top left corner.
    """
    em, line = round(font.size), round(1.75 * font.size)
    names = [_shorten(e.text, LONGEST_ENTRY) for e in entries]
    column = round(max([font.getlength(n) for n in names], default=0) + 6.5 * em)
    wide = photo.width > 1.25 * photo.height
    head = line * len(title.splitlines()) + em
    if wide:
        columns = max(1, photo.width // column)
        per_column = max(1, -(-len(entries) // columns))
        panel = (photo.width, head + line * per_column + 2 * em)
    else:
        per_column = max(1, (photo.height - head - 2 * em) // line)
        columns = max(1, -(-len(entries) // per_column))
        longest_title = max(font.getlength(t) for t in title.splitlines())
        panel = (round(max(columns * column, longest_title + 2 * em)), photo.height)

    offset = (0, photo.height) if wide else (photo.width, 0)
    sheet = Image.new("RGB", (offset[0] + panel[0], offset[1] + panel[1]), PAPER)
    sheet.paste(photo, (0, 0))
    draw = ImageDraw.Draw(sheet, "RGBA")
    draw.multiline_text(
        (offset[0] + em, offset[1] + em), title, fill=INK, font=font, spacing=em * 0.5
    )
    for i, (entry, name) in enumerate(zip(entries, names, strict=True)):
        x = offset[0] + em + (i // per_column) * column
        y = offset[1] + em + head + (i % per_column) * line
        draw.rounded_rectangle((x, y, x + 1.9 * em, y + 1.3 * em), radius=em / 4, fill=entry.colour)
        draw.text(
            (x + 0.95 * em, y + 0.65 * em),
            entry.key,
            fill=_readable_on(entry.colour),
            font=font,
            anchor="mm",
        )
        draw.text((x + 2.5 * em, y + 0.65 * em), name, fill=INK, font=font, anchor="lm")
        draw.text(
            (x + column - 1.6 * em, y + 0.65 * em),
            str(entry.count),
            fill=INK,
            font=font,
            anchor="rm",
        )
    return np.asarray(sheet)
