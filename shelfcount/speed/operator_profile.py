"""Operator profile: latency of each operator of a .tflite file, including delegated ones.

LiteRT has a profiler, but not in its Python interface. Therefore this module calls the C interface
of the library that ai-edge-litert installs (litert/c/litert_profiler.h and the other headers in
that folder). Profiling slows a pass down slightly: use it for shares, not for the latency. It runs
in its own process, since an error in C ends the process.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from shelfcount.deploy import flatbuffer, inspection
from shelfcount.records import ShelfcountError
from shelfcount.speed.latency import in_fresh_process
from shelfcount.vision.images import network_input, read_input

PROFILE_WARMUP = 3
# Enum values of litert_common.h, litert_tensor_buffer_types.h and litert_profiler_event.h.
CPU, LOCK_TO_WRITE, OPERATOR = 1, 1, 2
# Event kinds of delegated operators: numbered by the delegate itself, or together with the other
# operators.
DELEGATED = (4, 8)
# More bytes than any LiteRtRankedTensorType needs; its content is not read here.
TENSOR_TYPE_BYTES = 512
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Operator:
    """Latency of one executed operator.

    Attributes:
        name: Name of the XNNPACK kernel or the LiteRT operator.
        layer: For a delegated convolution, the corresponding operator of the file, such as
            'CONV_2D 3 x 3 to 208 x 208 x 32'. Otherwise empty.
        inside: Whether the operator is delegated to XNNPACK.
        ms: Median latency over the runs, in milliseconds.
    """

    name: str
    layer: str
    inside: bool
    ms: float


@dataclass(frozen=True, eq=False)
class Profile:
    """Latency of all operators of a file.

    Attributes:
        operators: The operators in the order of execution.
        postprocessing: (runs,) float64 milliseconds of the post-processing operator. None if the
            file has none.
    """

    operators: tuple[Operator, ...]
    postprocessing: NDArray[np.float64] | None


def profile(model: Path, photo: Path, size: tuple[int, int], *, runs: int, threads: int) -> Profile:
    """Profile the operators of a file with LiteRT's profiler.

    Args:
        model: A .tflite file with one input.
        photo: The photo to run it on.
        size: Height and width of the input in pixels.
        runs: Number of measured runs.
        threads: Number of XNNPACK threads.

    Returns:
        The median latency of each operator.

    Raises:
        ShelfcountError: If the installed LiteRT has no profiler, or the file cannot be run.
    """
    names, inside, times = in_fresh_process(_profile, model, photo, size, runs, threads)
    layers = _layers(model.read_bytes(), names, inside)
    medians = np.median(times, axis=0)
    operators = [
        Operator(*parts)
        for parts in zip(
            names, layers, inside, (round(float(ms), 4) for ms in medians), strict=True
        )
    ]
    last = names[-1] == flatbuffer.POSTPROCESS
    return Profile(tuple(operators), times[:, -1] if last else None)


def by_kind(operators: Sequence[Operator]) -> list[dict[str, Any]]:
    """Sum the latency of operators with the same name.

    Args:
        operators: Operators of a `Profile`.

    Returns:
        Rows with ``name``, ``inside``, ``count`` and ``ms``, highest latency first.
    """
    kinds: dict[tuple[str, bool], list[float]] = {}
    for operator in operators:
        kinds.setdefault((operator.name, operator.inside), []).append(operator.ms)
    rows = [
        {"name": name, "inside": inside, "count": len(ms), "ms": round(sum(ms), 4)}
        for (name, inside), ms in kinds.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


class _Event(ctypes.Structure):
    """``ProfiledEventData`` of litert_profiler_event.h."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int),
    )


def _profile(
    model: Path, photo: Path, size: tuple[int, int], runs: int, threads: int
) -> tuple[list[str], list[bool], NDArray[np.float64]]:
    """Return names, whether XNNPACK ran the operators, and (runs, operators) milliseconds."""
    # The library prints its search for accelerators on stderr.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    session = _Session(model, threads)
    session.write(read_input(photo, *size))
    for _ in range(PROFILE_WARMUP):
        session.run()
    passes = [session.events() for _ in range(runs)]
    names, inside = [e[0] for e in passes[0]], [e[1] for e in passes[0]]
    if any([e[0] for e in events] != names for events in passes):
        raise ShelfcountError(
            f"the profiler reported different operators of '{model}' in different runs. They must "
            "be the same in every run."
        )
    return names, inside, np.array([[e[2] for e in events] for events in passes])


