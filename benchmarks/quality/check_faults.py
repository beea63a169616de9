"""Measure how many planted faults `shelfcount check` finds, and how many of its findings are right.

Faults of one kind at a time are planted in random photos. `check` runs on all photos, and its
findings of that kind are compared with the planted faults. Labels of synthetic photos are exact, so
every other finding there is a false positive. Real photos have faults of their own: `before` counts
the findings on the unchanged photos.

With ``--corrections``, one file for each of the labels, findings of missing boxes on the unchanged
photos are compared with the corrections, for which every photo was looked at.

    python benchmarks/quality/check_faults.py [--data LABELS.json ...]
        [--corrections LABELS_corrections.json ...]
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from faulty_labels import LabelledPhoto, Trial
from planted_faults import FAULTS

from shelfcount.checks.check import check_dataset
from shelfcount.checks.findings import Finding
from shelfcount.data.formats import read_labels
from shelfcount.data.stated_labels import XYXY
from shelfcount.files import write_json, write_whole
from shelfcount.labels.corrections import correct_labels, read_corrections
from shelfcount.records import Dataset
from shelfcount.stamp import stamp
from shelfcount.synthetic.generation import generate
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.vision import boxes as box_math

RESULT = Path(__file__).parents[1] / "results" / "check_faults.json"
# IoU from which a finding and a planted fault are about the same product.
FOUND_IOU = 0.4


# ---------------------------------------------------------------- measuring


def measure(dataset: Dataset, folder: Path, each: int, seed: int) -> dict[str, dict[str, Any]]:
    """Plant faults and return recall and precision of each kind.

    Args:
        dataset: Photos to plant faults in.
        folder: Folder for the damaged photos.
        each: Number of faults of each kind.
        seed: Random seed of the choice and of the faults.

    Returns:
        By kind, a dictionary with the keys ``planted``, ``found``, ``recall``, ``findings``,
        ``precision``, ``before`` and ``precision_of_new``. `findings` are those of the kind on the
        damaged photos and `before` those on the unchanged ones, which `precision_of_new` leaves
        out. A ratio without a denominator is None.
    """
    unchanged = _copied(dataset, folder / "images")
    before = check_dataset(_read(unchanged, folder / "before.json")).findings
    results = {}
    for number, kind in enumerate(FAULTS):
        rng = np.random.default_rng([seed, number])
        trial = Trial(folder / "images", copy.deepcopy(unchanged), [], rng)
        fit = [photo for photo in trial.photos if sum(not i for i in photo.ignore) >= 4]
        trial.chosen = [fit[i] for i in rng.permutation(len(fit))[:each]]
        FAULTS[kind](trial)
        against = _read(trial.against, folder / "against.json") if trial.against else None
        findings = [
            f
            for f in check_dataset(_read(trial.photos, folder / "labels.json"), against).findings
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
    """Compare findings of missing boxes on the unchanged photos with the corrected labels.

    Returns:
        Numbers of findings that are ``right`` (a product was added there), ``untold`` (the area is
        ignored) or ``wrong``, of products that were ``added``, and of those that were ``found``.
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
    """Return whether a finding is about a planted fault."""
    files = [path.name for path in (finding.file, *finding.others) if path is not None]
    if what not in files and what not in finding.message:
        return False
    if box is None:
        return True
    return finding.box is not None and bool(
        box_math.iou(np.array([finding.box]), np.array([box]))[0, 0] >= FOUND_IOU
    )


def _copied(dataset: Dataset, folder: Path) -> list[LabelledPhoto]:
    photos = []
    for photo in dataset.photos:
        path = folder / photo.path.name
        write_whole(path, photo.path.read_bytes())
        truth, names = photo.truth, [dataset.classes[i] for i in photo.truth.classes]
        photos.append(
            LabelledPhoto(
                path, photo.width, photo.height, truth.boxes.tolist(), names, truth.ignore.tolist()
            )
        )
    return photos


def _read(photos: list[LabelledPhoto], path: Path) -> Dataset:
    """Write and read the photos, so that `check` gets them as from a user's files."""
    classes = sorted({name for photo in photos for name in photo.classes})
    annotations = [
        {
            "image_id": number,
            "category_id": classes.index(name),
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "iscrowd": int(ignore),
        }
        for number, photo in enumerate(photos)
        for box, name, ignore in zip(photo.boxes, photo.classes, photo.ignore, strict=True)
    ]
    images = [
        {"id": i, "file_name": f"images/{s.path.name}", "width": s.width, "height": s.height}
        for i, s in enumerate(photos)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(classes)]
    write_whole(
        path, json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return read_labels(path)


def main() -> None:
    """Measure on synthetic photos and on the given data, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="*",
        default=[],
        help="Labelled photos, which are joined. The limits must not have been chosen on them.",
    )
    parser.add_argument(
        "--corrections",
        type=Path,
        nargs="*",
        default=[],
        help="Corrections of each of the labels, in the same order.",
    )
    parser.add_argument(
        "--photos", type=int, default=80, help="Number of synthetic photos. Default: 80."
    )
    parser.add_argument("--each", type=int, default=12, help="Faults of each kind. Default: 12.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed. Default: 0.")
    parser.add_argument("--out", type=Path, default=RESULT, help="Result to write.")
    given = parser.parse_args()
    if given.corrections and len(given.corrections) != len(given.data):
        parser.error(
            f"{len(given.data)} files of --data and {len(given.corrections)} of --corrections were "
            "given. Each file of --data needs its corrections."
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
    write_json(given.out, {**result, "stamp": stamp(seed=given.seed, threads=1)})


def _joined(paths: list[Path]) -> dict[str, Dataset]:
    if not paths:
        return {}
    parts = [read_labels(path) for path in paths]
    classes = {part.classes for part in parts}
    if len(classes) > 1:
        raise SystemExit("the data sets have different classes, so they cannot be joined")
    name = " ".join([paths[0].resolve().parent.name, *(path.stem for path in paths)])
    return {
        name: Dataset(
            parts[0].classes, tuple(photo for part in parts for photo in part.photos), name=name
        )
    }


if __name__ == "__main__":
    main()
