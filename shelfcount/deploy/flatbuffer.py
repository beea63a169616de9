"""Edits of a .tflite file: uint8 input, post-processing operator, metadata and signature.

The schema classes of ai-edge-litert read and write the file; no weight is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from numpy.typing import NDArray

from shelfcount.records import ModelSpec, ShelfcountError
from shelfcount.vision import anchors
from shelfcount.vision.anchors import CODER_SCALES
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO
from shelfcount.words import plural

POSTPROCESS = "TFLite_Detection_PostProcess"
INPUT_NAME = "image"
# Names of the operator's outputs, in its order, so that every tool can identify them.
OUTPUT_NAMES = ("location", "category", "score", "number of detections")


def read_model(data: bytes) -> Any:
    """Read a .tflite file as mutable objects.

    ai-edge-quantizer stores buffers after the flatbuffer and refers to them by offset, which
    MediaPipe does not support. These buffers are moved into the objects.

    Args:
        data: Content of the file.

    Returns:
        ``ModelT`` of the schema, with all weights.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))
    for buffer in model.buffers:
        # In the schema, offsets 0 and 1 mean that no data is outside the flatbuffer.
        if buffer.offset and buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


class _Builder(flatbuffers.Builder):
    """Builder that aligns constants to 16 bytes.

    The schema requires this with ``force_align``, but the generated Python code does not do it.
    """

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802
        self.Prep(16, x.nbytes)
        return super().CreateNumpyVector(x)


def write_model(model: Any) -> bytes:
    """Write a model from `read_model` as the content of a .tflite file."""
    builder = _Builder(1 << 22)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def set_metadata(model: Any, name: str, data: bytes) -> None:
    """Store a metadata entry in a model, in place. An entry of the same name is replaced.

    Args:
        model: Model from `read_model`.
        name: Name of the entry.
        data: Content of the entry.
    """
    model.metadata = model.metadata or []
    entry = next((entry for entry in model.metadata if entry.name == name.encode()), None)
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = name.encode(), len(model.buffers)
        model.metadata.append(entry)
        model.buffers.append(schema.BufferT())
    model.buffers[entry.buffer].data = np.frombuffer(data, np.uint8)


def read_heads(data: bytes, spec: ModelSpec) -> Any:
    """Read a .tflite file without post-processing and check its outputs.

    Args:
        data: Content of the file.
        spec: Specification of the model.

    Returns:
        ``ModelT`` of the schema, as `read_model`.

    Raises:
        ShelfcountError: If the file has more than one subgraph, or outputs other than location
            (1, A, 4) and scores (1, A, C) for the anchors and classes of `spec`.
    """
    model = read_model(data)
    if len(model.subgraphs) != 1:
        raise ShelfcountError(
            f"the model has {plural(len(model.subgraphs), 'subgraph')}, but must have one"
        )
    graph = model.subgraphs[0]
    count = len(anchors.anchor_grid(spec.levels, spec.height, spec.width))
    expected = [[1, count, 4], [1, count, len(spec.classes)]]
    shapes = [[int(side) for side in graph.tensors[i].shape] for i in graph.outputs]
    if shapes != expected:
        raise ShelfcountError(
            f"the model's outputs have shapes {shapes}, but its anchors and classes need {expected}"
        )
    return model


def name_signature(model: Any) -> None:
    """Give the inputs and outputs of the signatures the names of their tensors, in place.

    Some runtimes address inputs and outputs by these names.
    """
    graph = model.subgraphs[0]
    for signature in model.signatureDefs or []:
        signature.inputs, signature.outputs = (
            [_entry(graph, i) for i in ends] for ends in (graph.inputs, graph.outputs)
        )


