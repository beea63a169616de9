"""Tests of latency measurements in separate processes: times, memory and errors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from shelfcount.records import ShelfcountError
from shelfcount.speed.latency import TimedModel, in_fresh_process, time_models
from shelfcount.vision.images import network_input


def test_pixels_in_the_format_of_the_input() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    assert network_input(pixels, (1, 2, 4, 3), np.uint8).tolist() == pixels[None].tolist()
    # The zero point of an int8 input is -128.
    assert (
        network_input(pixels, (1, 2, 4, 3), np.int8).tolist()
        == (pixels[None].astype(int) - 128).tolist()
    )
    # vision.images: (pixel - 127) / 127.5.
    np.testing.assert_allclose(
        network_input(pixels, (1, 2, 4, 3), np.float32),
        (pixels[None].astype(float) - 127) / 127.5,
        rtol=1e-6,
    )
    planes = network_input(pixels, (1, 3, 2, 4), np.uint8)
    assert planes.shape == (1, 3, 2, 4)
    assert planes[0, 2].tolist() == pixels[:, :, 2].tolist()


@pytest.mark.slow
def test_a_file_is_measured_in_its_own_process(released: Path) -> None:
    photo = next((released / "golden").glob("*.jpg"))
    subjects = {
        name: TimedModel(released / name, 416, 416) for name in ("model.tflite", "model-raw.tflite")
    }
    told: list[tuple[int, int]] = []
    timings = time_models(
        subjects,
        photo,
        {"model.tflite": 4, "model-raw.tflite": 2},
        threads=1,
        warmup=1,
        progress=lambda *step: told.append(step),
    )
    int8, half = timings["model.tflite"], timings["model-raw.tflite"]
    assert (len(int8.times), len(half.times)) == (4, 2)
    assert (int8.latency.runs, int8.latency.warmup, int8.latency.threads) == (4, 1, 1)
    assert int8.latency.p50 > 1
    assert int8.preparation.p50 > 0
    assert int8.postprocessing is None
    assert told[-1] == (6, 6)
    # At least the weights, which both load, and less than this process with its libraries.
    assert 2e6 < int8.memory < 100e6
    assert int8.memory < half.memory


@pytest.mark.slow
def test_pytorch_has_separate_post_processing(overfit) -> None:
    timing = time_models(
        {"run": TimedModel(overfit.run, 96, 96)},
        overfit.photos.photos[0].path,
        {"run": 3},
        threads=1,
    )["run"]
    assert 0 < timing.postprocessing.p50 < timing.latency.p50


@pytest.mark.slow
def test_a_file_that_is_no_model_is_named(tmp_path: Path, released: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model at all")
    photo = next((released / "golden").glob("*.jpg"))
    with pytest.raises(ShelfcountError, match=r"LiteRT cannot load '.*broken.tflite'"):
        time_models({"broken": TimedModel(broken, 8, 8)}, photo, {"broken": 1}, threads=1)


@pytest.mark.slow
def test_a_process_that_ends_early_is_reported() -> None:
    with pytest.raises(ShelfcountError, match="the process that ran _exit with 3 ended early"):
        in_fresh_process(os._exit, 3)
