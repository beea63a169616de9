"""Repeats of a run over random splits: from the run and its test labels to the summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shelfcount.config import load_config
from shelfcount.data.datasets import pool_datasets
from shelfcount.labels.reading import read_corrected
from shelfcount.records import Dataset, Progress, ShelfcountError
from shelfcount.stamp import stamp
from shelfcount.studies import repeat_folder
from shelfcount.studies.repeat_statistics import (
    INTERVAL_WIDTH,
    StoppingRule,
    learning_curves,
    summarize_repeats,
)
from shelfcount.studies.repeats import Repeat, make_repeat_settings
from shelfcount.training import runs
from shelfcount.words import WARNING, plural


def repeat_run(
    run: Path,
    data: str | Path,
    folder: Path,
    number: int,
    scheduler: repeat_folder.Scheduler,
    *,
    depth: str = "fast",
    epochs: int | None = None,
    until: float | None = None,
    shares: str = "1",
    start: Path | None = None,
    trained_on: str | None = None,
    class_names: Path | None = None,
    corrections: Sequence[Path] = (),
    tell: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> tuple[list[Repeat], dict[str, Any]]:
    """Pool the photos of a run with test photos, and train and test on random splits of them.

    Args:
        run: Folder of the run, which gives configuration and photos.
        data: Labels of the test photos.
        folder: Folder of finished repeats, which are not run again.
        number: Number of random splits.
        scheduler: Runs the repeats, from `studies.scheduling`.
        depth: 'fast' trains heads on the features of the frozen backbone, 'full' the network.
        epochs: Number of epochs per repeat. Default: as in `make_repeat_settings`.
        until: Stop once the 95 % confidence interval of the median F1 is narrower than this.
        shares: Shares of the training photos, separated by commas, for learning curves.
        start: Start weights. Default: those of the run.
        trained_on: Labels that replace the run's own.
        class_names: File with the names of numbered classes.
        corrections: Corrections to any of the labels.
        tell: Called with each note and warning.
        progress: Called with the number done, the number of all, and what is counted.

    Returns:
        The repeats in the order of their seeds, and the summary of them with plan and stamp.

    Raises:
        ShelfcountError: If the folder is not a run, an option or the data cannot be used, or
            `folder` contains another study.
    """
    if until is not None and not until > 0:
        raise ShelfcountError(f"--until must be above 0, got {until:g}")
    if not (run / "config.toml").exists():
        raise ShelfcountError(
            f"'{run}' is not a run: it has no config.toml. Repeats are trained, so they need a run."
        )
    settings = load_config(run / "config.toml", [f"model.weights={start}"] if start else ())
    plan = make_repeat_settings(settings, depth, epochs, shares)
    parts = _read_parts(run, str(data), trained_on, class_names, corrections, tell)
    if warning := repeat_folder.leakage_warning(settings, parts):
        tell(f"{WARNING}{warning}")

    def features_done(done: int, total: int, description: str = "") -> None:
        progress(done, total, "features of the frozen backbone")

    def repeats_done(done: int, total: int, description: str = "") -> None:
        progress(done, total, "repeats")

    study = repeat_folder.open_study(pool_datasets(parts), plan, folder, features_done)
    tell(
        f"{plural(len(study.data), 'photo')} in {plural(int(study.groups.max()) + 1, 'group')}; "
        f"finished repeats are kept in {folder}"
    )

    repeats = repeat_folder.run_repeats(
        study,
        folder,
        plan.tasks(number),
        scheduler,
        stop=None if until is None else StoppingRule(until),
        progress=repeats_done,
    )
    return repeats, {
        "plan": repeat_folder.study_facts(study.data, plan),
        "warning": warning,
        "stamp": stamp(threads=1),
        **summarize_repeats(repeats, until or INTERVAL_WIDTH),
    }


def _read_parts(
    run: Path,
    data: str,
    trained_on: str | None,
    class_names: Path | None,
    corrections: Sequence[Path],
    tell: Callable[[str], None],
) -> list[Dataset]:
    fixes = list(corrections)
    if trained_on:
        files = [trained_on, data]
    else:
        sources = runs.read_sources(run)
        files = [sources.train, *([sources.val] if sources.val else []), data]
        class_names = class_names or sources.class_names
        known = {fix.resolve() for fix in fixes}
        fixes += [path for path in sources.corrections if path.resolve() not in known]
    parts = []
    for file in files:
        dataset, notes = read_corrected(file, class_names, fixes, files)
        for note in notes:
            tell(note)
        parts.append(dataset)
    return parts


def read_learning_curves(folder: Path) -> dict[str, Any]:
    """Read the learning curve of each class from the finished repeats of a study.

    Args:
        folder: Folder of the study.

    Returns:
        The curves by class name.

    Raises:
        ShelfcountError: If the folder contains no study, or repeats at one share only.
    """
    curves = learning_curves(list(repeat_folder.finished_repeats(folder).values()))
    if not curves or len(next(iter(curves.values()))) < 2:
        raise ShelfcountError(
            f"'{folder}' contains repeats at a single share of the training photos. Learning "
            "curves need several: run `shelfcount repeat` with --shares 0.25,0.5,1."
        )
    return curves
