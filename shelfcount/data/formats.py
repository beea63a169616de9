"""Labelled photos: reading in any supported format, writing as COCO, and fingerprints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from shelfcount.data import parsers, yolo
from shelfcount.data.labels import StatedLabels, checked, read_json, read_rows, read_text, short
from shelfcount.records import Dataset, Photo, ShelfcountError
from shelfcount.vision import boxes as box_math
from shelfcount.vision.images import write_whole
from shelfcount.words import plural

# Parser of each format. Its arguments are the path, the folder of the photos or None, and the name
# of the split or an empty string.
PARSERS: dict[str, Callable[[Path, Path | None, str], StatedLabels]] = {
    "coco": parsers.coco,
    "yolo": yolo.parse,
    "voc": parsers.voc,
    "sku110k": parsers.sku110k,
}


def read(
    path: Path | str,
    *,
    class_names: Mapping[str, str] | Path | None = None,
    images: Path | None = None,
    format: str | None = None,
) -> Dataset:
    """Read labelled photos in any supported format.

    Boxes are in pixels of the upright photo. Entries that cannot be used are listed in
    `Dataset.dropped`.

    Args:
        path: COCO `.json` or a folder with one, YOLO folder or `data.yaml`, Pascal VOC folder, or
            SKU-110K `.csv`. A hash selects one of several splits, as in ``data.yaml#val``.
        class_names: Class number to name, for labels exported as numbers, or the path of a CSV
            (``number,name``) or JSON file with this table. Numbers that are not in it are unknown,
            and their boxes are dropped.
        images: Folder of the photos. Only photos in it are read, whatever paths the labels contain.
            Default: the folders that belong to the labels.
        format: Key of `PARSERS`. Default: recognized from the path.

    Returns:
        Labelled photos in the order of the labels.

    Raises:
        ShelfcountError: If the path does not exist, its format is unknown or the labels are
            malformed, or if no photo can be used.
    """
    source = str(path)
    # An absolute path, so that photos outside of the data set's folders are recognized.
    path, split = _without_split(Path(os.path.abspath(path)))
    images = images and Path(os.path.abspath(images))
    if not path.exists():
        raise ShelfcountError(
            f"'{path}' does not exist. Give a COCO .json, a YOLO folder or data.yaml, a Pascal VOC "
            "folder or an SKU-110K .csv."
        )
    if format is None:
        format = _detected(path)
    elif format not in PARSERS:
        raise ShelfcountError(f"format must be one of {', '.join(PARSERS)}, got '{format}'")
    if format == "coco" and path.is_dir():
        path = _only_json(path)
    stated = PARSERS[format](path, images, split)
    table = read_class_names(class_names) if isinstance(class_names, Path) else class_names
    if format == "yolo" and stated.names is None and table is None:
        raise ShelfcountError(
            f"the class numbers in '{path}' have no names. Write one name per line into "
            "classes.txt, or give `class_names`."
        )
    return checked(stated, source, table)


def _without_split(path: Path) -> tuple[Path, str]:
    name, hash_, split = path.name.rpartition("#")
    return (path, "") if path.exists() or not hash_ else (path.with_name(name), split)


def _detected(path: Path) -> str:
    by_suffix = {".json": "coco", ".csv": "sku110k", ".yaml": "yolo", ".yml": "yolo", ".xml": "voc"}
    if path.is_file():
        if path.suffix.lower() in by_suffix:
            return by_suffix[path.suffix.lower()]
        hint = (
            " Unpack the archive first."
            if path.suffix.lower() in (".zip", ".tar", ".gz", ".7z")
            else ""
        )
        raise ShelfcountError(
            f"cannot recognize the label format of '{path}'. Give a folder or a file with one of "
            f"the suffixes {', '.join(by_suffix)}.{hint}"
        )
    if (path / "Annotations").is_dir() or any(path.glob("*.xml")):
        return "voc"
    return "coco" if _json_files(path) else "yolo"


def _json_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.json") if file.name != "notes.json")


def _only_json(folder: Path) -> Path:
    files = _json_files(folder)
    if len(files) != 1:
        raise ShelfcountError(
            f"'{folder}' contains {plural(len(files), 'COCO .json file')} "
            f"({', '.join(file.name for file in files) or 'none'}). Give the path of one file."
        )
    return files[0]


def read_class_names(path: Path) -> dict[str, str]:
    """Read a table of class numbers and names.

    Args:
        path: CSV file with the columns number and name, or a JSON file. The CSV separator is a
            comma or a semicolon, and a first row without a digit in its first column is the header.
            The JSON is an object, or a list whose first name is that of class 0.

    Returns:
        Class number, as text, to class name.

    Raises:
        ShelfcountError: If the file cannot be read, is empty, has a row of another form, or has two
            names for a number.
    """
    if path.suffix.lower() == ".json":
        data = read_json(path)
        pairs = (
            enumerate(data)
            if isinstance(data, list)
            else data.items()
            if isinstance(data, dict)
            else ()
        )
        rows = [[str(number), name] for number, name in pairs]
    else:
        rows = list(read_rows(path, "," if "," in read_text(path) else ";"))
        if rows and rows[0] and not any(letter.isdigit() for letter in rows[0][0]):
            rows = rows[1:]
    table: dict[str, str] = {}
    for row, columns in enumerate(rows, 1):
        if not columns:
            continue
        if len(columns) != 2 or not all(
            isinstance(value, str) and value.strip() for value in columns
        ):
            raise ShelfcountError(
                f"'{path}', entry {row} must be a class number and a name, got {short(columns)}"
            )
        number, name = (value.strip() for value in columns)
        if table.setdefault(number, name) != name:
            raise ShelfcountError(
                f"'{path}', entry {row}: class {number} has two names, '{table[number]}' and "
                f"'{name}'. Keep one of them."
            )
    if not table:
        raise ShelfcountError(
            f"'{path}' contains no table of class numbers and names. Give a CSV file with one "
            "number and name per row, or a JSON object."
        )
    return table


def describe_dropped(dataset: Dataset, most: int = 20) -> list[str]:
    """Return lines that summarize a data set and its dropped or corrected entries.

    Args:
        dataset: Data set from `read`.
        most: Maximum number of entries to list. The others are counted.

    Returns:
        Summary line, followed by one line per listed entry.
    """
    photos, boxes, classes, dropped = (
        len(dataset),
        dataset.boxes,
        len(dataset.classes),
        len(dataset.dropped),
    )
    head = (
        f"read {plural(photos, 'photo')}, {plural(boxes, 'box', 'boxes')}, "
        f"{plural(classes, 'class', 'classes')}"
    )
    if not dropped:
        return [head]
    listed = [f"  {entry}" for entry in dataset.dropped[:most]]
    unlisted = [f"  and {dropped - most:,} more"] if dropped > most else []
    return [f"{head}; left out or corrected: {dropped:,}", *listed, *unlisted]


def aligned(train: Dataset, val: Dataset) -> tuple[Dataset, Dataset]:
    """Return both data sets with a common list of classes.

    The list contains the classes of `train`, followed by those that only `val` has. Formats without
    a class list give only the classes of the labelled boxes, which may differ between splits.

    Args:
        train, val: Data sets whose class lists may differ.

    Returns:
        The two data sets with the common class list.
    """
    classes = train.classes + tuple(c for c in val.classes if c not in train.classes)
    return _with_classes(train, classes), _with_classes(val, classes)


def _with_classes(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    if dataset.classes == classes:
        return dataset
    index = np.array([classes.index(c) for c in dataset.classes], np.int64)
    photos = tuple(
        dataclasses.replace(p, truth=p.truth.replace(classes=index[p.truth.classes]))
        for p in dataset.photos
    )
    return dataclasses.replace(dataset, classes=classes, photos=photos)


def write_coco(dataset: Dataset, path: Path | str) -> None:
    """Write COCO detection JSON from which `read` returns the same labelled photos.

    In addition to the COCO keys, each image has its `group`, and `info` has the `attribution`. The
    path of a photo is relative if the photo is in or below the folder of the file, or in a folder
    `images` next to that folder. Any other photo has its absolute path, and can only be read again
    if `images` is given.

    Args:
        dataset: Data set to write, without its dropped entries.
        path: Path of the JSON file. The file is written completely or not at all.
    """
    path = Path(path)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for photo_id, photo in enumerate(dataset.photos, 1):
        name = Path(os.path.relpath(photo.path, path.parent))
        if name.parts[0] == ".." and name.parts[:2] != ("..", "images"):
            name = Path(os.path.abspath(photo.path))
        images.append(
            {
                "id": photo_id,
                "file_name": name.as_posix(),
                "width": photo.width,
                "height": photo.height,
                "group": photo.group,
            }
        )
        # In float64, so that left + width is exactly the right edge.
        boxes = box_math.xyxy_to_xywh(photo.truth.boxes.astype(np.float64))
        for box, class_, ignore in zip(boxes, photo.truth.classes, photo.truth.ignore, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": photo_id,
                    "category_id": int(class_) + 1,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(ignore),
                }
            )
    document = {
        "info": {"description": dataset.name, "attribution": dataset.attribution},
        "licenses": [{"id": 1, "name": dataset.licence}] if dataset.licence else [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(dataset.classes, 1)],
        "images": images,
        "annotations": annotations,
    }
    write_whole(path, json.dumps(document, ensure_ascii=False, allow_nan=False))


def fingerprint(dataset: Dataset) -> str:
    """Return the SHA-256 over class names, labels and photo files, as hexadecimal digits.

    The fingerprint does not depend on the paths of the photos or on the order of photos, boxes and
    classes. It changes if a box, a class name, an `ignore` or a byte of a photo changes.

    Args:
        dataset: Labelled photos.

    Returns:
        64 hexadecimal digits.

    Raises:
        ShelfcountError: If a photo cannot be read.
    """
    photos = sorted(_photo_digest(photo, dataset.classes) for photo in dataset.photos)
    return hashlib.sha256(json.dumps([sorted(dataset.classes), photos]).encode()).hexdigest()


def _photo_digest(photo: Photo, classes: tuple[str, ...]) -> str:
    try:
        with photo.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ShelfcountError(
            f"cannot read photo '{photo.path}': {error.strerror or error}"
        ) from error
    truth = photo.truth
    labels = zip(truth.classes.tolist(), truth.boxes.tolist(), truth.ignore.tolist(), strict=True)
    rows = sorted([classes[class_], box, ignore] for class_, box, ignore in labels)
    return hashlib.sha256(json.dumps([digest, rows]).encode()).hexdigest()
