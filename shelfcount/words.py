"""Wording of values in messages and reports."""

from __future__ import annotations


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
