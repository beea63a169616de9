"""Export: the files run in LiteRT and give the results of the PyTorch network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from conftest import Overfit, Shelves
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from shelfcount.deploy import bundle, convert, flatbuffer, inspection
from shelfcount.metrics.evaluate import evaluate_detector
from shelfcount.metrics.matching import match
from shelfcount.records import AnchorLevel, ModelSpec, ShelfcountError
from shelfcount.runtime.bundle import LiteRTDetector
from shelfcount.training.networks import build
from shelfcount.training.runs import load_run, read_spec
from shelfcount.vision import anchors
from shelfcount.vision.images import read_photo, stretch
from shelfcount.vision.postprocess import LOWEST_SCORE

# One conversion of 15 to 50 s serves the whole file.
pytestmark = pytest.mark.slow

Artifact = Callable[[str], bytes]


def opened(model: bytes) -> Interpreter:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def photos_of(shelves: Shelves) -> list[np.ndarray]:
    """Return 12 photos: 4 that the network was trained on, 8 that it was not."""
    return [read_photo(p.path) for p in (*shelves.train.photos, *shelves.val.photos)]


class Grouped(nn.Module):
    """Network with group normalisation, as in the baseline's heads.

    It has one anchor of 8 pixels per cell, at stride 8.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), nn.GroupNorm(4, 16), nn.ReLU())
        self.heads = nn.Conv2d(16, 6, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.heads(self.stem(x)).permute(0, 2, 3, 1).reshape(1, -1, 6)
        return rows[..., :4], rows[..., 4:]


# ---------------------------------------------------------------- outputs


def test_converted_heads_equal_pytorch(
    overfit: Overfit, converted: bytes, shelves: Shelves
) -> None:
    detector, interpreter = load_run(overfit.run), opened(converted)
    location_out, score_out = (o["index"] for o in interpreter.get_output_details())
    worst = 0.0
    for image in photos_of(shelves):
        location, scores = detector.heads(image)
        pixels = (stretch(image, 96, 96).astype(np.float32)[None] - 127) / 127.5
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
        interpreter.invoke()
        worst = max(worst, np.abs(interpreter.get_tensor(location_out)[0] - location).max())
        np.testing.assert_allclose(interpreter.get_tensor(score_out)[0], scores, atol=1e-4)
    # Deltas are divided by 10 and 5 and multiplied by anchors of about 30 pixels, so 0.005 is at
    # most 0.03 pixels.
    assert worst < 5e-3


def test_float32_artifact_gives_the_detections_of_pytorch(
    overfit: Overfit, artifact: Artifact, shelves: Shelves
) -> None:
    """The tolerances are 0.01 pixels for boxes and 1e-4 for scores: sums are in another order."""
    reference = load_run(overfit.run)
    exported = LiteRTDetector(artifact("float32"), reference.spec)
    total = 0
    for image in photos_of(shelves):
        ours, theirs = reference.detect(image), exported.detect(image)
        np.testing.assert_array_equal(theirs.classes, ours.classes)
        np.testing.assert_allclose(theirs.boxes, ours.boxes, atol=0.01)
        np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
        total += len(ours)
    assert total > 20


def test_float32_artifact_agrees_at_low_scores_too(
    overfit: Overfit, artifact: Artifact, shelves: Shelves
) -> None:
    # With many more candidates, suppression in NumPy and in the operator must give the same boxes.
    # One box in fifty may differ, because of rounding errors of scores or overlaps.
    reference = load_run(overfit.run, 0.06)
    exported = LiteRTDetector(artifact("float32"), reference.spec)
    pairs = [(reference.detect(image), exported.detect(image)) for image in photos_of(shelves)]
    count = sum(len(ours) for ours, _ in pairs)
    missed = sum(int(match(ours, theirs, min_iou=0.9).missed.sum()) for ours, theirs in pairs)
    print(f"{missed} of {count} boxes of PyTorch are not in the file's")
    assert count > 50
    assert missed <= count / 50


@pytest.mark.parametrize(
    ("recipe", "most"), [("float32", 0.0), ("float16", 0.01), ("dynamic", 0.1), ("int8", 0.1)]
)
def test_drop_in_f1_is_small(
    overfit: Overfit, artifact: Artifact, recipe: str, most: float
) -> None:
    reference = load_run(overfit.run)
    before = evaluate_detector(reference, overfit.photos).micro.f1
    after = evaluate_detector(
        LiteRTDetector(artifact(recipe), reference.spec), overfit.photos
    ).micro.f1
    print(
        f"{recipe}: F1 {before:.4f} in PyTorch, {after:.4f} in LiteRT, "
        f"{len(artifact(recipe)) / 1e6:.2f} MB"
    )
    assert before - after <= most


def test_quantized_files_are_smaller(artifact: Artifact) -> None:
    sizes = {recipe: len(artifact(recipe)) for recipe in convert.RECIPES}
    # float16 halves the weights, int8 quarters them. Scales, anchors and the graph are added.
    assert sizes["float16"] < 0.65 * sizes["float32"]
    assert max(sizes["int8"], sizes["dynamic"]) < 0.45 * sizes["float32"]


# ---------------------------------------------------------------- contract of the file


@pytest.mark.parametrize("recipe", convert.RECIPES)
def test_pixels_are_the_input_and_four_floats_the_outputs(
    overfit: Overfit, artifact: Artifact, recipe: str
) -> None:
    spec, interpreter = read_spec(overfit.run), opened(artifact(recipe))
    (pixels,) = interpreter.get_input_details()
    assert pixels["dtype"] == np.uint8
    assert pixels["shape"].tolist() == [1, 96, 96, 3]
    scale, zero = pixels["quantization"]
    assert scale == pytest.approx(2 / 255, rel=1e-4)
    assert zero == 127
    outputs = interpreter.get_output_details()
    n = spec.max_detections
    assert [o["shape"].tolist() for o in outputs] == [[1, n, 4], [1, n], [1, n], [1]]
    assert {o["dtype"] for o in outputs} == {np.float32}
    names = [
        t.name.decode()
        for t in (
            flatbuffer.read_model(artifact(recipe)).subgraphs[0].tensors[i]
            for i in _outputs(artifact(recipe))
        )
    ]
    assert names == ["location", "category", "score", "number of detections"]


def _outputs(model: bytes) -> list[int]:
    return list(flatbuffer.read_model(model).subgraphs[0].outputs)


def test_int8_graph_contains_no_avoidable_operator(artifact: Artifact) -> None:
    # All operators. This model has one pyramid level, so it contains no CONCATENATION.
    names = inspection.operator_names(artifact("int8"))
    expected = {
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "ADD",
        "RESIZE_BILINEAR",
        "RESHAPE",
        "LOGISTIC",
        "DEQUANTIZE",
        "QUANTIZE",
    }
    assert set(names) == {*expected, "TFLite_Detection_PostProcess"}
    # The pixels pass a DEQUANTIZE and a QUANTIZE; location and scores pass one DEQUANTIZE each.
    assert names[:2] == ["DEQUANTIZE", "QUANTIZE"]
    assert (names.count("QUANTIZE"), names.count("DEQUANTIZE")) == (1, 3)
    assert names[-1] == "TFLite_Detection_PostProcess"


@pytest.mark.parametrize("recipe", convert.RECIPES)
def test_all_operators_but_the_last_are_delegated_to_xnnpack(
    artifact: Artifact, recipe: str
) -> None:
    assert inspection.undelegated_operators(artifact(recipe)) == ["TFLite_Detection_PostProcess"]
    assert inspection.partitions(artifact(recipe)) == 1


def test_concatenated_levels_need_no_quantize_between(shelves: Shelves) -> None:
    # Two levels with different scales are concatenated: the quantizer inserts a QUANTIZE for each.
    levels = (AnchorLevel(8, ((40.0, 20.0),)), AnchorLevel(16, ((60.0, 30.0),)))
    spec = ModelSpec("two", "mobilenet_v2_050", ("a", "b"), 96, 96, levels)
    model = convert.to_litert(build(spec.architecture, 2, levels, 16).eval(), spec)
    quantized = convert.quantize(
        model, "int8", [stretch(image, 96, 96) for image in photos_of(shelves)[:2]]
    )
    assert inspection.operator_names(quantized).count("QUANTIZE") > 1
    finished = flatbuffer.add_input_and_postprocess(quantized, spec, LOWEST_SCORE)
    assert inspection.operator_names(finished).count("QUANTIZE") == 1
    assert inspection.undelegated_operators(finished) == ["TFLite_Detection_PostProcess"]


def test_int8_leaves_group_norms_in_float32(shelves: Shelves) -> None:
    torch.manual_seed(0)
    net = Grouped().eval()
    spec = ModelSpec(
        "grouped", "grouped", ("cola", "tea"), 96, 96, (AnchorLevel(8, ((8.0, 8.0),)),)
    )
    images = [stretch(image, 96, 96) for image in photos_of(shelves)[:4]]
    model = convert.quantize(convert.to_litert(net, spec), "int8", images)
    graph, names = flatbuffer.read_model(model).subgraphs[0], inspection.operator_names(model)
    written = [
        (name, graph.tensors[op.outputs[0]].type)
        for name, op in zip(names, graph.operators, strict=True)
    ]
    float32, int8 = 0, 9  # of the schema's TensorType
    assert [kind for name, kind in written if name in ("MEAN", "RSQRT", "SUB")] == [float32] * 4
    assert [kind for name, kind in written if name == "CONV_2D"] == [int8] * 2
    interpreter = opened(model)
    x = (images[0].astype(np.float32)[None] - 127) / 127.5
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    with torch.no_grad():
        expected = net(torch.from_numpy(x).permute(0, 3, 1, 2))[1].sigmoid().numpy()
    (actual,) = (
        interpreter.get_tensor(o["index"])
        for o in interpreter.get_output_details()
        if tuple(o["shape"])[-1] == 2
    )
    np.testing.assert_allclose(actual, expected, atol=0.02)


@pytest.mark.parametrize("recipe", convert.RECIPES)
def test_weights_are_in_the_flatbuffer_and_finite(artifact: Artifact, recipe: str) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(artifact(recipe)), 0))
    # In the schema, offsets 0 and 1 mean that no data is outside the flatbuffer.
    assert [b.offset for b in model.buffers if b.offset and b.offset > 1] == []
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and tensor.type == schema.TensorType.FLOAT32:
            assert np.isfinite(np.frombuffer(bytes(data), np.float32)).all(), tensor.name


