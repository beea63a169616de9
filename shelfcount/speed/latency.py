"""Latency and memory of models on this computer.

Each model runs in its own process, so that its memory can be measured and the threads of other
models do not affect it.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from shelfcount.records import Progress, ShelfcountError
from shelfcount.speed import model_rows
from shelfcount.speed.model_rows import Latency
from shelfcount.vision.images import network_input, read_input
from shelfcount.vision.postprocess import detections_from_heads

WARMUP = 3
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# Maximum number of timed repetitions of photo preparation and of separate post-processing, after
# the runs.
_STEPS = 20


@dataclass(frozen=True)
class TimedModel:
    """A model to measure.

    Attributes:
        path: A .tflite file, or the folder of a run, which is run by PyTorch.
        height, width: Size of the input in pixels.
    """

    path: Path
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Timing:
    """Latency and memory of a model.

    Attributes:
        times: (runs,) float64 milliseconds of network and suppression, in the order of the rounds.
        latency: Percentiles of `times`.
        preparation: Latency of reading, decoding and resizing the photo.
        postprocessing: Latency of box decoding and suppression in PyTorch. None for a .tflite file,
            in which they are an operator of the network.
        memory: Peak bytes that loading and running the model added to the process. None if the
            system does not report it.
    """

    times: NDArray[np.float64]
    latency: Latency
    preparation: Latency
    postprocessing: Latency | None
    memory: int | None


def time_models(
    subjects: Mapping[str, TimedModel],
    photo: Path,
    runs: Mapping[str, int],
    *,
    threads: int,
    warmup: int = WARMUP,
    progress: Progress | None = None,
) -> dict[str, Timing]:
    """Measure the latency of models in turn on one photo, each in a new process.

    Args:
        subjects: The models by name.
        photo: The photo. Each process reads, decodes and resizes it for its model.
        runs: Number of measured runs of each model.
        threads: Number of threads of each runtime.
        warmup: Number of warm-up runs of each model.
        progress: Called with the number of runs done and the number of all runs.

    Returns:
        The measurements by name.

    Raises:
        ShelfcountError: If a model cannot be loaded, or its process ends early.
    """
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(_Worker(name, subject, photo, threads))
            for name, subject in subjects.items()
        }
        times = model_rows.time_interleaved(
            {name: w.run for name, w in workers.items()}, runs, warmup=warmup, progress=progress
        )
        # The memory is read before the other steps, which would add to the peak.
        memory = {name: worker.ask(_peak) for name, worker in workers.items()}
        steps = {name: min(_STEPS, runs[name]) for name in workers}

        def step(name: str, function: Callable[[], float | None]) -> Latency | None:
            values = [workers[name].ask(function) for _ in range(steps[name] + 1)][1:]
            return (
                None
                if values[0] is None
                else model_rows.summarize_latency(np.array(values), 1, threads)
            )

        return {
            name: Timing(
                times[name],
                model_rows.summarize_latency(times[name], warmup, threads),
                step(name, _prepare),  # type: ignore[arg-type]
                step(name, _postprocess),
                memory[name],
            )
            for name in workers
        }


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a new process and return its result.

    Args:
        function: A function that can be pickled.
        *arguments: Its arguments.

    Returns:
        The result of the function.

    Raises:
        ShelfcountError: If the process ends without a result. Exceptions of the function are raised
            too.
    """
    with _one_process() as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise ShelfcountError(
                f"the process that ran {function.__name__} with {arguments[0]} ended early: {error}"
            ) from error


def _one_process() -> ProcessPoolExecutor:
    # Ctrl+C is sent to every process of a terminal; only the process that the user started handles
    # it.
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        1, mp_context=spawn, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )


class _Worker:
    """A process with one loaded model."""

    def __init__(self, name: str, subject: TimedModel, photo: Path, threads: int) -> None:
        self.name = name
        self.pool = _one_process()
        self.start = (_open, subject, photo, threads)

    def __enter__(self) -> _Worker:
        try:
            self.ask(*self.start)
        except BaseException:
            self.pool.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self.pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise ShelfcountError(
                f"the process that measured {self.name} ended early: {error}. Check that there is "
                "enough memory."
            ) from error

    def run(self) -> float:
        return float(self.ask(_run))


# ---------------------------------------------------------------- inside a worker

_inside: dict[str, Any] = {}


def _open(subject: TimedModel, photo: Path, threads: int) -> None:
    pixels = read_input(photo, subject.height, subject.width)
    opener = _litert if subject.path.suffix == ".tflite" else _pytorch
    load = opener(subject, threads)
    with suppress(OSError):
        # Reset the peak, which is so far that of the imports (Linux, proc(5): 5 resets VmHWM).
        CLEAR.write_text("5")
    before = _resident("VmRSS")
    call, postprocess = load(pixels)
    _inside.update(call=call, postprocess=postprocess, before=before, photo=photo, subject=subject)


def _litert(
    subject: TimedModel, threads: int
) -> Callable[[NDArray[np.uint8]], tuple[Callable[[], object], None]]:
    def load(pixels: NDArray[np.uint8]) -> tuple[Callable[[], object], None]:
        try:
            interpreter = Interpreter(model_path=str(subject.path), num_threads=threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ShelfcountError(f"LiteRT cannot load '{subject.path}': {error}") from error
        (details,) = interpreter.get_input_details()
        outputs = [output["index"] for output in interpreter.get_output_details()]
        tensor = network_input(pixels, tuple(details["shape"]), details["dtype"])

        def call() -> object:
            interpreter.set_tensor(details["index"], tensor)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in outputs]

        return call, None

    return load


def _pytorch(
    subject: TimedModel, threads: int
) -> Callable[[NDArray[np.uint8]], tuple[Callable[[], object], Callable[[], object]]]:
    import torch

    from shelfcount.training.runs import load_run

    torch.set_num_threads(threads)

    def load(pixels: NDArray[np.uint8]) -> tuple[Callable[[], object], Callable[[], object]]:
        detector = load_run(subject.path)
        location, scores = detector.heads(pixels)
        options: dict[str, Any] = {
            key: getattr(detector.spec, key)
            for key in ("score_threshold", "nms_iou", "max_detections")
        }
        size = {"width": subject.width, "height": subject.height}
        return lambda: detector.detect(pixels), lambda: detections_from_heads(
            location, scores, detector.anchors, **options, **size
        )

    return load


def _run() -> float:
    return _milliseconds(_inside["call"])


def _prepare() -> float:
    subject = _inside["subject"]
    return _milliseconds(lambda: read_input(_inside["photo"], subject.height, subject.width))


def _postprocess() -> float | None:
    call = _inside["postprocess"]
    return None if call is None else _milliseconds(call)


def _peak() -> int | None:
    peak, before = _resident("VmHWM"), _inside["before"]
    return None if peak is None or before is None else peak - before


def _resident(field: str) -> int | None:
    # getrusage is not used, since its peak is inherited from the parent process.
    try:
        line = next(
            line for line in STATUS.read_text().splitlines() if line.startswith(field + ":")
        )
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def _milliseconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3
