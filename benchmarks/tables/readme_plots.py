"""Draw the README's plots from the results beside this file: F1 against latency and size, F1 of each class, and how the
baseline learnt.

``python benchmarks/tables/readme_plots.py`` writes them; `readme_tables.py` then shows those that are there. Where no two
models of the comparison have an F1 there is nothing to draw, and what was drawn before is removed.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shelfcount.evaluation.benchmark import Latency, Row
from shelfcount.evaluation.metrics import ClassScore, Score
from shelfcount.report import figures
from shelfcount.report.bench_page import label
from shelfcount.vision.images import write_whole

RESULTS = Path(__file__).parents[1] / "results"
# As `shelfcount bench` writes it, of the released bundle and the trained baseline.
COMPARED = "drinks_bench_trained.json"
PLOTS = ("drinks_f1_latency.png", "drinks_f1_size.png", "drinks_f1_classes.png")
# Of the baseline's trainings, one after the other, with their names in a column `run`; and what is drawn of it.
HISTORY, CURVE = "drinks_baseline_history.csv", "drinks_baseline_curve.png"


def draw(compared: Mapping[str, Any]) -> dict[str, bytes]:
    """The plots of a comparison as PNG bytes, by name; those that lack a second model with an F1 are left out.

    Args:
        compared: As `shelfcount bench` writes it.
    """
    rows = [Row(**{**row, "latency": Latency(**row["latency"])}) for row in compared["rows"]]
    plots = {}
    if sum(row.f1 is not None for row in rows) > 1:
        costs = (
            ("median time of one photo in ms", [r.latency.p50 for r in rows]),
            ("file in MB", [r.size and r.size / 1e6 for r in rows]),
        )
        for name, (what, cost) in zip(PLOTS, costs, strict=False):
            points = [(label(row), value, row.f1) for row, value in zip(rows, cost, strict=True)]
            plots[name] = figures.f1_against(points, what)
    if compared.get("baseline_evaluation"):
        sides = (
            _classes(compared[key]["per_class"]) for key in ("evaluation", "baseline_evaluation")
        )
        plots[PLOTS[-1]] = figures.per_class_f1(*sides)
    return plots


def learning_curve(history: Path) -> bytes:
    """Loss and validation F1 over the epochs of all trainings as PNG bytes.

    Args:
        history: As `baseline.sh` puts it together.
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
            Score(row["truth"], row["found"], row["tp"]),
            row["count_mae"],
            row["count_bias"],
        )
        for row in rows
    ]


def main() -> None:
    """Write the plots, and say which could not be drawn."""
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
