"""Parsed labels of any format, and their validation against the photos.

Every parser returns `ParsedLabels`, and `validate_labels` alone decides which boxes are used,
cut or dropped, so that all formats are treated alike.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shelfcount.files import shorten
from shelfcount.records import Dataset, Detections, Dropped, Photo, ShelfcountError
from shelfcount.vision import boxes as box_math
from shelfcount.vision.images import PHOTO_SUFFIXES, PhotoSize, read_size
from shelfcount.words import plural

# Maximum overhang of a box that is not reported. YOLO's six decimals, and tools that round to whole
# pixels, move an edge by up to half a pixel.
ROUNDING_PX = 0.5
# Minimum side of a box after it was cut at the border. No product is narrower.
MIN_SIDE_PX = 1.0
# Minimum share of a box inside the photo. Labelling tools allow boxes over the border, but a box
# that is mostly outside belongs to another photo or size.
MIN_SHARE_INSIDE = 0.25

XYXY = tuple[float, float, float, float]


class ParsedBox(NamedTuple):
    """One box as it is stated in the label file.

    Attributes:
        where: File and row, or file and record number.
        label: Class name, or class number in decimal digits.
        corners: (left, top, right, bottom), in pixels of the stated picture, or as ratios if
            `ParsedPhoto.ratios` is set.
        ignore: COCO ``iscrowd`` or VOC ``difficult``.
    """

    where: str
    label: str
    corners: XYXY
    ignore: bool = False


@dataclass(frozen=True)
class ParsedPhoto:
    """One photo as it is stated in the label file.

    Attributes:
        where: File and record, for messages.
        path: Path of the existing photo.
        boxes: Boxes on the photo.
        size: Stated (width, height) in pixels; None if the labels state no size.
        group: Stated group, or empty.
        ratios: True if the box corners are ratios of the size of the upright photo.
    """

    where: str
    path: Path
    boxes: Sequence[ParsedBox]
    size: tuple[int, int] | None = None
    group: str = ""
    ratios: bool = False


@dataclass(frozen=True)
class ParsedLabels:
    """Content of a label file.

    Attributes:
        photos: Photos in the order of the file.
        names: Class name of each label, in class order; None if the labels are the names.
        dropped: Entries that the parser could not use.
        licence, attribution: Stated licence and attribution, or empty.
    """

    photos: Sequence[ParsedPhoto]
    names: Mapping[str, str] | None = None
    dropped: Sequence[Dropped] = field(default_factory=list)
    licence: str = ""
    attribution: str = ""


def polygon_bounds(x: Sequence[float], y: Sequence[float]) -> XYXY:
    """Return (left, top, right, bottom) of a polygon's bounding box; NaN coordinates remain NaN.

    Args:
        x, y: Coordinates of the points.
    """
    return float(np.min(x)), float(np.min(y)), float(np.max(x)), float(np.max(y))


def find_photo(name: str, folder: Path, images: Path | None) -> Path:
    """Return the path of a photo that a label file refers to.

    Args:
        name: Path as stated in the label file. Both `/` and `\\` separate folders.
        folder: Absolute path of the label file's folder. Photos are searched in it, and in folders
            ``images`` and ``JPEGImages`` in it or next to it, as CVAT, Roboflow, Label Studio and
            VOC write them.
        images: Absolute path of the folder given by the user. If set, photos are searched only in
            it, also by their file name alone.

    Returns:
        Path of an existing file.

    Raises:
        LookupError: If the photo does not exist, if several files match, or if the path is outside
            of the searched folders.
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
    # Symbolic links are not resolved: the user may have created one, a label file cannot.
    inside = [c for c in candidates if any(c.is_relative_to(root) for root in roots)]
    if not inside:
        raise LookupError(
            f"photo {name!r} is outside of '{roots[0]}'; only photos in the folders of the data "
            "set, or in the folder given as `images`, are read"
        )
    files = [c for c in inside if _is_file(c)]
    if not files:
        raise LookupError(
            f"photo {name!r} is missing; it was searched in '{roots[0]}'"
            + (" and the image folders in it and next to it" if roots[1:] else "")
        )
    if len(files) > 1 and images is None:
        raise LookupError(
            f"photo {name!r} exists twice, as '{files[0]}' and '{files[1]}', so the labels are "
            "ambiguous; remove or rename one of them"
        )
    return files[0]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system allows
        return False


