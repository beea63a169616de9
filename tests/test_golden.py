"""Tests of golden photos: equal detections pass, and each difference is reported."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shelfcount.deploy import golden
from shelfcount.records import AnchorLevel, Dataset, Detections, ModelSpec, Photo, ShelfcountError
from shelfcount.runtime.bundle import read_bundle

SPEC = ModelSpec(
    "tiny", "mobilenet_v2_050", ("cola", "lime"), 64, 64, (AnchorLevel(8, ((20.0, 10.0),)),), 0.4
)
BOX = [10.0, 20.0, 30.0, 60.0]


def file(*detections: dict[str, Any], iou: float = 0.8, score: float = 0.1) -> dict[str, Any]:
    truth = [{"class": "cola", "box": BOX}]
    photo = {
        "file": "1.jpg",
        "width": 100,
        "height": 100,
        "truth": truth,
        "detections": list(detections),
        "counts": {},
    }
    return {
        "score_threshold": 0.4,
        "tolerance": {"iou": iou, "score": score, "reason": ""},
        "photos": [photo],
    }


def seen(name: str = "cola", score: float = 0.8, box: list[float] | None = None) -> dict[str, Any]:
    return {"class": name, "score": score, "box": box or BOX}


def test_the_same_detections_are_good() -> None:
    assert golden.compare_with_golden(file(seen()), [[seen()]], SPEC) == golden.GoldenResult(
        (), 0.0, 0.0, 1.0
    )


def test_differences_within_the_tolerance_are_measured_and_good() -> None:
    # 57 of 60 pixels of height overlap: IoU 0.95.
    result = golden.compare_with_golden(
        file(seen()), [[seen(score=0.72, box=[10, 23, 30, 57])]], SPEC
    )
    assert result.failures == ()
    assert result.largest_box_px == 3.0
    assert result.largest_score == pytest.approx(0.08, abs=1e-4)


@pytest.mark.parametrize(
    ("found", "messages"),
    [
        ([], [r"1.jpg: misses 'cola' (0.800) at x 10, y 20, 30 x 60"]),
        ([seen("lime")], ["misses 'cola'", "adds 'lime' (0.800)"]),
        # The boxes overlap in 30 pixels of 60 each: IoU one third.
        ([seen(box=[10, 50, 30, 60])], ["misses 'cola'", "adds 'cola'"]),
        ([seen(), seen(box=[60, 20, 30, 60])], ["adds 'cola' (0.800) at x 60, y 20"]),
        (
            [seen(score=0.65)],
            ["'cola' (0.650) at x 10, y 20, 30 x 60 differs from 0.800 by more than 0.1"],
        ),
    ],
)
def test_each_difference_is_reported(found: list[dict[str, Any]], messages: list[str]) -> None:
    failures = golden.compare_with_golden(file(seen()), [found], SPEC).failures
    assert len(failures) == len(messages)
    assert all(part in failure for part, failure in zip(messages, failures, strict=True))


def test_near_the_threshold_a_detection_may_be_missing() -> None:
    assert golden.compare_with_golden(file(seen(score=0.49)), [[]], SPEC).failures == ()
    assert golden.compare_with_golden(file(), [[seen(score=0.49)]], SPEC).failures == ()
    assert len(golden.compare_with_golden(file(seen(score=0.51)), [[]], SPEC).failures) == 1


def test_f1_compares_counted_detections_with_the_labels() -> None:
    # One labelled product; a true positive, a false positive, and one detection below the
    # threshold.
    found = [seen(), seen(box=[60, 20, 30, 60], score=0.45), seen(box=[60, 20, 30, 60], score=0.35)]
    assert golden.compare_with_golden(file(seen()), [found], SPEC).f1 == pytest.approx(
        2 / 3, abs=1e-4
    )


def test_chosen_photos_show_many_classes_with_few() -> None:
    def photo(name: str, *classes: int) -> Photo:
        return Photo(Path(name), 10, 10, Detections([[0, 0, 5, 5]] * len(classes), classes))

    data = Dataset(
        ("a", "b", "c", "d"),
        (photo("ab", 0, 1), photo("abb", 0, 1, 1), photo("c", 2), photo("none"), photo("bc", 1, 2)),
    )
    assert [p.path.name for p in golden.choose_golden_photos(data, 3)] == ["abb", "bc", "ab"]


@pytest.mark.slow
def test_a_bundle_passes_its_own_photos_exactly(bundle: Path) -> None:
    opened = read_bundle(bundle)
    result = golden.verify_golden(opened)
    # Coordinates and scores are rounded in the file.
    assert result.failures == ()
    assert result.largest_box_px <= 0.02
    assert result.largest_score <= 1e-4
    # The network is overfitted to these photos, although they are enlarged or shrunk here.
    assert result.f1 > 0.8
    stored = golden.read_golden(opened)
    assert 0.5 <= stored["tolerance"]["iou"] <= 0.95
    for photo in stored["photos"]:
        counted = [
            d["class"] for d in photo["detections"] if d["score"] >= stored["score_threshold"]
        ]
        assert photo["counts"] == {name: counted.count(name) for name in photo["counts"]}
        assert sum(photo["counts"].values()) == len(counted)
        # EXIF data could contain the location of the photo.
        assert b"Exif" not in (bundle / "golden" / photo["file"]).read_bytes()


@pytest.mark.slow
def test_another_models_golden_photos_fail(bundle: Path) -> None:
    opened = read_bundle(bundle)
    stored = golden.read_golden(opened)
    shifted = copy.deepcopy(stored)
    for photo in shifted["photos"]:
        for detection in photo["detections"]:
            detection["box"][0] += 0.3 * detection["box"][2]
    listed = [photo["detections"] for photo in stored["photos"]]
    assert golden.compare_with_golden(stored, listed, opened.spec).failures == ()
    assert len(golden.compare_with_golden(shifted, listed, opened.spec).failures) > 4


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "[]", '{"tolerance": {"iou": 1}}', '{"photos": 3}'])
def test_a_file_in_another_format_is_refused(bundle: Path, tmp_path: Path, text: str) -> None:
    opened = read_bundle(bundle)
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "golden.json").write_text(text)
    moved = type(opened)(
        tmp_path, opened.spec, opened.recipe, opened.files, opened.measured, opened.sha256
    )
    with pytest.raises(
        ShelfcountError,
        match=r"golden\.json': it is missing or does not have the format that `shelfcount export`",
    ):
        golden.read_golden(moved)


def test_tolerance_grows_with_the_effect_of_resizing() -> None:
    class Moves:
        """A detector whose score depends on one pixel, which differs between kernels."""

        spec = SPEC

        def detect_stretched(self, pixels: np.ndarray, width: int, height: int) -> Detections:
            return Detections([[10, 20, 40, 80]], [0], [0.5 + 0.2 * float(pixels[0, 0, 0]) / 255])

    image = np.zeros((128, 128, 3), np.uint8)
    still = golden.measure_tolerance(
        Moves(), [image], [Detections([[10, 20, 40, 80]], [0], [0.5])], 0.4
    )  # type: ignore[arg-type]
    assert (still.iou, still.score) == (0.95, 0.05)
    moved = golden.measure_tolerance(
        Moves(), [image], [Detections([[10, 20, 40, 70]], [0], [0.6])], 0.4
    )  # type: ignore[arg-type]
    # IoU 50 / 60; twice the distance to 1, rounded down to hundredths. The scores differ by 0.1.
    assert moved.iou == pytest.approx(0.66, abs=0.0101)
    # In float32, 0.6 - 0.5 is slightly more than 0.1 and is rounded up to the next hundredth.
    assert moved.score == pytest.approx(0.2, abs=0.0101)
    assert json.dumps(moved.reason)
