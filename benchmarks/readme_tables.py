"""Fill the README's figures from the stamped results beside this file; no figure there is typed.

``python benchmarks/readme_tables.py`` writes them, ``--check`` only tells whether they are current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from shelfcount.evaluation.benchmark import Latency, Row
from shelfcount.report.bench import markdown
from shelfcount.report.page import NOT_MEASURED, show
from shelfcount.vision.images import write_whole

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
# As `shelfcount evaluate --json` writes them.
EVALUATED = {"float32, PyTorch": "drinks_float.json", "float32, LiteRT": "drinks_float32.json", "int8, LiteRT": "drinks_int8.json"}
# As `shelfcount bench` writes it.
COMPARED = "drinks_bench.json"
HEADS = ("drinks, 33 classes", "photos", "products", "F1", "macro F1", "precision", "recall", "F1, class ignored", "mAP", "count error")


def figures(results: Path) -> str:
    """The Markdown between the markers; a result that is not there reads "not measured"."""
    evaluated = {form: _read(results / file) for form, file in EVALUATED.items()}
    parts = [_table(evaluated)]
    float_model = next(iter(evaluated.values()))
    if float_model:
        parts.append(_training(float_model["model"]))
    parts += [_origin(result) for result in list(evaluated.values())[-1:] if result]
    compared = _read(results / COMPARED)
    if compared is None:
        parts.append(f"Size and latency against ResNet-50: {NOT_MEASURED}.")
    else:
        rows = tuple(Row(**{**row, "latency": Latency(**row["latency"])}) for row in compared["rows"])
        parts += [markdown(rows).strip(), f"{'; '.join(compared['verdict'])}. {_origin(compared)}"]
    return "\n\n".join(parts)


def replaced(readme: str, text: str) -> str:
    """The README with `text` between its markers.

    Raises:
        ValueError: If the markers are not there once each, in their order.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"README.md must hold '{BEGIN}' and then '{END}', once each")
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}"


def _table(evaluated: dict[str, dict[str, Any] | None]) -> str:
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    for form, result in evaluated.items():
        cells = [show(value) for value in (_scores(result) if result else [None] * (len(HEADS) - 1))]
        lines.append("| " + " | ".join([form, *cells]) + " |")
    return "\n".join(lines)


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
    """0 where the README is current or was written; 1 where ``--check`` finds it is not."""
    old = README.read_text()
    new = replaced(old, figures(RESULTS))
    if "--check" not in sys.argv[1:]:
        write_whole(README, new)
    elif new != old:
        print("README.md does not show the results in benchmarks/results. Run: python benchmarks/readme_tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
