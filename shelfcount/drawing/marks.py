"""Parts of a drawn photo: boxes, tags, fonts, colours and the legend beside the photo."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
# Longest side in pixels to which small photos are enlarged, so that tags on small products are
# legible.
DRAWING_SIDE = 1200
# Colour-blind safe palette of Okabe and Ito (jfly.uni-koeln.de/color).
OKABE_ITO: dict[str, Colour] = {
    "blue": (0, 114, 178),
    "orange": (230, 159, 0),
    "green": (0, 158, 115),
    "vermilion": (213, 94, 0),
    "purple": (204, 121, 167),
}
# Red and orange are stronger than those of the palette, since products cover most of a photo; grey
# is for boxes that are not evaluated.
FOUND, MISSED, FALSE_ALARM, NOT_EVALUATED = (
    OKABE_ITO["green"],
    (213, 40, 20),
    (245, 150, 0),
    (130, 138, 148),
)
INK, PAPER = (28, 32, 38), (255, 255, 255)
# Maximum number of characters of a tag, and of a text in the legend.
MAX_NAME_LENGTH = 30
MAX_ENTRY_LENGTH = 44
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

    box: NDArray[np.floating]
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


def drawing_unit(size: tuple[int, int]) -> float:
    """Return the factor for the size of text and lines on a picture.

    The factor grows with the picture, since large and small pictures are shown at the same size. On
    a picture with a ratio above 3 : 2 it grows with the shorter side.

    Args:
        size: (width, height) in pixels.
    """
    return max(1.0, min(max(size), 1.5 * min(size)) / DRAWING_SIDE)


def text_size(boxes: NDArray[np.floating]) -> float:
    """Return the font size of tags in pixels: a fifth of the median shorter side of the boxes.

    The size is limited to a range from 11 to 20 pixels.

    Args:
        boxes: (n, 4) xyxy, in pixels of a photo with a longest side of `DRAWING_SIDE`.
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
    return ImageFont.truetype(_font_file(), round(size))


@cache
def _font_file() -> Path:
    # DejaVu Sans is part of matplotlib, so pictures look the same on every machine. Pillow's own
    # font has no Vietnamese letters. The file is found without the slow import of matplotlib,
    # unless a distribution moved it.
    name = Path("fonts", "ttf", "DejaVuSans.ttf")
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / "mpl-data" / name
        if file.exists():
            return file
    return Path(importlib.import_module("matplotlib").get_data_path()) / name


def shorten_name(name: str, max_length: int = MAX_NAME_LENGTH) -> str:
    """Return a name on one line, cut to a number of characters."""
    # Names from labelling tools can contain line breaks.
    name = " ".join(name.split())
    return name if len(name) <= max_length else name[: max_length - 1] + "…"


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
) -> NDArray[np.uint8]:
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
    names = [shorten_name(e.text, MAX_ENTRY_LENGTH) for e in entries]
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
