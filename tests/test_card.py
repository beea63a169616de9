"""Tests of the model card: measured values, and a note if a value was not measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

from shelfcount.deploy import card
from shelfcount.deploy.golden import Tolerance
from shelfcount.metrics.scoring import Evaluation, score
from shelfcount.records import AnchorLevel, Dataset, Detections, ModelSpec, Photo

CLASSES = ("cola", "lime", "ghost|ly")
FACTS = {
    "start": "x/model.safetensors",
    "data": "train.json",
    "data_fingerprint": "ab" * 32,
    "photos": 3,
    "boxes": 9,
    "seed": 7,
    "licence": "CC BY 4.0",
    "attribution": "A. Person",
    "best_epoch": 4,
    "minutes": 1.5,
    "trained": {
        "date": "2026-01-02 03:04 UTC",
        "commit": "abc",
        "device": "a machine",
        "versions": {},
    },
}
SPEC = ModelSpec(
    "shelf-64",
    "mobilenet_v2_050",
    CLASSES,
    64,
    64,
    (AnchorLevel(8, ((20.0, 10.0),)),),
    0.4,
    provenance=FACTS,
)
FILES = {"model.tflite": b"a" * 2_500_000, "model-raw.tflite": b"b" * 4_000_000}
MEASURED = {"f1_pytorch": 0.91, "f1": 0.9, "validation_photos": 24, "calibration_photos": 64}


def evaluation() -> Evaluation:
    """Return the metrics of 12 colas, of which 4 are confused with lime, and 2 limes."""
    corners = [[20 * i, 0, 20 * i + 10, 30] for i in range(14)]
    truth = Detections(corners, [0] * 12 + [1] * 2)
    found = truth.replace(classes=[0] * 8 + [1] * 6)
    data = Dataset(CLASSES, (Photo(Path("p.jpg"), 300, 100, truth),))
    return score(data, [found], 0.4, average_precision=False)


def text(*evaluations: tuple[str, Evaluation]) -> str:
    tolerance = Tolerance(0.8, 0.1, "Because.")
    return card.model_card(
        SPEC, FILES, "int8", MEASURED, tolerance, evaluations or (("test", evaluation()),)
    ).decode()


def test_card_holds_figures_licence_and_origin() -> None:
    markdown = text(("validation", evaluation()), ("test", evaluation()))
    # 10 of 14 labelled products and 10 of 14 detections are correct.
    assert "| test: 1 photo, 14 products | 0.714 | 0.714 | 0.714 | 1.000 |" in markdown
    assert (
        "F1 is 0.910 in PyTorch and 0.900 in this file on the 24 validation photos (-1.00 points)"
        in markdown
    )
    assert "2.50 MB" in markdown
    assert "4.00 MB" in markdown
    assert hashlib.sha256(FILES["model.tflite"]).hexdigest() in markdown
    assert "CC BY 4.0. Attribution: A. Person" in markdown
    assert "seed 7" in markdown
    assert "IoU of at least 0.8 and a score difference of at most 0.1. Because." in markdown
    assert "not measured" not in markdown


def test_without_test_photos_the_card_says_so() -> None:
    assert "Test photos: not measured." in text(("validation", evaluation()))


def test_weaknesses_are_named() -> None:
    lines = card.weaknesses(evaluation())
    assert "cola is confused with lime: 4 of 12." in lines
    assert any(
        line.startswith("Fewer than 10 labelled products") and line.endswith("lime.")
        for line in lines
    )
    # 2 of 6 predicted limes are correct, F1 is 0.5. Two labelled products are too few to list the
    # class as a weakness.
    assert not any("F1 below" in line for line in lines)


def test_classes_without_examples_are_listed_apart_and_tables_hold() -> None:
    markdown = text()
    assert (
        "The test photos show no product of these classes, so their metrics are unknown: ghost|ly."
        in markdown
    )
    by_class = markdown.split("### Metrics by class")[1]
    rows = [line for line in by_class.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {7}
    assert rows[2].startswith("| lime | 2 | 0.500 |")
