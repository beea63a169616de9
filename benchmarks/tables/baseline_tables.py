"""Tables of the page on the baseline, and the short table of the README."""

from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path
from typing import Any

from table_parts import not_measured, origin, read_result, table

from shelfcount.words import plural, show

# Result of `shelfcount bench`: all formats of the released network and of the trained baseline.
COMPARED = "drinks_bench_trained.json"
# What the README shows: role in the comparison, format, and name of the row.
SHORT = (
    ("phone", "LiteRT int8", "Released bundle, int8"),
    ("phone", "LiteRT float32", "Its float32 form"),
    ("baseline", "LiteRT float32", "ResNet-50 baseline, float32"),
    ("baseline", "LiteRT int8", "ResNet-50 baseline, int8"),
)
SHORT_HEADS = ("model", "F1", "count error", "size, MB", "latency p50, ms")
HEADS = (
    "model",
    "format",
    "MB",
    "GMAC",
    "p50, ms",
    "p90, ms",
    "threads",
    "F1",
    "mAP",
    "count error",
)


def short(results: Path) -> str:
    """Return the README's table: the released bundle beside the baseline."""
    result = read_result(results / COMPARED)
    if result is None:
        return not_measured("Comparison with the baseline")
    found = {(row["role"], row["variant"]): row for row in result["rows"]}
    rows = [
        [
            name,
            show(row["f1"]),
            show(row["count_error"]),
            show(row["size"] and row["size"] / 1e6, 2),
            show(row["latency"]["p50"], 1),
        ]
        for role, variant, name in SHORT
        if (row := found.get((role, variant)))
    ]
    evaluation = result["evaluation"]
    legend = (
        f"{evaluation['photos']} test photos with {evaluation['boxes']:,} products, "
        "corrected labels. "
        f"{origin(result)}"
    )
    return "\n\n".join([table(SHORT_HEADS, rows), legend])


def formats(results: Path) -> str:
    """Return all formats of the released network and of the baseline, with the main ratios."""
    result = read_result(results / COMPARED)
    if result is None:
        return not_measured("Comparison with the baseline")
    return "\n\n".join(comparison(result))


def comparison(result: dict[str, Any]) -> list[str]:
    """Return the table of a comparison, and the size, latency and F1 ratios in words.

    Args:
        result: JSON of `shelfcount bench`.
    """
    rows = [
        [
            row["name"],
            row["variant"],
            show(row["size"] and row["size"] / 1e6, 2),
            show(row["macs"] and row["macs"] / 1e9, 2),
            show(row["latency"]["p50"], 1),
            show(row["latency"]["p90"], 1),
            show(row["latency"]["threads"], 0),
            *(show(row[key]) for key in ("f1", "map", "count_error")),
        ]
        for row in result["rows"]
    ]
    starts: dict[tuple[str, str], list[str]] = {}
    for row in result["rows"]:
        if row["start"]:
            starts.setdefault((row["name"], row["start"]), []).append(row["variant"])
    weights = " ".join(
        f"Weights of {name} ({', '.join(variants)}): {start}."
        for (name, start), variants in starts.items()
    )
    parts = [_ratios(result), weights, _labels(result), origin(result)]
    return [table(HEADS, rows), " ".join(part for part in parts if part)]


def trainings(results: Path) -> str:
    """Return how the baseline was trained, and its validation F1 after each training."""
    result = read_result(results / "drinks_baseline.json")
    if result is None:
        return not_measured("Training of the baseline")
    model, history, how, curve = result["model"], results / "drinks_baseline_history.csv", "", ""
    if history.exists():
        with history.open(newline="") as file:
            runs = {
                run: list(epochs)
                for run, epochs in groupby(csv.DictReader(file), key=lambda row: row["run"])
            }
        ends = [
            f"{float(epochs[-1]['val_f1']):.3f} after {plural(len(epochs), 'epoch')} of {run}"
            for run, epochs in runs.items()
        ]
        how, curve = f" in {len(runs)} trainings", f" Validation F1: {', '.join(ends)}."
    made = model["trained"]
    return (
        f"The baseline was trained{how} with seed {model['seed']}. The last training took "
        f"{model['minutes']:.1f} minutes, at commit {made['commit']} on {made['device']}. "
        f"It started from {model['start']}.{curve}"
    )


def _ratios(result: dict[str, Any]) -> str:
    """Return how much smaller, faster and better the bundle is than the reference."""
    if "reference" not in result:
        return ""
    bundle, reference = result["rows"][0], result["rows"][result["reference"]]
    faster, name = result["times_faster"], f"{reference['name']}, {reference['variant']}"
    text = (
        f"Compared with {name}, the bundle is {reference['size'] / bundle['size']:.0f} times "
        f"smaller and {faster['median']:.0f} times faster "
        f"({faster['low']:.0f} to {faster['high']:.0f} over paired runs)."
    )
    if result.get("f1_gain"):
        low, high = result["f1_gain"]
        text += f" The 95 % bootstrap interval of the F1 difference is {low:+.3f} to {high:+.3f}."
    if bundle.get("best_f1") and reference.get("best_f1"):
        (at, own), (other_at, other) = bundle["best_f1"], reference["best_f1"]
        text += (
            f" With each model's best score threshold on the test photos ({at:.2f} and "
            f"{other_at:.2f}), F1 is {own:.3f} and {other:.3f}."
        )
    if reference["f1"] is None:
        text += " The reference was not trained, so it has no F1."
    return text


def _labels(result: dict[str, Any]) -> str:
    if not result.get("evaluation"):
        return ""
    return f"F1, mAP and count error are for {result['evaluation']['boxes']:,} labelled products."
