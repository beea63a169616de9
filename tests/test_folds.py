"""Tests of cross-validation: each photo is held out once, with its group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from shelfcount import config
from shelfcount.cli.app import app
from shelfcount.data.datasets import fingerprint
from shelfcount.labels.corrections import read_corrections
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError
from shelfcount.studies import folds
from shelfcount.studies.folds import make_folds, train_folds


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Sixteen photos of noise, two from each store."""
    folder, rng, photos = tmp_path_factory.mktemp("shop"), np.random.default_rng(0), []
    for i in range(16):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        photos.append(
            Photo(
                folder / f"{i}.png",
                40,
                40,
                Detections([[5, 5, 20, 30]], [i % 2]),
                group=f"store {i // 2}",
            )
        )
    return Dataset(("cola", "tea"), tuple(photos), name="shop.json")


def names(dataset: Dataset) -> set[str]:
    return {photo.path.name for photo in dataset.photos}


def groups(dataset: Dataset) -> set[str]:
    return {photo.group for photo in dataset.photos}


def test_each_photo_is_held_out_once_and_no_store_is_divided(shop: Dataset) -> None:
    made = make_folds(shop, 4, seed=0)
    assert [len(fold.held_out) for fold in made] == [4, 4, 4, 4]
    assert set().union(*(names(fold.held_out) for fold in made)) == names(shop)
    for fold in made:
        assert not groups(fold.held_out) & (groups(fold.train) | groups(fold.val))
        assert not groups(fold.train) & groups(fold.val)
        assert len(fold.train) + len(fold.val) == 12


def test_one_fold_is_refused(shop: Dataset) -> None:
    with pytest.raises(
        ShelfcountError,
        match="the number of folds must be at least 2, got 1",
    ):
        make_folds(shop, 1, seed=0)


def test_existing_runs_are_reused_and_interrupted_ones_continue(
    shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, settings, calls = (
        make_folds(shop, 3, seed=0),
        config.load_config(None, ["train.devices=2"]),
        [],
    )

    def fit(
        train: Dataset,
        val: Dataset,
        run: Path,
        settings: config.Config,
        *,
        resume: bool,
        on_step: Any,
    ) -> None:
        calls.append((run.name, resume, settings.train.devices))
        on_step(1, 2, {})
        run.mkdir(parents=True, exist_ok=True)
        settings.write(run / "config.toml")
        (run / "spec.json").touch()

    monkeypatch.setattr(folds, "fit", fit)
    (tmp_path / "fold-1" / "checkpoints").mkdir(parents=True)
    (tmp_path / "fold-1" / "checkpoints" / "last.ckpt").touch()
    steps: list[tuple[int, ...]] = []
    runs = train_folds(made, tmp_path, settings, lambda *args: steps.append(args[:4]))
    assert [run.name for run in runs] == ["fold-0", "fold-1", "fold-2"]
    assert calls == [("fold-0", False, 1), ("fold-1", True, 1), ("fold-2", False, 1)]
    assert steps == [(0, 3, 1, 2), (1, 3, 1, 2), (2, 3, 1, 2)]

    trained = {
        run: {"data_fingerprint": fingerprint(fold.train)}
        for run, fold in zip(runs, made, strict=True)
    }
    monkeypatch.setattr(
        folds, "read_spec", lambda run: type("Spec", (), {"provenance": trained[run]})
    )
    assert train_folds(made, tmp_path, settings) == runs
    assert len(calls) == 3
    with pytest.raises(ShelfcountError, match="fold-0' was trained with another configuration"):
        train_folds(made, tmp_path, config.load_config(None, ["train.epochs=1"]))
    trained[runs[1]] = {"data_fingerprint": "0123456789abcdef"}
    with pytest.raises(
        ShelfcountError,
        match=r"fold-1' was trained on other photos or labels \(fingerprint 0123456789ab\)"
        r" than this fold has \(\w{12}\)",
    ):
        train_folds(made, tmp_path, settings)


@pytest.mark.slow
@pytest.mark.parametrize("depth", ["fast", "full"])
def test_verb_proposes_over_folds(
    depth: str, shelves: Any, tiny: tuple[str, ...], one_thread: None, tmp_path: Path
) -> None:
    files = {
        "--data": shelves.train_json,
        "--out": tmp_path / "c.json",
        "--json": tmp_path / "j.json",
    }
    arguments = [
        "propose",
        "--folds",
        "2",
        "--depth",
        depth,
        *(str(part) for pair in files.items() for part in pair),
    ]
    for change in (*tiny, "train.epochs=1"):
        arguments += ["--set", change]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    result = json.loads((tmp_path / "j.json").read_text())
    assert sum(model["held_out_photos"] for model in result["models"]) == len(shelves.train)
    assert [model["name"] for model in result["models"]] == ["fold-0", "fold-1"]
    assert (
        result["fingerprint"]
        == read_corrections(tmp_path / "c.json").fingerprint
        == fingerprint(shelves.train)
    )
    assert (tmp_path / "c" / "fold-1" / "spec.json").exists() == (depth == "full")
    assert len(list((tmp_path / "c").glob("features-*"))) == (depth == "fast")


def test_depth_is_one_of_two(shelves: Any, tmp_path: Path) -> None:
    arguments = [
        "propose",
        "--data",
        str(shelves.train_json),
        "--folds",
        "2",
        "--depth",
        "deep",
        "--out",
        f"{tmp_path}/c.json",
    ]
    with pytest.raises(ShelfcountError, match="--depth must be fast or full, got 'deep'"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
