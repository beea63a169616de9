"""Small result files: one row per line, and the rows for single photos in a file of their own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from shelfcount.files import write_whole

# Key that no table and no comparison reads, and key that is moved to a file of its own.
_DROPPED, _MOVED = "confusion", "per_photo"
# Maximum length of a line that contains a whole row, such as the metrics of one class.
_LINE = 240


def thin_result(path: Path) -> bool:
    """Rewrite one result.

    Args:
        path: Result of `shelfcount evaluate`, of `shelfcount bench` or of a benchmark script.

    Returns:
        Whether the file changed.
    """
    text = path.read_text()
    head, photos = split_result(json.loads(text))
    if photos:
        data = json.dumps(photos, separators=(",", ":")).encode()
        # Without the time of writing, so that the same rows give the same bytes.
        write_whole(_photos_beside(path), gzip.compress(data, mtime=0))
    if (new := dump_result(head)) == text:
        return False
    write_whole(path, new)
    return True


def read_result(path: Path) -> Any:
    """Read a result together with the rows for single photos that are stored beside it.

    Args:
        path: A result, thin or as a command wrote it.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file does not contain JSON.
    """
    result = json.loads(path.read_text())
    beside = _photos_beside(path)
    if beside.exists():
        return _joined(result, json.loads(gzip.decompress(beside.read_bytes())))
    return result


def split_result(result: Any) -> tuple[Any, Any]:
    """Return the result without large parts, and its rows for single photos.

    The second value has the structure of the first, with nothing but the way to the rows in it.
    It is None if the result has no such rows.
    """
    if not isinstance(result, dict):
        return result, None
    head, photos = {}, {}
    for key, value in result.items():
        if key == _MOVED:
            photos[key] = value
        elif key != _DROPPED:
            head[key], below = split_result(value)
            if below:
                photos[key] = below
    return head, photos or None


def dump_result(value: Any) -> str:
    """Return JSON in which every list or object that is short enough takes one line."""
    return _lines(value, 0) + "\n"


def _lines(value: Any, depth: int) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    # The whole result never takes one line: it starts with names that a reader looks for.
    if not isinstance(value, list | dict) or not value or (depth and len(flat) <= _LINE):
        return flat
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(key, ensure_ascii=False)}: {_lines(part, depth + 1)}"
            for key, part in value.items()
        ]
    else:
        parts = [_lines(part, depth + 1) for part in value]
    inner = ",\n".join(" " * (depth + 1) + part for part in parts)
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{inner}\n{' ' * depth}{last}"


def _joined(head: Any, photos: Any) -> Any:
    """Return `head` with the rows of `photos` in it; rows that `head` has itself are newer."""
    if not isinstance(photos, dict) or not isinstance(head, dict):
        return photos if head is None else head
    return {**head, **{key: _joined(head.get(key), below) for key, below in photos.items()}}


def _photos_beside(path: Path) -> Path:
    return path.with_suffix(f".{_MOVED}.json.gz")
