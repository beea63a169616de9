"""Label files as the tools write them, into `StatedLabels`: COCO, Pascal VOC, SKU-110K (YOLO has its own file).

A parser knows the form of its files and nothing of what makes a box usable; `labels.checked` does.
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


class _Record(BaseModel):
    # Strict: a "12" where a number belongs is a mistake of the tool, and guessing hides it.
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
    """COCO detection JSON, as CVAT, Label Studio, Roboflow and `formats.write_coco` write it.

    A box that is missing is taken from the polygon. Beyond COCO, an image may have a `group`, `store`
    or `bay`: photos of one group stay in one split.

    Raises:
        ShelfcountError: If the file is not JSON, lacks one of the three lists, or a split is asked for.
    """
    _refuse_split(path, split)
    data = read_json(path)
    if not isinstance(data, dict) or not all(
        isinstance(data.get(key), list) for key in ("images", "annotations", "categories")
    ):
        got = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ShelfcountError(
            f"'{path}' must be COCO: an object with the lists images, annotations and categories, got {got}"
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
            dropped.append(
                Dropped(where, f"image_id must be the id of an image, got {annotation.image_id!r}")
            )
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
                raise LookupError(
                    f"image id {id_!r} must belong to one photo, got {', '.join(entry.file_name for _, entry in entries)}"
                )
            photo = find_photo(image.file_name, path.parent, images)
        except LookupError as error:
            dropped.append(Dropped(where, f"{error}. Its {len(boxes[id_])} boxes are left out."))
            continue
        dropped += [
            Dropped(again, f"'{image.file_name}' is listed twice under id {id_!r}; once was read")
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
    """The entries that have the form of `model`, each with where it stands; the others go to `dropped`."""
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
    used = {annotation.category_id for _, annotation in annotations}
    parents = {category.supercategory for _, category in categories}
    names: dict[str, str] = {}
    for where, category in categories:
        # Roboflow puts the project's name first, as a class above all others and without boxes.
        if (
            category.supercategory == "none"
            and category.name in parents
            and category.id not in used
        ):
            dropped.append(
                Dropped(
                    where,
                    f"'{category.name}' has no boxes and stands above the other categories; it is no class",
                )
            )
        elif names.get(str(category.id), category.name) != category.name:
            both = f"'{names[str(category.id)]}' and '{category.name}'"
            raise ShelfcountError(
                f"{where}: category id {category.id!r} must have one name, got {both}"
            )
        else:
            if category.name in names.values():
                dropped.append(
                    Dropped(
                        where,
                        f"'{category.name}' is there under another id already; the boxes of both count as one class",
                    )
                )
            names[str(category.id)] = category.name
    return names


def _coco_corners(annotation: _Annotation) -> Corners:
    if annotation.bbox:
        if len(annotation.bbox) != 4:
            raise ValueError(
                f"bbox must be x, y, width, height, got {len(annotation.bbox)} numbers"
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
        got = "RLE" if isinstance(annotation.segmentation, dict) else short(annotation.segmentation)
        raise ValueError(
            f"an annotation needs a bbox, or a polygon to take it from, got segmentation {got}"
        ) from None


def _coco_licence(data: Mapping[str, Any]) -> tuple[str, str]:
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
        raise ShelfcountError(f"'{path}' holds one split, so '#{split}' cannot be chosen from it")


class _NoDoctype(ElementTree.TreeBuilder):
    # Entities, the way to make a small file fill the memory or read another, are declared there.
    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise ValueError(f"a DOCTYPE ({name}) is not read; label files have none")


def voc(path: Path, images: Path | None, split: str) -> StatedLabels:
    """Pascal VOC XML, one file for each photo; pixels as stated, ``difficult`` as `ignore`.

    VOC counted pixels from 1; the labelling tools write edges from 0, and so they are read.

    Args:
        path: One XML file, a folder of them, or a folder that holds `Annotations`.
        images: Where the photos are, if not beside the XML, in `JPEGImages` or in `images`.
        split: File in `ImageSets/Main` that lists the photos to read, such as ``train``; empty for all.

    Raises:
        ShelfcountError: If there is no XML file, or no such list.
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
            Dropped(listed.name, f"there is no '{stem}.xml'")
            for stem in sorted(stems - by_stem.keys())
        ]
    if not files:
        raise ShelfcountError(
            f"there must be Pascal VOC .xml files in '{folder}', found none"
            + (f" of split '{split}'" if split else "")
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
        raise ValueError("an object must have a name, got none")
    texts = [element.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(text or "") for text in texts)
    except ValueError:
        raise ValueError(
            f"bndbox must have the numbers xmin, ymin, xmax, ymax, got {short(texts)}"
        ) from None
    return StatedBox(
        where,
        label,
        (left, top, right, bottom),
        (element.findtext("difficult") or "0").strip() == "1",
    )


def sku110k(path: Path, images: Path | None, split: str) -> StatedLabels:
    """SKU-110K's CSV: image_name, x1, y1, x2, y2, class, image_width, image_height; no header needed.

    Raises:
        ShelfcountError: If the file can't be read as text, or a split is asked for.
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
                raise ValueError(f"a row must have 8 columns, got {len(columns)}")
            left, top, right, bottom, width, height = (
                float(columns[i]) for i in (1, 2, 3, 4, 6, 7)
            )
            name, label, size = columns[0].strip(), columns[5].strip(), (int(width), int(height))
            if not label or sizes.setdefault(name, size) != size:
                raise ValueError(
                    f"a row must have a class and the size its photo has above, got class {label!r} and size {size}"
                )
        except (ValueError, OverflowError) as error:
            dropped.append(Dropped(where, str(error)))
            continue
        boxes[name].append(StatedBox(where, label, (left, top, right, bottom)))
    photos = []
    for name, own in boxes.items():
        try:
            photos.append(
                StatedPhoto(own[0].where, find_photo(name, path.parent, images), own, sizes[name])
            )
        except LookupError as error:
            dropped.append(Dropped(own[0].where, f"{error}. Its {len(own)} boxes are left out."))
    return StatedLabels(photos, None, dropped)
