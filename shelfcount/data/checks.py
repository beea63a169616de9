"""Whether labelled photos are fit to train on: every check there is, in one report."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shelfcount.config import ModelConfig
from shelfcount.data import appearance, box_checks, photo_checks
from shelfcount.data.class_checks import check_classes
from shelfcount.data.findings import Finding, Report, Severity, corners
from shelfcount.data.photo_checks import Look
from shelfcount.data.splits import near_duplicate_groups
from shelfcount.records import Dataset, Detections, Dropped, Photo, ShelfcountError
from shelfcount.vision import anchors
from shelfcount.vision import boxes as box_math


class _Reading(NamedTuple):
    """What is made of an entry that reading left out or corrected."""

    words: str
    kind: str
    severity: Severity
    fix: str


# What `data.labels` and the parsers say, told by their words; the first that fits is taken.
READING = (
    _Reading(
        "before the EXIF rotation",
        "orientation",
        "note",
        "Nothing: it was put right. Look at one of the photos to be sure.",
    ),
    _Reading(
        "photo .* is missing",
        "missing-photo",
        "error",
        "Put it where the labels name it, or remove it from the labels.",
    ),
    _Reading(
        "must be listed once|is listed twice",
        "unusable-label",
        "warning",
        "Remove the second entry, or join the two.",
    ),
    _Reading(
        "photo .* (is cut short|cannot be read|must be of the stated size|has .* pixels)",
        "broken-photo",
        "error",
        "Copy the photo again from where it came, or remove it from the labels.",
    ),
    _Reading(
        "outside the photo",
        "box-outside",
        "warning",
        "Draw it again; many of these mean labels of another size or another photo.",
    ),
    _Reading(
        "wider and higher than 0|less than a pixel",
        "box-without-size",
        "warning",
        "Remove the box, or draw it again.",
    ),
    _Reading("reaches over the border", "box-cut", "note", "Nothing: it was cut there."),
    _Reading(
        "", "unusable-label", "warning", "Put it right in the labelling tool and export again."
    ),
)
# Boxes an anchor must match, as shares. With the default of one anchor at a place the drinks training photos reach 0.90
# and are learnt well; with fewer than three of four, whole classes go without.
ENOUGH_ANCHORS = 0.9
LEAST_ANCHORS = 0.75
# Two photos have the same labels if each box has a partner of its class with at least this IoU.
SAME_LABEL_IOU = 0.8


def check(
    dataset: Dataset,
    against: Dataset | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Look at all photos and labels.

    Args:
        dataset: From `formats.read`: what it dropped is part of the report.
        against: Data that must share no photo with it, such as the test photos.
        progress: Called with (photos done, photos in all).

    Returns:
        Findings, worst first. `Report.passed` says whether training may go on.

    Raises:
        ShelfcountError: If a photo of `against` cannot be read.
    """
    found = [_from_reading(entry, dataset) for entry in dataset.dropped]
    looks: list[Look] = []
    for done, photo in enumerate(dataset.photos, 1):
        try:
            looks.append(photo_checks.look_at(photo))
        except ShelfcountError as error:
            found.append(
                Finding(
                    "error",
                    "broken-photo",
                    f"{error}",
                    "Copy it again, or remove it from the labels.",
                    photo.path,
                )
            )
        if progress:
            progress(done, len(dataset))
    for look in looks:
        found += photo_checks.quality(look)
        found += _on_boxes(look, dataset.classes)
    found += photo_checks.unlike_the_rest(looks)
    found += appearance.turned([look.photo for look in looks], [look.sample for look in looks])
    found += _duplicates(looks, against or Dataset((), ()))
    found += check_classes(dataset)
    found += _anchor_recall(dataset)
    return Report(dataset, tuple(found), against.name if against else "")


def _from_reading(entry: Dropped, dataset: Dataset) -> Finding:
    reading = next(r for r in READING if re.search(r.words, entry.reason))
    named = re.match(r"photo (['\"])(.+?)\1 ", entry.reason)
    folder = Path(dataset.name) if Path(dataset.name).is_dir() else Path(dataset.name).parent
    return Finding(
        reading.severity,
        reading.kind,
        str(entry),
        reading.fix,
        folder / named[2] if named else None,
    )


def _on_boxes(look: Look, classes: tuple[str, ...]) -> list[Finding]:
    """Doubled, oversized and probably missing boxes of one photo."""
    photo = look.photo
    truth = photo.truth[~photo.truth.ignore]
    names = [classes[i] for i in truth.classes]
    found = []

    def add(kind: str, box: np.ndarray, degree: float, message: str, fix: str) -> None:
        found.append(
            Finding(
                "warning",
                kind,
                f"{photo.path.name}: {message}",
                fix,
                photo.path,
                corners(box),
                degree=degree,
            )
        )

    for i, j, overlap in box_checks.doubled(truth.boxes):
        if names[i] == names[j]:
            message, fix = (
                f"two boxes of '{names[i]}' overlap by an IoU of {overlap:.2f}",
                "Remove one of the two.",
            )
        else:
            message, fix = (
                f"boxes of '{names[i]}' and '{names[j]}' overlap by an IoU of {overlap:.2f}",
                "Keep the one of the right class.",
            )
        add("doubled-box", truth.boxes[j], overlap / box_checks.DOUBLED_IOU, message, fix)
    for i, times in box_checks.oversized(truth.boxes, truth.classes):
        message = f"the box of '{names[i]}' is {times:.1f} times as large on a side as those around it and reaches over a neighbour"
        add(
            "oversized-box",
            truth.boxes[i],
            times / box_checks.OVERSIZED,
            message,
            "Draw it tightly around one product.",
        )
    for box, beside, distance in look.missing:
        message = f"a gap in a row that looks like the '{names[beside]}' beside it"
        fix = "Label the product, or mark it `ignore` (iscrowd) if a person cannot tell it."
        add("missing-box", box, 1 / max(distance, 0.01), message, fix)
    return found


