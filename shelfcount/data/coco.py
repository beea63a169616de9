"""COCO labels: reading and writing."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from shelfcount.data.stated_labels import (
    XYXY,
    ParsedBox,
    ParsedLabels,
    ParsedPhoto,
    find_photo,
    polygon_bounds,
    refuse_split,
)
from shelfcount.files import read_json, shorten, write_whole
from shelfcount.records import Dataset, Dropped, ShelfcountError
from shelfcount.vision import boxes as box_math
from shelfcount.words import plural


class _Record(BaseModel):
    # Strict, since a "12" in place of a number is an error of the tool, which conversion would
    # hide.
    model_config = ConfigDict(strict=True, frozen=True)


Id = int | str
Text = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


class _Image(_Record):
    id: Id
    file_name: str = Field(min_length=1)
    width: float | None = Field(None, ge=0, allow_inf_nan=False)
    height: float | None = Field(None, ge=0, allow_inf_nan=False)
    group: Text = ""
    store: Text = ""
    bay: Text = ""


class _Category(_Record):
    id: Id
    name: Annotated[Text, Field(min_length=1)]
    supercategory: str | None = None


class _Annotation(_Record):
    image_id: Id
    category_id: Id
    bbox: list[float] | None = None
    segmentation: Any = None
    iscrowd: int | bool | None = None


POLYGONS = TypeAdapter(list[list[float]])
_R = TypeVar("_R", bound=_Record)


def parse_coco(path: Path, images: Path | None, split: str) -> ParsedLabels:
    """Parse COCO detection JSON, as CVAT, Label Studio, Roboflow and `write_coco` write it.

    If an annotation has no `bbox`, the bounding box of its polygon is used. In addition to the COCO
    keys, an image may have a `group`, `store` or `bay`; photos of one group remain in one split.

    Args:
        path: COCO `.json` file.
        images: Folder of the photos, or None to search for them next to the file.
        split: Must be empty, since the format has no splits.

    Returns:
        Parsed labels.

    Raises:
        ShelfcountError: If the file is not COCO JSON, a category id has two names, or a split
            is given.
    """
    refuse_split(path, split)
    data = read_json(path)
    if not isinstance(data, dict) or not all(
        isinstance(data.get(key), list) for key in ("images", "annotations", "categories")
    ):
        content = f"the keys {sorted(data)}" if isinstance(data, dict) else type(data).__name__
        raise ShelfcountError(
            f"'{path}' is not COCO detection JSON. It must be an object with the lists images, "
            f"annotations and categories, got {content}."
        )
    dropped: list[Dropped] = []
    annotations = _records(_Annotation, data["annotations"], f"{path.name}, annotations", dropped)
    categories = _used_categories(
        _records(_Category, data["categories"], f"{path.name}, categories", dropped),
        annotations,
        dropped,
    )
    by_id: dict[Id, list[tuple[str, _Image]]] = defaultdict(list)
    for where, image in _records(_Image, data["images"], f"{path.name}, images", dropped):
        by_id[image.id].append((where, image))
    boxes = _boxes_by_image(annotations, by_id, dropped)
    photos = []
    for id_, entries in by_id.items():
        where, image = entries[0]
        try:
            if len({entry.file_name for _, entry in entries}) > 1:
                names = ", ".join(entry.file_name for _, entry in entries)
                raise LookupError(f"several photos have the image id {id_!r}: {names}")
            photo = find_photo(image.file_name, path.parent, images)
        except LookupError as error:
            number = plural(len(boxes[id_]), "box is", "boxes are")
            dropped.append(Dropped(where, f"{error}. Its {number} left out."))
            continue
        dropped += [
            Dropped(
                again,
                f"'{image.file_name}' is listed twice with the id {id_!r}; the second entry "
                "is left out",
            )
            for again, _ in entries[1:]
        ]
        size = (int(image.width), int(image.height)) if image.width and image.height else None
        photos.append(
            ParsedPhoto(where, photo, boxes[id_], size, image.group or image.store or image.bay)
        )
    return ParsedLabels(photos, categories, dropped, *_coco_licence(data))


def _boxes_by_image(
    annotations: Sequence[tuple[str, _Annotation]], known: Container[Id], dropped: list[Dropped]
) -> defaultdict[Id, list[ParsedBox]]:
    """Return the boxes of each image in `known`; append annotations without a box to `dropped`."""
    boxes: defaultdict[Id, list[ParsedBox]] = defaultdict(list)
    for where, annotation in annotations:
        if annotation.image_id not in known:
            dropped.append(Dropped(where, f"no image has the id {annotation.image_id!r}"))
            continue
        try:
            corners = _coco_corners(annotation)
        except ValueError as error:
            dropped.append(Dropped(where, str(error)))
            continue
        boxes[annotation.image_id].append(
            ParsedBox(where, str(annotation.category_id), corners, bool(annotation.iscrowd))
        )
    return boxes


def _records(
    model: type[_R], entries: Sequence[Any], where: str, dropped: list[Dropped]
) -> list[tuple[str, _R]]:
    """Return (file and index, record) of entries that match `model`; append others to `dropped`."""
    records = []
    for i, entry in enumerate(entries):
        try:
            records.append((f"{where}[{i}]", model.model_validate(entry)))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "entry"
            dropped.append(
                Dropped(f"{where}[{i}]", f"{field}: {first['msg']}, got {shorten(first['input'])}")
            )
    return records


def _used_categories(
    categories: Sequence[tuple[str, _Category]],
    annotations: Sequence[tuple[str, _Annotation]],
    dropped: list[Dropped],
) -> dict[str, str]:
    """Return category id to class name, without Roboflow's parent category.

    Raises:
        ShelfcountError: If one id has two names.
    """
    used = {annotation.category_id for _, annotation in annotations}
    parents = {category.supercategory for _, category in categories}
    names: dict[str, str] = {}
    for where, category in categories:
        # Roboflow adds the name of the project as the parent category of all others, without boxes.
        if (
            category.supercategory == "none"
            and category.name in parents
            and category.id not in used
        ):
            dropped.append(
                Dropped(
                    where,
                    f"category '{category.name}' is the parent of other categories and has no "
                    "boxes, so it is not a class",
                )
            )
        elif names.get(str(category.id), category.name) != category.name:
            both = f"'{names[str(category.id)]}' and '{category.name}'"
            raise ShelfcountError(
                f"{where}: category id {category.id!r} has two names, {both}. Give each category "
                "an id of its own."
            )
        else:
            if category.name in names.values():
                dropped.append(
                    Dropped(
                        where,
                        f"category '{category.name}' has two ids; their boxes are read as one "
                        "class",
                    )
                )
            names[str(category.id)] = category.name
    return names


def _coco_corners(annotation: _Annotation) -> XYXY:
    if annotation.bbox:
        if len(annotation.bbox) != 4:
            raise ValueError(
                f"bbox must be [x, y, width, height], got {plural(len(annotation.bbox), 'number')}"
            )
        x, y, width, height = annotation.bbox
        return x, y, x + width, y + height
    try:
        polygons = POLYGONS.validate_python(annotation.segmentation, strict=True)
        return polygon_bounds(
            [x for polygon in polygons for x in polygon[0::2]],
            [y for polygon in polygons for y in polygon[1::2]],
        )
    except ValueError:
        content = (
            "RLE" if isinstance(annotation.segmentation, dict) else shorten(annotation.segmentation)
        )
        raise ValueError(
            f"the annotation has neither a bbox nor a polygon; its segmentation is {content}"
        ) from None


def _coco_licence(data: Mapping[str, Any]) -> tuple[str, str]:
    """Return the licence and the attribution that COCO JSON states, or empty texts."""
    info = data["info"] if isinstance(data.get("info"), dict) else {}
    licences = data["licenses"] if isinstance(data.get("licenses"), list) else []
    names = [
        str(entry.get("name") or entry.get("url") or "")
        for entry in licences
        if isinstance(entry, dict)
    ]
    attribution = next(
        (info[key] for key in ("attribution", "source", "contributor", "url") if info.get(key)), ""
    )
    return "; ".join(name for name in names if name) or str(info.get("license") or ""), str(
        attribution
    )


def write_coco(dataset: Dataset, path: Path | str) -> None:
    """Write COCO detection JSON from which `read_labels` returns the same labelled photos.

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