def validate_labels(
    parsed: ParsedLabels, source: str, table: Mapping[str, str] | None = None
) -> Dataset:
    """Return the usable labels as a data set, with all other entries in `Dataset.dropped`.

    A box over the border of the photo is cut there and listed as dropped. A box is left out if it
    has no size, is not finite, is mostly outside the photo, or has an unknown class. A photo is
    left out if it is cut short, listed twice, or of another size than stated. If the stated size is
    that before the EXIF rotation, the boxes are rotated upright with the photo. This is listed
    once.

    Args:
        parsed: Labels from a parser.
        source: Name of the data for messages.
        table: Class number to class name. Numbers that are not in it are unknown; names that are
            not in it remain.

    Returns:
        Data set with at least one photo.

    Raises:
        ShelfcountError: If a class name is empty or no photo can be used.
    """
    # A class name is a single line, since labels.txt of a bundle has one name per line.
    names = {label: " ".join(name.split()) for label, name in _class_names(parsed, table).items()}
    if "" in names.values():
        raise ShelfcountError(f"'{source}' has a class with an empty name. Give it a name.")
    classes = tuple(dict.fromkeys(names.values()))
    index = {label: classes.index(name) for label, name in names.items()}
    dropped = list(parsed.dropped)
    photos: list[Photo] = []
    first: dict[Path, str] = {}
    turned: list[str] = []
    for photo in parsed.photos:
        try:
            if photo.path in first:
                raise ShelfcountError(
                    f"photo '{photo.path.name}' is listed twice, first in {first[photo.path]}"
                )
            stored, upright, orientation = _sizes(photo)
        except ShelfcountError as error:
            dropped.append(
                Dropped(
                    photo.where,
                    f"{error}. The photo and its {plural(len(photo.boxes), 'box', 'boxes')} are "
                    "left out.",
                )
            )
            continue
        first[photo.path] = photo.where
        known = [box for box in photo.boxes if box.label in index]
        dropped += _unknown_classes(photo, parsed, index, len(classes))
        corners = np.array([box.corners for box in known], np.float64).reshape(-1, 4)
        if photo.ratios:
            with np.errstate(over="ignore"):  # An overflow gives inf, which `_clip_boxes` refuses.
                corners = corners * (upright * 2)
        elif photo.size is not None and photo.size != upright:
            corners = _turned(corners, orientation, *stored)
            turned.append(photo.where)
        kept, boxes, notes = _clip_boxes(corners, [box.where for box in known], *upright)
        dropped += notes
        truth = Detections(
            boxes, [index[known[i].label] for i in kept], ignore=[known[i].ignore for i in kept]
        )
        photos.append(Photo(photo.path, *upright, truth, photo.group or _stem_group(photo.path)))
    if turned:
        note = (
            f"{plural(len(turned), 'photo')} with a stated size before the EXIF rotation, of which "
            "this is the first: the boxes were rotated upright with the photo"
        )
        dropped.append(Dropped(turned[0], note))
    if not photos:
        why = (
            f"; the first of {plural(len(dropped), 'reason')}: {dropped[0]}"
            if dropped
            else ": it lists no photo"
        )
        raise ShelfcountError(f"no photo of '{source}' can be used{why}")
    return Dataset(
        classes, tuple(photos), tuple(dropped), source, parsed.licence, parsed.attribution
    )


def _unknown_classes(
    photo: ParsedPhoto, parsed: ParsedLabels, index: Mapping[str, int], classes: int
) -> list[Dropped]:
    """Return an entry for each box of a photo whose class is not in `index`."""
    number = plural(classes, "known class", "known classes")
    entries = []
    for box in photo.boxes:
        if box.label not in index:
            # The user knows the number in the table, not the id in the label file.
            label = (parsed.names or {}).get(box.label, box.label)
            entries.append(Dropped(box.where, f"class {shorten(label)} is not among the {number}"))
    return entries


def _class_names(parsed: ParsedLabels, table: Mapping[str, str] | None) -> dict[str, str]:
    """Return label to class name, without labels that are numbers missing in `table`."""
    names = parsed.names
    if names is None:
        labels = {box.label for photo in parsed.photos for box in photo.boxes}
        # The table first, so that the classes do not depend on which of them this split contains.
        names = {label: label for label in [*(table or ()), *sorted(labels)]}
    if table is None:
        return dict(names)
    return {
        label: table.get(name, name)
        for label, name in names.items()
        if name in table or not name.lstrip("-").isdecimal()
    }


