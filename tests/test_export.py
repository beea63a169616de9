"""Test of the export of a run as a library call."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Overfit

import shelfcount
from shelfcount.deploy import convert
from shelfcount.runtime.bundle import read_bundle

pytestmark = pytest.mark.slow


def test_export_works_without_a_shell(
    overfit: Overfit, converted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The conversion is tested in test_deploy.py.
    monkeypatch.setattr(convert, "to_litert", lambda net, spec: converted)
    stages: list[tuple[int, int, str]] = []
    notes: list[str] = []
    exported = shelfcount.export(
        str(overfit.run),
        tmp_path / "b",
        recipe="float16",
        test=overfit.labels,
        tell=notes.append,
        progress=lambda *stage: stages.append(stage),
    )
    bundle = read_bundle(tmp_path / "b")
    assert exported.bundle.sha256 == bundle.sha256
    assert bundle.recipe == "float16"
    assert bundle.measured["calibration_photos"] == 0
    assert bundle.measured["test_f1"] == bundle.measured["f1"] == round(exported.after.micro.f1, 4)
    assert exported.to_json()["test_photos"] == exported.validation_photos == 4
    assert str(exported).startswith("F1 on 4 validation photos: PyTorch ")
    assert [done for done, _, _ in stages] == [0, 1, 2, 3, 4]
    assert all(total == 4 for _, total, _ in stages)
    # Training, validation and test photos have been read.
    assert [note.count("read 4 photos") for note in notes] == [1, 1, 1]


def test_evaluate_works_without_a_shell(overfit: Overfit, bundle: Path) -> None:
    result = shelfcount.evaluate(bundle, overfit.labels)
    assert result.metrics.micro.f1 > 0.8
    assert result.to_json()["data"]["name"] == overfit.labels.name


def test_check_works_without_a_shell(overfit: Overfit) -> None:
    assert len(shelfcount.check(overfit.labels).report.dataset) == 4
