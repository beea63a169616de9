"""Operations on data sets: fingerprints, shared class lists, pooling and subsets."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shelfcount.files import sha256_json, sha256_of
from shelfcount.records import Dataset, Photo, ShelfcountError
from shelfcount.vision.images import photo_bytes
from shelfcount.words import plural


def describe_dropped(dataset: Dataset, max_listed: int = 20) -> list[str]:
    """Return lines that summarize a data set and its dropped or corrected entries.

    Args:
        dataset: Data set from `read_labels`.
        max_listed: Maximum number of entries to list. The others are counted.

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
    listed = [f"  {entry}" for entry in dataset.dropped[:max_listed]]
    unlisted = [f"  and {dropped - max_listed:,} more"] if dropped > max_listed else []
    return [f"{head}; left out or corrected: {dropped:,}", *listed, *unlisted]


def align_classes(train: Dataset, val: Dataset) -> tuple[Dataset, Dataset]:
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
    return sha256_json([sorted(dataset.classes), photos])


def _photo_digest(photo: Photo, classes: tuple[str, ...]) -> str:
    truth = photo.truth
    labels = zip(truth.classes.tolist(), truth.boxes.tolist(), truth.ignore.tolist(), strict=True)
    rows = sorted([classes[class_], box, ignore] for class_, box, ignore in labels)
    return sha256_json([sha256_of(photo_bytes(photo.path)), rows])


def require_reachable_photos(dataset: Dataset, path: Path) -> None:
    """Check that photos can be found again from a new label file.

    Args:
        dataset: Data set that `formats.write_coco` will write.
        path: Path of the label file.

    Raises:
        ShelfcountError: If a photo is neither in or below the file's folder, nor in a folder
            `images` next to that folder.
    """
    folder = Path(os.path.abspath(path)).parent
    roots = (folder, folder.parent / "images")
    for photo in dataset.photos:
        place = Path(os.path.abspath(photo.path))
        if not any(place.is_relative_to(root) for root in roots):
            raise ShelfcountError(
                f"photo '{place.name}' in '{place.parent}' cannot be found from new labels in "
                f"'{folder}'. Write the labels to the folder of the photos or the folder above it."
            )


def pool_datasets(parts: Sequence[Dataset]) -> Dataset:
    """Combine several data sets.

    Args:
        parts: The data sets, at least one.

    Returns:
        One data set with all photos. A photo that is in several of them is taken from the first.

    Raises:
        ShelfcountError: If `parts` is empty.
    """
    if not parts:
        raise ShelfcountError("a study needs at least one data set with labelled photos, got none")
    pooled = parts[0]
    for part in parts[1:]:
        pooled, part = align_classes(pooled, part)
        known = {photo.path.resolve() for photo in pooled.photos}
        pooled = dataclasses.replace(
            pooled,
            photos=pooled.photos + tuple(p for p in part.photos if p.path.resolve() not in known),
        )
    return dataclasses.replace(pooled, name=" + ".join(Path(part.name).name for part in parts))


def evenly_spaced(dataset: Dataset, photos: int) -> Dataset:
    """Select photos that are evenly spaced over a data set.

    Args:
        dataset: The data set.
        photos: Number of photos to select.

    Returns:
        The selected photos, or all if the data set does not have more.
    """
    positions = np.linspace(0, len(dataset) - 1, min(photos, len(dataset)))
    return dataset.subset(positions.round().astype(int).tolist())
