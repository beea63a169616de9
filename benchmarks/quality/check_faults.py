"""How much of what is wrong `shelfcount check` finds, and how much of what it finds is wrong.

Faults of each kind are put, one kind at a time, into photos drawn by seed; the check runs on all of
the photos, and its findings of that kind are compared with what was put in. On synthetic shelves the
labels are exact, so that any other finding is a false alarm; real photos have faults of their own,
which is what `before` counts: the findings on the photos as they are.

Missing boxes are also held against corrections, for which every photo was looked at: ``--corrections``, one file for
each of the labels, says how many of those found on the photos as they are were missing indeed.

    python benchmarks/quality/check_faults.py [--data LABELS.json ...] [--corrections LABELS_corrections.json ...]
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shelfcount.checks.check import check_dataset
from shelfcount.checks.findings import Finding
from shelfcount.data.formats import read_labels
from shelfcount.data.stated_labels import XYXY
from shelfcount.files import write_whole
from shelfcount.labels.corrections import correct_labels, read_corrections
from shelfcount.records import Dataset
from shelfcount.stamp import stamp
from shelfcount.synthetic.generation import generate
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.vision import boxes as box_math
from shelfcount.vision.images import encode_photo, read_photo, write_photo

RESULT = Path(__file__).parents[1] / "results" / "check_faults.json"
# A finding need not draw a box as a person does, only around the same product.
FOUND_IOU = 0.4


@dataclass
class Shelf:
    """One photo and its labels, to be damaged: boxes xyxy in pixels, classes by name."""

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
        folder: Where damaged photos are written.
        shelves: All photos.
        chosen: Those to damage.
        planted: What a finding must name: a file, a file and a box, or a part of its message.
        against: Photos of the second data set.
    """

    folder: Path
    shelves: list[Shelf]
    chosen: list[Shelf]
    rng: np.random.Generator
    planted: list[tuple[str, XYXY | None]] = field(default_factory=list)
    against: list[Shelf] = field(default_factory=list)

    def write(self, shelf: Shelf, image: np.ndarray, quality: int = 92) -> None:
        """Give a photo new pixels, under a name of its own, and count it as damaged."""
        shelf.path = self.folder / f"damaged-{len(self.planted)}-{shelf.path.stem}.jpg"
        write_photo(shelf.path, image, quality)
        shelf.height, shelf.width = image.shape[:2]
        self.planted.append((shelf.path.name, None))

    def all_boxes(self) -> list[tuple[Shelf, int]]:
        return [(shelf, i) for shelf in self.shelves for i in range(len(shelf.boxes))]


# ---------------------------------------------------------------- faults in photos


def _side(shelf: Shelf) -> float:
    boxes = np.array(shelf.boxes)
    return float(np.median((boxes[:, 2:] - boxes[:, :2]).min(axis=1)))


def _blurred(trial: Trial) -> None:
    for shelf in trial.chosen:
        sigma = trial.rng.uniform(0.05, 0.08) * _side(shelf)
        trial.write(shelf, cv2.GaussianBlur(read_photo(shelf.path), (0, 0), sigma))


def _dark(trial: Trial) -> None:
    for shelf in trial.chosen:
        trial.write(shelf, (read_photo(shelf.path) * trial.rng.uniform(0.15, 0.3)).astype(np.uint8))


def _glare(trial: Trial) -> None:
    for shelf in trial.chosen:
        image = read_photo(shelf.path)
        y, x = np.mgrid[0 : 1 : shelf.height * 1j, 0 : 1 : shelf.width * 1j]
        (cx, cy), (sx, sy) = trial.rng.uniform(0.35, 0.65, 2), trial.rng.uniform(0.25, 0.4, 2)
        light = trial.rng.uniform(200, 255) * np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)
        trial.write(shelf, np.clip(image + light[..., None], 0, 255).astype(np.uint8))


