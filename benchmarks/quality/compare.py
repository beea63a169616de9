"""Compare two results of `shelfcount bench` or `evaluate`, or two folders of them.

    python benchmarks/quality/compare.py OLD NEW [--json OUT.json]

Returns 1 if a value became worse by more than noise, and 2 if nothing can be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from shelfcount.files import write_json
from shelfcount.records import ShelfcountError
from shelfcount.studies.result_changes import folder_changes


def main(arguments: list[str] | None = None) -> int:
    """Print every value with its noise, and the numbers of changes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="Result before the change: a file or a folder.")
    parser.add_argument("new", type=Path, help="Result after the change: a file or a folder.")
    parser.add_argument("--json", type=Path, help="JSON file to write all changes to.")
    given = parser.parse_args(arguments)
    try:
        found = folder_changes(given.old, given.new)
    except ShelfcountError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, changes in found.items():
        print(name)
        for change in changes:
            print(f"  {change}")
    balance = Counter(change.state for changes in found.values() for change in changes)
    print(
        f"{balance['better']} better, {balance['worse']} worse, {balance['same']} within noise, "
        f"{balance['not compared']} not compared"
    )
    if given.json:
        write_json(
            given.json,
            {name: [asdict(change) for change in changes] for name, changes in found.items()},
        )
    return int(balance["worse"] > 0)


if __name__ == "__main__":
    sys.exit(main())
