"""Corrections to the labels of a data set, as a list that says what was changed and why.

The labels themselves stay as they were published, so that every figure can be given on both truths. Each
correction rests on what a person saw on the photo, in words. It names the labelled box it changes; a file
is applied to exactly the labels it was made for, or not at all.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.data.formats import fingerprint
from shelfcount.data.labels import read_json, short
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError
from shelfcount.vision.boxes import iou
from shelfcount.vision.images import MOST_PIXELS, write_whole

# A box in the file is the labelled one up to rounding: products in a row overlap by far less.
SAME_BOX_IOU = 0.9
# What an entry of each action holds beside photo, action, box and reason; "class" of an ignored area is optional.
FIELDS: dict[str, tuple[str, ...]] = {
    "add": ("class",),
    "move": ("class", "to_box"),
    "rename": ("class", "to_class"),
    "remove": ("class",),
    "ignore": (),
}

# What may be decided on an entry. One without a word on it was written by a person and holds.
DECISIONS = ("accepted", "refused", "undecided")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Correction:
    """One change of the labels on one photo.

    Attributes:
        photo: File name of the photo, without its folder.
        action: A key of `FIELDS`. ``add`` labels a product, ``move`` and ``rename`` give a labelled one another
            box or class, ``remove`` takes a label away. ``ignore`` marks an area where a person can't tell:
            products found in it count neither way, whatever their class.
        box: (left, top, width, height) in pixels of the upright photo; of the labelled box, except for ``add``
            and for ``ignore`` without a class.
        reason: What is seen on the photo.
        class_: Of the product at `box`. An ``ignore`` that has one takes the place of that label.
        to_class, to_box: What ``rename`` and ``move`` put in place of the labelled.
        decision: One of `DECISIONS`; only what is accepted is applied.
    """

    photo: str
    action: str
    box: Box
    reason: str
    class_: str | None = None
    to_class: str | None = None
    to_box: Box | None = None
    decision: str = "accepted"

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        stated = {
            "photo": self.photo,
            "action": self.action,
            "box": list(self.box),
            "class": self.class_,
            "to_class": self.to_class,
            "to_box": self.to_box and list(self.to_box),
            "reason": self.reason,
            "decision": None if self.decision == "accepted" else self.decision,
        }
        return {key: value for key, value in stated.items() if value is not None}

    def __str__(self) -> str:
        return f"{self.action} '{self.class_ or 'area'}' at {list(self.box)} on '{self.photo}'"


@dataclass(frozen=True)
class Corrections:
    """All corrections of one data set.

    Attributes:
        data: File name of the labels.
        fingerprint: Of the labels as they were, from `formats.fingerprint`.
        corrections: In the order they were made; it does not matter.
        reviewed: File names of the photos that were looked at, those without a fault included.
    """

    data: str
    fingerprint: str
    corrections: tuple[Correction, ...] = ()
    reviewed: tuple[str, ...] = ()

    def decided(self, decision: str) -> tuple[Correction, ...]:
        """Those of one of `DECISIONS`."""
        return tuple(c for c in self.corrections if c.decision == decision)


def read_corrections(path: Path | str) -> Corrections:
    """Read what `write_corrections` wrote, or a person.

    Raises:
        ShelfcountError: If the file is missing or an entry has another form than `Correction` describes.
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
            raise ShelfcountError(
                f"'{path}': {key} must be a {kind.__name__}, got {short(data[key])}"
            )
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
    """Write a file that `read_corrections` turns into the same again, a correction a line."""
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
            f"{where}: it must be an object whose action is one of {', '.join(FIELDS)}, got {short(entry)}"
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
        raise ShelfcountError(f"{where} must be one of {', '.join(DECISIONS)}, got {short(value)}")
    return str(value)


def _require_keys(entry: Any, needed: Sequence[str], optional: Sequence[str], where: str) -> None:
    keys = set(entry) if isinstance(entry, Mapping) else set()
    if missing := [key for key in needed if key not in keys]:
        raise ShelfcountError(
            f"{where}: it must be an object with {', '.join(needed)}; {', '.join(missing)} is missing"
        )
    if unknown := sorted(keys - set(needed) - set(optional)):
        raise ShelfcountError(
            f"{where}: it must have no keys but {', '.join([*needed, *optional])}, got {short(unknown)}"
        )


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ShelfcountError(f"{where} must be a text, got {short(value)}")
    return value


