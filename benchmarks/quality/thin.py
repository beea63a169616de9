"""Make stored results small: one row per line, and rows for single photos in another file.

    python benchmarks/quality/thin.py [RESULT.json]...

Without arguments, all results in ``benchmarks/results`` are rewritten. In each result

* the confusion matrix is left out, since no table and no comparison reads it,
* ``per_photo`` is moved to ``NAME.per_photo.json.gz``, which ``compare.py`` reads,
* a list or an object that fits on a line is written on one line.

A result that is thin already stays as it is, byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shelfcount.studies.result_files import thin_result

RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the results and say how many changed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "results", nargs="*", type=Path, help="Results to rewrite. Default: benchmarks/results."
    )
    given = parser.parse_args(arguments).results or sorted(RESULTS.glob("*.json"))
    changed = [path for path in given if thin_result(path)]
    print(f"{len(changed)} of {len(given)} results rewritten")
    return 0


if __name__ == "__main__":
    sys.exit(main())
