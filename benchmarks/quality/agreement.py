"""Measure whether annotator agreement recovers known error rates, and the quality of drinks labels.

Simulated annotators with known error rates annotate synthetic photos: each misses products, gives
some another class and draws inexact boxes, at random. In one half of the rows the first annotator
is exact, in the other both make independent errors at the same rate. `shelfcount.data.agreement`
must recover these rates. With ``--data`` and ``--corrections``, the published labels are compared
with the corrected ones, for each pair of files and for all photos together.

    python benchmarks/quality/agreement.py
        [--data LABELS.json --corrections LABELS_corrections.json]...
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.data.datasets import fingerprint
from shelfcount.data.formats import read_labels
from shelfcount.files import write_json
from shelfcount.labels.agreement import compare_labellings
from shelfcount.labels.agreement_scores import Agreement, interval
from shelfcount.labels.corrections import correct_labels, read_corrections
from shelfcount.records import Dataset, Detections, Photo
from shelfcount.stamp import stamp
from shelfcount.synthetic.generation import generate
from shelfcount.vision.boxes import clip

RESULT = Path(__file__).parents[1] / "results" / "agreement.json"
FAULTS = ("missed", "misnamed", "edge")
# A careful, an average and a hasty annotator. Edge errors are shares of the box's side.
LEVELS = (
    {"missed": 0.01, "misnamed": 0.01, "edge": 0.01},
    {"missed": 0.05, "misnamed": 0.03, "edge": 0.03},
)
LEVELS += ({"missed": 0.15, "misnamed": 0.10, "edge": 0.05},)


def labeller(
    dataset: Dataset, rng: np.random.Generator, missed: float, misnamed: float, edge: float
) -> Dataset:
    """Return the labels of an annotator who makes random errors.

    Args:
        dataset: Photos with their true labels.
        rng: Random generator of the errors.
        missed: Share of the products that are left out.
        misnamed: Share of the others that get another class, all with the same probability.
        edge: Standard deviation of the edges, as a share of the box's width or height.
    """
    return dataclasses.replace(
        dataset,
        photos=tuple(
            _labelled(photo, len(dataset.classes), rng, missed, misnamed, edge)
            for photo in dataset.photos
        ),
    )


def _labelled(
    photo: Photo,
    classes: int,
    rng: np.random.Generator,
    missed: float,
    misnamed: float,
    edge: float,
) -> Photo:
    truth = photo.truth[~photo.truth.ignore]
    truth = truth[rng.random(len(truth)) >= missed]
    sides = np.tile(truth.boxes[:, 2:] - truth.boxes[:, :2], 2)
    boxes = clip(
        truth.boxes + rng.normal(0, edge, truth.boxes.shape) * sides, photo.width, photo.height
    )
    other = (truth.classes + rng.integers(1, classes, len(truth))) % classes
    named = np.where(rng.random(len(truth)) < misnamed, other, truth.classes)
    return dataclasses.replace(photo, truth=Detections(boxes, named))


def recovered(dataset: Dataset, repeats: int, seed: int) -> list[dict[str, Any]]:
    """Return planted and estimated error rates, for each level and for one or both annotators."""
    rng = np.random.default_rng(seed)
    rows = []
    for planted in LEVELS:
        for who in ("second", "each"):
            found = []
            for _ in range(repeats):
                first = labeller(dataset, rng, **planted) if who == "each" else dataset
                found.append(
                    compare_labellings(first, labeller(dataset, rng, **planted)).errors()[who]
                )
            values = {name: [float(errors[name]) for errors in found] for name in FAULTS}
            means = {name: float(np.mean(rates)) for name, rates in values.items()}
            rows.append(
                {
                    "errs": who,
                    "planted": planted,
                    "found": means,
                    "sd": {name: float(np.std(rates, ddof=1)) for name, rates in values.items()},
                }
            )
    return rows


def real(labels: Sequence[Path], corrections: Sequence[Path], seed: int) -> dict[str, Any]:
    """Compare published and corrected labels, for each file and for all photos together."""
    rng = np.random.default_rng(seed)
    agreements: dict[str, Agreement] = {}
    versions = {}
    for path, correction in zip(labels, corrections, strict=True):
        published = read_labels(path)
        corrected = correct_labels(published, read_corrections(correction))
        agreements[path.name] = compare_labellings(published, corrected, rng)
        versions[path.name] = {
            "published": fingerprint(published),
            "corrected": fingerprint(corrected),
        }
    if len({a.classes for a in agreements.values()}) > 1:
        raise SystemExit("the data sets have different classes, so they cannot be joined")
    parts = list(agreements.values())
    if len(parts) > 1:
        photos = tuple(photo for part in parts for photo in part.photos)
        agreements["all"] = Agreement(
            ("published", "corrected"), parts[0].classes, photos, interval=interval(photos, rng)
        )
    rows = {
        name: {"fingerprints": versions.get(name), **agreement.to_json()}
        for name, agreement in agreements.items()
    }
    # Its photos are in the other rows already.
    rows.get("all", {}).pop("per_photo", None)
    return rows


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        help="Published labels. May be repeated.",
    )
    parser.add_argument(
        "--corrections",
        type=Path,
        action="append",
        default=[],
        help="Corrections of each --data, in the same order.",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=20,
        help="Pairs of simulated annotators at each level. Default: 20.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Random seed. Default: 0.")
    parser.add_argument("--out", type=Path, default=RESULT, help="Result to write.")
    given = parser.parse_args()
    if len(given.data) != len(given.corrections):
        parser.error(
            f"{len(given.data)} --data and {len(given.corrections)} --corrections were given. "
            "Each --data needs its --corrections."
        )
    with tempfile.TemporaryDirectory() as folder:
        known = generate(Path(folder) / "shelves", photos=24, classes=12, seed=given.seed)
        simulated = {
            "photos": len(known),
            "products": known.boxes,
            "classes": len(known.classes),
            "repeats": given.repeats,
        }
        simulated["levels"] = recovered(known, given.repeats, given.seed)
    result = {"simulated": simulated, "real": real(given.data, given.corrections, given.seed)}
    write_json(given.out, {**result, "stamp": stamp(seed=given.seed, threads=1)})
    for row in simulated["levels"]:
        shown = ", ".join(
            f"{name} {row['planted'][name]:.3f} as {row['found'][name]:.4f}" for name in FAULTS
        )
        print(f"errors of {row['errs']}: {shown}", file=sys.stderr)


if __name__ == "__main__":
    main()
