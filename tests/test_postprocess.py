"""Tests of the post-processing: same results as TFLite_Detection_PostProcess."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from shelfcount.deploy import flatbuffer
from shelfcount.records import AnchorLevel, ModelSpec
from shelfcount.runtime.bundle import LiteRTDetector
from shelfcount.vision import anchors
from shelfcount.vision.postprocess import detections_from_heads, ratios_to_pixels

LEVELS = (
    AnchorLevel(8, ((20.0, 10.0), (24.0, 24.0))),
    AnchorLevel(16, ((40.0, 20.0), (60.0, 30.0))),
)
HEIGHT, WIDTH = 64, 96
TABLE = anchors.anchor_grid(LEVELS, HEIGHT, WIDTH)
CLASSES = ("a", "b", "c")


def _heads(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return location (A, 4) and scores (A, C) of overlapping boxes, some beyond the border.

    No two scores are equal.
    """
    rng = np.random.default_rng(seed)
    location = rng.normal(0, 3, (len(TABLE), 4)).astype(np.float32)
    scores = rng.permutation(np.linspace(0.001, 0.999, len(TABLE) * len(CLASSES))).astype(
        np.float32
    )
    return location, scores.reshape(len(TABLE), len(CLASSES))


def _model_with_fixed_heads(location: np.ndarray, scores: np.ndarray) -> bytes:
    """Return a .tflite file with an unused float input and two constants as outputs."""
    graph, model = schema.SubGraphT(), schema.ModelT()
    model.buffers = [schema.BufferT()]

    def tensor(name: str, shape: tuple[int, ...], values: np.ndarray | None = None) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = (
            name.encode(),
            list(shape),
            schema.TensorType.FLOAT32,
            0,
        )
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        return made

    pixels = (1, HEIGHT, WIDTH, 3)
    graph.tensors = [
        tensor("image", pixels),
        tensor("unused", pixels),
        tensor("heads/location", (1, *location.shape), location),
        tensor("heads/scores", (1, *scores.shape), scores),
    ]
    relu, code = schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 1
    relu.opcodeIndex, relu.inputs, relu.outputs = 0, [0], [1]
    graph.operators, graph.inputs, graph.outputs = [relu], [0], [2, 3]
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    return flatbuffer.write_model(model)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("score_threshold", "nms_iou", "most"),
    [
        (0.05, 0.5, 300),
        (0.5, 0.5, 300),
        (0.05, 0.2, 300),
        (0.05, 0.9, 300),
        (0.05, 0.5, 7),
        (0.9995, 0.5, 10),
    ],
)
def test_equals_the_op_on_the_phone(
    seed: int, score_threshold: float, nms_iou: float, most: int
) -> None:
    location, scores = _heads(seed)
    spec = ModelSpec("n", "a", CLASSES, HEIGHT, WIDTH, LEVELS, score_threshold, nms_iou, most)
    file = flatbuffer.add_input_and_postprocess(
        _model_with_fixed_heads(location, scores), spec, score_threshold
    )
    op_boxes, op_classes, op_scores = LiteRTDetector(file, spec).invoke(
        np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    )

    here = detections_from_heads(
        location,
        scores,
        TABLE,
        score_threshold=score_threshold,
        nms_iou=nms_iou,
        max_detections=most,
        width=WIDTH,
        height=HEIGHT,
    )
    # No score reaches 0.9995, so only this case has no detections.
    assert (len(here) == 0) == (score_threshold > 0.999)
    assert len(here) == len(op_boxes)
    assert here.classes.tolist() == op_classes.tolist()
    np.testing.assert_array_equal(here.scores, op_scores)
    np.testing.assert_allclose(here.boxes, ratios_to_pixels(op_boxes, WIDTH, HEIGHT), atol=1e-4)


def test_suppression_is_blind_to_the_class() -> None:
    # Two anchors at one location decode to the same box with different classes; one box remains.
    table = np.float32([[0.5, 0.5, 0.4, 0.2]] * 2)
    found = detections_from_heads(
        np.zeros((2, 4), np.float32),
        np.float32([[0.9, 0.1], [0.2, 0.8]]),
        table,
        score_threshold=0.3,
        nms_iou=0.5,
        max_detections=10,
        width=100,
        height=200,
    )
    assert found.classes.tolist() == [0]
    # Centre (50, 100), 0.2 * 100 wide, 0.4 * 200 high.
    np.testing.assert_allclose(found.boxes, [[40, 60, 60, 140]], rtol=1e-5)


def test_a_score_at_the_threshold_counts() -> None:
    heads = np.zeros((1, 4), np.float32), np.float32([[0.5]]), np.float32([[0.5, 0.5, 0.4, 0.2]])
    options = {"nms_iou": 0.5, "max_detections": 1, "width": 9, "height": 9}
    assert len(detections_from_heads(*heads, score_threshold=0.5, **options)) == 1
    assert len(detections_from_heads(*heads, score_threshold=0.51, **options)) == 0


def test_ratios_become_pixels_within_the_photo() -> None:
    got = ratios_to_pixels(np.float32([[0.1, 0.2, 0.5, 1.5], [-0.5, -1, 2, 3]]), 200, 100)
    np.testing.assert_allclose(got, [[40, 10, 200, 50], [0, 0, 200, 100]], rtol=1e-6)