def _tilted(trial: Trial) -> None:
    for shelf in trial.chosen:
        angle = trial.rng.uniform(12, 18) * trial.rng.choice([-1, 1])
        turn = cv2.getRotationMatrix2D((shelf.width / 2, shelf.height / 2), angle, 1.0)
        image = cv2.warpAffine(
            read_photo(shelf.path),
            turn,
            (shelf.width, shelf.height),
            borderMode=cv2.BORDER_REPLICATE,
        )
        for box in shelf.boxes:
            # A person draws around the product, whose middles of the sides these are about.
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            sides = (
                np.array([[box[0], y, 1], [box[2], y, 1], [x, box[1], 1], [x, box[3], 1]]) @ turn.T
            )
            box[:] = np.clip(
                [*sides.min(axis=0), *sides.max(axis=0)], 0, [shelf.width, shelf.height] * 2
            ).tolist()
        kept = [i for i, b in enumerate(shelf.boxes) if b[2] - b[0] > 4 and b[3] - b[1] > 4]
        shelf.boxes, shelf.classes = (
            [shelf.boxes[i] for i in kept],
            [shelf.classes[i] for i in kept],
        )
        shelf.ignore = [shelf.ignore[i] for i in kept]
        trial.write(shelf, image)


def _low_resolution(trial: Trial) -> None:
    for shelf in trial.chosen:
        scale = trial.rng.uniform(6, 10) / _side(shelf)
        small = cv2.resize(
            read_photo(shelf.path), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        shelf.boxes = (np.array(shelf.boxes) * scale).tolist()
        trial.write(shelf, small)


def _orientation(trial: Trial) -> None:
    for number, shelf in enumerate(trial.chosen):
        quarters, image = 1 + number % 3, read_photo(shelf.path)
        size = np.array([shelf.width, shelf.height] * 2)
        ratios = np.array(shelf.boxes) / size
        for _ in range(quarters):
            ratios = np.stack(
                [1 - ratios[:, 3], ratios[:, 0], 1 - ratios[:, 1], ratios[:, 2]], axis=1
            )
        # Half of them photo and labels together, half the labels alone.
        turned = np.rot90(image, -quarters) if number % 2 else image
        shelf.boxes = (ratios * ([turned.shape[1], turned.shape[0]] * 2)).tolist()
        trial.write(shelf, np.ascontiguousarray(turned))


def _no_boxes(trial: Trial) -> None:
    for shelf in trial.chosen:
        shelf.boxes, shelf.classes, shelf.ignore = [], [], []
        trial.planted.append((shelf.path.name, None))


def _unlike(trial: Trial) -> None:
    """Two of each sort: once there are half a dozen of one, they are no longer unlike the rest."""
    for number, shelf in enumerate(trial.chosen[:12]):
        trial.write(shelf, _other_picture(number % 6, shelf, trial.rng))


def _other_picture(which: int, shelf: Shelf, rng: np.random.Generator) -> np.ndarray:
    """What gets among shelf photos: noise, a landscape, a page of text, a wall, a floor, a close-up."""
    height, width = shelf.height, shelf.width
    image: np.ndarray = np.full((height, width, 3), 250, np.uint8)
    if which == 0:
        image = rng.integers(0, 256, image.shape, np.uint8)
    elif which == 1:
        image[:], image[height // 2 :] = (120, 170, 240), (60, 140, 50)
    elif which == 2:
        for y in range(20, height - 10, 18):
            cv2.putText(
                image,
                "the quick brown fox jumps over the lazy dog",
                (8, y),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.5,
                (0, 0, 0),
                1,
            )
    elif which == 3:
        image = cv2.GaussianBlur(rng.integers(150, 190, image.shape, np.uint8), (0, 0), 9)
    elif which == 4:
        squares = np.indices((height // 32 + 1, width // 32 + 1)).sum(axis=0) % 2
        image = (
            np.kron(squares, np.ones((32, 32)))[:height, :width, None].repeat(3, 2).astype(np.uint8)
            * 180
            + 40
        )
    else:
        left, top, right, bottom = np.array(shelf.boxes[0]).round().astype(int)
        image = cv2.resize(read_photo(shelf.path)[top:bottom, left:right], (width, height))
    return image


def _missing_photo(trial: Trial) -> None:
    for shelf in trial.chosen:
        shelf.path = shelf.path.with_name(f"gone-{shelf.path.name}")
        trial.planted.append((shelf.path.name, None))


def _broken_photo(trial: Trial) -> None:
    for number, shelf in enumerate(trial.chosen):
        data = encode_photo(read_photo(shelf.path))
        shelf.path = trial.folder / f"broken-{shelf.path.stem}.jpg"
        if number % 2:
            shelf.width += 20
        write_whole(
            shelf.path,
            data if number % 2 else data[: int(len(data) * trial.rng.uniform(0.3, 0.95))],
        )
        trial.planted.append((shelf.path.name, None))


def _copies(trial: Trial) -> list[Shelf]:
    """Copies of the chosen photos, pixels a little different."""
    copies = copy.deepcopy(trial.chosen)
    for shelf in copies:
        image = read_photo(shelf.path)
        scale = trial.rng.uniform(0.6, 0.95)
        lighter = np.clip(image * trial.rng.uniform(0.8, 1.2) + 5, 0, 255).astype(np.uint8)
        shelf.boxes = (np.array(shelf.boxes) * scale).tolist()
        shelf.path = trial.folder / f"copy-{shelf.path.stem}.jpg"
        small = cv2.resize(lighter, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        write_photo(shelf.path, small, 70)
        shelf.height, shelf.width = small.shape[:2]
    return copies


def _duplicate(trial: Trial) -> None:
    for shelf in copy.deepcopy(trial.chosen):
        trial.planted.append((shelf.path.name, None))
        copied = shelf.path.with_name(f"same-{shelf.path.name}")
        write_whole(copied, shelf.path.read_bytes())
        shelf.path = copied
        trial.shelves.append(shelf)


def _near_duplicate(trial: Trial) -> None:
    trial.planted += [(shelf.path.name, None) for shelf in trial.chosen]
    trial.shelves += _copies(trial)


def _leak(trial: Trial) -> None:
    trial.planted += [(shelf.path.name, None) for shelf in trial.chosen]
    trial.against += _copies(trial)


# ---------------------------------------------------------------- faults in boxes


def _any_box(shelf: Shelf, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(~np.array(shelf.ignore))))


def _label_fault(
    change: Callable[[list[float], Shelf, np.random.Generator], list[float]],
) -> Callable[[Trial], None]:
    """A fault that reading reports by the number of the annotation."""

    def plant(trial: Trial) -> None:
        for shelf in trial.chosen:
            i = _any_box(shelf, trial.rng)
            shelf.boxes[i] = change(shelf.boxes[i], shelf, trial.rng)
            before = sum(
                len(s.boxes)
                for s in trial.shelves[: next(n for n, s in enumerate(trial.shelves) if s is shelf)]
            )
            trial.planted.append((f"annotations[{before + i}]:", None))

    return plant


def _outside(box: list[float], shelf: Shelf, rng: np.random.Generator) -> list[float]:
    return [box[0] + shelf.width, box[1], box[2] + shelf.width, box[3]]


def _without_size(box: list[float], shelf: Shelf, rng: np.random.Generator) -> list[float]:
    return [box[0], box[1], box[0], box[1] + rng.uniform(0, 3)]


def _over_border(box: list[float], shelf: Shelf, rng: np.random.Generator) -> list[float]:
    return [box[0], box[1], shelf.width + 0.5 * (shelf.width - box[0]), box[3]]


def _doubled(trial: Trial) -> None:
    for number, shelf in enumerate(trial.chosen):
        i = _any_box(shelf, trial.rng)
        sides = np.array(
            [shelf.boxes[i][2] - shelf.boxes[i][0], shelf.boxes[i][3] - shelf.boxes[i][1]] * 2
        )
        again = np.array(shelf.boxes[i]) + trial.rng.uniform(-0.06, 0.06, 4) * sides
        again = np.clip(again, 0, [shelf.width, shelf.height] * 2)
        shelf.boxes.append(again.tolist())
        shelf.classes.append(
            shelf.classes[i] if number % 2 else shelf.classes[_any_box(shelf, trial.rng)]
        )
        shelf.ignore.append(False)
        trial.planted.append((shelf.path.name, _corners(again)))


def _inside_row(shelf: Shelf, rng: np.random.Generator) -> int | None:
    """A box with a labelled neighbour close by on each side, and a third in the row."""
    boxes = np.array(shelf.boxes)
    for i in rng.permutation(np.flatnonzero(~np.array(shelf.ignore))).tolist():
        width, height = boxes[i, 2:] - boxes[i, :2]
        common = np.minimum(boxes[:, 3], boxes[i, 3]) - np.maximum(boxes[:, 1], boxes[i, 1])
        row = (common > 0.6 * height) & ~np.array(shelf.ignore)
        aside = (boxes[:, 0] + boxes[:, 2] - boxes[i, 0] - boxes[i, 2]) / 2
        near = row & (np.abs(aside) < 1.4 * width)
        if (near & (aside > 0)).any() and (near & (aside < 0)).any() and row.sum() >= 4:
            return int(i)
    return None


def _oversized(trial: Trial) -> None:
    for shelf in trial.chosen:
        i = _inside_row(shelf, trial.rng)
        if i is None:
            continue
        box = np.array(shelf.boxes[i])
        middle, half = (
            (box[:2] + box[2:]) / 2,
            (box[2:] - box[:2]) / 2 * trial.rng.uniform(1.8, 2.2),
        )
        grown = np.clip([*(middle - half), *(middle + half)], 0, [shelf.width, shelf.height] * 2)
        shelf.boxes[i] = grown.tolist()
        trial.planted.append((shelf.path.name, _corners(grown)))


def _missing_box(trial: Trial) -> None:
    for shelf in trial.chosen:
        i = _inside_row(shelf, trial.rng)
        if i is None:
            continue
        trial.planted.append((shelf.path.name, _corners(np.array(shelf.boxes[i]))))
        del shelf.boxes[i], shelf.classes[i], shelf.ignore[i]


def _corners(box: np.ndarray) -> XYXY:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom


# ---------------------------------------------------------------- faults in classes and in the whole


def _misspelt(trial: Trial) -> None:
    """A slip in a word of five letters or more, in a twentieth of the boxes of each of some classes."""
    names = sorted(
        {
            name
            for shelf in trial.shelves
            for name in shelf.classes
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
        members = [(shelf, i) for shelf, i in trial.all_boxes() if shelf.classes[i] == name]
        if wrong == name or len(members) < 20:
            continue
        for member in trial.rng.permutation(len(members))[: len(members) // 20].tolist():
            shelf, i = members[member]
            shelf.classes[i] = wrong
        trial.planted.append((f"class '{wrong}' (", None))


def _junk(trial: Trial) -> None:
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
    for shelf, name in zip(trial.chosen, names, strict=False):
        shelf.classes[_any_box(shelf, trial.rng)] = name
        trial.planted.append((f"class '{name}' (", None))


def _few(trial: Trial) -> None:
    names = sorted({name for shelf in trial.shelves for name in shelf.classes})
    for name in trial.rng.permutation(names)[:4].tolist():
        members = [(shelf, i) for shelf, i in trial.all_boxes() if shelf.classes[i] == name]
        kept = set(trial.rng.permutation(len(members))[: int(trial.rng.integers(1, 20))].tolist())
        for number in sorted(set(range(len(members))) - kept, reverse=True):
            shelf, i = members[number]
            del shelf.boxes[i], shelf.classes[i], shelf.ignore[i]
        trial.planted.append((f"class '{name}' (", None))


def _imbalance(trial: Trial) -> None:
    number = Counter(name for shelf in trial.shelves for name in shelf.classes)
    common = number.most_common(1)[0][0]
    for shelf, i in reversed(trial.all_boxes()):
        if shelf.classes[i] != common and trial.rng.random() > 0.04:
            del shelf.boxes[i], shelf.classes[i], shelf.ignore[i]
    trial.planted.append((f"class '{common}' (", None))


def _anchors(trial: Trial) -> None:
    for shelf, i in trial.all_boxes():
        left, top, right, bottom = shelf.boxes[i]
        width, height = np.array([right - left, bottom - top]) * 2 ** trial.rng.uniform(-2, 1, 2)
        shelf.boxes[i] = [
            left,
            top,
            min(left + width, shelf.width),
            min(top + height, shelf.height),
        ]
    trial.planted.append(("anchors match", None))


FAULTS: dict[str, Callable[[Trial], None]] = {
    "missing-photo": _missing_photo,
    "broken-photo": _broken_photo,
    "orientation": _orientation,
    "leak": _leak,
    "duplicate": _duplicate,
    "near-duplicate": _near_duplicate,
    "misspelt-class": _misspelt,
    "junk-class": _junk,
    "few-examples": _few,
    "imbalance": _imbalance,
    "anchor-recall": _anchors,
    "unlike-the-rest": _unlike,
    "no-boxes": _no_boxes,
    "blurred": _blurred,
    "dark": _dark,
    "glare": _glare,
    "tilted": _tilted,
    "low-resolution": _low_resolution,
    "box-outside": _label_fault(_outside),
    "box-without-size": _label_fault(_without_size),
    "box-cut": _label_fault(_over_border),
    "doubled-box": _doubled,
    "oversized-box": _oversized,
    "missing-box": _missing_box,
}


# ---------------------------------------------------------------- measuring


def measure(dataset: Dataset, folder: Path, each: int, seed: int) -> dict[str, dict[str, Any]]:
    """Recall and precision of each kind.

    Args:
        dataset: Photos to put faults into.
        folder: For the damaged ones.
        each: Photos damaged for a kind, or classes for those on classes.
        seed: Of the choice and of the faults.

    Returns:
        Kind to ``{"planted", "found", "recall", "findings", "precision", "before", "precision_of_new"}``: `findings` are
        all of the kind on the damaged data, `before` those on the data as it is, which `precision_of_new` leaves out; a
        ratio without a denominator is null.
    """
    shelves = _copied(dataset, folder / "images")
    before = check_dataset(_read(shelves, folder / "before.json")).findings
    results = {}
    for number, kind in enumerate(FAULTS):
        rng = np.random.default_rng([seed, number])
        trial = Trial(folder / "images", copy.deepcopy(shelves), [], rng)
        fit = [shelf for shelf in trial.shelves if sum(not i for i in shelf.ignore) >= 4]
        trial.chosen = [fit[i] for i in rng.permutation(len(fit))[:each]]
        FAULTS[kind](trial)
        against = _read(trial.against, folder / "against.json") if trial.against else None
        findings = [
            f
            for f in check_dataset(_read(trial.shelves, folder / "labels.json"), against).findings
            if f.kind == kind
        ]
        found = sum(any(_names(f, *planted) for f in findings) for planted in trial.planted)
        right = [any(_names(f, *planted) for planted in trial.planted) for f in findings]
        old = {(f.file, f.box, f.message) for f in before if f.kind == kind}
        new = [
            good
            for f, good in zip(findings, right, strict=True)
            if good or (f.file, f.box, f.message) not in old
        ]
        results[kind] = {
            "planted": len(trial.planted),
            "found": found,
            "recall": _ratio(found, len(trial.planted)),
            "findings": len(findings),
            "precision": _ratio(sum(right), len(findings)),
            "before": len(old),
            "precision_of_new": _ratio(sum(new), len(new)),
        }
        print(f"{kind}: {results[kind]}", file=sys.stderr, flush=True)
    return results


def missing_indeed(dataset: Dataset, corrected: Dataset) -> Counter[str]:
    """What corrected labels say of the boxes that the check misses on the photos as they are.

    Returns:
        How many of the findings are ``right`` (a product was added there), ``untold`` (nobody can tell), or ``wrong``; and
        of the products ``added``, how many were ``found``.
    """
    before, after = (
        {photo.path.name: photo.truth for photo in data.photos} for data in (dataset, corrected)
    )
    said, met = Counter(dict.fromkeys(("right", "untold", "wrong"), 0)), set()
    for finding in (
        f for f in check_dataset(dataset).findings if f.kind == "missing-box" and f.file and f.box
    ):
        name, box = finding.file.name, np.array([finding.box])
        truth = after[name]
        overlap = np.where(truth.ignore, 0, box_math.iou(box, truth.boxes)[0])
        covered = (
            box_math.intersection(box, truth.boxes[truth.ignore]).max(initial=0)
            / box_math.area(box)[0]
        )
        if overlap.max(initial=0) >= FOUND_IOU:
            said["right"] += 1
            met.add((name, int(overlap.argmax())))
        else:
            said["untold" if covered >= 0.5 else "wrong"] += 1
    products = [sum(int((~truth.ignore).sum()) for truth in of.values()) for of in (before, after)]
    said.update(added=products[1] - products[0], found=len(met))
    return said


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def _names(finding: Finding, what: str, box: XYXY | None) -> bool:
    """Whether a finding is about what was put in."""
    files = [path.name for path in (finding.file, *finding.others) if path is not None]
    if what not in files and what not in finding.message:
        return False
    if box is None:
        return True
    return finding.box is not None and bool(
        box_math.iou(np.array([finding.box]), np.array([box]))[0, 0] >= FOUND_IOU
    )


def _copied(dataset: Dataset, folder: Path) -> list[Shelf]:
    shelves = []
    for photo in dataset.photos:
        path = folder / photo.path.name
        write_whole(path, photo.path.read_bytes())
        truth, names = photo.truth, [dataset.classes[i] for i in photo.truth.classes]
        shelves.append(
            Shelf(
                path, photo.width, photo.height, truth.boxes.tolist(), names, truth.ignore.tolist()
            )
        )
    return shelves


def _read(shelves: list[Shelf], path: Path) -> Dataset:
    """The shelves as `read` gives them, so that the check sees what it sees of a user's files."""
    classes = sorted({name for shelf in shelves for name in shelf.classes})
    annotations = [
        {
            "image_id": number,
            "category_id": classes.index(name),
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "iscrowd": int(ignore),
        }
        for number, shelf in enumerate(shelves)
        for box, name, ignore in zip(shelf.boxes, shelf.classes, shelf.ignore, strict=True)
    ]
    photos = [
        {"id": i, "file_name": f"images/{s.path.name}", "width": s.width, "height": s.height}
        for i, s in enumerate(shelves)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(classes)]
    write_whole(
        path, json.dumps({"images": photos, "annotations": annotations, "categories": categories})
    )
    return read_labels(path)


def main() -> None:
    """Measure on synthetic shelves and on the data named, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="*",
        default=[],
        help="labelled photos, joined; not those that the limits were chosen on",
    )
    parser.add_argument(
        "--corrections",
        type=Path,
        nargs="*",
        default=[],
        help="of each of the labels, in the same order",
    )
    parser.add_argument("--photos", type=int, default=80, help="synthetic photos (default: 80)")
    parser.add_argument("--each", type=int, default=12, help="faults of each kind (default: 12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.corrections and len(given.corrections) != len(given.data):
        parser.error(
            f"--corrections must be one for each of --data, got {len(given.corrections)} and {len(given.data)}"
        )
    cv2.setNumThreads(1)
    missing: Counter[str] = Counter()
    for labels, corrections in zip(
        given.data if given.corrections else [], given.corrections, strict=True
    ):
        dataset = read_labels(labels)
        missing.update(
            missing_indeed(dataset, correct_labels(dataset, read_corrections(corrections)))
        )
    sets: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as work:
        params = ShelfParams(width=640, height=480, rows=(3, 4), facings=(9, 14))
        synthetic = generate(
            Path(made) / "s", photos=given.photos, classes=12, seed=given.seed, params=params
        )
        for name, dataset in {"synthetic": synthetic, **_joined(given.data)}.items():
            kinds = measure(dataset, Path(work) / name.replace(" ", "-"), given.each, given.seed)
            sets[name] = {
                "photos": len(dataset),
                "boxes": dataset.boxes,
                "classes": len(dataset.classes),
                "kinds": kinds,
            }
    result = {"sets": sets, "each": given.each, "missing_boxes": dict(missing) or None}
    write_whole(
        given.out, json.dumps({**result, "stamp": stamp(seed=given.seed, threads=1)}, indent=1)
    )


def _joined(paths: list[Path]) -> dict[str, Dataset]:
    if not paths:
        return {}
    parts = [read_labels(path) for path in paths]
    classes = {part.classes for part in parts}
    if len(classes) > 1:
        raise SystemExit(f"the data must have the same classes, got {len(classes)} lists of them")
    name = " ".join([paths[0].resolve().parent.name, *(path.stem for path in paths)])
    return {
        name: Dataset(
            parts[0].classes, tuple(photo for part in parts for photo in part.photos), name=name
        )
    }


if __name__ == "__main__":
    main()
