"""Tests of the tables on robustness and labels: metrics, and results that were not measured."""

from __future__ import annotations

import json
from pathlib import Path

import label_tables
import pytest
import robustness_tables

STAMP = {"date": "2026-01-02 03:04 UTC", "commit": "abc", "device": "a phone", "threads": 1}


def study(*names: str, photos: int = 40) -> dict:
    """Warm and dark at two severities: F1 0.5 and 0.7 of the first detector, 0.1 more of others."""

    def steps(f1: float) -> list[dict]:
        of = [
            {"f1": f1 + 0.1 * i, "lost": 0.3, "count_error": 0.2, "consistency": 0.75}
            for i in range(len(names))
        ]
        return [{"severity": s, "value": 10.0 * s, "products": 9, "detectors": of} for s in (1, 2)]

    def condition(name: str, f1: float, lost: float) -> dict:
        summaries = [
            {"lost": lost, "lost_error": 0.01, "tolerated_up_to": 12.0, "never_tolerated": False}
            for _ in names
        ]
        return {
            "name": name,
            "title": f"Too {name}",
            "unit": "EV",
            "neutral": 0.0,
            "detectors": summaries,
            "severities": steps(f1),
        }

    detectors = [{"name": name, "f1": 0.9, "count_error": 0.1} for name in names]
    conditions = [condition("warm", 0.5, 0.4), condition("dark", 0.7, 0.2)]
    data = {"name": "test.json"}
    return {
        "stamp": STAMP,
        "photos": photos,
        "tolerated": 0.05,
        "data": data,
        "detectors": detectors,
        "conditions": conditions,
    }


def test_what_is_not_there_was_not_measured(tmp_path: Path) -> None:
    for table in (
        robustness_tables.weakest,
        robustness_tables.baseline,
        robustness_tables.trained_on,
        robustness_tables.choice,
        label_tables.planted_faults,
        label_tables.agreement,
        label_tables.label_errors,
    ):
        assert table(tmp_path).endswith(": not measured.")


def test_robustness_holds_detectors_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stress.json").write_text(json.dumps(study("int8", "float")))
    shown = robustness_tables.weakest(tmp_path)
    assert "| condition | F1 points, int8 | F1 points, float | int8 tolerates | unit |" in shown
    assert "| too warm | −40.0 | −40.0 | to 12 | EV |" in shown
    # Means of 0.5 and 0.7 for the first, a tenth more for the second.
    assert "| int8 | 0.900 | 0.600 | 0.200 | 0.750 |" in shown
    assert "| float | 0.900 | 0.700 | 0.200 | 0.750 |" in shown
    assert robustness_tables.baseline(tmp_path) == "Comparison with the baseline: not measured."
    shown = robustness_tables.trained_on(tmp_path)
    assert shown == "Effect of training on the weakest conditions: not measured."
    (tmp_path / "robust.toml").write_text('[augment]\nconditions = ["warm"]\n')
    monkeypatch.setattr(robustness_tables, "ROBUST", tmp_path / "robust.toml")
    (tmp_path / "stress_fixed.json").write_text(json.dumps(study("run", "robust")))
    (tmp_path / "stress_baseline.json").write_text(
        json.dumps(study("int8", "float", "resnet", photos=10))
    )
    shown = robustness_tables.trained_on(tmp_path)
    assert "| unchanged photos | 0.900 | 0.900 | 0.0 |" in shown
    assert "| conditions of the training | 0.500 | 0.600 | +10.0 |" in shown
    assert "| all other conditions | 0.700 | 0.800 | +10.0 |" in shown
    assert "robust is run trained with warm. These conditions cost most F1 on" in shown
    assert "| resnet | 0.900 | 0.800 | 0.200 | 0.750 |" in robustness_tables.baseline(tmp_path)


def test_results_that_are_stored_make_tables() -> None:
    results = Path(label_tables.__file__).parents[1] / "results"
    faults = json.loads((results / "check_faults.json").read_text())["sets"]
    shown = label_tables.planted_faults(results).splitlines()
    assert len([line for line in shown if line.startswith("|")]) == 2 + len(
        faults["synthetic"]["kinds"]
    )
    assert "| both equally | 0.15 |" in label_tables.agreement(results)
    assert "looked at the most confident ones confirmed" in label_tables.label_errors(results)
