"""The command line: the list of verbs, and the entry point that turns errors into exit codes.

Exit codes: 0 good, 1 a negative verdict, 2 misuse, unusable input or a missing extra, 130 and 143
after SIGINT and SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperGroup

from shelfcount import __version__
from shelfcount.cli import (
    comparison,
    corrections,
    counting,
    deploy,
    evaluation,
    labels,
    training,
)
from shelfcount.cli.console import EXTRAS, err, escape_markup, out, require_extra
from shelfcount.machine import is_main_process
from shelfcount.records import ShelfcountError


class Verb(NamedTuple):
    """One row of `VERBS`.

    Attributes:
        name: Name on the command line.
        function: Function that parses its parameters, calls the library and prints the result.
        panel: Heading in the list of verbs.
        example: Worked example at the end of the help.
        extra: Extra without which the verb does nothing; "" if it works without one.
    """

    name: str
    function: Callable[..., None]
    panel: str
    example: str
    extra: str = ""


_LABELS, _MODELS = "Labelled photos", "Models"
_COUNTING, _MEASURING = "Counting", "Measuring"

# To add a verb, write its function in the file of its group and add a row here.
VERBS = (
    Verb("synth", training.synth_verb, _LABELS, "synth --out shelves --photos 40 --views 2"),
    Verb(
        "check",
        labels.check_verb,
        _LABELS,
        "check --data train.json --against test.json --html check.html",
        "labels",
    ),
    Verb(
        "propose",
        corrections.propose_verb,
        _LABELS,
        "propose runs/first --data test.json --out proposed.json --html proposed.html",
    ),
    Verb(
        "correct",
        corrections.correct_verb,
        _LABELS,
        "correct --data test.json --corrections proposed.json --out corrected.json",
    ),
    Verb(
        "train",
        training.train_verb,
        _MODELS,
        "train --data train.json --val val.json --out runs/first --set train.epochs=30",
        "train",
    ),
    Verb(
        "export",
        deploy.export_verb,
        _MODELS,
        "export runs/first --out bundles/first --recipe int8",
        "export",
    ),
    Verb("verify", deploy.verify_verb, _MODELS, "verify bundles/first"),
    Verb("serve", deploy.serve_verb, _MODELS, "serve drinks-int8 --host 0.0.0.0"),
    Verb(
        "count",
        counting.count_verb,
        _COUNTING,
        "count drinks-int8 photo.jpg --picture pictures --json counts.json",
    ),
    Verb(
        "merge",
        counting.merge_verb,
        _COUNTING,
        "merge drinks-int8 left.jpg right.jpg --picture shelf.jpg",
    ),
    Verb(
        "planogram",
        counting.planogram_verb,
        _COUNTING,
        "planogram drinks-int8 photo.jpg --plan plan.json --picture deviations.jpg",
    ),
    Verb(
        "evaluate",
        evaluation.evaluate_verb,
        _MEASURING,
        "evaluate bundles/first --data test.json --json metrics.json",
        "labels",
    ),
    Verb(
        "repeat",
        evaluation.repeat_verb,
        _MEASURING,
        "repeat runs/first --data test.json --repeats 100 --until 0.01",
        "train",
    ),
    Verb(
        "stress",
        comparison.stress_verb,
        _MEASURING,
        "stress bundles/first --data test.json --html stress.html",
    ),
    Verb(
        "bench",
        comparison.bench_verb,
        _MEASURING,
        "bench bundles/first --baseline resnet50 --data test.json --out report",
        "labels",
    ),
)


class _VerbGroup(TyperGroup):
    """Group that lists the verbs under the headings of `VERBS`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(len(verb.name) for verb in VERBS)
        for panel in dict.fromkeys(verb.panel for verb in VERBS):
            rows = []
            for name in (verb.name for verb in VERBS if verb.panel == panel):
                command = self.get_command(ctx, name)
                text = command.get_short_help_str(1000) if command else ""
                rows.append((name.ljust(width), text))
            with formatter.section(panel):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=_VerbGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(requested: bool) -> None:
    if requested:
        out.print(f"shelfcount {__version__}")
        raise typer.Exit


@app.callback(epilog="`shelfcount VERB --help` explains a verb and ends with an example.")
def _shelfcount(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Count products on shop shelves with a detector that fits a phone."""


for _verb in VERBS:
    _epilog = f"Example:\n\n\b\n  shelfcount {_verb.example}"
    app.command(_verb.name, epilog=_epilog)(_verb.function)


def main() -> None:
    """Run the command line and exit with its code.

    An error meant for the user becomes one message on stderr and exit code 2.
    """
    out.quiet = err.quiet = not is_main_process()
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        _require_extra_of_verb(sys.argv[1:])
        app()
    except (ShelfcountError, OSError) as error:
        # OSError: a full disk or a missing permission, which a traceback explains no better.
        _fail(str(error))
    except ModuleNotFoundError as error:
        module = (error.name or "").split(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
        if extra is None:
            raise
        _fail(f"{module} is missing. Install the {extra} extra: pip install 'shelfcount[{extra}]'")
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
    except SystemExit as stop:
        # Lightning turns an interrupted training into exit code 1.
        if stop.code == 1 and isinstance(stop.__context__, KeyboardInterrupt):
            sys.exit(130)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _require_extra_of_verb(arguments: Sequence[str]) -> None:
    """Check for the extra of the verb before its arguments are parsed. The help needs none."""
    for verb in VERBS:
        if verb.extra and arguments[:1] == [verb.name] and "--help" not in arguments:
            require_extra(verb.extra, verb.name)


def _terminate(number: int, _: object) -> NoReturn:
    # Ends like any exit, so that `finally` blocks remove unfinished files and stop workers.
    sys.exit(128 + number)


def _fail(message: str) -> NoReturn:
    err.quiet = False
    err.print(f"[red]error:[/red] {escape_markup(message)}")
    sys.exit(2)


if __name__ == "__main__":
    main()