@pytest.mark.parametrize("recipe", convert.RECIPES)
def test_outputs_are_finite_and_sorted_and_their_number_is_the_count(
    overfit: Overfit, artifact: Artifact, recipe: str
) -> None:
    detector = LiteRTDetector(artifact(recipe), read_spec(overfit.run))
    rng = np.random.default_rng(0)
    for image in (
        rng.integers(0, 256, (96, 96, 3), np.uint8),
        np.zeros((96, 96, 3), np.uint8),
        np.full((96, 96, 3), 255, np.uint8),
    ):
        boxes, classes, scores = detector.invoke(image)
        assert len(boxes) == len(classes) == len(scores) <= detector.spec.max_detections
        assert np.isfinite(boxes).all()
        assert (np.diff(scores) <= 0).all()
        assert ((scores >= LOWEST_SCORE) & (scores <= 1)).all()
        assert set(classes) <= set(range(len(detector.spec.classes)))


def test_the_number_of_detections_is_limited(
    overfit: Overfit, converted: bytes, shelves: Shelves
) -> None:
    spec = replace(read_spec(overfit.run), max_detections=2, score_threshold=LOWEST_SCORE)
    detector = LiteRTDetector(bundle.main_artifact(converted, spec, "float32", []), spec)
    all_of_them = load_run(overfit.run, LOWEST_SCORE).detect(photos_of(shelves)[0])
    assert len(all_of_them) > 2
    np.testing.assert_allclose(
        detector.detect(photos_of(shelves)[0]).scores, all_of_them.scores[:2], atol=0.02
    )


