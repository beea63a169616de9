"""The model card says what was measured, and what was not."""

from __future__ import annotations

import hashlib
from pathlib import Path

from shelfcount.evaluation.golden import Tolerance
from shelfcount.evaluation.metrics import Evaluation, score
from shelfcount.records import AnchorLevel, Dataset, Detections, ModelSpec, Photo
from shelfcount.report import card

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
    """12 colas, of which 4 are taken for lime, and 2 limes."""
    corners = [[20 * i, 0, 20 * i + 10, 30] for i in range(14)]
    truth = Detections(corners, [0] * 12 + [1] * 2)
    found = truth.replace(classes=[0] * 8 + [1] * 6)
    data = Dataset(CLASSES, (Photo(Path("p.jpg"), 300, 100, truth),))
    return score(data, [found], 0.4, average_precision=False)


def text(*evaluations: tuple[str, Evaluation]) -> str:
    tolerance = Tolerance(0.8, 0.1, "Because.")
    return card.write(
        SPEC, FILES, "int8", MEASURED, tolerance, evaluations or (("test", evaluation()),)
    ).decode()


def test_card_holds_figures_licence_and_origin() -> None:
    said = text(("validation", evaluation()), ("test", evaluation()))
    # 10 of 14 right, both ways.
    assert "| test: 1 photos, 14 products | 0.714 | 0.714 | 0.714 | 1.000 |" in said
    assert (
        "F1 0.910 in PyTorch, 0.900 in this file on the 24 validation photos (-1.00 points)" in said
    )
    assert "2.50 MB" in said
    assert "4.00 MB" in said
    assert hashlib.sha256(FILES["model.tflite"]).hexdigest() in said
    assert "CC BY 4.0. Attribution: A. Person" in said
    assert "seed 7" in said
    assert "IoU 0.8, score within 0.1. Because." in said
    assert "not measured" not in said


def test_without_test_photos_the_card_says_so() -> None:
    assert "Test photos: not measured." in text(("validation", evaluation()))


def test_weaknesses_are_named() -> None:
    lines = card.weaknesses(evaluation())
    assert "cola is taken for lime: 4 of 12." in lines
    assert any(
        line.startswith("Fewer than 10 examples") and line.endswith("lime.") for line in lines
    )
    # 2 of 6 reported limes are right: F1 a half; but two examples are too few to call the class weak.
    assert not any("F1 below" in line for line in lines)


def test_classes_without_examples_are_listed_apart_and_tables_hold() -> None:
    said = text()
    assert (
        "No product of these classes stands on the test photos, so nothing is known of them: ghost|ly."
        in said
    )
    rows = [line for line in said.split("### By class")[1].splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {7}
    assert rows[2].startswith("| lime | 2 | 0.500 |")
