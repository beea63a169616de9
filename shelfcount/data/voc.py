"""Pascal VOC labels: reading of one XML file for each photo."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from shelfcount.data.stated_labels import ParsedBox, ParsedLabels, ParsedPhoto, find_photo
from shelfcount.files import read_text, shorten
from shelfcount.records import Dropped, ShelfcountError


class _NoDoctype(ElementTree.TreeBuilder):
    # A DOCTYPE can declare entities, with which a small file can fill the memory or include others.
    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise ValueError(f"the file has a DOCTYPE ({name}), which is not allowed in label files")


def parse_voc(path: Path, images: Path | None, split: str) -> ParsedLabels:
    """Parse Pascal VOC XML with one file per photo; ``difficult`` is read as `ignore`.

    Coordinates are read as edges counted from 0, as labelling tools write them. The original VOC
    data set counts pixels from 1.

    Args:
        path: One XML file, a folder of XML files, or a folder that contains ``Annotations``.
        images: Folder of the photos, or None if they are next to the XML files, in ``JPEGImages``
            or in `images`.
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
        photos.append(ParsedPhoto(file.name, photo, boxes, size if all(size) else None))
    return ParsedLabels(photos, None, dropped)


def _voc_box(where: str, element: ElementTree.Element) -> ParsedBox:
    label = (element.findtext("name") or "").strip()
    if not label:
        raise ValueError("the object has no name")
    texts = [element.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(text or "") for text in texts)
    except ValueError:
        raise ValueError(
            f"bndbox must contain the numbers xmin, ymin, xmax and ymax, got {shorten(texts)}"
        ) from None
    return ParsedBox(
        where,
        label,
        (left, top, right, bottom),
        (element.findtext("difficult") or "0").strip() == "1",
    )
