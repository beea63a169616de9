"""Provenance of a result: commit, versions, device, threads and seed.

Every result file contains it.
"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shelfcount.machine import describe_device

PACKAGES = (
    "shelfcount",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "litert-torch",
    "ai-edge-quantizer",
    "ai-edge-litert",
)


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that training, export or measurement uses.

    Packages that are not installed are left out.
    """
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def stamp(*, seed: int | None = None, threads: int | None = None) -> dict[str, Any]:
    """Return the provenance as plain data for a JSON file.

    ``commit`` ends in ``+changes`` if code, settings or weights differ from the commit.

    Args:
        seed: Random seed of the run, if any.
        threads: Number of threads of the run, if measured.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "versions": package_versions(),
        "device": describe_device(),
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
        # Other files, such as results of measurements that run at the same time, change no number.
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
