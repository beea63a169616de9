"""Tests of changes between results: stored results, and copies of them with a known change."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import compare
import numpy as np
import pytest

from shelfcount.records import ShelfcountError
from shelfcount.studies import result_changes, result_files

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def evaluated() -> dict[str, Any]:
    return result_files.read_result(RESULTS / "drinks_int8.json")


@pytest.fixture
def benched() -> dict[str, Any]:
    result = result_files.read_result(RESULTS / "drinks_bench.json")
    # Tests that want more thread counts, memory and operators say which.
    result["rows"] = [
        {key: value for key, value in row.items() if key not in ("by_threads", "memory", "outside")}
        for row in result["rows"]
    ]
    return result


def states(changes: list[Any]) -> dict[str, str]:
    return {change.name: change.state for change in changes}


def title(result: dict[str, Any]) -> str:
    """How the bundle's own row is called."""
    return f"{result['rows'][0]['name']}, {result['rows'][0]['variant']}"


def without_hits(result: dict[str, Any], photos: int, each: int) -> dict[str, Any]:
    """A copy that missed `each` more products on the first photos."""
    changed = copy.deepcopy(result)
    for row in changed["per_photo"][:photos]:
        lost = min(each, row["tp"])
        row["tp"], row["found"] = row["tp"] - lost, row["found"] - lost
    return changed


def test_nothing_changed(evaluated: dict[str, Any], benched: dict[str, Any]) -> None:
    for result in (evaluated, benched):
        assert {
            change.state for change in result_changes.result_changes(result, copy.deepcopy(result))
        } == {"same"}


def test_every_stored_result_against_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(RESULTS), str(RESULTS)]) == 0
    said = capsys.readouterr().out
    assert "drinks_int8.json\n  same         F1: 0." in said
    assert "95 % bootstrap interval of the difference, 40 photos: +0.0000 to +0.0000)" in said
    assert (
        "merge_views.json\n  not compared all values (not a result of bench or of evaluate in both)"
        in said
    )
    assert "0 better, 0 worse" in said


def test_losing_a_product_on_every_photo_is_a_loss(evaluated: dict[str, Any]) -> None:
    worse = without_hits(evaluated, photos=40, each=1)
    (found,) = [
        change for change in result_changes.result_changes(evaluated, worse) if change.name == "F1"
    ]
    assert found.state == "worse"
    tp, boxes = evaluated["tp"], evaluated["boxes"] + evaluated["found"]
    lost = sum(row["tp"] > 0 for row in evaluated["per_photo"])
    assert lost >= 39
    assert found.old == pytest.approx(evaluated["f1"])
    # As many hits fewer as there are photos with one, and as many detections.
    assert found.new == pytest.approx(2 * (tp - lost) / (boxes - lost))
    assert states(result_changes.result_changes(worse, evaluated))["F1"] == "better"


def test_losing_ten_products_on_one_photo_is_noise(evaluated: dict[str, Any]) -> None:
    # A third of the resamples leaves that photo out: (39 / 40) ** 40 is 0.36.
    (found,) = [
        change
        for change in result_changes.result_changes(
            evaluated, without_hits(evaluated, photos=1, each=10)
        )
        if change.name == "F1"
    ]
    assert found.state == "same"
    assert found.new < found.old
    assert found.why.endswith("to +0.0000")


def test_bootstrap_spread_is_that_of_the_means() -> None:
    # 200 photos of 100 products without false positives: F1 is nearly linear in the true positives,
    # so the spread of its change is that of a mean: sqrt(2) * 5 / sqrt(200) of 100 products for two
    # independent models.
    rng = np.random.default_rng(3)
    sides = [
        {
            "per_photo": [
                {"path": str(i), "truth": 100, "found": 100, "tp": int(tp)}
                for i, tp in enumerate(np.round(rng.normal(80, 5, 200)))
            ]
        }
        for _ in range(2)
    ]
    why = result_changes.f1_change(*sides).why
    low, high = (float(word) for word in why.split(": ")[1].split(" to "))
    assert (high - low) / (2 * 1.96) == pytest.approx(2**0.5 * 5 / 200**0.5 / 100, rel=0.15)


def test_other_photos_or_labels_are_refused(evaluated: dict[str, Any]) -> None:
    other = copy.deepcopy(evaluated)
    other["per_photo"][0]["truth"] += 1
    name = other["per_photo"][0]["path"]
    with pytest.raises(
        ShelfcountError,
        match=f"are not of the same photos and labels. Different: 1 photo, such as '{name}'",
    ):
        result_changes.result_changes(evaluated, other)


