"""Chance-corrected agreement on class names: Cohen's kappa and Krippendorff's alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def kappa(table: NDArray[np.int64]) -> float | None:
    """Return Cohen's kappa as NLTK computes it.

    Args:
        table: (n, n) int64 confusion matrix. Rows are classes of the first annotation, columns
            those of the second.

    Returns:
        Kappa, at most 1; None if the table contains fewer than two classes, since kappa is then
        undefined.

    >>> round(kappa(np.array([[20, 5], [10, 15]])), 3)
    0.4
    """
    return float(named_table(table).kappa()) if _several(table) else None


def alpha(table: NDArray[np.int64]) -> float | None:
    """Return Krippendorff's alpha of two annotations as NLTK computes it.

    Args:
        table: (n, n) int64 confusion matrix. Rows are values of the first annotation, columns
            those of the second.

    Returns:
        Alpha, at most 1; None if the table contains fewer than two values, since alpha is then
        undefined.
    """
    return float(named_table(table).alpha()) if _several(table) else None


def _several(table: NDArray[np.int64]) -> bool:
    """Return True if the table contains at least two classes."""
    return bool(np.count_nonzero(table.sum(axis=0) + table.sum(axis=1)) > 1)


def named_table(table: NDArray[np.int64]) -> Any:
    """Return NLTK's annotation task with one item per count of the table."""
    # The import takes a second and is needed only for a second annotation.
    from nltk.metrics.agreement import AnnotationTask

    answers = np.indices(table.shape).reshape(2, -1).repeat(table.ravel(), axis=1).tolist()
    return AnnotationTask(
        [
            (annotator, item, name)
            for annotator, names in enumerate(answers)
            for item, name in enumerate(names)
        ]
    )


def misnamed_by_each(naming: float, classes: int) -> float | None:
    """Return the error rate c that solves (1 - c)^2 + c^2 / (classes - 1) = naming.

    The left side is the probability that both annotators are correct or make the same error.
    """
    if classes < 2:
        return None
    a = 1 + 1 / (classes - 1)
    root = 1 - a * (1 - naming)
    return float((1 - np.sqrt(root)) / a) if root >= 0 else None
