"""Edits of a .tflite file: pixels as uint8 in, post-processing inside.

The public schema classes that come with ai-edge-litert read and write the file; nothing here
touches a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from shelfcount.records import ModelSpec, ShelfcountError
from shelfcount.vision import anchors
from shelfcount.vision.anchors import CODER_SCALES
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO

POSTPROCESS = "TFLite_Detection_PostProcess"
# Names by which the op's outputs can be told apart in any tool, in the op's order.
OUTPUT_NAMES = ("location", "category", "score", "number of detections")


def read(data: bytes) -> Any:
    """A model as mutable objects, all weights inside them.

    ai-edge-quantizer puts buffers behind the flatbuffer and refers to them by offset, which
    MediaPipe refuses; here they come back in.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))
    for buffer in model.buffers:
        # Offset 1 is how the schema marks 'no data outside'.
        if buffer.offset and buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def write(model: Any) -> bytes:
    """The inverse of `read`."""
    builder = flatbuffers.Builder(1 << 22)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def finish(data: bytes, spec: ModelSpec, score_threshold: float) -> bytes:
    """The main artifact: uint8 pixels in, four float32 outputs out of the post-processing op.

    Args:
        data: A file with one float32 input (1, H, W, 3) in [-1, 1] and outputs location and scores.
        spec: Anchors, suppression and number of detections.
        score_threshold: Below it the op does not look.

    Returns:
        The edited file.

    Raises:
        ShelfcountError: If the file is not of that form.
    """
    model = read(data)
    if len(model.subgraphs) != 1:
        raise ShelfcountError(f"the model must have one subgraph, got {len(model.subgraphs)}")
    graph = model.subgraphs[0]
    count = len(anchors.layout(spec.levels, spec.height, spec.width))
    wanted = [[1, count, 4], [1, count, len(spec.classes)]]
    shapes = [[int(side) for side in graph.tensors[i].shape] for i in graph.outputs]
    if shapes != wanted:
        raise ShelfcountError(f"the model's outputs must have shapes {wanted}, got {shapes}")
    _take_pixels(model, graph)
    _append_postprocess(model, graph, spec, score_threshold)
    # The signature named the tensors that are now inside the graph.
    model.signatureDefs = []
    return write(model)


def operator_names(data: bytes) -> list[str]:
    """The operators of the first subgraph in order, by the schema's names; custom ones by their own."""
    model = read(data)
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    codes = [c.customCode.decode() if c.customCode else names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    return [codes[op.opcodeIndex] for op in model.subgraphs[0].operators]


def _take_pixels(model: Any, graph: Any) -> None:
    """Make the float input a uint8 one.

    In an int8 file the QUANTIZE behind the input becomes uint8 to int8, the same scale and the
    zero point moved by 128. In a float file a DEQUANTIZE takes its place.
    """
    (index,) = graph.inputs
    tensor = graph.tensors[index]
    readers = [op for op in graph.operators if index in list(op.inputs)]
    tensor.type = schema.TensorType.UINT8
    first = graph.tensors[readers[0].outputs[0]]
    if len(readers) == 1 and first.type == schema.TensorType.INT8 and first.quantization is not None and _is_quantize(model, readers[0]):
        scale, zero = float(first.quantization.scale[0]), int(first.quantization.zeroPoint[0])
        if abs(scale * 255 - 2) > 1e-3:
            raise ShelfcountError(f"the int8 input must span [-1, 1], got a scale of {scale} instead of {2 / 255:.6f}")
        tensor.quantization = _quantization(scale, zero + 128)
        return
    tensor.quantization = _quantization(1 / PIXEL_SCALE, PIXEL_ZERO)
    floats = schema.TensorT()
    floats.name, floats.shape, floats.type, floats.buffer = b"pixels", tensor.shape, schema.TensorType.FLOAT32, 0
    graph.tensors.append(floats)
    inside = len(graph.tensors) - 1
    for op in readers:
        op.inputs = [inside if i == index else i for i in op.inputs]
    operator = schema.OperatorT()
    operator.opcodeIndex = _opcode(model, schema.BuiltinOperator.DEQUANTIZE)
    operator.inputs, operator.outputs = [index], [inside]
    graph.operators.insert(0, operator)


def _is_quantize(model: Any, operator: Any) -> bool:
    code = model.operatorCodes[operator.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode) == schema.BuiltinOperator.QUANTIZE


def _append_postprocess(model: Any, graph: Any, spec: ModelSpec, score_threshold: float) -> None:
    table = anchors.layout(spec.levels, spec.height, spec.width)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(table.tobytes(), np.uint8)
    model.buffers.append(buffer)
    constant = _tensor(graph, "anchors", table.shape, len(model.buffers) - 1)
    n = spec.max_detections
    outputs = [_tensor(graph, name, shape) for name, shape in zip(OUTPUT_NAMES, ((1, n, 4), (1, n), (1, n), (1,)), strict=True)]
    y, x, h, w = CODER_SCALES
    options = flexbuffers.Builder()
    with options.Map():
        options.Int("max_detections", n)
        options.Int("max_classes_per_detection", 1)
        # Suppression whatever the class: two products cannot stand in one place.
        options.Bool("use_regular_nms", False)
        options.Float("nms_score_threshold", score_threshold)
        options.Float("nms_iou_threshold", spec.nms_iou)
        options.Int("num_classes", len(spec.classes))
        for name, scale in zip(("y_scale", "x_scale", "h_scale", "w_scale"), (y, x, h, w), strict=True):
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
    # Readers older than the wide field look at the narrow one.
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
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), schema.TensorType.FLOAT32, buffer
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _quantization(scale: float, zero: int) -> Any:
    parameters = schema.QuantizationParametersT()
    parameters.scale, parameters.zeroPoint = [scale], [zero]
    return parameters


def count_macs(data: bytes) -> int:
    """Multiply-accumulates of all convolutions for one input; the rest of a detector is small change."""
    model = read(data)
    graph = model.subgraphs[0]
    total = 0
    for name, op in zip(operator_names(data), graph.operators, strict=True):
        if name not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        # Weights are (out, kernel h, kernel w, in), for depthwise (1, kernel h, kernel w, out).
        weights, output = graph.tensors[op.inputs[1]].shape, graph.tensors[op.outputs[0]].shape
        per_output = int(np.prod(weights[1:])) if name == "CONV_2D" else int(weights[1] * weights[2])
        total += int(np.prod(output)) * per_output
    return total
