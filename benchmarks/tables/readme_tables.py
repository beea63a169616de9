"""Fill the tables of README.md and export/README.md from the stamped results beside this file; no figure there is typed.

``python benchmarks/tables/readme_tables.py`` writes them, ``--check`` only tells whether they are current.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import quality_tables
import repeats_table
import shelf_tables
import speed_tables
import training_tables
from table_parts import origin, read_result, rows_under

from shelfcount.report.page import NOT_MEASURED, show
from shelfcount.vision.images import write_whole

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parents[1] / "results"
# As `shelfcount evaluate --json` writes them: NAME.json on the labels as published, NAME_corrected.json on the corrected ones.
EVALUATED = {
    "baseline: RetinaNet with ResNet-50 in float32, PyTorch": "drinks_baseline",
    "MobileNetV2 in float32, trained on labels as published": "drinks_published",
    "released network in float32, trained on labels as published": "drinks_uncorrected",
    "the same, trained on corrected labels": "drinks_plain",
    "the same, trained under bad light and other conditions too": "drinks_float",
    "the same, for longer and with products pasted in, as released": "drinks_released",
    "the same, LiteRT": "drinks_float32",
    "the released bundle: int8, LiteRT": "drinks_int8",
}
# As `shelfcount bench` writes it: all forms of the released network beside the trained baseline.
TRAINED = "drinks_bench_trained.json"
# As `benchmarks/quality/consumers.py` writes it.
CONSUMERS = "consumers.json"
CONSUMER_HEADS = (
    "consumer",
    "version",
    "form",
    "loads",
    "F1 on the golden photos",
    "largest box difference, px",
    "largest score difference",
)
CONSUMER_FIGURES = ("f1", "largest_box_px", "largest_score")
FIGURES = ("F1", "F1, class ignored", "mAP", "count error")
HEADS = ("drinks, 33 classes", *FIGURES, *(f"{name}; corrected" for name in FIGURES))


def figures(results: Path) -> str:
    """The Markdown between the markers; a result that is not there reads "not measured"."""
    evaluated = {
        form: (
            read_result(results / f"{name}.json"),
            read_result(results / f"{name}_corrected.json"),
        )
        for form, name in EVALUATED.items()
    }
    rows = [
        [form, *(show(value) for result in pair for value in _scores(result))]
        for form, pair in evaluated.items()
    ]
    parts = ["\n".join(rows_under(HEADS, rows))]
    published, corrected = list(evaluated.values())[-1]
    if published and corrected:
        parts.append(
            f"{published['photos']} photos with {published['boxes']:,} products as published and {corrected['boxes']:,} as corrected. "
            f"{_training(published['model'])} {origin(corrected)}"
        )
    baseline = read_result(results / "drinks_baseline.json")
    if baseline:
        parts.append(
            speed_tables.baseline(baseline["model"], results / "drinks_baseline_history.csv")
        )
    trained = read_result(results / TRAINED)
    if trained is None:
        parts.append(f"Size and latency against the baseline: {NOT_MEASURED}.")
    else:
        parts += [
            "The released bundle and other forms of its network beside this baseline:",
            *speed_tables.compared(trained),
        ]
        parts += speed_tables.plots(results)
    return "\n\n".join(parts)


def consumers(results: Path) -> str:
    """The released bundle in every runtime that apps use, as `benchmarks/quality/consumers.py` found it."""
    result = read_result(results / CONSUMERS)
    if result is None:
        return f"Consumers: {NOT_MEASURED}."
    # The main artifact's rows first, and those that ran before those that did not.
    rows = sorted(
        result["rows"],
        key=lambda row: (row["form"] != "model.tflite", "f1" not in row, row["consumer"].lower()),
    )
    return "\n\n".join(
        [
            "\n".join(rows_under(CONSUMER_HEADS, [_consumer(row) for row in rows])),
            _consumers_legend(result),
        ]
    )


# File and marker of each table, and what makes it.
TABLES: dict[tuple[str, str], Callable[[Path], str]] = {
    ("README.md", "figures"): figures,
    ("export/README.md", "consumers"): consumers,
    ("benchmarks/README.md", "ablation"): training_tables.steps,
    ("benchmarks/README.md", "ablation shipped"): training_tables.steps_at_the_end,
    ("benchmarks/README.md", "family"): training_tables.members,
    ("benchmarks/README.md", "at 320"): speed_tables.at_320,
    ("benchmarks/README.md", "at 640"): speed_tables.at_640,
    ("benchmarks/README.md", "with VNNI"): speed_tables.with_vnni,
    ("benchmarks/README.md", "phones"): speed_tables.phones,
    ("benchmarks/README.md", "training speed"): training_tables.training_speed,
    ("benchmarks/README.md", "held back"): training_tables.held_back,
    ("benchmarks/README.md", "quantization"): training_tables.quantization,
    ("benchmarks/README.md", "peers"): speed_tables.peers,
    ("benchmarks/README.md", "scaling"): speed_tables.growth,
    ("benchmarks/README.md", "robustness"): quality_tables.robustness,
    ("benchmarks/README.md", "planted faults"): quality_tables.planted_faults,
    ("benchmarks/README.md", "agreement"): quality_tables.agreement,
    ("benchmarks/README.md", "label errors"): quality_tables.label_errors,
    ("benchmarks/README.md", "label errors of folds"): quality_tables.label_errors_of_folds,
    ("benchmarks/README.md", "repeats"): repeats_table.repeats,
    ("benchmarks/README.md", "shelf"): shelf_tables.shelf,
}


def replaced(readme: str, name: str, text: str) -> str:
    """The README with `text` between its markers ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        ValueError: If the markers are not there once each, in their order.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if (
        readme.count(begin) != 1
        or readme.count(end) != 1
        or readme.index(begin) > readme.index(end)
    ):
        raise ValueError(f"the README must hold '{begin}' and then '{end}', once each")
    before, rest = readme.split(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def _consumer(row: dict[str, Any]) -> list[str]:
    head = [
        row["consumer"],
        row.get("version", "-"),
        f"`{row['form']}`",
        "yes" if "version" in row else "-",
    ]
    return (
        [*head, *(show(row[key]) for key in CONSUMER_FIGURES)]
        if "f1" in row
        else [*head, row["reason"], "-", "-"]
    )


def _consumers_legend(result: dict[str, Any]) -> str:
    bits = result["arm_bits"]
    if "values" in bits:
        arm = (
            f"Given the same pixels, the {bits['values']:,} int8 outputs of the network on {bits['photos']} photos "
            f"differ between Arm's and x86-64's kernels in {bits['different']} places."
        )
    else:
        arm = f"Whether Arm's kernels give the same int8 outputs as x86-64's: {bits['reason']}."
    return (
        f"Bundle {result['name']} (sha256 {result['sha256'][:12]}...) on {result['photos']} golden photos with "
        f"{result['products']} products, where shelfcount's own runtime has F1 {show(result['f1'])}. "
        f"Differences are to its detections; for `model-raw.tflite` to its own "
        f"decoding of the same file, with the suppression that MediaPipe does there. {arm} {origin(result)}"
    )


def _scores(result: dict[str, Any] | None) -> list[Any]:
    if result is None:
        return [None] * len(FIGURES)
    return [
        result["f1"],
        result["any_class"]["f1"],
        result["map"],
        result["count_error"]["by_class"]["relative"],
    ]


def _training(model: dict[str, Any]) -> str:
    made = model["trained"]
    return (
        f"The last was trained for {model['minutes']:.1f} minutes on {model['photos']} photos, "
        f"from {model['start'].split(' (')[0]}, seed {model['seed']}, at commit {made['commit']} on {made['device']}. "
        f"F1 on validation was {model['val_f1']:.3f}."
    )


def main() -> int:
    """0 where the tables are current or were written; 1 where ``--check`` finds one that is not."""
    check, stale = "--check" in sys.argv[1:], False
    for (file, name), make in TABLES.items():
        old = (ROOT / file).read_text()
        new = replaced(old, name, make(RESULTS))
        if not check:
            write_whole(ROOT / file, new)
        elif new != old:
            print(
                f"{file} does not show the results in benchmarks/results. Run: python benchmarks/tables/readme_tables.py",
                file=sys.stderr,
            )
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
