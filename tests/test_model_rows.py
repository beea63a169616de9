"""Tests of the comparison of models: alternating runs, latency ratios, and the summary phrases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from shelfcount.metrics.uncertainty import f1_difference_interval
from shelfcount.speed.model_rows import (
    Latency,
    Ratio,
    Row,
    comparison_sentences,
    format_ratio,
    speed_ratio,
    summarize_latency,
    time_interleaved,
)

LATENCY = Latency(1.0, 1.1, 1.2, runs=10, warmup=1, threads=1)
PHONE = Row("phone", "LiteRT int8", "random", 3_000_000, 10, 20, LATENCY, 0.84, 0.5, 0.1)
BASELINE = Row(
    "resnet50", "PyTorch float32", "random", 150_000_000, 1000, 2000, LATENCY, None, None, None
)


def calls(order: list[str], **milliseconds: float) -> dict[str, Callable[[], float]]:
    """Return models that record the order of their runs."""

    def call(name: str, ms: float) -> float:
        order.append(name)
        return ms

    return {name: (lambda name=name, ms=ms: call(name, ms)) for name, ms in milliseconds.items()}


def test_models_take_turns_and_run_as_often_as_asked() -> None:
    order: list[str] = []
    told: list[tuple[int, int]] = []
    times = time_interleaved(
        calls(order, slow=9.0, fast=1.0),
        {"slow": 3, "fast": 9},
        warmup=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert order[:4] == ["slow", "slow", "fast", "fast"]
    # The 3 runs of the slow model are spread over the 9 rounds.
    assert order[4:] == ["slow", "fast", "fast", "fast"] * 3
    assert {name: values.tolist() for name, values in times.items()} == {
        "slow": [9.0] * 3,
        "fast": [1.0] * 9,
    }
    assert told == [(i + 1, 12) for i in range(12)]


def test_equal_numbers_of_runs_alternate_strictly() -> None:
    order: list[str] = []
    time_interleaved(calls(order, a=1.0, b=1.0), {"a": 5, "b": 5}, warmup=0)
    assert "".join(order) == "ab" * 5


def test_percentiles_are_numpys() -> None:
    times = np.random.default_rng(0).normal(10, 1, 50)
    result = summarize_latency(times, warmup=3, threads=4)
    np.testing.assert_allclose(
        [result.p50, result.p90, result.p99], np.percentile(times, (50, 90, 99)), atol=5e-4
    )
    assert (result.runs, result.warmup, result.threads) == (50, 3, 4)


def test_ratio_is_taken_pair_by_pair() -> None:
    # The machine becomes five times slower half way; the ratio of each pair is still 4.
    load = np.array([1.0, 1, 1, 5, 5, 5])
    assert speed_ratio(40 * load, 10 * load) == Ratio(4.0, 4.0, 4.0)
    # 2 runs against 6: medians of blocks of three.
    assert speed_ratio(np.array([40.0, 200.0]), 10 * load) == Ratio(4.0, 4.0, 4.0)


def test_two_equal_calls_show_no_difference() -> None:
    rng = np.random.default_rng(0)
    speed = speed_ratio(rng.normal(10, 1, 50), rng.normal(10, 1, 50))
    assert any(
        line.startswith("no difference in latency beyond noise")
        for line in comparison_sentences(PHONE, BASELINE, speed)
    )


def test_verdict_claims_what_was_measured() -> None:
    lines = comparison_sentences(PHONE, BASELINE, Ratio(80.2, 70.4, 90.1))
    # 150 MB / 3 MB.
    assert lines[0] == "50 times smaller (3.00 MB against 150.0 MB)"
    assert lines[1] == "80 times faster (70 to 90 over paired runs)"
    assert "not measured" in lines[2]
    assert comparison_sentences(PHONE, replace(BASELINE, f1=0.86), Ratio(80.2, 70.4, 90.1))[2:] == [
        "F1 0.840 against 0.860"
    ]
    swept = [replace(PHONE, best_f1=(0.5, 0.85)), replace(BASELINE, f1=0.86, best_f1=(0.31, 0.883))]
    line = comparison_sentences(*swept, Ratio(80.2, 70.4, 90.1))[3]
    assert line.endswith(
        "each model's best threshold on the test photos (0.50 and 0.31): F1 0.850 against 0.883"
    )


def test_a_difference_in_f1_is_compared_with_its_interval() -> None:
    # 40 photos of 30 products. One model detects 27 on each. The other detects as many in total, or
    # 3 fewer on each photo.
    ours = np.tile([30, 30, 27], (40, 1))
    alike, worse = ours.copy(), ours.copy()
    alike[:20, 2] -= 2
    alike[20:, 2] += 2
    worse[:, 2] -= 3
    rng = np.random.default_rng(0)
    low, high = f1_difference_interval(ours, alike, rng)
    assert low < 0 < high
    # The difference is the same on every photo: 3 of 30.
    assert f1_difference_interval(ours, worse, rng) == pytest.approx((0.1, 0.1))
    rival = replace(BASELINE, f1=0.86)
    assert comparison_sentences(PHONE, rival, Ratio(80.2, 70.4, 90.1), (-0.021, 0.004))[2] == (
        "F1 0.840 against 0.860, no significant difference (95 % interval -0.021 to +0.004)"
    )
    assert comparison_sentences(PHONE, rival, Ratio(80.2, 70.4, 90.1), (-0.031, -0.008))[2] == (
        "F1 0.840 against 0.860, a difference of -0.031 to -0.008 "
        "(95 % interval over resampled photos)"
    )


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (3_060_000, "about the same size (3.00 MB against 3.1 MB)"),
        (1_500_000, "2.0 times larger (3.00 MB against 1.5 MB)"),
    ],
)
def test_a_baseline_that_is_not_larger(size: int, words: str) -> None:
    assert (
        comparison_sentences(PHONE, replace(BASELINE, size=size), Ratio(2.0, 1.9, 2.1))[0] == words
    )


def test_slower_is_not_called_faster() -> None:
    line = comparison_sentences(PHONE, BASELINE, Ratio(0.4, 0.3, 0.5))[1]
    assert "faster" not in line
    # 1 / 0.4.
    assert line.startswith("2.5 times slower")


def test_network_latency_excludes_post_processing() -> None:
    # 1.0 ms in total, of which 0.25 ms are post-processing.
    row = replace(PHONE, postprocessing=replace(LATENCY, p50=0.25))
    assert row.network == 0.75
    assert PHONE.network is None


def test_what_was_not_measured_stays_none() -> None:
    written = BASELINE.to_json()
    assert [
        written[key]
        for key in ("f1", "map", "count_error", "memory", "outside", "operators", "times_bundle")
    ] == [None] * 7
    assert written["latency"]["p50"] == 1.0


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (None, ""),
        (Ratio(142.4, 131.0, 155.6), "142 (131 to 156)"),
        (Ratio(2.04, 1.9, 2.1), "2.0 (1.9 to 2.1)"),
        (Ratio(0.94, 0.9, 0.97), "0.94 (0.90 to 0.97)"),
        (Ratio(1.02, 0.98, 1.05), "within noise (0.98 to 1.05)"),
    ],
)
def test_a_ratio_in_words(times: Ratio | None, words: str) -> None:
    assert format_ratio(times) == words


@pytest.mark.parametrize("speed", [Ratio(1.0, 0.9, 1.1), Ratio(1.05, 1.0, 1.2)])
def test_range_that_contains_one_is_no_difference(speed: Ratio) -> None:
    assert (
        comparison_sentences(PHONE, BASELINE, speed)[1]
        == f"no difference in latency beyond noise (ratio {speed.low} to {speed.high})"
    )
