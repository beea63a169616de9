"""Count products on shop shelves with a detector that fits a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shelfcount.report.results import count as count

__all__ = ["count"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `import shelfcount` stays light, and so do parts that count on a small machine.
    if name != "count":
        raise AttributeError(f"module 'shelfcount' has no attribute '{name}'")
    from shelfcount.report.results import count

    globals()["count"] = count
    return count
