"""What a label file states, and the check of it against the photos themselves.

Every format is parsed into `StatedLabels`, and `checked` alone decides what of it can be used: so
a box that is cut or left out is treated and reported alike, whichever tool wrote it.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from shelfcount.records import Dataset, Detections, Dropped, Photo, ShelfcountError
from shelfcount.vision import boxes as box_math
from shelfcount.vision.images import MOST_PIXELS, PHOTO_SUFFIXES, jpeg_is_whole, read_photo

# YOLO's six decimals, and tools that round to whole pixels, move an edge by up to half a pixel.
ROUNDING_PX = 0.5
# No product is narrower; what is left of a box at the border may be.
LEAST_SIDE_PX = 1.0
# Tools let a box run over the border. One of which most lies outside belongs to another frame.
LEAST_SHARE_INSIDE = 0.25
# EXIF 2.32, tag 0x0112: the orientations whose stored picture lies on its side.
SIDEWAYS = (5, 6, 7, 8)

Corners = tuple[float, float, float, float]


class StatedBox(NamedTuple):
    """One box as the file has it.

    Attributes:
        where: File and row, or file and record number.
        label: Class name, or class number in decimal digits.
        corners: xyxy, pixels of the stated picture, or ratios where the photo says so.
        ignore: COCO ``iscrowd``, VOC ``difficult``.
    """

    where: str
    label: str
    corners: Corners
    ignore: bool = False


@dataclass(frozen=True)
class StatedPhoto:
    """One photo as the file has it.

    Attributes:
        where: File and record, for messages.
        path: Of an existing file.
        boxes: On this photo.
        size: (width, height) as stated; None where the format has none.
        group: As stated, or empty.
        ratios: Whether the corners are ratios of the upright photo.
    """

    where: str
    path: Path
    boxes: Sequence[StatedBox]
    size: tuple[int, int] | None = None
    group: str = ""
    ratios: bool = False


@dataclass(frozen=True)
class StatedLabels:
    """All that a label file states.

    Attributes:
        photos: In the order of the file.
        names: Class name of each label, in class order; None where labels are the names.
        dropped: What the parser could not use.
        licence, attribution: As stated, or empty.
    """

    photos: Sequence[StatedPhoto]
    names: Mapping[str, str] | None = None
    dropped: Sequence[Dropped] = field(default_factory=list)
    licence: str = ""
    attribution: str = ""


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without byte order mark.

    Raises:
        ShelfcountError: If it is missing or no such text.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ShelfcountError(f"'{path}' must be a readable UTF-8 text file: {error}") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ShelfcountError: If it is missing or not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ShelfcountError(f"'{path}' must be JSON: {error}") from error


def read_rows(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """The rows of a CSV file, empty ones too, so that counting them gives the row number.

    Raises:
        ShelfcountError: If it is missing or not CSV.
    """
    try:
        yield from csv.reader(read_text(path).splitlines(), delimiter=delimiter)
    except csv.Error as error:
        raise ShelfcountError(f"'{path}' must be CSV: {error}") from error


def short(value: object) -> str:
    """A value for a message, which must not grow with what a broken file holds."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def around(x: Sequence[float], y: Sequence[float]) -> Corners:
    """The corners of the box around a polygon's points; a NaN anywhere stays one."""
    return float(np.min(x)), float(np.min(y)), float(np.max(x)), float(np.max(y))


def find_photo(name: str, folder: Path, images: Path | None) -> Path:
    """The photo that a label file names.

    Args:
        name: As the label file has it; `/` and `\\` both part folders.
        folder: Of the label file, absolute. Photos lie in it, or in `images` or `JPEGImages` in or beside it,
            as CVAT, Roboflow, Label Studio and VOC lay them out.
        images: Absolute; where the user says the photos are; then nowhere else, and the file name alone will do.

    Raises:
        LookupError: If there is no such photo, more than one, or the name leads out of the folders.
    """
    relative = name.replace("\\", "/")
    names = [relative]
    if Path(relative).suffix.lower() not in PHOTO_SUFFIXES:
        names = [relative + suffix for suffix in PHOTO_SUFFIXES]
    if images is not None:
        roots = [images]
        names += [os.path.basename(n) for n in names]
    else:
        roots = [
            folder,
            *(base / sub for base in (folder, folder.parent) for sub in ("images", "JPEGImages")),
        ]
    roots = [Path(os.path.normpath(root)) for root in roots]
    candidates = dict.fromkeys(Path(os.path.normpath(root / n)) for n in names for root in roots)
    # Without resolving links: the user may have put one there, a label file cannot.
    inside = [c for c in candidates if any(c.is_relative_to(root) for root in roots)]
    if not inside:
        raise LookupError(
            f"photo {name!r} leads out of '{roots[0]}'; only photos in the data's own folders are read, or in `images`"
        )
    found = [c for c in inside if _is_file(c)]
    if not found:
        raise LookupError(
            f"photo {name!r} is missing; looked in '{roots[0]}'"
            + (" and the image folders beside it" if roots[1:] else "")
        )
    if len(found) > 1 and images is None:
        raise LookupError(
            f"photo {name!r} is there twice, '{found[0]}' and '{found[1]}'; which one is meant cannot be told"
        )
    return found[0]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system takes
        return False