def test_macs_equal_those_that_torch_counts(
    overfit: Overfit, converted: bytes, artifact: Artifact
) -> None:
    detector = load_run(overfit.run)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        detector.net(torch.zeros(1, 3, 96, 96))
    # FlopCounterMode counts a multiply-accumulate as two.
    assert inspection.count_macs(converted) * 2 == counter.get_total_flops()
    assert inspection.count_macs(artifact("int8")) == inspection.count_macs(converted)


# ---------------------------------------------------------------- errors


def test_unknown_recipe_and_missing_photos_are_refused(converted: bytes) -> None:
    with pytest.raises(
        ShelfcountError,
        match=r"unknown recipe 'int4'\. Allowed: float32, float16, dynamic, int8",
    ):
        convert.quantize(converted, "int4", [])
    with pytest.raises(ShelfcountError, match="no training photos to calibrate int8 on"):
        convert.quantize(converted, "int8", [])


def test_file_of_another_model_is_refused(overfit: Overfit, converted: bytes) -> None:
    spec = read_spec(overfit.run)
    count = len(anchors.anchor_grid(spec.levels, 96, 96))
    other = replace(spec, classes=(*spec.classes, "chalk"))
    with pytest.raises(
        ShelfcountError,
        match=rf"outputs have shapes \[\[1, {count}, 4\], \[1, {count}, 3\]\], "
        rf"but its anchors and classes need \[\[1, {count}, 4\], \[1, {count}, 4\]\]",
    ):
        flatbuffer.add_input_and_postprocess(converted, other, LOWEST_SCORE)