class _Session:
    """A model that is compiled with a profiler by LiteRT's C interface."""

    def __init__(self, model: Path, threads: int) -> None:
        (folder,) = ai_edge_litert.__path__
        path = next(Path(folder).glob("libLiteRt.*"), None)
        if path is None:
            raise ShelfcountError(
                "operator profiling needs LiteRT's library, but there is no libLiteRt in "
                f"'{folder}'"
            )
        self.library = ctypes.CDLL(str(path))
        data = model.read_bytes()
        # Kept alive here, since the C library stores pointers to these objects.
        self.kept: list[Any] = [ctypes.create_string_buffer(data, len(data))]
        self.environment = self._make("LiteRtCreateEnvironment", 0, None)
        self.model = self._make(
            "LiteRtCreateModelFromBuffer",
            self.environment,
            self.kept[0],
            ctypes.c_size_t(len(data)),
        )
        options = self._make("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
        self._option(options, b"runtime_options_string", b"enable_profiling = true\n")
        self._option(options, b"xnnpack", b"num_threads = %d\n" % threads)
        self.compiled = self._make(
            "LiteRtCreateCompiledModel", self.environment, self.model, options
        )
        self.profiler = self._make("LiteRtCompiledModelGetProfiler", self.compiled)
        self.signature = self._make("LiteRtGetModelSignature", self.model, ctypes.c_size_t(0))
        self.inputs, self.outputs = self._buffers("Input"), self._buffers("Output")

    def write(self, pixels: NDArray[np.uint8]) -> None:
        """Copy (H, W, 3) uint8 RGB pixels to the input of the model."""
        graph = flatbuffer.read_model(self.kept[0].raw).subgraphs[0]
        tensor = graph.tensors[graph.inputs[0]]
        kinds = {
            schema.TensorType.FLOAT32: np.float32,
            schema.TensorType.INT8: np.int8,
        }
        values = network_input(pixels, tuple(tensor.shape), kinds.get(tensor.type, np.uint8))
        address = self._make("LiteRtLockTensorBuffer", self.inputs[0], after=(LOCK_TO_WRITE,))
        ctypes.memmove(address, values.ctypes.data, values.nbytes)
        self._call("LiteRtUnlockTensorBuffer", self.inputs[0])

    def run(self) -> None:
        """Run the model once."""
        buffers = [
            (ctypes.c_size_t(len(side)), (ctypes.c_void_p * len(side))(*side))
            for side in (self.inputs, self.outputs)
        ]
        self._call(
            "LiteRtRunCompiledModel", self.compiled, ctypes.c_size_t(0), *buffers[0], *buffers[1]
        )

    def events(self) -> list[tuple[str, bool, float]]:
        """Run once and return (name, whether XNNPACK ran it, milliseconds) of each operator."""
        self._call("LiteRtResetProfiler", self.profiler)
        self._call("LiteRtStartProfiler", self.profiler)
        self.run()
        self._call("LiteRtStopProfiler", self.profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self.profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self.profiler, count, events)
        # The event of a whole delegate is left out, since it contains the events of its operators.
        kept = [
            e
            for e in events
            if e.kind in DELEGATED or (e.kind == OPERATOR and b"Delegate" not in e.tag)
        ]
        return [(e.tag.decode(), e.kind in DELEGATED, e.elapsed_us / 1e3) for e in kept]

    def _buffers(self, side: str) -> list[Any]:
        count = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", self.signature, ctypes.byref(count))
        buffers = []
        for i in range(count.value):
            tensor = self._make(
                f"LiteRtGetSignature{side}TensorByIndex", self.signature, ctypes.c_size_t(i)
            )
            kind = ctypes.create_string_buffer(TENSOR_TYPE_BYTES)
            self._call("LiteRtGetRankedTensorType", tensor, kind)
            requirements = self._make(
                f"LiteRtGetCompiledModel{side}BufferRequirements",
                self.compiled,
                ctypes.c_size_t(0),
                ctypes.c_size_t(i),
            )
            buffers.append(
                self._make(
                    "LiteRtCreateManagedTensorBufferFromRequirements",
                    self.environment,
                    kind,
                    requirements,
                )
            )
        return buffers

    def _option(self, options: Any, name: bytes, toml: bytes) -> None:
        text, release = (
            ctypes.create_string_buffer(toml),
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None),
        )
        self.kept += [text, release]
        self._call(
            "LiteRtAddOpaqueOptions",
            options,
            self._make("LiteRtCreateOpaqueOptions", name, text, release),
        )

    def _make(self, function: str, *arguments: Any, after: Sequence[Any] = ()) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self._call(function, *arguments, ctypes.byref(made), *after)
        return made

    def _call(self, function: str, *arguments: Any) -> None:
        try:
            status = getattr(self.library, function)(*arguments)
        except AttributeError as error:
            raise ShelfcountError(
                f"operator profiling needs the function {function}, which this version of LiteRT "
                "does not have"
            ) from error
        if status:
            raise ShelfcountError(f"LiteRT's {function} failed with status {status}")


def _layers(data: bytes, names: Sequence[str], inside: Sequence[bool]) -> list[str]:
    """Return the convolution of the file for each kernel; all are empty if they do not match."""
    graph = flatbuffer.read_model(data).subgraphs[0]
    weighted = []
    for name, op in zip(inspection.operator_names(data), graph.operators, strict=True):
        if name in WEIGHTED:
            kernel, made = graph.tensors[op.inputs[1]].shape, graph.tensors[op.outputs[0]].shape
            size = f" {kernel[1]} x {kernel[2]}" if len(kernel) == 4 else ""
            weighted.append(f"{name}{size} to {' x '.join(str(side) for side in made[1:])}")
    kernels = [
        i
        for i, name in enumerate(names)
        if inside[i] and re.match(r"(Convolution|Fully Connected|Dynamic Fully)", name)
    ]
    layers = [""] * len(names)
    # XNNPACK runs the operators in the order of the file. The names of depthwise kernels, which
    # differ from others, are used to check the assignment.
    pairs = list(zip(kernels, weighted, strict=False))
    if len(kernels) == len(weighted) and all(
        layer.startswith("DEPTHWISE") or "DWConv" not in names[i] for i, layer in pairs
    ):
        for i, layer in pairs:
            layers[i] = layer
    return layers
