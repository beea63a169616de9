"""Labelled photos in and out: `read` any format, `write_coco`, `fingerprint`."""

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

# Each takes the path, the folder of the photos or None, and the split or an empty string.
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
    """Labelled photos, whichever tool exported them.

    Boxes are in pixels of the upright photo. What can't be used is listed in `Dataset.dropped`.

    Args:
        path: COCO `.json` or a folder with one; YOLO folder or `data.yaml`; Pascal VOC folder; SKU-110K
            `.csv`. One split of several is chosen behind a hash: ``data.yaml#val``.
        class_names: Number to name, for labels exported as numbers; or a CSV (``number,name``) or
            JSON file that holds this. A number that is not in it is unknown and its boxes are dropped.
        images: Folder of the photos, where it can't be known from the labels. Only photos inside it,
            or else in the folders that belong to the labels, are read, whatever the labels name.
        format: A key of `PARSERS`; told from the path by default.

    Raises:
        ShelfcountError: If the path is missing, of no known form, or leaves no photo.
    """
    source = str(path)
    # Absolute, so that what a label file names can be told to lie inside or outside.
    path, split = _without_split(Path(os.path.abspath(path)))
    images = images and Path(os.path.abspath(images))
    if not path.exists():
        raise ShelfcountError(
            f"there is no '{path}'; it must be a COCO .json, YOLO folder or data.yaml, VOC folder or SKU-110K .csv"
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
            f"class numbers in '{path}' must have names: write one a line into classes.txt or give `class_names`"
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
        hint = " Unpack it first." if path.suffix.lower() in (".zip", ".tar", ".gz", ".7z") else ""
        raise ShelfcountError(
            f"labels must be a folder or one of {', '.join(by_suffix)}, got '{path}'.{hint}"
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
            f"there must be one COCO .json in '{folder}', found {[f.name for f in files]}; name the file itself"
        )
    return files[0]


def read_class_names(path: Path) -> dict[str, str]:
    """A lookup table from class number to name.

    Args:
        path: CSV of `number,name` (semicolons do too; a first row without a digit is the header), or
            JSON: an object, or a list whose first name is that of class 0.

    Raises:
        ShelfcountError: If a row has another form, or a number has two names.
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
                f"'{path}', entry {row}: it must be a number and a name, got {short(columns)}"
            )
        number, name = (value.strip() for value in columns)
        if table.setdefault(number, name) != name:
            raise ShelfcountError(
                f"'{path}', entry {row}: class {number} must have one name, got '{table[number]}' and '{name}'"
            )
    if not table:
        raise ShelfcountError(f"'{path}' must hold a table of class numbers and names, found none")
    return table


def describe_dropped(dataset: Dataset, most: int = 20) -> list[str]:
    """What was read, and what of it was left out or cut, one line each.

    Args:
        dataset: From `read`.
        most: So many of the latter are listed, the others counted.
    """
    photos, boxes, classes, dropped = (
        len(dataset),
        dataset.boxes,
        len(dataset.classes),
        len(dataset.dropped),
    )
    head = f"read {photos:,} photos, {boxes:,} boxes, {classes:,} classes"
    if not dropped:
        return [head]
    listed = [f"  {entry}" for entry in dataset.dropped[:most]]
    rest = [f"  and {dropped - most:,} more"] if dropped > most else []
    return [f"{head}; left out or corrected: {dropped:,}", *listed, *rest]


def aligned(train: Dataset, val: Dataset) -> tuple[Dataset, Dataset]:
    """Both with one list of classes: those of `train`, then those that only `val` has.

    Formats without a class list give the classes of the boxes present, which differ between splits.
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
    """Write COCO detection JSON that `read` turns into the same photos again.

    Beyond COCO, an image has its `group` and `info` the `attribution`. A photo in or under the
    folder of the file, or in `images` beside it, is named relative to it, any other by its full path;
    to read those again, `images` has to name their folder.

    Args:
        dataset: To be written; what was dropped from it is not.
        path: Of the JSON file, written whole or not at all.
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
        # In float64, so that left + width gives back the right edge exactly.
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
    """SHA-256 over class names, labels and the photos' bytes, in hex.

    The same wherever the photos lie and in whatever order photos, boxes and classes come; another
    as soon as a box, a class name, an `ignore` or a byte of a photo changes.

    Raises:
        ShelfcountError: If a photo can't be read.
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
