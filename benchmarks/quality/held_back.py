"""Analyse the errors on the drinks test photos by class, confused pair, photo and label.

    python benchmarks/quality/held_back.py BUNDLE DRINKS_FOLDER

Errors are counted against the corrected labels. The result also contains how many of the wrong
products have the same class in the published labels. The gain of more training examples comes from
the learning curves in benchmarks/results/repeats.json, if they were measured. Writes
benchmarks/results/held_back.json, held_back_names.jpg and held_back_photos.jpg.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from shelfcount.cli.console import progress_bar
from shelfcount.data.datasets import align_classes, fingerprint
from shelfcount.data.formats import read_labels
from shelfcount.drawing.crops import crop, example_crops, photo_at
from shelfcount.drawing.marks import MISSED, Mark
from shelfcount.drawing.pictures import annotate
from shelfcount.files import write_whole
from shelfcount.labels.corrections import correct_labels, read_corrections
from shelfcount.metrics.confusions import Confusion, confusions, needs
from shelfcount.metrics.evaluate import detect_dataset
from shelfcount.metrics.matching import match
from shelfcount.metrics.scoring import Evaluation, score
from shelfcount.records import Dataset, Detections
from shelfcount.stamp import stamp
from shelfcount.training.opening import open_model
from shelfcount.vision.boxes import iou
from shelfcount.vision.images import write_photo

BENCHMARKS = Path(__file__).parents[1]
# Numbers of confused pairs and photos in the pictures, of crops of each pair, and of examples of
# the predicted class.
PAIRS, PHOTOS, CROPS, EXAMPLES = 6, 2, 3, 2
SURROUNDINGS = 2.2
# IoU from which a published label and a corrected one are the same product.
SAME_PRODUCT_IOU = 0.5


def unsure_labels(
    corrected: Dataset, published: Dataset, found: Sequence[Detections], threshold: float
) -> dict[str, int]:
    """Count missed or confused products, and those with the same class in the published labels."""
    wrong = agreed = products = 0
    for photo, old, low in zip(corrected.photos, published.photos, found, strict=True):
        truth = photo.truth
        lost = np.flatnonzero(match(truth, low[low.scores >= threshold]).missed)
        wrong += len(lost)
        products += int((~truth.ignore).sum())
        overlap = iou(truth.boxes[lost], old.truth.boxes)
        same = truth.classes[lost][:, None] == old.truth.classes[None]
        agreed += int(((overlap >= SAME_PRODUCT_IOU) & same).any(axis=1).sum())
    return {"products": products, "lost": wrong, "lost_with_the_same_label_as_published": agreed}


def photo_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return F1 and numbers of errors of each photo, sorted by errors in descending order."""
    rows = [
        {
            "photo": row.path.name,
            "products": s.truth,
            "f1": round(s.f1, 4),
            "missed or misnamed": s.truth - s.tp,
            "false": s.predicted - s.tp,
        }
        for row in evaluation.photos
        for s in [row.score]
    ]
    return sorted(rows, key=lambda row: -(row["missed or misnamed"] + row["false"]))


def names_picture(pairs: Sequence[Confusion], dataset: Dataset) -> bytes:
    """Draw a row for each pair: confused products, and examples of the predicted class, as JPEG."""
    figure, places = plt.subplots(
        len(pairs), CROPS + EXAMPLES, figsize=(10, 2.15 * len(pairs)), squeeze=False
    )
    for row, pair in zip(places, pairs, strict=True):
        true, reported = dataset.classes[pair.true], dataset.classes[pair.reported]
        shown = [
            crop(
                photo_at(m.photo.path), m.box, [Mark(m.box, MISSED, f"{m.score:.2f}")], SURROUNDINGS
            )
            for m in pair.mistakes[:CROPS]
        ]
        for place, picture in zip(
            row,
            [
                *shown,
                *[None] * (CROPS - len(shown)),
                *example_crops(dataset, pair.reported, EXAMPLES),
            ],
            strict=False,
        ):
            if picture is not None:
                place.imshow(picture)
        row[0].set_title(
            f"{true}, predicted as {reported}: {len(pair.mistakes)} of {pair.products}",
            loc="left",
            fontsize=10,
        )
        row[CROPS].set_title(f"labelled {reported}", loc="left", fontsize=10)
    for place in places.ravel():
        # Titles of a row are at the same height for pictures of any shape.
        place.set_adjustable("datalim")
        place.set_axis_off()
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    plt.close(figure)
    jpeg = io.BytesIO()
    Image.open(drawn).convert("RGB").save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()


