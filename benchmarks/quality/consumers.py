"""Run the released bundle in every runtime that apps use, and write the table of runtimes.

    python benchmarks/quality/consumers.py

Writes benchmarks/results/consumers.json and runs benchmarks/tables/build_pages.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from shelfcount.files import write_json
from shelfcount.stamp import stamp

ROOT = Path(__file__).parents[2]


def measure() -> dict[str, Any]:
    """Run the tests of the runtimes and return their results.

    Raises:
        subprocess.CalledProcessError: If a test failed. pytest has printed which one.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SHELFCOUNT_CONSUMERS_OUT": folder}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "slow",
            "tests/integration/test_consumers.py",
        ]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        found = {
            path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))
        }
    return {
        **found.pop("bundle"),
        "arm_bits": found.pop("arm-bits"),
        "rows": list(found.values()),
        "stamp": stamp(threads=1),
    }


def main() -> int:
    """Write the table. Returns 1 if a runtime failed."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    try:
        result = measure()
    except subprocess.CalledProcessError:
        return 1
    write_json(ROOT / "benchmarks" / "results" / "consumers.json", result)
    subprocess.run([sys.executable, ROOT / "benchmarks" / "tables" / "build_pages.py"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
