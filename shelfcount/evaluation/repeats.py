"""Repeated shuffles: train and test anew on parts dealt out by seed, to see how much a figure owes to luck.

One repeat is a pure function of the study and its task, so that it may run in any process of any machine, any
number of times. What is finished lies in a folder, a file each, and is not run again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shelfcount.config import Config
from shelfcount.data import formats, splits
from shelfcount.evaluation import metrics
from shelfcount.evaluation.threshold import judge
from shelfcount.records import Dataset, Detections, ShelfcountError
from shelfcount.stamp import stamp
from shelfcount.training import frozen
from shelfcount.training.backbones import SHIPPED
from shelfcount.training.fit import LOW_SCORE, fit, make_spec
from shelfcount.training.runs import origin
from shelfcount.vision.images import write_whole

# As the drinks photos were split once: 180, 24 and 40 of 244.
SHARES: Mapping[str, float] = {"train": 0.74, "val": 0.10, "test": 0.16}
# A hundred repeats on the drinks photos in three hours of two processors: benchmarks/repeats.py says what each takes.
FAST_EPOCHS = 20
STUDY, FEATURES = "study.json", "features"


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
        raise ShelfcountError(f"shares of the training photos must be numbers above 0 and up to 1, such as 0.25,0.5,1, got '{shares}'")
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
        return f"repeat-{self.seed:04}.json" if self.share == 1 else f"repeat-{self.seed:04}-share-{self.share:g}.json"


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
    train, val, test = (study.data.subset(parts[name].tolist()) for name in ("train", "val", "test"))
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


def _fast(study: Study, task: Task, parts: Parts, train: Dataset, val: Dataset, test: Dataset) -> tuple[list[Detections], float]:
    views = frozen.load(study.views) if isinstance(study.views, Path) else study.views
    if views is None:
        raise ShelfcountError("the fast depth needs cached features, got a study without")
    config, epochs = _alone(study.plan.config, task, _epochs(study.plan, task))
    spec = dataclasses.replace(make_spec(train, config), score_threshold=LOW_SCORE)
    net = frozen.train_heads(views, parts["train"].tolist(), spec, config, epochs, task.seed)

    def look(name: str, data: Dataset) -> list[Detections]:
        return [frozen.detect(net, views, int(i), photo, spec) for i, photo in zip(parts[name], data.photos, strict=True)]

    return look("test", test), judge(val, look("val", val)).threshold


def _full(study: Study, task: Task, parts: Parts, train: Dataset, val: Dataset, test: Dataset) -> tuple[list[Detections], float]:
    config, _ = _alone(study.plan.config, task, _epochs(study.plan, task))
    with tempfile.TemporaryDirectory() as run:
        detector = fit(train, val, Path(run), config, judge)
    threshold = detector.spec.score_threshold
    detector.spec = dataclasses.replace(detector.spec, score_threshold=min(LOW_SCORE, threshold))
    return metrics.run(detector, test), threshold


def _epochs(plan: Plan, task: Task) -> int:
    return max(1, round(plan.epochs / task.share))


def _alone(config: Config, task: Task, epochs: int) -> tuple[Config, int]:
    """The config of one repeat: one process, its own seed, judged a few times at most."""
    own = {"epochs": epochs, "seed": task.seed, "devices": 1, "nodes": 1, "workers": 0, "validate_every": max(1, epochs // 4)}
    return config.model_copy(update={"train": config.train.model_copy(update=own)}), epochs


# ---------------------------------------------------------------- the study and its folder


def pool(parts: Sequence[Dataset]) -> Dataset:
    """All photos of several data sets as one; a photo that stands in two is taken once, from the first.

    Raises:
        ShelfcountError: If there is none.
    """
    if not parts:
        raise ShelfcountError("a study needs labelled photos, got none")
    whole = parts[0]
    for part in parts[1:]:
        whole, part = formats.aligned(whole, part)
        known = {photo.path.resolve() for photo in whole.photos}
        whole = dataclasses.replace(whole, photos=whole.photos + tuple(p for p in part.photos if p.path.resolve() not in known))
    return dataclasses.replace(whole, name=" + ".join(Path(part.name).name for part in parts))


def leak(config: Config, parts: Sequence[Dataset]) -> str | None:
    """Why the start may know the test photos already, as a sentence; None where it is no detector's.

    A detector that learnt from photos that a shuffle puts into the test part makes every figure too good.

    Args:
        config: Of a training run.
        parts: The data sets that are pooled, each as it may have been trained on.
    """
    start = config.model.weights
    if start in ("none", "network"):
        return None
    path = SHIPPED / f"{config.model.architecture}.safetensors" if start == "shipped" else Path(start)
    learnt = origin(path)
    if learnt is None:
        return None
    for part in parts:
        if learnt.get("data_fingerprint") == formats.fingerprint(part):
            name = Path(part.name).name
            return f"the start '{path.name}' has learnt from {name}: its photos come up in test parts, and figures are too good"
    of = learnt.get("data") or "photos that it does not name"
    return f"the start '{path.name}' is a detector's that learnt from {of}; were photos of these among them, figures are too good"


def open_study(data: Dataset, plan: Plan, folder: Path, progress: Callable[[int, int], None] | None = None) -> Study:
    """Make the folder of a study, or go on with the one that is there; for 'fast', compute the features.

    Raises:
        ShelfcountError: If the folder holds a study of other photos, labels or settings.
    """
    facts = describe(data, plan)
    if (folder / STUDY).exists():
        there = _read(folder / STUDY)
        if differing := [key for key in facts if there.get(key) != facts[key]]:
            raise ShelfcountError(
                f"'{folder}' holds repeats of another study: it differs in {', '.join(differing)}. Choose another folder, or go on "
                "with the same photos, labels and settings."
            )
    else:
        write_whole(folder / STUDY, json.dumps(facts, indent=1))
    views = folder / FEATURES if plan.depth == "fast" else None
    if views:
        frozen.cache(data, plan.config, plan.views, views, progress=progress)
    return Study(data, splits.near_duplicate_groups(data), plan, views, stamp()["commit"])


def describe(data: Dataset, plan: Plan) -> dict[str, Any]:
    """All that decides a study's figures, as plain data without a machine's paths."""
    config = plan.config.model_dump(mode="json")
    for key in ("epochs", "seed", "devices", "nodes", "workers", "validate_every"):
        del config["train"][key]
    start = Path(plan.config.model.weights)
    if start.is_file():
        config["model"]["weights"] = f"{start.name}, sha256 {hashlib.sha256(start.read_bytes()).hexdigest()}"
    settings = {"depth": plan.depth, "epochs": plan.epochs, "parts": dict(plan.parts)}
    heads = {"batch": frozen.HEAD_BATCH, "rate": frozen.HEAD_RATE, "averaged": frozen.AVERAGED}
    views = {"views": plan.views, "heads": heads} if plan.depth == "fast" else {}
    return {"data": formats.fingerprint(data), "photos": len(data), **settings, **views, "config": config}


def keep(folder: Path, result: Repeat) -> None:
    """Write one finished repeat, whole or not at all."""
    study = hashlib.sha256((folder / STUDY).read_bytes()).hexdigest()
    write_whole(folder / result.task.name, json.dumps({"study": study, **result.to_json()}, indent=1))


def finished(folder: Path) -> dict[Task, Repeat]:
    """The repeats that lie in a folder, by seed and share.

    Raises:
        ShelfcountError: If it holds no study, or a file of another study or of no repeat.
    """
    if not (folder / STUDY).exists():
        raise ShelfcountError(f"'{folder}' holds no repeats: it has no {STUDY}")
    study = hashlib.sha256((folder / STUDY).read_bytes()).hexdigest()
    found: dict[Task, Repeat] = {}
    for path in sorted(folder.glob("repeat-*.json")):
        data = _read(path)
        if data.pop("study", None) != study:
            raise ShelfcountError(f"'{path}' is of another study than '{folder / STUDY}'. Move it away.")
        try:
            result = Repeat.from_json(data)
        except (KeyError, TypeError) as error:
            raise ShelfcountError(f"'{path}' is not a repeat as shelfcount writes it: {error!r}. Delete it; it is run again.") from error
        found[result.task] = result
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ShelfcountError(f"cannot read '{path}': {error}") from error
    if not isinstance(data, dict):
        raise ShelfcountError(f"'{path}' must hold an object, got {type(data).__name__}")
    return data


Scheduler = Callable[[Study, Iterator[Task]], Iterable[Repeat]]


def run(
    study: Study,
    folder: Path,
    tasks: Sequence[Task],
    scheduler: Scheduler,
    *,
    enough: Callable[[Sequence[Repeat]], bool] = lambda _: False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Repeat]:
    """Run the tasks that are missing from the folder, and give all of them that are finished.

    Args:
        study: From `open_study`.
        folder: The same.
        tasks: In the order they are to be run.
        scheduler: Takes the study and the missing tasks, which it draws one at a time, and gives results in any order.
        enough: Asked, whenever a task is to be drawn, about the results up to the first task that is still missing, in the
            order of the tasks: not those that happened to be ready first, which would favour quick ones.
        progress: Called with (repeats finished, repeats in all).

    Returns:
        In the order of the tasks, without those that were not needed.
    """
    results = {task: result for task, result in finished(folder).items() if task in set(tasks)}

    def first() -> list[Repeat]:
        missing = next((i for i, task in enumerate(tasks) if task not in results), len(tasks))
        return [results[task] for task in tasks[:missing]]

    def wanted() -> Iterator[Task]:
        for task in [task for task in tasks if task not in results]:
            if enough(first()):
                return
            yield task

    for result in scheduler(study, wanted()):
        # A repeat that a dying worker had finished after all comes twice, and counts once.
        if result.task not in results:
            keep(folder, result)
            results[result.task] = result
        if progress:
            progress(len(results), len(tasks))
    return [results[task] for task in tasks if task in results]
