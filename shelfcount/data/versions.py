"""From one version of the labels to the next: what corrections changed, in words and figures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelfcount.data.corrections import DECISIONS, FIELDS, Correction, Corrections
from shelfcount.data.formats import fingerprint
from shelfcount.records import Dataset, ShelfcountError

WORDS = {
    "add": "added",
    "move": "moved",
    "rename": "renamed",
    "remove": "removed",
    "ignore": "ignored",
}


@dataclass(frozen=True)
class Difference:
    """What corrections made of labels.

    Attributes:
        fingerprints: Of the labels before and after.
        photos: How many there are, and how many of them were changed.
        decisions: How many entries are of each of `corrections.DECISIONS`; only the accepted changed anything.
        actions: How many of the accepted there are of each key of `corrections.FIELDS`.
        classes: Products to be found before and after, of each class in which that differs.
        changes: Of each changed photo, by name: what changed and how often, such as ``"cola -> tea"``.
    """

    fingerprints: tuple[str, str]
    photos: tuple[int, int]
    decisions: dict[str, int]
    actions: dict[str, int]
    classes: dict[str, tuple[int, int]]
    changes: dict[str, dict[str, int]]

    def lines(self) -> list[str]:
        """The difference for people, from the whole to the photos."""
        done = [f"{number} {WORDS[action]}" for action, number in self.actions.items() if number]
        left = [f"{self.decisions[word]} {word}" for word in DECISIONS[1:] if self.decisions[word]]
        lines = [
            f"changes on {self.photos[1]} of {self.photos[0]} photos: {', '.join(done) or 'none'}"
            + (f"; left out: {', '.join(left)}" if left else ""),
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
        """As plain lists, numbers and strings."""
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


def difference(before: Dataset, after: Dataset, given: Sequence[Corrections]) -> Difference:
    """What turned one version of the labels into the next.

    Args:
        before, after: The labels, and what `corrections.apply_all` made of them.
        given: The corrections that did.
    """
    # Said twice is done once.
    accepted = list(
        dict.fromkeys(_key(c) for corrections in given for c in corrections.decided("accepted"))
    )
    by_photo: dict[str, Counter[str]] = {}
    for photo, _, text, _ in accepted:
        by_photo.setdefault(photo, Counter())[text] += 1
    counts = [_products(dataset) for dataset in (before, after)]
    return Difference(
        fingerprints=(fingerprint(before), fingerprint(after)),
        photos=(len(before), len(by_photo)),
        decisions={"accepted": len(accepted)}
        | {word: sum(len(c.decided(word)) for c in given) for word in DECISIONS[1:]},
        actions={action: sum(key[1] == action for key in accepted) for action in FIELDS},
        classes={
            name: (counts[0][name], counts[1][name])
            for name in before.classes
            if counts[0][name] != counts[1][name]
        },
        changes={photo: dict(by_photo[photo].most_common()) for photo in sorted(by_photo)},
    )


def _key(correction: Correction) -> tuple[str, str, str, Any]:
    """(photo, action, words, what tells it from others like it)."""
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
    return Counter(
        dataset.classes[c]
        for photo in dataset.photos
        for c in photo.truth.classes[~photo.truth.ignore].tolist()
    )


def check_place(dataset: Dataset, path: Path) -> None:
    """Refuse a place for new labels from which their photos can't be found again.

    Args:
        dataset: That `formats.write_coco` is to write.
        path: Of the file.

    Raises:
        ShelfcountError: If a photo lies neither in or under the file's folder nor in `images` beside that.
    """
    folder = Path(os.path.abspath(path)).parent
    roots = (folder, folder.parent / "images")
    for photo in dataset.photos:
        place = Path(os.path.abspath(photo.path))
        if not any(place.is_relative_to(root) for root in roots):
            raise ShelfcountError(
                f"the new labels must lie where they find their photos, in '{place.parent}' or the folder above it; got '{folder}'"
            )
