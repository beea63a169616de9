"""Quantization ranges in a float32 .tflite file, from quantization-aware training to the quantizer.

A float32 .tflite file can store a minimum and a maximum for each tensor. This module matches the
tensors of a file to the steps of a fake-quantized network, and stores the trained ranges with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from shelfcount.deploy import flatbuffer, inspection
from shelfcount.records import ShelfcountError
from shelfcount.training.operator_tracing import QuantizedOperator
from shelfcount.training.quantization_aware import FakeQuantized

# Kind of the `QuantizedOperator` for each operator of LiteRT; the others have none.
OPERATORS = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "conv",
    "ADD": "add",
    "RESIZE_BILINEAR": "resize",
    "RESHAPE": "flatten",
    "CONCATENATION": "concat",
}
# Tolerance for equal weights, as a share of the maximum magnitude. The converter computes in a
# different order than PyTorch, which changes the last digits; other convolutions differ much more.
SAME_WEIGHTS = 1e-3


def match_tensors(data: bytes, net: FakeQuantized) -> dict[str, str]:
    """Match the tensors of a float32 .tflite file to the steps of a fake-quantized network.

    Args:
        data: Content of a file from `convert.to_litert` of `net`, or of the network that `net` was
            created from.
        net: Fake-quantized network.

    Returns:
        Name of the step, or of the network's input, by the name of the tensor that contains its
        output, in the order of the operators.

    Raises:
        ShelfcountError: If the operators of the file do not match the steps of the network.
    """
    model = flatbuffer.read_model(data)
    graph = model.subgraphs[0]
    (pixels,) = graph.inputs
    known = {int(pixels): net.input}
    for kind, op in zip(inspection.operator_names(data), graph.operators, strict=True):
        if kind not in OPERATORS:
            continue
        sources = frozenset(known[i] for i in map(int, op.inputs) if i in known)
        alike = [
            step
            for step in net.steps
            if step.kind == OPERATORS[kind] and frozenset(step.inputs) == sources
        ]
        if OPERATORS[kind] == "conv":
            weights = _constant(model, graph.tensors[op.inputs[1]])
            alike = [step for step in alike if _weights_fit(net, step, weights)]
        if not alike:
            raise ShelfcountError(
                f"the .tflite file has a {kind} with input {sorted(sources)} that does not match "
                "any layer of the network. Convert this network again."
            )
        # If several steps match, their outputs are equal: same operator, inputs and weights.
        known[int(op.outputs[0])] = alike[0].name
    # With a single pyramid level, the file contains no concatenation.
    missing = {step.name for step in net.steps if step.kind != "concat"} - set(known.values())
    if missing:
        raise ShelfcountError(
            "the .tflite file does not contain the outputs of these layers: "
            f"{', '.join(sorted(missing)[:5])}. Convert this network again."
        )
    return {graph.tensors[i].name.decode(): name for i, name in known.items()}


def of_network(data: bytes, net: FakeQuantized) -> dict[str, tuple[float, float]]:
    """Return the ranges of a fake-quantized network by the tensors of its .tflite file.

    Args:
        data: Content of a float32 file from `convert.to_litert`.
        net: Fake-quantized network.

    Returns:
        Minimum and maximum by tensor name, as the argument of `store_ranges`.

    Raises:
        ShelfcountError: If the operators of the file do not match the steps of the network.
    """
    graph = flatbuffer.read_model(data).subgraphs[0]
    # The network has no step for the sigmoid of the file. Its output has a fixed range.
    scores = graph.tensors[graph.outputs[1]].name.decode()
    return {tensor: net.range_of(name) for tensor, name in match_tensors(data, net).items()} | {
        scores: (0.0, 1.0)
    }


def store_ranges(data: bytes, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """Store quantization ranges in a float32 .tflite file. Existing ranges are removed.

    Args:
        data: Content of the file.
        ranges: Minimum and maximum by tensor name.

    Returns:
        Content of the file with the ranges.
    """
    model = flatbuffer.read_model(data)
    for tensor in model.subgraphs[0].tensors:
        tensor.quantization = None
        if bounds := ranges.get(tensor.name.decode()):
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.min, tensor.quantization.max = ([bound] for bound in bounds)
    return flatbuffer.write_model(model)


def extract_ranges(data: bytes) -> tuple[bytes, dict[str, tuple[float, float]]]:
    """Remove the quantization ranges from a float32 .tflite file and return both.

    Args:
        data: Content of the file.

    Returns:
        Content of the file without ranges, and minimum and maximum by tensor name. If the file has
        no ranges, the content is unchanged and the mapping is empty.
    """
    stored = {}
    for tensor in flatbuffer.read_model(data).subgraphs[0].tensors:
        bounds = tensor.quantization
        if bounds is not None and bounds.min is not None and len(bounds.min):
            stored[tensor.name.decode()] = float(bounds.min[0]), float(bounds.max[0])
    return (store_ranges(data, {}) if stored else data), stored


def _constant(model: Any, tensor: Any) -> NDArray[np.float32]:
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)


def _weights_fit(net: FakeQuantized, step: QuantizedOperator, weights: NDArray[np.float32]) -> bool:
    ours = net.get_submodule(step.name).weight.detach().cpu().numpy()  # type: ignore[union-attr, operator]
    # The layout in the file is (out, h, w, in), for depthwise convolutions (1, h, w, out).
    ours = (
        ours.transpose(1, 2, 3, 0)
        if ours.shape[1] == 1 and weights.shape[0] == 1
        else ours.transpose(0, 2, 3, 1)
    )
    return ours.shape == weights.shape and bool(
        np.abs(ours - weights).max() <= SAME_WEIGHTS * np.abs(ours).max()
    )
