"""Tables of what makes the released network: the family, the recipe, the training's speed, and quantization."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from table_parts import origin, read_result, rows_under

from shelfcount.evaluation.confusions import MORE_EXAMPLES
from shelfcount.report.page import NOT_MEASURED, show

# Rows, pairs of names and photos that are shown.
HELD_BACK, HELD_BACK_PAIRS, HELD_BACK_PHOTOS = 10, 6, 5


def steps(results: Path) -> str:
    """What one change each of the recipe is worth, as `ablation.py` and `ssdlite.py` found it; seeds of one change are averaged."""
    result = read_result(results / "ablation.json")
    if result is None:
        return f"Ablation: {NOT_MEASURED}."
    peer = read_result(results / "ssdlite.json")
    first = result["rows"][0]
    elsewhere: dict[str, list[str]] = {}
    for row in result["rows"]:
        if row["stamp"]["device"] != first["stamp"]["device"]:
            elsewhere.setdefault(row["stamp"]["device"], []).append(
                f"{row['name']} at commit {row['stamp']['commit']}"
            )
    legend = _epochs(result) + "".join(
        f" On {device}: {'; '.join(of)}." for device, of in elsewhere.items()
    )
    return "\n\n".join([_changes(result["rows"] + (peer["rows"] if peer else [])), legend])


def steps_at_the_end(results: Path) -> str:
    """What changes are worth at the end of training: going on from the shipped weights, with a base of their own."""
    result = read_result(results / "ablation_shipped.json")
    return (
        f"Ablation from the shipped weights: {NOT_MEASURED}."
        if result is None
        else "\n\n".join([_changes(result["rows"]), _epochs(result)])
    )


def _changes(rows: Sequence[dict[str, Any]]) -> str:
    """A row for each change; what it wins is held against the base of the same seed."""
    heads = (
        "change",
        "seeds",
        "F1",
        "F1 points above the base, seed by seed",
        "F1, class ignored",
        "mAP",
        "count error",
    )
    base = {row["seed"]: row["f1"] for row in rows if row["name"] == "base"}
    table = []
    for name in dict.fromkeys(row["name"] for row in rows):
        same = [row for row in rows if row["name"] == name]
        f1, *others = (
            _mean_and_range([row[key] for row in same])
            for key in ("f1", "f1_class_ignored", "map", "count_error")
        )
        # Rounded before it is written, and 0 added, so that no difference has no sign of loss.
        won = [
            f"{round(100 * (row['f1'] - base[row['seed']]), 1) + 0:+.1f}"
            for row in same
            if row["seed"] in base and name != "base"
        ]
        table.append(
            [f"{name}: {same[0]['what']}", str(len(same)), f1, ", ".join(won) or "-", *others]
        )
    return "\n".join(rows_under(heads, table))


def _epochs(result: dict[str, Any]) -> str:
    first = result["rows"][0]
    return f"{first['epochs']} epochs each, where a row says no other; {result['photos']}. {origin(first)}"


def members(results: Path) -> str:
    """Size, work and speed of the family, as `benchmarks/speed/family.py` measured them."""
    result = read_result(results / "family.json")
    if result is None:
        return f"Family: {NOT_MEASURED}."
    heads = (
        "network",
        "input",
        "GMAC",
        "int8 MB",
        "int8 ms",
        "float32 ms",
        "int8 is faster by",
        "outside XNNPACK",
        "only move data",
    )
    rows, found = [], {(row["model"], row["size"], row["recipe"]): row for row in result["rows"]}
    for (model, size, recipe), row in found.items():
        if recipe == "int8":
            whole = found[model, size, "float32"]["ms"]["p50"]
            times = f"{whole / row['ms']['p50']:.1f} times"
            operators = [", ".join(row[key]) for key in ("outside_xnnpack", "moving")]
            figures = [
                show(row["gmac"]),
                f"{row['bytes'] / 1e6:.2f}",
                f"{row['ms']['p50']:.1f}",
                f"{whole:.1f}",
                times,
            ]
            rows.append([model, f"{size} x {size}", *figures, *operators])
    legend = f"Medians of {result['rows'][0]['runs']} runs taken in turn; operators of the int8 file. {origin(result)}"
    return "\n\n".join(
        ["\n".join(rows_under(heads, rows)), *_operators(result["operators"]), legend]
    )


def _operators(profiles: Sequence[dict[str, Any]]) -> list[str]:
    """A table of what each kind of operator takes, a column for each network."""
    if not profiles:
        return []
    heads = ("operator", *(f"{one['model']} {one['size']}" for one in profiles))
    cells = [{(k["name"], k["inside"]): k for k in one["kinds"]} for one in profiles]
    kinds = sorted(
        {kind for of in cells for kind in of},
        key=lambda kind: (-sum(of[kind]["ms"] for of in cells if kind in of), kind),
    )
    rows = []
    for kind in kinds:
        ms = [
            f"{of[kind]['ms']:.2f} ms ({of[kind]['count']})" if kind in of else "-" for of in cells
        ]
        rows.append([kind[0] if kind[1] else f"{kind[0]}, outside XNNPACK", *ms])
    rows.append(["all", *(f"{sum(k['ms'] for k in of.values()):.2f} ms" for of in cells)])
    return [
        "Int8, operator by operator under LiteRT's profiler, which slows them a little; in brackets how many:",
        "\n".join(rows_under(heads, rows)),
    ]


def training_speed(results: Path) -> str:
    """Photos a second against torchvision's way, as `benchmarks/speed/training_speed.py` measured them."""
    result = read_result(results / "training_speed.json")
    if result is None:
        return f"Training speed: {NOT_MEASURED}."
    rows = []
    for row in result["rows"]:
        median, low, high = row["times_torchvision"]
        each = ", ".join(f"{value:.1f}" for value in row["photos_per_second"])
        rows.append(
            [f"{row['way']}: {row['what']}", each, f"{median:.1f} ({low:.1f} to {high:.1f})"]
        )
    heads = ("loop", "photos a second, each round", "times torchvision's, round by round")
    return "\n\n".join(["\n".join(rows_under(heads, rows)), origin(result)])


