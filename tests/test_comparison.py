"""Tests of the deployment report: a bundle in all its formats against a run and a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shelfcount.deploy.bundle import write_bundle
from shelfcount.report import bench_page
from shelfcount.runtime.bundle import RAW_MODEL, read_bundle
from shelfcount.speed import comparison, model_rows
from shelfcount.training.runs import read_spec
from shelfcount.words import NOT_MEASURED

pytestmark = pytest.mark.slow


def test_a_bundle_in_all_its_forms_against_a_run(overfit, bundle: Path, tmp_path: Path) -> None:
    stages: list[str] = []

    def progress(done: int, total: int, description: str = "") -> None:
        stage = description.split(":")[0]
        if stage not in stages[-1:]:
            stages.append(stage)

    plan = comparison.BenchmarkSettings(runs=6, baseline_runs=3, threads=(1, 2))
    result = comparison.compare_with_baseline(
        bundle,
        str(overfit.run),
        overfit.photos,
        tmp_path,
        run=overfit.run,
        plan=plan,
        progress=progress,
    )
    bench_page.write_bench_report(tmp_path, result)
    assert stages == [
        "exporting",
        "measuring F1",
        "measuring latency, 1 thread",
        "measuring latency, 2 threads",
        "profiling operators",
    ]
    forms = ["LiteRT int8", "PyTorch float32", "LiteRT float32", "LiteRT float16", "LiteRT dynamic"]
    assert [row.variant for row in result.rows if row.role == "phone"] == forms
    assert [row.variant for row in result.rows if row.role == "baseline"] == [
        "PyTorch float32",
        "LiteRT float32",
        "LiteRT int8",
    ]
    assert result.rows[result.reference].variant == "LiteRT float32"
    assert list(result.left_out) == []
    for row in result.rows:
        # The formats of one network have the same number of multiply-accumulates. Each format has
        # all measurements.
        assert row.macs == result.rows[0].macs
        assert [(t.threads, t.runs) for t in row.by_threads] == [
            (t, 6 if row.role == "phone" else 3) for t in (1, 2)
        ]
        assert row.memory > 0
        assert row.f1 is not None
        assert row.preparation.p50 > 0
        assert 0 < row.postprocessing.p50 < row.latency.p99
    phone = result.rows[0]
    assert phone.times_bundle is None
    assert phone.size == read_bundle(bundle).model_bytes
    assert phone.outside == ["TFLite_Detection_PostProcess"]
    assert sum(kind["count"] for kind in phone.operators) == len(result.operators)
    # Row 1 is PyTorch with the same weights, so the F1 loss of int8 is the difference to it.
    assert phone.lost_points == pytest.approx(100 * (result.rows[1].f1 - phone.f1), abs=0.01)
    data = json.loads((tmp_path / "result.json").read_text())
    assert data["bundle"]["sha256"] == read_bundle(bundle).sha256
    assert data["evaluation"]["f1"] == result.evaluation.micro.f1 == phone.f1
    assert data["rows"][2]["latency"]["warmup"] == 3
    assert data["energy"] is None
    assert data["stamp"]["versions"]["ai-edge-litert"]
    page = (tmp_path / "report.html").read_text()
    assert f"{phone.f1:.3f}" in page
    assert read_bundle(bundle).sha256 in page
    assert "F1 against size" in page
    text = (tmp_path / "report.md").read_text()
    assert [row for row in result.rows if f"| {model_rows.row_label(row)} |" not in text] == []
    assert (tmp_path / "counted.jpg").stat().st_size > 10_000
    # For bundle and baseline, the F1 at the model's own threshold is at most the best F1.
    for row, curve in zip((phone, result.rows[result.reference]), result.curves, strict=True):
        assert row.best_f1 == curve.best_f1
        assert row.best_f1[1] >= row.f1


def test_a_bundle_against_a_larger_one_in_the_short_form(
    overfit, artifact: Callable[[str], bytes], bundle: Path, tmp_path: Path
) -> None:
    files = {"model.tflite": artifact("float32"), RAW_MODEL: b"not used here"}
    larger = write_bundle(tmp_path / "larger", read_spec(overfit.run), files, "float32", {})
    result = comparison.compare_with_baseline(
        bundle, str(larger.path), overfit.photos, tmp_path, plan=comparison.QUICK
    )
    bench_page.write_bench_report(tmp_path, result)
    phone, baseline = result.rows
    assert (phone.size, baseline.size) == (read_bundle(bundle).model_bytes, larger.model_bytes)
    assert phone.latency.runs == comparison.QUICK.runs
    # Without a run of the bundle there is no float32 reference for the F1 loss.
    assert phone.lost_points is None
    assert baseline.f1 == pytest.approx(1.0, abs=0.05)
    # The table of all formats has a heading, a rule and one line for each of the two models.
    _, table = (tmp_path / "report.md").read_text().split("| format | F1", 1)
    assert table.split("\n\n")[0].count("\n") == 3
    page = (tmp_path / "report.html").read_text()
    assert "This is a quick benchmark" in page
    # The energy, for example, is never measured.
    assert NOT_MEASURED in page
    assert json.loads((tmp_path / "result.json").read_text())["quick"] is True
