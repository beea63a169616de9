"""Table of the page on variance: repeats over random splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from table_parts import not_measured, origin, read_result, table

from shelfcount.words import show

DEPTHS = {"fast": "heads on a frozen backbone", "full": "whole network"}
METRICS = {"f1": "F1", "count_error": "count error"}
# Numbers of repeats for which the width of the interval is given.
REPEATS = (25, 50, 100)
HEADS = (
    "trained",
    "metric",
    "repeats",
    "epochs",
    "median",
    "95 % interval of the median",
    "SD",
    "quartiles",
    "seconds per repeat",
)


def repeats(results: Path) -> str:
    """Return the variance of the metrics over random splits, as `repeats.py` measured it."""
    result = read_result(results / "repeats.json")
    if result is None:
        return not_measured("Repeats over random splits")
    depths = {name: result[depth] for depth, name in DEPTHS.items() if depth in result}
    rows = [_row(study, name, key) for name, study in depths.items() for key in METRICS]
    sentences = [_needed(name, study["repeats_needed"]) for name, study in depths.items()]
    sentences += [text for study in depths.values() for text in (_narrows(study), _shares(study))]
    sentences += [_depths_agree(result["agreement"]["f1"]), f"{result['photos']}."]
    # The depths may have been run on different machines.
    sentences += [f"{_capital(name)}: {origin(study)}" for name, study in depths.items()]
    return "\n\n".join([table(HEADS, rows), " ".join(text for text in sentences if text)])


def _row(study: dict[str, Any], name: str, key: str) -> list[str]:
    spread = study[key]
    interval, quartiles = (
        " to ".join(show(value) for value in spread[ends]) for ends in ("interval", "quartiles")
    )
    return [
        name,
        METRICS[key],
        show(spread["repeats"]),
        show(study["plan"]["epochs"]),
        show(spread["median"]),
        interval,
        show(spread["sd"]),
        quartiles,
        f"{study['seconds_per_repeat']:.0f}",
    ]


def _needed(name: str, needed: dict[str, Any]) -> str:
    width = f"narrower than {needed['width']:g}"
    if needed["repeats"] is not None:
        return f"{_capital(name)}: the interval is {width} after {needed['repeats']} repeats."
    return (
        f"{_capital(name)}: about {needed['expected']} repeats are needed for an interval that is "
        f"{width}."
    )


def _narrows(study: dict[str, Any]) -> str:
    """Return how the interval narrows with the repeats, or nothing if there are too few."""
    steps = study["settling"]["f1"]
    widths = [
        f"{high - low:.3f} after {n} repeats"
        for n, (low, high) in ((n, steps[n - 1]["interval"]) for n in REPEATS if n <= len(steps))
    ]
    return f"The width of the interval is {', '.join(widths)}." if widths else ""


def _shares(study: dict[str, Any]) -> str:
    """Return the median F1 by number of training photos, or nothing if only one was measured."""
    shares = study["by_share"]
    if len(shares) < 2:
        return ""
    medians = ", ".join(
        f"{show(share['f1']['median'])} for {share['photos']:.0f} photos" for share in shares
    )
    return (
        f"Median F1 by number of training photos, on the {shares[0]['f1']['repeats']} splits that "
        f"were run with all numbers: {medians}."
    )


def _depths_agree(agreement: dict[str, Any]) -> str:
    if agreement["splits"] < 2:
        return "The agreement of the two depths was not measured."
    gain, deviation = agreement["full_minus_fast"], agreement["sd"]
    return (
        f"On the {agreement['splits']} splits of both depths, F1 of the whole network is "
        f"{show(gain['mean'])} higher on average (SD {show(gain['sd'])}). The SD between splits is "
        f"{show(deviation['fast'])} for the heads and {show(deviation['full'])} for the whole "
        f"network, with a Spearman correlation of {show(agreement['spearman'], 2)}."
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
