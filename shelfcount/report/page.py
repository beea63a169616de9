"""One self-contained HTML page from a few kinds of blocks: it opens offline, on a phone, in the dark.

Pictures are embedded and nothing is fetched; all text is escaped. What was not measured is written
out, never left blank, so that a gap cannot be taken for a nought.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import numpy as np

from shelfcount.vision.images import encode_photo, write_whole

NOT_MEASURED = "not measured"
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Card:
    """One headline figure.

    Attributes:
        label: What it is.
        value: A number, a text such as "3.1 times faster", or None if it was not measured.
        note: How it was measured, or what to compare it with.
        digits: Decimals of a float.
    """

    label: str
    value: Any
    note: str = ""
    digits: int = 3


@dataclass(frozen=True)
class Cards:
    """Headline figures side by side."""

    cards: Sequence[Card]
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True)
class Column:
    """Head of a table column: its name, its unit and the decimals of its floats."""

    name: str
    unit: str = ""
    digits: int = 3


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column names the row, columns of numbers are set to the right.

    Attributes:
        columns: Heads, left to right.
        rows: One value for each column; None prints as "not measured".
        caption: What the table shows and how it was measured.
        strong_row: Index of the row the page is about, shown emphasised.

    Raises:
        ValueError: If a row has another number of values than there are columns.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    strong_row: int | None = None
    kind: ClassVar[str] = "table"

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"every row must have {len(self.columns)} values, got {len(row)} in row {i} of the table '{self.caption}'"
                )

    def is_numeric(self, column: int) -> bool:
        """Whether all that was measured in a column is numbers."""
        measured = [row[column] for row in self.rows if row[column] is not None]
        return bool(measured) and all(
            isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in measured
        )


@dataclass(frozen=True)
class Facts:
    """Names and values in two columns, such as where a result came from."""

    facts: Mapping[str, Any]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        png: As the functions of `report.figures` give it.
        caption: What to see in it.
        alt: What it shows, for those who cannot see it.
    """

    png: bytes
    caption: str
    alt: str
    kind: ClassVar[str] = "figure"

    @property
    def source(self) -> str:
        return _data_url("image/png", self.png)


@dataclass(frozen=True)
class Picture:
    """A photo that fills the screen when it is tapped.

    Attributes:
        image: (h, w, 3) uint8 RGB; embedded as JPEG of quality `JPEG_QUALITY`.
        caption: What to see in it.
        alt: What it shows, for those who cannot see it.
    """

    image: np.ndarray
    caption: str
    alt: str
    kind: ClassVar[str] = "picture"

    @property
    def source(self) -> str:
        return embedded(self.image)


@dataclass(frozen=True)
class Side:
    """Pictures side by side, one below the other where the screen is narrow; what they show is in the captions."""

    pictures: Sequence[Picture]
    caption: str = ""
    kind: ClassVar[str] = "side"


@dataclass(frozen=True)
class Note:
    """A paragraph; a warning stands out."""

    text: str
    warning: bool = False
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Command:
    """Lines to type, which one click selects."""

    text: str
    kind: ClassVar[str] = "command"


@dataclass(frozen=True)
class Details:
    """Blocks that stay folded under a line until asked for."""

    summary: str
    blocks: Sequence[Block]
    kind: ClassVar[str] = "details"


Block = Cards | Table | Facts | Figure | Picture | Side | Note | Command | Details


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; without a title, such as for the headline figures, they stand under the page's own."""

    title: str
    blocks: Sequence[Block]


def write(path: Path | str, title: str, sections: Sequence[Section], lead: str = "") -> None:
    """Write the page whole or not at all.

    Args:
        path: Of the HTML file.
        title: Of the page.
        sections: In the order they are read; the page begins with links to them if there are several.
        lead: One or two sentences under the title.
    """
    write_whole(path, render(title, sections, lead))


def render(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """The page that `write` writes."""
    return template("page.html", show=show).render(title=title, sections=sections, lead=lead)


def template(name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """A template beside this file, which extends ``base.html``; `filters` by the names it calls them by. All values are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shelfcount", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)


def markdown(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """The page in Markdown: all but the figures and pictures, of which the captions stay."""
    parts = [f"# {_inert(title)}", _inert(lead)]
    for section in sections:
        parts += [
            f"## {_inert(section.title)}" if section.title else "",
            *(_markdown_block(block) for block in section.blocks),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_block(block: Block) -> str:
    match block:
        case Cards(cards):
            return "\n".join(
                f"- {_inert(c.label)}: {show(c.value, c.digits)}{f' ({_inert(c.note)})' if c.note else ''}"
                for c in cards
            )
        case Table():
            return _markdown_table(block)
        case Facts(facts):
            return "\n".join(
                f"- {_inert(name)}: {_inert(show(value))}" for name, value in facts.items()
            )
        case Details(summary, blocks):
            return "\n\n".join(
                [f"### {_inert(summary)}", *(_markdown_block(inner) for inner in blocks)]
            )
        case Command(text):
            return f"```\n{text}\n```"
        case Note(text):
            return _inert(text)
        case Figure() | Picture() | Side():
            return f"*{_inert(block.caption)}*" if block.caption else ""


def _markdown_table(table: Table) -> str:
    heads = [f"{column.name} {column.unit}".strip() for column in table.columns]
    rows = [
        [show(value, column.digits) for value, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    lines = [heads, ["---"] * len(heads), *rows]
    text = "\n".join("| " + " | ".join(_inert(cell) for cell in line) + " |" for line in lines)
    return f"{text}\n\n{_inert(table.caption)}".strip()


def _inert(text: str) -> str:
    # On one line; a class name with a pipe would open another column, one with < could be HTML.
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def show(value: Any, digits: int = 3) -> str:
    """A value as the page prints it.

    >>> show(5285), show(0.83149), show(None), show(float("nan"))
    ('5,285', '0.831', 'not measured', 'undefined')
    """
    if value is None:
        return NOT_MEASURED
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:,.{digits}f}" if math.isfinite(value) else "undefined"
    return str(value)


def embedded(image: np.ndarray) -> str:
    """(h, w, 3) uint8 RGB as a data URL, JPEG of quality `JPEG_QUALITY`."""
    return _data_url("image/jpeg", encode_photo(image, quality=JPEG_QUALITY))


def _data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
