"""Repeated hold-out: training and testing on random splits, to measure the variance of the metrics.

A repeat is a pure function of the study and its task, so that it can run in any process of any
machine. `studies` stores finished repeats.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shelfcount.config import Config
from shelfcount.data import splits
from shelfcount.metrics import evaluate, scoring
from shelfcount.metrics.threshold import validate
from shelfcount.records import Dataset, Detections, ShelfcountError
from shelfcount.training import frozen_features
from shelfcount.training.fit import fit
from shelfcount.training.inputs import make_spec
from shelfcount.vision.postprocess import LOWEST_SCORE

# The shares of the original split of the drinks photos: 180, 24 and 40 of 244.
SHARES: Mapping[str, float] = {"train": 0.74, "val": 0.10, "test": 0.16}
# With this number, a hundred fast repeats on the drinks photos take three hours on two processors;
# benchmarks/quality/repeats.py reports the time of each.
FAST_EPOCHS = 20
# Maximum span of the exponential moving average (EMA) of the weights, as a share of all steps of a
# repeat.
_AVERAGED = 0.1


@dataclass(frozen=True)
class RepeatSettings:
    """Settings of the repeats.

    Attributes:
        depth: 'full' trains the whole network from its start weights. 'fast' trains feature pyramid
            and heads on cached features of the frozen backbone.
        epochs: Number of epochs per repeat.
        config: Configuration of a training run. Its devices and processes are ignored, since a
            repeat uses one of each.
        views: Number of views per photo in the feature cache of 'fast'.
        parts: Shares of the photos for training, validation and testing.
        shares: Shares of the training photos. Each is run, which gives learning curves.
    """

    depth: Literal["fast", "full"]
    epochs: int
    config: Config
    views: int = 8
    parts: Mapping[str, float] = field(default_factory=lambda: SHARES)
    shares: tuple[float, ...] = (1.0,)

    def tasks(self, number: int) -> list[Task]:
        """Return the tasks of `number` random splits, each at every share."""
        return [Task(seed, share) for seed in range(number) for share in self.shares]


def make_repeat_settings(
    config: Config, depth: str, epochs: int | None = None, shares: str = "1"
) -> RepeatSettings:
    """Create the settings of the repeats from options of the command line.

    Args:
        config: Configuration of a training run.
        depth: 'fast' or 'full', see `RepeatSettings`.
        epochs: Number of epochs per repeat. Default: `FAST_EPOCHS`, or the configuration's number
            for 'full'.
        shares: Shares of the training photos, separated by commas, such as "0.25,0.5,1".

    Returns:
        The settings.

    Raises:
        ShelfcountError: If the depth is unknown or a share is not in (0, 1].
    """
    if depth not in ("fast", "full"):
        raise ShelfcountError(f"the depth of repeats must be fast or full, got '{depth}'")
    try:
        numbers = tuple(sorted({float(share) for share in shares.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < share <= 1 for share in numbers):
        raise ShelfcountError(
            "shares of the training photos must be numbers above 0 and at most 1, such as "
            f"0.25,0.5,1, got '{shares}'"
        )
    default = FAST_EPOCHS if depth == "fast" else config.train.epochs
    return RepeatSettings(depth, epochs or default, config, shares=numbers)  # type: ignore[arg-type]


@dataclass(frozen=True, order=True)
class Task:
    """One repeat to run.

    Attributes:
        seed: Seed of the split and of the training.
        share: Share of the training photos that is used, in (0, 1]. The test photos do not depend
            on it. With a smaller share the number of epochs is larger, so that the number of steps
            is the same.
    """

    seed: int
    share: float = 1.0

    @property
    def name(self) -> str:
        """Name of the file of the repeat."""
        return (
            f"repeat-{self.seed:04}.json"
            if self.share == 1
            else f"repeat-{self.seed:04}-share-{self.share:g}.json"
        )


@dataclass(frozen=True)
class ClassFigures:
    """Results for one class in one repeat.

    Attributes:
        name: Name of the class.
        trained: Number of training examples.
        truth: Number of labelled products on the test photos.
        found: Number of detections on the test photos.
        tp: Number of true positives. `truth - tp` products were missed, `found - tp` detections are
            false positives.
    """

    name: str
    trained: int
    truth: int
    found: int
    tp: int


@dataclass(frozen=True)
class Repeat:
    """Results of one repeat on its test photos.

    Attributes:
        task: The task that was run.
        f1: Class-aware F1 over all boxes at IoU 0.5.
        f1_class_ignored: Class-agnostic F1 over all boxes at IoU 0.5.
        count_error: Sum of the count errors by class, as a share of the labelled products.
        map: Mean average precision.
        threshold: Score threshold, chosen on the validation photos.
        photos: Number of photos for training, validation and testing.
        per_class: Results of each class, in the order of the classes.
        seconds: Processor time in seconds.
        commit: Commit of the code.
    """

    task: Task
    f1: float
    f1_class_ignored: float
    count_error: float | None
    map: float | None
    threshold: float
    photos: Mapping[str, int]
    per_class: tuple[ClassFigures, ...]
    seconds: float
    commit: str

    def to_json(self) -> dict[str, Any]:
        """Return the results as a JSON object."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Repeat:
        """Read the results from an object of `to_json`.

        Raises:
            KeyError: If a field is missing.
            TypeError: If a field is unknown or missing.
        """
        rows = tuple(ClassFigures(**row) for row in data["per_class"])
        return Repeat(**{**data, "task": Task(**data["task"]), "per_class": rows})


