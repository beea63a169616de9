"""Report section on phone budgets: one table per phone, and the sources of its latency."""

from __future__ import annotations

from collections.abc import Sequence

from shelfcount.report import page
from shelfcount.speed.phone_budgets import BudgetLine, BudgetResult

_TITLE = "Phone budgets"


def budget_section(verdicts: Sequence[BudgetResult]) -> page.Section:
    """Return a section with one table per phone. Without phones it has no blocks.

    Args:
        verdicts: Results against the budget of each phone.
    """
    return page.Section(_TITLE, [block for verdict in verdicts for block in _blocks(verdict)])


def _blocks(verdict: BudgetResult) -> list[page.Block]:
    heads = (verdict.phone, "result", "value", "budget", "source")
    columns = [page.Column(name) for name in heads]
    rows = [[line.name, line.state, line.got, line.budget, line.basis] for line in verdict.lines]
    blocks: list[page.Block] = [page.Table(columns, rows, budget_sentence(verdict))]
    if verdict.sources:
        blocks.append(
            page.Details("Sources of the estimate", [page.Note("\n".join(verdict.sources))])
        )
    return blocks


def budget_sentence(verdict: BudgetResult) -> str:
    """Return a sentence with the limits that are exceeded and those that remain open.

    Args:
        verdict: Result against the budget of one phone.
    """
    missed, undecided = (_names(verdict.lines, state) for state in ("missed", "open"))
    text = f"Missed: {missed}." if missed else "No limit of the budget is missed."
    if undecided:
        text += f" Open, since not measured or not decided by an estimate: {undecided}."
    return text


def _names(lines: Sequence[BudgetLine], state: str) -> str:
    return ", ".join(line.name for line in lines if line.state == state)