def checked(stated: StatedLabels, source: str, table: Mapping[str, str] | None = None) -> Dataset:
    """The part of the labels that can be used, the rest listed in `Dataset.dropped`.

    A box is cut at the photo's border and listed; it is left out where it has no size, is not
    finite, lies outside or is of no known class. A photo is left out where it is missing, cut short,
    listed twice, or of another size than stated. Where the stated size is that of the file before
    its EXIF rotation, the boxes are turned upright with the photo, and that is listed once.

    Args:
        stated: From a parser.
        source: Name of the data for messages.
        table: Number to class name; numbers not in it are unknown, names not in it are kept.

    Raises:
        ShelfcountError: If no photo is left.
    """
    # One line each, as labels.txt of a bundle has one a line.
    names = {label: " ".join(name.split()) for label, name in _class_names(stated, table).items()}
    if "" in names.values():
        raise ShelfcountError(f"every class of '{source}' must have a name, got an empty one")
    classes = tuple(dict.fromkeys(names.values()))
    index = {label: classes.index(name) for label, name in names.items()}
    dropped = list(stated.dropped)
    photos: list[Photo] = []
    first: dict[Path, str] = {}
    turned: list[str] = []
    for photo in stated.photos:
        try:
            if photo.path in first:
                raise ShelfcountError(
                    f"photo '{photo.path.name}' must be listed once; {first[photo.path]} has it already"
                )
            stored, upright, orientation = _sizes(photo)
        except ShelfcountError as error:
            dropped.append(
                Dropped(
                    photo.where,
                    f"{error}. The photo and its {len(photo.boxes)} boxes are left out.",
                )
            )
            continue
        first[photo.path] = photo.where
        known = [box for box in photo.boxes if box.label in index]
        unknown = [box for box in photo.boxes if box.label not in index]
        for box in unknown:
            # What the user knows is the number in the table, not the file's own id of it.
            given = (stated.names or {}).get(box.label, box.label)
            dropped.append(
                Dropped(box.where, f"class {short(given)} is not one of the {len(classes)} known")
            )
        corners = np.array([box.corners for box in known], np.float64).reshape(-1, 4)
        if photo.ratios:
            with np.errstate(over="ignore"):  # into inf, which `_fitted` refuses
                corners = corners * (upright * 2)
        elif photo.size is not None and photo.size != upright:
            corners = _turned(corners, orientation, *stored)
            turned.append(photo.where)
        kept, boxes, notes = _fitted(corners, [box.where for box in known], *upright)
        dropped += notes
        truth = Detections(
            boxes, [index[known[i].label] for i in kept], ignore=[known[i].ignore for i in kept]
        )
        photos.append(Photo(photo.path, *upright, truth, photo.group or _stem_group(photo.path)))
    if turned:
        note = f"{len(turned)} photos, this one first, state their size before the EXIF rotation; their boxes were turned upright with them"
        dropped.append(Dropped(turned[0], note))
    if not photos:
        why = (
            f"; the first of {len(dropped)} reasons: {dropped[0]}" if dropped else ": it names none"
        )
        raise ShelfcountError(f"no photo of '{source}' can be used{why}")
    return Dataset(
        classes, tuple(photos), tuple(dropped), source, stated.licence, stated.attribution
    )


