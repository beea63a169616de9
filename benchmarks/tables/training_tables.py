"""Tables of the page on training: ablation, and the speed of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from table_parts import not_measured, origin, read_result, table

from shelfcount.words import show


def steps(results: Path) -> str:
    """Return the effect of one change each, from `ablation.py` and `ssdlite.py`."""
    result = read_result(results / "ablation.json")
    if result is None:
        return not_measured("Ablation")
    peer = read_result(results / "ssdlite.json")
    device = result["rows"][0]["stamp"]["device"]
    others: dict[str, list[str]] = {}
    for row in result["rows"]:
        if row["stamp"]["device"] != device:
            named = f"{row['name']} at commit {row['stamp']['commit']}"
            others.setdefault(row["stamp"]["device"], []).append(named)
    legend = _epochs(result) + "".join(
        f" On {other}: {'; '.join(names)}." for other, names in others.items()
    )
    return "\n\n".join([_changes(result["rows"] + (peer["rows"] if peer else [])), legend])


def steps_at_the_end(results: Path) -> str:
    """Return the effect of changes that start from the shipped weights."""
    result = read_result(results / "ablation_shipped.json")
    if result is None:
        return not_measured("Ablation from the shipped weights")
    return "\n\n".join([_changes(result["rows"]), _epochs(result)])


def _changes(rows: Sequence[dict[str, Any]]) -> str:
    """Return one line per change. A gain is the difference from the base of the same seed."""
    heads = (
        "change",
        "seeds",
        "F1",
        "F1 gain over the base by seed, points",
        "class-agnostic F1",
        "mAP",
        "count error",
    )
    base = {row["seed"]: row["f1"] for row in rows if row["name"] == "base"}
    lines = []
    for name in dict.fromkeys(row["name"] for row in rows):
        same = [row for row in rows if row["name"] == name]
        f1, *others = (
            _mean_and_range([row[key] for row in same])
            for key in ("f1", "f1_class_ignored", "map", "count_error")
        )
        # Rounded first, and 0 added, so that a difference of zero has no minus sign.
        gains = [
            f"{round(100 * (row['f1'] - base[row['seed']]), 1) + 0:+.1f}"
            for row in same
            if row["seed"] in base and name != "base"
        ]
        what = f"{name}: {same[0]['what']}"
        lines.append([what, str(len(same)), f1, ", ".join(gains) or "-", *others])
    return table(heads, lines)


def _epochs(result: dict[str, Any]) -> str:
    first = result["rows"][0]
    return (
        f"{first['epochs']} epochs each, unless a row names another number; {result['photos']}. "
        f"{origin(first)}"
    )


def _mean_and_range(values: Sequence[float]) -> str:
    mean = show(sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({show(min(values))} to {show(max(values))})"


def training_speed(results: Path) -> str:
    """Return photos per second of each training loop, as `training_speed.py` measured them."""
    result = read_result(results / "training_speed.json")
    if result is None:
        return not_measured("Training speed")
    rows = []
    for row in result["rows"]:
        median, low, high = row["times_torchvision"]
        rounds = ", ".join(f"{value:.1f}" for value in row["photos_per_second"])
        ratio = f"{median:.1f} ({low:.1f} to {high:.1f})"
        rows.append([f"{row['way']}: {row['what']}", rounds, ratio])
    heads = ("training loop", "photos per second, each round", "relative to torchvision's loop")
    return "\n\n".join([table(heads, rows), origin(result)])
