"""Table of the page on runtimes: the released bundle in every runtime that apps use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from table_parts import not_measured, origin, read_result, table

from shelfcount.words import show

HEADS = (
    "runtime",
    "version",
    "file",
    "loads",
    "F1 on the golden photos",
    "largest box difference, px",
    "largest score difference",
)
METRICS = ("f1", "largest_box_px", "largest_score")


def consumers(results: Path) -> str:
    """Return the results of the released bundle in every runtime, from `consumers.py`."""
    result = read_result(results / "consumers.json")
    if result is None:
        return not_measured("Runtimes")
    # Rows of the main artifact come first, and rows with metrics before those without.
    rows = sorted(
        result["rows"],
        key=lambda row: (row["form"] != "model.tflite", "f1" not in row, row["consumer"].lower()),
    )
    return "\n\n".join([table(HEADS, [_row(row) for row in rows]), _legend(result)])


def _row(row: dict[str, Any]) -> list[str]:
    version = row.get("version", "-")
    head = [row["consumer"], version, f"`{row['form']}`", "-" if version == "-" else "yes"]
    if "f1" in row:
        return [*head, *(show(row[key]) for key in METRICS)]
    return [*head, row["reason"], "-", "-"]


def _legend(result: dict[str, Any]) -> str:
    bits = result["arm_bits"]
    if "values" in bits:
        arm = (
            f"Given the same pixels, the {bits['values']:,} int8 outputs of the network on "
            f"{bits['photos']} photos differ between the kernels for Arm and for x86-64 in "
            f"{bits['different']} places."
        )
    else:
        arm = f"Whether the kernels for Arm give the same int8 outputs: {bits['reason']}."
    return (
        f"Bundle {result['name']} (sha256 {result['sha256'][:12]}...) on {result['photos']} golden "
        f"photos with {result['products']} products. In shelfcount's own runtime its F1 is "
        f"{show(result['f1'])}. Differences are to the detections of that runtime. For "
        f"`model-raw.tflite` they are to shelfcount's decoding of the same file, with the "
        f"suppression of MediaPipe. {arm} {origin(result)}"
    )
