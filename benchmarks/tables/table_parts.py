"""What the tables of the READMEs are put together from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_result(path: Path) -> dict[str, Any] | None:
    """A stamped result; None where it was not measured."""
    return json.loads(path.read_text()) if path.exists() else None


def rows_under(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def origin(result: dict[str, Any]) -> str:
    """When, at which commit and on what a result was measured, as a sentence."""
    made = result["stamp"]
    return f"Measured {made['date']} at commit {made['commit']} on {made['device']}, threads: {made['threads']}."
