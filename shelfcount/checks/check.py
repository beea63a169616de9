"""Check of a labelled data set before training: all checks of photos, boxes and classes."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shelfcount.checks import appearance, box_checks, photo_checks
from shelfcount.checks.class_checks import check_classes
from shelfcount.checks.findings import Finding, Report, Severity, corners
from shelfcount.checks.photo_checks import PhotoMeasures
from shelfcount.config import ModelConfig
from shelfcount.data.splits import near_duplicate_groups
from shelfcount.records import Dataset, Detections, Dropped, Photo, Progress
from shelfcount.runtime.photos import for_each_photo
from shelfcount.vision import anchors
from shelfcount.vision import boxes as box_math


class _Reading(NamedTuple):
    """Rule that turns an entry dropped or corrected by the reader into a finding.

    Attributes:
        words: Regular expression that matches the reason of the entry.
        kind: Key of `findings.KINDS`.
        severity: Severity of the finding.
        fix: Advice of the finding.
    """

    words: str
    kind: str
    severity: Severity
    fix: str


# Rules for the messages of `data.labels` and the parsers. The first rule that matches applies.
READING = (
    _Reading(
        "before the EXIF rotation",
        "orientation",
        "note",
        "No action needed: the boxes were rotated. Check one of the photos to be sure.",
    ),
    _Reading(
        "photo .* is missing",
        "missing-photo",
        "error",
        "Copy the photo to the path in the labels, or remove it from the labels.",
    ),
    _Reading(
        "is listed twice",
        "unusable-label",
        "warning",
        "Remove the second entry, or merge the two.",
    ),
    _Reading(
        "photo .* (is cut short|cannot be read|has .* pixels)",
        "broken-photo",
        "error",
        "Copy the photo again from its source, or remove it from the labels.",
    ),
    _Reading(
        "outside the photo",
        "box-outside",
        "warning",
        "Draw the box again. If there are many, the labels are of another size or another photo.",
    ),
    _Reading(
        "width or height of 0|less than a pixel",
        "box-without-size",
        "warning",
        "Remove the box, or draw it again.",
    ),
    _Reading(
        "exceeds the border",
        "box-cut",
        "note",
        "No action needed: the box was cut at the border.",
    ),
    _Reading(
        "",
        "unusable-label",
        "warning",
        "Correct the entry in the labelling tool and export the labels again.",
    ),
)
# Minimum share of boxes that an anchor matches: below the first a warning, below the second an
# error. With the default of one anchor per location, the drinks training photos reach 0.90 and
# training succeeds. Below 0.75, whole classes have no matching anchor.
GOOD_ANCHOR_SHARE = 0.9
MIN_ANCHOR_SHARE = 0.75
# Two photos have the same labels if each box has a partner of its class with at least this IoU.
SAME_LABEL_IOU = 0.8


@dataclass(frozen=True)
class CheckedData:
    """Input of a check.

    Attributes:
        dataset: The data set.
        measures: Measures of each photo that could be read, in the order of the data set.
        against: Second data set that must not share a photo with `dataset`; may be empty.
    """

    dataset: Dataset
    measures: Sequence[PhotoMeasures]
    against: Dataset


def check_dataset(
    dataset: Dataset,
    against: Dataset | None = None,
    *,
    progress: Progress | None = None,
) -> Report:
    """Check the photos and labels of a data set.

    Args:
        dataset: Data set from `read_labels`. Entries that it dropped are part of the report.
        against: Second data set that must not share a photo with `dataset`, such as the test set.
        progress: Callback that is called with (photos done, photos in total).

    Returns:
        Report with all findings, worst first. `Report.passed` is True if there is no error.

    Raises:
        ShelfcountError: If a photo of `against` cannot be read.
    """
    broken: list[Finding] = []

    def report_unreadable(photo: Dropped) -> None:
        fix = "Copy the photo again, or remove it from the labels."
        broken.append(Finding("error", "broken-photo", photo.reason, fix, Path(photo.where)))

    measured = for_each_photo(
        dataset.photos, photo_checks.measure_photo, report_unreadable, progress
    )
    checked = CheckedData(dataset, [look for _, look in measured], against or Dataset((), ()))
    findings = [*broken, *(finding for check in CHECKS for finding in check(checked))]
    return Report(dataset, tuple(findings), against.name if against else "")


def _of_reading(data: CheckedData) -> list[Finding]:
    """Return findings on the entries that the reader dropped or corrected."""
    return [_from_reading(entry, data.dataset) for entry in data.dataset.dropped]


def _of_quality(data: CheckedData) -> list[Finding]:
    """Return findings on blur, light, tilt and resolution of each photo."""
    return [finding for look in data.measures for finding in photo_checks.quality_findings(look)]


def _of_boxes(data: CheckedData) -> list[Finding]:
    """Return findings on the boxes of each photo."""
    return [finding for look in data.measures for finding in _on_boxes(look, data.dataset.classes)]


def _of_outliers(data: CheckedData) -> list[Finding]:
    """Return findings on photos unlike all others."""
    return photo_checks.find_outliers(data.measures)


def _of_rotation(data: CheckedData) -> list[Finding]:
    """Return findings on photos that are rotated relative to their labels."""
    return appearance.find_rotated(
        [look.photo for look in data.measures], [look.sample for look in data.measures]
    )


def _of_duplicates(data: CheckedData) -> list[Finding]:
    """Return findings on duplicates, and on photos that the second data set contains too."""
    return _duplicates(data.measures, data.against)


def _of_classes(data: CheckedData) -> list[Finding]:
    """Return findings on names and numbers of examples of the classes."""
    return check_classes(data.dataset)


def _of_anchors(data: CheckedData) -> list[Finding]:
    """Return a finding if too few boxes match an anchor."""
    return _anchor_recall(data.dataset)


# The checks, each a function of the measured data set. Their kinds are in `findings.KINDS`.
CHECKS: tuple[Callable[[CheckedData], list[Finding]], ...] = (
    _of_reading,
    _of_quality,
    _of_boxes,
    _of_outliers,
    _of_rotation,
    _of_duplicates,
    _of_classes,
    _of_anchors,
)


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


def _on_boxes(measures: PhotoMeasures, classes: tuple[str, ...]) -> list[Finding]:
    """Return findings on duplicate, oversized and likely missing boxes of one photo."""
    photo = measures.photo
    truth = photo.truth[~photo.truth.ignore]
    names = [classes[i] for i in truth.classes]
    findings = []

    def add(kind: str, box: NDArray[np.floating], degree: float, message: str, fix: str) -> None:
        findings.append(
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

    for i, j, overlap in box_checks.find_duplicate_boxes(truth.boxes):
        if names[i] == names[j]:
            message, fix = (
                f"two boxes of '{names[i]}' overlap with an IoU of {overlap:.2f}",
                "Remove one of the two.",
            )
        else:
            message, fix = (
                f"boxes of '{names[i]}' and '{names[j]}' overlap with an IoU of {overlap:.2f}",
                "Keep the box with the correct class.",
            )
        add("doubled-box", truth.boxes[j], overlap / box_checks.DOUBLED_IOU, message, fix)
    for i, times in box_checks.oversized(truth.boxes, truth.classes):
        message = (
            f"the box of '{names[i]}' is {times:.1f} times as wide or high as its neighbours and "
            "covers part of one"
        )
        add(
            "oversized-box",
            truth.boxes[i],
            times / box_checks.OVERSIZED,
            message,
            "Draw the box tightly around one product.",
        )
    for box, beside, distance in measures.missing:
        message = f"a gap in a row looks like the '{names[beside]}' beside it"
        fix = "Label the product, or mark it as `ignore` (iscrowd) if a person cannot recognize it."
        add("missing-box", box, 1 / max(distance, 0.01), message, fix)
    return findings


def _duplicates(measures: Sequence[PhotoMeasures], against: Dataset) -> list[Finding]:
    """Return findings on duplicates, near-duplicates, and photos shared with `against`."""
    photos = [*(look.photo for look in measures), *against.photos]
    if not photos:
        return []
    # Groups are cleared, so that only the pixels count: the same group name in two data sets need
    # not be the same store.
    bare = tuple(dataclasses.replace(photo, group="", truth=Detections.empty()) for photo in photos)
    alike = near_duplicate_groups(Dataset((), bare))
    by_group, against_by_group = _members(alike[: len(measures)]), _members(alike[len(measures) :])
    findings = []
    for group, members in by_group.items():
        leaked = tuple(against.photos[j].path for j in against_by_group[group])
        for photo in [measures[i].photo for i in members] if leaked else []:
            message = (
                f"{photo.path.name} is the same as, or a near-duplicate of, {leaked[0].name} in "
                f"'{Path(against.name).name}'"
            )
            fix = "Keep the photo and its near-duplicates in only one of the two data sets."
            findings.append(Finding("error", "leak", message, fix, photo.path, others=leaked))
        findings += _duplicates_within([measures[i] for i in members])
    return findings


def _members(labels: NDArray[np.int64]) -> defaultdict[int, list[int]]:
    """Return group number to the indices of its members."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(labels.tolist()):
        members[label].append(i)
    return members


