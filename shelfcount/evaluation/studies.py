"""A study of repeated shuffles in a folder: what it is of, what of it is finished, and what is missing.

FOLDER/study.json     what decides its figures, with the fingerprint of photos and labels; another study is refused
FOLDER/repeat-*.json  one finished repeat each
FOLDER/features/      of the frozen trunk, for the fast depth
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from shelfcount.config import Config
from shelfcount.data import formats, splits
from shelfcount.evaluation.repeats import Plan, Repeat, Study, Task
from shelfcount.records import Dataset, ShelfcountError
from shelfcount.stamp import stamp
from shelfcount.training import frozen
from shelfcount.training.backbones import SHIPPED
from shelfcount.training.runs import origin
from shelfcount.vision.images import write_whole

STUDY, FEATURES = "study.json", "features"


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
        whole = dataclasses.replace(
            whole,
            photos=whole.photos + tuple(p for p in part.photos if p.path.resolve() not in known),
        )
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
    path = (
        SHIPPED / f"{config.model.architecture}.safetensors" if start == "shipped" else Path(start)
    )
    learnt = origin(path)
    if learnt is None:
        return None
    for part in parts:
        if learnt.get("data_fingerprint") == formats.fingerprint(part):
            name = Path(part.name).name
            return f"the start '{path.name}' has learnt from {name}: its photos come up in test parts, and figures are too good"
    of = learnt.get("data") or "photos that it does not name"
    return f"the start '{path.name}' is a detector's that learnt from {of}; were photos of these among them, figures are too good"


def open_study(
    data: Dataset, plan: Plan, folder: Path, progress: Callable[[int, int], None] | None = None
) -> Study:
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
        config["model"]["weights"] = (
            f"{start.name}, sha256 {hashlib.sha256(start.read_bytes()).hexdigest()}"
        )
    settings = {"depth": plan.depth, "epochs": plan.epochs, "parts": dict(plan.parts)}
    heads = {"batch": frozen.HEAD_BATCH, "rate": frozen.HEAD_RATE, "averaged": frozen.AVERAGED}
    views = {"views": plan.views, "heads": heads} if plan.depth == "fast" else {}
    return {
        "data": formats.fingerprint(data),
        "photos": len(data),
        **settings,
        **views,
        "config": config,
    }


def keep(folder: Path, result: Repeat) -> None:
    """Write one finished repeat, whole or not at all."""
    study = hashlib.sha256((folder / STUDY).read_bytes()).hexdigest()
    write_whole(
        folder / result.task.name, json.dumps({"study": study, **result.to_json()}, indent=1)
    )


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
            raise ShelfcountError(
                f"'{path}' is of another study than '{folder / STUDY}'. Move it away."
            )
        try:
            result = Repeat.from_json(data)
        except (KeyError, TypeError) as error:
            raise ShelfcountError(
                f"'{path}' is not a repeat as shelfcount writes it: {error!r}. Delete it; it is run again."
            ) from error
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
