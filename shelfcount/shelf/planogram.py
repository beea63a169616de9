"""The planogram: what should stand on a shelf, and how what stands there departs from it.

Shelf and plan are aligned as two texts would be: rows with rows, and within two rows facings
with facings, so that one product too many does not make all that follow it wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any, Literal

import numpy as np

from shelfcount.data.plans import Plan
from shelfcount.records import ShelfcountError
from shelfcount.shelf.facings import Arrangement, Gap, xywh

# What an alignment pays for a facing. One that holds another product costs a little less than a missing and an
# extra one, so that it is read as replaced, but never at the price of a product that is right. A facing
# is rather missing where the photo shows a hole than elsewhere in its run.
LACKING, LACKING_AT_HOLE, SURPLUS, REPLACED = 100, 99, 100, 199

Box = tuple[float, float, float, float]
# (row, product) of a plan.
Run = tuple[int, int]
# (row of the plan, row of the shelf) from the top, None for no counterpart.
RowPairs = tuple[tuple[int | None, int | None], ...]
Kind = Literal["missing", "extra", "misplaced", "wrong_facings", "wrong_product"]


def learn(arrangement: Arrangement, name: str = "") -> Plan:
    """The plan that a shelf meets as it is.

    Raises:
        ShelfcountError: If nothing stands on it.
    """
    if not arrangement.n_rows:
        raise ShelfcountError(
            "a plan is learnt from a photo with products, got one on which none were found. Choose another photo."
        )
    names = arrangement.names
    rows = []
    for row in range(arrangement.n_rows):
        products = []
        for kind, facings in groupby(arrangement.facings(row).tolist(), key=lambda i: names[i]):
            run = list(facings)
            on_top = {names[i] for i in np.flatnonzero(np.isin(arrangement.foot, run))} - {kind}
            products.append({"class": kind, "facings": len(run), "on_top": sorted(on_top)})
        rows.append({"products": products})
    return Plan.model_validate({"version": 1, "name": name, "rows": rows}, strict=False)


@dataclass(frozen=True)
class Deviation:
    """One way in which the shelf departs from its plan.

    Attributes:
        kind: ``missing``, no facing of a planned product is there; ``extra``, a product that is not planned
            there; ``misplaced``, a product that is missing at its place and stands elsewhere;
            ``wrong_facings``, a product at its place has more or fewer facings than planned;
            ``wrong_product``, a facing of one product holds another.
        name: Class of the planned product; for ``extra``, of the one that is there.
        facings: How many facings depart from the plan.
        plan_row: Row of the plan, 0 for the top; None for ``extra``.
        shelf_row: Row of the shelf, 0 for the top, where the product stands or is lacking; None where no row of
            the shelf is that of the plan.
        planned: Facings that the plan gives the product there, 0 for ``extra``.
        seen: Facings that stand there in order.
        instead: Class found on the facing, for ``wrong_product``.
        boxes: xyxy pixels of the photo, the products that should not stand where they do.
        places: xyxy pixels of the photo, where something is lacking; estimated from the neighbours, so it
            may cover them or reach beyond the photo.
    """

    kind: Kind
    name: str
    facings: int
    plan_row: int | None
    shelf_row: int | None
    planned: int = 0
    seen: int = 0
    instead: str = ""
    boxes: tuple[Box, ...] = ()
    places: tuple[Box, ...] = ()

    def __str__(self) -> str:
        facings = "1 facing" if self.facings == 1 else f"{self.facings} facings"
        match self.kind:
            case "missing":
                return f"planned row {self.plan_row}: {self.name} is missing, {facings}"
            case "extra":
                return f"row {self.shelf_row}: {self.name} is not planned here, {facings}"
            case "misplaced":
                return f"row {self.shelf_row}: {self.name} belongs to another place in planned row {self.plan_row}, {facings}"
            case "wrong_facings":
                seen = "1 facing" if self.seen == 1 else f"{self.seen} facings"
                return f"row {self.shelf_row}: {self.name} has {seen}, planned {'is' if self.planned == 1 else 'are'} {self.planned}"
            case "wrong_product":
                return f"row {self.shelf_row}: {self.instead} stands on {facings} of {self.name}"


@dataclass(frozen=True)
class Verdict:
    """How well a shelf meets its plan.

    Attributes:
        plan: Its name.
        right: Indices of the products that stand on a facing planned for them, in order.
        deviations: By row of the plan, then what is planned nowhere.
        rows: (row of the plan, row of the shelf) from the top, None where there is no counterpart.
    """

    plan: str
    right: tuple[int, ...]
    deviations: tuple[Deviation, ...]
    rows: RowPairs

    @property
    def score(self) -> float:
        """Compliance: facings that are right / (facings that are right + facings of all deviations), 0 to 1.

        A facing counts once, whatever is wrong with it: a misplaced product as one, not as one missing
        and one extra. 1 means that there are no deviations.
        """
        wrong = sum(deviation.facings for deviation in self.deviations)
        return len(self.right) / (len(self.right) + wrong)

    def to_json(self) -> dict[str, Any]:
        """What ``shelfcount planogram --json`` writes for a photo; boxes are (x, y, width, height) in pixels of the photo."""
        deviations = []
        for deviation in self.deviations:
            entry = {key: value for key, value in vars(deviation).items() if key != "name"}
            boxes = {key: [xywh(box) for box in entry.pop(key)] for key in ("boxes", "places")}
            deviations.append(
                {
                    "kind": entry.pop("kind"),
                    "class": deviation.name,
                    **entry,
                    **boxes,
                    "message": str(deviation),
                }
            )
        return {
            "plan": self.plan,
            "score": round(self.score, 4),
            "right": len(self.right),
            "rows": self.rows,
            "deviations": deviations,
        }


def judge(plan: Plan, arrangement: Arrangement) -> Verdict:
    """Align a shelf with its plan and list what differs.

    What the detector missed is missing here too. A hole where the plan has no facing is no deviation.
    """
    rows, steps = _align_rows(plan, arrangement)
    steps += _strangers_on_top(plan, arrangement, steps)
    beside = {k: run for k in range(len(steps)) if (run := _run_beside(steps, k)) is not None}
    reading = _Reading(plan, steps, arrangement.boxes, beside, _moved(steps, beside))
    runs = dict.fromkeys(step.run for step in steps if step.run is not None)
    deviations = [deviation for run in runs for deviation in reading.of_run(run)]
    right = tuple(step.seen for step in steps if step.right)
    return Verdict(plan.name, right, (*deviations, *reading.extras()), rows)


@dataclass(frozen=True)
class _Reading:
    """Aligned steps, read as deviations.

    Attributes:
        steps: Through plan and shelf; a step's number is its place here.
        boxes: (n, 4) xyxy of the products, pixels of the photo.
        beside: Surplus step to the run of its class that it makes longer.
        moved: Step that lacks a product to the surplus step that has it.
    """

    plan: Plan
    steps: list[_Step]
    boxes: np.ndarray
    beside: dict[int, Run]
    moved: dict[int, int]

    def of_run(self, run: Run) -> Iterator[Deviation]:
        """What is wrong with one product of one planned row."""
        product = self.plan.rows[run[0]].products[run[1]]
        own = [k for k, step in enumerate(self.steps) if step.run == run]
        more = [k for k, longer in self.beside.items() if longer == run]
        right = sum(self.steps[k].right for k in own)
        blank = Deviation(
            "missing",
            product.name,
            0,
            run[0],
            self.steps[own[0]].shelf_row,
            product.facings,
            right + len(more),
        )

        lacking = [k for k in own if self.steps[k].lacking]
        for row, places in _grouped(
            [k for k in lacking if k in self.moved], lambda k: self.steps[self.moved[k]].shelf_row
        ):
            yield replace(
                blank,
                kind="misplaced",
                shelf_row=row,
                **self._marks([self.moved[k] for k in places], places),
            )
        replaced = [k for k in lacking if self._is_replaced(k)]
        for found, places in _grouped(replaced, lambda k: self.steps[k].found):
            yield replace(blank, kind="wrong_product", instead=found, **self._marks(places, []))
        if lost := [k for k in lacking if k not in self.moved and k not in replaced]:
            yield replace(
                blank, kind="wrong_facings" if right else "missing", **self._marks([], lost)
            )
        if more:
            yield replace(blank, kind="wrong_facings", **self._marks(more, []))

    def extras(self) -> Iterator[Deviation]:
        """Products that are planned nowhere; neighbours of one class together."""
        explained = {*self.beside, *self.moved.values()}
        left = [
            k
            for k, step in enumerate(self.steps)
            if step.surplus and k not in explained and not self._is_replaced(k)
        ]
        # Neighbours have the same difference between their number and their place in the list.
        alike = groupby(
            enumerate(left),
            key=lambda at: (at[1] - at[0], self.steps[at[1]].shelf_row, self.steps[at[1]].found),
        )
        for (_, row, found), group in alike:
            yield replace(
                Deviation("extra", found, 0, None, row), **self._marks([k for _, k in group], [])
            )

    def _is_replaced(self, k: int) -> bool:
        """A planned facing holds another product, and neither is explained by another place."""
        return (
            self.steps[k].lacking
            and self.steps[k].surplus
            and k not in self.moved
            and k not in self.moved.values()
        )

    def _marks(self, products: list[int], places: list[int]) -> dict[str, Any]:
        """How many facings, boxes of the products that stand there, and of places where products are lacking."""
        lacking = dict.fromkeys(box for k in places if (box := self._place(k)) is not None)
        boxes = tuple(_plain(self.boxes[self.steps[k].seen]) for k in products)
        return {"facings": len(products or places), "boxes": boxes, "places": tuple(lacking)}

    def _place(self, k: int) -> Box | None:
        """Where the lacking product of a step belongs, judged by its neighbours; None if its row is not on the shelf."""
        step = self.steps[k]
        if step.gap:
            return step.gap.box
        if step.found:
            return _plain(self.boxes[step.seen])
        row = [
            i
            for i, s in enumerate(self.steps)
            if s.found and not s.on_top and s.shelf_row == step.shelf_row
        ]
        beside = [*[i for i in row if i < k][-1:], *[i for i in row if i > k][:1]]
        if not beside:
            return None
        box = np.mean([self.boxes[self.steps[i].seen] for i in beside], axis=0)
        if len(beside) == 1:
            box[[0, 2]] += (k - beside[0]) * (box[2] - box[0])
        return _plain(box)


def _plain(box: np.ndarray) -> Box:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom


def _grouped(numbers: list[int], key: Callable[[int], Any]) -> Iterator[tuple[Any, list[int]]]:
    for value, group in groupby(sorted(numbers, key=key), key=key):
        yield value, list(group)


def _strangers_on_top(plan: Plan, arrangement: Arrangement, steps: list[_Step]) -> list[_Step]:
    """Steps for products that are stacked on one of another class, unless the plan allows it."""
    step_of = {step.seen: step for step in steps if step.found}
    strangers = []
    for upper in np.flatnonzero(arrangement.level > 0).tolist():
        below, found = step_of[int(arrangement.foot[upper])], arrangement.names[upper]
        on_top = (
            plan.rows[below.run[0]].products[below.run[1]].on_top
            if below.run and below.right
            else ()
        )
        if found not in (below.found, *on_top):
            strangers.append(_Step(shelf_row=below.shelf_row, seen=upper, found=found, on_top=True))
    return strangers


def _run_beside(steps: list[_Step], k: int) -> Run | None:
    """The run that the unplanned product of a step makes longer: of its class, with nothing else in between."""
    own = steps[k]
    if own.surplus and not own.wanted and not own.on_top:
        for side in (reversed(steps[:k]), steps[k + 1 :]):
            neighbour = next((step for step in side if step.wanted or step.found != own.found), own)
            if neighbour.right and (neighbour.found, neighbour.shelf_row) == (
                own.found,
                own.shelf_row,
            ):
                return neighbour.run
    return None


def _moved(steps: list[_Step], beside: dict[int, Run]) -> dict[int, int]:
    """Step that lacks a product to the step where one of its class is surplus: in the same row first, then the nearest."""
    lacking = [(k, step) for k, step in enumerate(steps) if step.lacking]
    surplus = [(k, step) for k, step in enumerate(steps) if step.surplus and k not in beside]
    pairs = [
        (s.shelf_row != w.shelf_row, abs(k - i), i, k)
        for i, w in lacking
        for k, s in surplus
        if s.found == w.wanted
    ]
    moved: dict[int, int] = {}
    for _, _, i, k in sorted(pairs):
        if i not in moved and k not in moved.values():
            moved[i] = k
    return moved


# ---------------------------------------------------------------- alignment


@dataclass(frozen=True)
class _Step:
    """One step through plan and shelf: a planned facing, what is there, or both.

    Attributes:
        wanted: Class of the planned facing, empty for none.
        run: Whose facing it is, None for none.
        shelf_row: None where no row of the shelf is that of the plan.
        seen: Index of the product there, -1 for none.
        found: Its class, empty for none.
        gap: The hole that is there.
        on_top: The product is stacked on a facing.
    """

    wanted: str = ""
    run: Run | None = None
    shelf_row: int | None = None
    seen: int = -1
    found: str = ""
    gap: Gap | None = None
    on_top: bool = False

    @property
    def right(self) -> bool:
        return self.wanted == self.found

    @property
    def lacking(self) -> bool:
        return bool(self.wanted) and not self.right

    @property
    def surplus(self) -> bool:
        return bool(self.found) and not self.right


def _align_rows(plan: Plan, arrangement: Arrangement) -> tuple[RowPairs, list[_Step]]:
    """Which row is which, and the steps through all rows from the top."""
    planned = [
        [
            _Step(product.name, (r, p))
            for p, product in enumerate(row.products)
            for _ in range(product.facings)
        ]
        for r, row in enumerate(plan.rows)
    ]
    there = [_walk(arrangement, row) for row in range(arrangement.n_rows)]
    paired = [[_align_facings(wanted, found) for found in there] for wanted in planned]
    unmet = [_align_facings(wanted, []) for wanted in planned]
    unplanned = [_align_facings([], found) for found in there]
    _, rows = _align(
        [[cost for cost, _ in row] for row in paired],
        [cost for cost, _ in unmet],
        [cost for cost, _ in unplanned],
    )
    steps: list[_Step] = []
    for r, s in rows:
        _, within = unplanned[s or 0] if r is None else unmet[r] if s is None else paired[r][s]
        steps += within
    return tuple(rows), steps


def _walk(arrangement: Arrangement, row: int) -> list[_Step]:
    """Facings and holes of a row of the shelf from left to right; a hole as wide as several facings is several steps."""
    gaps = {gap.after: gap for gap in arrangement.gaps if gap.row == row}
    steps = []
    for column, seen in enumerate(arrangement.facings(row).tolist()):
        steps.append(_Step(shelf_row=row, seen=seen, found=arrangement.names[seen]))
        if gap := gaps.get(column):
            steps += [_Step(shelf_row=row, gap=gap)] * gap.facings
    return steps


def _align_facings(wanted: list[_Step], found: list[_Step]) -> tuple[int, list[_Step]]:
    """Cost and steps of the best alignment of a row of the plan with a row of the shelf."""
    costs = [
        [0 if w.wanted == f.found else LACKING_AT_HOLE if f.gap else REPLACED for f in found]
        for w in wanted
    ]
    cost, pairs = _align(costs, [LACKING] * len(wanted), [0 if f.gap else SURPLUS for f in found])
    nothing = _Step(shelf_row=found[0].shelf_row if found else None)
    steps = []
    for i, j in pairs:
        step = nothing if j is None else found[j]
        if i is not None:
            steps.append(replace(step, wanted=wanted[i].wanted, run=wanted[i].run))
        elif step.found:
            steps.append(step)
    return cost, steps


def _align(
    pair: list[list[int]], drop: list[int], add: list[int]
) -> tuple[int, list[tuple[int | None, int | None]]]:
    """The cheapest way through two sequences, by dynamic programming (Needleman and Wunsch, 1970).

    Args:
        pair: Cost of item i of the first beside item j of the second.
        drop: Cost of each item of the first with nothing beside it.
        add: Cost of each item of the second with nothing beside it.

    Returns:
        The cost, and (i, j) in order, None for nothing.
    """
    best = [[0, *accumulate(add)]]
    for i, alone in enumerate(drop):
        row = [best[i][0] + alone]
        for j, extra in enumerate(add):
            row.append(min(best[i][j] + pair[i][j], best[i][j + 1] + alone, row[j] + extra))
        best.append(row)
    i, j = len(drop), len(add)
    way: list[tuple[int | None, int | None]] = []
    while i or j:
        if i and j and best[i][j] == best[i - 1][j - 1] + pair[i - 1][j - 1]:
            i, j = i - 1, j - 1
            way.append((i, j))
        elif i and best[i][j] == best[i - 1][j] + drop[i - 1]:
            i -= 1
            way.append((i, None))
        else:
            j -= 1
            way.append((None, j))
    return best[-1][-1], way[::-1]
