"""Files: JSON that is written whole, and digests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from shelfcount.files import sha256_json, sha256_of, write_json


def test_json_ends_with_a_newline_and_reads_back(tmp_path: Path) -> None:
    write_json(tmp_path / "folder" / "a.json", {"a": [1, 2.5, None]})
    text = (tmp_path / "folder" / "a.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == {"a": [1, 2.5, None]}


def test_digests_of_files_bytes_and_data(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"shelf")
    assert sha256_of(path) == sha256_of(b"shelf") == hashlib.sha256(b"shelf").hexdigest()
    data = {"b": 1, "a": [2]}
    assert sha256_json(data) == sha256_of(b'{"b": 1, "a": [2]}')
    assert sha256_json(data, canonical=True) == sha256_of(b'{"a":[2],"b":1}')
    with pytest.raises(OSError, match="none"):
        sha256_of(tmp_path / "none")
