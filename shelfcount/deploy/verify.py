"""Verification of a bundle: contract violations in its files, which apps rely on."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from shelfcount.deploy import flatbuffer, inspection
from shelfcount.deploy.golden import verify_golden
from shelfcount.deploy.inspection import NOT_ON_DELEGATES, undelegated_operators
from shelfcount.deploy.metadata import LABELS_FILE
from shelfcount.records import ModelSpec, ShelfcountError
from shelfcount.runtime.bundle import RAW_MODEL, Bundle, labels_txt, read_bundle
from shelfcount.vision import anchors
from shelfcount.words import plural

METADATA = b"TFLITE_METADATA"


def verify_bundle(path: Path | str) -> tuple[Bundle | None, list[str]]:
    """Check a bundle: every file against its sha256, the contract with apps, the golden photos.

    Args:
        path: Folder of the bundle.

    Returns:
        The bundle, None if it cannot be read, and one message per failure; none if it is good.
    """
    try:
        bundle = read_bundle(path)
    except ShelfcountError as error:
        return None, [str(error)]
    # A model that breaks the contract may not even run.
    if failures := contract_violations(bundle):
        return bundle, failures
    try:
        return bundle, [f"golden photo {failure}" for failure in verify_golden(bundle).failures]
    except ShelfcountError as error:
        return bundle, [str(error)]


def contract_violations(bundle: Bundle) -> list[str]:
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
            model = flatbuffer.read_model(data)
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
    last = inspection.operator_names(data)[-1]
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
    if stray := [name for name in undelegated_operators(data) if name != flatbuffer.POSTPROCESS]:
        yield (
            f"operators not delegated to XNNPACK: {', '.join(stray)}. "
            "All but the last must be delegated"
        )


def _raw(data: bytes, model: Any, spec: ModelSpec) -> Iterator[str]:
    graph, count = (
        model.subgraphs[0],
        len(anchors.anchor_grid(spec.levels, spec.height, spec.width)),
    )
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
    if unfit := sorted(NOT_ON_DELEGATES & set(inspection.operator_names(data))):
        yield (
            "operators that GPU or Core ML delegates do not support are not allowed in this file, "
            f"but it contains {', '.join(unfit)}"
        )


def _tensors(
    sort: str, graph: Any, indices: list[int], required: list[tuple[str, list[int], int]]
) -> Iterator[str]:
    present = [
        (
            graph.tensors[i].name.decode(),
            [int(side) for side in graph.tensors[i].shape],
            graph.tensors[i].type,
        )
        for i in indices
    ]
    if present != required:
        kinds = {
            value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)
        }
        actual, expected = (
            "; ".join(f"{name} {kinds[kind]} {shape}" for name, shape, kind in side)
            for side in (present, required)
        )
        yield f"the {sort} are {actual}, but must be {expected}"


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
    if inside != labels_txt(spec.classes):
        lines = plural(inside.count(b"\n"), "line")
        yield (
            f"the embedded {LABELS_FILE} has {lines} and does not list the "
            f"{plural(len(spec.classes), 'class', 'classes')} of model.json in their order"
        )
