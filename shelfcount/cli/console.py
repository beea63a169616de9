"""Terminal output: results on stdout, progress and warnings on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

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
from shelfcount.words import duration_words

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def parse_pair(text: str, separator: str, option: str) -> tuple[int, int]:
    """Parse two whole numbers such as 640x480.

    Args:
        text: Value of the option.
        separator: Text between the numbers.
        option: Name of the option, for the error message.

    Raises:
        ShelfcountError: If `text` is not a pair of whole numbers.
    """
    left, middle, right = text.lower().partition(separator)
    if not (middle and left.strip().isdigit() and right.strip().isdigit()):
        raise ShelfcountError(
            f"{option} needs two whole numbers such as 640{separator}480, got '{text}'"
        )
    return int(left), int(right)


def escape_markup(text: str) -> str:
    """Escape text so that Rich does not interpret square brackets in file and class names."""
    return escape(text)


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr with the time left.

    If stderr is not a terminal, one line is printed for every tenth of the work.

    Yields:
        Function of (done, total, description) that updates the bar.
    """
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
        begin, reported = time.monotonic(), 0

        def advance(done: int, total: int, description: str = title) -> None:
            nonlocal reported
            progress.update(
                task, completed=done, total=total, description=escape_markup(description)
            )
            if not err.is_terminal and done * 10 // total > reported:
                reported = done * 10 // total
                spent = time.monotonic() - begin
                err.print(
                    f"{escape_markup(description)}: {done} of {total}, {duration_words(spent)}, "
                    f"about {duration_words(spent / done * (total - done))} left"
                )

        yield advance


@contextlib.contextmanager
def progress_stages(*titles: str) -> Iterator[Callable[[], None]]:
    """Show the stages of a task on stderr, with the time since the start.

    Yields:
        Function that starts the next of `titles`.
    """
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
