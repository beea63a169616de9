"""The comparison report: a bundle against another bundle, from measuring to the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shelfcount.deploy.bundle import write_bundle
from shelfcount.records import ShelfcountError
from shelfcount.report import bench
from shelfcount.runtime.bundle import RAW_MODEL, read_bundle
from shelfcount.training.runs import read_spec

pytestmark = pytest.mark.slow


def test_a_bundle_against_a_larger_one(overfit, artifact: Callable[[str], bytes], bundle: Path, tmp_path: Path) -> None:
    files = {"model.tflite": artifact("float32"), RAW_MODEL: b"not used here"}
    larger = write_bundle(tmp_path / "larger", read_spec(overfit.run), files, "float32", {})
    stages: list[int] = []
    result = bench.measure(bundle, str(larger.path), overfit.photos, runs=20, baseline_runs=10, on_stage=lambda: stages.append(len(stages)))
    bench.write(tmp_path / "report", result)
    assert stages == [0, 1, 2, 3]
    phone, baseline = result.rows
    assert phone.size == read_bundle(bundle).model_bytes
    assert baseline.size == larger.model_bytes
    # One network in two number formats: the same work.
    assert phone.macs == baseline.macs
    assert baseline.f1 == pytest.approx(1.0, abs=0.05)
    assert phone.latency.runs == 20
    data = json.loads((tmp_path / "report" / "result.json").read_text())
    assert data["bundle"]["sha256"] == read_bundle(bundle).sha256
    assert data["evaluation"]["f1"] == result.evaluation.micro.f1
    assert data["stamp"]["versions"]["ai-edge-litert"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"{phone.f1:.3f}" in page
    assert read_bundle(bundle).sha256 in page
    assert (tmp_path / "report" / "counted.jpg").stat().st_size > 10_000
    table = (tmp_path / "report" / "report.md").read_text().splitlines()
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1


def test_a_baseline_that_is_nothing_is_refused(bundle: Path, overfit) -> None:
    with pytest.raises(ShelfcountError, match=r"--baseline must be a run or bundle folder, or 'resnet50'.*, got 'resnet51'"):
        bench.measure(bundle, "resnet51", overfit.photos, runs=1, baseline_runs=1)
