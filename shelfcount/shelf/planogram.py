"""Planogram files: planned products of a shelf, in rows from top to bottom and left to right."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from shelfcount.files import write_whole
from shelfcount.records import ShelfcountError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PlannedProduct(_Part):
    """One planned product of a row, with the number of its facings."""

    name: str = Field(alias="class", min_length=1, description="Class name as the model knows it.")
    facings: int = Field(
        ge=1,
        le=1000,
        description="Number of facings side by side on the shelf board. Stacked products do not "
        "count.",
    )
    on_top: tuple[str, ...] = Field(
        default=(), description="Other classes that may be stacked on the product."
    )


class PlannedRow(_Part):
    """One row of the shelf, with its products from left to right."""

    products: tuple[PlannedProduct, ...] = Field(min_length=1)


class Planogram(_Part):
    """Planogram of a shelf, with its rows from top to bottom."""

    schema_of: str = Field(
        default="",
        alias="$schema",
        description="Path or URL of this schema, for editors. Not read.",
    )
    version: Literal[1] = Field(description="Version of the plan format.")
    name: str = Field(default="", description="Display name of the shelf.")
    rows: tuple[PlannedRow, ...] = Field(min_length=1)

    @property
    def facings(self) -> int:
        """Number of facings of all products."""
        return sum(product.facings for row in self.rows for product in row.products)


def read_plan(path: Path | str, classes: Sequence[str]) -> Planogram:
    """Read and validate a plan.

    Args:
        path: JSON file in the form that `plan_schema` describes.
        classes: Class names of the model.

    Returns:
        Plan in which every class is one of `classes`.

    Raises:
        ShelfcountError: If the file cannot be read or is not a valid plan. The message lists every
            error with its place in the file.
    """
    try:
        plan = Planogram.model_validate_json(Path(path).read_bytes())
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


def write_plan(path: Path | str, plan: Planogram) -> None:
    """Write a plan as JSON that `read_plan` reads."""
    write_whole(path, plan.model_dump_json(by_alias=True, exclude_defaults=True, indent=1))


def plan_schema() -> dict[str, Any]:
    """Return the JSON Schema of a plan, which export/plan.schema.json contains."""
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **Planogram.model_json_schema(by_alias=True),
    }


def _names(plan: Planogram) -> Iterator[tuple[str, str]]:
    """Yield (place in the file, class name) of every class name in a plan."""
    for r, row in enumerate(plan.rows):
        for p, product in enumerate(row.products):
            yield f"rows[{r}].products[{p}].class", product.name
            yield from (
                (f"rows[{r}].products[{p}].on_top[{t}]", name)
                for t, name in enumerate(product.on_top)
            )


def _nearest(name: str, known: Sequence[str]) -> str:
    """Return a question with the most similar known name, or an empty text."""
    near = difflib.get_close_matches(name, known, n=1)
    return f". Did you mean '{near[0]}'?" if near else ""


def _explain(problem: Any) -> str:
    """Return one validation error of pydantic as text."""
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
    """Return all keys that a plan may contain."""
    return [
        field.alias or key
        for part in (Planogram, PlannedRow, PlannedProduct)
        for key, field in part.model_fields.items()
    ]


def _unusable(path: Path | str, problems: Sequence[str]) -> ShelfcountError:
    return ShelfcountError(
        f"plan '{path}' cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems)
    )
