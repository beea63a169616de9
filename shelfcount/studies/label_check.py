"""Check of labels from their path: errors, leaks to a test set, and agreement of annotators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.checks.check import check_dataset
from shelfcount.checks.findings import Report
from shelfcount.data.datasets import fingerprint
from shelfcount.labels.agreement import compare_labellings, is_second_labelling
from shelfcount.labels.agreement_scores import Agreement
from shelfcount.labels.reading import read_corrected
from shelfcount.records import Dataset, Progress


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """Findings on labelled photos.

    Attributes:
        report: All findings. ``report.passed`` is False if there is an error among them.
        agreement: Inter-annotator agreement, if the second data set labels the same photos.
        other: The second data set.
    """

    report: Report
    agreement: Agreement | None
    other: Dataset | None

    @property
    def passed(self) -> bool:
        """Whether the labels are without errors."""
        return self.report.passed

    def to_json(self) -> dict[str, Any]:
        """Return the report, and the agreement if it was measured, as plain data."""
        first = fingerprint(self.report.dataset)
        compared = {}
        if self.agreement and self.other:
            fingerprints = [first, fingerprint(self.other)]
            compared = {"agreement": {"fingerprints": fingerprints, **self.agreement.to_json()}}
        return {"fingerprint": first, **self.report.to_json(), **compared}


def check_labels(
    data: Path | str,
    against: Path | str | None = None,
    *,
    class_names: Path | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> LabelCheck:
    """Check labelled photos for errors before training on them.

    Args:
        data: Labels in any format of `data.formats.read_labels`.
        against: Second data set. If its photos differ (a test set), photos in both are reported. If
            they are the same photos, labelled by someone else, the agreement is measured.
        class_names: File with the names of numbered classes.
        tell: Called with each note about the labels.
        progress: Called with the number of photos done and the number of all photos.

    Returns:
        The findings and the agreement.

    Raises:
        ShelfcountError: If labels cannot be read, or a photo of `against` cannot be read.
    """
    dataset, notes = read_corrected(data, class_names)
    other = None
    if against is not None:
        other, more = read_corrected(against, class_names)
        notes += more
    if tell is not None:
        for note in notes:
            tell(note)
    agreement = None
    if other and is_second_labelling(dataset, other):
        agreement = compare_labellings(dataset, other, np.random.default_rng(0))
    report = check_dataset(dataset, None if agreement else other, progress=progress)
    return LabelCheck(report, agreement, other)
