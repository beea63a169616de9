"""Tests of the formats of a model: exports of a run, matching of run and bundle, and parameters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from shelfcount.deploy import inspection
from shelfcount.records import ShelfcountError
from shelfcount.runtime.bundle import RAW_MODEL, read_bundle
from shelfcount.speed import variants
from shelfcount.training import starting_weights

ROOT = Path(__file__).parents[1]


def quiet(*_: object) -> None:
    """Ignore the progress."""


def test_weights_of_a_file_are_those_of_the_network(released: Path) -> None:
    # The shipped weights have the architecture of the released bundle. A batch norm is folded into
    # one bias per channel. The shared layers of the heads are stored once per level: the towers are
    # folded with the norms of the level, and after quantization-aware training each level has its
    # own predictions.
    levels, expected = len(read_bundle(released).spec.levels), 0
    with safe_open(
        starting_weights.SHIPPED_FOLDER / "mobilenet_v2_fused.safetensors", "np"
    ) as weights:
        for name in weights.keys():  # noqa: SIM118
            shape = weights.get_slice(name).get_shape()
            if len(shape) == 4:
                expected += (int(np.prod(shape)) + shape[0]) * (
                    levels if name.startswith(("classify.", "locate.")) else 1
                )
    assert inspection.count_parameters((released / RAW_MODEL).read_bytes()) == expected
    assert inspection.count_parameters((released / "model.tflite").read_bytes()) == expected


def test_without_a_run_a_bundle_is_its_own_file(released: Path, tmp_path: Path) -> None:
    bundle = read_bundle(released)
    (only,), dropped = variants.of_bundle(bundle, None, tmp_path, quiet)
    assert (only.key, only.name, only.path) == (
        "phone LiteRT int8",
        "mobilenet_v2_fused 416 x 416",
        released / "model.tflite",
    )
    assert only.bytes == bundle.model_bytes
    assert only.start == bundle.spec.provenance["start"]
    assert dropped == []
    (rival,), _ = variants.of_baseline(str(released), bundle.spec.classes, tmp_path, quiet)
    assert (rival.key, rival.trained) == ("baseline LiteRT int8", True)


def test_a_baseline_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ShelfcountError,
        match=r"--baseline must be a run folder, a bundle folder, or 'resnet50'.*, got 'resnet51'",
    ):
        variants.of_baseline("resnet51", ("cola",), tmp_path, quiet)


def test_the_run_it_was_fine_tuned_from_may_have_its_own_threshold(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "_of_run", lambda role, run, *_: ([run], []))
    bundle, run = read_bundle(released), tmp_path / "floats"
    run.mkdir()
    (run / "spec.json").write_text(
        json.dumps(replace(bundle.spec, score_threshold=0.125).to_json())
    )
    with pytest.raises(
        ShelfcountError,
        match=r"run '.*floats' differ in score_threshold: .* and 0\.125\. --run must be the run",
    ):
        variants.of_bundle(bundle, run, tmp_path, quiet)
    start = {"start": "floats/model.safetensors (301 of 301 tensors)"}
    tuned = replace(bundle, spec=replace(bundle.spec, provenance=start))
    assert variants.of_bundle(tuned, run, tmp_path, quiet)[0][1] == run


@pytest.mark.slow
def test_a_run_of_another_model_is_refused(bundle: Path, overfit, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(overfit.run, other)
    spec = json.loads((other / "spec.json").read_text())
    (other / "spec.json").write_text(json.dumps({**spec, "score_threshold": 0.125}))
    with pytest.raises(
        ShelfcountError,
        match=r"run '.*other' differ in score_threshold: .* and 0\.125\. --run must be the run",
    ):
        variants.of_bundle(read_bundle(bundle), other, tmp_path, quiet)


@pytest.mark.slow
def test_files_are_made_once_and_a_format_that_fails_is_reported(
    bundle: Path,
    overfit,
    artifact: Callable[[str], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from shelfcount.deploy import convert

    opened, told = read_bundle(bundle), []
    made, dropped = variants.of_bundle(
        opened, overfit.run, tmp_path, lambda *step: told.append(step)
    )
    forms = [variant.form for variant in made]
    assert forms == [
        "LiteRT int8",
        "PyTorch float32",
        "LiteRT float32",
        "LiteRT float16",
        "LiteRT dynamic",
    ]
    assert dropped == []
    assert made[2].path.read_bytes() == artifact("float32")
    assert made[1].bytes == (overfit.run / "model.safetensors").stat().st_size
    # Norms are folded, and the towers of the heads are copied: the numbers are close, but not
    # equal.
    assert made[2].parameters() == pytest.approx(made[1].parameters(), rel=0.1)
    assert told[-1][:2] == (3, 3)
    # The second time nothing is converted. A file that is missing and cannot be exported is
    # reported with the reason.
    made[3].path.unlink()

    def fail(*_: object) -> bytes:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(convert, "to_litert", fail)
    again, dropped = variants.of_bundle(opened, overfit.run, tmp_path, quiet)
    assert [variant.form for variant in again] == [
        form for form in forms if form != "LiteRT float16"
    ]
    assert [str(d) for d in dropped] == [
        "phone LiteRT float16: cannot be exported: no such operator"
    ]
    # A file that was exported by other code is not reused.
    monkeypatch.setattr(variants, "_exporting_code", lambda: "changed")
    assert len(variants.of_bundle(opened, overfit.run, tmp_path, quiet)[1]) == 3
