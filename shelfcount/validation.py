"""TOML and JSON files as pydantic records, with every error and the key that was meant."""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shelfcount.records import ShelfcountError

Record = TypeVar("Record", bound=BaseModel)


def read_validated(path: Path | str, model: type[Record], subject: str) -> Record:
    """Read a file into a record.

    Args:
        path: TOML file if its suffix is ``.toml``, otherwise a JSON file.
        model: Type of the record.
        subject: What the file describes, for messages, such as "plan".

    Returns:
        The record.

    Raises:
        ShelfcountError: If the file cannot be read, or is not valid. The message lists every error
            with its place in the file.
    """
    path = Path(path)
    if path.suffix == ".toml":
        return validate_data(read_toml(path, subject), model, f"{subject} '{path}'")
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ShelfcountError(
            f"cannot read {subject} '{path}': {error.strerror or error}"
        ) from error
    except ValidationError as error:
        raise unusable(f"{subject} '{path}'", _problems(error, model)) from error


def read_toml(path: Path | str, subject: str) -> dict[str, Any]:
    """Return the content of a TOML file.

    Args:
        path: Path of the file.
        subject: What the file describes, for messages.

    Raises:
        ShelfcountError: If the file cannot be read or is not valid TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ShelfcountError(
            f"cannot read {subject} '{path}': {error.strerror or error}"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ShelfcountError(f"cannot read {subject} '{path}': {error}") from error


def validate_data(data: dict[str, Any], model: type[Record], source: str) -> Record:
    """Return plain data as a record.

    Args:
        data: Plain data.
        model: Type of the record.
        source: Source of the data, for messages.

    Raises:
        ShelfcountError: If the data is not valid. The message lists every error with its place.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise unusable(source, _problems(error, model)) from error


def unusable(source: str, problems: list[str]) -> ShelfcountError:
    """Return the error for data that is not valid, with one line for each problem."""
    lines = "\n".join(f"  {problem}" for problem in problems)
    return ShelfcountError(f"{source} cannot be used:\n{lines}")


def did_you_mean(name: str, known: typing.Iterable[str], before: str = "") -> str:
    """Return a question with the most similar known name, or an empty text.

    Args:
        name: Unknown name.
        known: Known names.
        before: Text that precedes the name in the question, such as the place of a key.
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{before}{near[0]}'?" if near else ""


def _problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    return [_explain(problem, model) for problem in error.errors()]


def _explain(problem: Any, model: type[BaseModel]) -> str:
    """Return one error of pydantic as text."""
    parts = problem["loc"]
    place = _place(parts)
    rule = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        return rule
    if problem["type"] == "missing":
        return f"{place}: is missing"
    if problem["type"] == "extra_forbidden":
        before = place[: -len(str(parts[-1]))]
        return f"{place}: unknown key.{did_you_mean(str(parts[-1]), _keys(model, parts), before)}"
    # The message of a rule about a whole section contains the value already.
    if isinstance(problem["input"], dict) and problem["type"] == "value_error":
        return f"{place}: {rule}"
    return f"{place or 'the whole file'}: {rule}, got {problem['input']!r}"


def _place(parts: typing.Iterable[str | int]) -> str:
    """Return a place such as ``rows[0].products[1].facings``."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts
    ).removeprefix(".")


def _keys(model: type[BaseModel], parts: tuple[str | int, ...]) -> list[str]:
    """Return the keys that are allowed beside the last part of a place."""
    current: type[BaseModel] | None = model
    for part in parts[:-1]:
        if current is None or isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in current.model_fields.items()}
        current = _record_in(fields[part].annotation) if part in fields else None
    if current is None:
        return []
    return [field.alias or name for name, field in current.model_fields.items()]


def _record_in(annotation: Any) -> type[BaseModel] | None:
    """Return the type of record in an annotation such as ``tuple[Record, ...]``."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_record_in, typing.get_args(annotation))), None)
