"""Latency side by side: fair turns, honest ratios, sentences that claim no more than was measured."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from shelfcount.evaluation.benchmark import Candidate, Latency, Ratio, Row, call_for, ratio, row, time_alternately, verdict
from shelfcount.records import AnchorLevel, Detections, ModelSpec

LATENCY = Latency(1.0, 1.1, 1.2, runs=10, warmup=1, threads=1)
PHONE = Row("phone", "LiteRT int8", "random", 3_000_000, 10, 20, LATENCY, 0.84, 0.5, 0.1)
BASELINE = Row("resnet50", "PyTorch float32", "random", 150_000_000, 1000, 2000, LATENCY, None, None, None)


def test_calls_take_turns_and_run_as_often_as_asked() -> None:
    order: list[str] = []
    calls = {"slow": lambda: order.append("slow"), "fast": lambda: order.append("fast")}
    told: list[tuple[int, int]] = []
    latencies, times = time_alternately(
        calls, {"slow": 3, "fast": 9}, warmup=2, threads=1, progress=lambda done, total: told.append((done, total))
    )
    assert order[:4] == ["slow", "slow", "fast", "fast"]
    # The 3 of the slow one are spread over the 9 rounds.
    assert order[4:] == ["slow", "fast", "fast", "fast"] * 3
    assert {name: len(values) for name, values in times.items()} == {"slow": 3, "fast": 9}
    assert (latencies["fast"].runs, latencies["fast"].warmup, latencies["fast"].threads) == (9, 2, 1)
    assert told == [(i + 1, 12) for i in range(12)]


def test_equal_numbers_of_runs_alternate_strictly() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    time_alternately(calls, {"a": 5, "b": 5}, warmup=0, threads=1)
    assert "".join(order) == "ab" * 5


def test_planted_factor_is_found() -> None:
    calls = {"slow": lambda: time.sleep(0.025), "fast": lambda: time.sleep(0.005)}
    latencies, times = time_alternately(calls, {"slow": 12, "fast": 24}, warmup=1, threads=1)
    found = ratio(times["slow"], times["fast"])
    # Sleeps are 25 and 5 ms; a busy machine wakes both a little late.
    assert 3.5 < found.median < 5.5
    assert found.low <= found.median <= found.high
    assert 25 <= latencies["slow"].p50 <= latencies["slow"].p90 <= latencies["slow"].p99


def test_percentiles_are_numpys() -> None:
    latencies, times = time_alternately({"a": lambda: None}, {"a": 50}, warmup=0, threads=4)
    np.testing.assert_allclose(
        [latencies["a"].p50, latencies["a"].p90, latencies["a"].p99], np.percentile(times["a"], (50, 90, 99)), atol=5e-4
    )


def test_ratio_is_taken_pair_by_pair() -> None:
    # The machine slows down fivefold half way; each pair still says 4.
    mood = np.array([1.0, 1, 1, 5, 5, 5])
    assert ratio(40 * mood, 10 * mood) == Ratio(4.0, 4.0, 4.0)
    # 2 runs against 6: medians of blocks of three.
    assert ratio(np.array([40.0, 200.0]), 10 * mood) == Ratio(4.0, 4.0, 4.0)


def test_two_equal_calls_show_no_difference() -> None:
    rng = np.random.default_rng(0)
    speed = ratio(rng.normal(10, 1, 50), rng.normal(10, 1, 50))
    assert any(line.startswith("no difference in latency beyond noise") for line in verdict(PHONE, BASELINE, speed))


def test_verdict_claims_what_was_measured() -> None:
    lines = verdict(PHONE, BASELINE, Ratio(80.2, 70.4, 90.1))
    # 150 MB / 3 MB.
    assert lines[0] == "50 times smaller (3.00 MB against 150.0 MB)"
    assert lines[1] == "80 times faster (70 to 90 over paired runs)"
    assert "not measured" in lines[2]
    assert verdict(PHONE, replace(BASELINE, f1=0.86), Ratio(80.2, 70.4, 90.1))[2] == "F1 0.840 against 0.860"


def test_slower_is_not_called_faster() -> None:
    line = verdict(PHONE, BASELINE, Ratio(0.4, 0.3, 0.5))[1]
    assert "faster" not in line
    # 1 / 0.4.
    assert line.startswith("2.5 times slower")


def test_what_was_not_measured_stays_none() -> None:
    measured = row(Candidate("resnet50", "PyTorch", "random", lambda: None), LATENCY, None)
    assert (measured.f1, measured.map, measured.count_error, measured.size, measured.macs) == (None,) * 5
    assert measured.to_json()["latency"]["p50"] == 1.0


def test_call_runs_the_detector_on_the_pixels() -> None:
    class Seeing:
        spec = ModelSpec("seeing", "none", ("cola",), 8, 8, (AnchorLevel(8, ((8.0, 8.0),)),))

        def detect(self, image: np.ndarray) -> Detections:
            return Detections([[0, 0, image.shape[1], image.shape[0]]], [0])

    found = call_for(Seeing(), np.zeros((8, 6, 3), np.uint8))()
    assert isinstance(found, Detections)
    assert found.boxes.tolist() == [[0, 0, 6, 8]]


@pytest.mark.parametrize("speed", [Ratio(1.0, 0.9, 1.1), Ratio(1.05, 1.0, 1.2)])
def test_range_that_holds_one_is_no_difference(speed: Ratio) -> None:
    assert verdict(PHONE, BASELINE, speed)[1] == f"no difference in latency beyond noise (ratio {speed.low} to {speed.high})"
