"""Count products on shop shelves with a detector that fits a phone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shelfcount.counting.count import count
    from shelfcount.counting.results import ShelfCount
    from shelfcount.deploy.export import export_run as export
    from shelfcount.studies.label_check import check_labels as check
    from shelfcount.studies.model_evaluation import evaluate_model as evaluate
    from shelfcount.training.train import train_run as train

__version__ = "0.1.0"
__all__ = ["ShelfCount", "check", "count", "evaluate", "export", "train"]

# Public name: module and name in it. A module is imported when its name is first used, so that
# `import shelfcount` is fast and counting does not load what only training needs.
_PLACES = {
    "count": ("shelfcount.counting.count", "count"),
    "ShelfCount": ("shelfcount.counting.results", "ShelfCount"),
    "check": ("shelfcount.studies.label_check", "check_labels"),
    "train": ("shelfcount.training.train", "train_run"),
    "evaluate": ("shelfcount.studies.model_evaluation", "evaluate_model"),
    "export": ("shelfcount.deploy.export", "export_run"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'shelfcount' has no attribute '{name}'")
    # First, because it explains why OpenCV cannot be imported.
    import_module("shelfcount.vision")
    module, attribute = _PLACES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
