"""Tests of `benchmarks/speed/scaling.py`: its parts, and its short form in the slow tier."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import painted_products
import pytest
import scaling
import scaling_photos
import speed_tables
import torch

from shelfcount.records import AnchorLevel, Detections, ModelSpec
from shelfcount.runtime.bundle import read_bundle
from shelfcount.vision import anchors
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO
from shelfcount.vision.postprocess import detections_from_heads

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("products", "found"), [(0, 0), (10, 10), (300, 300), (500, 300)])
def test_what_is_painted_is_found_up_to_the_most_that_a_file_gives(
    products: int, found: int
) -> None:
    level = painted_products.crafted_level()
    image = painted_products.painted(416, products)
    pixels = torch.from_numpy((image.astype(np.float32) - PIXEL_ZERO) / PIXEL_SCALE).permute(
        2, 0, 1
    )[None]
    with torch.no_grad():
        location, logits = painted_products.Painted(5, painted_products.CANDIDATES)(pixels)
    scores = logits.sigmoid()[0].numpy()
    seen = detections_from_heads(
        location[0].numpy(),
        scores,
        anchors.anchor_grid([level], 416, 416),
        score_threshold=0.05,
        nms_iou=0.5,
        max_detections=300,
        width=416,
        height=416,
    )
    assert len(seen) == found
    # Each product is seen by as many anchors as a real network has above the file's threshold.
    assert (scores.max(axis=1) >= 0.05).sum() == products * painted_products.CANDIDATES
    assert set(seen.classes.tolist()) <= {0}


def test_powers_and_lines_are_those_planted() -> None:
    x = [1, 2, 4, 8]
    np.testing.assert_allclose(speed_tables.powers(x, [3 * v**1.5 for v in x]), 1.5)
    assert speed_tables.line(x, [10 + 2 * v for v in x]) == (pytest.approx(10), pytest.approx(2))


def test_growth_is_given_with_its_bend() -> None:
    x = [10, 100, 1000]
    assert speed_tables.power_sentence(x, [2.0 * v for v in x], "pixels") == (
        "From 10 to 1,000 pixels, the time grows by a factor of 100.0. It is proportional to the "
        "power 1.00 of the pixels throughout."
    )
    # Twice the side is four times the area.
    side = speed_tables.power_sentence(x, [v**2 for v in x], "pixels per side", "area", 2)
    assert "power 1.00 of the area throughout" in side
    bent = speed_tables.power_sentence(x, (5.0, 5.0, 50.0), "pixels")
    assert bent.endswith("The power is 0.00 up to 100 and 1.00 above.")
    assert speed_tables.line_sentence([1, 10, 100], [920, 1100, 2900], "photo", "photos") == (
        "The time fits 900 ms plus 20 ms per photo. Up to 45 photos, the fixed part is larger."
    )
    few = speed_tables.line_sentence([1, 10], [920, 1100], "photo", "photos")
    assert few.endswith("The fixed part is larger for all measured numbers of photos.")
    assert "no fixed part" in speed_tables.line_sentence([1, 10], [19, 199], "photo", "photos")


def test_largest_tensor_of_the_released_file(released: Path) -> None:
    # 416 x 416 pixels as float32, before quantization. The largest int8 tensor has 104 * 104 * 96.
    assert scaling.largest_tensor((released / "model.tflite").read_bytes()) == 416 * 416 * 3 * 4


def test_a_mosaic_has_the_size_asked_for_and_products_as_large_as_tiling_assumes() -> None:
    class Finder:
        spec = ModelSpec("m", "a", ("cola",), 64, 64, (AnchorLevel(8, ((20.0, 10.0),)),))

        def detect(self, image: np.ndarray) -> Detections:
            # 25 x 16 pixels: 20 a side of a square.
            return Detections([[0, 0, 16, 25]], [0])

    photo = np.zeros((60, 60, 3), np.uint8)
    photo[:25, :16] = 255
    made = scaling_photos.mosaic(Finder(), [photo], 1)
    assert made.shape == (866, 1155, 3)
    # Ten times enlarged, to 200 a side: two photos of 600 stand side by side.
    assert made[100, 100, 0] == made[100, 700, 0] == made[700, 100, 0] == 255
    assert made[100, 400, 0] == made[400, 100, 0] == 0


@pytest.mark.slow
def test_a_count_in_a_process_of_its_own(released: Path, tmp_path: Path) -> None:
    seconds, megabytes = scaling_photos.command(released, [released / "golden" / "1.jpg"], tmp_path)
    assert seconds > 0
    # numpy, OpenCV and LiteRT alone take more than 50 MB.
    assert 50 < megabytes < 2000
    assert len(json.loads((tmp_path / "counts.json").read_text())["photos"]) == 1
    with pytest.raises(subprocess.CalledProcessError):
        scaling_photos.command(tmp_path, [released / "golden" / "1.jpg"], tmp_path)


@pytest.mark.slow
def test_short_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--short", "--out", str(tmp_path)])
    assert scaling.main() == 0
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "scaling.json").read_text())
    assert result["bundle"]["sha256"] == read_bundle(scaling.RELEASED).sha256
    for part in ("input_size", "classes", "products", "photo_size", "batch"):
        assert [row["at"] for row in result[part]["rows"]] == sorted(
            row["at"] for row in result[part]["rows"]
        )
        assert said.count(f"{result[part]['axis']}: ") == len(result[part]["rows"])
    # Pixels of 320 x 320 against 224 x 224.
    small, large = result["input_size"]["rows"]
    assert large["gmac"] / small["gmac"] == pytest.approx((320 / 224) ** 2, rel=0.01)
    assert [row["found"] for row in result["products"]["rows"]] == [10, 100]
    assert result["photo_size"]["rows"][0]["looks"] <= result["photo_size"]["rows"][1]["looks"]
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
