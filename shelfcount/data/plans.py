"""Plans of shelves as files: what should stand there, row by row from the top and from left to right."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from shelfcount.records import ShelfcountError
from shelfcount.vision.images import write_whole


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PlannedProduct(_Part):
    """One product of a row, with all its facings side by side."""

    name: str = Field(alias="class", min_length=1, description="Class name as the model knows it.")
    facings: int = Field(
        ge=1,
        le=1000,
        description="Places side by side on the shelf board; what is stacked on them does not count.",
    )
    on_top: tuple[str, ...] = Field(
        default=(), description="Other classes that may be stacked on it."
    )


class PlannedRow(_Part):
    """One row of the shelf, left to right."""

    products: tuple[PlannedProduct, ...] = Field(min_length=1)


class Plan(_Part):
    """What should stand on a shelf, rows from top to bottom."""

    schema_of: str = Field(
        default="", alias="$schema", description="Where this schema lies, for editors; not read."
    )
    version: Literal[1] = Field(description="Of this format.")
    name: str = Field(default="", description="For people.")
    rows: tuple[PlannedRow, ...] = Field(min_length=1)

    @property
    def facings(self) -> int:
        """Facings of all products."""
        return sum(product.facings for row in self.rows for product in row.products)


def read_plan(path: Path | str, classes: Sequence[str]) -> Plan:
    """Read and check a plan.

    Args:
        path: JSON as `plan_schema` describes it.
        classes: What the model can find.

    Raises:
        ShelfcountError: Naming every place of the file that is wrong.
    """
    try:
        plan = Plan.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise ShelfcountError(f"cannot read plan '{path}': {error.strerror or error}") from error
    except ValidationError as error:
        raise _unusable(path, [_explain(problem) for problem in error.errors()]) from error
    unknown = [
        f"{place}: the model has no class '{name}'{_nearest(name, classes)}"
        for place, name in _names(plan)
        if name not in classes
    ]
    if unknown:
        raise _unusable(path, unknown)
    return plan


def write_plan(path: Path | str, plan: Plan) -> None:
    """Write a plan as `read_plan` reads it."""
    write_whole(path, plan.model_dump_json(by_alias=True, exclude_defaults=True, indent=1))


def plan_schema() -> dict[str, Any]:
    """JSON Schema of a plan, as export/plan.schema.json holds it."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **Plan.model_json_schema(by_alias=True)}


def _names(plan: Plan) -> Iterator[tuple[str, str]]:
    """(place in the file, class name) of every name in a plan."""
    for r, row in enumerate(plan.rows):
        for p, product in enumerate(row.products):
            yield f"rows[{r}].products[{p}].class", product.name
            yield from (
                (f"rows[{r}].products[{p}].on_top[{t}]", name)
                for t, name in enumerate(product.on_top)
            )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f". Did you mean '{near[0]}'?" if near else ""


def _explain(problem: Any) -> str:
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]
    ).removeprefix(".")
    if problem["type"] == "json_invalid":
        return problem["msg"]
    if problem["type"] == "missing":
        return f"{place}: is missing"
    if problem["type"] == "extra_forbidden":
        return f"{place}: is not a key of a plan{_nearest(str(problem['loc'][-1]), _keys())}"
    return f"{place or 'the whole file'}: {problem['msg']}, got {problem['input']!r}"


def _keys() -> list[str]:
    return [
        field.alias or key
        for part in (Plan, PlannedRow, PlannedProduct)
        for key, field in part.model_fields.items()
    ]


def _unusable(path: Path | str, problems: Sequence[str]) -> ShelfcountError:
    return ShelfcountError(
        f"plan '{path}' cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems)
    )
