"""Measure the variance of the drinks metrics over random splits, with a fast and a full depth.

    python benchmarks/quality/repeats.py DRINKS_FOLDER IMAGENET_WEIGHTS.safetensors
        [--fast 100] [--full 5] [--processes 2]

Each repeat splits all drinks photos, with corrected labels, at random. Both depths start from the
same ImageNet weights, since weights that were trained on drinks would know the test photos.
Finished repeats are in runs/repeats and are not run again, so an interrupted study continues.
`--report` writes the result of the finished repeats. A depth without finished repeats keeps its
part of the result.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount import config as config_module
from shelfcount.cli.console import progress_bar
from shelfcount.data import datasets, formats
from shelfcount.files import write_json, write_whole
from shelfcount.labels import corrections
from shelfcount.records import Dataset
from shelfcount.report import repeats_page
from shelfcount.stamp import stamp
from shelfcount.studies import repeat_folder, repeat_statistics, repeats, scheduling
from shelfcount.studies.repeats import Repeat

BENCHMARKS = Path(__file__).parents[1]
RESULT = BENCHMARKS / "results" / "repeats.json"
RUNS = BENCHMARKS.parent / "runs" / "repeats"
# Settings of the full depth: small batches and a high learning rate, as for the heads alone, since
# there are few epochs and the heads start from random weights.
FULL_EPOCHS = 20
FULL = ("train.batch=4", "train.lr=8e-3", "train.channels_last=true")


def photos(drinks: Path) -> list[Dataset]:
    """Read training, validation and test photos with corrected labels."""
    parts = []
    for name in ("train", "val", "test"):
        given = corrections.read_corrections(
            BENCHMARKS / "data" / f"drinks_{name}_corrections.json"
        )
        parts.append(
            corrections.correct_labels(formats.read_labels(drinks / f"{name}.json"), given)
        )
    return parts


def study(
    parts: list[Dataset], plan: repeats.RepeatSettings, folder: Path, number: int, processes: int
) -> list[Repeat]:
    """Run the repeats that are missing and return all repeats."""
    with progress_bar(f"{plan.depth}: features") as advance:
        opened = repeat_folder.open_study(datasets.pool_datasets(parts), plan, folder, advance)
    with progress_bar(f"{plan.depth}: repeats") as advance:
        return repeat_folder.run_repeats(
            opened, folder, plan.tasks(number), scheduling.processes(processes), progress=advance
        )


def finished(folder: Path) -> list[Repeat]:
    """Return finished repeats sorted by seed, up to the first seed that is missing."""
    found = (
        sorted(repeat_folder.finished_repeats(folder).values(), key=lambda r: r.task)
        if folder.exists()
        else []
    )
    return [
        r
        for r in found
        if r.task.seed
        < next(n for n in range(len(found) + 1) if n not in {f.task.seed for f in found})
    ]


def report(out: Path) -> dict[str, Any]:
    """Write and return the result of the finished repeats, for each depth and for common splits."""
    depths: dict[str, Any] = {}
    f1: dict[str, dict[int, float]] = {"fast": {}, "full": {}}
    count: dict[str, dict[int, float]] = {"fast": {}, "full": {}}
    kept = json.loads(out.read_text()) if out.exists() else {}
    for depth in f1:
        folder = RUNS / depth
        if results := finished(folder):
            plan = json.loads((folder / repeat_folder.STUDY).read_text())
            whole = repeat_statistics.largest_share(results)
            rows = [
                {
                    "seed": r.task.seed,
                    "f1": r.f1,
                    "count_error": r.count_error,
                    "threshold": r.threshold,
                }
                for r in whole
            ]
            made = {"stamp": stamp(seed=0, threads=1), "results": rows}
            depths[depth] = {
                "plan": plan,
                **repeat_statistics.summarize_repeats(results, repeat_statistics.INTERVAL_WIDTH),
                **made,
            }
            if depth == "fast":
                write_whole(
                    out.with_suffix(".png"), repeats_page.plot_repeats(results, depths[depth])
                )
                depths["learning_curves"] = (
                    repeat_statistics.learning_curves(results)
                    if len(depths[depth]["by_share"]) > 1
                    else None
                )
        elif depth in kept:
            depths[depth] = kept[depth]
            if depth == "fast":
                depths["learning_curves"] = kept["learning_curves"]
        for row in depths.get(depth, {}).get("results", ()):
            f1[depth][row["seed"]] = row["f1"]
            if row["count_error"] is not None:
                count[depth][row["seed"]] = row["count_error"]
    rng = np.random.default_rng(0)
    together = {
        "f1": repeat_statistics.depth_agreement(f1["fast"], f1["full"], rng),
        "count_error": repeat_statistics.depth_agreement(count["fast"], count["full"], rng),
    }
    result = {
        "photos": "All 244 drinks photos, corrected labels",
        **depths,
        "agreement": together,
        "stamp": stamp(seed=0, threads=1),
    }
    write_json(out, result)
    return result


def main() -> None:
    """Run both depths, the fast one first, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("drinks", type=Path, help="Folder of the drinks photos.")
    parser.add_argument("start", type=Path, help="ImageNet weights of a MobileNetV2, .safetensors.")
    parser.add_argument("--fast", type=int, default=100, help="Repeats of the heads. Default: 100.")
    parser.add_argument(
        "--full", type=int, default=5, help="Repeats of the whole network. Default: 5."
    )
    parser.add_argument(
        "--full-epochs", type=int, default=FULL_EPOCHS, help="Epochs of the whole network."
    )
    parser.add_argument(
        "--shares", default="1", help="Shares of the training photos, for the fast depth."
    )
    parser.add_argument("--processes", type=int, default=2, help="Worker processes. Default: 2.")
    parser.add_argument(
        "--report", action="store_true", help="Write the result without running repeats."
    )
    parser.add_argument("--out", type=Path, default=RESULT, help="Result to write.")
    options = parser.parse_args()
    if not options.report:
        start, config = f"model.weights={options.start}", BENCHMARKS / "configs" / "drinks.toml"
        fast = repeats.make_repeat_settings(
            config_module.load_config(config, [start]), "fast", None, options.shares
        )
        full = repeats.make_repeat_settings(
            config_module.load_config(config, [start, *FULL]), "full", options.full_epochs
        )
        parts = photos(options.drinks)
        for plan, number in ((fast, options.fast), (full, options.full)):
            if number:
                study(parts, plan, RUNS / plan.depth, number, options.processes)
                report(options.out)
    result = report(options.out)
    for depth in ("fast", "full"):
        if measured := result.get(depth):
            spread = measured["f1"]
            low, high = spread["interval"]
            print(
                f"{depth}: median F1 {spread['median']:.3f} ({low:.3f} to {high:.3f}), "
                f"SD {spread['sd'] or 0:.3f}, {measured['repeats']} repeats"
            )
            print(
                f"  {repeat_statistics.repeats_needed_text(measured['repeats_needed'])}; "
                f"{measured['seconds_per_repeat']:g} s of CPU time each"
            )
    print(f"common splits: {result['agreement']['f1']['splits']}; {options.out}")


if __name__ == "__main__":
    main()
