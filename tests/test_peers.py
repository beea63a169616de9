"""The script that measures public detectors beside the released bundle: what needs no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peers
import pytest

from shelfcount.deploy import inspection
from shelfcount.deploy.inspection import count_parameters
from shelfcount.runtime.bundle import RAW_MODEL
from shelfcount.speed import latency
from shelfcount.vision.images import network_input


def test_calibration_noise_is_the_same_each_time() -> None:
    assert [photo.shape for photo in peers.noise(8)] == [(8, 8, 3)] * peers.NOISE_PHOTOS
    np.testing.assert_array_equal(peers.noise(8), peers.noise(8))


@pytest.mark.slow
def test_the_bundle_is_measured_up_to_its_heads(released: Path, tmp_path: Path) -> None:
    heads = peers.bundle_heads(tmp_path)
    data, whole = heads.path.read_bytes(), (released / "model.tflite").read_bytes()
    assert inspection.operator_names(data) == inspection.operator_names(whole)[:-1]
    assert inspection.undelegated_operators(data) == []
    assert (inspection.count_macs(data), count_parameters(data)) == (
        inspection.count_macs(whole),
        count_parameters(whole),
    )
    assert peers.input_size(heads.path) == (416, 416)


@pytest.mark.slow
def test_a_row_says_what_was_measured_and_where_it_comes_from(tmp_path: Path) -> None:
    heads = peers.bundle_heads(tmp_path)
    # The bundle against itself: equal but for noise, so no spread can be asserted.
    own, twin = peers.measure(
        [heads, peers.Peer("twin", "int8", heads.path, "here", "none")], runs=3, threads=1
    )
    assert own["times_bundle"] is None
    assert (
        twin["times_bundle"]["low"]
        <= twin["times_bundle"]["median"]
        <= twin["times_bundle"]["high"]
    )
    assert (twin["name"], twin["source"], twin["licence"], twin["f1"]) == (
        "twin",
        "here",
        "none",
        None,
    )
    assert twin["sha256"] == own["sha256"]
    assert own["latency"]["warmup"] == latency.WARMUP
    assert own["outside"] == []


@pytest.mark.slow
def test_float16_weights_are_widened_without_a_change(released: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    narrow = (released / RAW_MODEL).read_bytes()
    wide = peers.as_float32(narrow)
    assert "DEQUANTIZE" in inspection.operator_names(narrow)
    assert "DEQUANTIZE" not in inspection.operator_names(wide)
    pixels = network_input(peers.noise(416)[0], (1, 416, 416, 3), np.float32)
    heads = []
    for data in (narrow, wide):
        interpreter = Interpreter(model_content=data)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
        interpreter.invoke()
        heads.append(
            [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]
        )
    # The same weights, in the width that both are computed in.
    for before, after in zip(*heads, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-4)
