"""The terminal: results on stdout, progress and warnings on stderr, files that are not overwritten unasked."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from shelfcount.records import ShelfcountError
from shelfcount.vision.images import write_whole

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def leads() -> bool:
    """Whether this process is the one that speaks and writes, not a helper that Lightning started for another device or node."""
    return all(
        os.environ.get(name, "0") == "0"
        for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    )


def check_free(path: Path | None, force: bool) -> None:
    """Refuse to overwrite a file, unless forced.

    Raises:
        ShelfcountError: If it exists and `force` is not given.
    """
    if path is not None and path.exists() and not force:
        raise ShelfcountError(
            f"'{path}' exists already. Choose another name, or overwrite it with --force."
        )


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Plain data as a JSON file, whole or not at all."""
    write_whole(path, json.dumps(data, indent=1))


def pair(text: str, separator: str, option: str) -> tuple[int, int]:
    """Two whole numbers such as 640x480, for the option named.

    Raises:
        ShelfcountError: If the text is no such pair.
    """
    left, found, right = text.lower().partition(separator)
    if not (found and left.strip().isdigit() and right.strip().isdigit()):
        raise ShelfcountError(
            f"{option} wants two whole numbers such as 640{separator}480, got '{text}'"
        )
    return int(left), int(right)


def plain(text: str) -> str:
    """Text that the terminal shows as it is: names of files and classes may hold square brackets."""
    return escape(text)


def duration(seconds: float) -> str:
    """For people, rounded."""
    return f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


@contextlib.contextmanager
def bar(title: str) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr with the time left; where stderr is no terminal, a line every tenth of the way."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        begin, told = time.monotonic(), 0

        def advance(done: int, total: int, description: str = title) -> None:
            nonlocal told
            progress.update(task, completed=done, total=total, description=plain(description))
            if not err.is_terminal and done * 10 // total > told:
                told = done * 10 // total
                spent = time.monotonic() - begin
                err.print(
                    f"{plain(description)}: {done} of {total}, {duration(spent)}, about {duration(spent / done * (total - done))} left"
                )

        yield advance


@contextlib.contextmanager
def steps(*titles: str) -> Iterator[Callable[[], None]]:
    """Stages of unknown length on stderr, each with the time it takes."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(titles[0], total=len(titles))
        started = 0

        def step() -> None:
            nonlocal started
            progress.update(task, completed=started, description=titles[started])
            if not err.is_terminal:
                err.print(f"{started + 1} of {len(titles)}: {titles[started]}")
            started += 1

        yield step
        progress.update(task, completed=len(titles))
