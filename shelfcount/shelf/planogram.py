"""Planogram compliance: alignment of a shelf with its plan, and the deviations.

Shelf and plan are aligned like two sequences: rows with rows, and within two rows facings with
facings. One product too many therefore does not make all following products wrong.
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

# Costs of an alignment per facing. A facing with another product costs a little less than a missing
# and an extra one, so that it is reported as replaced, but never at the expense of a correct
# product. A missing facing is assigned to a gap of the shelf rather than to another position in its
# run.
LACKING, LACKING_AT_HOLE, SURPLUS, REPLACED = 100, 99, 100, 199

Box = tuple[float, float, float, float]
# (row, product) of a plan.
Run = tuple[int, int]
# (row of the plan, row of the shelf) from the top, None if there is no counterpart.
RowPairs = tuple[tuple[int | None, int | None], ...]
Kind = Literal["missing", "extra", "misplaced", "wrong_facings", "wrong_product"]


def learn(arrangement: Arrangement, name: str = "") -> Plan:
    """Derive the plan that a shelf complies with.

    Args:
        arrangement: The shelf.
        name: Name of the plan.

    Raises:
        ShelfcountError: If there are no products on the shelf.
    """
    if not arrangement.n_rows:
        raise ShelfcountError(
            "no products were detected on the photo, so no planogram can be derived from it. "
            "Choose another photo."
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
    """One deviation of a shelf from its plan.

    Attributes:
        kind: ``missing``: no facing of a planned product was detected. ``extra``: the product is
            not planned at its position. ``misplaced``: the product is missing at its planned
            position and was detected at another. ``wrong_facings``: the product has more or fewer
            facings than planned. ``wrong_product``: a facing of one product contains another.
        name: Class of the planned product; for ``extra``, of the detected product.
        facings: Number of facings that deviate from the plan.
        plan_row: Row of the plan, 0 for the top; None for ``extra``.
        shelf_row: Row of the shelf, 0 for the top, in which the product was detected or is missing;
            None if no row of the shelf corresponds to the row of the plan.
        planned: Number of planned facings of the product, 0 for ``extra``.
        seen: Number of detected facings of the product at its planned position.
        instead: Class detected on the facing, for ``wrong_product``.
        boxes: xyxy pixels of the photo, the products that are at a wrong position.
        places: xyxy pixels of the photo, the positions of missing products. They are estimated from
            the neighbours, so they may overlap them or extend beyond the photo.
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
                return (
                    f"row {self.shelf_row}: {self.name} belongs to another position "
                    f"in planned row {self.plan_row}, {facings}"
                )
            case "wrong_facings":
                seen = "1 facing" if self.seen == 1 else f"{self.seen} facings"
                return f"row {self.shelf_row}: {self.name} has {seen} instead of {self.planned}"
            case "wrong_product":
                return f"row {self.shelf_row}: {self.instead} stands on {facings} of {self.name}"


