"""Photos with their products boxed, named and counted, for people to judge at a glance.

A dense shelf leaves no room for names: where they do not fit their boxes, every box carries the
number of its class in the legend instead, so that the picture shows the products and not the text.
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

from shelfcount.evaluation.metrics import match
from shelfcount.records import Detections
from shelfcount.vision.images import stretch

Colour = tuple[int, int, int]

# Small photos are enlarged to this, so that a tag on a 30-pixel can is still letters.
LONGEST_SIDE = 1200
PALETTE_SIZE = 48
# Okabe and Ito's colour-blind safe set: bluish green, vermilion, orange; grey for what is not judged.
FOUND, MISSED, FALSE_ALARM, NOT_JUDGED = (
    (0, 158, 115),
    (213, 40, 20),
    (245, 150, 0),
    (130, 138, 148),
)
INK, PAPER = (28, 32, 38), (255, 255, 255)
LONGEST_NAME = 30
LONGEST_ENTRY = 44  # of the legend
TAG_HEIGHT = 1.35  # of the font size


@dataclass(frozen=True)
class Mark:
    """One box to draw: (4,) xyxy pixels of the enlarged photo, and the text of its tag."""

    box: np.ndarray
    colour: Colour
    tag: str = ""
    dashed: bool = False
    filled: bool = False


@dataclass(frozen=True)
class Entry:
    """One line of the legend."""

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
    """Draw what was found on a photo, with a legend of the counts.

    Without `truth` every class has its own colour, the same on every photo. With it the colours
    judge: thin green is found, dashed red is missed, orange is a false alarm, as
    `evaluation.metrics.match` decides at IoU 0.5 within a class; grey boxes count neither way.

    Args:
        image: (h, w, 3) uint8 RGB.
        detections: Boxes in pixels of `image`.
        classes: Names that `detections.classes` index.
        rows: (row, position) of each detection, printed as given at the bottom of its box.
        scores: Print each score behind its class.
        truth: Labelled boxes in pixels of `image`.

    Returns:
        (H, W, 3) uint8 RGB: the photo in the top left corner, enlarged until its longest side has
        `LONGEST_SIDE` pixels, and the legend to its right, or below where the photo is wide.

    Raises:
        ValueError: If the image is not (h, w, 3) uint8 or `rows` does not fit the detections.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be (h, w, 3) uint8 RGB, got {image.shape} {image.dtype}")
    if rows is not None and len(rows) != len(detections):
        raise ValueError(
            f"rows must have one (row, position) for each of the {len(detections)} detections, got {len(rows)}"
        )
    scale = max(1.0, LONGEST_SIDE / max(image.shape[:2]))
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    photo = Image.fromarray(
        cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else image
    )
    unit = drawing_unit(size)
    shown = detections if truth is None else Detections.concat([detections, truth])
    font = make_font(unit * text_size(shown.boxes * scale / unit))

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
    # Tags come after all boxes: on a dense shelf the next box would cut through them.
    for mark in marks:
        draw_tag(draw, (mark.box[0], mark.box[1]), mark.tag, font, mark.colour, size)
    if rows is not None:
        title += "\nrow/position at the foot of a box"
        for (left, _, _, bottom), place in zip(detections.boxes * scale, rows, strict=True):
            draw_tag(
                draw,
                (left, bottom - font.size * TAG_HEIGHT),
                "{}/{}".format(*place),
                font,
                INK,
                size,
            )
    return with_legend(photo, title, entries, make_font(17 * unit))


def shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    """(h, w, 3) uint8 with a longest side of at most `side` pixels."""
    factor = min(1.0, side / max(picture.shape[:2]))
    return stretch(
        picture, max(round(picture.shape[0] * factor), 1), max(round(picture.shape[1] * factor), 1)
    )


@lru_cache(maxsize=16)
def class_colours(classes: tuple[str, ...]) -> dict[str, Colour]:
    """One colour for each class name, RGB; no two alike up to `PALETTE_SIZE` classes.

    The colour hangs on the name and not on its place in the list, so that a model with one class
    more paints the others (all but a few that had to step aside) as before.
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
    """Colours as far from each other as CIELAB allows, each new one farthest from all before it."""
    steps = np.linspace(0, 255, 16, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 1, 3)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[:, 0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    # Too dark vanishes in a cooler's shade, too light on white shelves, too grey everywhere.
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
    """Boxes in the colours of their classes; classes that hold ignored boxes only stand last, with 0."""
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
    # All names or all numbers: a mixture would have to be read twice.
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
    """Boxes in the colour of the verdict; only mistakes are named, and drawn over what is right."""
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
        Entry(FOUND, "", "found", int(matches.hit.sum())),
        Entry(MISSED, "", "missed", int(matches.missed.sum())),
        Entry(FALSE_ALARM, "", "false alarm", int(wrong.sum())),
        Entry(NOT_JUDGED, "", "not judged", int(matches.absorbed.sum())),
    ]
    return marks, [e for e in entries if e.count or e.text != "not judged"]


def drawing_unit(size: tuple[int, int]) -> float:
    """What text and lines on a picture of (width, height) pixels are multiplied with.

    They grow with the photo, since a large one is shown at the size of a small one; of a long shelf, with its shorter side.
    """
    return max(1.0, min(max(size), 1.5 * min(size)) / LONGEST_SIDE)


def text_size(boxes: np.ndarray) -> float:
    """Font size for boxes on a photo of `LONGEST_SIDE`, all in pixels: a fifth of the median box's shorter side."""
    if not len(boxes):
        return 16.0
    shorter = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    return float(np.clip(np.median(shorter) / 5, 11, 20))


def make_font(size: float) -> ImageFont.FreeTypeFont:
    """The font of all pictures, `size` in pixels."""
    # Matplotlib brings this font along, so that pictures look the same on every machine.
    return ImageFont.truetype(
        Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), round(size)
    )


def _shorten(name: str, longest: int = LONGEST_NAME) -> str:
    # On one line, whatever the labelling tool let through.
    name = " ".join(name.split())
    return name if len(name) <= longest else name[: longest - 1] + "…"


def draw_box(draw: ImageDraw.ImageDraw, mark: Mark, line: int) -> None:
    """The outline of a mark, `line` pixels wide."""
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
    # A dark hairline on both sides keeps a light colour visible on a white shelf.
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
    """A small filled tag whose top left corner is `corner`, moved as far as needed to stay in the photo."""
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
    # Luma of ITU-R BT.601; above the middle dark letters have the better contrast.
    return INK if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else PAPER


def with_legend(
    photo: Image.Image, title: str, entries: Sequence[Entry], font: ImageFont.FreeTypeFont
) -> np.ndarray:
    """The photo with a panel of the entries beside it, or below where the photo is wide."""
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