def _duplicates_within(alike: Sequence[PhotoMeasures]) -> list[Finding]:
    """Return findings on photos that look alike.

    There is one finding for each file with several copies, and one for all near-duplicates.
    """
    by_file: dict[str, list[PhotoMeasures]] = defaultdict(list)
    for look in alike:
        by_file[look.digest].append(look)
    findings = []
    for copies in by_file.values():
        first, *others = (look.photo for look in copies)
        if not others:
            continue
        message = f"{first.path.name} is the same file as {', '.join(p.path.name for p in others)}"
        severity: Severity = "warning"
        if not all(_same_labels(first, p) for p in others):
            message, severity = f"{message}, but their labels differ", "error"
        fix = "Keep one copy of the photo, with the correct labels."
        paths = tuple(p.path for p in others)
        findings.append(Finding(severity, "duplicate", message, fix, first.path, others=paths))
    first, *others = (copies[0].photo for copies in by_file.values())
    if others:
        message = (
            f"{first.path.name} looks nearly the same as {', '.join(p.path.name for p in others)}"
        )
        fix = (
            "Keep the best one, or keep all in the same split (`shelfcount` never separates them)."
        )
        paths = tuple(p.path for p in others)
        findings.append(Finding("note", "near-duplicate", message, fix, first.path, others=paths))
    return findings


