"""The table of benchmarks/README.md on repeated shuffles, from the stamped result; `readme_tables.py` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from table_parts import origin, read_result, rows_under

from shelfcount.report.page import NOT_MEASURED, show
from shelfcount.report.repeats_page import said

DEPTHS = {"fast": "heads on the frozen trunk", "full": "the whole network"}
FIGURES = {"f1": "F1", "count_error": "count error"}
# Repeats after which the interval's width is told.
SETTLED = (25, 50, 100)
HEADS = (
    "trained",
    "figure",
    "repeats",
    "epochs",
    "median",
    "its 95 % interval",
    "SD",
    "quartiles",
    "seconds a repeat",
)


def repeats(results: Path) -> str:
    """Spread of the drinks figures over shuffles, and how the depths agree, as `benchmarks/quality/repeats.py` measured them."""
    result = read_result(results / "repeats.json")
    if result is None:
        return f"Repeated shuffles: {NOT_MEASURED}."
    rows = [
        _row(result[depth], name, figure)
        for depth, name in DEPTHS.items()
        if depth in result
        for figure in FIGURES
    ]
    words = [
        f"{name[0].upper()}{name[1:]}: {said(result[depth]['enough'])}."
        for depth, name in DEPTHS.items()
        if depth in result
    ]
    words += [_settles(result[depth]) for depth in DEPTHS if depth in result]
    words.append(_agreement(result["agreement"]["f1"]))
    told = " ".join(word for word in words if word)
    # The depths may have been run on different machines.
    made = " ".join(
        f"{name[0].upper()}{name[1:]}: {origin(result[depth])}"
        for depth, name in DEPTHS.items()
        if depth in result
    )
    return "\n\n".join(["\n".join(rows_under(HEADS, rows)), f"{told} {result['photos']}. {made}"])


def _row(of: dict[str, Any], name: str, figure: str) -> list[str]:
    spread = of[figure]
    ends = [" to ".join(show(value) for value in spread[key]) for key in ("interval", "quartiles")]
    seconds = f"{of['seconds_per_repeat']:.0f}"
    return [
        name,
        FIGURES[figure],
        show(spread["repeats"]),
        show(of["plan"]["epochs"]),
        show(spread["median"]),
        ends[0],
        show(spread["sd"]),
        ends[1],
        seconds,
    ]


def _settles(of: dict[str, Any]) -> str:
    """How the interval narrows, and what fewer photos to learn from cost; empty where there is nothing of it to tell."""
    steps = of["settling"]["f1"]
    widths = [(n, steps[n - 1]["interval"]) for n in SETTLED if n <= len(steps)]
    said = [f"The interval is {high - low:.3f} wide after {n} repeats" for n, (low, high) in widths]
    words = (
        f"{', '.join([said[0], *(part.removeprefix('The interval is ') for part in said[1:])])}."
        if said
        else ""
    )
    if len(of["by_share"]) > 1:
        shares = ", ".join(
            f"{show(share['f1']['median'])} from {share['photos']:.0f}" for share in of["by_share"]
        )
        words += f" Median F1 by photos learnt from, on the {of['by_share'][0]['f1']['repeats']} shuffles run with all of them: {shares}."
    return words.strip()


def _agreement(of: dict[str, Any]) -> str:
    if of["splits"] < 2:
        return f"The agreement of the two was {NOT_MEASURED}."
    by = of["full_minus_fast"]
    return (
        f"On the {of['splits']} splits that both were run on, F1 of the whole network is {show(by['mean'])} higher on average, with an SD "
        f"of {show(by['sd'])}; the SD between splits is {show(of['sd']['fast'])} and {show(of['sd']['full'])}, Spearman's correlation "
        f"{show(of['spearman'], 2)}."
    )