def test_a_class_that_broke_down_is_named(evaluated: dict[str, Any]) -> None:
    broken = copy.deepcopy(evaluated)
    row = max(broken["per_class"], key=lambda row: row["tp"])
    was = dict(row)

    def lose(products: int) -> dict[str, str]:
        row["tp"], row["found"] = was["tp"] - products, was["found"] - products
        row["f1"] = 2 * row["tp"] / (row["truth"] + row["found"])
        return {
            name: state
            for name, state in states(result_changes.result_changes(evaluated, broken)).items()
            if name.startswith("F1 of ")
        }

    # A quarter of the true positives of the most frequent class, which are more than 100, then 3 %.
    assert was["tp"] > 100
    assert lose(was["tp"] // 4) == {f"F1 of '{row['name']}'": "worse"}
    assert lose(was["tp"] // 33) == {}


@pytest.mark.parametrize(("by", "state"), [(-0.0099, "same"), (-0.011, "worse"), (0.011, "better")])
def test_figures_without_a_spread_have_a_margin(
    evaluated: dict[str, Any], by: float, state: str
) -> None:
    changed = copy.deepcopy(evaluated)
    changed["map"] += by
    changed["macro_f1"] += by
    changed["count_error"]["by_class"]["relative"] -= by
    found = result_changes.result_changes(evaluated, changed)
    assert {states(found)[name] for name in ("mAP", "macro F1", "count error")} == {state}
    changed["map"] = None
    assert states(result_changes.result_changes(evaluated, changed))["mAP"] == "not compared"


@pytest.mark.parametrize(("spreads", "state"), [(0.99, "same"), (1.01, "worse"), (-1.01, "better")])
def test_latency_by_the_spread_of_the_runs(
    benched: dict[str, Any], spreads: float, state: str
) -> None:
    changed = copy.deepcopy(benched)
    latency = changed["rows"][0]["latency"]
    spread = latency["p90"] - latency["p50"]
    for key in ("p50", "p90", "p99"):
        latency[key] += spreads * spread
    name = f"latency of {title(benched)}, 1 thread, ms"
    assert states(result_changes.result_changes(benched, changed))[name] == state
    # A wider spread in either hides it.
    latency["p90"] += spread
    assert states(result_changes.result_changes(benched, changed))[name] == "same"


def test_latency_needs_one_machine_and_whole_runs(benched: dict[str, Any]) -> None:
    changed = copy.deepcopy(benched)
    changed["rows"][0]["latency"]["p50"] += 100
    changed["stamp"]["device"] = "a phone"
    name = f"latency of {title(benched)}, 1 thread, ms"
    (found,) = [
        change for change in result_changes.result_changes(benched, changed) if change.name == name
    ]
    device = benched["stamp"]["device"]
    assert (found.state, found.why) == (
        "not compared",
        f"measured on another machine: {device} against a phone",
    )
    changed["stamp"], changed["quick"] = benched["stamp"], True
    (found,) = [
        change for change in result_changes.result_changes(benched, changed) if change.name == name
    ]
    assert (found.state, found.why) == ("not compared", "taken with --quick")


def test_on_a_busy_machine_the_baseline_that_ran_beside_it_decides(benched: dict[str, Any]) -> None:
    benched = {
        **benched,
        "reference": len(benched["rows"]) - 1,
        "times_faster": {"median": 140.0, "low": 130.0, "high": 150.0},
    }
    slow = copy.deepcopy(benched)
    for row in slow["rows"]:
        row["latency"] |= {key: 3 * row["latency"][key] for key in ("p50", "p90", "p99")}
    changes = result_changes.result_changes(benched, slow)
    assert {change.state for change in changes if change.name.startswith("latency")} == {
        "not compared"
    }
    assert states(changes)["times faster than the baseline"] == "same"
    # The bundle slowed down by more than the baseline did.
    slow["times_faster"] = {"median": 110.0, "low": 100.0, "high": 129.0}
    assert (
        states(result_changes.result_changes(benched, slow))["times faster than the baseline"]
        == "worse"
    )
    # Newer libraries may be what made both slow.
    slow["stamp"]["versions"] = {**slow["stamp"]["versions"], "ai-edge-litert": "9.9"}
    changes = result_changes.result_changes(benched, slow)
    assert {change.state for change in changes if change.name.startswith("latency")} == {"worse"}


def test_size_memory_threads_and_rows(benched: dict[str, Any]) -> None:
    old, new = copy.deepcopy(benched), copy.deepcopy(benched)
    old["rows"][0]["outside"], new["rows"][0]["outside"] = ["QUANTIZE"], ["QUANTIZE", "HARD_SWISH"]
    old["rows"][0] |= {
        "memory": 20_000_000,
        "by_threads": [{**old["rows"][0]["latency"], "threads": 2}],
    }
    new["rows"][0] |= {
        "memory": 23_000_000,
        "by_threads": [{**old["rows"][0]["latency"], "threads": 2, "p50": 0.1, "p90": 0.2}],
    }
    new["rows"][0]["size"] = int(new["rows"][0]["size"] * 0.98)
    new["rows"][-1]["variant"] = "another form"
    name, last = title(benched), benched["rows"][-1]
    found = states(result_changes.result_changes(old, new))
    assert found[f"memory of {name}, MB"] == "worse"
    assert found[f"size of {name}, MB"] == "better"
    assert found[f"operators of {name} outside XNNPACK"] == "worse"
    assert found[f"latency of {name}, 1 thread, ms"] == "same"
    assert found[f"latency of {name}, 2 threads, ms"] == "better"
    assert (
        found[f"{last['name']}, {last['variant']}"]
        == found[f"{last['name']}, another form"]
        == "not compared"
    )


def test_a_budget_that_is_newly_missed(benched: dict[str, Any]) -> None:
    def with_phone(state: str) -> dict[str, Any]:
        line = {
            "name": "size",
            "budget": "at most 5.00 MB",
            "value": "5.10 MB",
            "state": state,
            "basis": "the file",
        }
        return {**benched, "phones": [{"phone": "Pixel 4", "lines": [line]}]}

    assert (
        states(result_changes.result_changes(with_phone("kept"), with_phone("missed")))[
            "Pixel 4, size"
        ]
        == "worse"
    )
    assert (
        states(result_changes.result_changes(with_phone("missed"), with_phone("kept")))[
            "Pixel 4, size"
        ]
        == "better"
    )
    assert "Pixel 4, size" not in states(
        result_changes.result_changes(with_phone("missed"), with_phone("missed"))
    )
    assert "Pixel 4, size" not in states(
        result_changes.result_changes(benched, with_phone("missed"))
    )


def test_exit_codes_and_json(
    evaluated: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, written = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "changes.json"
    old.write_text(json.dumps(evaluated))
    new.write_text(json.dumps(without_hits(evaluated, photos=40, each=1)))
    assert compare.main([str(old), str(new), "--json", str(written)]) == 1
    assert "0 better, 1 worse, 3 within noise, 0 not compared" in capsys.readouterr().out
    (changes,) = json.loads(written.read_text()).values()
    assert [change["state"] for change in changes] == ["worse", "same", "same", "same"]
    assert compare.main([str(new), str(old)]) == 0
    assert compare.main([str(old), str(RESULTS / "merge_views.json")]) == 2
    assert "that can be compared in merge_views.json" in capsys.readouterr().err
    assert compare.main([str(old), str(tmp_path)]) == 2
    assert "are a file and a folder. Give two files or two folders." in capsys.readouterr().err
    new.write_text("{")
    assert compare.main([str(old), str(new)]) == 2
    assert "cannot read result" in capsys.readouterr().err


def test_a_folder_goes_on_past_a_file_of_other_photos(
    evaluated: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for side, corrected in (("old", "drinks_int8.json"), ("new", "drinks_int8_corrected.json")):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.json").write_text(
            json.dumps(result_files.read_result(RESULTS / corrected))
        )
        (tmp_path / side / "b.json").write_text(json.dumps(evaluated))
    assert compare.main([str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert (
        "a.json\n  not compared all values (the results are not of the same photos and labels"
        in said
    )
    assert "b.json\n  same         F1" in said


def test_stored_results_are_thin_and_give_their_photos_back(tmp_path: Path) -> None:
    stored = {path: path.read_text() for path in sorted(RESULTS.glob("*.json"))}
    thick = [
        path.name
        for path, text in stored.items()
        if result_files.dump_result(json.loads(text)) != text
    ]
    assert thick == [], "run benchmarks/quality/thin.py"
    whole = {"f1": 0.5, "confusion": {"matrix": [[1]]}, "a": {"per_photo": [{"tp": 3}], "b": [1]}}
    path = tmp_path / "result.json"
    path.write_text(json.dumps(whole, indent=1))
    assert result_files.thin_result(path)
    assert path.read_text() == '{\n "f1": 0.5,\n "a": {"b": [1]}\n}\n'
    assert result_files.read_result(path) == {key: whole[key] for key in ("f1", "a")}
    assert not result_files.thin_result(path)
    # Of a result that was measured again, the rows beside it are old.
    again = {"f1": 0.6, "a": {"per_photo": [{"tp": 4}], "b": []}}
    path.write_text(json.dumps(again))
    assert result_files.read_result(path) == again