def photos_picture(
    rows: Sequence[dict[str, Any]], dataset: Dataset, found: Sequence[Detections], threshold: float
) -> np.ndarray:
    """Draw the photos with most errors side by side, as (H, W, 3) uint8 RGB."""
    pictures = []
    for row in rows:
        i = next(i for i, photo in enumerate(dataset.photos) if photo.path.name == row["photo"])
        kept = found[i][found[i].scores >= threshold]
        pictures.append(
            annotate(
                photo_at(dataset.photos[i].path),
                kept,
                dataset.classes,
                truth=dataset.photos[i].truth,
            )
        )
    height = min(picture.shape[0] for picture in pictures)
    same = [
        cv2.resize(
            p, (round(p.shape[1] * height / p.shape[0]), height), interpolation=cv2.INTER_AREA
        )
        for p in pictures
    ]
    return np.concatenate(same, axis=1)


def main() -> None:
    """Evaluate the bundle, and write the result and its pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="Bundle or run to analyse.")
    parser.add_argument("drinks", type=Path, help="Folder of the drinks photos.")
    parser.add_argument(
        "--out", type=Path, default=BENCHMARKS / "results", help="Folder to write to."
    )
    options = parser.parse_args()
    opened = open_model(options.bundle, threads=1)
    parts = {name: read_labels(str(options.drinks / f"{name}.json")) for name in ("train", "test")}
    fixed = {
        name: correct_labels(
            part, read_corrections(BENCHMARKS / "data" / f"drinks_{name}_corrections.json")
        )
        for name, part in parts.items()
    }
    published, corrected = align_classes(parts["test"], fixed["test"])
    learnt = align_classes(fixed["train"], corrected)[0]
    with progress_bar("evaluating") as advance:
        found = detect_dataset(opened.detector, corrected, progress=advance)
    evaluation = score(corrected, found, opened.threshold)
    pairs = confusions(corrected, found, opened.threshold)
    trained = Detections.concat([photo.truth for photo in learnt.photos]).counts(learnt.classes)
    photos = photo_rows(evaluation)
    repeated = BENCHMARKS / "results" / "repeats.json"
    curves = json.loads(repeated.read_text()).get("learning_curves") if repeated.exists() else None
    result = {
        "model": dict(opened.facts),
        "data": {
            "name": Path(published.name).name,
            "fingerprint": fingerprint(corrected),
            "photos": len(corrected),
        },
        "f1": evaluation.micro.f1,
        "f1_class_ignored": evaluation.class_agnostic.f1,
        "classes": [
            vars(need)
            for need in sorted(
                needs(corrected.classes, evaluation.confusion, trained, curves),
                key=lambda n: -n.bound,
            )
        ],
        "pairs": [
            {
                "true": corrected.classes[pair.true],
                "reported": corrected.classes[pair.reported],
                "mistakes": len(pair.mistakes),
                "products": pair.products,
                "confident": pair.confident,
                "photos": list(pair.photos),
            }
            for pair in pairs
        ],
        "photos": photos,
        "labels": unsure_labels(corrected, published, found, opened.threshold),
        "stamp": stamp(threads=1),
    }
    write_whole(options.out / "held_back.json", json.dumps(result, indent=1, default=int) + "\n")
    write_whole(options.out / "held_back_names.jpg", names_picture(pairs[:PAIRS], corrected))
    write_photo(
        options.out / "held_back_photos.jpg",
        photos_picture(photos[:PHOTOS], corrected, found, opened.threshold),
        quality=80,
    )
    for pair in result["pairs"][:PAIRS]:
        print(f"{pair['true']} as {pair['reported']}: {pair['mistakes']} of {pair['products']}")
    print(json.dumps(result["labels"]))


if __name__ == "__main__":
    main()
