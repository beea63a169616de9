"""Fill the tables of README.md and export/README.md from the stamped results beside this file; no figure there is typed.

``python benchmarks/readme_tables.py`` writes them, ``--check`` only tells whether they are current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shelfcount.evaluation.benchmark import Latency, Row
from shelfcount.report.bench import markdown
from shelfcount.report.page import NOT_MEASURED, show
from shelfcount.vision.images import write_whole

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
# As `shelfcount evaluate --json` writes them.
EVALUATED = {
    "float32, PyTorch": "drinks_float.json",
    "float32, LiteRT": "drinks_float32.json",
    "int8, LiteRT": "drinks_int8.json",
    "float32, PyTorch; corrected labels": "drinks_float_corrected.json",
    "int8, LiteRT; corrected labels": "drinks_int8_corrected.json",
}
# As `shelfcount bench` writes it.
COMPARED = "drinks_bench.json"
# As `export/consumers.py` writes it.
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
HEADS = ("drinks, 33 classes", "photos", "products", "F1", "macro F1", "precision", "recall", "F1, class ignored", "mAP", "count error")


def figures(results: Path) -> str:
    """The Markdown between the markers; a result that is not there reads "not measured"."""
    evaluated = {form: _read(results / file) for form, file in EVALUATED.items()}
    parts = [_table(evaluated)]
    float_model = next(iter(evaluated.values()))
    if float_model:
        parts.append(_training(float_model["model"]))
    parts += [_origin(result) for result in [r for r in evaluated.values() if r][-1:]]
    compared = _read(results / COMPARED)
    if compared is None:
        parts.append(f"Size and latency against ResNet-50: {NOT_MEASURED}.")
    else:
        rows = tuple(Row(**{**row, "latency": Latency(**row["latency"])}) for row in compared["rows"])
        parts += [markdown(rows).strip(), f"{'; '.join(compared['verdict'])}. {_origin(compared)}"]
    return "\n\n".join(parts)


def consumers(results: Path) -> str:
    """The released bundle in every runtime that apps use, as `export/consumers.py` found it."""
    result = _read(results / CONSUMERS)
    if result is None:
        return f"Consumers: {NOT_MEASURED}."
    # The main artifact's rows first, and those that ran before those that did not.
    rows = sorted(result["rows"], key=lambda row: (row["form"] != "model.tflite", "f1" not in row, row["consumer"].lower()))
    return "\n\n".join(["\n".join(_markdown(CONSUMER_HEADS, [_consumer(row) for row in rows])), _consumers_legend(result)])


# File and marker of each table, and what makes it.
TABLES: dict[tuple[str, str], Callable[[Path], str]] = {("README.md", "figures"): figures, ("export/README.md", "consumers"): consumers}


def replaced(readme: str, name: str, text: str) -> str:
    """The README with `text` between its markers ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        ValueError: If the markers are not there once each, in their order.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if readme.count(begin) != 1 or readme.count(end) != 1 or readme.index(begin) > readme.index(end):
        raise ValueError(f"the README must hold '{begin}' and then '{end}', once each")
    before, rest = readme.split(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", *("| " + " | ".join(row) + " |" for row in rows)]


def _consumer(row: dict[str, Any]) -> list[str]:
    head = [row["consumer"], row.get("version", "-"), f"`{row['form']}`", "yes" if "version" in row else "-"]
    return [*head, *(show(row[key]) for key in CONSUMER_FIGURES)] if "f1" in row else [*head, row["reason"], "-", "-"]


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
        f"decoding of the same file, with the suppression that MediaPipe does there. {arm} {_origin(result)}"
    )


def _table(evaluated: dict[str, dict[str, Any] | None]) -> str:
    shown = {form: _scores(result) if result else [None] * (len(HEADS) - 1) for form, result in evaluated.items()}
    return "\n".join(_markdown(HEADS, [[form, *map(show, values)] for form, values in shown.items()]))


def _scores(result: dict[str, Any]) -> list[Any]:
    keys = ("photos", "boxes", "f1", "macro_f1", "precision", "recall")
    return [*(result[key] for key in keys), result["any_class"]["f1"], result["map"], result["count_error"]["by_class"]["relative"]]


def _training(model: dict[str, Any]) -> str:
    made = model["trained"]
    return (
        f"Trained for {model['minutes']:.1f} minutes on {model['photos']} photos with {model['boxes']:,} boxes, from {model['start']}, "
        f"seed {model['seed']}, at commit {made['commit']} on {made['device']}. F1 on validation was {model['val_f1']:.3f}."
    )


def _origin(result: dict[str, Any]) -> str:
    made = result["stamp"]
    return f"Measured {made['date']} at commit {made['commit']} on {made['device']}, threads: {made['threads']}."


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def main() -> int:
    """0 where the tables are current or were written; 1 where ``--check`` finds one that is not."""
    check, stale = "--check" in sys.argv[1:], False
    for (file, name), make in TABLES.items():
        old = (ROOT / file).read_text()
        new = replaced(old, name, make(RESULTS))
        if not check:
            write_whole(ROOT / file, new)
        elif new != old:
            print(f"{file} does not show the results in benchmarks/results. Run: python benchmarks/readme_tables.py", file=sys.stderr)
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
