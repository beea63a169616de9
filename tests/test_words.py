"""Tests of the wording of values."""

from __future__ import annotations

import pytest

from shelfcount.words import duration_words, plural


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 photos"), (1, "1 photo"), (2, "2 photos"), (999, "999 photos"), (1234, "1,234 photos")],
)
def test_only_one_is_singular(number: int, text: str) -> None:
    assert plural(number, "photo") == text


def test_a_noun_may_have_its_own_plural() -> None:
    assert plural(1, "box", "boxes") == "1 box"
    assert plural(0, "box", "boxes") == "0 boxes"
    assert plural(1234, "box", "boxes") == "1,234 boxes"


def test_durations_have_a_singular_too() -> None:
    assert [duration_words(s) for s in (0.2, 1.2, 89, 90)] == [
        "0 seconds",
        "1 second",
        "89 seconds",
        "1.5 minutes",
    ]
