"""Models side by side: size, work, memory, latency and F1, each measured or said not to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# Of the paired ratios, what counts as their spread.
SPREAD = (10, 50, 90)
# Of an interval by resampling the photos; the tails beyond are 5 %.
RESAMPLES, CERTAIN = 2000, (2.5, 97.5)
# As a share: labels and metadata alone make files differ by so much.
SAME_SIZE = 0.05


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
class Ratio:
    """How many times faster one is than another: paired runs, so that the machine's moods cancel.

    Attributes:
        median: Of the ratios pair by pair.
        low, high: 10th and 90th percentile of them.
    """

    median: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the pairs do not agree on which of the two is faster."""
        return self.low <= 1 <= self.high


@dataclass(frozen=True)
class Row:
    """One model in one form; None is 'not measured'.

    Attributes:
        name: Architecture and input size.
        variant: Runtime and number format, such as 'LiteRT int8'.
        start: How the weights were initialised, or that they are random.
        size: Bytes of the file, or of the weights where PyTorch runs them.
        macs: Multiply-accumulates of one pass.
        parameters: Weights and biases.
        latency: Network and suppression of one photo, at the first of the thread counts.
        f1, map, count_error: On the test photos.
        role: 'phone' or 'baseline'.
        by_threads: Latency at each thread count.
        times_bundle: How many times the bundle's time it takes, paired with the bundle's own runs, at
            the thread count of `latency`; None for the bundle itself.
        preparation: Reading, decoding and resizing a photo.
        postprocessing: Decoding and suppression, a part of `latency`.
        memory: Bytes that loading and running it add to a process, at the peak.
        lost_points: Points of F1 lost against the same weights in float32.
        threshold: The model's own score threshold, at which `f1` and `count_error` were measured.
        best_f1: (threshold, F1) where the test photos would have it highest; a bound, as nobody could have known it.
        outside: Operators that run outside XNNPACK.
        partitions: Pieces into which XNNPACK cuts the network.
        operators: What each operator takes, as `evaluation.op_profile` found it.
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
        """Median milliseconds of the network alone: what is left of the whole without the post-processing."""
        return (
            None
            if self.postprocessing is None
            else round(self.latency.p50 - self.postprocessing.p50, 3)
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def take_turns(
    calls: Mapping[str, Callable[[], float]],
    runs: Mapping[str, int],
    *,
    warmup: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Run several models in turn, so that a slow minute of the machine hits all alike.

    Args:
        calls: By name; each runs its model once and returns the milliseconds it took.
        runs: Counted runs of each; a slow one may have fewer, spread over the rounds.
        warmup: Runs of each before counting.
        progress: Called with runs done and runs in all.

    Returns:
        The single times in milliseconds, by name; the times of the slowest call's round r stand at
        the same share of the way through as its own.
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


def latency(times: np.ndarray, warmup: int, threads: int) -> Latency:
    """Percentiles of (n,) milliseconds."""
    p50, p90, p99 = (round(float(v), 3) for v in np.percentile(times, (50, 90, 99)))
    return Latency(p50, p90, p99, len(times), warmup, threads)


def ratio(slow: np.ndarray, fast: np.ndarray) -> Ratio:
    """How many times faster `fast` was, pair by pair; the longer series is cut into as many blocks as the shorter has runs."""
    n = min(len(slow), len(fast))
    pairs = np.array([np.median(a) for a in np.array_split(slow, n)]) / np.array(
        [np.median(b) for b in np.array_split(fast, n)]
    )
    low, median, high = (round(float(v), 2) for v in np.percentile(pairs, SPREAD))
    return Ratio(median, low, high)


def f1_gain(ours: np.ndarray, theirs: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """How much more F1 one model has than another on the same photos, as other such photos might have shown it.

    Args:
        ours, theirs: (n, 3) products that stand on each photo, detections, and products found.
        rng: Of the bootstrap over photos, the same for both models.

    Returns:
        (lowest, highest) difference on `CERTAIN` of the resamples; where 0 lies between, these photos cannot tell.
    """
    chosen = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
    gains = f1_of(ours[chosen].sum(axis=1)) - f1_of(theirs[chosen].sum(axis=1))
    low, high = np.percentile(gains, CERTAIN)
    return float(low), float(high)


def f1_of(counts: np.ndarray) -> np.ndarray:
    """(...) F1 of (..., 3) products, detections, and products found; nothing reported where nothing stands is 1."""
    truth, found, tp = np.moveaxis(counts, -1, 0)
    return np.where(truth + found > 0, 2 * tp / np.maximum(truth + found, 1), 1.0)


def verdict(
    phone: Row, baseline: Row, speed: Ratio, gain: tuple[float, float] | None = None
) -> Sequence[str]:
    """What the comparison says, one sentence a figure, in words that claim no more than was measured.

    Args:
        phone, baseline: What is compared.
        speed: How many times faster the first is.
        gain: `f1_gain` of the first over the second, where known.
    """
    lines = []
    if phone.size and baseline.size:
        smaller, sizes = (
            baseline.size / phone.size,
            f"{phone.size / 1e6:.2f} MB against {baseline.size / 1e6:.1f} MB",
        )
        if abs(smaller - 1) < SAME_SIZE:
            lines.append(f"of one size ({sizes})")
        else:
            lines.append(
                f"{factor(max(smaller, 1 / smaller))} times {'smaller' if smaller > 1 else 'larger'} ({sizes})"
            )
    if speed.within_noise:
        lines.append(f"no difference in latency beyond noise (ratio {speed.low} to {speed.high})")
    elif speed.low > 1:
        lines.append(
            f"{factor(speed.median)} times faster ({factor(speed.low)} to {factor(speed.high)} over paired runs)"
        )
    else:
        slower = [factor(1 / v) for v in (speed.median, speed.high, speed.low)]
        lines.append(f"{slower[0]} times slower ({slower[1]} to {slower[2]} over paired runs)")
    if phone.f1 is None or baseline.f1 is None:
        lines.append("F1 against the baseline was not measured, as the baseline was not trained")
    else:
        lines.append(f"F1 {phone.f1:.3f} against {baseline.f1:.3f}{_beyond(gain)}")
        if phone.best_f1 and baseline.best_f1:
            (at, own), (rival_at, other) = phone.best_f1, baseline.best_f1
            where = f"at scores of {at:.2f} and {rival_at:.2f}"
            lines.append(
                f"with the score thresholds that are best on these very photos, {where}, F1 {own:.3f} against {other:.3f}"
            )
    return lines


def _beyond(gain: tuple[float, float] | None) -> str:
    if gain is None:
        return ""
    span = f"{gain[0]:+.3f} to {gain[1]:+.3f}"
    if gain[0] <= 0 <= gain[1]:
        return f", no difference beyond what these photos can tell ({span})"
    return f", a difference of {span} over resamples of the photos"


def times_words(times: Ratio | None) -> str:
    """A ratio to the bundle's time as a table prints it; empty for the bundle itself.

    >>> times_words(Ratio(2.04, 1.9, 2.1)), times_words(Ratio(1.01, 0.97, 1.08))
    ('2.0 (1.9 to 2.1)', 'within noise (0.97 to 1.08)')
    """
    if times is None:
        return ""
    if times.within_noise:
        return f"within noise ({times.low:.2f} to {times.high:.2f})"
    return f"{factor(times.median)} ({factor(times.low)} to {factor(times.high)})"


def factor(value: float) -> str:
    """How many times, with as many digits as timings bear."""
    # 80.2 pretends a precision that timings lack; 1.4 as "1" would say nothing, nor 0.94 as "0.9".
    if value >= 10:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1.5 or value == 1 else f"{value:.2f}"
