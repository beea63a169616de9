"""Repeated shuffles: train and test anew on parts dealt out by seed, to see how much a figure owes to luck.

One repeat is a pure function of the study and its task, so that it may run in any process of any machine, any
number of times; `studies` keeps what is finished.
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

from shelfcount.config import Config
from shelfcount.data import splits
from shelfcount.evaluation import metrics
from shelfcount.evaluation.threshold import judge
from shelfcount.records import Dataset, Detections, ShelfcountError
from shelfcount.training import frozen
from shelfcount.training.fit import LOW_SCORE, fit, make_spec

# As the drinks photos were split once: 180, 24 and 40 of 244.
SHARES: Mapping[str, float] = {"train": 0.74, "val": 0.10, "test": 0.16}
# A hundred repeats on the drinks photos in three hours of two processors: benchmarks/repeats.py says what each takes.
FAST_EPOCHS = 20
# Of the steps of a full repeat, what the running average of its weights spans at most.
AVERAGED = 0.1


@dataclass(frozen=True)
class Plan:
    """How each repeat is trained.

    Attributes:
        depth: 'full' trains the network from its start; 'fast' its pyramid and heads on the frozen trunk's cached features.
        epochs: How often each training photo is seen.
        config: Of a training run; what concerns devices and processes is set aside, as a repeat has one of each.
        views: Of each photo in the cache of 'fast'.
        parts: Shares of the photos for training, for choosing the threshold, and for testing.
        shares: Of the training part, each of which is run: what learning curves are made of.
    """

    depth: Literal["fast", "full"]
    epochs: int
    config: Config
    views: int = 8
    parts: Mapping[str, float] = field(default_factory=lambda: SHARES)
    shares: tuple[float, ...] = (1.0,)

    def tasks(self, number: int) -> list[Task]:
        """Of so many shuffles, each at every share."""
        return [Task(seed, share) for seed in range(number) for share in self.shares]


def make_plan(config: Config, depth: str, epochs: int | None = None, shares: str = "1") -> Plan:
    """A plan from what a user gives.

    Args:
        config: Of a training run.
        depth: As for `Plan`.
        epochs: None for those that serve 'fast', or for the config's with 'full'.
        shares: Such as "0.25,0.5,1".

    Raises:
        ShelfcountError: If the depth is unknown or a share is not in (0, 1].
    """
    if depth not in ("fast", "full"):
        raise ShelfcountError(f"the depth of repeats must be fast or full, got '{depth}'")
    try:
        wanted = tuple(sorted({float(share) for share in shares.split(",")}))
    except ValueError:
        wanted = ()
    if not wanted or not all(0 < share <= 1 for share in wanted):
        raise ShelfcountError(
            f"shares of the training photos must be numbers above 0 and up to 1, such as 0.25,0.5,1, got '{shares}'"
        )
    usual = FAST_EPOCHS if depth == "fast" else config.train.epochs
    return Plan(depth, epochs or usual, config, shares=wanted)  # type: ignore[arg-type]


@dataclass(frozen=True, order=True)
class Task:
    """One repeat to run.

    Attributes:
        seed: Of the shuffle and of the training.
        share: Of the training part that is used, in (0, 1]; the test part is that of the whole. A smaller share is seen
            more often, so that it is fewer photos and not less training.
    """

    seed: int
    share: float = 1.0

    @property
    def name(self) -> str:
        """Of its file."""
        return (
            f"repeat-{self.seed:04}.json"
            if self.share == 1
            else f"repeat-{self.seed:04}-share-{self.share:g}.json"
        )


@dataclass(frozen=True)
class ClassFigures:
    """One class in one repeat.

    Attributes:
        name: Of the class.
        trained: Examples in training.
        truth: Products on the test photos.
        found: Detections that count there.
        tp: Detections that found a product; `truth - tp` were missed, `found - tp` are false.
    """

    name: str
    trained: int
    truth: int
    found: int
    tp: int


@dataclass(frozen=True)
class Repeat:
    """What one repeat gave on its test part.

    Attributes:
        task: What was run.
        f1: Micro, at IoU 0.5.
        f1_class_ignored: The same, whatever the class.
        count_error: Products missed, added or misnamed as a share of those that stand there.
        map: Mean average precision.
        threshold: Chosen on the validation part.
        photos: Of each part.
        per_class: In the order of the classes.
        seconds: Of processor time.
        commit: Of the code.
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
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Repeat:
        """The inverse of `to_json`."""
        rows = tuple(ClassFigures(**row) for row in data["per_class"])
        return Repeat(**{**data, "task": Task(**data["task"]), "per_class": rows})


