"""Inspection of model files: operators, delegate partitions, multiplications and parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from shelfcount.deploy import flatbuffer
from shelfcount.deploy.flatbuffer import read_model

# Operators that GPU and Core ML delegates do not support, or only under conditions.
NOT_ON_DELEGATES = {"GATHER", "GATHER_ND", "TOPK_V2", "CAST"}
# Operators that move, pad or convert data and compute no new values.
MOVING = {
    "PAD",
    "PADV2",
    "MIRROR_PAD",
    "TRANSPOSE",
    "RESHAPE",
    "CONCATENATION",
    "SLICE",
    "STRIDED_SLICE",
    "QUANTIZE",
    "DEQUANTIZE",
}


def undelegated_operators(data: bytes) -> list[str]:
    """Return the operators that are not delegated to XNNPACK.

    Args:
        data: Content of a .tflite file.

    Returns:
        Names of the operators in the order of execution, such as ``TFLite_Detection_PostProcess``.
    """
    return [name for name in _executed(data) if name != "DELEGATE"]


def data_movement_operators(data: bytes) -> list[str]:
    """Return the operators that only pad, reorder, join or convert the outputs of others.

    Args:
        data: Content of a .tflite file.

    Returns:
        Names of those operators that are in `MOVING`, in the order of the file.
    """
    return [name for name in operator_names(data) if name in MOVING]


def partitions(data: bytes) -> int:
    """Count the partitions of the model that are delegated to XNNPACK.

    Each border between two partitions costs copies and synchronisation.

    Args:
        data: Content of a .tflite file.

    Returns:
        Number of partitions.
    """
    return _executed(data).count("DELEGATE")


def _executed(data: bytes) -> list[str]:
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    listed = interpreter._get_ops_details()
    # The list still contains the operators that a delegate replaces. The executed ones are found by
    # going back from the outputs. A delegate comes later in the list than the operators that it
    # replaces, so `maker` maps their output tensors to the delegate.
    maker = {int(index): op for op in listed for index in op["outputs"]}
    todo, seen = [int(o["index"]) for o in interpreter.get_output_details()], {}
    while todo:
        op = maker.get(todo.pop())
        if op is not None and op["index"] not in seen:
            seen[op["index"]] = op["op_name"]
            todo += [int(index) for index in op["inputs"]]
    return [seen[index] for index in sorted(seen)]


def operator_names(data: bytes) -> list[str]:
    """Return the names of the operators in a .tflite file.

    Args:
        data: Content of the file.

    Returns:
        Names of the schema, such as ``CONV_2D``, or the names of custom operators, for the first
        subgraph in its order.
    """
    model = read_model(data)
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    codes = [
        c.customCode.decode()
        if c.customCode
        else names[max(c.builtinCode, c.deprecatedBuiltinCode)]
        for c in model.operatorCodes
    ]
    return [codes[op.opcodeIndex] for op in model.subgraphs[0].operators]


def count_macs(data: bytes) -> int:
    """Count the multiply-accumulate operations of all convolutions for one input.

    All other operators of a detector are negligible.

    Args:
        data: Content of a .tflite file.

    Returns:
        Number of multiply-accumulate operations.
    """
    model = read_model(data)
    graph = model.subgraphs[0]
    total = 0
    for name, op in zip(operator_names(data), graph.operators, strict=True):
        if name not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        # Weights are (out, kernel h, kernel w, in), for depthwise (1, kernel h, kernel w, out).
        weights, output = graph.tensors[op.inputs[1]].shape, graph.tensors[op.outputs[0]].shape
        per_output = (
            int(np.prod(weights[1:])) if name == "CONV_2D" else int(weights[1] * weights[2])
        )
        total += int(np.prod(output)) * per_output
    return total


def count_parameters(model: bytes) -> int:
    """Count the weights and biases of convolutions and fully connected layers of a .tflite file.

    Args:
        model: Content of the file.

    Returns:
        Number of parameters. Arrays that several layers share are counted once.
    """
    read = flatbuffer.read_model(model)
    graph = read.subgraphs[0]
    # float16 weights are connected to their layer by a DEQUANTIZE operator.
    names = operator_names(model)
    source = {
        op.outputs[0]: op.inputs[0]
        for name, op in zip(names, graph.operators, strict=True)
        if name == "DEQUANTIZE"
    }
    stored = {}
    for name, op in zip(names, graph.operators, strict=True):
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            for index in op.inputs[1:]:
                tensor = graph.tensors[source.get(index, index)]
                if index >= 0 and read.buffers[tensor.buffer].data is not None:
                    stored[tensor.buffer] = int(np.prod(tensor.shape))
    return sum(stored.values())


def counted_names(names: Sequence[str]) -> list[str]:
    """Combine equal names into one with its number of occurrences.

    >>> counted_names(["PADV2", "BROADCAST_TO", "BROADCAST_TO"])
    ['PADV2', 'BROADCAST_TO × 2']
    """
    return [name if n == 1 else f"{name} × {n}" for name, n in Counter(names).items()]
