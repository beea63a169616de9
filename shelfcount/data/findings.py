"""What a check of labelled photos has to say: findings, their kinds, and the report that holds them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from shelfcount.records import Dataset
from shelfcount.vision import boxes as box_math

Corners = tuple[float, float, float, float]
Severity = Literal["error", "warning", "note"]
# Worst first. An error says that training on the data as it is would teach or measure something wrong.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Kind(NamedTuple):
    """A kind of finding: its name for people, and why it matters."""

    title: str
    why: str


KINDS: dict[str, Kind] = {
    "missing-photo": Kind("Missing photos", "The labels name a photo that is not there."),
    "broken-photo": Kind(
        "Broken photos", "Cut short, unreadable, or of another size than the labels state."
    ),
    "orientation": Kind(
        "Wrong orientation",
        "Photo and labels are turned against each other, or the photo lies on its side.",
    ),
    "leak": Kind(
        "Leaks between data sets",
        "A photo that is also in the other data set: what was learnt by heart would be measured as skill.",
    ),
    "duplicate": Kind(
        "Exact duplicates", "One file twice counts twice in training, and splits would share it."
    ),
    "near-duplicate": Kind(
        "Near duplicates",
        "Almost the same picture; it adds little, and both must stay in one split.",
    ),
    "misspelt-class": Kind(
        "Class names spelt in two ways",
        "One product under two names is learnt as two and counted as neither.",
    ),
    "junk-class": Kind(
        "Junk classes", "Names that stand for no product, mostly left behind by a labelling tool."
    ),
    "few-examples": Kind(
        "Classes with too few examples", "Hardly learnt, and a score on the few is an accident."
    ),
    "imbalance": Kind(
        "Imbalance", "The common classes decide the overall score, and the rare ones hide in it."
    ),
    "anchor-recall": Kind(
        "Boxes without an anchor", "Boxes that no anchor matches in shape are learnt badly."
    ),
    "unlike-the-rest": Kind(
        "Photos unlike the rest", "Wrong file, or conditions that no other photo shows."
    ),
    "no-boxes": Kind("Photos without boxes", "Whatever stands on them is taught to be background."),
    "blurred": Kind(
        "Blurred photos", "At the size at which the network sees products, their labels are gone."
    ),
    "dark": Kind("Dark photos", "Even the bright parts of the products are dark."),
    "glare": Kind("Glare", "A reflection or overexposure covers products."),
    "tilted": Kind(
        "Tilted photos", "The shelves run askew; boxes get loose, and rows are harder to tell."
    ),
    "low-resolution": Kind(
        "Too little resolution", "Products have too few pixels to be told apart."
    ),
    "unusable-label": Kind("Unusable labels", "Entries that reading had to leave out."),
    "box-outside": Kind(
        "Boxes outside the photo", "They, or most of them, lie beyond the border and were left out."
    ),
    "box-without-size": Kind("Boxes of no size", "Stray clicks; they were left out."),
    "box-cut": Kind("Boxes over the border", "They were cut at the border of the photo."),
    "doubled-box": Kind("Doubled boxes", "Two boxes on one product count it twice."),
    "oversized-box": Kind(
        "Far too loose or large boxes", "Much larger than those around it, and over its neighbours."
    ),
    "missing-box": Kind(
        "Probably missing boxes", "A gap in a row that looks like the product beside it."
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with labelled photos, or may be.

    Attributes:
        severity: An error if training should not go on before it is settled.
        kind: Key of `KINDS`.
        message: What was found, where, and the figure behind it.
        fix: What to do about it.
        file: The photo; for a finding on a class or the whole data, an example, or None.
        box: (4,) xyxy, pixels of the upright photo, or None.
        others: Further photos it concerns, such as the duplicates.
        degree: How far beyond the limit, for the order within a kind; 1 where nothing was measured.

    Raises:
        ValueError: If severity or kind is unknown.
    """

    severity: Severity
    kind: str
    message: str
    fix: str
    file: Path | None = None
    box: Corners | None = None
    others: tuple[Path, ...] = ()
    degree: float = 1.0

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES or self.kind not in KINDS:
            raise ValueError(
                f"a finding must be of a known severity and kind, got '{self.severity}' and '{self.kind}'"
            )


def corners(box: np.ndarray) -> Corners:
    """(4,) xyxy array as the plain numbers of a `Finding`."""
    left, top, right, bottom = (float(v) for v in box)
    return left, top, right, bottom


@dataclass(frozen=True, eq=False)
class Report:
    """All findings on a data set, worst first.

    Attributes:
        dataset: What was checked.
        findings: By severity, then kind in the order of `KINDS`, then degree.
        against: Name of the data set it was compared with, or empty.
    """

    dataset: Dataset
    findings: tuple[Finding, ...]
    against: str = ""

    def __post_init__(self) -> None:
        rank = {kind: i for i, kind in enumerate(KINDS)}
        ordered = sorted(
            self.findings,
            key=lambda f: (SEVERITIES.index(f.severity), rank[f.kind], -f.degree, str(f.file)),
        )
        object.__setattr__(self, "findings", tuple(ordered))

    @property
    def passed(self) -> bool:
        """Whether training may go on: there is no error."""
        return not any(f.severity == "error" for f in self.findings)

    def counts(self) -> dict[str, int]:
        """How many findings of each severity, worst first, zeros too."""
        found = Counter(f.severity for f in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    def to_json(self) -> dict[str, Any]:
        """As plain lists, numbers and strings.

        Returns:
            ``{"data": str, "against": str or null, "photos": n, "boxes": n, "classes": n, "passed": bool,
            "counts": {"error": n, "warning": n, "note": n}, "kinds": {kind: {"title", "why"}}, "findings": [finding]}``; numbers
            of what could be read, kinds that were found, findings worst first. A finding is ``{"severity", "kind",
            "file": str or null, "box": [x, y, w, h] or null, "others": [str], "message", "fix", "degree"}``; boxes in
            pixels of the upright photo, files relative to the folder that all of them share.
        """
        parents = [
            path.absolute().parent
            for f in self.findings
            for path in (f.file, *f.others)
            if path is not None
        ]
        folder = os.path.commonpath(parents) if parents else ""
        return {
            "data": Path(self.dataset.name).name,
            "against": Path(self.against).name or None,
            "photos": len(self.dataset),
            "boxes": self.dataset.boxes,
            "classes": len(self.dataset.classes),
            "passed": self.passed,
            "counts": self.counts(),
            "kinds": {
                kind: KINDS[kind]._asdict() for kind in dict.fromkeys(f.kind for f in self.findings)
            },
            "findings": [_finding_json(f, folder) for f in self.findings],
        }


def _finding_json(finding: Finding, folder: str) -> dict[str, Any]:
    def shown(path: Path) -> str:
        return Path(os.path.relpath(path.absolute(), folder)).as_posix()

    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "file": None if finding.file is None else shown(finding.file),
        "box": None
        if finding.box is None
        else box_math.xyxy_to_xywh(np.array([finding.box]))[0].round(2).tolist(),
        "others": [shown(path) for path in finding.others],
        "message": finding.message,
        "fix": finding.fix,
        "degree": round(finding.degree, 3),
    }
