"""Text of a robustness study: losses, severities and tolerances for tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shelfcount.words import show


def format_points(share: float | None) -> str:
    """Return a share in percentage points with its sign, as the page prints it.

    Args:
        share: Share such as an F1 difference, or None for "not measured".

    >>> format_points(-0.2174), format_points(0.001), format_points(None)
    ('−21.7', '+0.1', 'not measured')

    >>> format_points(-0.0002)
    '0.0'
    """
    if share is None:
        return show(None)
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def format_severity(number: float | None) -> str:
    """Return a parameter of a condition as text, with at least three significant digits.

    Args:
        number: Value of the parameter, or None for "not measured".

    >>> format_severity(4448.7), format_severity(0.0688), format_severity(5.0)
    ('4,449', '0.0688', '5')
    """
    if number is None:
        return show(None)
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def tolerance_text(summary: Mapping[str, Any], condition: Mapping[str, Any]) -> str:
    """Return in words up to which parameter a detector tolerates a condition.

    Args:
        summary: Summary of the detector under the condition.
        condition: JSON data of the condition.
    """
    if summary["never_tolerated"]:
        return f"not even at {format_severity(condition['severities'][0]['value'])}"
    if summary["tolerated_up_to"] is None:
        return f"beyond {format_severity(condition['severities'][-1]['value'])}"
    return f"to {format_severity(summary['tolerated_up_to'])}"


def mean_scores(i: int, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mean metrics of a detector over all conditions and severities.

    Args:
        i: Index of the detector.
        result: As for `write_stress_page`.

    Returns:
        ``name``, ``clean`` (F1 on the unchanged photos), and the means ``f1``, ``lost``,
        ``count_error`` and ``consistency``. Missing values are left out of a mean; it is None if
        all are missing.
    """
    cells = [
        step["detectors"][i]
        for condition in result["conditions"]
        for step in condition["severities"]
    ]
    known = {
        key: [cell[key] for cell in cells if cell[key] is not None]
        for key in ("f1", "lost", "count_error", "consistency")
    }
    means = {key: float(np.mean(shares)) if shares else None for key, shares in known.items()}
    return {"name": result["detectors"][i]["name"], "clean": result["detectors"][i]["f1"], **means}
