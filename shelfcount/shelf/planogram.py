"""Planogram files: planned products of a shelf, in rows from top to bottom and left to right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema

from shelfcount.files import write_whole
from shelfcount.validation import did_you_mean, read_validated, unusable


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
    plan = read_validated(path, Planogram, "plan")
    unknown = [
        f"{place}: the model has no class '{name}'.{did_you_mean(name, classes)}"
        for place, name in _names(plan)
        if name not in classes
    ]
    if unknown:
        raise unusable(f"plan '{path}'", unknown)
    return plan


def write_plan(path: Path | str, plan: Planogram) -> None:
    """Write a plan as JSON that `read_plan` reads."""
    write_whole(path, plan.model_dump_json(by_alias=True, exclude_defaults=True, indent=1))


def plan_schema() -> dict[str, Any]:
    """Return the JSON Schema of a plan, as in docs/reference/schemas/plan.schema.json."""
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
