"""Count products on shop shelves with a detector that fits a phone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shelfcount.counting.count import count

__version__ = "0.1.0"
__all__ = ["count"]


def __getattr__(name: str) -> Any:
    # The function is imported on first use, so that `import shelfcount` stays fast and its parts
    # that count on a small device do not load more than they need.
    if name != "count":
        raise AttributeError(f"module 'shelfcount' has no attribute '{name}'")
    # First, because it explains why OpenCV cannot be imported.
    import_module("shelfcount.vision")
    from shelfcount.counting.count import count

    globals()["count"] = count
    return count
