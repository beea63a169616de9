"""Alignment of a planogram with a shelf: rows with rows, and facings with facings.

Sequence alignment (Needleman and Wunsch, 1970) keeps one extra product from shifting
everything that follows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

from shelfcount.shelf.facings import Arrangement, ShelfGap
from shelfcount.shelf.planogram import Planogram

# Costs of an alignment per facing. A facing with another product costs a little less than a missing
# and an extra one, so that it is reported as replaced, but never at the expense of a correct
# product. A missing facing is assigned to a gap of the shelf rather than to another position in its
# run.
LACKING, LACKING_AT_HOLE, SURPLUS, REPLACED = 100, 99, 100, 199
# (row, product) of a plan.
Run = tuple[int, int]
# (row of the plan, row of the shelf) from the top, None if there is no counterpart.
RowPairs = tuple[tuple[int | None, int | None], ...]


# ---------------------------------------------------------------- alignment


@dataclass(frozen=True)
class AlignmentStep:
    """One step of an alignment: a planned facing, a detected product or gap, or both.

    Attributes:
        planned: Class of the planned facing, empty if there is none.
        run: (row, product) of the planned facing, None if there is none.
        shelf_row: Row of the shelf; None if no row of the shelf corresponds to the row of the plan.
        index: Index of the detected product, -1 if there is none.
        detected: Class of the detected product, empty if there is none.
        gap: The gap of the shelf, if there is one.
        on_top: Whether the product is stacked on a facing.
    """

    planned: str = ""
    run: Run | None = None
    shelf_row: int | None = None
    index: int = -1
    detected: str = ""
    gap: ShelfGap | None = None
    on_top: bool = False

    @property
    def right(self) -> bool:
        return self.planned == self.detected

    @property
    def lacking(self) -> bool:
        return bool(self.planned) and not self.right

    @property
    def surplus(self) -> bool:
        return bool(self.detected) and not self.right


def align_rows(plan: Planogram, arrangement: Arrangement) -> tuple[RowPairs, list[AlignmentStep]]:
    """Return the pairs of plan and shelf rows, and the steps through all rows from the top."""
    planned = [
        [
            AlignmentStep(product.name, (r, p))
            for p, product in enumerate(row.products)
            for _ in range(product.facings)
        ]
        for r, row in enumerate(plan.rows)
    ]
    shelf_rows = [_walk(arrangement, row) for row in range(arrangement.n_rows)]
    paired = [
        [_align_facings(plan_row, shelf_row) for shelf_row in shelf_rows] for plan_row in planned
    ]
    unmet = [_align_facings(plan_row, []) for plan_row in planned]
    unplanned = [_align_facings([], shelf_row) for shelf_row in shelf_rows]
    _, rows = _align(
        [[cost for cost, _ in row] for row in paired],
        [cost for cost, _ in unmet],
        [cost for cost, _ in unplanned],
    )
    steps: list[AlignmentStep] = []
    for r, s in rows:
        _, within = unplanned[s or 0] if r is None else unmet[r] if s is None else paired[r][s]
        steps += within
    return tuple(rows), steps


def _walk(arrangement: Arrangement, row: int) -> list[AlignmentStep]:
    """Return the facings and gaps of a row of the shelf as steps, from left to right.

    A gap with room for several facings is several steps.
    """
    gaps = {gap.after: gap for gap in arrangement.gaps if gap.row == row}
    steps = []
    for column, index in enumerate(arrangement.facings(row).tolist()):
        steps.append(AlignmentStep(shelf_row=row, index=index, detected=arrangement.names[index]))
        if gap := gaps.get(column):
            steps += [AlignmentStep(shelf_row=row, gap=gap)] * gap.facings
    return steps


def _align_facings(
    planned: list[AlignmentStep], detected: list[AlignmentStep]
) -> tuple[int, list[AlignmentStep]]:
    """Return the cost and the steps of the best alignment of a plan row with a shelf row."""
    costs = [
        [0 if w.planned == f.detected else LACKING_AT_HOLE if f.gap else REPLACED for f in detected]
        for w in planned
    ]
    cost, pairs = _align(
        costs, [LACKING] * len(planned), [0 if f.gap else SURPLUS for f in detected]
    )
    nothing = AlignmentStep(shelf_row=detected[0].shelf_row if detected else None)
    steps = []
    for i, j in pairs:
        step = nothing if j is None else detected[j]
        if i is not None:
            steps.append(replace(step, planned=planned[i].planned, run=planned[i].run))
        elif step.detected:
            steps.append(step)
    return cost, steps


def _align(
    pair: list[list[int]], drop: list[int], add: list[int]
) -> tuple[int, list[tuple[int | None, int | None]]]:
    """Align two sequences with minimum cost by dynamic programming (Needleman and Wunsch, 1970).

    Args:
        pair: Cost of aligning item i of the first sequence with item j of the second.
        drop: Cost of each item of the first sequence without a counterpart.
        add: Cost of each item of the second sequence without a counterpart.

    Returns:
        The cost, and pairs (i, j) in order, None for no counterpart.
    """
    best = [[0, *accumulate(add)]]
    for i, alone in enumerate(drop):
        row = [best[i][0] + alone]
        for j, extra in enumerate(add):
            row.append(min(best[i][j] + pair[i][j], best[i][j + 1] + alone, row[j] + extra))
        best.append(row)
    i, j = len(drop), len(add)
    pairs: list[tuple[int | None, int | None]] = []
    while i or j:
        if i and j and best[i][j] == best[i - 1][j - 1] + pair[i - 1][j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and best[i][j] == best[i - 1][j] + drop[i - 1]:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return best[-1][-1], pairs[::-1]
