"""End-to-end tests with the real command line: photos, training, bundle, counts."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from shelfcount.data.formats import read_labels
from shelfcount.vision.images import read_photo

pytestmark = pytest.mark.slow


def shelfcount(*arguments: object) -> str:
    """Run a command in its own process, which must succeed, and return its standard output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("shelfcount")), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def settings(changes: Sequence[str]) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def test_synthetic_shelves_to_counts(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    shelfcount(
        "synth",
        "--out",
        tmp_path / "shelves",
        "--photos",
        10,
        "--classes",
        3,
        "--size",
        "256x192",
        "--facings",
        "4-5",
        "--workers",
        1,
    )
    labels = tmp_path / "shelves" / "labels.json"
    shelfcount(
        "train",
        "--data",
        labels,
        "--out",
        tmp_path / "run",
        *settings((*tiny, "train.epochs=8", "train.validate_every=4")),
    )
    output = shelfcount("export", tmp_path / "run", "--out", tmp_path / "phone", "--recipe", "int8")
    assert "drop" in output
    assert "good: " in shelfcount("verify", tmp_path / "phone")

    shelfcount("evaluate", tmp_path / "phone", "--data", labels, "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    photos = sorted((tmp_path / "shelves" / "images").glob("*.jpg"))[:3]
    outputs = (
        "--json",
        tmp_path / "counts.json",
        "--csv",
        tmp_path / "counts.csv",
        "--picture",
        tmp_path / "pictures",
    )
    output = shelfcount("count", tmp_path / "phone", *photos, *outputs)
    counts = json.loads((tmp_path / "counts.json").read_text())
    # Both files name the same bundle.
    assert scores["model"]["sha256"] == counts["bundle"]["sha256"]
    products = [item for photo in counts["photos"] for item in photo["detections"]]
    with (tmp_path / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [item["class"] for item in products]
    assert sum(n for photo in counts["photos"] for n in photo["counts"].values()) == len(products)
    assert f"{len(products)} products on 3 photos" in output
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == [p.name for p in photos]
    for path in photos:
        assert read_photo(tmp_path / "pictures" / path.name).size >= read_photo(path).size


# Numbers of the README of the data set. Its 7,387 boxes are those of train, val and test. raw.json
# has two more, which belong to the classes that were removed from the other files.
@pytest.mark.parametrize(
    ("name", "photos", "boxes", "classes"),
    [
        ("train.json", 180, 5285, 33),
        ("val.json", 24, 670, 33),
        ("test.json", 40, 1432, 33),
        ("raw.json", 244, 7389, 37),
    ],
)
def test_real_photos_are_read_and_nothing_dropped(
    drinks: Path, name: str, photos: int, boxes: int, classes: int
) -> None:
    data = read_labels(drinks / name)
    assert (len(data), data.boxes, len(data.classes), data.dropped) == (photos, boxes, classes, ())


def part(source: Path, target: Path, photos: int) -> None:
    """Copy the first photos of a COCO file and their labels."""
    labels = json.loads(source.read_text())
    labels["images"] = labels["images"][:photos]
    kept = {image["id"] for image in labels["images"]}
    labels["annotations"] = [a for a in labels["annotations"] if a["image_id"] in kept]
    for image in labels["images"]:
        copy = target.parent / image["file_name"]
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(source.parent / image["file_name"], copy)
    target.write_text(json.dumps(labels))


def test_real_photos_to_a_phone_model(drinks: Path, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    part(drinks / "train.json", tmp_path / "train.json", 16)
    part(drinks / "val.json", tmp_path / "val.json", 4)
    data = ("--data", tmp_path / "train.json", "--val", tmp_path / "val.json")
    shelfcount("train", *data, "--out", tmp_path / "run", *settings((*tiny, "train.epochs=1")))
    shelfcount("export", tmp_path / "run", "--out", tmp_path / "phone", "--recipe", "float32")
    photo = next((tmp_path / "images").iterdir())
    shelfcount("count", tmp_path / "phone", photo, "--json", tmp_path / "counts.json")
    bundle = json.loads((tmp_path / "phone" / "model.json").read_text())
    assert len(bundle["spec"]["classes"]) == 33
    # One epoch is not enough to learn anything. The file must only agree with PyTorch.
    assert abs(bundle["measured"]["f1"] - bundle["measured"]["f1_pytorch"]) < 0.05
    (counted,) = json.loads((tmp_path / "counts.json").read_text())["photos"]
    assert (counted["width"], counted["height"]) == (416, 416)
