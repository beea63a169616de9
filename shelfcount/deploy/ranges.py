"""The int8 ranges of a float32 file: which tensor a step of the network writes, and what range goes with it.

A float32 .tflite file has room for the least and greatest value of each tensor; that is how ranges that
training found travel to the quantizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shelfcount.deploy import flatbuffer
from shelfcount.records import ShelfcountError
from shelfcount.training.fake_quant import FakeQuantized, Step

OPERATORS = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "conv",
    "ADD": "add",
    "RESIZE_BILINEAR": "resize",
    "RESHAPE": "rows",
    "CONCATENATION": "concat",
}
# The converter folds and adds in another order than PyTorch: weights of one convolution differ in the last digits,
# those of two are far apart.
SAME_WEIGHTS = 1e-3


def tensors(data: bytes, net: FakeQuantized) -> dict[str, str]:
    """Which tensor of a file holds what each step writes.

    Args:
        data: From `convert.to_litert` of `net`, or of the network it was made from.
        net: Gives the steps.

    Returns:
        Names of the file's float tensors, in the operators' order, to names of steps or of the input.

    Raises:
        ShelfcountError: If the file does not hold these steps.
    """
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    (pixels,) = graph.inputs
    known = {int(pixels): net.input}
    for kind, op in zip(flatbuffer.operator_names(data), graph.operators, strict=True):
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
        # Convolutions of one input with equal weights compute the same, and one level needs no concatenation.
        if not alike:
            raise ShelfcountError(
                f"the file has a {kind} behind {sorted(sources)} that the network has not. Convert this network again."
            )
        known[int(op.outputs[0])] = alike[0].name
    missing = {step.name for step in net.steps if step.kind != "concat"} - set(known.values())
    if missing:
        raise ShelfcountError(
            f"the file lacks what these steps write: {sorted(missing)[:5]}. Convert this network again."
        )
    return {graph.tensors[i].name.decode(): name for i, name in known.items()}


def of_network(data: bytes, net: FakeQuantized) -> dict[str, tuple[float, float]]:
    """Ranges by tensor name, as `put` takes them, from the network's own."""
    graph = flatbuffer.read(data).subgraphs[0]
    # What the sigmoid writes is in the file alone; its scale is the kernels' own.
    scores = graph.tensors[graph.outputs[1]].name.decode()
    return {tensor: net.range_of(name) for tensor, name in tensors(data, net).items()} | {
        scores: (0.0, 1.0)
    }


def put(data: bytes, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """Keep ranges with the tensors of a float32 file; those it had go.

    Args:
        data: The file.
        ranges: Least and greatest value by tensor name.
    """
    model = flatbuffer.read(data)
    for tensor in model.subgraphs[0].tensors:
        tensor.quantization = None
        if bounds := ranges.get(tensor.name.decode()):
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.min, tensor.quantization.max = ([bound] for bound in bounds)
    return flatbuffer.write(model)


def take(data: bytes) -> tuple[bytes, dict[str, tuple[float, float]]]:
    """The inverse of `put`: the file without ranges, and the ranges; it unchanged and none, where it has none."""
    found = {}
    for tensor in flatbuffer.read(data).subgraphs[0].tensors:
        kept = tensor.quantization
        if kept is not None and kept.min is not None and len(kept.min):
            found[tensor.name.decode()] = float(kept.min[0]), float(kept.max[0])
    return (put(data, {}) if found else data), found


def _constant(model: Any, tensor: Any) -> np.ndarray:
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)


def _weights_fit(net: FakeQuantized, step: Step, weights: np.ndarray) -> bool:
    ours = net.get_submodule(step.name).weight.detach().cpu().numpy()  # type: ignore[union-attr, operator]
    # The file has (out, h, w, in), for depthwise (1, h, w, out).
    ours = (
        ours.transpose(1, 2, 3, 0)
        if ours.shape[1] == 1 and weights.shape[0] == 1
        else ours.transpose(0, 2, 3, 1)
    )
    return ours.shape == weights.shape and bool(
        np.abs(ours - weights).max() <= SAME_WEIGHTS * np.abs(ours).max()
    )