@dataclass(frozen=True, eq=False)
class Study:
    """What all repeats share; it travels to every process.

    Attributes:
        data: All photos, of whatever part before.
        groups: (photos,) int64; photos of one number are never parted.
        plan: How each repeat is trained.
        views: Cached features for 'fast', or the folder they lie in on this machine.
        commit: Of the code.
    """

    data: Dataset
    groups: np.ndarray
    plan: Plan
    views: frozen.Views | Path | None
    commit: str


def repeat(study: Study, task: Task) -> Repeat:
    """Shuffle, train, choose the threshold, test.

    The same study and task give the same result, up to the order in which a machine adds.

    Raises:
        ShelfcountError: If a part gets no photo or no box.
    """
    begin = time.process_time()
    parts = splits.shuffled(study.groups, study.plan.parts, task.seed)
    # Groups lie one after the other, in random order: a larger share holds every smaller one.
    parts["train"] = parts["train"][: max(1, round(task.share * len(parts["train"])))]
    train, val, test = (
        study.data.subset(parts[name].tolist()) for name in ("train", "val", "test")
    )
    run = _fast if study.plan.depth == "fast" else _full
    found, threshold = run(study, task, parts, train, val, test)
    result = metrics.score(test, found, threshold)
    examples = np.bincount(_classes(train), minlength=len(train.classes))
    return Repeat(
        task,
        result.micro.f1,
        result.any_class.f1,
        result.count_by_class.relative,
        result.map,
        threshold,
        {"train": len(train), "val": len(val), "test": len(test)},
        tuple(
            ClassFigures(row.name, int(n), row.score.truth, row.score.found, row.score.tp)
            for row, n in zip(result.per_class, examples, strict=True)
        ),
        round(time.process_time() - begin, 1),
        study.commit,
    )


def _classes(data: Dataset) -> np.ndarray:
    truth = Detections.concat([photo.truth for photo in data.photos])
    return truth.classes[~truth.ignore]


Parts = Mapping[str, np.ndarray]


def _fast(
    study: Study, task: Task, parts: Parts, train: Dataset, val: Dataset, test: Dataset
) -> tuple[list[Detections], float]:
    views = frozen.load(study.views) if isinstance(study.views, Path) else study.views
    if views is None:
        raise ShelfcountError("the fast depth needs cached features, got a study without")
    config = _alone(study.plan, task, len(train))
    spec = dataclasses.replace(make_spec(train, config), score_threshold=LOW_SCORE)
    net = frozen.train_heads(
        views, parts["train"].tolist(), spec, config, config.train.epochs, task.seed
    )

    def look(name: str, data: Dataset) -> list[Detections]:
        return [
            frozen.detect(net, views, int(i), photo, spec)
            for i, photo in zip(parts[name], data.photos, strict=True)
        ]

    return look("test", test), judge(val, look("val", val)).threshold


def _full(
    study: Study, task: Task, parts: Parts, train: Dataset, val: Dataset, test: Dataset
) -> tuple[list[Detections], float]:
    with tempfile.TemporaryDirectory() as run:
        detector = fit(train, val, Path(run), _alone(study.plan, task, len(train)), judge)
    threshold = detector.spec.score_threshold
    detector.spec = dataclasses.replace(detector.spec, score_threshold=min(LOW_SCORE, threshold))
    return metrics.run(detector, test), threshold


def _alone(plan: Plan, task: Task, photos: int) -> Config:
    """The config of one repeat: one process, its own seed, judged a few times at most."""
    epochs, train = max(1, round(plan.epochs / task.share)), plan.config.train
    # Few steps: an average of the weights as long as the config's would still hold the start.
    steps = max(2.0, AVERAGED * epochs * photos / train.batch)
    own = {
        "epochs": epochs,
        "seed": task.seed,
        "devices": 1,
        "nodes": 1,
        "workers": 0,
        "validate_every": max(1, epochs // 4),
    }
    return plan.config.model_copy(
        update={"train": train.model_copy(update={**own, "ema": min(train.ema, 1 - 1 / steps)})}
    )
