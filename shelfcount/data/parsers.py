"""Parsers of COCO, Pascal VOC and SKU-110K label files. YOLO has a module of its own.

A parser turns files of its format into `StatedLabels`. It does not decide whether a box can be
used; `labels.checked` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar
from xml.etree import ElementTree

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from shelfcount.data.labels import (
    Corners,
    StatedBox,
    StatedLabels,
    StatedPhoto,
    around,
    find_photo,
    read_json,
    read_rows,
    read_text,
    short,
)
from shelfcount.records import Dropped, ShelfcountError
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


def coco(path: Path, images: Path | None, split: str) -> StatedLabels:
    """Parse COCO detection JSON, as CVAT, Label Studio, Roboflow and `formats.write_coco` write it.

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
    _refuse_split(path, split)
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
    boxes: dict[Id, list[StatedBox]] = defaultdict(list)
    for where, annotation in annotations:
        if annotation.image_id not in by_id:
            dropped.append(Dropped(where, f"no image has the id {annotation.image_id!r}"))
            continue
        try:
            corners = _coco_corners(annotation)
        except ValueError as error:
            dropped.append(Dropped(where, str(error)))
            continue
        boxes[annotation.image_id].append(
            StatedBox(where, str(annotation.category_id), corners, bool(annotation.iscrowd))
        )
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
            StatedPhoto(where, photo, boxes[id_], size, image.group or image.store or image.bay)
        )
    return StatedLabels(photos, categories, dropped, *_coco_licence(data))


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
                Dropped(f"{where}[{i}]", f"{field}: {first['msg']}, got {short(first['input'])}")
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


def _coco_corners(annotation: _Annotation) -> Corners:
    if annotation.bbox:
        if len(annotation.bbox) != 4:
            raise ValueError(
                f"bbox must be [x, y, width, height], got {plural(len(annotation.bbox), 'number')}"
            )
        x, y, width, height = annotation.bbox
        return x, y, x + width, y + height
    try:
        polygons = POLYGONS.validate_python(annotation.segmentation, strict=True)
        return around(
            [x for polygon in polygons for x in polygon[0::2]],
            [y for polygon in polygons for y in polygon[1::2]],
        )
    except ValueError:
        content = (
            "RLE" if isinstance(annotation.segmentation, dict) else short(annotation.segmentation)
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


def _refuse_split(path: Path, split: str) -> None:
    if split:
        raise ShelfcountError(
            f"'{path}' has no splits, so '#{split}' cannot be selected. Give the path without it."
        )


class _NoDoctype(ElementTree.TreeBuilder):
    # A DOCTYPE can declare entities, with which a small file can fill the memory or include others.
    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise ValueError(f"the file has a DOCTYPE ({name}), which is not allowed in label files")


def voc(path: Path, images: Path | None, split: str) -> StatedLabels:
    """Parse Pascal VOC XML with one file per photo; ``difficult`` is read as `ignore`.

    Coordinates are read as edges counted from 0, as labelling tools write them. The original VOC
    data set counts pixels from 1.

    Args:
        path: One XML file, a folder of XML files, or a folder that contains `Annotations`.
        images: Folder of the photos, or None if they are next to the XML files, in `JPEGImages` or
            in `images`.
        split: Name of the list in `ImageSets/Main` of the photos to read, such as ``train``; empty
            to read all.

    Returns:
        Parsed labels.

    Raises:
        ShelfcountError: If there is no XML file, or the list of the split cannot be read.
    """
    folder = (
        path.parent
        if path.is_file()
        else path / "Annotations"
        if (path / "Annotations").is_dir()
        else path
    )
    dropped: list[Dropped] = []
    files = [path] if path.is_file() else sorted(folder.rglob("*.xml"))
    if split:
        listed = folder.parent / "ImageSets" / "Main" / f"{split}.txt"
        stems = {line.split()[0] for line in read_text(listed).splitlines() if line.strip()}
        by_stem = {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
        files = [file for stem, file in by_stem.items() if stem in stems]
        dropped += [
            Dropped(listed.name, f"'{stem}.xml' does not exist")
            for stem in sorted(stems - by_stem.keys())
        ]
    if not files:
        raise ShelfcountError(
            f"'{folder}' contains no Pascal VOC .xml files"
            + (f" of the split '{split}'" if split else "")
        )
    photos = []
    for file in files:
        try:
            root = ElementTree.fromstring(
                file.read_bytes(), ElementTree.XMLParser(target=_NoDoctype())
            )
            name = (root.findtext("filename") or file.stem).strip()
            photo = find_photo(name, folder, images)
            size = (
                int(float(root.findtext("size/width") or 0)),
                int(float(root.findtext("size/height") or 0)),
            )
        except (OSError, ElementTree.ParseError, ValueError, OverflowError, LookupError) as error:
            dropped.append(Dropped(file.name, f"{error}. The photo and its boxes are left out."))
            continue
        boxes = []
        for i, element in enumerate(root.iter("object")):
            try:
                boxes.append(_voc_box(f"{file.name}, object {i}", element))
            except ValueError as error:
                dropped.append(Dropped(f"{file.name}, object {i}", str(error)))
        photos.append(StatedPhoto(file.name, photo, boxes, size if all(size) else None))
    return StatedLabels(photos, None, dropped)


def _voc_box(where: str, element: ElementTree.Element) -> StatedBox:
    label = (element.findtext("name") or "").strip()
    if not label:
        raise ValueError("the object has no name")
    texts = [element.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(text or "") for text in texts)
    except ValueError:
        raise ValueError(
            f"bndbox must contain the numbers xmin, ymin, xmax and ymax, got {short(texts)}"
        ) from None
    return StatedBox(
        where,
        label,
        (left, top, right, bottom),
        (element.findtext("difficult") or "0").strip() == "1",
    )


def sku110k(path: Path, images: Path | None, split: str) -> StatedLabels:
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
    _refuse_split(path, split)
    dropped: list[Dropped] = []
    boxes: dict[str, list[StatedBox]] = defaultdict(list)
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
        boxes[name].append(StatedBox(where, label, (left, top, right, bottom)))
    photos = []
    for name, stated in boxes.items():
        where = stated[0].where
        try:
            photo = find_photo(name, path.parent, images)
            photos.append(StatedPhoto(where, photo, stated, sizes[name]))
        except LookupError as error:
            number = plural(len(stated), "box is", "boxes are")
            dropped.append(Dropped(where, f"{error}. Its {number} left out."))
    return StatedLabels(photos, None, dropped)
