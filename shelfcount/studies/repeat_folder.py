"""Folder of a study of repeats: its settings, finished repeats, and repeats still to run.

FOLDER/study.json     settings, with the fingerprint of photos and labels; others are refused
FOLDER/repeat-*.json  one finished repeat each
FOLDER/features/      features of the frozen backbone, for the fast depth
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from shelfcount.config import Config
from shelfcount.data import datasets, splits
from shelfcount.files import sha256_of, write_json
from shelfcount.records import Dataset, Progress, ShelfcountError
from shelfcount.stamp import stamp
from shelfcount.studies.repeat_statistics import StoppingRule
from shelfcount.studies.repeats import Repeat, RepeatSettings, RepeatStudy, Task
from shelfcount.training import frozen_features
from shelfcount.training.runs import weights_origin
from shelfcount.training.starting_weights import SHIPPED_FOLDER

STUDY, FEATURES = "study.json", "features"


def leakage_warning(config: Config, parts: Sequence[Dataset]) -> str | None:
    """Check whether the start weights may have been trained on photos of the study.

    If they come from a detector that was trained on photos of a test part, the results are too
    optimistic.

    Args:
        config: Configuration of a training run.
        parts: The data sets that are pooled.

    Returns:
        A warning, or None if the start weights are not those of a trained detector.
    """
    start = config.model.weights
    if start in ("none", "network"):
        return None
    path = (
        SHIPPED_FOLDER / f"{config.model.architecture}.safetensors"
        if start == "shipped"
        else Path(start)
    )
    provenance = weights_origin(path)
    if provenance is None:
        return None
    for part in parts:
        if provenance.get("data_fingerprint") == datasets.fingerprint(part):
            name = Path(part.name).name
            return (
                f"the start weights '{path.name}' were trained on {name}. Its photos are in test "
                "parts, so the results are too optimistic."
            )
    data = provenance.get("data") or "unknown photos"
    return (
        f"the start weights '{path.name}' are those of a detector that was trained on {data}. If "
        "photos of this study are among them, the results are too optimistic."
    )


def open_study(
    data: Dataset,
    plan: RepeatSettings,
    folder: Path,
    progress: Progress | None = None,
) -> RepeatStudy:
    """Create the folder of a study or open an existing one. For 'fast', compute the features.

    Args:
        data: All photos of the study.
        plan: Settings of the repeats.
        folder: Folder of the study.
        progress: Called with the number of photos whose features are computed and the number of all
            photos.

    Returns:
        The study.

    Raises:
        ShelfcountError: If the folder contains a study of other photos, labels or settings.
    """
    facts = study_facts(data, plan)
    if (folder / STUDY).exists():
        stored = _read(folder / STUDY)
        if differing := [key for key in facts if stored.get(key) != facts[key]]:
            raise ShelfcountError(
                f"'{folder}' contains another study: it differs in {', '.join(differing)}. Choose "
                "another folder, or use the same photos, labels and settings."
            )
    else:
        write_json(folder / STUDY, facts)
    views = folder / FEATURES if plan.depth == "fast" else None
    if views:
        frozen_features.cache_features(data, plan.config, plan.views, views, progress=progress)
    return RepeatStudy(data, splits.near_duplicate_groups(data), plan, views, stamp()["commit"])


def study_facts(data: Dataset, plan: RepeatSettings) -> dict[str, Any]:
    """Describe everything that determines the results of a study.

    Args:
        data: All photos of the study.
        plan: Settings of the repeats.

    Returns:
        A JSON object without local paths.
    """
    config = plan.config.model_dump(mode="json")
    for key in ("epochs", "seed", "devices", "nodes", "workers", "validate_every"):
        del config["train"][key]
    start = Path(plan.config.model.weights)
    if start.is_file():
        config["model"]["weights"] = f"{start.name}, sha256 {sha256_of(start)}"
    settings = {"depth": plan.depth, "epochs": plan.epochs, "parts": dict(plan.parts)}
    heads = {
        "batch": frozen_features.HEAD_BATCH,
        "rate": frozen_features.HEAD_RATE,
        "averaged": frozen_features.AVERAGED,
    }
    views = {"views": plan.views, "heads": heads} if plan.depth == "fast" else {}
    return {
        "data": datasets.fingerprint(data),
        "photos": len(data),
        **settings,
        **views,
        "config": config,
    }


def keep_repeat(folder: Path, result: Repeat) -> None:
    """Write a finished repeat to the folder of its study, atomically.

    Args:
        folder: Folder of the study.
        result: The finished repeat.
    """
    study = sha256_of(folder / STUDY)
    write_json(folder / result.task.name, {"study": study, **result.to_json()})


def finished_repeats(folder: Path) -> dict[Task, Repeat]:
    """Read the finished repeats of a study.

    Args:
        folder: Folder of the study.

    Returns:
        The repeats by task.

    Raises:
        ShelfcountError: If the folder contains no study, or a repeat file is of another study or
            not valid.
    """
    if not (folder / STUDY).exists():
        raise ShelfcountError(f"'{folder}' contains no study: there is no {STUDY} in it")
    study = sha256_of(folder / STUDY)
    repeats: dict[Task, Repeat] = {}
    for path in sorted(folder.glob("repeat-*.json")):
        data = _read(path)
        if data.pop("study", None) != study:
            raise ShelfcountError(
                f"'{path}' belongs to another study than '{folder / STUDY}'. Move it to another "
                "folder."
            )
        try:
            result = Repeat.from_json(data)
        except (KeyError, TypeError) as error:
            raise ShelfcountError(
                f"'{path}' is not a valid repeat file: a field is missing or unknown. Delete the "
                "file; the repeat is then run again."
            ) from error
        repeats[result.task] = result
    return repeats


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ShelfcountError(f"cannot read '{path}': {error}") from error
    if not isinstance(data, dict):
        raise ShelfcountError(f"'{path}' must contain a JSON object, got {type(data).__name__}")
    return data


Scheduler = Callable[[RepeatStudy, Iterator[Task]], Iterable[Repeat]]


def run_repeats(
    study: RepeatStudy,
    folder: Path,
    tasks: Sequence[Task],
    scheduler: Scheduler,
    *,
    stop: StoppingRule | None = None,
    progress: Progress | None = None,
) -> list[Repeat]:
    """Run the tasks without a result in the folder of a study.

    Args:
        study: Study from `open_study`.
        folder: Folder of the study.
        tasks: Tasks in the order in which to run them.
        scheduler: Function of the study and an iterator of tasks. It takes one task at a time and
            returns the results in any order.
        stop: Rule that is checked before each new task on the results of all tasks before the
            first missing one. If it is met, no more tasks are started. Later results are not used,
            since they would favour tasks that are fast. Default: all tasks are run.
        progress: Called with the number of finished repeats and the number of all repeats.

    Returns:
        All results, in the order of the tasks. Tasks that were not needed are left out.

    Raises:
        ShelfcountError: For the reasons given at `finished_repeats`, or if the scheduler fails.
    """
    results = {
        task: result for task, result in finished_repeats(folder).items() if task in set(tasks)
    }

    def consecutive() -> list[Repeat]:
        missing = next((i for i, task in enumerate(tasks) if task not in results), len(tasks))
        return [results[task] for task in tasks[:missing]]

    def pending() -> Iterator[Task]:
        for task in [task for task in tasks if task not in results]:
            if stop is not None and stop.is_met(consecutive()):
                return
            yield task

    for result in scheduler(study, pending()):
        # A worker may have delivered its result before it died; the repeated task then gives it
        # again.
        if result.task not in results:
            keep_repeat(folder, result)
            results[result.task] = result
        if progress:
            progress(len(results), len(tasks))
    return [results[task] for task in tasks if task in results]
