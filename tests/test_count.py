"""Tests of counting: records, the fixed JSON schema, CSV without formulas."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from shelfcount.records import Detections, Dropped, ModelSpec
from shelfcount.shelf.count import (
    CSV_COLUMNS,
    count_each,
    count_json,
    count_photo,
    summary_rows,
    write_csv,
)
from shelfcount.vision import images

CLASSES = ("cola", "=HYPERLINK(1)", "water")


class ThreeProducts:
    """Detector of the same three products on every photo: two on the upper shelf, one below."""

    spec = ModelSpec("three", "none", CLASSES, 64, 64, ())

    def detect(self, image: np.ndarray) -> Detections:
        boxes = [[60.123, 10, 80, 40.456], [10, 12, 30, 40], [10, 70, 30, 100]]
        return Detections(boxes, [0, 1, 0], [0.98765, 0.8, 0.7])


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (120, 100, 3)).astype(np.uint8)


def test_json_has_the_fixed_schema(photo: np.ndarray) -> None:
    content = json.loads(
        json.dumps(count_json([count_photo(ThreeProducts(), photo, "a.jpg")], "three", "ab12"))
    )
    assert list(content) == ["bundle", "photos", "merged"]
    assert content["bundle"] == {"name": "three", "sha256": "ab12"}
    assert content["merged"] is None
    (entry,) = content["photos"]
    assert list(entry) == ["path", "width", "height", "quality", "detections", "counts"]
    assert (entry["path"], entry["width"], entry["height"]) == ("a.jpg", 100, 120)
    # x, y, w, h of xyxy 60.123, 10, 80, 40.456, to 2 decimals; the score to 4.
    assert entry["detections"][0] == {
        "class": "cola",
        "score": 0.9876,
        "box": [60.12, 10.0, 19.88, 30.46],
        "row": 0,
        "position": 1,
    }
    assert [(d["row"], d["position"]) for d in entry["detections"]] == [(0, 1), (0, 0), (1, 0)]
    assert entry["counts"] == {"cola": 2, "=HYPERLINK(1)": 1}


def test_a_photo_that_cannot_be_read_is_reported_and_the_others_counted(
    photo: np.ndarray, tmp_path: Path
) -> None:
    good, broken, missing = tmp_path / "good.png", tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    images.write_photo(good, photo)
    broken.write_bytes(b"\xff\xd8 no photo")
    failed: list[Dropped] = []
    counted = count_each(ThreeProducts(), [missing, good, broken], failed.append)
    assert [p.path for p, _ in counted] == [str(good)]
    assert [d.where for d in failed] == [str(missing), str(broken)]
    assert "No such file" in failed[0].reason
    assert "cut short" in failed[1].reason


def test_csv_has_a_line_for_each_product_and_no_formula(photo: np.ndarray, tmp_path: Path) -> None:
    write_csv(tmp_path / "out.csv", [count_photo(ThreeProducts(), photo, "@shelf, left.jpg")])
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == CSV_COLUMNS
    assert lines[0] == [
        "'@shelf, left.jpg",
        "cola",
        "0.9876",
        "60.12",
        "10.0",
        "19.88",
        "30.46",
        "0",
        "1",
    ]
    assert [line[1] for line in lines] == ["cola", "'=HYPERLINK(1)", "cola"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_every_start_of_a_formula_is_guarded(start: str, photo: np.ndarray, tmp_path: Path) -> None:
    write_csv(tmp_path / "out.csv", [count_photo(ThreeProducts(), photo, f"{start}1.jpg")])
    with (tmp_path / "out.csv").open(newline="") as file:
        assert list(csv.reader(file))[1][0] == f"'{start}1.jpg"


def test_summary_sums_over_photos(photo: np.ndarray) -> None:
    counted = [count_photo(ThreeProducts(), photo, name) for name in ("a", "b")]
    assert summary_rows(counted) == [("cola", 4, 2), ("=HYPERLINK(1)", 2, 2)]
    assert summary_rows([]) == []


def test_an_empty_shelf_counts_nothing(photo: np.ndarray, tmp_path: Path) -> None:
    class Nothing(ThreeProducts):
        def detect(self, image: np.ndarray) -> Detections:
            return Detections.empty()

    counted = count_photo(Nothing(), photo)
    assert counted.to_json()["detections"] == []
    assert counted.counts == {}
    write_csv(tmp_path / "out.csv", [counted])
    assert (tmp_path / "out.csv").read_text().splitlines() == [",".join(CSV_COLUMNS)]
