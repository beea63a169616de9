"""Tests of the entry point if OpenCV cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shelfcount.machine import explain_opencv_error

ROOT = Path(__file__).parents[1]
# How Python reports that opencv-python is installed on a Debian without the package libgl1.
NO_LIBGL = "libGL.so.1: cannot open shared object file: No such file or directory"


def run_without_libgl(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "cv2.py").write_text(f"raise ImportError('{NO_LIBGL}', name='cv2')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )


def assert_explained(message: str) -> None:
    assert "the system library libGL.so.1 is missing" in message
    assert "sudo apt-get install libgl1 libglib2.0-0" in message
    assert "pip install opencv-python-headless" in message


def test_command_line_names_the_missing_library(tmp_path: Path) -> None:
    done = run_without_libgl(tmp_path, "-m", "shelfcount", "count", "drinks-int8", "photo.jpg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: OpenCV cannot be imported")
    assert "Traceback" not in done.stderr
    assert_explained(done.stderr)


@pytest.mark.parametrize(
    "code", ["import shelfcount.vision.images", "from shelfcount import count"]
)
def test_import_names_the_missing_library(code: str, tmp_path: Path) -> None:
    done = run_without_libgl(tmp_path, "-c", code)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert_explained(last)


def test_other_import_errors_are_not_explained() -> None:
    assert explain_opencv_error(ImportError(NO_LIBGL, name="torch")) is None
    assert explain_opencv_error(ImportError("numpy is too old", name="cv2")) is None
    absent = ModuleNotFoundError("No module named 'cv2'", name="cv2")
    assert "OpenCV is not installed" in (explain_opencv_error(absent) or "")
    # An explained error stays as it is when it is raised again.
    explained = explain_opencv_error(ImportError(NO_LIBGL, name="cv2"))
    assert explain_opencv_error(ImportError(explained, name="cv2")) == explained