def _box(value: Any, where: str) -> Box:
    numbers = (
        value if isinstance(value, list) and all(type(v) in (int, float) for v in value) else []
    )
    # No side of a photo is longer than its pixels are many; NaN and what float can't hold fail it too.
    if (
        len(numbers) != 4
        or not all(abs(v) <= MOST_PIXELS for v in numbers)
        or min(numbers[2:]) <= 0
    ):
        raise ShelfcountError(
            f"{where} must be left, top, width and height in pixels, the sides above 0, got {short(value)}"
        )
    left, top, width, height = map(float, numbers)
    return left, top, width, height


def apply(dataset: Dataset, corrections: Corrections) -> Dataset:
    """The data with its labels corrected by what was accepted.

    Every correction refers to the labels as they were, so their order does not matter and a label is changed
    at most once. What is left as it was keeps its place among the boxes of a photo; the new follow.

    Args:
        dataset: The labels the corrections were made for.
        corrections: From `read_corrections`.

    Raises:
        ShelfcountError: If the labels are others, or a correction names a photo, class or box that is not
            there, adds a product that is labelled, or changes a label that another one changes.
    """
    got = fingerprint(dataset)
    if got != corrections.fingerprint:
        raise ShelfcountError(
            f"the corrections of '{corrections.data}' are for labels of fingerprint {corrections.fingerprint}, "
            f"{dataset.name or 'the data'} has {got}. Give the labels they were made for, or check them anew."
        )
    by_photo: dict[str, list[Correction]] = {photo.path.name: [] for photo in dataset.photos}
    if len(by_photo) != len(dataset):
        raise ShelfcountError(
            f"photos must differ in file name to be corrected; {len(dataset) - len(by_photo)} of {dataset.name} do not"
        )
    for correction in corrections.decided("accepted"):
        if correction.photo not in by_photo:
            raise ShelfcountError(f"{correction}: {dataset.name or 'the data'} has no such photo")
        by_photo[correction.photo].append(correction)
    photos = tuple(
        _corrected(photo, by_photo[photo.path.name], dataset.classes) for photo in dataset.photos
    )
    return dataclasses.replace(dataset, photos=photos, name=f"{dataset.name}, corrected")


def apply_all(dataset: Dataset, given: Sequence[Corrections]) -> Dataset:
    """The data corrected by several files, whatever their order.

    Those made for the same labels are joined, what they agree on counting once, as when several people send
    what they saw; those made for the labels that come out of it follow.

    Raises:
        ShelfcountError: As `apply` does, also where a file fits neither.
    """
    left = list(given)
    while left:
        now = fingerprint(dataset)
        fitting = [corrections for corrections in left if corrections.fingerprint == now]
        left = [corrections for corrections in left if corrections.fingerprint != now]
        dataset = apply(dataset, _joined(fitting or left[:1]))
    return dataset


def _joined(given: Sequence[Corrections]) -> Corrections:
    # Two people hardly say the same thing in the same words.
    different = {
        dataclasses.replace(c, reason=""): c
        for corrections in given
        for c in corrections.corrections
    }
    reviewed = dict.fromkeys(name for corrections in given for name in corrections.reviewed)
    return Corrections(
        given[0].data, given[0].fingerprint, tuple(different.values()), tuple(reviewed)
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
            f"{correction}: '{name}' is none of the {len(classes)} classes of the data"
        )
    return classes.index(name)


def _find(correction: Correction, class_: int, truth: Detections, taken: np.ndarray) -> int:
    """The index of the label that a correction changes; of two alike, the first that is left."""
    overlap = iou(_corners(correction.box), truth.boxes)[0]
    same = (truth.classes == class_) & (overlap >= SAME_BOX_IOU)
    if not same.any():
        nearest = overlap[truth.classes == class_].max(initial=0.0)
        raise ShelfcountError(
            f"{correction}: no such label; it must overlap one of its class by IoU {SAME_BOX_IOU} or more, the nearest by {nearest:.2f}"
        )
    if taken[same].all():
        raise ShelfcountError(
            f"{correction}: another correction has changed this label already; make one of the two"
        )
    return int(np.argmax(np.where(same & ~taken, overlap, -1.0)))


def _replacement(correction: Correction, photo: Photo, classes: tuple[str, ...]) -> Detections:
    """What stands in the labels after the correction."""
    corners = _corners(correction.to_box or correction.box)
    if (corners < 0).any() or (corners > [photo.width, photo.height] * 2).any():
        raise ShelfcountError(
            f"{correction}: the new box must lie inside the photo of {photo.width} x {photo.height}"
        )
    if correction.action == "ignore":
        # Truth that is ignored forgives detections of its own class only, and this is to forgive any.
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
            f"{correction}: one label must stand there, got {same}; rename or move the one that is labelled already"
        )


def _corners(box: Box) -> np.ndarray:
    """(1, 4) xyxy."""
    left, top, width, height = box
    return np.array([[left, top, left + width, top + height]])
