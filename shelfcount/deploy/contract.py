"""Contract checks: the properties of a bundle's .tflite files that apps may rely on."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from shelfcount.deploy import flatbuffer
from shelfcount.deploy.metadata import LABELS_FILE
from shelfcount.records import ModelSpec, ShelfcountError
from shelfcount.runtime.bundle import RAW_MODEL, Bundle, label_lines
from shelfcount.vision import anchors
from shelfcount.words import plural

# Operators that GPU and Core ML delegates do not support, or only under conditions.
NOT_ON_DELEGATES = {"GATHER", "GATHER_ND", "TOPK_V2", "CAST"}
METADATA = b"TFLITE_METADATA"
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


def breaches(bundle: Bundle) -> list[str]:
    """Check model.tflite and model-raw.tflite of a bundle against the contract.

    Args:
        bundle: Bundle from `runtime.bundle.read_bundle`.

    Returns:
        One sentence per breach, starting with the name of the file; empty if there is none.
    """
    found = []
    for name, check in (("model.tflite", _main), (RAW_MODEL, _raw)):
        path = bundle.path / name
        if not path.exists():
            found.append(f"{name} is missing")
            continue
        data = path.read_bytes()
        try:
            model = flatbuffer.read(data)
            found += [
                f"{name}: {breach}"
                for breach in (*check(data, model, bundle.spec), *_common(model))
            ]
        except (
            ValueError,
            TypeError,
            IndexError,
            AttributeError,
            struct.error,
            ShelfcountError,
        ) as error:
            found.append(f"{name} cannot be read as a .tflite model: {error}")
            continue
        found += [f"{name}: {breach}" for breach in _labels(path, bundle.spec)]
    return found


def stray_operators(data: bytes) -> list[str]:
    """Return the operators that are not delegated to XNNPACK.

    Args:
        data: Content of a .tflite file.

    Returns:
        Names of the operators in the order of execution, such as ``TFLite_Detection_PostProcess``.
    """
    return [name for name in _executed(data) if name != "DELEGATE"]


def moving_operators(data: bytes) -> list[str]:
    """Return the operators that only pad, reorder, join or convert the outputs of others.

    Args:
        data: Content of a .tflite file.

    Returns:
        Names of those operators that are in `MOVING`, in the order of the file.
    """
    return [name for name in flatbuffer.operator_names(data) if name in MOVING]


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
    from ai_edge_litert.interpreter import Interpreter

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


def _main(data: bytes, model: Any, spec: ModelSpec) -> Iterator[str]:
    graph, n = model.subgraphs[0], spec.max_detections
    yield from _tensors(
        "inputs",
        graph,
        graph.inputs,
        [(flatbuffer.INPUT_NAME, [1, spec.height, spec.width, 3], schema.TensorType.UINT8)],
    )
    shapes = ([1, n, 4], [1, n], [1, n], [1])
    expected = [
        (name, shape, schema.TensorType.FLOAT32)
        for name, shape in zip(flatbuffer.OUTPUT_NAMES, shapes, strict=True)
    ]
    yield from _tensors("outputs", graph, graph.outputs, expected)
    last = flatbuffer.operator_names(data)[-1]
    if last != flatbuffer.POSTPROCESS:
        yield f"the last operator is {last}, but must be {flatbuffer.POSTPROCESS}"
        return
    options = flexbuffers.Loads(bytes(graph.operators[-1].customOptions))
    for key, value in (
        ("max_detections", n),
        ("num_classes", len(spec.classes)),
        ("use_regular_nms", False),
    ):
        if options.get(key) != value:
            yield f"the post-processing has {key} = {options.get(key)}, but must have {value}"
    if not np.isclose(options.get("nms_iou_threshold", -1.0), spec.nms_iou):
        got = options.get("nms_iou_threshold")
        yield f"the post-processing has nms_iou_threshold = {got}, but must have {spec.nms_iou}"
    if stray := [name for name in stray_operators(data) if name != flatbuffer.POSTPROCESS]:
        yield (
            f"operators not delegated to XNNPACK: {', '.join(stray)}. "
            "All but the last must be delegated"
        )


def _raw(data: bytes, model: Any, spec: ModelSpec) -> Iterator[str]:
    graph, count = model.subgraphs[0], len(anchors.layout(spec.levels, spec.height, spec.width))
    floats = schema.TensorType.FLOAT32
    yield from _tensors(
        "inputs",
        graph,
        graph.inputs,
        [(flatbuffer.INPUT_NAME, [1, spec.height, spec.width, 3], floats)],
    )
    outputs = [
        ("location", [1, count, 4], floats),
        ("score", [1, count, len(spec.classes)], floats),
    ]
    yield from _tensors("outputs", graph, graph.outputs, outputs)
    if unfit := sorted(
        {code.customCode.decode() for code in model.operatorCodes if code.customCode}
    ):
        yield f"custom operators are not allowed in this file, but it contains {', '.join(unfit)}"
    if unfit := sorted(NOT_ON_DELEGATES & set(flatbuffer.operator_names(data))):
        yield (
            "operators that GPU or Core ML delegates do not support are not allowed in this file, "
            f"but it contains {', '.join(unfit)}"
        )


def _tensors(
    what: str, graph: Any, indices: list[int], wanted: list[tuple[str, list[int], int]]
) -> Iterator[str]:
    got = [
        (
            graph.tensors[i].name.decode(),
            [int(side) for side in graph.tensors[i].shape],
            graph.tensors[i].type,
        )
        for i in indices
    ]
    if got != wanted:
        kinds = {
            value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)
        }
        actual, expected = (
            "; ".join(f"{name} {kinds[kind]} {shape}" for name, shape, kind in side)
            for side in (got, wanted)
        )
        yield f"the {what} are {actual}, but must be {expected}"


def _common(model: Any) -> Iterator[str]:
    if len(model.subgraphs) != 1:
        yield f"the file has {plural(len(model.subgraphs), 'subgraph')}, but must have one"
    if large := [
        t.name.decode()
        for t in model.subgraphs[0].tensors
        if t.shape is not None and len(t.shape) > 4
    ]:
        yield f"tensor '{large[0]}' has more than 4 dimensions"
    if not any(entry.name == METADATA for entry in model.metadata or ()):
        yield "TFLite metadata is missing; MediaPipe does not load a file without it"


def _labels(path: Any, spec: ModelSpec) -> Iterator[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.read(LABELS_FILE)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        yield f"the embedded {LABELS_FILE} cannot be read: {error}"
        return
    if inside != label_lines(spec.classes):
        lines = plural(inside.count(b"\n"), "line")
        yield (
            f"the embedded {LABELS_FILE} has {lines} and does not list the "
            f"{plural(len(spec.classes), 'class', 'classes')} of model.json in their order"
        )
