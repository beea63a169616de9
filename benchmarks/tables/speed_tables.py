"""What the READMEs say of the baseline, of peers and of growth, from the stamped results; `readme_tables.py` writes it."""

from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path
from typing import Any

from table_parts import origin, read_result, rows_under

from shelfcount.evaluation.benchmark import Latency, Ratio, Row, times_words
from shelfcount.report.bench import markdown
from shelfcount.report.page import NOT_MEASURED, show

# As `readme_plots.py` draws them.
PLOTS = {
    "drinks_f1_latency.png": "F1 of each form of the released network and of the baseline, over the time of one photo",
    "drinks_f1_size.png": "F1 of the same, over the size of the file",
    "drinks_f1_classes.png": "F1 of each class, of the released bundle and of the baseline",
    "drinks_baseline_curve.png": "Loss and validation F1 of the baseline over the epochs of its trainings",
}
PEER_HEADS = (
    "detector",
    "form",
    "input",
    "MB",
    "GMAC",
    "memory, MB",
    "p50 ms",
    "p90 ms",
    "times the bundle's time",
    "outside XNNPACK",
    "only move data",
)


def baseline(model: dict[str, Any], history: Path) -> str:
    """How the baseline came about, and how far its learning curve had come.

    Args:
        model: As `shelfcount evaluate` writes it.
        history: CSV of all its trainings, with their names in a column `run`.
    """
    made, how, curve = model["trained"], "", ""
    if history.exists():
        with history.open(newline="") as file:
            runs = {
                run: list(epochs)
                for run, epochs in groupby(csv.DictReader(file), key=lambda row: row["run"])
            }
        ends = [
            f"{float(epochs[-1]['val_f1']):.3f} after {len(epochs)} epochs of {run}"
            for run, epochs in runs.items()
        ]
        how, curve = f" in {len(runs)} trainings,", f" F1 on validation: {', '.join(ends)}."
    return (
        f"The baseline was trained by [baseline.sh](benchmarks/quality/baseline.sh) with [baseline.toml](benchmarks/configs/baseline.toml), "
        f"seed {model['seed']},{how} the last in {model['minutes']:.1f} minutes from "
        f"{model['start']}, at commit {made['commit']} on {made['device']}.{curve}"
    )


def plots(results: Path) -> list[str]:
    """The README's pictures of the comparison that were drawn, as one paragraph; none, where none was."""
    # Two fit side by side on GitHub.
    drawn = [
        f'<img src="benchmarks/results/{name}" alt="{alt}" width="49%">'
        for name, alt in PLOTS.items()
        if (results / name).exists()
    ]
    return ["\n".join(drawn)] if drawn else []


def compared(result: dict[str, Any]) -> list[str]:
    """A result of `shelfcount bench` as a table and a paragraph: its forms, its verdict, and what it was counted against."""
    rows = tuple(Row(**{**row, "latency": Latency(**row["latency"])}) for row in result["rows"])
    against = f"F1, mAP and count error of this table are against {result['evaluation']['boxes']:,} products"
    return [markdown(rows).strip(), f"{'; '.join(result['verdict'])}. {against}. {origin(result)}"]


def at_320(results: Path) -> str:
    """The network at 320 pixels against the baseline at 640, as `shelfcount bench` compared them."""
    return _benched(results, "drinks_bench_320.json", "At 320 pixels")


def at_640(results: Path) -> str:
    """The released bundle against an untrained baseline at the size that RetinaNet is published with, as `bench` compared them."""
    return _benched(results, "drinks_bench.json", "Beside a baseline at 640 pixels")


def with_vnni(results: Path) -> str:
    """The same on a processor with instructions for sums of int8 products, by all forms of the network as it was released before."""
    return _benched(results, "drinks_bench_vnni.json", "With AVX-512 and VNNI")


def _benched(results: Path, name: str, what: str) -> str:
    result = read_result(results / name)
    return f"{what}: {NOT_MEASURED}." if result is None else "\n\n".join(compared(result))


def phones(results: Path) -> str:
    """The released bundle against the budgets of the phones in this folder, as `bench` judged them."""
    result = read_result(results / "drinks_bench_trained.json")
    if result is None:
        return f"Phones: {NOT_MEASURED}."
    keys = ("name", "budget", "got", "state", "basis")
    rows = [
        [verdict["phone"], *(line[key] for key in keys)]
        for verdict in result["phones"]
        for line in verdict["lines"]
    ]
    return "\n\n".join(
        [
            "\n".join(rows_under(("phone", "what", "budget", "got", "verdict", "basis"), rows)),
            origin(result),
        ]
    )


def peers(results: Path) -> str:
    """The released bundle beside public detectors, as `peers.py` measured them."""
    result = read_result(results / "peers.json")
    if result is None:
        return f"Peers: {NOT_MEASURED}."
    left = "".join(
        f" Not measured: {missing['peer']}, as {missing['reason']}"
        for missing in result["left_out"]
    )
    sources = "; ".join(dict.fromkeys(f"{row['name']}: {row['source']}" for row in result["rows"]))
    legend = (
        f"One photo up to the heads, without suppression, {result['rows'][0]['latency']['runs']} runs each, in turn; the ratio is that of "
        "paired runs, in brackets its 10th and 90th percentile. The peers know other classes, so F1 is not compared. "
        f"{sources}.{left} {origin(result)}"
    )
    return "\n\n".join(
        ["\n".join(rows_under(PEER_HEADS, [_peer(row) for row in result["rows"]])), legend]
    )


def _peer(row: dict[str, Any]) -> list[str]:
    memory, times, latency = (
        row["memory"] and row["memory"] / 1e6,
        row["times_bundle"],
        row["latency"],
    )
    costs = (
        (row["size"] / 1e6, 2),
        (row["macs"] / 1e9, 2),
        (memory, 1),
        (latency["p50"], 1),
        (latency["p90"], 1),
    )
    head = [row["name"], row["form"], f"{row['width']} x {row['height']}"]
    against = times_words(Ratio(**times)) if times else "the bundle"
    return [
        *head,
        *(show(value, digits) for value, digits in costs),
        against,
        ", ".join(row["outside"]) or "none",
        ", ".join(row.get("moving", ())) or "none",
    ]


def growth(results: Path) -> str:
    """What a count costs as things grow, in the words of `scaling.py`, and its picture."""
    result = read_result(results / "scaling.json")
    if result is None:
        return f"Growth: {NOT_MEASURED}."
    said = [
        f"- **{part['axis']}**: {' '.join(part['says'])}"
        for part in result.values()
        if isinstance(part, dict) and "says" in part
    ]
    picture = "![Time over the input's side, classes, products, megapixels and photos of a batch](results/scaling.png)"
    return "\n\n".join([picture, "\n".join(said), origin(result)])