def _duplicates(looks: Sequence[Look], against: Dataset) -> list[Finding]:
    """The same file twice, the same picture twice, and pictures of `against` among these."""
    photos = [*(look.photo for look in looks), *against.photos]
    if not photos:
        return []
    # By their pixels alone: equal names of groups in two data sets need not mean one store.
    bare = tuple(dataclasses.replace(photo, group="", truth=Detections.empty()) for photo in photos)
    alike = near_duplicate_groups(Dataset((), bare))
    own, theirs = _members(alike[: len(looks)]), _members(alike[len(looks) :])
    found = []
    for group, members in own.items():
        leaked = tuple(against.photos[j].path for j in theirs[group])
        for photo in [looks[i].photo for i in members] if leaked else []:
            message = f"{photo.path.name} is also in '{Path(against.name).name}', the same or nearly, as {leaked[0].name}"
            fix = "Keep it in one of the two data sets only, together with its near duplicates."
            found.append(Finding("error", "leak", message, fix, photo.path, others=leaked))
        found += _duplicates_within([looks[i] for i in members])
    return found


def _members(labels: np.ndarray) -> defaultdict[int, list[int]]:
    members: defaultdict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(labels.tolist()):
        members[label].append(i)
    return members


def _duplicates_within(alike: Sequence[Look]) -> list[Finding]:
    """Findings on photos that look alike: one for each file that is there several times, one for what else is alike."""
    by_file: dict[str, list[Look]] = defaultdict(list)
    for look in alike:
        by_file[look.digest].append(look)
    found = []
    for copies in by_file.values():
        first, *rest = (look.photo for look in copies)
        if not rest:
            continue
        message = f"{first.path.name} is the same file as {', '.join(p.path.name for p in rest)}"
        severity: Severity = "warning"
        if not all(_same_labels(first, p) for p in rest):
            message, severity = f"{message}, but their labels differ", "error"
        fix = "Keep the photo once, with the right labels."
        found.append(
            Finding(
                severity, "duplicate", message, fix, first.path, others=tuple(p.path for p in rest)
            )
        )
    first, *rest = (copies[0].photo for copies in by_file.values())
    if rest:
        message = (
            f"{first.path.name} looks nearly the same as {', '.join(p.path.name for p in rest)}"
        )
        fix = "Keep the best one, or keep all in one split (`shelfcount` never parts them)."
        found.append(
            Finding(
                "note",
                "near-duplicate",
                message,
                fix,
                first.path,
                others=tuple(p.path for p in rest),
            )
        )
    return found


def _same_labels(a: Photo, b: Photo) -> bool:
    if len(a.truth) != len(b.truth):
        return False
    partners = box_math.iou(a.truth.boxes, b.truth.boxes) >= SAME_LABEL_IOU
    partners &= a.truth.classes[:, None] == b.truth.classes[None]
    return bool(partners.any(axis=0).all() and partners.any(axis=1).all())


def _anchor_recall(dataset: Dataset) -> list[Finding]:
    """Whether the anchors that training would fit with its default settings match the boxes."""
    model = ModelConfig()
    scaled = [
        (p.truth.boxes[:, 2:] - p.truth.boxes[:, :2])[:, ::-1].astype(np.float64)
        * (model.height / p.height, model.width / p.width)
        for p in dataset.photos
    ]
    sizes = np.concatenate(scaled) if scaled else np.zeros((0, 2))
    sizes = sizes[(sizes > 0).all(axis=1)]
    if not len(sizes):
        return []

    def matched(per_place: int) -> float:
        return anchors.recall(sizes, anchors.fit(sizes, model.strides, per_place))

    recall = matched(model.anchors_per_place)
    if recall >= ENOUGH_ANCHORS:
        return []
    more = model.anchors_per_place + 2
    severity: Severity = "error" if recall < LEAST_ANCHORS else "warning"
    message = f"anchors match {recall:.0%} of the boxes in shape, fewer than {ENOUGH_ANCHORS:.0%}"
    fix = f"Train with --set model.anchors_per_place={more}, which matches {matched(more):.0%}; see that no box is far too large."
    return [
        Finding(severity, "anchor-recall", message, fix, degree=ENOUGH_ANCHORS / max(recall, 0.01))
    ]
