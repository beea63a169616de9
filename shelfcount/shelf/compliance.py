"""Planogram compliance: deviations of a shelf from its planogram."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import ShelfcountError
from shelfcount.shelf.facings import Arrangement, xywh
from shelfcount.shelf.planogram import Planogram
from shelfcount.shelf.planogram_alignment import AlignmentStep, RowPairs, Run, align_rows
from shelfcount.words import plural

PlaceBox = tuple[float, float, float, float]
DeviationKind = Literal["missing", "extra", "misplaced", "wrong_facings", "wrong_product"]


def planogram_from_shelf(arrangement: Arrangement, name: str = "") -> Planogram:
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
    return Planogram.model_validate({"version": 1, "name": name, "rows": rows}, strict=False)


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

    kind: DeviationKind
    name: str
    facings: int
    plan_row: int | None
    shelf_row: int | None
    planned: int = 0
    seen: int = 0
    instead: str = ""
    boxes: tuple[PlaceBox, ...] = ()
    places: tuple[PlaceBox, ...] = ()

    def __str__(self) -> str:
        facings = plural(self.facings, "facing")
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
                seen = plural(self.seen, "facing")
                return f"row {self.shelf_row}: {self.name} has {seen} instead of {self.planned}"
            case "wrong_product":
                return f"row {self.shelf_row}: {self.instead} stands on {facings} of {self.name}"


@dataclass(frozen=True)
class ComplianceResult:
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
        an extra one. 1 means that there are no deviations.
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


def check_compliance(plan: Planogram, arrangement: Arrangement) -> ComplianceResult:
    """Align a shelf with its plan and return the deviations.

    Products that the detector missed are reported as missing. A gap of the shelf without a planned
    facing is not a deviation.
    """
    rows, steps = align_rows(plan, arrangement)
    steps += _strangers_on_top(plan, arrangement, steps)
    beside = {k: run for k in range(len(steps)) if (run := _run_beside(steps, k)) is not None}
    reading = _Reading(plan, steps, arrangement.boxes, beside, _moved(steps, beside))
    runs = dict.fromkeys(step.run for step in steps if step.run is not None)
    deviations = [deviation for run in runs for deviation in reading.of_run(run)]
    right = tuple(step.index for step in steps if step.right)
    return ComplianceResult(plan.name, right, (*deviations, *reading.extras()), rows)


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

    plan: Planogram
    steps: list[AlignmentStep]
    boxes: NDArray[np.float64]
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
        for detected, places in _grouped(replaced, lambda k: self.steps[k].detected):
            yield replace(
                template, kind="wrong_product", instead=detected, **self._marks(places, [])
            )
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
            key=lambda at: (at[1] - at[0], self.steps[at[1]].shelf_row, self.steps[at[1]].detected),
        )
        for (_, row, detected), group in alike:
            yield replace(
                Deviation("extra", detected, 0, None, row), **self._marks([k for _, k in group], [])
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
        boxes = tuple(_plain(self.boxes[self.steps[k].index]) for k in products)
        return {"facings": len(products or places), "boxes": boxes, "places": tuple(lacking)}

    def _place(self, k: int) -> PlaceBox | None:
        """Return the estimated box of a missing product, None if its row is not on the shelf."""
        step = self.steps[k]
        if step.gap:
            return step.gap.box
        if step.detected:
            return _plain(self.boxes[step.index])
        row = [
            i
            for i, s in enumerate(self.steps)
            if s.detected and not s.on_top and s.shelf_row == step.shelf_row
        ]
        beside = [*[i for i in row if i < k][-1:], *[i for i in row if i > k][:1]]
        if not beside:
            return None
        box = np.mean([self.boxes[self.steps[i].index] for i in beside], axis=0)
        if len(beside) == 1:
            box[[0, 2]] += (k - beside[0]) * (box[2] - box[0])
        return _plain(box)


def _plain(box: NDArray[np.float64]) -> PlaceBox:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom


def _grouped(numbers: list[int], key: Callable[[int], Any]) -> Iterator[tuple[Any, list[int]]]:
    for value, group in groupby(sorted(numbers, key=key), key=key):
        yield value, list(group)


def _strangers_on_top(
    plan: Planogram, arrangement: Arrangement, steps: list[AlignmentStep]
) -> list[AlignmentStep]:
    """Return steps for products stacked on one of another class, unless the plan allows it."""
    step_of = {step.index: step for step in steps if step.detected}
    strangers = []
    for upper in np.flatnonzero(arrangement.level > 0).tolist():
        below, name = step_of[int(arrangement.foot[upper])], arrangement.names[upper]
        on_top = (
            plan.rows[below.run[0]].products[below.run[1]].on_top
            if below.run and below.right
            else ()
        )
        if name not in (below.detected, *on_top):
            strangers.append(
                AlignmentStep(shelf_row=below.shelf_row, index=upper, detected=name, on_top=True)
            )
    return strangers


def _run_beside(steps: list[AlignmentStep], k: int) -> Run | None:
    """Return the run that the unplanned product of a step extends.

    It is a run of the same class in the same row with no other product in between; None if there is
    no such run.
    """
    current = steps[k]
    if current.surplus and not current.planned and not current.on_top:
        for side in (reversed(steps[:k]), steps[k + 1 :]):
            neighbour = next(
                (step for step in side if step.planned or step.detected != current.detected),
                current,
            )
            if neighbour.right and (neighbour.detected, neighbour.shelf_row) == (
                current.detected,
                current.shelf_row,
            ):
                return neighbour.run
    return None


def _moved(steps: list[AlignmentStep], beside: dict[int, Run]) -> dict[int, int]:
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
        if s.detected == w.planned
    ]
    moved: dict[int, int] = {}
    for _, _, i, k in sorted(pairs):
        if i not in moved and k not in moved.values():
            moved[i] = k
    return moved
