"""What a number was made with: commit, versions, device, threads and seed, kept beside every result."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shelfcount.machine import device

PACKAGES = (
    "shelfcount",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python",
    "litert-torch",
    "ai-edge-quantizer",
    "ai-edge-litert",
)


def versions() -> dict[str, str]:
    """Of Python and those packages that a trained, exported or measured number depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def stamp(*, seed: int | None = None, threads: int | None = None) -> dict[str, Any]:
    """As plain data for a JSON file. `commit` ends in ``+changes`` where code, settings or weights differ from it."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "versions": versions(),
        "device": device(),
        "threads": threads,
        "seed": seed,
    }


def _commit() -> str:
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
        # Results are written while others are still being measured; they change no number.
        code = [
            "git",
            "status",
            "--porcelain",
            "-uno",
            "--",
            "*.py",
            "*.toml",
            "*.sh",
            "*.lock",
            "*.safetensors",
        ]
        dirty = subprocess.run(code, cwd=here.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "not a checkout"
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")