def _same_labels(a: Photo, b: Photo) -> bool:
    """Return True if each box of one photo matches a box of the other in class and place."""
    if len(a.truth) != len(b.truth):
        return False
    partners = box_math.iou(a.truth.boxes, b.truth.boxes) >= SAME_LABEL_IOU
    partners &= a.truth.classes[:, None] == b.truth.classes[None]
    return bool(partners.any(axis=0).all() and partners.any(axis=1).all())


def _anchor_recall(dataset: Dataset) -> list[Finding]:
    """Return a finding if too few boxes match an anchor fitted with the default settings."""
    model = ModelConfig()
    sizes = anchors.box_sizes(dataset, model.height, model.width)
    sizes = sizes[(sizes > 0).all(axis=1)]
    if not len(sizes):
        return []

    def matched(per_place: int) -> float:
        return anchors.recall(sizes, anchors.fit_anchors(sizes, model.strides, per_place))

    recall = matched(model.anchors_per_place)
    if recall >= GOOD_ANCHOR_SHARE:
        return []
    more = model.anchors_per_place + 2
    severity: Severity = "error" if recall < MIN_ANCHOR_SHARE else "warning"
    message = (
        f"anchors match {recall:.0%} of the boxes in shape, below the limit of "
        f"{GOOD_ANCHOR_SHARE:.0%}"
    )
    fix = (
        f"Train with --set model.anchors_per_place={more}, which matches {matched(more):.0%}. Also "
        "check that no box is far too large."
    )
    return [
        Finding(
            severity, "anchor-recall", message, fix, degree=GOOD_ANCHOR_SHARE / max(recall, 0.01)
        )
    ]
