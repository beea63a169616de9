"""Parts that the tables of all result pages have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shelfcount.words import NOT_MEASURED, plural


def read_result(path: Path) -> dict[str, Any] | None:
    """Read a stamped result. Returns None if the file does not exist."""
    return json.loads(path.read_text()) if path.exists() else None


def not_measured(what: str) -> str:
    """Return the sentence that replaces a table without a result."""
    return f"{what}: {NOT_MEASURED}."


def rows_under(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(rows_under(heads, rows))


def percent(share: float) -> str:
    """Return a share as a percentage with one digit after the point."""
    return f"{100 * share:.1f} %"


def origin(result: dict[str, Any]) -> str:
    """Return when, at which commit and on which device a result was measured, as a sentence."""
    made = result["stamp"]
    threads = "" if made["threads"] is None else f", {plural(made['threads'], 'thread')}"
    return f"Measured {made['date']} at commit {made['commit']} on {made['device']}{threads}."
