"""Text of values: numbers, durations, speed factors and missing measurements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

NOT_MEASURED = "not measured"
# Beginning of a note that a user must not overlook.
WARNING = "warning: "


def plural(number: int, singular: str, plural_form: str | None = None) -> str:
    """Return a number with its noun in singular or plural.

    Args:
        number: Count of things. It is written with a comma between thousands.
        singular: Noun for one thing.
        plural_form: Noun for any other number of things. Default: `singular` with an "s".

    Returns:
        Number and noun, separated by a space.

    >>> plural(1, "photo"), plural(0, "photo"), plural(1234, "box", "boxes")
    ('1 photo', '0 photos', '1,234 boxes')
    """
    noun = singular if number == 1 else plural_form or f"{singular}s"
    return f"{number:,} {noun}"


def show(value: Any, digits: int = 3) -> str:
    """Return a value as the page prints it.

    Args:
        value: Number, bool, text, or None for "not measured". NaN and infinity are "undefined".
        digits: Number of decimals of a float.

    >>> show(5285), show(0.83149), show(None), show(float("nan"))
    ('5,285', '0.831', 'not measured', 'undefined')
    """
    if value is None:
        return NOT_MEASURED
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:,.{digits}f}" if math.isfinite(value) else "undefined"
    return str(value)


def duration_words(seconds: float) -> str:
    """Return a rounded duration with its unit, in minutes from 90 seconds on."""
    return f"{seconds / 60:.1f} minutes" if seconds >= 90 else plural(round(seconds), "second")


def format_factor(value: float) -> str:
    """Format a ratio of sizes or latencies with the digits that are significant.

    Returns:
        The ratio without decimals from 10 on, with one from 1.5 on, otherwise with two.
    """
    # Latency ratios are not precise to one decimal from 10 on; close to 1 the second decimal
    # matters.
    if value >= 10:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1.5 or value == 1 else f"{value:.2f}"
