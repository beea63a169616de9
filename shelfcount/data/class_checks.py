"""What the class names and the number of their examples say: misspellings, junk, too few, imbalance."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shelfcount.data.findings import Corners, Finding, Severity, corners
from shelfcount.records import Dataset

# A word this long with one letter off is rarely another word; two letters need twice the length. Shorter ones are: of the
# drinks, `cam` and `dau` are flavours, and `twister-cam2` is another can than `twister-cam`, so digits must agree too.
LONG_WORD = 5
LONGER_WORD = 10
# A name with so small a share of the boxes of the one it resembles is a slip; the two in the drinks data have 2 and 3 %.
SLIP = 0.1
# What labelling tools and hurried people leave behind.
PLACEHOLDERS = re.compile(
    "asdf|bbox|box|class|default|delete|dummy|item|label|misc|na|nan|new|none|null|obj|object|other|product|qwerty|region|rubbish|"
    "temp|test|tmp|todo|trash|undefined|unknown|unlabell?ed|untitled|xxx|[0-9]+"
)
# Boxes in training. The drinks classes with fewer have all a lower F1 on the test photos than the median class has
# (benchmarks/results/drinks_plain.json, per_class).
FEW_BOXES = 40
# Boxes of the commonest class by those of the median one: 4.2 in the drinks training photos.
MOST_UNEVEN = 10.0


@dataclass(frozen=True, eq=False)
class _Census:
    """How often each class is there: (classes,) numbers of its boxes and of photos with it, and one box as an example."""

    names: tuple[str, ...]
    boxes: np.ndarray
    photos: np.ndarray
    examples: dict[int, tuple[Path, Corners]]

    def told(self, class_: int) -> str:
        """The class with its number of boxes, for messages."""
        number = int(self.boxes[class_])
        return f"'{self.names[class_]}' ({number:,} {'box' if number == 1 else 'boxes'})"

    def finding(
        self, class_: int, severity: Severity, kind: str, message: str, fix: str, degree: float
    ) -> Finding:
        file, box = self.examples.get(class_, (None, None))
        return Finding(severity, kind, message, fix, file, box, degree=float(degree))


def check_classes(dataset: Dataset) -> list[Finding]:
    """Findings on the classes, each with one of its boxes as an example."""
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
    examples: dict[int, tuple[Path, Corners]] = {}
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
    """Class to the finding that its name stands for no product."""
    letterless = np.array(
        [not any(letter.isalpha() for letter in name) for name in census.names], bool
    )
    # Article numbers are names where most boxes have them.
    by_number = letterless @ census.boxes > census.boxes.sum() / 2
    found = {}
    for i, name in enumerate(census.names):
        numbered = letterless[i] and not by_number
        # The only class of a data set may be called what it likes: it counts products of any kind.
        placeholder = (
            len(census.names) > 1
            and not letterless[i]
            and all(PLACEHOLDERS.fullmatch(word) for word in _words(name))
        )
        if numbered or placeholder:
            # A number with many boxes may be a beer that is called by its year, and `other` may be meant.
            severity: Severity = "error" if numbered and census.boxes[i] < FEW_BOXES else "warning"
            message = f"class {census.told(i)} does not look like the name of a product"
            fix = f"Give its boxes their right class, or remove class '{name}' from the labels."
            found[i] = census.finding(
                i, severity, "junk-class", message, fix, FEW_BOXES / max(census.boxes[i], 1)
            )
    return found


def _misspelt(census: _Census, junk: Collection[int]) -> dict[int, Finding]:
    """Class to the finding that it is a commoner one, misspelt."""
    by_number = sorted(set(range(len(census.names))) - set(junk), key=lambda i: -census.boxes[i])
    found = {}
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
        message = f"class {census.told(rare)} looks like a misspelling of {census.told(common)}"
        fix = f"Rename '{census.names[rare]}' to '{census.names[common]}' in the labels if they are one product."
        found[rare] = census.finding(
            rare,
            severity,
            "misspelt-class",
            message,
            fix,
            census.boxes[common] / max(census.boxes[rare], 1),
        )
    return found


def _few_examples(census: _Census, spoken_of: Collection[int]) -> list[Finding]:
    found = []
    for i in np.flatnonzero(census.boxes < FEW_BOXES).tolist():
        if i in spoken_of:
            continue
        message, fix = (
            f"class {census.told(i)} has fewer than {FEW_BOXES}",
            "Add photos that show it, or merge it with a class it may count as.",
        )
        if census.boxes[i] == 0:
            message, fix = (
                f"class '{census.names[i]}' has no box",
                "Remove it from the labels, or add photos that show it.",
            )
        elif census.photos[i] == 1:
            message = (
                f"class {census.told(i)} is on one photo only: it cannot be both learnt and tested"
            )
        found.append(
            census.finding(
                i, "warning", "few-examples", message, fix, FEW_BOXES / max(census.boxes[i], 0.5)
            )
        )
    return found


def _imbalance(census: _Census) -> list[Finding]:
    present = census.boxes[census.boxes > 0]
    times = float(present.max() / np.median(present)) if len(present) else 0.0
    if times < MOST_UNEVEN:
        return []
    most = int(census.boxes.argmax())
    message = f"class {census.told(most)} has {times:.0f} times as many as the median class; {MOST_UNEVEN:.0f} times is the limit"
    fix = "Collect photos of the rarer classes, and judge by the mean of the classes' F1, not by the overall one."
    return [census.finding(most, "note", "imbalance", message, fix, times / MOST_UNEVEN)]


def same_but_misspelt(a: str, b: str) -> bool:
    """Whether two class names are one name but for case, accents, separators, or a letter or two in a long word.

    >>> same_but_misspelt("minrinda-soda", "mirinda-soda"), same_but_misspelt("mirinda-cam", "mirinda-cam2")
    (True, False)
    """
    first, second = _words(a), _words(b)
    if "".join(first) == "".join(second):
        return True
    if len(first) != len(second):
        first, second = ["".join(first)], ["".join(second)]
    differing = [(x, y) for x, y in zip(first, second, strict=True) if x != y]
    return all(_slip_of_the_pen(x, y) for x, y in differing)


def _words(name: str) -> list[str]:
    """Lower-case words without accents; what parts them is dropped."""
    plain = "".join(
        c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c)
    )
    return re.findall(r"[^\W_]+", plain)


def _slip_of_the_pen(a: str, b: str) -> bool:
    shorter = min(len(a), len(b))
    if shorter < LONG_WORD or re.findall(r"\d", a) != re.findall(r"\d", b):
        return False
    return _edits(a, b) <= (2 if shorter >= LONGER_WORD else 1)


def _edits(a: str, b: str) -> int:
    """Letters to insert, delete, exchange or swap with their neighbour to get from one to the other (Damerau 1964)."""
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y)))
            if i > 1 and j > 1 and (x, a[i - 2]) == (b[j - 2], y):
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]
