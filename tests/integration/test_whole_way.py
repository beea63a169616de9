"""The whole way through the real command line: photos, training, bundle, counts."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from shelfcount.data.formats import read, write_coco
from shelfcount.vision.images import read_photo

pytestmark = pytest.mark.slow


def shelfcount(*arguments: object) -> str:
    """Standard output of a verb in a process of its own, which must be good."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("shelfcount")), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def settings(changes: Sequence[str]) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def test_synthetic_shelves_to_counts(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    shelfcount("synth", "--out", tmp_path / "shelves", "--photos", 10, "--classes", 3, "--size", "256x192", "--facings", "4-5", "--workers", 1)
    labels = tmp_path / "shelves" / "labels.json"
    shelfcount("train", "--data", labels, "--out", tmp_path / "run", *settings((*tiny, "train.epochs=8", "train.validate_every=4")))
    told = shelfcount("export", tmp_path / "run", "--out", tmp_path / "phone", "--recipe", "int8")
    assert "drop" in told
    assert "good: " in shelfcount("verify", tmp_path / "phone")

    shelfcount("evaluate", tmp_path / "phone", "--data", labels, "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    photos = sorted((tmp_path / "shelves" / "images").glob("*.jpg"))[:3]
    outputs = ("--json", tmp_path / "counts.json", "--csv", tmp_path / "counts.csv", "--picture", tmp_path / "pictures")
    told = shelfcount("count", tmp_path / "phone", *photos, *outputs)
    counts = json.loads((tmp_path / "counts.json").read_text())
    # One bundle from the first to the last file.
    assert scores["model"]["sha256"] == counts["bundle"]["sha256"]
    products = [item for photo in counts["photos"] for item in photo["detections"]]
    with (tmp_path / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [item["class"] for item in products]
    assert sum(n for photo in counts["photos"] for n in photo["counts"].values()) == len(products)
    assert f"{len(products)} products on 3 photos" in told
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == [p.name for p in photos]
    for path in photos:
        assert read_photo(tmp_path / "pictures" / path.name).size >= read_photo(path).size


@pytest.mark.parametrize(
    ("name", "photos", "boxes"),
    # Counted in the files themselves.
    [("train.json", None, None), ("val.json", None, None), ("test.json", None, None), ("raw.json", None, None)],
)
def test_real_photos_are_read_without_loss(drinks: Path, name: str, photos: int, boxes: int) -> None:
    stated = json.loads((drinks / name).read_text())
    data = read(drinks / name)
    assert data.dropped == ()
    assert len(data) == len(stated["images"])
    assert data.boxes == len(stated["annotations"])


def test_real_photos_to_a_phone_model(drinks: Path, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    training, validation = tmp_path / "images" / "train.json", tmp_path / "images" / "val.json"
    (tmp_path / "images").symlink_to(drinks / "images", target_is_directory=True)
    write_coco(read(drinks / "train.json").subset(range(16)), training)
    write_coco(read(drinks / "val.json").subset(range(4)), validation)
