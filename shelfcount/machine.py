"""The machine a number was made on, and what its processor is quick at."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# What decides how fast networks run, by the names of Linux's /proc/cpuinfo: vectors, then products of int8, then of bfloat16.
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


def device() -> str:
    """For people and for telling machines apart. One processor may show two virtual machines different instructions."""
    quick = " ".join(name for name in SPEED if name in instructions())
    processor = _field("model name") or platform.processor() or "unknown processor"
    return f"{processor}{quick and f' ({quick})'}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def instructions() -> frozenset[str]:
    """Names of the processor's instruction sets, as Linux lists them; none on other systems."""
    return frozenset((_field("flags") or _field("Features")).split())


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; without, PyTorch's convolutions in bfloat16 take many times those in float32."""
    return bool(BFLOAT16 & instructions())


@cache
def _field(name: str) -> str:
    """Of the first core; "" where there is none."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == name), ""
    )
