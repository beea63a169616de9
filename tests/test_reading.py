"""Tests of reading labels together with their corrections."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from shelfcount.data.coco import write_coco
from shelfcount.data.datasets import fingerprint
from shelfcount.data.formats import read_labels
from shelfcount.labels.corrections import Correction, Corrections, write_corrections
from shelfcount.labels.reading import read_corrected
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError

FIRST, SECOND = (10.0, 10.0, 20.0, 40.0), (40.0, 10.0, 20.0, 40.0)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """One photo with a cola and a tea."""
    Image.new("RGB", (120, 60)).save(tmp_path / "a.jpg")
    truth = Detections([[10, 10, 30, 50], [40, 10, 60, 50]], [0, 1])
    photo = Photo(tmp_path / "a.jpg", 120, 60, truth)
    write_coco(Dataset(("cola", "tea"), (photo,)), tmp_path / "labels.json")
    return tmp_path / "labels.json"


def write(path: Path, labels: Path, *corrections: Correction, name: str = "labels.json") -> Path:
    write_corrections(Corrections(name, fingerprint(read_labels(labels)), corrections), path)
    return path


def test_several_files_of_corrections_to_the_same_labels_are_merged(
    labels: Path, tmp_path: Path
) -> None:
    one = write(tmp_path / "1.json", labels, Correction("a.jpg", "remove", FIRST, "no", "cola"))
    two = write(
        tmp_path / "2.json",
        labels,
        Correction("a.jpg", "remove", FIRST, "not there", "cola"),
        Correction("a.jpg", "rename", SECOND, "seen", "tea", to_class="cola"),
        Correction("a.jpg", "remove", SECOND, "no", "tea", decision="refused"),
    )
    dataset, notes = read_corrected(labels, corrections=[one, two])
    (photo,) = dataset.photos
    assert photo.truth.boxes.tolist() == [[40, 10, 60, 50]]
    assert photo.truth.classes.tolist() == [0]
    assert notes == [
        f"{labels}: read 1 photo, 2 boxes, 2 classes",
        f"{one}: 1 correction applied",
        f"{two}: 2 corrections applied, 1 refused or undecided",
    ]


def test_corrections_of_other_labels_are_skipped_only_if_these_are_read_too(
    labels: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "c.json", labels, name="val.json")
    dataset, notes = read_corrected(labels, corrections=[other], others=["data/val.json"])
    assert (dataset.boxes, len(notes)) == (2, 1)
    with pytest.raises(
        ShelfcountError,
        match=r"c.json' corrects the labels of 'val.json', but the labels given are labels.json\.",
    ):
        read_corrected(labels, corrections=[other])


def test_what_was_left_out_is_a_warning(labels: Path) -> None:
    data = json.loads(labels.read_text())
    data["annotations"].append({**data["annotations"][0], "id": 9, "bbox": [200, 10, 20, 40]})
    labels.write_text(json.dumps(data))
    _, (summary, entry) = read_corrected(labels)
    assert summary == (
        f"warning: {labels}: read 1 photo, 2 boxes, 2 classes; left out or corrected: 1"
    )
    assert "outside the photo" in entry
