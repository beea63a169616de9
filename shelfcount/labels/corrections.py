"""Corrections to the labels of a data set, as a list of changes with reasons.

The published labels remain unchanged, so that every metric can be given for the original and for
the corrected ground truth. Each correction states the labelled box that it changes and, in words,
what a person saw on the photo. A file is applied only to exactly the labels for which it was made.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.data.datasets import fingerprint
from shelfcount.files import read_json, shorten, write_whole
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError
from shelfcount.vision.boxes import iou
from shelfcount.vision.images import MAX_PHOTO_PIXELS
from shelfcount.words import plural

# Minimum IoU between a box in the file and the labelled box that it refers to. It allows for
# rounding; products in a row overlap by far less.
SAME_BOX_IOU = 0.9
# Required keys of an entry per action, besides photo, action, box and reason. An ignored area may
# also have a "class".
FIELDS: dict[str, tuple[str, ...]] = {
    "add": ("class",),
    "move": ("class", "to_box"),
    "rename": ("class", "to_class"),
    "remove": ("class",),
    "ignore": (),
}

# Possible decisions on an entry. An entry without one was written by a person and is accepted.
DECISIONS = ("accepted", "refused", "undecided")

XYWH = tuple[float, float, float, float]


@dataclass(frozen=True)
class Correction:
    """One change of the labels on one photo.

    Attributes:
        photo: File name of the photo, without its folder.
        action: Key of `FIELDS`. ``add`` adds a label, ``move`` and ``rename`` change the box or the
            class of a label, ``remove`` deletes a label. ``ignore`` marks an area in which a person
            cannot recognize the products: detections in it count neither as true nor as false
            positives, whatever their class.
        box: (left, top, width, height) in pixels of the upright photo. It is the labelled box,
            except for ``add`` and for ``ignore`` without a class.
        reason: What the photo shows.
        class_: Class of the product at `box`. An ``ignore`` with a class replaces that label.
        to_class, to_box: New class for ``rename`` and new box for ``move``.
        decision: One of `DECISIONS`. Only accepted corrections are applied.
    """

    photo: str
    action: str
    box: XYWH
    reason: str
    class_: str | None = None
    to_class: str | None = None
    to_box: XYWH | None = None
    decision: str = "accepted"

    def to_json(self) -> dict[str, Any]:
        """Return the entry as it is written to the file."""
        entry = {
            "photo": self.photo,
            "action": self.action,
            "box": list(self.box),
            "class": self.class_,
            "to_class": self.to_class,
            "to_box": self.to_box and list(self.to_box),
            "reason": self.reason,
            "decision": None if self.decision == "accepted" else self.decision,
        }
        return {key: value for key, value in entry.items() if value is not None}

    def __str__(self) -> str:
        return f"{self.action} '{self.class_ or 'area'}' at {list(self.box)} on '{self.photo}'"


@dataclass(frozen=True)
class Corrections:
    """All corrections of one data set.

    Attributes:
        data: File name of the labels.
        fingerprint: Fingerprint of the uncorrected labels, from `datasets.fingerprint`.
        corrections: Corrections in any order.
        reviewed: File names of the photos that were reviewed, including those without an error.
    """

    data: str
    fingerprint: str
    corrections: tuple[Correction, ...] = ()
    reviewed: tuple[str, ...] = ()

    def decided(self, decision: str) -> tuple[Correction, ...]:
        """Return the corrections with the given decision, one of `DECISIONS`."""
        return tuple(c for c in self.corrections if c.decision == decision)


def read_corrections(path: Path | str) -> Corrections:
    """Read a corrections file, written by `write_corrections` or by a person.

    Args:
        path: Path of the JSON file.

    Returns:
        Corrections in the order of the file.

    Raises:
        ShelfcountError: If the file is missing, or an entry does not have the form that
            `Correction` describes.
    """
    path = Path(path)
    data = read_json(path)
    _require_keys(data, ("data", "fingerprint", "reviewed", "corrections"), (), f"'{path}'")
    for key, kind in (
        ("data", str),
        ("fingerprint", str),
        ("reviewed", list),
        ("corrections", list),
    ):
        if not isinstance(data[key], kind):
            form = "a list" if kind is list else "a text"
            raise ShelfcountError(f"'{path}': {key} must be {form}, got {shorten(data[key])}")
    corrections = tuple(
        _parsed(entry, f"'{path}', correction {i}")
        for i, entry in enumerate(data["corrections"], 1)
    )
    return Corrections(
        data["data"],
        data["fingerprint"],
        corrections,
        tuple(_text(n, f"'{path}': reviewed") for n in data["reviewed"]),
    )


def write_corrections(corrections: Corrections, path: Path | str) -> None:
    """Write a corrections file with one correction per line.

    `read_corrections` returns the same corrections from it.
    """
    head = {
        "data": corrections.data,
        "fingerprint": corrections.fingerprint,
        "reviewed": list(corrections.reviewed),
    }
    lines = [
        json.dumps(c.to_json(), ensure_ascii=False, allow_nan=False)
        for c in corrections.corrections
    ]
    top = json.dumps(head, ensure_ascii=False)[1:-1]
    write_whole(path, "{" + top + ', "corrections": [\n' + ",\n".join(lines) + "\n]}\n")


def _parsed(entry: Any, where: str) -> Correction:
    action = entry.get("action") if isinstance(entry, Mapping) else None
    if not isinstance(action, str) or action not in FIELDS:
        raise ShelfcountError(
            f"{where}: {shorten(entry)} has no valid action. The entry must be an object whose "
            f"action is one of {', '.join(FIELDS)}."
        )
    optional = ("decision", "class") if action == "ignore" else ("decision",)
    _require_keys(entry, ("photo", "action", "box", "reason", *FIELDS[action]), optional, where)
    return Correction(
        photo=_text(entry["photo"], f"{where}: photo"),
        action=action,
        box=_box(entry["box"], f"{where}: box"),
        reason=_text(entry["reason"], f"{where}: reason"),
        class_=_text(entry["class"], f"{where}: class") if "class" in entry else None,
        to_class=_text(entry["to_class"], f"{where}: to_class") if "to_class" in entry else None,
        to_box=_box(entry["to_box"], f"{where}: to_box") if "to_box" in entry else None,
        decision=_decision(entry.get("decision", "accepted"), f"{where}: decision"),
    )


def _decision(value: Any, where: str) -> str:
    if value not in DECISIONS:
        raise ShelfcountError(
            f"{where} must be one of {', '.join(DECISIONS)}, got {shorten(value)}"
        )
    return str(value)


def _require_keys(entry: Any, needed: Sequence[str], optional: Sequence[str], where: str) -> None:
    keys = set(entry) if isinstance(entry, Mapping) else set()
    if missing := [key for key in needed if key not in keys]:
        key = "key" if len(missing) == 1 else "keys"
        raise ShelfcountError(
            f"{where}: missing {key} {', '.join(missing)}. It must be an object with the keys "
            f"{', '.join(needed)}."
        )
    if unknown := sorted(keys - set(needed) - set(optional)):
        key = "key" if len(unknown) == 1 else "keys"
        raise ShelfcountError(
            f"{where}: unknown {key} {', '.join(map(shorten, unknown))}. Allowed "
            f"keys: {', '.join([*needed, *optional])}."
        )


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ShelfcountError(f"{where} must be a text that is not empty, got {shorten(value)}")
    return value


def _box(value: Any, where: str) -> XYWH:
    numbers = (
        value if isinstance(value, list) and all(type(v) in (int, float) for v in value) else []
    )
    # No side of a photo is longer than its number of pixels. NaN and numbers beyond the range of
    # float are refused by this comparison too.
    if (
        len(numbers) != 4
        or not all(abs(v) <= MAX_PHOTO_PIXELS for v in numbers)
        or min(numbers[2:]) <= 0
    ):
        raise ShelfcountError(
            f"{where} must be [left, top, width, height] in pixels, with width and height above 0, "
            f"got {shorten(value)}"
        )
    left, top, width, height = map(float, numbers)
    return left, top, width, height


def correct_labels(dataset: Dataset, corrections: Corrections) -> Dataset:
    """Apply the accepted corrections to the labels of a data set.

    Every correction refers to the uncorrected labels, so their order does not matter and a label is
    changed at most once. Unchanged boxes of a photo keep their order; new boxes follow them.

    Args:
        dataset: Data set with the labels for which the corrections were made.
        corrections: Corrections from `read_corrections`.

    Returns:
        Data set with corrected labels.

    Raises:
        ShelfcountError: If the labels are not those for which the corrections were made, if a
            correction refers to a photo, class or box that does not exist, adds a product that is
            already labelled, or changes a label that another correction changes, or if two photos
            have the same file name.
    """
    actual = fingerprint(dataset)
    if actual != corrections.fingerprint:
        raise ShelfcountError(
            f"the corrections of '{corrections.data}' are for labels with the fingerprint "
            f"{corrections.fingerprint}, but {dataset.name or 'the data'} has {actual}. Give the "
            "labels for which the corrections were made, or review the corrections for these."
        )
    by_photo: dict[str, list[Correction]] = {photo.path.name: [] for photo in dataset.photos}
    if len(by_photo) != len(dataset):
        raise ShelfcountError(
            f"{dataset.name} has {plural(len(dataset) - len(by_photo), 'photo')} with the file "
            "name of another photo. Corrections refer to photos by file name, so the names must "
            "differ."
        )
    for correction in corrections.decided("accepted"):
        if correction.photo not in by_photo:
            raise ShelfcountError(
                f"{correction}: {dataset.name or 'the data'} has no photo of this name"
            )
        by_photo[correction.photo].append(correction)
    photos = tuple(
        _corrected(photo, by_photo[photo.path.name], dataset.classes) for photo in dataset.photos
    )
    return dataclasses.replace(dataset, photos=photos, name=f"{dataset.name}, corrected")


def apply_corrections(dataset: Dataset, files: Sequence[Corrections]) -> Dataset:
    """Apply several corrections files, in any order.

    Files made for the same labels, for example by several people, are merged; corrections that they
    have in common are applied once. Files made for the resulting labels are applied next.

    Args:
        dataset: Data set with uncorrected labels.
        files: Corrections from `read_corrections`.

    Returns:
        Data set with corrected labels.

    Raises:
        ShelfcountError: As for `correct_labels`. Also if a file was made neither for the labels
            nor for labels that result from other files.
    """
    remaining = list(files)
    while remaining:
        now = fingerprint(dataset)
        fitting = [corrections for corrections in remaining if corrections.fingerprint == now]
        remaining = [corrections for corrections in remaining if corrections.fingerprint != now]
        dataset = correct_labels(dataset, _joined(fitting or remaining[:1]))
    return dataset


def _joined(files: Sequence[Corrections]) -> Corrections:
    # Corrections that differ only in the wording of the reason are the same.
    different = {
        dataclasses.replace(c, reason=""): c
        for corrections in files
        for c in corrections.corrections
    }
    reviewed = dict.fromkeys(name for corrections in files for name in corrections.reviewed)
    return Corrections(
        files[0].data, files[0].fingerprint, tuple(different.values()), tuple(reviewed)
    )


def _corrected(photo: Photo, corrections: Sequence[Correction], classes: tuple[str, ...]) -> Photo:
    truth = photo.truth
    taken = np.zeros(len(truth), bool)
    new: list[Detections] = []
    for correction in corrections:
        labelled = (
            None
            if correction.class_ is None
            else _class_index(correction, correction.class_, classes)
        )
        if labelled is not None and correction.action != "add":
            taken[_find(correction, labelled, truth, taken)] = True
        if correction.action != "remove":
            new.append(_replacement(correction, photo, classes))
    corrected = Detections.concat([truth[~taken], *new])
    for correction in corrections:
        if correction.action == "add":
            _require_single(correction, corrected[~corrected.ignore])
    return dataclasses.replace(photo, truth=corrected)


def _class_index(correction: Correction, name: str, classes: tuple[str, ...]) -> int:
    if name not in classes:
        raise ShelfcountError(
            f"{correction}: the data has no class '{name}' among its "
            f"{plural(len(classes), 'class', 'classes')}"
        )
    return classes.index(name)


def _find(correction: Correction, class_: int, truth: Detections, used: NDArray[np.bool_]) -> int:
    """Return the index of the label that a correction changes.

    If several labels match, it is the one with the highest IoU that no other correction changes.
    """
    overlap = iou(_corners(correction.box), truth.boxes)[0]
    same = (truth.classes == class_) & (overlap >= SAME_BOX_IOU)
    if not same.any():
        nearest = overlap[truth.classes == class_].max(initial=0.0)
        raise ShelfcountError(
            f"{correction}: no label matches. A label must have this class and overlap the box "
            f"with an IoU of at least {SAME_BOX_IOU}; the nearest has {nearest:.2f}."
        )
    if used[same].all():
        raise ShelfcountError(
            f"{correction}: another correction already changes this label. Merge the two into one."
        )
    return int(np.argmax(np.where(same & ~used, overlap, -1.0)))


def _replacement(correction: Correction, photo: Photo, classes: tuple[str, ...]) -> Detections:
    """Return the labels that a correction adds."""
    corners = _corners(correction.to_box or correction.box)
    if (corners < 0).any() or (corners > [photo.width, photo.height] * 2).any():
        raise ShelfcountError(
            f"{correction}: the new box is not inside the photo of {photo.width} x {photo.height}"
        )
    if correction.action == "ignore":
        # An ignored box exempts only detections of its own class, so the area gets one per class.
        return Detections(
            corners.repeat(len(classes), axis=0),
            range(len(classes)),
            ignore=np.ones(len(classes), bool),
        )
    name = correction.to_class or correction.class_ or ""
    return Detections(corners, [_class_index(correction, name, classes)])


def _require_single(correction: Correction, truth: Detections) -> None:
    same = int((iou(_corners(correction.box), truth.boxes)[0] >= SAME_BOX_IOU).sum())
    if same > 1:
        raise ShelfcountError(
            f"{correction}: {same} labels would overlap here with an IoU of at least "
            f"{SAME_BOX_IOU}. Rename or move the existing label instead of adding one."
        )


def _corners(box: XYWH) -> NDArray[np.float64]:
    """Return a (left, top, width, height) box as (1, 4) float64 xyxy."""
    left, top, width, height = box
    return np.array([[left, top, left + width, top + height]])
