"""SKU-110K labels: reading of CSV rows."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from shelfcount.data.stated_labels import (
    ParsedBox,
    ParsedLabels,
    ParsedPhoto,
    find_photo,
    refuse_split,
)
from shelfcount.files import read_rows
from shelfcount.records import Dropped
from shelfcount.words import plural


def parse_sku110k(path: Path, images: Path | None, split: str) -> ParsedLabels:
    """Parse the CSV of SKU-110K.

    The columns are image_name, x1, y1, x2, y2, class, image_width and image_height. A header is
    optional.

    Args:
        path: CSV file.
        images: Folder of the photos, or None to search for them next to the file.
        split: Must be empty, since the format has no splits.

    Returns:
        Parsed labels.

    Raises:
        ShelfcountError: If the file cannot be read as CSV, or a split is given.
    """
    refuse_split(path, split)
    dropped: list[Dropped] = []
    boxes: dict[str, list[ParsedBox]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    for row, columns in enumerate(read_rows(path), 1):
        where = f"{path.name}, row {row}"
        if not columns or (row == 1 and columns[0].strip() == "image_name"):
            continue
        try:
            if len(columns) != 8:
                raise ValueError(f"the row must have 8 columns, got {len(columns)}")
            left, top, right, bottom, width, height = (
                float(columns[i]) for i in (1, 2, 3, 4, 6, 7)
            )
            name, label, size = columns[0].strip(), columns[5].strip(), (int(width), int(height))
            if not label or sizes.setdefault(name, size) != size:
                raise ValueError(
                    "the row has no class, or states another photo size than an earlier row: class "
                    f"{label!r}, size {size}"
                )
        except (ValueError, OverflowError) as error:
            dropped.append(Dropped(where, str(error)))
            continue
        boxes[name].append(ParsedBox(where, label, (left, top, right, bottom)))
    photos = []
    for name, stated in boxes.items():
        where = stated[0].where
        try:
            photo = find_photo(name, path.parent, images)
            photos.append(ParsedPhoto(where, photo, stated, sizes[name]))
        except LookupError as error:
            number = plural(len(stated), "box is", "boxes are")
            dropped.append(Dropped(where, f"{error}. Its {number} left out."))
    return ParsedLabels(photos, None, dropped)
