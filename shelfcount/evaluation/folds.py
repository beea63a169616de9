"""Photos held out in turns: for each part of the data a model that learnt from the other parts alone.

What a model says of labels it has learnt from repeats them, errors included. Over folds every photo gets its turn to
be judged by a model that never saw it. The full depth trains a run for each fold; the fast one pyramid and heads alone,
on the features of a frozen trunk, in minutes without a GPU.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelfcount.config import Config
from shelfcount.data.formats import fingerprint
from shelfcount.data.splits import split
from shelfcount.evaluation.repeats import FAST_EPOCHS
from shelfcount.evaluation.threshold import judge
from shelfcount.records import Dataset, Detections, ShelfcountError
from shelfcount.training import frozen
from shelfcount.training.fit import LOW_SCORE, fit, make_spec
from shelfcount.training.runs import read_config, read_spec

# Of the photos that are not held out, what chooses the epoch and the threshold: as `shelfcount train` does without --val.
VALIDATION_SHARE = 1 / 7
FEWEST = 2
# Of each photo in the cache of the fast depth, as it is and changed.
FAST_VIEWS = 8
# Called with the fold, the folds in all, and what `training.fit.fit` reports.
OnFold = Callable[[int, int, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, eq=False)
class Judged:
    """Photos, and what a model says of them that never saw them.

    Attributes:
        photos: With their labels.
        found: On each, low scores too.
        threshold: From which a score counts.
        model: What it is; at least its ``name``.
    """

    photos: Dataset
    found: Sequence[Detections]
    threshold: float
    model: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Fold:
    """One part of the data, and what its model learns from.

    Attributes:
        held: Photos that the model never sees; the folds together hold each photo once.
        train, val: The others.
    """

    held: Dataset
    train: Dataset
    val: Dataset


def make_folds(dataset: Dataset, number: int, seed: int) -> list[Fold]:
    """Parts of equal size by groups of photos, as `data.splits.split` makes them.

    Args:
        dataset: Labelled photos.
        number: Of the folds.
        seed: The same seed gives the same folds.

    Raises:
        ShelfcountError: If there are fewer than two, or fewer groups of photos than parts.
    """
    if number < FEWEST:
        raise ShelfcountError(
            f"at least {FEWEST} folds are needed, so that each is learnt from the others; got {number}"
        )
    folds = []
    for held in split(dataset, {f"fold {i}": 1 / number for i in range(number)}, seed).values():
        own = {photo.path for photo in held.photos}
        others = dataset.subset(
            [i for i, photo in enumerate(dataset.photos) if photo.path not in own]
        )
        parts = split(others, {"train": 1 - VALIDATION_SHARE, "val": VALIDATION_SHARE}, seed)
        folds.append(Fold(held, parts["train"], parts["val"]))
    return folds


def judge_fast(
    dataset: Dataset,
    folds: Sequence[Fold],
    folder: Path,
    config: Config,
    on_step: OnFold | None = None,
) -> list[Judged]:
    """What is found on each fold by heads that learnt from the others, on the features of one frozen trunk.

    Args:
        dataset: All photos.
        folds: Of them, from `make_folds`.
        folder: Where the features are kept, and taken from where they are there.
        config: Of a training run. Its start must not have learnt from these photos.
        on_step: Told how far the features are, as fold 0, and then which fold is done.

    Raises:
        ShelfcountError: If the model is the baseline, or its start can't be read.
    """
    whole = len(folds) + 1

    def tell(part: int, done: int, total: int) -> None:
        if on_step:
            on_step(part, whole, done, total, {})

    settings = json.dumps(
        [
            fingerprint(dataset),
            config.model.model_dump(mode="json"),
            config.augment.model_dump(mode="json"),
        ]
    )
    features = folder / f"features-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
    frozen.cache(
        dataset, config, FAST_VIEWS, features, progress=lambda done, total: tell(0, done, total)
    )
    views, places = frozen.load(features), {photo.path: i for i, photo in enumerate(dataset.photos)}
    judged = []
    for number, fold in enumerate(folds, start=1):
        spec = dataclasses.replace(make_spec(fold.train, config), score_threshold=LOW_SCORE)
        learnt = [places[photo.path] for photo in fold.train.photos]
        net = frozen.train_heads(views, learnt, spec, config, FAST_EPOCHS, config.train.seed)
        held, val = (
            [frozen.detect(net, views, places[p.path], p, spec) for p in of.photos]
            for of in (fold.held, fold.val)
        )
        facts = {
            "name": f"fold-{number - 1}",
            "recipe": "frozen trunk",
            "start": Path(config.model.weights).name,
            "photos": len(learnt),
        }
        judgement = judge(fold.val, val)
        judged.append(
            Judged(fold.held, held, judgement.threshold, {**facts, "val_f1": judgement.f1})
        )
        tell(number, 1, 1)
    return judged


def train_folds(
    folds: Sequence[Fold], folder: Path, config: Config, on_step: OnFold | None = None
) -> list[Path]:
    """A run for each fold; those that are there are used, and one that was stopped goes on.

    Args:
        folds: From `make_folds`.
        folder: Of the runs.
        config: Of each; on several devices it would start the command again for each fold, so that one is used.
        on_step: Told how far the training of which fold is.

    Returns:
        The run folders, in the order of the folds.

    Raises:
        ShelfcountError: As `fit` does, or if a run that is there learnt with another config or from other photos.
    """
    settings = config.model_copy(update={"train": config.train.model_copy(update={"devices": 1})})
    runs = []
    for number, fold in enumerate(folds):
        run = folder / f"fold-{number}"
        if (run / "spec.json").exists():
            _check_same(run, fold, settings)
        else:
            stopped = (run / "checkpoints" / "last.ckpt").exists()

            def step(
                done: int, total: int, figures: Mapping[str, float], number: int = number
            ) -> None:
                if on_step:
                    on_step(number, len(folds), done, total, figures)

            fit(fold.train, fold.val, run, settings, judge, resume=stopped, on_step=step)
        runs.append(run)
    return runs


def _check_same(run: Path, fold: Fold, config: Config) -> None:
    learnt, wanted = read_spec(run).provenance.get("data_fingerprint"), fingerprint(fold.train)
    if learnt != wanted:
        raise ShelfcountError(
            f"'{run}' must have learnt from this fold's photos, fingerprint {wanted[:12]}, got {str(learnt)[:12]}. "
            "The labels or the number of folds have changed: give another folder."
        )
    if read_config(run) != config:
        raise ShelfcountError(
            f"'{run}' must be a run with this config, got that of '{run / 'config.toml'}'. Give another folder."
        )
