"""HTML page in one file, built from blocks such as tables, cards, figures and pictures.

Pictures are embedded, all text is escaped, and nothing is fetched. A missing measurement is
written as such.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import numpy as np
from numpy.typing import NDArray

from shelfcount.files import write_whole
from shelfcount.vision.images import encode_photo
from shelfcount.words import plural, show

JPEG_QUALITY = 82


@dataclass(frozen=True)
class Card:
    """One key value.

    Attributes:
        label: Name of the value.
        value: Number, text such as "3.1 times faster", or None if it was not measured.
        note: Explanation below the value, such as how it was measured.
        digits: Number of decimals of a float.
    """

    label: str
    value: Any
    note: str = ""
    digits: int = 3


@dataclass(frozen=True)
class Cards:
    """Key values side by side."""

    cards: Sequence[Card]
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True)
class Column:
    """Head of a table column: name, unit and number of decimals of floats."""

    name: str
    unit: str = ""
    digits: int = 3


@dataclass(frozen=True)
class Table:
    """Table whose first column names the row. Columns of numbers are aligned to the right.

    Attributes:
        columns: Heads, left to right.
        rows: One value per column; None is printed as "not measured".
        caption: What the table shows and how it was measured.
        strong_row: Index of the row to emphasise, or None.

    Raises:
        ValueError: If the number of values in a row differs from the number of columns.
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
                    f"row {i} of the table '{self.caption}' has {plural(len(row), 'value')} "
                    f"for {plural(len(self.columns), 'column')}. "
                    "The numbers of values and columns must be equal."
                )

    def is_numeric(self, column: int) -> bool:
        """Return whether all measured values of a column are numbers, and at least one is."""
        measured = [row[column] for row in self.rows if row[column] is not None]
        return bool(measured) and all(
            isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in measured
        )


@dataclass(frozen=True)
class Facts:
    """Names and values in two columns, such as the provenance of a result."""

    facts: Mapping[str, Any]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        png: PNG bytes, as returned by the functions of `report.figures`.
        caption: Text below the plot.
        alt: Alternative text for readers who cannot see the plot.
    """

    png: bytes
    caption: str
    alt: str
    kind: ClassVar[str] = "figure"

    @property
    def source(self) -> str:
        """Data URL of the plot."""
        return _data_url("image/png", self.png)


@dataclass(frozen=True)
class Picture:
    """A photo that fills the screen when it is tapped.

    Attributes:
        image: (h, w, 3) uint8 RGB; embedded as JPEG of quality `JPEG_QUALITY`.
        caption: Text below the photo.
        alt: Alternative text for readers who cannot see the photo.
    """

    image: NDArray[np.uint8]
    caption: str
    alt: str
    kind: ClassVar[str] = "picture"

    @property
    def source(self) -> str:
        """Data URL of the photo."""
        return embedded(self.image)


@dataclass(frozen=True)
class Side:
    """Pictures side by side, or one below the other on a narrow screen."""

    pictures: Sequence[Picture]
    caption: str = ""
    kind: ClassVar[str] = "side"


@dataclass(frozen=True)
class Note:
    """A paragraph. A warning is highlighted."""

    text: str
    warning: bool = False
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Command:
    """Command lines that are selected with one click."""

    text: str
    kind: ClassVar[str] = "command"


@dataclass(frozen=True)
class Details:
    """Blocks that are folded under a summary line until the reader opens them."""

    summary: str
    blocks: Sequence[Block]
    kind: ClassVar[str] = "details"


Block = Cards | Table | Facts | Figure | Picture | Side | Note | Command | Details


@dataclass(frozen=True)
class Section:
    """Blocks under a heading. Without a title, they follow the heading before."""

    title: str
    blocks: Sequence[Block]


def write_html(path: Path | str, title: str, sections: Sequence[Section], lead: str = "") -> None:
    """Write a page as one HTML file. It is replaced only when complete.

    Args:
        path: Path of the HTML file.
        title: Title of the page.
        sections: Sections in reading order. If there are several, the page begins with links to
            those that have a title.
        lead: One or two sentences below the title.

    Raises:
        ShelfcountError: If the file cannot be written.
    """
    write_whole(path, render_html(title, sections, lead))


def render_html(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """Return the HTML of a page. The arguments are those of `write_html`."""
    return template("page.html", show=show).render(title=title, sections=sections, lead=lead)


def template(name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """Load a template of this package. All values that it prints are escaped.

    Args:
        name: File name of a template that extends ``base.html``.
        **filters: Functions that the template uses as filters, by name.

    Returns:
        The compiled template.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shelfcount", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)


def page_markdown(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """Return the page as Markdown. Only the captions of figures and pictures are included.

    The arguments are those of `write_html`.
    """
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
                f"- {_inert(c.label)}: {show(c.value, c.digits)}"
                f"{f' ({_inert(c.note)})' if c.note else ''}"
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
    # The text must be on one line. A "|" in a class name would start a new column, and a "<" could
    # start an HTML tag.
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def embedded(image: NDArray[np.uint8]) -> str:
    """Return a photo as a data URL.

    Args:
        image: (h, w, 3) uint8 RGB; encoded as JPEG of quality `JPEG_QUALITY`.
    """
    return _data_url("image/jpeg", encode_photo(image, quality=JPEG_QUALITY))


def _data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
