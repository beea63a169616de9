"""Write all tables that are made of stamped results: pages, README and export/README.

    python benchmarks/tables/build_pages.py [--check]

Each page of docs/results is a template of the folder ``pages``, in which every ``{{ name }}`` is
replaced by a table. In README.md and export/README.md the text between markers is replaced. No
number of a result is typed by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import accuracy_tables
import baseline_tables
import label_tables
import quantization_tables
import repeats_tables
import robustness_tables
import runtimes_tables
import shelf_tables
import speed_tables
import training_tables

from shelfcount.files import write_whole

ROOT = Path(__file__).parents[2]
RESULTS, PAGES = ROOT / "benchmarks" / "results", Path(__file__).parent / "pages"
WRITTEN = (
    "<!-- benchmarks/tables/build_pages.py writes this page from "
    "benchmarks/tables/pages/{name} and benchmarks/results. -->\n\n"
)
Table = Callable[[Path], str]
# Tables by the name that a template gives them.
TABLES: dict[str, Table] = {
    "networks": accuracy_tables.networks,
    "errors": accuracy_tables.errors,
    "formats": baseline_tables.formats,
    "baseline trainings": baseline_tables.trainings,
    "input of 320 pixels": speed_tables.at_320,
    "baseline of 640 pixels": speed_tables.at_640,
    "with VNNI": speed_tables.with_vnni,
    "architectures": speed_tables.members,
    "phones": speed_tables.phones,
    "scaling": speed_tables.growth,
    "peers": speed_tables.peers,
    "quantization": quantization_tables.quantization,
    "weakest conditions": robustness_tables.weakest,
    "baseline under conditions": robustness_tables.baseline,
    "trained on conditions": robustness_tables.trained_on,
    "choice of the release": robustness_tables.choice,
    "repeats": repeats_tables.repeats,
    "planted faults": label_tables.planted_faults,
    "agreement": label_tables.agreement,
    "label errors": label_tables.label_errors,
    "label errors of folds": label_tables.label_errors_of_folds,
    "shelf": shelf_tables.shelf,
    "runtimes": runtimes_tables.consumers,
    "ablation": training_tables.steps,
    "ablation from the shipped weights": training_tables.steps_at_the_end,
    "training speed": training_tables.training_speed,
}
# Marker and table of the files that people write.
MARKED: dict[str, tuple[str, Table]] = {
    "README.md": ("figures", baseline_tables.short),
    "export/README.md": ("consumers", runtimes_tables.consumers),
}


def replaced(document: str, name: str, text: str) -> str:
    """Return a document with `text` between ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        ValueError: If the document does not contain each marker once, in this order.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    counts = document.count(begin), document.count(end)
    if counts != (1, 1) or document.index(begin) > document.index(end):
        raise ValueError(
            f"the document has {counts[0]} times '{begin}' and {counts[1]} times '{end}'. "
            f"It must contain '{begin}' and then '{end}', once each."
        )
    before, rest = document.split(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def filled(template: str, results: Path) -> str:
    """Return a template with its tables.

    Raises:
        KeyError: If the template names a table that does not exist.
    """
    return re.sub(r"\{\{ ([^}]+) \}\}", lambda match: TABLES[match[1]](results), template)


def documents(results: Path) -> dict[Path, str]:
    """Return the text of every file with tables, by path."""
    texts = {}
    for template in sorted(PAGES.glob("*.md")):
        text = WRITTEN.format(name=template.name) + filled(template.read_text(), results)
        texts[ROOT / "docs" / "results" / template.name] = text
    for file, (name, make) in MARKED.items():
        texts[ROOT / file] = replaced((ROOT / file).read_text(), name, make(results))
    return texts


def stale(texts: dict[Path, str]) -> list[Path]:
    """Return the files that do not exist or have another text."""
    return [path for path, text in texts.items() if not path.exists() or path.read_text() != text]


def main(arguments: list[str] | None = None) -> int:
    """Write the tables. With ``--check``, return 1 if one is not current."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="Only report whether all tables are current."
    )
    check, texts = parser.parse_args(arguments).check, documents(RESULTS)
    for path in (old := stale(texts)):
        name = path.relative_to(ROOT).as_posix()
        if check:
            print(f"{name} does not show the results in benchmarks/results.", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, texts[path])
            print(f"wrote {name}")
    if check and old:
        print("Run: python benchmarks/tables/build_pages.py", file=sys.stderr)
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
