"""Description of the machine: processor, instruction sets, and missing system libraries."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Instruction sets that determine the speed of neural networks, as Linux's /proc/cpuinfo names
# them: vector instructions first, then int8 products, then bfloat16 products.
SPEED = (
    "avx2",
    "avx512f",
    "sve",
    "avx_vnni",
    "avx512_vnni",
    "amx_int8",
    "asimddp",
    "i8mm",
    "avx512_bf16",
    "amx_bf16",
    "bf16",
)
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def is_main_process() -> bool:
    """Return whether this process prints and writes files.

    It is False in the processes that Lightning starts for further devices and nodes.
    """
    return all(
        os.environ.get(name, "0") == "0"
        for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    )


def describe_device() -> str:
    """Return processor, instruction sets, core count, system and architecture as one line of text.

    Results name it, and it tells machines apart. Two virtual machines on the same processor may
    list different instruction sets.
    """
    quick = " ".join(name for name in SPEED if name in instructions())
    processor = _field("model name") or platform.processor() or "unknown processor"
    return (
        f"{processor}{quick and f' ({quick})'}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}"
    )


def instructions() -> frozenset[str]:
    """Return the names of the processor's instruction sets, as Linux lists them.

    The set is empty on other systems.
    """
    return frozenset((_field("flags") or _field("Features")).split())


def multiplies_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16.

    Without them, PyTorch's convolutions take many times as long in bfloat16 as in float32.
    """
    return bool(BFLOAT16 & instructions())


@cache
def _field(name: str) -> str:
    """Return a field of /proc/cpuinfo for the first core, "" if the field does not exist."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == name), ""
    )


def explain_opencv_error(error: ImportError) -> str | None:
    """Return why OpenCV cannot be imported and what to install.

    Args:
        error: Error of ``import cv2``, or of a module that imports it.

    Returns:
        The message, or None if the error has another reason.
    """
    if error.name != "cv2":
        return None
    missing = re.search(r"lib[\w.+-]+\.so[.\d]*", str(error))
    if missing:
        return (
            f"OpenCV cannot be imported because the system library {missing[0]} is missing. "
            "Install it with `sudo apt-get install libgl1 libglib2.0-0` (Debian and Ubuntu), or "
            "replace opencv-python by a package that does not need it: "
            "`pip uninstall opencv-python`, then `pip install opencv-python-headless`."
        )
    if isinstance(error, ModuleNotFoundError):
        return (
            "OpenCV is not installed. Install it with `pip install opencv-python`, or, on a "
            "server without libGL.so.1, with `pip install opencv-python-headless`."
        )
    return None