def _entry(graph: Any, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = graph.tensors[index].name, index
    return entry


def add_input_and_postprocess(data: bytes, spec: ModelSpec, score_threshold: float) -> bytes:
    """Add uint8 input and post-processing to a model: the main artifact, without metadata.

    Args:
        data: Content of a .tflite file with one float32 input, (1, H, W, 3) in [-1, 1], and the
            outputs location (1, A, 4) and scores (1, A, C).
        spec: Specification of the model; it gives anchors, NMS settings and number of detections.
        score_threshold: Minimum score of the post-processing operator.

    Returns:
        Content of the edited file. Its input is (1, H, W, 3) uint8 RGB; its outputs are the four
        float32 outputs of the operator, named as in `OUTPUT_NAMES`.

    Raises:
        ShelfcountError: If the file has other outputs, or more than one subgraph.
    """
    model = read_heads(data, spec)
    graph = model.subgraphs[0]
    _drop_requantize(model, graph)
    _take_pixels(model, graph)
    _append_postprocess(model, graph, spec, score_threshold)
    name_signature(model)
    return write_model(model)


def _take_pixels(model: Any, graph: Any) -> None:
    """Replace the float32 input by a uint8 one that is followed by a DEQUANTIZE.

    In an int8 file, a QUANTIZE comes next. A single operator from uint8 to int8 would be enough,
    but XNNPACK does not support one. It supports these two, and the result is exact.
    """
    (index,) = graph.inputs
    tensor = graph.tensors[index]
    tensor.name, tensor.type = INPUT_NAME.encode(), schema.TensorType.UINT8
    tensor.quantization = _quantization(1 / PIXEL_SCALE, PIXEL_ZERO)
    floats = schema.TensorT()
    floats.name, floats.shape, floats.type, floats.buffer = (
        b"pixels",
        tensor.shape,
        schema.TensorType.FLOAT32,
        0,
    )
    graph.tensors.append(floats)
    inside = len(graph.tensors) - 1
    for op in graph.operators:
        op.inputs = [inside if i == index else i for i in op.inputs]
    operator = schema.OperatorT()
    operator.opcodeIndex = _opcode(model, schema.BuiltinOperator.DEQUANTIZE)
    operator.inputs, operator.outputs = [index], [inside]
    graph.operators.insert(0, operator)


def _drop_requantize(model: Any, graph: Any) -> None:
    """Remove QUANTIZE operators from int8 to int8 between a convolution and its reader.

    The quantizer inserts one before a concatenation if the scales of its inputs differ. Instead,
    the convolution gets the scale that the reader needs.
    """
    made_by = {index: op for op in graph.operators for index in op.outputs}
    readers = Counter(index for op in graph.operators for index in op.inputs)
    for op in [
        op for op in graph.operators if _builtin(model, op) == schema.BuiltinOperator.QUANTIZE
    ]:
        (source,), (target,) = op.inputs, op.outputs
        if graph.tensors[source].type != schema.TensorType.INT8:
            continue
        chain = [source]
        while _builtin(model, made_by[chain[-1]]) == schema.BuiltinOperator.RESHAPE:
            chain.append(made_by[chain[-1]].inputs[0])
        if _builtin(model, made_by[chain[-1]]) != schema.BuiltinOperator.CONV_2D or any(
            readers[i] > 1 for i in chain
        ):
            continue
        for index in chain:
            graph.tensors[index].quantization = graph.tensors[target].quantization
        for reader in graph.operators:
            reader.inputs = [source if i == target else i for i in reader.inputs]
        graph.operators.remove(op)


def _builtin(model: Any, operator: Any) -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def _append_postprocess(model: Any, graph: Any, spec: ModelSpec, score_threshold: float) -> None:
    table = anchors.anchor_grid(spec.levels, spec.height, spec.width)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(table.tobytes(), np.uint8)
    model.buffers.append(buffer)
    constant = _tensor(graph, "anchors", table.shape, len(model.buffers) - 1)
    n = spec.max_detections
    outputs = [
        _tensor(graph, name, shape)
        for name, shape in zip(OUTPUT_NAMES, ((1, n, 4), (1, n), (1, n), (1,)), strict=True)
    ]
    y, x, h, w = CODER_SCALES
    options = flexbuffers.Builder()
    with options.Map():
        options.Int("max_detections", n)
        options.Int("max_classes_per_detection", 1)
        # Class-agnostic suppression, since two products cannot be in the same place.
        options.Bool("use_regular_nms", False)
        options.Float("nms_score_threshold", score_threshold)
        options.Float("nms_iou_threshold", spec.nms_iou)
        options.Int("num_classes", len(spec.classes))
        for name, scale in zip(
            ("y_scale", "x_scale", "h_scale", "w_scale"), (y, x, h, w), strict=True
        ):
            options.Float(name, scale)
    operator = schema.OperatorT()
    operator.opcodeIndex = _opcode(model, schema.BuiltinOperator.CUSTOM, POSTPROCESS)
    operator.inputs, operator.outputs = [*graph.outputs, constant], outputs
    operator.customOptions = np.frombuffer(bytes(options.Finish()), np.uint8)
    graph.operators.append(operator)
    graph.outputs = outputs


def _opcode(model: Any, builtin: int, custom: str | None = None) -> int:
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    # Old readers use this 8-bit field; the 32-bit field was added later.
    code.deprecatedBuiltinCode = min(builtin, 127)
    code.version = 1
    code.customCode = custom.encode() if custom else None
    if builtin == schema.BuiltinOperator.DEQUANTIZE:
        for i, known in enumerate(model.operatorCodes):
            if max(known.builtinCode, known.deprecatedBuiltinCode) == builtin:
                return i
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _tensor(graph: Any, name: str, shape: Sequence[int], buffer: int = 0) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = (
        name.encode(),
        list(shape),
        schema.TensorType.FLOAT32,
        buffer,
    )
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _quantization(scale: float, zero: int) -> Any:
    parameters = schema.QuantizationParametersT()
    parameters.scale, parameters.zeroPoint = [scale], [zero]
    return parameters
