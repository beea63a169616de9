"""Parser of YOLO labels in the layouts of several tools.

Supported layouts are those of Ultralytics, Roboflow, CVAT, Label Studio, LabelImg and makesense.ai.
Each photo has a text file. Each line is a class number and a box or a polygon, in ratios of the
size of the upright photo. The tools differ in the folders of photos, labels and class names.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from shelfcount.data.stated_labels import (
    ParsedBox,
    ParsedLabels,
    ParsedPhoto,
    find_photo,
    polygon_bounds,
)
from shelfcount.files import read_json, read_text, shorten
from shelfcount.records import Dropped, ShelfcountError
from shelfcount.vision.images import PHOTO_SUFFIXES
from shelfcount.words import plural

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
# Files with one class name per line: of Label Studio and LabelImg, of CVAT and darknet, and of
# makesense.ai.
CLASS_FILES = ("classes.txt", "obj.names", "labels.txt")
SPLIT_NAMES = ("train", "val", "valid", "validation", "test")
# Text files that may be in a label folder but contain no labels.
NO_LABELS = {
    *CLASS_FILES,
    *(f"{split}.txt" for split in SPLIT_NAMES),
    "README.dataset.txt",
    "README.roboflow.txt",
}


def parse_yolo(path: Path, images: Path | None, split: str) -> ParsedLabels:
    """Parse the photos and labels of one split.

    Args:
        path: A `data.yaml`, or a folder.
        images: Folder of the photos, or None if they are in the folders of the layout.
        split: Key in `data.yaml` or ``obj.data``, or name of a folder; may be empty if there is
            only one split.

    Returns:
        Parsed labels.

    Raises:
        ShelfcountError: If the split or its photos cannot be found, or a file with class names is
            malformed.
    """
    if path.is_dir():
        path = next((path / name for name in YAML_NAMES if (path / name).is_file()), path)
    config, folder = (_read_yaml(path), path.parent) if path.is_file() else ({}, path)
    splits = _splits(folder, config)
    if (split and split not in splits) or (not split and len(splits) > 1):
        problem = f"'{path}' has no split '{split}'" if split else f"'{path}' has several splits"
        example = f"'{path.name}#{next(iter(splits), 'train')}'"
        raise ShelfcountError(
            f"{problem}. Its splits are {', '.join(splits) or '(none)'}. Select one as in "
            f"{example}."
        )
    entries = (splits[split] if split else next(iter(splits.values()), None)) or ["."]
    dropped: list[Dropped] = []
    relative: dict[Path, Path] = {}
    for entry in entries:
        relative |= _photos(
            _place(folder, str(config.get("path") or "."), entry, images), folder, images, dropped
        )
    if not relative:
        raise ShelfcountError(
            f"no photos in {', '.join(entries)} of '{path}'. If they are in another folder, give "
            "it as `images`."
        )
    claims = _claims(folder, relative, dropped)
    # If a list selects the photos, other label files in the folder belong to other splits.
    if not any(entry.endswith(".txt") for entry in entries):
        labels = {
            file
            for parent in {label.parent for label in claims}
            for file in parent.glob("*.txt")
            if file.name not in NO_LABELS
        }
        dropped += [
            Dropped(os.path.relpath(file, folder), "the labels do not belong to any photo")
            for file in sorted(labels - claims.keys())
        ]
    photos = _photos_with_boxes(folder, claims, dropped)
    roboflow = config["roboflow"] if isinstance(config.get("roboflow"), dict) else {}
    licence, attribution = str(roboflow.get("license") or ""), str(roboflow.get("url") or "")
    return ParsedLabels(photos, _class_names(folder, config), dropped, licence, attribution)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise ShelfcountError(f"'{path}' is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ShelfcountError(
            f"'{path}' must contain keys such as names and train, got {shorten(config)}"
        )
    return config


def _splits(folder: Path, config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return split name to the folders of its photos, or to the text files that list them."""
    if not config and (folder / "obj.data").is_file():
        pairs = (line.partition("=") for line in read_text(folder / "obj.data").splitlines())
        config = {key.strip(): value.strip() for key, _, value in pairs}
    elif not config:
        parts = [
            d
            for base in (folder, folder / "images")
            if base.is_dir()
            for d in sorted(base.iterdir())
            if d.is_dir()
        ]
        config = {d.name: d.relative_to(folder).as_posix() for d in parts}
    stated = {key: config[key] for key in SPLIT_NAMES if config.get(key)}
    return {
        key: [str(v) for v in value] if isinstance(value, list) else [str(value)]
        for key, value in stated.items()
    }


def _place(folder: Path, base: str, entry: str, images: Path | None) -> Path:
    """Return the folder or the list of photos that an entry of a split refers to.

    Raises:
        ShelfcountError: If it does not exist, or is outside of `folder` and `images`.
    """
    # Roboflow writes ../train/images for train/images, darknet writes data/train.txt for train.txt.
    candidates = [
        Path(base, entry),
        Path(entry.removeprefix("../")),
        Path(entry.removeprefix("data/")),
    ]
    roots = [Path(os.path.normpath(root)) for root in (folder, images) if root is not None]
    for root in roots:
        for place in (Path(os.path.normpath(root / candidate)) for candidate in candidates):
            if place.is_relative_to(root) and place.exists():
                return images if images is not None and place == folder else place
    raise ShelfcountError(
        f"'{entry}' (under path '{base}') does not exist inside '{folder}', or inside the folder "
        "given as `images`"
    )


