"""Comparison of models in rows: size, operations, memory, latency and F1, each with its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Progress
from shelfcount.words import format_factor

# Percentiles of the paired ratios that are reported: low, median, high.
SPREAD = (10, 50, 90)
# Relative difference below which two sizes are reported as equal: labels and metadata alone can
# cause it.
SAME_SIZE = 0.05


@dataclass(frozen=True)
class Latency:
    """Latency of one call on one photo.

    Attributes:
        p50, p90, p99: Percentiles over the measured runs, in milliseconds.
        runs: Number of measured runs.
        warmup: Number of warm-up runs.
        threads: Number of threads of the runtime.
    """

    p50: float
    p90: float
    p99: float
    runs: int
    warmup: int
    threads: int


@dataclass(frozen=True)
class Ratio:
    """Ratio of the latencies of two models over paired runs.

    Changes of the machine's load affect both runs of a pair, so they cancel.

    Attributes:
        median: Median of the ratios of the pairs.
        low, high: 10th and 90th percentile of the ratios.
    """

    median: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the range from `low` to `high` contains 1: neither model is clearly faster."""
        return self.low <= 1 <= self.high


@dataclass(frozen=True)
class Row:
    """Measurements of one model in one format. A value of None was not measured.

    Attributes:
        name: Architecture and input size.
        variant: Runtime and number format, such as 'LiteRT int8'.
        start: Initialisation of the weights.
        size: Bytes of the .tflite file, or of the weights for PyTorch.
        macs: Number of multiply-accumulates of one pass.
        parameters: Number of weights and biases.
        latency: Latency of the network and non-maximum suppression, at the first thread count.
        f1, map, count_error: Metrics on the test photos.
        role: 'phone' or 'baseline'.
        by_threads: Latency at each thread count.
        times_bundle: Latency relative to the bundle, over paired runs at the thread count of
            `latency`. None for the bundle itself.
        preparation: Latency of reading, decoding and resizing a photo.
        postprocessing: Latency of box decoding and suppression, a part of `latency`.
        memory: Peak bytes that loading and running the model add to a process.
        lost_points: Points of F1 lost against the same weights in float32.
        threshold: The model's own score threshold, at which `f1` and `count_error` were measured.
        best_f1: (threshold, F1) at the threshold with the highest F1 on the test photos. It is
            optimistic, since the threshold was chosen on these photos.
        outside: Operators that are not delegated to XNNPACK.
        partitions: Number of partitions that are delegated to XNNPACK.
        operators: Latency of each kind of operator, from `speed.operator_profile`.
    """

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
    role: str = ""
    by_threads: Sequence[Latency] = ()
    times_bundle: Ratio | None = None
    preparation: Latency | None = None
    postprocessing: Latency | None = None
    memory: int | None = None
    lost_points: float | None = None
    threshold: float | None = None
    best_f1: tuple[float, float] | None = None
    outside: Sequence[str] | None = None
    partitions: int | None = None
    operators: Sequence[Mapping[str, Any]] | None = None

    @property
    def network(self) -> float | None:
        """Median milliseconds of the network alone: the latency without post-processing."""
        return (
            None
            if self.postprocessing is None
            else round(self.latency.p50 - self.postprocessing.p50, 3)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the measurements as a JSON object."""
        return asdict(self)


def time_interleaved(
    calls: Mapping[str, Callable[[], float]],
    runs: Mapping[str, int],
    *,
    warmup: int,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Run several models in turn, so that a slow period of the machine affects all of them.

    Args:
        calls: By name, a function that runs a model once and returns the milliseconds it took.
        runs: Number of measured runs of each model. Models with fewer runs are run in rounds that
            are evenly spaced over the measurement.
        warmup: Number of warm-up runs of each model.
        progress: Called with the number of runs done and the number of all runs.

    Returns:
        By name, (runs,) float64 milliseconds of each run, in the order of the rounds.
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
            times[name].append(call())
            done += 1
            if progress:
                progress(done, total)
    return {name: np.array(values) for name, values in times.items()}


def summarize_latency(times: NDArray[np.float64], warmup: int, threads: int) -> Latency:
    """Summarize measured times.

    Args:
        times: (n,) float64 milliseconds of the measured runs.
        warmup: Number of warm-up runs before them.
        threads: Number of threads of the runtime.

    Returns:
        The percentiles of the times, with the other arguments.
    """
    p50, p90, p99 = (round(float(v), 3) for v in np.percentile(times, (50, 90, 99)))
    return Latency(p50, p90, p99, len(times), warmup, threads)


def speed_ratio(slow: NDArray[np.float64], fast: NDArray[np.float64]) -> Ratio:
    """Compute the ratio of two series of times over pairs of runs.

    If one series is longer, it is cut into one block of runs for each run of the shorter series,
    and the median of each block is used.

    Args:
        slow: (n,) float64 milliseconds, the numerator.
        fast: (m,) float64 milliseconds, the denominator.

    Returns:
        Median and range of the ratios: how many times faster `fast` is.
    """
    n = min(len(slow), len(fast))
    pairs = np.array([np.median(a) for a in np.array_split(slow, n)]) / np.array(
        [np.median(b) for b in np.array_split(fast, n)]
    )
    low, median, high = (round(float(v), 2) for v in np.percentile(pairs, SPREAD))
    return Ratio(median, low, high)


def comparison_sentences(
    phone: Row, baseline: Row, speed: Ratio, gain: tuple[float, float] | None = None
) -> Sequence[str]:
    """Summarize the comparison of a phone model with the baseline.

    Args:
        phone, baseline: Measurements of the two models.
        speed: Latency of the baseline divided by that of the phone model.
        gain: Interval of the difference in F1, phone model minus baseline, if it is known.

    Returns:
        Phrases on size, latency and F1, one per comparison.
    """
    lines = []
    if phone.size and baseline.size:
        smaller, sizes = (
            baseline.size / phone.size,
            f"{phone.size / 1e6:.2f} MB against {baseline.size / 1e6:.1f} MB",
        )
        if abs(smaller - 1) < SAME_SIZE:
            lines.append(f"about the same size ({sizes})")
        else:
            word = "smaller" if smaller > 1 else "larger"
            lines.append(f"{format_factor(max(smaller, 1 / smaller))} times {word} ({sizes})")
    if speed.within_noise:
        lines.append(f"no difference in latency beyond noise (ratio {speed.low} to {speed.high})")
    elif speed.low > 1:
        span = f"{format_factor(speed.low)} to {format_factor(speed.high)} over paired runs"
        lines.append(f"{format_factor(speed.median)} times faster ({span})")
    else:
        slower = [format_factor(1 / v) for v in (speed.median, speed.high, speed.low)]
        lines.append(f"{slower[0]} times slower ({slower[1]} to {slower[2]} over paired runs)")
    if phone.f1 is None or baseline.f1 is None:
        lines.append("difference in F1 not measured, since the baseline was not trained")
    else:
        lines.append(f"F1 {phone.f1:.3f} against {baseline.f1:.3f}{_format_interval(gain)}")
        if phone.best_f1 and baseline.best_f1:
            (phone_at, phone_f1), (baseline_at, baseline_f1) = phone.best_f1, baseline.best_f1
            lines.append(
                f"with each model's best threshold on the test photos ({phone_at:.2f} and "
                f"{baseline_at:.2f}): F1 {phone_f1:.3f} against {baseline_f1:.3f}"
            )
    return lines


def _format_interval(gain: tuple[float, float] | None) -> str:
    if gain is None:
        return ""
    span = f"{gain[0]:+.3f} to {gain[1]:+.3f}"
    if gain[0] <= 0 <= gain[1]:
        return f", no significant difference (95 % interval {span})"
    return f", a difference of {span} (95 % interval over resampled photos)"


def row_label(row: Row) -> str:
    """Return the name of a row in tables and plots, short enough for a phone screen.

    The phone model is named by its format alone, such as "int8"; rows of the baseline begin with
    "baseline". "LiteRT" is left out.
    """
    form = row.variant.removeprefix("LiteRT ")
    return form if row.role == "phone" else f"baseline {form}"


def format_ratio(times: Ratio | None) -> str:
    """Format a latency ratio to the bundle for a table; empty for the bundle itself.

    >>> times_words(Ratio(2.04, 1.9, 2.1)), times_words(Ratio(1.01, 0.97, 1.08))
    ('2.0 (1.9 to 2.1)', 'within noise (0.97 to 1.08)')
    """
    if times is None:
        return ""
    if times.within_noise:
        return f"within noise ({times.low:.2f} to {times.high:.2f})"
    return (
        f"{format_factor(times.median)} ({format_factor(times.low)} to {format_factor(times.high)})"
    )
