"""Tests of the operator profile from LiteRT's profiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from shelfcount.deploy import flatbuffer, inspection
from shelfcount.records import ShelfcountError
from shelfcount.speed.operator_profile import Operator, _layers, by_kind, profile


def test_latencies_of_one_kind_of_operator_are_summed() -> None:
    run = [
        Operator("Add", "", True, 0.5),
        Operator("Conv", "", True, 2.0),
        Operator("Add", "", False, 4.0),
        Operator("Add", "", True, 0.25),
    ]
    assert by_kind(run) == [
        {"name": "Add", "inside": False, "count": 1, "ms": 4.0},
        {"name": "Conv", "inside": True, "count": 1, "ms": 2.0},
        {"name": "Add", "inside": True, "count": 2, "ms": 0.75},
    ]


def test_kernels_that_do_not_match_the_file_get_no_layer(released: Path) -> None:
    assert _layers(
        (released / "model.tflite").read_bytes(),
        ["Convolution (NHWC, QC8) IGEMM", "Add (ND)"],
        [True, True],
    ) == ["", ""]


@pytest.mark.slow
def test_the_released_bundle(released: Path) -> None:
    model, photo = released / "model.tflite", next((released / "golden").glob("*.jpg"))
    profiled = profile(model, photo, (416, 416), runs=3, threads=1)
    outside = [operator.name for operator in profiled.operators if not operator.inside]
    # The profiler and the interpreter's list of operators must agree.
    assert (
        outside == inspection.undelegated_operators(model.read_bytes()) == [flatbuffer.POSTPROCESS]
    )
    assert profiled.postprocessing.shape == (3,)
    assert (profiled.postprocessing > 0).all()
    weighted = [
        name
        for name in inspection.operator_names(model.read_bytes())
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D")
    ]
    layers = [operator.layer for operator in profiled.operators if operator.layer]
    # Each convolution of the file has a kernel, in the order of the file.
    assert [layer.split()[0] for layer in layers] == weighted
    # The stem has 24 channels and halves 416 pixels.
    assert layers[0] == "CONV_2D 3 x 3 to 208 x 208 x 24"


@pytest.mark.slow
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, released: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model at all")
    with pytest.raises(
        ShelfcountError,
        match=r"LiteRT's LiteRtCreateModelFromBuffer failed with status \d+|ended early",
    ):
        profile(broken, next((released / "golden").glob("*.jpg")), (8, 8), runs=1, threads=1)
