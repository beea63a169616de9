"""Phone model against baseline: size, work, latency and F1, each measured or said not to be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shelfcount.deploy import flatbuffer
from shelfcount.evaluation.metrics import Evaluation
from shelfcount.records import Detector


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call on one photo.

    Attributes:
        p50, p90, p99: Percentiles over the counted runs.
        runs: Counted runs.
        warmup: Runs before, not counted.
        threads: Of the runtime.
    """

    p50: float
    p90: float
    p99: float
    runs: int
    warmup: int
    threads: int


@dataclass(frozen=True)
class Candidate:
    """A model in one form, ready to be measured.

    Attributes:
        name: Of the model, for the table.
        variant: Runtime and number format, such as 'LiteRT int8'.
        start: How its weights were initialised, or that they are random.
        call: One pass over one photo already at the input's size: network and suppression.
        size: Bytes on disk; None where there is no file.
        macs: Multiply-accumulates of one pass, or None.
        parameters: Of the network, or None.
    """

    name: str
    variant: str
    start: str
    call: Callable[[], object]
    size: int | None = None
    macs: int | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Row:
    """One line of the comparison; None is 'not measured'."""

    name: str
    variant: str
    start: str
    size: int | None
    macs: int | None
    parameters: int | None
    latency: Latency
    f1: float | None
    map: float | None
    count_error: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """How many times faster one is than another: paired runs, so that the machine's moods cancel.

    Attributes:
        median: Of the ratios pair by pair.
        low, high: 10th and 90th percentile of them.
    """

    median: float
    low: float
    high: float


def litert_candidate(name: str, variant: str, start: str, model: bytes, call: Callable[[], object], parameters: int | None) -> Candidate:
    """A .tflite file as a candidate: its size and work are read from the file."""
    return Candidate(name, variant, start, call, len(model), flatbuffer.count_macs(model), parameters)


def time_alternately(
    calls: Mapping[str, Callable[[], object]],
    runs: Mapping[str, int],
    *,
    warmup: int,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Latency], dict[str, np.ndarray]]:
    """Time several calls in turn, so that a slow minute of the machine hits all alike.

    Args:
        calls: By name.
        runs: Counted runs of each; a slow one may have fewer, spread over the rounds.
        warmup: Runs of each before counting.
        threads: For the record; the calls know their own.
        progress: Called with runs done and runs in all.

    Returns:
        Percentiles and the single times in milliseconds, by name; the times of the slowest call's
        round r stand at the same share of the way through as its own.
    """
    for call in calls.values():
        for _ in range(warmup):
            call()
    rounds = max(runs.values())
    times: dict[str, list[float]] = {name: [] for name in calls}
    total, done = sum(runs.values()), 0
    for r in range(rounds):
        for name, call in calls.items():
            if len(times[name]) * rounds > r * runs[name]:
                continue
            begin = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - begin) * 1e3)
            done += 1
            if progress:
                progress(done, total)
    arrays = {name: np.array(values) for name, values in times.items()}
    latencies = {name: _latency(values, warmup, threads) for name, values in arrays.items()}
    return latencies, arrays


def _latency(times: np.ndarray, warmup: int, threads: int) -> Latency:
    p50, p90, p99 = (round(float(v), 3) for v in np.percentile(times, (50, 90, 99)))
    return Latency(p50, p90, p99, len(times), warmup, threads)


def ratio(slow: np.ndarray, fast: np.ndarray) -> Ratio:
    """How many times faster `fast` was, pair by pair; the longer series is cut into as many blocks as the shorter has runs."""
    n = min(len(slow), len(fast))
    pairs = np.array([np.median(a) for a in np.array_split(slow, n)]) / np.array([np.median(b) for b in np.array_split(fast, n)])
    low, median, high = np.percentile(pairs, (10, 50, 90))
    return Ratio(round(float(median), 2), round(float(low), 2), round(float(high), 2))


def row(candidate: Candidate, latency: Latency, evaluation: Evaluation | None) -> Row:
    """A candidate with what was measured of it."""
    return Row(
        candidate.name,
        candidate.variant,
        candidate.start,
        candidate.size,
        candidate.macs,
        candidate.parameters,
        latency,
        evaluation.micro.f1 if evaluation else None,
        evaluation.map if evaluation else None,
        evaluation.count_by_class.relative if evaluation else None,
    )


def call_for(detector: Detector, pixels: np.ndarray) -> Callable[[], object]:
    """One pass of a detector over a photo that is already at its input's size."""
    return lambda: detector.detect(pixels)


def verdict(phone: Row, baseline: Row, speed: Ratio) -> Sequence[str]:
    """What the comparison says, one sentence a figure, in words that claim no more than was measured."""
    lines = []
    if phone.size and baseline.size:
        lines.append(f"{baseline.size / phone.size:.0f} times smaller ({phone.size / 1e6:.2f} MB against {baseline.size / 1e6:.1f} MB)")
    if speed.low <= 1 <= speed.high:
        lines.append(f"no difference in latency beyond noise (ratio {speed.low} to {speed.high})")
    elif speed.low > 1:
        lines.append(f"{_factor(speed.median)} times faster ({_factor(speed.low)} to {_factor(speed.high)} over paired runs)")
    else:
        slower = [_factor(1 / v) for v in (speed.median, speed.high, speed.low)]
        lines.append(f"{slower[0]} times slower ({slower[1]} to {slower[2]} over paired runs)")
    if phone.f1 is None or baseline.f1 is None:
        lines.append("F1 against the baseline was not measured, as the baseline was not trained")
    else:
        lines.append(f"F1 {phone.f1:.3f} against {baseline.f1:.3f}")
    return lines


def _factor(value: float) -> str:
    # 80.2 pretends a precision that timings lack; 1.4 as "1" would say nothing.
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
