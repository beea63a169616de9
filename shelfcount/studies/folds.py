"""Cross-validation: detections on held-out photos, for each part of the data.

A model repeats the labels that it learnt from, errors included, so every photo is checked by a
model that did not see it. The full depth trains a run for each fold; the fast depth trains
pyramid and heads on the features of a frozen backbone, in minutes without a GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shelfcount.config import Config
from shelfcount.data.datasets import fingerprint
from shelfcount.data.splits import split
from shelfcount.files import sha256_json
from shelfcount.labels.proposals import HeldOutDetections
from shelfcount.metrics.threshold import validate
from shelfcount.records import Dataset, Progress, ShelfcountError
from shelfcount.studies.held_out import detect_held_out
from shelfcount.studies.repeats import FAST_EPOCHS
from shelfcount.training import frozen_features
from shelfcount.training.fit import fit
from shelfcount.training.inputs import hold_out, make_spec
from shelfcount.training.runs import read_config, read_spec
from shelfcount.vision.postprocess import LOWEST_SCORE

# Minimum number of folds.
_MIN_FOLDS = 2
# Views per photo in the cache of the fast depth: the original and augmented ones.
FAST_VIEWS = 8
# Called with the fold, the number of steps or folds, and the progress that `training.fit.fit`
# reports.
OnFold = Callable[[int, int, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold: the held-out photos, and the photos that its model is trained on.

    Attributes:
        held_out: Held-out photos. Each photo of the data set is held out in exactly one fold.
        train, val: Training and validation photos: all other photos.
    """

    held_out: Dataset
    train: Dataset
    val: Dataset


def make_folds(dataset: Dataset, number: int, seed: int) -> list[Fold]:
    """Divide a data set into folds of about equal size, without dividing a group of photos.

    Args:
        dataset: Labelled photos.
        number: Number of folds.
        seed: The same seed gives the same folds.

    Returns:
        The folds.

    Raises:
        ShelfcountError: If `number` is below 2, or there are fewer groups of photos than folds.
    """
    if number < _MIN_FOLDS:
        raise ShelfcountError(f"the number of folds must be at least {_MIN_FOLDS}, got {number}")
    folds = []
    for held in split(dataset, {f"fold {i}": 1 / number for i in range(number)}, seed).values():
        held_paths = {photo.path for photo in held.photos}
        others = dataset.subset(
            [i for i, photo in enumerate(dataset.photos) if photo.path not in held_paths]
        )
        folds.append(Fold(held, *hold_out(others, seed)))
    return folds


def detect_folds(
    dataset: Dataset,
    number: int,
    depth: str,
    folder: Path,
    config: Config,
    threads: int = 2,
    *,
    progress: Progress = lambda *_: None,
) -> list[HeldOutDetections]:
    """Detect the products on each fold with a model that was trained on the other folds.

    Args:
        dataset: Labelled photos.
        number: Number of folds.
        depth: 'fast' trains heads on the features of the frozen backbone, 'full' the network.
        folder: Folder for the runs or the cached features. Existing ones are reused.
        config: Configuration of each training.
        threads: Number of LiteRT interpreter threads.
        progress: Called with the number of steps done, the number of all steps, and what is done.

    Returns:
        The photos of each fold with the detections on them.

    Raises:
        ShelfcountError: If the depth is unknown, or for the reasons given at `make_folds`,
            `detect_folds_fast` and `train_folds`.
    """
    if depth not in ("fast", "full"):
        raise ShelfcountError(f"--depth must be fast or full, got '{depth}'")
    folds = make_folds(dataset, number, config.train.seed)

    def step(fold: int, folds: int, done: int, total: int, _: Mapping[str, float]) -> None:
        progress(fold * total + done, folds * total, f"training, step {fold + 1} of {folds}")

    if depth == "fast":
        return detect_folds_fast(dataset, folds, folder, config, step)

    def looked(done: int, total: int, description: str = "") -> None:
        progress(done, total, "looking for label errors")

    runs = train_folds(folds, folder, config, step)
    return [
        detect_held_out(fold.held_out, run, threads, progress=looked)
        for fold, run in zip(folds, runs, strict=True)
    ]


