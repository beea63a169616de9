"""Findings of a data set check, the kinds of findings, and the report."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Dataset
from shelfcount.vision import boxes as box_math

FindingCorners = tuple[float, float, float, float]
Severity = Literal["error", "warning", "note"]
# Worst first. An error means that training or evaluation on the data as it is would be wrong.
FINDING_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class FindingKind(NamedTuple):
    """Title of a kind of finding, and why it matters."""

    title: str
    why: str


KINDS: dict[str, FindingKind] = {
    "missing-photo": FindingKind(
        "Missing photos", "The labels refer to a photo that does not exist."
    ),
    "broken-photo": FindingKind(
        "Broken photos",
        "The photo is cut short, unreadable, or of another size than the labels state.",
    ),
    "orientation": FindingKind(
        "Wrong orientation",
        "The photo is rotated relative to its labels, or is not upright.",
    ),
    "leak": FindingKind(
        "Leaks between data sets",
        "The photo is also in the other data set, so memorized photos would raise test results.",
    ),
    "duplicate": FindingKind(
        "Exact duplicates",
        "A file that is in the data twice counts twice in training.",
    ),
    "near-duplicate": FindingKind(
        "Near-duplicates",
        "The pictures are almost the same. They add little, and must be in the same split.",
    ),
    "misspelt-class": FindingKind(
        "Class names spelt in two ways",
        "A product with two names is trained and counted as two classes.",
    ),
    "junk-class": FindingKind(
        "Junk classes", "The name does not denote a product; often a labelling tool left it behind."
    ),
    "few-examples": FindingKind(
        "Classes with too few examples",
        "The class is hard to learn, and its metrics depend on a few boxes.",
    ),
    "imbalance": FindingKind(
        "Imbalance", "Frequent classes determine the overall metrics and hide the rare ones."
    ),
    "anchor-recall": FindingKind(
        "Boxes without an anchor", "Boxes that no anchor matches in shape are hard to learn."
    ),
    "unlike-the-rest": FindingKind(
        "Photos unlike the rest",
        "The photo is a wrong file, or shows conditions that no other photo shows.",
    ),
    "no-boxes": FindingKind(
        "Photos without boxes", "Unlabelled products on them are trained as background."
    ),
    "blurred": FindingKind(
        "Blurred photos",
        "Small print is not legible at the size at which the network sees the products.",
    ),
    "dark": FindingKind("Dark photos", "Even the bright parts of the products are dark."),
    "glare": FindingKind("Glare", "A reflection or overexposure covers products."),
    "tilted": FindingKind(
        "Tilted photos",
        "The shelves are not level, so boxes are looser and rows are harder to recognize.",
    ),
    "low-resolution": FindingKind(
        "Low resolution", "Products have too few pixels to be distinguished."
    ),
    "unusable-label": FindingKind("Unusable labels", "The reader had to leave out these entries."),
    "box-outside": FindingKind(
        "Boxes outside the photo", "These boxes are mostly outside the photo and were left out."
    ),
    "box-without-size": FindingKind(
        "Boxes without size", "These boxes, often stray clicks, were left out."
    ),
    "box-cut": FindingKind(
        "Boxes over the border", "These boxes were cut at the border of the photo."
    ),
    "doubled-box": FindingKind("Duplicate boxes", "A product with two boxes is counted twice."),
    "oversized-box": FindingKind(
        "Oversized boxes",
        "The box is much larger than those around it and covers part of a neighbour.",
    ),
    "missing-box": FindingKind(
        "Likely missing boxes", "A gap in a row looks like the product beside it."
    ),
}


@dataclass(frozen=True)
class Finding:
    """One certain or likely fault of a labelled data set.

    Attributes:
        severity: One of `FINDING_SEVERITIES`. An error should be fixed before training.
        kind: Key of `KINDS`.
        message: Fault, with its place and the measured value.
        fix: Advice on what to do about it.
        file: Path of the photo. For a finding on a class it is that of an example, and for a
            finding on the whole data set it is None.
        box: (left, top, right, bottom) in pixels of the upright photo, or None.
        others: Paths of further photos that are concerned, such as duplicates.
        degree: Measured value relative to its limit, which gives the order within a kind; 1 if
            nothing was measured.

    Raises:
        ValueError: If `severity` or `kind` is unknown.
    """

    severity: Severity
    kind: str
    message: str
    fix: str
    file: Path | None = None
    box: FindingCorners | None = None
    others: tuple[Path, ...] = ()
    degree: float = 1.0

    def __post_init__(self) -> None:
        if self.severity not in FINDING_SEVERITIES or self.kind not in KINDS:
            raise ValueError(
                f"unknown severity '{self.severity}' or kind '{self.kind}' of a finding; "
                f"severities are {', '.join(FINDING_SEVERITIES)}, kinds are the keys of KINDS"
            )


def corners(box: NDArray[np.floating]) -> FindingCorners:
    """Return a (4,) xyxy array as four Python floats, as `Finding` needs them."""
    left, top, right, bottom = (float(v) for v in box)
    return left, top, right, bottom


@dataclass(frozen=True, eq=False)
class Report:
    """All findings on a data set, worst first.

    Attributes:
        dataset: Checked data set.
        findings: Findings, sorted by severity, then kind in the order of `KINDS`, then degree.
        against: Name of the second data set, or empty.
    """

    dataset: Dataset
    findings: tuple[Finding, ...]
    against: str = ""

    def __post_init__(self) -> None:
        rank = {kind: i for i, kind in enumerate(KINDS)}
        ordered = sorted(
            self.findings,
            key=lambda f: (
                FINDING_SEVERITIES.index(f.severity),
                rank[f.kind],
                -f.degree,
                str(f.file),
            ),
        )
        object.__setattr__(self, "findings", tuple(ordered))

    @property
    def passed(self) -> bool:
        """True if no finding is an error."""
        return not any(f.severity == "error" for f in self.findings)

    def counts(self) -> dict[str, int]:
        """Return the number of findings of each severity, worst first, including zeros."""
        numbers = Counter(f.severity for f in self.findings)
        return {severity: numbers[severity] for severity in FINDING_SEVERITIES}

    def to_json(self) -> dict[str, Any]:
        """Return the report as lists, numbers and strings.

        Returns:
            ``{"data": str, "against": str or null, "photos": n, "boxes": n, "classes": n, "passed":
            bool, "counts": {"error": n, "warning": n, "note": n}, "kinds": {kind: {"title",
            "why"}}, "findings": [finding]}``. Photos, boxes and classes are the numbers that could
            be read, kinds are those with a finding, and findings are sorted worst first. A finding
            is ``{"severity", "kind", "file": str or null, "box": [x, y, w, h] or null, "others":
            [str], "message", "fix", "degree"}``. Boxes are in pixels of the upright photo, paths
            are relative to the common folder of all of them.
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
