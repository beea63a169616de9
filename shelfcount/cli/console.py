"""Terminal output and shared options: results on stdout, progress and warnings on stderr."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
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
from rich.table import Table

from shelfcount import records
from shelfcount.records import ShelfcountError
from shelfcount.words import WARNING, duration_words

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

# ---------------------------------------------------------------- options of several verbs

JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the result to this file as JSON.")
]
HtmlFile = Annotated[Path | None, typer.Option("--html", help="Write an HTML report to this file.")]
FacingsFile = Annotated[
    Path | None,
    typer.Option(
        "--facings",
        help="Write facings, stacks, neighbours, gaps and shares of shelf to this file as JSON.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        help="CSV (number,name) or JSON with the names of numbered classes.",
    ),
]
CorrectionsFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--corrections", help="Corrections to the labels that they name. May be repeated."
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="Number of LiteRT interpreter threads.")]
BundleFolder = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE", help="Folder of a bundle, or name of a bundle that comes with shelfcount."
    ),
]
TestLabels = Annotated[
    str, typer.Option("--data", help="Labelled photos that the model was not trained on.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings of the training.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change of a setting, such as train.epochs=30. May be repeated."),
]
Depth = Annotated[
    str,
    typer.Option(
        help="'fast' trains heads on the features of the frozen backbone, 'full' the network."
    ),
]

# ---------------------------------------------------------------- extras

# Modules by which an extra is recognized as installed.
EXTRAS = {
    "labels": ("scipy", "imagehash", "nltk", "faster_coco_eval"),
    "train": ("scipy", "imagehash", "torch", "torchvision", "timm", "pytorch_lightning"),
    "export": ("scipy", "imagehash", "torch", "torchvision", "litert_torch"),
    "ray": ("ray",),
}


def require_extra(extra: str, feature: str) -> None:
    """Check that an extra of the package is installed.

    Args:
        extra: Name of the extra, a key of `EXTRAS`.
        feature: Verb or option that needs it.

    Raises:
        ShelfcountError: If a module of the extra is missing.
    """
    if any(importlib.util.find_spec(module) is None for module in EXTRAS[extra]):
        raise ShelfcountError(
            f"`{feature}` needs the {extra} extra: pip install 'shelfcount[{extra}]'"
        )


# ---------------------------------------------------------------- texts


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


def print_note(note: str) -> None:
    """Print a note of the library on stderr, with a warning in colour."""
    if note.startswith(WARNING):
        err.print(f"[yellow]{WARNING}[/yellow]{escape_markup(note.removeprefix(WARNING))}")
    else:
        err.print(escape_markup(note))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table without borders on stdout."""
    table = Table(*map(escape_markup, columns), box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(escape_markup, row))
    out.print(table)


# ---------------------------------------------------------------- progress


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[records.Progress]:
    """Show a progress bar on stderr with the time left.

    If stderr is not a terminal, one line is printed for every tenth of the work.

    Yields:
        Function of (done, total, description) that updates the bar. If `done` decreases, the work
        that follows is another stage.
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
        begin, reported, last = time.monotonic(), 0, 0

        def advance(done: int, total: int, description: str = title) -> None:
            nonlocal begin, reported, last
            if done < last:
                begin, reported = time.monotonic(), 0
                progress.reset(task)
            last = done
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
def stage_bar() -> Iterator[records.Progress]:
    """Show the stages of a task on stderr, with the time since the start.

    Yields:
        Function of (stages done, all stages, name of the stage that begins).
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def begin(done: int, total: int, stage: str = "") -> None:
            progress.update(task, completed=done, total=total, description=escape_markup(stage))
            if not err.is_terminal and done < total:
                err.print(f"{done + 1} of {total}: {escape_markup(stage)}")

        yield begin


@contextlib.contextmanager
def progress_stages(*titles: str) -> Iterator[Callable[[], None]]:
    """Show the stages of a task on stderr, with the time since the start.

    Yields:
        Function that starts the next of `titles`.
    """
    started = 0
    with stage_bar() as begin:

        def step() -> None:
            nonlocal started
            begin(started, len(titles), titles[started])
            started += 1

        yield step
        begin(len(titles), len(titles), titles[-1])
