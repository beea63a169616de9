"""Reading and writing of files: atomic writes, JSON, CSV rows and text with clear errors."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shelfcount.records import ShelfcountError


def write_whole(path: Path | str, data: bytes | str) -> None:
    """Write a file atomically: readers see the old content or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(data.encode() if isinstance(data, str) else data)
    draft.replace(path)


def require_absent(path: Path | None, force: bool) -> None:
    """Check that a file does not exist yet, or may be overwritten.

    Raises:
        ShelfcountError: If `path` exists and `force` is false.
    """
    if path is not None and path.exists() and not force:
        raise ShelfcountError(
            f"'{path}' exists already. Choose another name, or overwrite it with --force."
        )


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data to a JSON file. The file is replaced only once the new one is complete."""
    write_whole(path, json.dumps(data, indent=1) + "\n")


def sha256_of(content: Path | bytes) -> str:
    """Return the SHA-256 of a file or of bytes, as 64 hexadecimal digits.

    Args:
        content: Path of the file, or the bytes.

    Raises:
        OSError: If the file cannot be read.
    """
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(data: Any, *, canonical: bool = False) -> str:
    """Return the SHA-256 of plain data as JSON text, as 64 hexadecimal digits.

    Args:
        data: Plain data.
        canonical: Sort the keys and leave out spaces, so that other programs can compute the same
            digest from the same data. Default: keys in their own order, and Python's spaces.
    """
    form: dict[str, Any] = {"sort_keys": True, "separators": (",", ":")} if canonical else {}
    return sha256_of(json.dumps(data, **form).encode())


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 text file, without a byte order mark.

    Raises:
        ShelfcountError: If the file cannot be read or is not UTF-8 text.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ShelfcountError(f"cannot read '{path}' as UTF-8 text: {error}") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        ShelfcountError: If the file cannot be read or is not valid JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ShelfcountError(f"'{path}' is not valid JSON: {error}") from error


def read_rows(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """Yield the rows of a CSV file, including empty ones, so that their index is the row number.

    Raises:
        ShelfcountError: If the file cannot be read or is not valid CSV.
    """
    try:
        yield from csv.reader(read_text(path).splitlines(), delimiter=delimiter)
    except csv.Error as error:
        raise ShelfcountError(f"'{path}' is not valid CSV: {error}") from error


def shorten(value: object) -> str:
    """Return a value as text for a message, of at most 60 characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
