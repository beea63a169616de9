"""Checks of classes: misspelt names, junk names, too few examples, and class imbalance."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelfcount.checks.findings import Finding, FindingCorners, Severity, corners
from shelfcount.records import Dataset
from shelfcount.words import plural

# Minimum lengths at which words that differ in one letter, or in two, count as the same word
# misspelt. Shorter words are often different words: among the drinks, 'cam' and 'dau' are flavours.
# Digits must be equal too, since 'twister-cam2' is another can than 'twister-cam'.
LONG_WORD = 5
LONGER_WORD = 10
# Maximum number of boxes of a misspelt class, as a share of the class it resembles, for an error; a
# class with more is reported as a warning. The two misspelt classes of the drinks data have 2 and 3
# %.
SLIP = 0.1
# Words that labelling tools and annotators use as placeholders.
PLACEHOLDERS = re.compile(
    "asdf|bbox|box|class|default|delete|dummy|item|label|misc|na|nan|new|none|null|obj|object|"
    "other|product|qwerty|region|rubbish|temp|test|tmp|todo|trash|undefined|unknown|unlabell?ed|"
    "untitled|xxx|[0-9]+"
)
# Minimum number of boxes for training. All drinks classes with fewer have an F1 on the test photos
# below that of the median class (benchmarks/results/drinks_plain.json, per_class).
FEW_BOXES = 40
# Maximum ratio of boxes of the most frequent class to boxes of the median class. It is 4.2 in the
# drinks training photos.
MAX_CLASS_RATIO = 10.0


@dataclass(frozen=True, eq=False)
class _Census:
    """Frequency of each class.

    Attributes:
        names: Class names.
        boxes: (classes,) int64, number of boxes.
        photos: (classes,) int64, number of photos with at least one box.
        examples: Class index to the photo and the box of one example.
    """

    names: tuple[str, ...]
    boxes: NDArray[np.int64]
    photos: NDArray[np.int64]
    examples: dict[int, tuple[Path, FindingCorners]]

    def describe(self, class_: int) -> str:
        """Return the class name with its number of boxes, for messages."""
        return f"'{self.names[class_]}' ({plural(int(self.boxes[class_]), 'box', 'boxes')})"

    def finding(
        self, class_: int, severity: Severity, kind: str, message: str, fix: str, degree: float
    ) -> Finding:
        """Return a finding on a class, with one of its boxes as an example."""
        file, box = self.examples.get(class_, (None, None))
        return Finding(severity, kind, message, fix, file, box, degree=float(degree))


def check_classes(dataset: Dataset) -> list[Finding]:
    """Return findings on the classes of a data set, each with one of its boxes as an example."""
    census = _census(dataset)
    junk = _junk(census)
    misspelt = _misspelt(census, junk)
    return [
        *junk.values(),
        *misspelt.values(),
        *_few_examples(census, junk.keys() | misspelt.keys()),
        *_imbalance(census),
    ]


def _census(dataset: Dataset) -> _Census:
    boxes, photos = np.zeros((2, len(dataset.classes)), np.int64)
    examples: dict[int, tuple[Path, FindingCorners]] = {}
    for photo in dataset.photos:
        present, first, number = np.unique(
            photo.truth.classes, return_index=True, return_counts=True
        )
        boxes[present] += number
        photos[present] += 1
        for class_, i in zip(present.tolist(), first, strict=True):
            examples.setdefault(class_, (photo.path, corners(photo.truth.boxes[i])))
    return _Census(dataset.classes, boxes, photos, examples)


def _junk(census: _Census) -> dict[int, Finding]:
    """Return class index to finding, for names that likely do not denote a product."""
    letterless = np.array(
        [not any(letter.isalpha() for letter in name) for name in census.names], bool
    )
    # If most boxes have a number as their class name, the numbers are article numbers.
    by_number = letterless @ census.boxes > census.boxes.sum() / 2
    findings = {}
    for i, name in enumerate(census.names):
        numbered = letterless[i] and not by_number
        # The name of the only class of a data set is not checked: it is used for products of any
        # kind.
        placeholder = (
            len(census.names) > 1
            and not letterless[i]
            and all(PLACEHOLDERS.fullmatch(word) for word in _words(name))
        )
        if numbered or placeholder:
            # A number with many boxes may be the name of a product, such as a beer named after a
            # year, and `other` may be intended.
            severity: Severity = "error" if numbered and census.boxes[i] < FEW_BOXES else "warning"
            message = f"class {census.describe(i)} does not look like the name of a product"
            fix = (
                f"Give its boxes their correct class, or remove the class '{name}' from the labels."
            )
            findings[i] = census.finding(
                i, severity, "junk-class", message, fix, FEW_BOXES / max(census.boxes[i], 1)
            )
    return findings


def _misspelt(census: _Census, junk: Collection[int]) -> dict[int, Finding]:
    """Return class index to finding, for names that are likely a misspelt more frequent name."""
    by_number = sorted(set(range(len(census.names))) - set(junk), key=lambda i: -census.boxes[i])
    findings = {}
    for place, rare in enumerate(by_number):
        common = next(
            (
                i
                for i in by_number[:place]
                if same_but_misspelt(census.names[rare], census.names[i])
            ),
            None,
        )
        if common is None:
            continue
        severity: Severity = (
            "error" if census.boxes[rare] <= SLIP * census.boxes[common] else "warning"
        )
        message = (
            f"class {census.describe(rare)} looks like a misspelling of {census.describe(common)}"
        )
        fix = (
            f"Rename '{census.names[rare]}' to '{census.names[common]}' in the labels if they are "
            "the same product."
        )
        findings[rare] = census.finding(
            rare,
            severity,
            "misspelt-class",
            message,
            fix,
            census.boxes[common] / max(census.boxes[rare], 1),
        )
    return findings


def _few_examples(census: _Census, reported: Collection[int]) -> list[Finding]:
    """Return findings on classes with too few boxes, without those in `reported`."""
    findings = []
    for i in np.flatnonzero(census.boxes < FEW_BOXES).tolist():
        if i in reported:
            continue
        message, fix = (
            f"class {census.describe(i)} has fewer than the minimum of {FEW_BOXES} boxes",
            "Add photos that show it, or merge it with a similar class.",
        )
        if census.boxes[i] == 0:
            message, fix = (
                f"class '{census.names[i]}' has no box",
                "Remove it from the labels, or add photos that show it.",
            )
        elif census.photos[i] == 1:
            message = (
                f"class {census.describe(i)} is on one photo only, so it cannot be used for both "
                "training and testing"
            )
        findings.append(
            census.finding(
                i, "warning", "few-examples", message, fix, FEW_BOXES / max(census.boxes[i], 0.5)
            )
        )
    return findings


def _imbalance(census: _Census) -> list[Finding]:
    """Return a finding if the most frequent class has far more boxes than the median class."""
    present = census.boxes[census.boxes > 0]
    times = float(present.max() / np.median(present)) if len(present) else 0.0
    if times < MAX_CLASS_RATIO:
        return []
    largest = int(census.boxes.argmax())
    message = (
        f"class {census.describe(largest)} has {times:.0f} times as many boxes as the median "
        "class; the "
        f"limit is {MAX_CLASS_RATIO:.0f} times"
    )
    fix = (
        "Collect photos of the rarer classes, and evaluate by the mean F1 over classes instead of "
        "the overall F1."
    )
    return [census.finding(largest, "note", "imbalance", message, fix, times / MAX_CLASS_RATIO)]


def same_but_misspelt(a: str, b: str) -> bool:
    """Return True if two class names are likely the same name, spelt differently.

    Differences in case, accents and separators are allowed. So is one letter in a word of at least
    `LONG_WORD` letters, or two in a word of at least `LONGER_WORD`.

    >>> same_but_misspelt("minrinda-soda", "mirinda-soda")
    True
    >>> same_but_misspelt("mirinda-cam", "mirinda-cam2")
    False
    """
    first, second = _words(a), _words(b)
    if "".join(first) == "".join(second):
        return True
    if len(first) != len(second):
        first, second = ["".join(first)], ["".join(second)]
    differing = [(x, y) for x, y in zip(first, second, strict=True) if x != y]
    return all(_slip_of_the_pen(x, y) for x, y in differing)


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case, without accents and separators."""
    plain = "".join(
        c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c)
    )
    return re.findall(r"[^\W_]+", plain)


def _slip_of_the_pen(a: str, b: str) -> bool:
    """Return True if two words differ by few letters for their length, and in no digit."""
    shorter = min(len(a), len(b))
    if shorter < LONG_WORD or re.findall(r"\d", a) != re.findall(r"\d", b):
        return False
    return _edits(a, b) <= (2 if shorter >= LONGER_WORD else 1)


def _edits(a: str, b: str) -> int:
    """Return the edit distance of two words (Damerau 1964).

    It is the minimum number of letters to insert, delete, replace or swap with a neighbour.
    """
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y)))
            if i > 1 and j > 1 and (x, a[i - 2]) == (b[j - 2], y):
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]
