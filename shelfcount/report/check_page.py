"""Report of a data check: one HTML page with findings and pictures, for offline use and phones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.checks.findings import FINDING_SEVERITIES, KINDS, Finding, Report, Severity
from shelfcount.drawing.crops import CROP_SIDE, photo_at, window_around
from shelfcount.drawing.marks import FOUND, INK, MISSED, Colour
from shelfcount.files import write_whole
from shelfcount.records import Detections, ShelfcountError
from shelfcount.report.page import embedded, template
from shelfcount.words import plural

# Maximum number of findings of one kind on the page, worst first. A large data set can have a
# thousand findings of a kind; the JSON report contains all of them.
MAX_FINDINGS_PER_KIND = 48
# Minimum side of a crop in photo pixels.
MIN_CROP = 120


@dataclass(frozen=True)
class _Item:
    """A finding with its pictures as data URLs; no picture if no photo can be read."""

    finding: Finding
    pictures: Sequence[str]


@dataclass(frozen=True)
class _Group:
    """The findings of one kind, worst first.

    `number` counts all of them; `items` contains at most `MAX_FINDINGS_PER_KIND`.
    """

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


def write_check_page(report: Report, path: Path | str) -> None:
    """Write the report as one HTML file. It is replaced only when complete.

    Args:
        report: Result of `checks.check.check_dataset`. Its photos are read again for the pictures.
        path: Path of the HTML file.

    Raises:
        ShelfcountError: If the file cannot be written.
    """
    counts = [(severity, plural(number, severity)) for severity, number in report.counts().items()]
    facts = [
        plural(len(report.dataset), "photo"),
        plural(report.dataset.boxes, "box", "boxes"),
        plural(len(report.dataset.classes), "class", "classes"),
    ]
    page = template("check_page.html", plural=plural).render(
        name=Path(report.dataset.name).name,
        against=Path(report.against).name,
        passed=report.passed,
        facts=facts,
        counts=counts,
        groups=_groups(report),
    )
    write_whole(path, page)


def _groups(report: Report) -> list[_Group]:
    """Group the findings by kind, kinds with the worst finding first.

    The report is already sorted in this order.
    """
    labels = {photo.path: photo.truth for photo in report.dataset.photos}
    order = {kind: i for i, kind in enumerate(dict.fromkeys(f.kind for f in report.findings))}
    groups = []
    # The sort is stable, so the order within a kind is kept.
    for kind, findings in groupby(
        sorted(report.findings, key=lambda f: order[f.kind]), key=lambda f: f.kind
    ):
        members = list(findings)
        severity = min((f.severity for f in members), key=FINDING_SEVERITIES.index)
        items = [_Item(f, _pictures(f, labels)) for f in members[:MAX_FINDINGS_PER_KIND]]
        groups.append(_Group(kind, severity, len(members), items))
    return groups


def _pictures(finding: Finding, labels: dict[Path, Detections]) -> list[str]:
    """Return the pictures of a finding as data URLs.

    These are its photo and the first of its other photos, with their labelled boxes, cropped
    around the box of the finding if there is one. Photos that cannot be read are left out.
    """
    pictures = []
    for path in [finding.file, *finding.others[:1]]:
        if path is None:
            continue
        try:
            image = photo_at(path)
        except ShelfcountError:  # some findings are about unreadable photos
            continue
        picture = _drawn(image, labels.get(path, Detections.empty()).boxes, finding.box)
        pictures.append(embedded(picture))
    return pictures


def _drawn(
    image: NDArray[np.uint8], boxes: NDArray[np.floating], box: Sequence[float] | None
) -> NDArray[np.uint8]:
    """Draw the labelled boxes, and the box of the finding with a thicker line.

    Args:
        image: (h, w, 3) uint8 RGB.
        boxes: (n, 4) labelled boxes, xyxy pixels.
        box: (4,) box of the finding, xyxy pixels, or None.

    Returns:
        (H, W, 3) uint8 RGB, longest side `CROP_SIDE`: the surroundings of `box`, or the whole
        photo if `box` is None.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = (
        (0, 0, width, height)
        if box is None
        else window_around(box, width, height, min_side=MIN_CROP)
    )
    scale = CROP_SIDE / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    picture = np.asarray(
        cv2.resize(image[top:bottom, left:right], size, interpolation=how), np.uint8
    )
    origin = np.array([left, top, left, top])
    for labelled in (boxes - origin) * scale:
        _outline(picture, labelled, FOUND, 2)
    if box is not None:
        # A dark edge separates it from the other boxes and from red packaging.
        _outline(picture, (np.array(box) - origin) * scale, INK, 6)
        _outline(picture, (np.array(box) - origin) * scale, MISSED, 3)
    return picture


def _outline(
    picture: NDArray[np.uint8], box: NDArray[np.floating], colour: Colour, line: int
) -> None:
    left, top, right, bottom = box.round().astype(int).tolist()
    cv2.rectangle(picture, (left, top), (right, bottom), colour, line)