def _class_names(stated: StatedLabels, table: Mapping[str, str] | None) -> dict[str, str]:
    names = stated.names
    if names is None:
        labels = {box.label for photo in stated.photos for box in photo.boxes}
        # The table first: then the classes do not depend on which of them this split happens to hold.
        names = {label: label for label in [*(table or ()), *sorted(labels)]}
    if table is None:
        return dict(names)
    return {
        label: table.get(name, name)
        for label, name in names.items()
        if name in table or not name.lstrip("-").isdecimal()
    }


def _stem_group(path: Path) -> str:
    # Roboflow names the augmented copies of shelf.jpg "shelf_jpg.rf.<hash>.jpg": one group.
    return path.stem.split(".rf.")[0]


def _sizes(photo: StatedPhoto) -> tuple[tuple[int, int], tuple[int, int], int]:
    """(width, height) as stored and upright, and the EXIF orientation between; one of the sizes is the stated one."""
    stored, upright, orientation = _header(photo.path)
    if photo.size is not None and photo.size not in (stored, upright):
        stated, got = "{} x {}".format(*photo.size), "{} x {}".format(*upright)
        raise ShelfcountError(
            f"photo '{photo.path.name}' must be of the stated size {stated}, got {got}"
        )
    return stored, upright, orientation


def _header(path: Path) -> tuple[tuple[int, int], tuple[int, int], int]:
    """As `_sizes`, of a whole photo whose upright size is that of `read_photo`; a JPEG is not decoded for it."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            stored = image.size
            if image.width * image.height > MOST_PIXELS:
                raise ShelfcountError(
                    f"photo '{path.name}' has {image.width} x {image.height} pixels; at most {MOST_PIXELS:,} are read"
                )
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            if data[:2] == b"\xff\xd8":
                if not jpeg_is_whole(data):
                    raise ShelfcountError(
                        f"photo '{path.name}' is cut short: its JPEG data has no end ({len(data)} bytes)"
                    )
                return stored, stored[::-1] if orientation in SIDEWAYS else stored, orientation
            # Only decoding tells whether such a file is whole, and whether OpenCV turns this format upright.
            image.load()
            height, width = read_photo(path).shape[:2]
            return stored, (width, height), orientation
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ShelfcountError(f"photo '{path.name}' cannot be read: {error}") from error


def _turned(boxes: np.ndarray, orientation: int, width: int, height: int) -> np.ndarray:
    """xyxy boxes of a picture stored on its side, `width` x `height`, in the upright one."""
    left, top, right, bottom = boxes.T
    if orientation in (6, 7):
        top, bottom = height - bottom, height - top
    if orientation in (7, 8):
        left, right = width - right, width - left
    return np.stack([top, left, bottom, right], axis=1)


def _fitted(
    boxes: np.ndarray, where: list[str], width: int, height: int
) -> tuple[np.ndarray, np.ndarray, list[Dropped]]:
    """Boxes cut at the border of the photo: indices of those kept, their new corners, and what is to be told."""
    finite = np.isfinite(boxes).all(axis=1)
    with np.errstate(
        all="ignore"
    ):  # numbers near 1e308 overflow into inf and count as outside; 0 / 0 is no size
        sides = boxes[:, 2:] - boxes[:, :2]
        cut = box_math.clip(boxes, width, height)
        left_over = cut[:, 2:] - cut[:, :2]
        share = (left_over / sides).prod(axis=1)
        overhang = np.abs(cut - boxes).max(axis=1, initial=0)
        # The first that holds is told.
        problems = {
            "a box must have finite numbers, got {}": ~finite,
            "a box must be wider and higher than 0, got {}": (sides <= 0).any(axis=1),
            "the box {} lies outside the photo of {} x {}": (left_over <= 0).any(axis=1),
            "the box {} lies mostly outside the photo of {} x {}": share < LEAST_SHARE_INSIDE,
            "the box {} on the photo of {} x {} is less than a pixel wide or high": (
                left_over < LEAST_SIDE_PX
            ).any(axis=1),
        }
        bad = np.any(list(problems.values()), axis=0)
    problems["the box {} reaches over the border of the photo of {} x {}; it was cut there"] = (
        overhang > ROUNDING_PX
    )
    notes = []
    for i in np.flatnonzero(bad | (overhang > ROUNDING_PX)).tolist():
        message = next(text for text, holds in problems.items() if holds[i])
        corners = "({})".format(", ".join(f"{v:.6g}" for v in boxes[i]))
        notes.append(Dropped(where[i], message.format(corners, width, height)))
    kept = np.flatnonzero(~bad)
    return kept, cut[kept], notes
