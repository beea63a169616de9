"""TFLite metadata: every field is in the slot of the public schemas, and the model is unchanged.

The slots are counted in metadata_schema.fbs 1.5.0 and object_detector_metadata_schema.fbs 1.0.0
(github.com/google-ai-edge/mediapipe, mediapipe/tasks/metadata), not in the code under test.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from conftest import Overfit
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table

from shelfcount.deploy import convert, flatbuffer, metadata
from shelfcount.records import AnchorLevel, ModelSpec, ShelfcountError
from shelfcount.runtime.bundle import LiteRTDetector
from shelfcount.training.runs import read_spec
from shelfcount.vision import anchors
from shelfcount.vision.images import read_photo, stretch

SIDE, CLASSES = 16, ("cola", "Käse", "コーラ")
SPEC = ModelSpec(
    "shelf",
    "mobilenet_v2_050",
    CLASSES,
    SIDE,
    SIDE,
    (AnchorLevel(8, ((8.0, 6.0),)),),
    0.31,
    max_detections=5,
    provenance={
        "licence": "CC BY 4.0",
        "attribution": "Ngọc Tuấn",
        "trained": {"date": "2026-11-23 17:36 UTC", "versions": {"shelfcount": "0.1.0"}},
    },
)
PLACES = 4  # two by two cells at stride 8, with one anchor each


@pytest.fixture(scope="module")
def heads() -> bytes:
    """A file with the input and outputs of a converted detector: two random dense layers."""
    rng = np.random.default_rng(0)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = (
        3,
        [graph],
        [schema.BufferT()],
        [],
    )
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [0], []

    def tensor(shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        entry = schema.TensorT()
        entry.name, entry.shape, entry.buffer = f"t{len(graph.tensors)}".encode(), list(shape), 0
        entry.type = (
            schema.TensorType.INT32
            if data is not None and data.dtype == np.int32
            else schema.TensorType.FLOAT32
        )
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            entry.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(entry)
        return len(graph.tensors) - 1

    def operator(
        builtin: int,
        inputs: list[int],
        shape: tuple[int, ...],
        options: int = 0,
        fields: Any = None,
    ) -> int:
        code, entry = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, builtin, 1
        model.operatorCodes.append(code)
        entry.opcodeIndex, entry.inputs, entry.outputs = (
            len(model.operatorCodes) - 1,
            inputs,
            [tensor(shape)],
        )
        entry.builtinOptionsType, entry.builtinOptions = options, fields
        graph.operators.append(entry)
        return entry.outputs[0]

    image = tensor((1, SIDE, SIDE, 3))
    for width in (4, len(CLASSES)):
        weights = (rng.normal(size=(PLACES * width, SIDE * SIDE * 3)) / 20).astype(np.float32)
        dense = schema.BuiltinOptions.FullyConnectedOptions, schema.FullyConnectedOptionsT()
        inputs = [image, tensor(weights.shape, weights), -1]
        layer = operator(
            schema.BuiltinOperator.FULLY_CONNECTED, inputs, (1, PLACES * width), *dense
        )
        if width != 4:
            layer = operator(schema.BuiltinOperator.LOGISTIC, [layer], (1, PLACES * width))
        shape = np.array([1, PLACES, width], np.int32)
        graph.outputs.append(
            operator(
                schema.BuiltinOperator.RESHAPE, [layer, tensor((3,), shape)], (1, PLACES, width)
            )
        )
    return flatbuffer.write_model(model)


@pytest.fixture(scope="module")
def main_artifact(heads: bytes) -> bytes:
    return flatbuffer.add_input_and_postprocess(heads, SPEC, 0.05)


def outputs_of(model: bytes, image: np.ndarray) -> list[np.ndarray]:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    return [interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()]


class Reader:
    """Table of a flatbuffer, read by slot number."""

    def __init__(self, data: bytes, position: int | None = None) -> None:
        self.data = data
        self.table = Table(
            data, encode.Get(packer.uoffset, data, 0) if position is None else position
        )

    def _at(self, slot: int) -> int:
        offset = self.table.Offset(4 + 2 * slot)
        assert offset, f"slot {slot} is empty"
        return offset

    def __contains__(self, slot: int) -> bool:
        return bool(self.table.Offset(4 + 2 * slot))

    def number(self, slot: int, flags: Any) -> Any:
        # A field with its default value, 0, is not stored.
        return self.table.GetSlot(4 + 2 * slot, 0, flags)

    def text(self, slot: int) -> str:
        return self.table.String(self.table.Pos + self._at(slot)).decode()

    def one(self, slot: int) -> Reader:
        return Reader(self.data, self.table.Indirect(self.table.Pos + self._at(slot)))

    def array(self, slot: int, flags: Any) -> np.ndarray:
        return self.table.GetVectorAsNumpy(flags, self._at(slot))

    def many(self, slot: int) -> list[Reader]:
        return [Reader(self.data, self.table.Indirect(start)) for start in self._starts(slot)]

    def texts(self, slot: int) -> list[str]:
        return [self.table.String(start).decode() for start in self._starts(slot)]

    def _starts(self, slot: int) -> list[int]:
        offset = self._at(slot)
        return [self.table.Vector(offset) + 4 * i for i in range(self.table.VectorLen(offset))]


def model_metadata(model: bytes) -> Reader:
    edited = flatbuffer.read_model(model)
    (entry,) = [entry for entry in edited.metadata if entry.name == b"TFLITE_METADATA"]
    data = bytes(edited.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    return Reader(data)


# ---------------------------------------------------------------- the file as a whole


def test_metadata_does_not_change_the_detections_of_the_main_artifact(main_artifact: bytes) -> None:
    image = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    assert_same_detections(main_artifact, metadata.embed_metadata(main_artifact, SPEC), SPEC, image)


def assert_same_detections(before: bytes, after: bytes, spec: ModelSpec, image: np.ndarray) -> None:
    # With this package's runtime, which ignores the rows after the count: the operator does not
    # write them.
    ours, theirs = (LiteRTDetector(model, spec).invoke(image) for model in (before, after))
    assert len(ours[0]) > 0
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_raw_artifact_has_the_same_outputs_with_their_names(heads: bytes) -> None:
    image = np.random.default_rng(1).uniform(-1, 1, (SIDE, SIDE, 3)).astype(np.float32)
    raw = metadata.embed_raw_metadata(heads, SPEC)
    for ours, theirs in zip(outputs_of(heads, image), outputs_of(raw, image), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    interpreter = Interpreter(model_content=raw)
    details = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert [d["name"] for d in details] == ["image", "location", "score"]


def test_labels_are_appended_to_the_flatbuffer_as_a_zip(main_artifact: bytes, heads: bytes) -> None:
    for model in (
        metadata.embed_metadata(main_artifact, SPEC),
        metadata.embed_raw_metadata(heads, SPEC),
    ):
        assert model[4:8] == b"TFL3"
        archive = zipfile.ZipFile(io.BytesIO(model))
        assert archive.testzip() is None
        (entry,) = archive.infolist()
        # MediaPipe reads uncompressed archives only: "Expected uncompressed zip archive" in
        # mediapipe/tasks/cc/metadata/utils/zip_utils.cc.
        assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read("labels.txt").decode() == "cola\nKäse\nコーラ\n"


def test_same_arguments_give_the_same_bytes(main_artifact: bytes, heads: bytes) -> None:
    once = metadata.embed_metadata(main_artifact, SPEC)
    assert metadata.embed_metadata(main_artifact, SPEC) == once
    assert metadata.embed_raw_metadata(heads, SPEC) == metadata.embed_raw_metadata(heads, SPEC)
    # The only date in the format.
    assert zipfile.ZipFile(io.BytesIO(once)).infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)


def test_describing_again_replaces_the_metadata(main_artifact: bytes) -> None:
    renamed = replace(SPEC, name="other", classes=("a", "b", "c"))
    twice = metadata.embed_metadata(metadata.embed_metadata(main_artifact, renamed), SPEC)
    assert twice == metadata.embed_metadata(main_artifact, SPEC)


# ---------------------------------------------------------------- main artifact, field by field


def test_model_is_named_dated_and_attributed(main_artifact: bytes) -> None:
    model = model_metadata(metadata.embed_metadata(main_artifact, replace(SPEC, name="Käseregal")))
    name, description, version, author, licence, min_parser_version = (
        model.text(slot) for slot in (0, 1, 2, 4, 5, 7)
    )
    assert name == "Käseregal"
    assert description == (
        "Detects 3 classes of products on photos of shop shelves. Stretch the whole upright photo "
        "to 16 x 16 pixels. Use the boxes with a score of at least 0.31."
    )
    assert version == "trained 2026-11-23 17:36 UTC"
    assert author == "shelfcount 0.1.0"
    assert licence == "Training photos: Ngọc Tuấn. Licence: CC BY 4.0."
    # SubGraphMetadata.output_tensor_groups: "Added in: 1.2.0", the youngest field used.
    assert min_parser_version == "1.2.0"


def test_unknown_provenance_is_stated_as_unknown(main_artifact: bytes) -> None:
    model = model_metadata(metadata.embed_metadata(main_artifact, replace(SPEC, provenance={})))
    assert model.text(2) == "trained at an unknown time"
    assert model.text(4) == "shelfcount"
    assert model.text(5) == "Training photos: source not stated. Licence: not stated."


def test_input_is_an_rgb_image_of_bytes(main_artifact: bytes) -> None:
    (subgraph,) = model_metadata(metadata.embed_metadata(main_artifact, SPEC)).many(3)
    (image,) = subgraph.many(2)
    assert image.text(0) == "image"
    # ContentProperties.ImageProperties is 2, ColorSpaceType.RGB 1.
    assert image.one(3).number(0, number_types.Uint8Flags) == 2
    assert image.one(3).one(1).number(0, number_types.Int8Flags) == 1
    assert normalization(image) == ([127.0], [127.5])
    assert limits(image) == (0.0, 255.0)


def normalization(image: Reader) -> tuple[list[float], list[float]]:
    (unit,) = image.many(4)
    # ProcessUnitOptions.NormalizationOptions.
    assert unit.number(0, number_types.Uint8Flags) == 1
    mean, std = (unit.one(1).array(slot, number_types.Float32Flags).tolist() for slot in (0, 1))
    return mean, std


def limits(image: Reader) -> tuple[float, float]:
    stats = image.one(5)
    (high,), (low,) = (stats.array(slot, number_types.Float32Flags).tolist() for slot in (0, 1))
    return low, high


def test_outputs_are_named_as_mediapipe_looks_for_them(main_artifact: bytes) -> None:
    (subgraph,) = model_metadata(metadata.embed_metadata(main_artifact, SPEC)).many(3)
    location, category, score, number = subgraph.many(3)
    # kLocationTensorName and so on in detection_postprocessing_graph.cc.
    assert [t.text(0) for t in (location, category, score, number)] == [
        "location",
        "category",
        "score",
        "number of detections",
    ]
    # Content.range is {2, 2} for tensors with one entry per detection, as in MediaPipe's
    # DetectionOutputTensorsMd.
    for tensor in (location, category, score):
        span = tensor.one(3).one(2)
        assert [span.number(slot, number_types.Int32Flags) for slot in (0, 1)] == [2, 2]
    assert 2 not in number.one(3)
    # ContentProperties.FeatureProperties is 1.
    assert [t.one(3).number(0, number_types.Uint8Flags) for t in (category, score, number)] == [
        1,
        1,
        1,
    ]
    (group,) = subgraph.many(8)
    assert group.text(0) == "detection_result"
    assert group.texts(1) == ["location", "category", "score"]


def test_boxes_are_boundaries_in_ratios_from_the_top(main_artifact: bytes, heads: bytes) -> None:
    for model in (
        metadata.embed_metadata(main_artifact, SPEC),
        metadata.embed_raw_metadata(heads, SPEC),
    ):
        (subgraph,) = model_metadata(model).many(3)
        content = subgraph.many(3)[0].one(3)
        # ContentProperties.BoundingBoxProperties is 3, BoundingBoxType.BOUNDARIES 1 and
        # CoordinateType.RATIO 0.
        assert content.number(0, number_types.Uint8Flags) == 3
        box = content.one(1)
        assert box.array(0, number_types.Uint32Flags).tolist() == [1, 0, 3, 2]
        assert [box.number(slot, number_types.Int8Flags) for slot in (1, 2)] == [1, 0]


def test_labels_belong_to_the_right_output_and_name_the_photographer(
    main_artifact: bytes, heads: bytes
) -> None:
    # AssociatedFileType: TENSOR_AXIS_LABELS is 2, TENSOR_VALUE_LABELS 3. Both belong to output 1.
    for model, kind in (
        (metadata.embed_metadata(main_artifact, SPEC), 3),
        (metadata.embed_raw_metadata(heads, SPEC), 2),
    ):
        (subgraph,) = model_metadata(model).many(3)
        (labels,) = subgraph.many(3)[1].many(6)
        assert labels.text(0) == "labels.txt"
        assert labels.text(1).endswith("Training photos: Ngọc Tuấn. Licence: CC BY 4.0.")
        assert labels.number(2, number_types.Int8Flags) == kind


def test_threshold_of_the_spec_is_the_default_of_the_app(
    main_artifact: bytes, heads: bytes
) -> None:
    for model, output in (
        (metadata.embed_metadata(main_artifact, SPEC), 2),
        (metadata.embed_raw_metadata(heads, SPEC), 1),
    ):
        (subgraph,) = model_metadata(model).many(3)
        (unit,) = subgraph.many(3)[output].many(4)
        # ProcessUnitOptions.ScoreThresholdingOptions is 3.
        assert unit.number(0, number_types.Uint8Flags) == 3
        assert unit.one(1).number(0, number_types.Float32Flags) == np.float32(0.31)


# ---------------------------------------------------------------- raw artifact, field by field


def test_raw_input_is_normalised(heads: bytes) -> None:
    model = model_metadata(metadata.embed_raw_metadata(heads, SPEC))
    (subgraph,) = model.many(3)
    (image,) = subgraph.many(2)
    assert normalization(image) == ([127.0], [127.5])
    # (0 - 127) / 127.5 and (255 - 127) / 127.5.
    assert limits(image) == pytest.approx((-0.996078, 1.003922), abs=1e-6)
    assert [t.text(0) for t in subgraph.many(3)] == ["location", "score"]
    # SubGraphMetadata.custom_metadata: "Added in: 1.5.0".
    assert model.text(7) == "1.5.0"


def detector_options(model: bytes) -> Reader:
    (subgraph,) = model_metadata(model).many(3)
    (custom,) = subgraph.many(9)
    assert custom.text(0) == "DETECTOR_METADATA"
    data = custom.array(1, number_types.Uint8Flags)
    # CustomMetadata.data is force_align 16.
    start = (
        data.__array_interface__["data"][0]
        - np.frombuffer(custom.data, np.uint8).__array_interface__["data"][0]
    )
    assert start % 16 == 0
    assert data[4:8].tobytes() == b"V001"
    return Reader(data.tobytes())


def test_raw_decoding_is_that_of_the_box_coder(heads: bytes) -> None:
    options = detector_options(metadata.embed_raw_metadata(heads, SPEC))
    assert options.text(0) == "1.0.0"
    decoding = options.one(2)
    whole = [decoding.number(slot, number_types.Int32Flags) for slot in range(6)]
    # Classes, boxes, coordinates; no keypoints, so the number of values per keypoint has no effect.
    assert whole[:5] == [3, PLACES, 4, 0, 0]
    # x, y, w, h: 10, 10, 5, 5 of the SSD box coder (arXiv:1512.02325).
    assert [decoding.number(slot, number_types.Float32Flags) for slot in range(6, 10)] == [
        10.0,
        10.0,
        5.0,
        5.0,
    ]
    # Exponential of the size; no sigmoid, since the model applies it.
    assert [decoding.number(slot, number_types.BoolFlags) for slot in (10, 11)] == [True, False]


def test_raw_anchors_are_those_of_the_spec(heads: bytes) -> None:
    fixed = detector_options(metadata.embed_raw_metadata(heads, SPEC)).one(1).one(0).many(0)
    # FixedAnchor: x_center, y_center, width, height.
    xywh = np.array(
        [[a.number(slot, number_types.Float32Flags) for slot in range(4)] for a in fixed],
        np.float32,
    )
    np.testing.assert_array_equal(
        xywh[:, [1, 0, 3, 2]], anchors.anchor_grid(SPEC.levels, SIDE, SIDE)
    )
    # By hand: the first cell at stride 8 in 16 pixels, with an anchor 8 pixels high and 6 wide.
    assert xywh[0].tolist() == [0.25, 0.25, 0.375, 0.5]


# ---------------------------------------------------------------- errors


def test_heads_are_not_described_as_the_main_artifact(heads: bytes) -> None:
    names = r"\('location', 'category', 'score', 'number of detections'\)"
    with pytest.raises(
        ShelfcountError,
        match=rf"the main artifact's outputs are \('t4', 't9'\), but must be {names}",
    ):
        metadata.embed_metadata(heads, SPEC)


def test_raw_file_of_another_model_is_refused(heads: bytes) -> None:
    with pytest.raises(
        ShelfcountError,
        match=r"outputs have shapes \[\[1, 4, 4\], \[1, 4, 3\]\], "
        r"but its anchors and classes need \[\[1, 4, 4\], \[1, 4, 2\]\]",
    ):
        metadata.embed_raw_metadata(heads, replace(SPEC, classes=("cola", "Käse")))


# ---------------------------------------------------------------- trained files


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_trained_artifact_gives_the_same_detections(
    overfit: Overfit, artifact: Callable[[str], bytes], recipe: str
) -> None:
    spec = read_spec(overfit.run)
    image = stretch(read_photo(overfit.photos.photos[0].path), spec.height, spec.width)
    assert_same_detections(
        artifact(recipe), metadata.embed_metadata(artifact(recipe), spec), spec, image
    )


@pytest.mark.slow
def test_trained_raw_artifact_is_float16_and_contains_its_weights(
    overfit: Overfit, converted: bytes
) -> None:
    spec = read_spec(overfit.run)
    half = convert.quantize(converted, "float16", [])
    raw = metadata.embed_raw_metadata(half, spec)
    image = np.random.default_rng(2).uniform(-1, 1, (spec.height, spec.width, 3)).astype(np.float32)
    for ours, theirs in zip(outputs_of(half, image), outputs_of(raw, image), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    stored = schema.Model.GetRootAs(bytearray(raw), 0)
    # In the schema, offsets 0 and 1 mean that no data is outside the flatbuffer.
    assert [
        stored.Buffers(i).Offset()
        for i in range(stored.BuffersLength())
        if stored.Buffers(i).Offset() > 1
    ] == []
    (signature,) = Interpreter(model_content=raw).get_signature_list().values()
    assert signature == {"inputs": ["image"], "outputs": ["location", "score"]}