@dataclass(frozen=True)
class Verdict:
    """Compliance of a shelf with its plan.

    Attributes:
        plan: Name of the plan.
        right: Indices of the products on a facing planned for them, in order.
        deviations: Deviations by row of the plan, then products that are not planned.
        rows: (row of the plan, row of the shelf) from the top, None if there is no counterpart.
    """

    plan: str
    right: tuple[int, ...]
    deviations: tuple[Deviation, ...]
    rows: RowPairs

    @property
    def score(self) -> float:
        """Compliance: correct facings / (correct facings + facings of all deviations), 0 to 1.

        Each facing counts once: a misplaced product counts as one deviation, not as a missing and
        an
        extra one. 1 means that there are no deviations.
        """
        wrong = sum(deviation.facings for deviation in self.deviations)
        return len(self.right) / (len(self.right) + wrong)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of a photo in ``shelfcount planogram --json``.

        Boxes are (x, y, width, height) in pixels of the photo.
        """
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
    """Align a shelf with its plan and return the deviations.

    Products that the detector missed are reported as missing. A gap of the shelf without a planned
    facing is not a deviation.
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
    """Aligned steps of plan and shelf, and their interpretation as deviations.

    Attributes:
        plan: The plan.
        steps: Steps through plan and shelf; their indices are used below.
        boxes: (n, 4) xyxy of the products, pixels of the photo.
        beside: For each surplus step next to a run of its class: the run that it extends.
        moved: For each step with a missing product that was detected elsewhere: the surplus step
            that contains it.
    """

    plan: Plan
    steps: list[_Step]
    boxes: np.ndarray
    beside: dict[int, Run]
    moved: dict[int, int]

    def of_run(self, run: Run) -> Iterator[Deviation]:
        """Yield the deviations of one product of one planned row."""
        product = self.plan.rows[run[0]].products[run[1]]
        members = [k for k, step in enumerate(self.steps) if step.run == run]
        additional = [k for k, longer in self.beside.items() if longer == run]
        right = sum(self.steps[k].right for k in members)
        template = Deviation(
            "missing",
            product.name,
            0,
            run[0],
            self.steps[members[0]].shelf_row,
            product.facings,
            right + len(additional),
        )

        lacking = [k for k in members if self.steps[k].lacking]
        for row, places in _grouped(
            [k for k in lacking if k in self.moved], lambda k: self.steps[self.moved[k]].shelf_row
        ):
            yield replace(
                template,
                kind="misplaced",
                shelf_row=row,
                **self._marks([self.moved[k] for k in places], places),
            )
        replaced = [k for k in lacking if self._is_replaced(k)]
        for found, places in _grouped(replaced, lambda k: self.steps[k].found):
            yield replace(template, kind="wrong_product", instead=found, **self._marks(places, []))
        if missing := [k for k in lacking if k not in self.moved and k not in replaced]:
            yield replace(
                template, kind="wrong_facings" if right else "missing", **self._marks([], missing)
            )
        if additional:
            yield replace(template, kind="wrong_facings", **self._marks(additional, []))

    def extras(self) -> Iterator[Deviation]:
        """Yield the products that are not planned; neighbours of one class are one deviation."""
        explained = {*self.beside, *self.moved.values()}
        unplanned = [
            k
            for k, step in enumerate(self.steps)
            if step.surplus and k not in explained and not self._is_replaced(k)
        ]
        # Neighbours have the same difference between their step and their position in the list.
        alike = groupby(
            enumerate(unplanned),
            key=lambda at: (at[1] - at[0], self.steps[at[1]].shelf_row, self.steps[at[1]].found),
        )
        for (_, row, found), group in alike:
            yield replace(
                Deviation("extra", found, 0, None, row), **self._marks([k for _, k in group], [])
            )

    def _is_replaced(self, k: int) -> bool:
        """Return whether a planned facing contains another product.

        False if the planned or the detected product was matched with another position.
        """
        return (
            self.steps[k].lacking
            and self.steps[k].surplus
            and k not in self.moved
            and k not in self.moved.values()
        )

    def _marks(self, products: list[int], places: list[int]) -> dict[str, Any]:
        """Return the number of facings, the boxes of products and those of missing products."""
        lacking = dict.fromkeys(box for k in places if (box := self._place(k)) is not None)
        boxes = tuple(_plain(self.boxes[self.steps[k].seen]) for k in products)
        return {"facings": len(products or places), "boxes": boxes, "places": tuple(lacking)}

    def _place(self, k: int) -> Box | None:
        """Return the estimated box of a missing product, None if its row is not on the shelf."""
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
    """Return steps for products stacked on one of another class, unless the plan allows it."""
    step_of = {step.seen: step for step in steps if step.found}
    strangers = []
    for upper in np.flatnonzero(arrangement.level > 0).tolist():
        below, name = step_of[int(arrangement.foot[upper])], arrangement.names[upper]
        on_top = (
            plan.rows[below.run[0]].products[below.run[1]].on_top
            if below.run and below.right
            else ()
        )
        if name not in (below.found, *on_top):
            strangers.append(_Step(shelf_row=below.shelf_row, seen=upper, found=name, on_top=True))
    return strangers


def _run_beside(steps: list[_Step], k: int) -> Run | None:
    """Return the run that the unplanned product of a step extends.

    It is a run of the same class in the same row with no other product in between; None if there is
    no such run.
    """
    current = steps[k]
    if current.surplus and not current.wanted and not current.on_top:
        for side in (reversed(steps[:k]), steps[k + 1 :]):
            neighbour = next(
                (step for step in side if step.wanted or step.found != current.found), current
            )
            if neighbour.right and (neighbour.found, neighbour.shelf_row) == (
                current.found,
                current.shelf_row,
            ):
                return neighbour.run
    return None


def _moved(steps: list[_Step], beside: dict[int, Run]) -> dict[int, int]:
    """Match steps with a missing product to steps with a surplus product of the same class.

    Steps of the same row are matched first, then the nearest ones.

    Returns:
        Index of the step with the missing product to index of the surplus step.
    """
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
    """One step of an alignment: a planned facing, a detected product or gap, or both.

    Attributes:
        wanted: Class of the planned facing, empty if there is none.
        run: (row, product) of the planned facing, None if there is none.
        shelf_row: Row of the shelf; None if no row of the shelf corresponds to the row of the plan.
        seen: Index of the detected product, -1 if there is none.
        found: Class of the detected product, empty if there is none.
        gap: The gap of the shelf, if there is one.
        on_top: Whether the product is stacked on a facing.
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
    """Return the pairs of plan and shelf rows, and the steps through all rows from the top."""
    planned = [
        [
            _Step(product.name, (r, p))
            for p, product in enumerate(row.products)
            for _ in range(product.facings)
        ]
        for r, row in enumerate(plan.rows)
    ]
    shelf_rows = [_walk(arrangement, row) for row in range(arrangement.n_rows)]
    paired = [[_align_facings(wanted, found) for found in shelf_rows] for wanted in planned]
    unmet = [_align_facings(wanted, []) for wanted in planned]
    unplanned = [_align_facings([], found) for found in shelf_rows]
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
    """Return the facings and gaps of a row of the shelf as steps, from left to right.

    A gap with room for several facings is several steps.
    """
    gaps = {gap.after: gap for gap in arrangement.gaps if gap.row == row}
    steps = []
    for column, seen in enumerate(arrangement.facings(row).tolist()):
        steps.append(_Step(shelf_row=row, seen=seen, found=arrangement.names[seen]))
        if gap := gaps.get(column):
            steps += [_Step(shelf_row=row, gap=gap)] * gap.facings
    return steps


def _align_facings(wanted: list[_Step], found: list[_Step]) -> tuple[int, list[_Step]]:
    """Return the cost and the steps of the best alignment of a plan row with a shelf row."""
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