def detect_folds_fast(
    dataset: Dataset,
    folds: Sequence[Fold],
    folder: Path,
    config: Config,
    on_step: OnFold | None = None,
) -> list[HeldOutDetections]:
    """Evaluate each fold with heads that are trained on the other folds, with one frozen backbone.

    Args:
        dataset: All photos.
        folds: Folds of `dataset`, from `make_folds`.
        folder: Folder of the feature cache. Existing features are reused.
        config: Configuration of a training run. Its start weights must not be trained on these
            photos.
        on_step: Called with the progress of the features as step 0, then for each completed fold.

    Returns:
        The held-out photos of each fold with the detections on them.

    Raises:
        ShelfcountError: If the model is the baseline, or the start weights cannot be read.
    """
    steps = len(folds) + 1

    def tell(part: int, done: int, total: int) -> None:
        if on_step:
            on_step(part, steps, done, total, {})

    settings = sha256_json(
        [
            fingerprint(dataset),
            config.model.model_dump(mode="json"),
            config.augment.model_dump(mode="json"),
        ]
    )
    features = folder / f"features-{settings[:12]}"
    frozen_features.cache_features(
        dataset,
        config,
        FAST_VIEWS,
        features,
        progress=lambda done, total, description="": tell(0, done, total),
    )
    views = frozen_features.load_features(features)
    positions = {photo.path: i for i, photo in enumerate(dataset.photos)}
    evaluated = []
    for number, fold in enumerate(folds, start=1):
        spec = dataclasses.replace(make_spec(fold.train, config), score_threshold=LOWEST_SCORE)
        training = [positions[photo.path] for photo in fold.train.photos]
        net = frozen_features.train_heads(
            views, training, spec, config, FAST_EPOCHS, config.train.seed
        )
        held, val = (
            [
                frozen_features.detect_cached(net, views, positions[p.path], p, spec)
                for p in part.photos
            ]
            for part in (fold.held_out, fold.val)
        )
        facts = {
            "name": f"fold-{number - 1}",
            "recipe": "frozen backbone",
            "start": Path(config.model.weights).name,
            "photos": len(training),
        }
        validation = validate(fold.val, val)
        evaluated.append(
            HeldOutDetections(
                fold.held_out, held, validation.threshold, {**facts, "val_f1": validation.f1}
            )
        )
        tell(number, 1, 1)
    return evaluated


def train_folds(
    folds: Sequence[Fold], folder: Path, config: Config, on_step: OnFold | None = None
) -> list[Path]:
    """Train a run for each fold. Existing runs are reused, and an interrupted run is continued.

    Args:
        folds: Folds from `make_folds`.
        folder: Folder for the runs.
        config: Configuration of each run. One device is used, since training on several devices
            would start the command again for each fold.
        on_step: Called with the fold and the progress of its training.

    Returns:
        The run folders, in the order of the folds.

    Raises:
        ShelfcountError: For the reasons given at `training.fit.fit`, or if an existing run was
            trained with another configuration or on other photos.
    """
    settings = config.model_copy(update={"train": config.train.model_copy(update={"devices": 1})})
    runs = []
    for number, fold in enumerate(folds):
        run = folder / f"fold-{number}"
        if (run / "spec.json").exists():
            _check_same(run, fold, settings)
        else:
            interrupted = (run / "checkpoints" / "last.ckpt").exists()

            def step(
                done: int, total: int, metrics: Mapping[str, float], number: int = number
            ) -> None:
                if on_step:
                    on_step(number, len(folds), done, total, metrics)

            fit(fold.train, fold.val, run, settings, resume=interrupted, on_step=step)
        runs.append(run)
    return runs


def _check_same(run: Path, fold: Fold, config: Config) -> None:
    trained_on = read_spec(run).provenance.get("data_fingerprint")
    expected = fingerprint(fold.train)
    if trained_on != expected:
        raise ShelfcountError(
            f"run '{run}' was trained on other photos or labels (fingerprint "
            f"{str(trained_on)[:12]}) than this fold has ({expected[:12]}). If the labels or the "
            "number of folds have changed, give another folder."
        )
    if read_config(run) != config:
        raise ShelfcountError(
            f"run '{run}' was trained with another configuration, see '{run / 'config.toml'}'. "
            "Give another folder, or use this configuration."
        )
