"""The findings of a data check as one HTML page with the pictures: it opens offline and fits a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from shelfcount.data.findings import KINDS, SEVERITIES, Finding, Report, Severity
from shelfcount.records import Detections, ShelfcountError
from shelfcount.report.page import embedded, template
from shelfcount.report.pictures import FOUND, INK, MISSED, Colour
from shelfcount.vision import boxes as box_math
from shelfcount.vision.images import read_photo, write_whole

# A data set of 10,000 photos may have a thousand findings of a kind; the worst tell what is wrong, the JSON has all.
MOST_OF_A_KIND = 48
# Longest side of a picture, twice what it has on a phone's screen in points; and what is shown around a box.
PICTURE_SIDE = 520
SURROUNDINGS = 3.0
LEAST_CROP = 120


@dataclass(frozen=True)
class _Item:
    """A finding with its pictures as data URLs, none if no photo can be shown."""

    finding: Finding
    pictures: Sequence[str]


@dataclass(frozen=True)
class _Group:
    """The findings of one kind, worst first; those beyond `MOST_OF_A_KIND` are counted only."""

    kind: str
    severity: Severity
    number: int
    items: Sequence[_Item]

    @property
    def title(self) -> str:
        return KINDS[self.kind].title

    @property
    def why(self) -> str:
        return KINDS[self.kind].why


def write_page(report: Report, path: Path | str) -> None:
    """Write the page whole or not at all.

    Args:
        report: From `data.checks.check`; its photos are read again.
        path: Of the HTML file.
    """
    counts = [
        (severity, severity if number == 1 else f"{severity}s", number)
        for severity, number in report.counts().items()
    ]
    facts = {
        "photos": len(report.dataset),
        "boxes": report.dataset.boxes,
        "classes": len(report.dataset.classes),
    }
    page = template("check_page.html").render(
        name=Path(report.dataset.name).name,
        against=Path(report.against).name,
        passed=report.passed,
        facts=facts,
        counts=counts,
        groups=_groups(report),
    )
    write_whole(path, page)


def _groups(report: Report) -> list[_Group]:
    """Kinds by their worst finding, which the report's order gives."""
    labels = {photo.path: photo.truth for photo in report.dataset.photos}
    order = {kind: i for i, kind in enumerate(dict.fromkeys(f.kind for f in report.findings))}
    groups = []
    # The sort keeps the order within a kind.
    for kind, findings in groupby(
        sorted(report.findings, key=lambda f: order[f.kind]), key=lambda f: f.kind
    ):
        members = list(findings)
        severity = min((f.severity for f in members), key=SEVERITIES.index)
        items = [_Item(f, _pictures(f, labels)) for f in members[:MOST_OF_A_KIND]]
        groups.append(_Group(kind, severity, len(members), items))
    return groups


def _pictures(finding: Finding, labels: dict[Path, Detections]) -> list[str]:
    """The photo of a finding with its boxes, cropped to the box it is about; and the first of the other photos."""
    shown = []
    for path in [finding.file, *finding.others[:1]]:
        if path is None:
            continue
        try:
            image = _photo(path)
        except ShelfcountError:  # which is what some findings are about
            continue
        picture = _drawn(image, labels.get(path, Detections.empty()).boxes, finding.box)
        shown.append(embedded(picture))
    return shown


# Findings on one photo mostly follow one another.
_photo = lru_cache(maxsize=4)(read_photo)


def _drawn(image: np.ndarray, boxes: np.ndarray, box: Sequence[float] | None) -> np.ndarray:
    """(h, w, 3) uint8: the labelled boxes thin, the one in question thick, and its surroundings only."""
    left, top, right, bottom = _window(box, image.shape[1], image.shape[0])
    scale = PICTURE_SIDE / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    picture = cv2.resize(image[top:bottom, left:right], size, interpolation=how)
    origin = np.array([left, top, left, top])
    for labelled in (boxes - origin) * scale:
        _outline(picture, labelled, FOUND, 2)
    if box is not None:
        # A dark edge keeps it apart from the others and from red labels.
        _outline(picture, (np.array(box) - origin) * scale, INK, 6)
        _outline(picture, (np.array(box) - origin) * scale, MISSED, 3)
    return picture


def _window(box: Sequence[float] | None, width: int, height: int) -> tuple[int, int, int, int]:
    """xyxy pixels of what is shown: the photo, or a square around the box."""
    if box is None:
        return 0, 0, width, height
    middle = (np.array(box[:2]) + box[2:]) / 2
    half = max(LEAST_CROP, SURROUNDINGS * max(box[2] - box[0], box[3] - box[1])) / 2
    window = box_math.clip(np.array([[*(middle - half), *(middle + half)]]), width, height)[0]
    left, top = np.floor(window[:2]).astype(int).tolist()
    right, bottom = np.ceil(window[2:]).astype(int).tolist()
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _outline(picture: np.ndarray, box: np.ndarray, colour: Colour, line: int) -> None:
    left, top, right, bottom = box.round().astype(int).tolist()
    cv2.rectangle(picture, (left, top), (right, bottom), colour, line)
