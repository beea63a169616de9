"""Tests of phone budgets: kept, missed and open limits, and estimates apart from measurements."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from shelfcount.records import ShelfcountError
from shelfcount.report import bench_sections, page
from shelfcount.runtime.bundle import read_bundle
from shelfcount.speed import adb, phone_budgets
from shelfcount.speed.adb import PhoneRun, Timings
from shelfcount.speed.phone_budgets import BudgetLine, ModelFacts, Phone

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "shelfcount" / "speed" / "phones").glob("*.toml"))
OPERATORS = ("CONV_2D", "TFLite_Detection_PostProcess")
# 1 GMAC, so that latencies are simple: 10 ms at 100 GMAC/s.
GOOD = ModelFacts(
    3_000_000,
    1_000_000_000,
    OPERATORS,
    memory_mb=40.0,
    f1=0.82,
    baseline_f1=0.83,
    float_f1=0.85,
    int8_f1=0.846,
)
PHONE = Phone.model_validate(
    {
        "name": "test phone",
        "model": "Pixel 4",
        "threads": 4,
        "budget": {
            "size_mb": 5,
            "latency_ms": 25,
            "memory_mb": 50,
            "f1_below_baseline": 0.02,
            "int8_drop": 0.005,
            "operators": OPERATORS,
        },
        "published": [
            {"network": "fast", "mmac": 500, "ms": 5, "source": "one"},
            {"network": "slow", "mmac": 500, "ms": 10, "source": "two"},
        ],
    }
)
TIMINGS = Timings(62, 15.9, 16.0, 15.5, 18.2, 0.4, 21.0, 23.9)
RUN = PhoneRun(
    "Pixel 4",
    "Qualcomm SM8150",
    "13",
    4,
    "",
    TIMINGS,
    "0" * 64,
    "1" * 64,
    {"date": "2026-01-02 03:04 UTC"},
)


def lines(
    figures: ModelFacts = GOOD, run: PhoneRun | None = None, phone: Phone = PHONE
) -> dict[str, BudgetLine]:
    (verdict,) = phone_budgets.check_budgets([phone], figures, [run] if run else [])
    return {line.name.split(",")[0]: line for line in verdict.lines}


def with_budget(**changes: object) -> Phone:
    return PHONE.model_copy(update={"budget": PHONE.budget.model_copy(update=changes)})


def test_every_line_kept() -> None:
    assert {name: line.state for name, line in lines().items()} == dict.fromkeys(
        (
            "size",
            "latency",
            "memory",
            "F1 against the baseline",
            "F1 loss from PyTorch to int8",
            "operators",
        ),
        "kept",
    )
    (verdict,) = phone_budgets.check_budgets([PHONE], GOOD)
    assert not verdict.missed


@pytest.mark.parametrize(
    ("name", "change", "shown"),
    [
        ("size", {"size": 5_010_000}, "missed size: 5.01 MB, budget at most 5.00 MB (the file)"),
        (
            "memory",
            {"memory_mb": 50.1},
            "missed memory: 50.1 MB, budget at most 50.0 MB "
            "(measured on this computer, not on the phone)",
        ),
        (
            "F1 against the baseline",
            {"f1": 0.80},
            "missed F1 against the baseline: 0.800 against 0.830, budget at most 0.02 below "
            "(test photos)",
        ),
        (
            "F1 loss from PyTorch to int8",
            {"int8_f1": 0.84},
            "missed F1 loss from PyTorch to int8: 0.0100, budget at most 0.0050",
        ),
        (
            "operators",
            {"operators": (*OPERATORS, "HARD_SWISH")},
            "missed operators: not allowed: HARD_SWISH, budget 2 operators allowed (the file)",
        ),
        # 2,600 million at 50 and 100 GMAC/s.
        (
            "latency",
            {"macs": 2_600_000_000},
            "missed latency, 4 threads: ESTIMATE 26.0 to 52.0 ms, budget at most 25 ms "
            "(published throughputs of 50.0 to 100.0 GMAC/s",
        ),
    ],
)
def test_a_line_missed(name: str, change: dict[str, object], shown: str) -> None:
    figures = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]
    assert str(lines(figures)[name]).startswith(shown)
    (verdict,) = phone_budgets.check_budgets([PHONE], figures)
    assert verdict.missed
    assert [line.state for line in verdict.lines].count("missed") == 1


def test_an_estimate_on_both_sides_of_the_budget_is_open() -> None:
    # 1 GMAC takes 10 to 20 ms.
    assert [
        lines(phone=with_budget(latency_ms=most))["latency"].state for most in (9.9, 10, 19.9, 20)
    ] == [
        "missed",
        "open",
        "open",
        "kept",
    ]


def test_what_was_not_measured_is_open_and_misses_nothing() -> None:
    unmeasured = dataclasses.replace(GOOD, memory_mb=None, baseline_f1=None, float_f1=None)
    results = lines(unmeasured, phone=PHONE.model_copy(update={"published": ()}))
    assert {name for name, line in results.items() if line.state == "open"} == {
        "memory",
        "F1 against the baseline",
        "F1 loss from PyTorch to int8",
        "latency",
    }
    assert {line.value for line in results.values() if line.state == "open"} == {"not measured"}
    assert results["F1 against the baseline"].basis == "the baseline was not trained"
    assert (
        results["latency"].basis
        == "no phone attached, and its file contains no published latency of int8"
    )


def test_latencies_of_int8_estimate_no_other_format() -> None:
    latency = lines(dataclasses.replace(GOOD, recipe="float32"))["latency"]
    assert (latency.state, latency.basis) == (
        "open",
        "no phone attached, and its file contains no published latency of float32",
    )


def test_a_drop_of_just_the_budget_is_kept() -> None:
    # In binary floating point, 0.85 - 0.845 is slightly more than 0.005.
    assert 0.85 - 0.845 > 0.005
    assert (
        lines(dataclasses.replace(GOOD, int8_f1=0.845))["F1 loss from PyTorch to int8"].state
        == "kept"
    )


def test_what_is_not_in_the_budget_is_not_checked() -> None:
    few = Phone.model_validate({"name": "small", "budget": {"size_mb": 1}})
    assert [str(line) for line in lines(phone=few).values()] == [
        "missed size: 3.00 MB, budget at most 1.00 MB (the file)"
    ]


def test_a_measurement_takes_the_place_of_the_estimate() -> None:
    results = lines(run=RUN)
    assert str(results["latency"]) == (
        "kept   latency, 4 threads: 15.9 ms, budget at most 25 ms "
        "(measured: median of 62 runs on Pixel 4, Qualcomm SM8150, Android 13)"
    )
    assert (
        str(results["memory"])
        == "kept   memory: 23.9 MB, budget at most 50.0 MB (measured on Pixel 4)"
    )
    old = dataclasses.replace(
        RUN, timings=dataclasses.replace(TIMINGS, p50_ms=None, memory_mb=None)
    )
    results = lines(run=old)
    assert "16.0 ms, budget at most 25 ms (measured: mean of 62 runs" in str(results["latency"])
    assert results["memory"].basis == "measured on this computer, not on the phone"


def test_a_measurement_counts_for_its_own_phone_only() -> None:
    others = [
        PHONE.model_copy(update={"name": "other", **change})
        for change in ({"model": "Pixel 2"}, {"threads": 1}, {"cores": "f0"})
    ]
    measured, estimated, *more = (
        verdict.to_json() for verdict in phone_budgets.check_budgets([PHONE, *others], GOOD, [RUN])
    )
    assert [verdict["latency_measured"] for verdict in more] == [None, None]
    assert measured["latency_measured"]["chip"] == "Qualcomm SM8150"
    assert measured["latency_estimate"] is None
    assert estimated["latency_measured"] is None
    assert estimated["latency_estimate"] == {"ms": [10.0, 20.0], "sources": ["one", "two"]}
    assert estimated["lines"][1]["value"] == "ESTIMATE 10.0 to 20.0 ms"
    assert "ESTIMATE" not in str(measured)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        # MobileNet v1 quant: 569 million in 5.0 ms; EfficientNet-Lite0: 407 million in 6.5 ms.
        ("pixel4", 62.6, 113.8),
        # XNNPACK's table, ARM64: 300 million in 17 ms, 569 in 24.
        ("raspberry_pi4", 17.6, 23.7),
        # TensorFlow's table, one big core: 300 million in 54 ms, 569 in 64.
        ("pixel2_one_core", 5.6, 8.9),
    ],
)
def test_shipped_throughputs(name: str, low: float, high: float) -> None:
    (phone,) = phone_budgets.read_phones(
        [ROOT / "shelfcount" / "speed" / "phones" / f"{name}.toml"]
    )
    speeds = [entry.gmac_per_s for entry in phone.published]
    assert (min(speeds), max(speeds)) == (
        pytest.approx(low, abs=0.05),
        pytest.approx(high, abs=0.05),
    )
    assert all("github.com/" in entry.source for entry in phone.published)


def test_the_released_bundle_against_the_shipped_phones(released: Path) -> None:
    bundle = read_bundle(released)
    figures = phone_budgets.model_facts(bundle, f1=0.82)
    assert figures.size == bundle.model_bytes
    assert (figures.float_f1, figures.int8_f1) == (
        bundle.measured["f1_pytorch"],
        bundle.measured["f1"],
    )
    assert len(SHIPPED) == 3
    for verdict in phone_budgets.check_budgets(phone_budgets.read_phones(SHIPPED), figures):
        states = {line.name.split(",")[0]: line.state for line in verdict.lines}
        assert states.pop("memory") == states.pop("F1 against the baseline") == "open"
        assert set(states.values()) == {"kept"}, verdict


def test_every_error_of_a_phone_at_once(tmp_path: Path) -> None:
    path = tmp_path / "phone.toml"
    path.write_text(
        'name = "x"\nthreads = 0\ncores = "0xf0"\n[budget]\nsizemb = 5\nlatency_ms = -1\n'
        "[[published]]\nmmac = 1\nms = 1\n"
    )
    with pytest.raises(ShelfcountError, match=r"phone\.toml' cannot be used:") as caught:
        phone_budgets.read_phones([path])
    message = str(caught.value)
    for part in (
        "threads: ",
        "got 0",
        "cores: ",
        "'0xf0'",
        "budget.sizemb: ",
        "budget.latency_ms: ",
        "got -1",
        "published[0].source: ",
    ):
        assert part in message
    path.write_text("name = ")
    with pytest.raises(ShelfcountError, match=r"cannot read phone '.*phone\.toml': Invalid value"):
        phone_budgets.read_phones([path])
    with pytest.raises(ShelfcountError, match=r"cannot read phone '.*none\.toml'"):
        phone_budgets.read_phones([tmp_path / "none.toml"])


def test_shipped_phones_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(phone_budgets.packaged_phones()) == [path.stem for path in SHIPPED]
    names = [Path(path.stem) for path in SHIPPED]
    assert phone_budgets.read_phones(names) == phone_budgets.read_phones(SHIPPED)
    # A file of this name takes precedence.
    (tmp_path / "pixel4").write_text("{}")
    with pytest.raises(ShelfcountError, match="phone 'pixel4' cannot be used"):
        phone_budgets.read_phones([Path("pixel4")])


def test_phones_with_the_same_name(tmp_path: Path) -> None:
    copy = tmp_path / "copy.toml"
    shutil.copy(SHIPPED[0], copy)
    with pytest.raises(
        ShelfcountError,
        match=r"several phones have the name 'Pixel 2, one big core'\. .* unique name",
    ):
        phone_budgets.read_phones([SHIPPED[0], copy])


def test_options_that_need_each_other(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read_bundle(released)
    assert phone_budgets.measure_attached_phone([PHONE], bundle, None, None) == []
    with pytest.raises(ShelfcountError, match=r"--adb-serial 'A1' is given without --adb-binary\."):
        phone_budgets.measure_attached_phone([PHONE], bundle, None, "A1")
    with pytest.raises(ShelfcountError, match="--adb-binary is given without --phone"):
        phone_budgets.measure_attached_phone([], bundle, Path("benchmark_model"), None)
    monkeypatch.setattr(adb, "choose_phone", lambda serial: "A1")
    monkeypatch.setattr(adb, "android_model", lambda serial: "Pixel 7")
    nameless = Phone.model_validate({"name": "board", "budget": {}})
    with pytest.raises(
        ShelfcountError,
        match=r"phone is 'Pixel 7', but no --phone file has this `model`, only 'Pixel 4'\.",
    ):
        phone_budgets.measure_attached_phone(
            [nameless, PHONE], bundle, Path("benchmark_model"), None
        )


def test_the_attached_phone_is_measured_as_its_file_says(
    released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []

    def measured(model: Path, binary: Path, serial: str, **options: object) -> PhoneRun:
        asked.append({**options, "model": model, "serial": serial})
        return RUN

    monkeypatch.setattr(adb, "choose_phone", lambda serial: "A1")
    monkeypatch.setattr(adb, "android_model", lambda serial: "Pixel 2")
    monkeypatch.setattr(adb, "benchmark_on_phone", measured)
    bundle = read_bundle(released)
    shipped = phone_budgets.read_phones(SHIPPED)
    (pixel2,) = [phone for phone in shipped if phone.model == "Pixel 2"]
    all_cores = pixel2.model_copy(update={"name": "Pixel 2, all cores", "threads": 8, "cores": ""})
    assert phone_budgets.measure_attached_phone(
        [*shipped, all_cores], bundle, Path("benchmark_model"), None
    ) == [
        RUN,
        RUN,
    ]
    same = {"model": bundle.path / "model.tflite", "serial": "A1"}
    assert asked == [{"threads": 1, "cores": "f0", **same}, {"threads": 8, "cores": "", **same}]


def test_section_of_a_page() -> None:
    verdicts = phone_budgets.check_budgets(
        [PHONE, with_budget(size_mb=1).model_copy(update={"name": "small", "model": ""})],
        GOOD,
        [RUN],
    )
    shown = page.render_html("t", [bench_sections.budget_section(verdicts)])
    assert shown.count("<table") == 2
    assert "No limit of the budget is missed." in shown
    assert "Missed: size." in shown
    # The latency of the first was measured, that of the second estimated.
    assert shown.count("ESTIMATE") == 1
    assert "one\ntwo" in shown
    assert bench_sections.budget_section([]).blocks == []
