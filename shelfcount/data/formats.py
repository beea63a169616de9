"""Label formats: detection of a label format, reading of any format, and class-name tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from shelfcount.data import coco, sku110k, voc, yolo
from shelfcount.data.stated_labels import ParsedLabels, validate_labels
from shelfcount.files import read_json, read_rows, read_text, shorten
from shelfcount.records import Dataset, ShelfcountError
from shelfcount.words import plural

# Parser of each format. Its arguments are the path, the folder of the photos or None, and the name
# of the split or an empty string.
PARSERS: dict[str, Callable[[Path, Path | None, str], ParsedLabels]] = {
    "coco": coco.parse_coco,
    "yolo": yolo.parse_yolo,
    "voc": voc.parse_voc,
    "sku110k": sku110k.parse_sku110k,
}


def read_labels(
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
    return validate_labels(stated, source, table)


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
                f"'{path}', entry {row} must be a class number and a name, got {shorten(columns)}"
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
