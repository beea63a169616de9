"""Changes between two versions of labels: what corrections added, removed, renamed and moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shelfcount.data.datasets import fingerprint
from shelfcount.labels.corrections import DECISIONS, FIELDS, Correction, Corrections
from shelfcount.records import Dataset
from shelfcount.words import plural

WORDS = {
    "add": "added",
    "move": "moved",
    "rename": "renamed",
    "remove": "removed",
    "ignore": "ignored",
}


@dataclass(frozen=True)
class Difference:
    """Changes that corrections made to labels.

    Attributes:
        fingerprints: Fingerprints of the labels before and after.
        photos: Number of photos, and number of changed photos.
        decisions: Number of entries with each of `corrections.DECISIONS`. Only accepted entries
            change the labels.
        actions: Number of accepted entries with each key of `corrections.FIELDS`.
        classes: Numbers of labelled products before and after, for each class in which they differ.
        changes: File name of each changed photo to its changes, such as ``"cola -> tea"``, and how
            often each occurs.
    """

    fingerprints: tuple[str, str]
    photos: tuple[int, int]
    decisions: dict[str, int]
    actions: dict[str, int]
    classes: dict[str, tuple[int, int]]
    changes: dict[str, dict[str, int]]

    def lines(self) -> list[str]:
        """Return the difference as text: a summary, then changes per class and per photo."""
        done = [f"{number} {WORDS[action]}" for action, number in self.actions.items() if number]
        skipped = [
            f"{self.decisions[word]} {word}" for word in DECISIONS[1:] if self.decisions[word]
        ]
        lines = [
            f"changes on {self.photos[1]} of {plural(self.photos[0], 'photo')}: "
            f"{', '.join(done) or 'none'}"
            + (f"; left out: {', '.join(skipped)}" if skipped else ""),
            f"labels {self.fingerprints[0][:12]} -> {self.fingerprints[1][:12]}",
        ]
        lines += [
            f"  {name}: {before} -> {after} ({after - before:+d})"
            for name, (before, after) in self.classes.items()
        ]
        for photo, changes in self.changes.items():
            lines.append(
                f"  {photo}: "
                + ", ".join(text if n == 1 else f"{text} (x {n})" for text, n in changes.items())
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the difference as lists, numbers and strings."""
        return {
            "fingerprint_before": self.fingerprints[0],
            "fingerprint": self.fingerprints[1],
            "photos": self.photos[0],
            "photos_changed": self.photos[1],
            "decisions": self.decisions,
            "actions": self.actions,
            "classes": {
                name: {"before": before, "after": after}
                for name, (before, after) in self.classes.items()
            },
            "changes": self.changes,
        }


def difference(before: Dataset, after: Dataset, files: Sequence[Corrections]) -> Difference:
    """Return the changes between two versions of labels.

    Args:
        before, after: Uncorrected labels, and the result of `apply_corrections`.
        files: Corrections that were applied.

    Returns:
        Changes in total, per class and per photo.

    Raises:
        ShelfcountError: If a photo cannot be read.
    """
    # A correction that several files contain was applied once.
    accepted = list(
        dict.fromkeys(_key(c) for corrections in files for c in corrections.decided("accepted"))
    )
    by_photo: dict[str, Counter[str]] = {}
    for photo, _, text, _ in accepted:
        by_photo.setdefault(photo, Counter())[text] += 1
    counts = [_products(dataset) for dataset in (before, after)]
    return Difference(
        fingerprints=(fingerprint(before), fingerprint(after)),
        photos=(len(before), len(by_photo)),
        decisions={"accepted": len(accepted)}
        | {word: sum(len(c.decided(word)) for c in files) for word in DECISIONS[1:]},
        actions={action: sum(key[1] == action for key in accepted) for action in FIELDS},
        classes={
            name: (counts[0][name], counts[1][name])
            for name in before.classes
            if counts[0][name] != counts[1][name]
        },
        changes={photo: dict(by_photo[photo].most_common()) for photo in sorted(by_photo)},
    )


def _key(correction: Correction) -> tuple[str, str, str, Any]:
    """Return (photo, action, text, boxes), which is equal for equal corrections."""
    words = {
        "add": f"+ {correction.class_}",
        "remove": f"- {correction.class_}",
        "rename": f"{correction.class_} -> {correction.to_class}",
        "move": f"{correction.class_} moved",
        "ignore": f"{correction.class_ or 'an area'} ignored",
    }
    return (
        correction.photo,
        correction.action,
        words[correction.action],
        (correction.box, correction.to_box),
    )


def _products(dataset: Dataset) -> Counter[str]:
    """Return the number of labelled products per class name, without ignored areas."""
    return Counter(
        dataset.classes[c]
        for photo in dataset.photos
        for c in photo.truth.classes[~photo.truth.ignore].tolist()
    )
