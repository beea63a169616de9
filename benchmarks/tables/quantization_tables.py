"""Table of the page on quantization."""

from __future__ import annotations

from pathlib import Path

from table_parts import not_measured, origin, read_result, table

from shelfcount.words import show


def quantization(results: Path) -> str:
    """Return the F1 cost of int8 by calibration method, as `quantization.py` measured it."""
    result = read_result(results / "quantization.json")
    if result is None:
        return not_measured("Quantization")
    rows = [
        [
            row["method"],
            str(row.get("photos", "")),
            f"{row['megabytes']:.2f}",
            show(row["f1"]),
            f"{row['drop_points']:.2f} ± {row['drop_standard_error']:.2f}",
        ]
        for row in result["rows"]
    ]
    legend = (
        f"{result['data']['photos']} validation photos, corrected labels. The number after ± is "
        f"the standard error over photos. {origin(result)}"
    )
    heads = ("method", "calibration photos", "MB", "F1", "F1 loss, points")
    return "\n\n".join([table(heads, rows), legend])