def _stem_group(path: Path) -> str:
    # Roboflow names augmented copies of shelf.jpg "shelf_jpg.rf.<hash>.jpg". They are one group.
    return path.stem.split(".rf.")[0]


def _sizes(photo: ParsedPhoto) -> PhotoSize:
    """Return the stored and the upright size of a photo, and its EXIF orientation.

    Raises:
        ShelfcountError: If the photo cannot be used, or the stated size is neither of the two.
    """
    size = read_size(photo.path)
    if photo.size is not None and photo.size not in (size.stored, size.upright):
        stated, actual = "{} x {}".format(*photo.size), "{} x {}".format(*size.upright)
        raise ShelfcountError(
            f"photo '{photo.path.name}' has {actual} pixels, but the labels state {stated}"
        )
    return size


def _turned(
    boxes: NDArray[np.float64], orientation: int, width: int, height: int
) -> NDArray[np.float64]:
    """Return boxes of a stored picture in pixels of the upright photo.

    Args:
        boxes: (n, 4) float64 xyxy, pixels of the stored picture.
        orientation: EXIF orientation, one of `images.SIDEWAYS`.
        width, height: Size of the stored picture in pixels.

    Returns:
        (n, 4) float64 xyxy, pixels of the upright photo.
    """
    left, top, right, bottom = boxes.T
    if orientation in (6, 7):
        top, bottom = height - bottom, height - top
    if orientation in (7, 8):
        left, right = width - right, width - left
    return np.stack([top, left, bottom, right], axis=1)


def _clip_boxes(
    boxes: NDArray[np.float64], where: list[str], width: int, height: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[Dropped]]:
    """Return the usable boxes, cut at the border of the photo.

    Args:
        boxes: (n, 4) float64 xyxy, pixels of the photo.
        where: File and record of each box.
        width, height: Size of the photo in pixels.

    Returns:
        Indices of the usable boxes, their (k, 4) xyxy corners after the cut, and an entry for each
        box that was cut or left out.
    """
    finite = np.isfinite(boxes).all(axis=1)
    with np.errstate(
        all="ignore"
    ):  # Numbers near 1e308 overflow to inf and count as outside; 0 / 0 is a box without size.
        sides = boxes[:, 2:] - boxes[:, :2]
        cut = box_math.clip(boxes, width, height)
        left_over = cut[:, 2:] - cut[:, :2]
        share = (left_over / sides).prod(axis=1)
        overhang = np.abs(cut - boxes).max(axis=1, initial=0)
        # The first problem that applies is reported.
        problems = {
            "the box {} contains a number that is not finite": ~finite,
            "the box {} has a width or height of 0 or less": (sides <= 0).any(axis=1),
            "the box {} is outside the photo of {} x {}": (left_over <= 0).any(axis=1),
            "the box {} is mostly outside the photo of {} x {}": share < MIN_SHARE_INSIDE,
            "the box {} on the photo of {} x {} is less than a pixel wide or high": (
                left_over < MIN_SIDE_PX
            ).any(axis=1),
        }
        bad = np.any(list(problems.values()), axis=0)
    problems["the box {} exceeds the border of the photo of {} x {} and was cut there"] = (
        overhang > ROUNDING_PX
    )
    notes = []
    for i in np.flatnonzero(bad | (overhang > ROUNDING_PX)).tolist():
        message = next(text for text, applies in problems.items() if applies[i])
        corners = "({})".format(", ".join(f"{v:.6g}" for v in boxes[i]))
        notes.append(Dropped(where[i], message.format(corners, width, height)))
    kept = np.flatnonzero(~bad)
    return kept, cut[kept], notes


def refuse_split(path: Path, split: str) -> None:
    """Check that no split was selected in a format without splits.

    Args:
        path: Path of the labels.
        split: Text after ``#`` in the source; empty if there is none.

    Raises:
        ShelfcountError: If a split was selected.
    """
    if split:
        raise ShelfcountError(
            f"'{path}' has no splits, so '#{split}' cannot be selected. Give the path without it."
        )