def _photos(
    place: Path, folder: Path, images: Path | None, dropped: list[Dropped]
) -> dict[Path, Path]:
    """Return each photo with its path relative to `folder`, which determines its label file."""
    if place.is_dir():
        photos = sorted(
            p for p in place.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file()
        )
        return {
            photo: photo.relative_to(folder if photo.is_relative_to(folder) else place)
            for photo in photos
        }
    listed = {}
    for row, line in enumerate(read_text(place).splitlines(), 1):
        name = line.strip().removeprefix("data/")
        try:
            if name:
                listed[find_photo(name, place.parent, images)] = Path(name)
        except LookupError as error:
            dropped.append(Dropped(f"{place.name}, row {row}", str(error)))
    return listed


def _claims(
    folder: Path, photos: Mapping[Path, Path], dropped: list[Dropped]
) -> dict[Path, list[Path]]:
    """Return each label file with the photos to which it may belong."""
    claims: dict[Path, list[Path]] = defaultdict(list)
    for photo, relative in photos.items():
        parts = list(relative.parts)
        if "images" in parts:
            # Ultralytics replaces the last `images` in the path by `labels`.
            parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        places = [folder.joinpath(*parts), photo, folder / relative, folder / "labels" / relative]
        if photo.parent.name == "images":
            places.append(photo.parent.parent / "labels" / photo.name)
        label = next(
            (file for file in (place.with_suffix(".txt") for place in places) if file.is_file()),
            None,
        )
        if label is None:
            dropped.append(
                Dropped(
                    str(relative),
                    f"the photo has no label file '{photo.stem}.txt'; add an empty file if it "
                    "shows no product",
                )
            )
        else:
            claims[label].append(photo)
    return claims


def _photos_with_boxes(
    folder: Path, claims: Mapping[Path, Sequence[Path]], dropped: list[Dropped]
) -> list[ParsedPhoto]:
    """Return the photos with the boxes of their label files."""
    photos = []
    for label, owners in claims.items():
        where = os.path.relpath(label, folder)
        try:
            if len(owners) > 1:
                names = " and ".join(f"'{os.path.relpath(owner, folder)}'" for owner in owners)
                raise ShelfcountError(
                    f"the labels are ambiguous: {names} have the same name. They are left out."
                )
            text = read_text(label)
        except ShelfcountError as error:
            dropped.append(Dropped(where, str(error)))
            continue
        boxes = []
        for row, line in enumerate(text.splitlines(), 1):
            try:
                if line.strip():
                    boxes.append(_box(f"{where}, row {row}", line.split()))
            except ValueError as error:
                dropped.append(Dropped(f"{where}, row {row}", str(error)))
        photos.append(ParsedPhoto(where, owners[0], boxes, ratios=True))
    return photos


def _box(where: str, columns: Sequence[str]) -> ParsedBox:
    if len(columns) != 5 and (len(columns) < 7 or len(columns) % 2 == 0):
        raise ValueError(
            "the line must have 5 columns (class, x, y, width, height), or a class and at least 3 "
            f"points (x, y), got {plural(len(columns), 'column')}"
        )
    if not columns[0].isdecimal():
        raise ValueError(f"the first column must be a class number, got {shorten(columns[0])}")
    label = columns[0].lstrip("0") or "0"
    values = [float(column) for column in columns[1:]]
    if len(values) > 4:
        return ParsedBox(where, label, polygon_bounds(values[0::2], values[1::2]))
    x, y, width, height = values
    return ParsedBox(where, label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def _class_names(folder: Path, config: Mapping[str, Any]) -> dict[str, str] | None:
    """Return class number to name, from `data.yaml` or the nearest file with class names.

    Returns:
        Class names, or None if there is no such file.

    Raises:
        ShelfcountError: If a class has no valid name.
    """
    names: Any = config.get("names")
    source = folder / YAML_NAMES[0]
    # The class names of a split's folder may be in a folder above it.
    for place in (folder, folder / "labels", folder.parent, folder.parent.parent):
        for name in (*CLASS_FILES, "notes.json", *YAML_NAMES):
            if names is not None or not (place / name).is_file():
                continue
            source = place / name
            if name in CLASS_FILES:
                names = [line.strip() for line in read_text(source).rstrip().splitlines()]
            elif name in YAML_NAMES:
                names = _read_yaml(source).get("names")
            else:
                names = _notes(read_json(source))
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is not None and not (
        isinstance(names, dict)
        and all(type(value) in (str, int) and value != "" for value in names.values())
    ):
        raise ShelfcountError(
            f"'{source}' must contain a name for every class number, got {shorten(names)}"
        )
    return None if names is None else {str(number): str(name) for number, name in names.items()}


def _notes(notes: Any) -> Any:
    """Return class id to name from Label Studio's `notes.json`.

    Other content is returned unchanged, for the caller to refuse.
    """
    try:
        return {entry["id"]: entry["name"] for entry in notes["categories"]}
    except (KeyError, TypeError):
        return notes
