"""Tables of what makes the released network: the family, the recipe, the training's speed, and quantization."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from table_parts import origin, read_result, rows_under

from shelfcount.report.page import NOT_MEASURED, show


def steps(results: Path) -> str:
    """What one change each of the recipe is worth, as `ablation.py` and `ssdlite.py` found it; seeds of one change are averaged."""
    result = read_result(results / "ablation.json")
    if result is None:
        return f"Ablation: {NOT_MEASURED}."
    heads = ("change", "seeds", "F1", "F1, class ignored", "mAP", "count error")
    rows = []
    peer = read_result(results / "ssdlite.json")
    all_rows = result["rows"] + (peer["rows"] if peer else [])
    for name in dict.fromkeys(row["name"] for row in all_rows):
        same = [row for row in all_rows if row["name"] == name]
        means = [_mean_and_range([row[key] for row in same]) for key in ("f1", "f1_class_ignored", "map", "count_error")]
        rows.append([f"{name}: {same[0]['what']}", str(len(same)), *means])
    first = result["rows"][0]
    legend = f"{first['epochs']} epochs each; {result['photos']}. {origin(first)}"
    return "\n\n".join(["\n".join(rows_under(heads, rows)), legend])


def members(results: Path) -> str:
    """Size, work and speed of the family, as `benchmarks/family.py` measured them."""
    result = read_result(results / "family.json")
    if result is None:
        return f"Family: {NOT_MEASURED}."
    heads = ("network", "input", "GMAC", "int8 MB", "int8 ms", "float32 ms", "int8 is faster by", "outside XNNPACK in int8")
    rows, found = [], {(row["model"], row["size"], row["recipe"]): row for row in result["rows"]}
    for (model, size, recipe), row in found.items():
        if recipe == "int8":
            whole = found[model, size, "float32"]["ms"]["p50"]
            times = f"{whole / row['ms']['p50']:.1f} times"
            outside = ", ".join(row["outside_xnnpack"])
            figures = [show(row["gmac"]), f"{row['bytes'] / 1e6:.2f}", f"{row['ms']['p50']:.1f}", f"{whole:.1f}", times, outside]
            rows.append([model, f"{size} x {size}", *figures])
    return "\n\n".join(["\n".join(rows_under(heads, rows)), f"Medians of {result['rows'][0]['runs']} runs taken in turn. {origin(result)}"])


def training_speed(results: Path) -> str:
    """Photos a second against torchvision's way, as `benchmarks/training_speed.py` measured them."""
    result = read_result(results / "training_speed.json")
    if result is None:
        return f"Training speed: {NOT_MEASURED}."
    rows = []
    for row in result["rows"]:
        median, low, high = row["times_torchvision"]
        each = ", ".join(f"{value:.1f}" for value in row["photos_per_second"])
        rows.append([f"{row['way']}: {row['what']}", each, f"{median:.1f} ({low:.1f} to {high:.1f})"])
    heads = ("loop", "photos a second, each round", "times torchvision's, round by round")
    return "\n\n".join(["\n".join(rows_under(heads, rows)), origin(result)])


def _mean_and_range(values: Sequence[float]) -> str:
    mean = show(sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({show(min(values))} to {show(max(values))})"


def quantization(results: Path) -> str:
    """What int8 costs by calibration, mixed precision and quantization-aware training, as `benchmarks/quantization.py` measured it."""
    result = read_result(results / "quantization.json")
    if result is None:
        return f"Quantization: {NOT_MEASURED}."
    rows = []
    for row in result["rows"]:
        what = row["method"] + (f", {row['spared']} operators in float" if "spared" in row else "")
        drop = f"{row['drop_points']:.2f} ± {row['drop_standard_error']:.2f}"
        rows.append([what, str(row.get("photos", "")), f"{row['megabytes']:.2f}", show(row["f1"]), drop])
    worst = ", ".join(f"`{one['step']}`" for one in result["sensitivity"]["alone"][:3])
    legend = (
        f"{result['data']['photos']} validation photos, corrected labels; behind ± the standard error over photos. "
        f"The operators whose rounding costs most: {worst}. {origin(result)}"
    )
    heads = ("method", "calibration photos", "MB", "F1", "F1 points lost")
    return "\n\n".join(["\n".join(rows_under(heads, rows)), legend])
