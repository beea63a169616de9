"""Draw the pictures of the page on the baseline: F1 over latency and size, and learning curves.

    python benchmarks/tables/baseline_plots.py

If fewer than two models of the comparison have an F1, its pictures are not drawn, and older ones
are removed.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shelfcount.files import write_whole
from shelfcount.metrics.scoring import ClassScore, DetectionCounts
from shelfcount.report import accuracy_figures, figures
from shelfcount.speed.model_rows import Latency, Row, row_label

RESULTS = Path(__file__).parents[1] / "results"
# Result of `shelfcount bench` for the released bundle and the trained baseline.
COMPARED = "drinks_bench_trained.json"
PLOTS = ("drinks_f1_latency.png", "drinks_f1_size.png", "drinks_f1_classes.png")
# History of the baseline's trainings, with their names in the column `run`, and its picture.
HISTORY, CURVE = "drinks_baseline_history.csv", "drinks_baseline_curve.png"


def draw(compared: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the plots of a comparison as PNG bytes, by name.

    Plots that need a second model with an F1 are left out if there is none.

    Args:
        compared: JSON of `shelfcount bench`.
    """
    rows = [Row(**{**row, "latency": Latency(**row["latency"])}) for row in compared["rows"]]
    plots = {}
    if sum(row.f1 is not None for row in rows) > 1:
        costs = (
            ("median latency of one photo in ms", [r.latency.p50 for r in rows]),
            ("file size in MB", [r.size and r.size / 1e6 for r in rows]),
        )
        for name, (what, cost) in zip(PLOTS, costs, strict=False):
            points = [
                (row_label(row), value, row.f1) for row, value in zip(rows, cost, strict=True)
            ]
            plots[name] = accuracy_figures.f1_against(points, what)
    if compared.get("baseline_evaluation"):
        sides = (
            _classes(compared[key]["per_class"]) for key in ("evaluation", "baseline_evaluation")
        )
        plots[PLOTS[-1]] = accuracy_figures.per_class_f1(*sides)
    return plots


def learning_curve(history: Path) -> bytes:
    """Return a plot of loss and validation F1 over the epochs of all trainings, as PNG bytes.

    Args:
        history: CSV that `baseline.sh` writes.
    """
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    runs = dict.fromkeys(row["run"] for row in rows)
    losses = {
        f"loss of {run}": [float(row["loss"]) if row["run"] == run else math.nan for row in rows]
        for run in runs
    }
    f1 = [float(row["val_f1"]) if row["val_f1"] else None for row in rows]
    return figures.training_curves(range(1, len(rows) + 1), losses, f1)


def _classes(rows: Sequence[Mapping[str, Any]]) -> list[ClassScore]:
    return [
        ClassScore(
            row["name"],
            DetectionCounts(row["truth"], row["found"], row["tp"]),
            row["count_mae"],
            row["count_bias"],
        )
        for row in rows
    ]


def main() -> None:
    """Write the plots and report those that could not be drawn."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if (RESULTS / HISTORY).exists():
        write_whole(RESULTS / CURVE, learning_curve(RESULTS / HISTORY))
    path = RESULTS / COMPARED
    plots = draw(json.loads(path.read_text())) if path.exists() else {}
    for name in PLOTS:
        if name in plots:
            write_whole(RESULTS / name, plots[name])
        else:
            (RESULTS / name).unlink(missing_ok=True)
            print(f"not drawn: {name}; {path.name} lacks a trained baseline", file=sys.stderr)


if __name__ == "__main__":
    main()
