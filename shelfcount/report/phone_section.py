"""Budgets of phones on a page: a table for each phone, and where its latency comes from."""

from __future__ import annotations

from collections.abc import Sequence

from shelfcount.evaluation.phones import Line, Verdict
from shelfcount.report import page

TITLE = "Budgets of phones"


def section(verdicts: Sequence[Verdict]) -> page.Section:
    """One table for each phone; without phones the section is empty."""
    return page.Section(TITLE, [block for verdict in verdicts for block in _blocks(verdict)])


def _blocks(verdict: Verdict) -> list[page.Block]:
    columns = [page.Column(name) for name in (verdict.phone, "verdict", "got", "budget", "from")]
    rows = [[line.name, line.state, line.got, line.budget, line.basis] for line in verdict.lines]
    blocks: list[page.Block] = [page.Table(columns, rows, summary(verdict))]
    if verdict.sources:
        blocks.append(
            page.Details("What the estimate rests on", [page.Note("\n".join(verdict.sources))])
        )
    return blocks


def summary(verdict: Verdict) -> str:
    """Which lines are missed, and which are open."""
    missed, left = (_names(verdict.lines, state) for state in ("missed", "open"))
    said = f"Missed: {missed}." if missed else "No line of the budget is missed."
    return said + (f" Open, as not measured or not decided by an estimate: {left}." if left else "")


def _names(lines: Sequence[Line], state: str) -> str:
    return ", ".join(line.name for line in lines if line.state == state)