@dataclass(frozen=True, eq=False)
class RepeatStudy:
    """Data and settings that all repeats share. It is sent to every process.

    Attributes:
        data: All photos, of all original parts.
        groups: (photos,) int64; group of each photo. Photos of a group are in the same part of a
            split.
        plan: Settings of the repeats.
        views: Cached features for 'fast', or the folder that contains them on this machine.
        commit: Commit of the code.
    """

    data: Dataset
    groups: NDArray[np.int64]
    plan: RepeatSettings
    views: frozen_features.CachedFeatures | Path | None
    commit: str


def repeat(study: RepeatStudy, task: Task) -> Repeat:
    """Run one repeat: split the photos, train, choose the score threshold, and test.

    The same study and task give the same result, except for the order of floating-point additions.

    Args:
        study: Data and settings of the study.
        task: Seed and share of the repeat.

    Returns:
        The results on the test photos.

    Raises:
        ShelfcountError: If a part of the split has no photo or no box.
    """
    begin = time.process_time()
    parts = splits.shuffled(study.groups, study.plan.parts, task.seed)
    # The groups are in random order, so each share contains all smaller ones.
    parts["train"] = parts["train"][: max(1, round(task.share * len(parts["train"])))]
    train, val, test = (
        study.data.subset(parts[name].tolist()) for name in ("train", "val", "test")
    )
    run = _fast if study.plan.depth == "fast" else _full
    detections, threshold = run(study, task, parts, train, val, test)
    result = scoring.score(test, detections, threshold)
    examples = np.bincount(_classes(train), minlength=len(train.classes))
    return Repeat(
        task,
        result.micro.f1,
        result.class_agnostic.f1,
        result.count_by_class.relative,
        result.map,
        threshold,
        {"train": len(train), "val": len(val), "test": len(test)},
        tuple(
            ClassFigures(row.name, int(n), row.score.truth, row.score.predicted, row.score.tp)
            for row, n in zip(result.per_class, examples, strict=True)
        ),
        round(time.process_time() - begin, 1),
        study.commit,
    )


def _classes(data: Dataset) -> NDArray[np.int64]:
    truth = Detections.concat([photo.truth for photo in data.photos])
    return truth.classes[~truth.ignore]


Parts = Mapping[str, NDArray[np.int64]]


def _fast(
    study: RepeatStudy, task: Task, parts: Parts, train: Dataset, val: Dataset, test: Dataset
) -> tuple[list[Detections], float]:
    views = (
        frozen_features.load_features(study.views) if isinstance(study.views, Path) else study.views
    )
    if views is None:
        raise ShelfcountError(
            "the study has no cached features, which the fast depth needs. Open it with a plan of "
            "depth 'fast'."
        )
    config = _alone(study.plan, task, len(train))
    spec = dataclasses.replace(make_spec(train, config), score_threshold=LOWEST_SCORE)
    net = frozen_features.train_heads(
        views, parts["train"].tolist(), spec, config, config.train.epochs, task.seed
    )

    def detect(name: str, data: Dataset) -> list[Detections]:
        return [
            frozen_features.detect_cached(net, views, int(i), photo, spec)
            for i, photo in zip(parts[name], data.photos, strict=True)
        ]

    return detect("test", test), validate(val, detect("val", val)).threshold


def _full(
    study: RepeatStudy, task: Task, parts: Parts, train: Dataset, val: Dataset, test: Dataset
) -> tuple[list[Detections], float]:
    with tempfile.TemporaryDirectory() as run:
        detector = fit(train, val, Path(run), _alone(study.plan, task, len(train)))
    threshold = detector.spec.score_threshold
    detector.spec = dataclasses.replace(detector.spec, score_threshold=min(LOWEST_SCORE, threshold))
    return evaluate.detect_dataset(detector, test), threshold


def _alone(plan: RepeatSettings, task: Task, photos: int) -> Config:
    """Return the configuration of one repeat: one process, its seed, about four validations."""
    epochs, train = max(1, round(plan.epochs / task.share)), plan.config.train
    # The EMA is limited, since a repeat may have so few steps that it would still contain the start
    # weights.
    steps = max(2.0, _AVERAGED * epochs * photos / train.batch)
    changes = {
        "epochs": epochs,
        "seed": task.seed,
        "devices": 1,
        "nodes": 1,
        "workers": 0,
        "validate_every": max(1, epochs // 4),
    }
    return plan.config.model_copy(
        update={"train": train.model_copy(update={**changes, "ema": min(train.ema, 1 - 1 / steps)})}
    )
