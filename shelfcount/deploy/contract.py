"""What an app may rely on, checked on the files of a bundle themselves."""

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

# GPU and Core ML delegates have no kernels for them, or only with conditions.
NOT_ON_DELEGATES = {"GATHER", "GATHER_ND", "TOPK_V2", "CAST"}
METADATA = b"TFLITE_METADATA"
# They compute nothing new of what others made.
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
    """One sentence for each promise that a bundle's files do not keep; none where all is well."""
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
            found.append(f"{name} cannot be read as a model: {error}")
            continue
        found += [f"{name}: {breach}" for breach in _labels(path, bundle.spec)]
    return found


def stray_operators(data: bytes) -> list[str]:
    """Operators that LiteRT runs one by one, outside XNNPACK, in the order in which they run.

    Args:
        data: A model.

    Returns:
        Their names, such as ``TFLite_Detection_PostProcess``.
    """
    return [name for name in _executed(data) if name != "DELEGATE"]


def moving_operators(data: bytes) -> list[str]:
    """Those of a model that only pad, reorder, join or change the number format of what others made, in its order."""
    return [name for name in flatbuffer.operator_names(data) if name in MOVING]


def partitions(data: bytes) -> int:
    """Into how many pieces XNNPACK cuts the model; each border between them copies and waits."""
    return _executed(data).count("DELEGATE")


def _executed(data: bytes) -> list[str]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    listed = interpreter._get_ops_details()
    # The operators that a delegate took over stay in the list; what runs is found from the outputs back,
    # and delegates, which come last, are the first to be asked for a tensor.
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
    wanted = [
        (name, shape, schema.TensorType.FLOAT32)
        for name, shape in zip(flatbuffer.OUTPUT_NAMES, shapes, strict=True)
    ]
    yield from _tensors("outputs", graph, graph.outputs, wanted)
    last = flatbuffer.operator_names(data)[-1]
    if last != flatbuffer.POSTPROCESS:
        yield f"the last operator must be {flatbuffer.POSTPROCESS}, got {last}"
        return
    options = flexbuffers.Loads(bytes(graph.operators[-1].customOptions))
    for key, value in (
        ("max_detections", n),
        ("num_classes", len(spec.classes)),
        ("use_regular_nms", False),
    ):
        if options.get(key) != value:
            yield f"the post-processing's {key} must be {value}, got {options.get(key)}"
    if not np.isclose(options.get("nms_iou_threshold", -1.0), spec.nms_iou):
        yield f"the post-processing's nms_iou_threshold must be {spec.nms_iou}, got {options.get('nms_iou_threshold')}"
    if stray := [name for name in stray_operators(data) if name != flatbuffer.POSTPROCESS]:
        yield f"every operator but the last must run inside XNNPACK, outside are {', '.join(stray)}"


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
        yield f"there must be no custom operator, got {', '.join(unfit)}"
    if unfit := sorted(NOT_ON_DELEGATES & set(flatbuffer.operator_names(data))):
        yield f"there must be no operator that delegates lack, got {', '.join(unfit)}"


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
        shown = [
            "; ".join(f"{name} {kinds[kind]} {shape}" for name, shape, kind in side)
            for side in (wanted, got)
        ]
        yield f"the {what} must be {shown[0]}, got {shown[1]}"


def _common(model: Any) -> Iterator[str]:
    if len(model.subgraphs) != 1:
        yield f"there must be one subgraph, got {len(model.subgraphs)}"
    if large := [
        t.name.decode()
        for t in model.subgraphs[0].tensors
        if t.shape is not None and len(t.shape) > 4
    ]:
        yield f"no tensor may have more than 4 dimensions, got {large[0]}"
    if not any(entry.name == METADATA for entry in model.metadata or ()):
        yield "there is no TFLite metadata; MediaPipe refuses such a file"


def _labels(path: Any, spec: ModelSpec) -> Iterator[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.read(LABELS_FILE)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        yield f"its own {LABELS_FILE} cannot be read: {error}"
        return
    if inside != label_lines(spec.classes):
        got = inside.count(b"\n")
        yield f"its own {LABELS_FILE} must list the {len(spec.classes)} classes of model.json in their order, got {got} lines"
