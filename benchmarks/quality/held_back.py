"""What F1 on the drinks test photos is held back by: classes, pairs of classes, photos and labels, in figures and pictures.

    python benchmarks/quality/held_back.py BUNDLE DRINKS_FOLDER

Counts against the corrected labels, and says how many of the products that are wrong carried another name, or none, in the
labels as published. What more examples of a class would give comes from the learning curves of benchmarks/results/repeats.json,
where they were measured. Writes benchmarks/results/held_back.json, held_back_names.jpg and held_back_photos.jpg.
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

from shelfcount.cli import open_low
from shelfcount.console import bar
from shelfcount.data.corrections import apply, read_corrections
from shelfcount.data.formats import aligned, fingerprint, read
from shelfcount.evaluation.confusions import Confusion, confusions, needs
from shelfcount.evaluation.metrics import Evaluation, match, run, score
from shelfcount.records import Dataset, Detections
from shelfcount.report.crops import crop, examples, photo_at
from shelfcount.report.pictures import MISSED, Mark, annotate
from shelfcount.stamp import stamp
from shelfcount.vision.boxes import iou
from shelfcount.vision.images import write_photo, write_whole

BENCHMARKS = Path(__file__).parents[1]
# Of the test photos: pairs and photos shown, and crops of each pair and of the class that was reported.
PAIRS, PHOTOS, CLASSES, CROPS, EXAMPLES = 6, 2, 10, 3, 2
SURROUNDINGS = 2.2
# A product of the labels as published at the place of a corrected one.
SAME_PRODUCT_IOU = 0.5


def unsure_labels(
    corrected: Dataset, published: Dataset, found: Sequence[Detections], threshold: float
) -> dict[str, int]:
    """Products missed or misnamed, and how many of them carried the same name in the labels as published."""
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
    """Each photo's F1 and what it loses, those that lose most first."""
    rows = [
        {
            "photo": row.path.name,
            "products": s.truth,
            "f1": round(s.f1, 4),
            "missed or misnamed": s.truth - s.tp,
            "false": s.found - s.tp,
        }
        for row in evaluation.photos
        for s in [row.score]
    ]
    return sorted(rows, key=lambda row: -(row["missed or misnamed"] + row["false"]))


def names_picture(pairs: Sequence[Confusion], dataset: Dataset) -> bytes:
    """A row for each pair: products under their wrong names, then products of the class that was reported, as JPEG."""
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
            [*shown, *[None] * (CROPS - len(shown)), *examples(dataset, pair.reported, EXAMPLES)],
            strict=False,
        ):
            if picture is not None:
                place.imshow(picture)
        row[0].set_title(
            f"{true}, reported as {reported}: {len(pair.mistakes)} of {pair.products}",
            loc="left",
            fontsize=10,
        )
        row[CROPS].set_title(f"labelled {reported}", loc="left", fontsize=10)
    for place in places.ravel():
        # Titles of a row at one height, whatever its pictures' shapes.
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
    """The photos that lose most, side by side, with what is missed and what is false; (H, W, 3) uint8 RGB."""
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
    """Evaluate, and write the result and its pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("drinks", type=Path)
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "results")
    options = parser.parse_args()
    detector, threshold, facts = open_low(options.bundle, 1)
    parts = {name: read(str(options.drinks / f"{name}.json")) for name in ("train", "test")}
    fixed = {
        name: apply(of, read_corrections(BENCHMARKS / "data" / f"drinks_{name}_corrections.json"))
        for name, of in parts.items()
    }
    published, corrected = aligned(parts["test"], fixed["test"])
    learnt = aligned(fixed["train"], corrected)[0]
    with bar("evaluating") as advance:
        found = run(detector, corrected, progress=advance)
    evaluation = score(corrected, found, threshold)
    pairs = confusions(corrected, found, threshold)
    trained = Detections.concat([photo.truth for photo in learnt.photos]).counts(learnt.classes)
    photos = photo_rows(evaluation)
    repeated = BENCHMARKS / "results" / "repeats.json"
    curves = json.loads(repeated.read_text()).get("learning_curves") if repeated.exists() else None
    result = {
        "model": facts,
        "data": {
            "name": Path(published.name).name,
            "fingerprint": fingerprint(corrected),
            "photos": len(corrected),
        },
        "f1": evaluation.micro.f1,
        "f1_class_ignored": evaluation.any_class.f1,
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
                "surely": pair.sure,
                "photos": list(pair.photos),
            }
            for pair in pairs
        ],
        "photos": photos,
        "labels": unsure_labels(corrected, published, found, threshold),
        "stamp": stamp(threads=1),
    }
    write_whole(options.out / "held_back.json", json.dumps(result, indent=1, default=int) + "\n")
    write_whole(options.out / "held_back_names.jpg", names_picture(pairs[:PAIRS], corrected))
    write_photo(
        options.out / "held_back_photos.jpg",
        photos_picture(photos[:PHOTOS], corrected, found, threshold),
        quality=80,
    )
    for pair in result["pairs"][:PAIRS]:
        print(
            f"{pair['true']} reported as {pair['reported']}: {pair['mistakes']} of {pair['products']}"
        )
    print(json.dumps(result["labels"]))


if __name__ == "__main__":
    main()