def held_back(results: Path) -> str:
    """Which classes, names, photos and labels F1 on the test photos is held back by, as `held_back.py` counted them."""
    result = read_result(results / "held_back.json")
    if result is None:
        return f"What F1 is held back by: {NOT_MEASURED}."
    heads = (
        "class",
        "products",
        "missed",
        "misnamed",
        "others taken for it",
        "reported where nothing stands",
        "examples in training",
    )
    keys = ("name", "products", "missed", "misnamed", "taken_for", "nothing", "trained")
    rows = [
        [*(str(of[key]) for key in keys), f"{100 * of['bound']:.1f}", *_more(of)]
        for of in result["classes"][:HELD_BACK]
    ]
    more = (
        "examples to halve what is lost",
        f"F1 points to win with {MORE_EXAMPLES} more examples",
    )
    misnamed = sum(pair["mistakes"] for pair in result["pairs"])
    named = "; ".join(
        f"{p['true']} as {p['reported']} {p['mistakes']} of {p['products']}"
        for p in result["pairs"][:HELD_BACK_PAIRS]
    )
    labels, photos = result["labels"], result["photos"]
    errors = [row["missed or misnamed"] + row["false"] for row in photos]
    worst = ", ".join(f"{row['photo']} (F1 {row['f1']:.2f})" for row in photos[:HELD_BACK_PHOTOS])
    legend = (
        f"F1 is {result['f1']:.3f}, and {result['f1_class_ignored']:.3f} with names ignored. {misnamed} products are found under another "
        f"name: {named}. {100 * sum(errors[:HELD_BACK_PHOTOS]) / sum(errors):.0f} % of all errors lie on {HELD_BACK_PHOTOS} of "
        f"{len(photos)} photos: {worst}. Of {labels['lost']} products that are missed or misnamed "
        f"{labels['lost_with_the_same_label_as_published']} have the same name in the labels as published; the others were corrected "
        f"by looking, and may be as hard for people. {origin(result)}"
    )
    curves = (
        "Behind the bound: by a power law through the class's learning curve over the repeated shuffles below; a dash where more examples "
        "hardly helped there, or no curve was measured."
    )
    return "\n\n".join(
        [
            "\n".join(rows_under((*heads, "F1 points to win at most", *more), rows)),
            f"{legend} {curves}",
        ]
    )


def _more(of: dict[str, Any]) -> list[str]:
    return (
        ["-", "-"] if of["halving"] is None else [f"{of['halving']:,}", f"{100 * of['gain']:.2f}"]
    )


def _mean_and_range(values: Sequence[float]) -> str:
    mean = show(sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({show(min(values))} to {show(max(values))})"


def quantization(results: Path) -> str:
    """What int8 costs by calibration and quantization-aware training, as `benchmarks/quality/quantization.py` measured it."""
    result = read_result(results / "quantization.json")
    if result is None:
        return f"Quantization: {NOT_MEASURED}."
    rows = []
    for row in result["rows"]:
        drop = f"{row['drop_points']:.2f} ± {row['drop_standard_error']:.2f}"
        rows.append(
            [
                row["method"],
                str(row.get("photos", "")),
                f"{row['megabytes']:.2f}",
                show(row["f1"]),
                drop,
            ]
        )
    legend = (
        f"{result['data']['photos']} validation photos, corrected labels; behind ± the standard error over photos. "
        f"{origin(result)}"
    )
    heads = ("method", "calibration photos", "MB", "F1", "F1 points lost")
    return "\n\n".join(["\n".join(rows_under(heads, rows)), legend])
