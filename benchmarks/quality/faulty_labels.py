"""Labelled photos that faults are planted in, and faults of boxes and classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shelfcount.data.stated_labels import XYXY
from shelfcount.vision.images import write_photo


@dataclass
class LabelledPhoto:
    """One photo with labels that faults are planted in: boxes xyxy in pixels, classes by name."""

    path: Path
    width: int
    height: int
    boxes: list[list[float]]
    classes: list[str]
    ignore: list[bool]


@dataclass
class Trial:
    """Photos with faults of one kind.

    Attributes:
        folder: Folder that damaged photos are written to.
        photos: All photos.
        chosen: Photos to damage.
        rng: Random generator of the faults.
        planted: File name or part of the message that a finding must contain, and its box if the
            fault has one.
        against: Photos of the second data set.
    """

    folder: Path
    photos: list[LabelledPhoto]
    chosen: list[LabelledPhoto]
    rng: np.random.Generator
    planted: list[tuple[str, XYXY | None]] = field(default_factory=list)
    against: list[LabelledPhoto] = field(default_factory=list)

    def write(self, photo: LabelledPhoto, image: np.ndarray, quality: int = 92) -> None:
        """Write a photo with new pixels under a new name, and list it as damaged."""
        photo.path = self.folder / f"damaged-{len(self.planted)}-{photo.path.stem}.jpg"
        write_photo(photo.path, image, quality)
        photo.height, photo.width = image.shape[:2]
        self.planted.append((photo.path.name, None))

    def all_boxes(self) -> list[tuple[LabelledPhoto, int]]:
        """Return the photo and the index of every box."""
        return [(photo, i) for photo in self.photos for i in range(len(photo.boxes))]


# ---------------------------------------------------------------- faults in boxes


def _any_box(photo: LabelledPhoto, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(~np.array(photo.ignore))))


def reported_by_number(
    change: Callable[[list[float], LabelledPhoto, np.random.Generator], list[float]],
) -> Callable[[Trial], None]:
    """Return a fault of single boxes that is reported with the number of the annotation."""

    def plant(trial: Trial) -> None:
        for photo in trial.chosen:
            i = _any_box(photo, trial.rng)
            photo.boxes[i] = change(photo.boxes[i], photo, trial.rng)
            before = sum(
                len(s.boxes)
                for s in trial.photos[: next(n for n, s in enumerate(trial.photos) if s is photo)]
            )
            trial.planted.append((f"annotations[{before + i}]:", None))

    return plant


def outside(box: list[float], photo: LabelledPhoto, rng: np.random.Generator) -> list[float]:
    return [box[0] + photo.width, box[1], box[2] + photo.width, box[3]]


def without_size(box: list[float], photo: LabelledPhoto, rng: np.random.Generator) -> list[float]:
    return [box[0], box[1], box[0], box[1] + rng.uniform(0, 3)]


def over_border(box: list[float], photo: LabelledPhoto, rng: np.random.Generator) -> list[float]:
    return [box[0], box[1], photo.width + 0.5 * (photo.width - box[0]), box[3]]


def doubled(trial: Trial) -> None:
    for number, photo in enumerate(trial.chosen):
        i = _any_box(photo, trial.rng)
        sides = np.array(
            [photo.boxes[i][2] - photo.boxes[i][0], photo.boxes[i][3] - photo.boxes[i][1]] * 2
        )
        again = np.array(photo.boxes[i]) + trial.rng.uniform(-0.06, 0.06, 4) * sides
        again = np.clip(again, 0, [photo.width, photo.height] * 2)
        photo.boxes.append(again.tolist())
        photo.classes.append(
            photo.classes[i] if number % 2 else photo.classes[_any_box(photo, trial.rng)]
        )
        photo.ignore.append(False)
        trial.planted.append((photo.path.name, _corners(again)))


def _inside_row(photo: LabelledPhoto, rng: np.random.Generator) -> int | None:
    """Choose a box with a close neighbour on each side and another one in its row."""
    boxes = np.array(photo.boxes)
    for i in rng.permutation(np.flatnonzero(~np.array(photo.ignore))).tolist():
        width, height = boxes[i, 2:] - boxes[i, :2]
        common = np.minimum(boxes[:, 3], boxes[i, 3]) - np.maximum(boxes[:, 1], boxes[i, 1])
        row = (common > 0.6 * height) & ~np.array(photo.ignore)
        aside = (boxes[:, 0] + boxes[:, 2] - boxes[i, 0] - boxes[i, 2]) / 2
        near = row & (np.abs(aside) < 1.4 * width)
        if (near & (aside > 0)).any() and (near & (aside < 0)).any() and row.sum() >= 4:
            return int(i)
    return None


def oversized(trial: Trial) -> None:
    for photo in trial.chosen:
        i = _inside_row(photo, trial.rng)
        if i is None:
            continue
        box = np.array(photo.boxes[i])
        middle, half = (
            (box[:2] + box[2:]) / 2,
            (box[2:] - box[:2]) / 2 * trial.rng.uniform(1.8, 2.2),
        )
        grown = np.clip([*(middle - half), *(middle + half)], 0, [photo.width, photo.height] * 2)
        photo.boxes[i] = grown.tolist()
        trial.planted.append((photo.path.name, _corners(grown)))


def missing_box(trial: Trial) -> None:
    for photo in trial.chosen:
        i = _inside_row(photo, trial.rng)
        if i is None:
            continue
        trial.planted.append((photo.path.name, _corners(np.array(photo.boxes[i]))))
        del photo.boxes[i], photo.classes[i], photo.ignore[i]


def _corners(box: np.ndarray) -> XYXY:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom


# ---------------------------------------------------------------- faults in classes


def misspelt(trial: Trial) -> None:
    """Misspell a word of at least five letters, in 5 % of the boxes of some classes."""
    names = sorted(
        {
            name
            for photo in trial.photos
            for name in photo.classes
            if max(map(len, name.split("-"))) >= 5
        }
    )
    for number, name in enumerate(trial.rng.permutation(names)[: len(trial.chosen)].tolist()):
        word = max(name.split("-"), key=len)
        at = int(trial.rng.integers(1, len(word) - 1))
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        slips = [
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            swapped,
            word[:at] + "x" + word[at + 1 :],
        ]
        wrong = name.replace(word, slips[number % 4], 1)
        members = [(photo, i) for photo, i in trial.all_boxes() if photo.classes[i] == name]
        if wrong == name or len(members) < 20:
            continue
        for member in trial.rng.permutation(len(members))[: len(members) // 20].tolist():
            photo, i = members[member]
            photo.classes[i] = wrong
        trial.planted.append((f"class '{wrong}' (", None))


def junk(trial: Trial) -> None:
    names = [
        "0",
        "00",
        "12",
        "?",
        "test",
        "object",
        "undefined",
        "Label 3",
        "new-class",
        "tmp",
        "-",
        "none",
    ]
    for photo, name in zip(trial.chosen, names, strict=False):
        photo.classes[_any_box(photo, trial.rng)] = name
        trial.planted.append((f"class '{name}' (", None))


def few_examples(trial: Trial) -> None:
    names = sorted({name for photo in trial.photos for name in photo.classes})
    for name in trial.rng.permutation(names)[:4].tolist():
        members = [(photo, i) for photo, i in trial.all_boxes() if photo.classes[i] == name]
        kept = set(trial.rng.permutation(len(members))[: int(trial.rng.integers(1, 20))].tolist())
        for number in sorted(set(range(len(members))) - kept, reverse=True):
            photo, i = members[number]
            del photo.boxes[i], photo.classes[i], photo.ignore[i]
        trial.planted.append((f"class '{name}' (", None))


def imbalance(trial: Trial) -> None:
    number = Counter(name for photo in trial.photos for name in photo.classes)
    common = number.most_common(1)[0][0]
    for photo, i in reversed(trial.all_boxes()):
        if photo.classes[i] != common and trial.rng.random() > 0.04:
            del photo.boxes[i], photo.classes[i], photo.ignore[i]
    trial.planted.append((f"class '{common}' (", None))


def anchors(trial: Trial) -> None:
    for photo, i in trial.all_boxes():
        left, top, right, bottom = photo.boxes[i]
        width, height = np.array([right - left, bottom - top]) * 2 ** trial.rng.uniform(-2, 1, 2)
        photo.boxes[i] = [
            left,
            top,
            min(left + width, photo.width),
            min(top + height, photo.height),
        ]
    trial.planted.append(("anchors match", None))
