"""The table of benchmarks/README.md on gate, placement and merging, from the stamped results; `readme_tables.py` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from table_parts import read_result, rows_under

from shelfcount.report.page import NOT_MEASURED

HEADS = ("what", "measured", "by", "at commit")


def shelf(results: Path) -> str:
    """What `photo_gate.py`, `placement.py`, `merge_views.py` and `merge_detected.py` measured."""
    rows = []
    for name, lines in {
        "photo_gate": _gate,
        "placement": _placement,
        "merge_views": _views,
    }.items():
        result = read_result(results / f"{name}.json")
        commit = result["stamp"]["commit"] if result else "-"
        rows += [
            [what, value, f"`{name}.py`", commit]
            for what, value in (lines(result) if result else [(name, NOT_MEASURED)])
        ]
    parts = read_result(results / "merge_detected.json") or {}
    for name, lines in {"demo": _demo, "cut_in_four": _cut, "twelve_megapixels": _time}.items():
        part = parts.get(name)
        commit = part["stamp"]["commit"] if part else "-"
        rows += [
            [what, value, "`merge_detected.py`", commit]
            for what, value in (lines(part) if part else [(name, NOT_MEASURED)])
        ]
    return "\n".join(rows_under(HEADS, rows))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _gate(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    time, plain, held_out = result["twelve_megapixels"], result["unchanged"], result["held_out"]
    yield (
        "photo gate, 12 megapixels",
        f"{time['p50_ms']} ms (p90 {time['p90_ms']} ms), {time['threads']} thread",
    )
    of_tests = (
        f"; of those that chose no limit {held_out['refused']} of {held_out['photos']}"
        if held_out
        else ""
    )
    yield (
        "drinks photos as they were taken that the gate refuses",
        f"{plain['refused']} of {plain['photos']}{of_tests}",
    )


def _placement(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    made = result["synthetic"]
    yield (
        "products in the right row and column, synthetic, tilt to 15 and yaw to 30 degrees",
        f"{_percent(made['products_in_right_row_and_column_or_stack'])} on {made['photos']:,} photos",
    )
    yield (
        "sold-out facings found as gaps there; gaps that are sold-out facings",
        " and ".join(_percent(made[key]) for key in ("gap_recall", "gap_precision")),
    )
    yield (
        "a class's share of the shelf, largest error: by count; by width",
        " and ".join(_percent(made[key]) for key in ("share_off_by_count", "share_off_by_width")),
    )
    if real := result.get("drinks"):
        regular, given = (sum(part[key] for part in real) for key in ("regular", "photos"))
        right = sum(part["as_photographed"]["photos_with_every_row_right"] for part in real)
        cells = [cell for part in real for cell in part["through_cameras"]]
        seen = sum(cell["photos_with_every_row_right"] for cell in cells) / (
            regular * len(cells) / len(real)
        )
        yield (
            "drinks coolers with every row right, of the regular ones: as photographed; their boxes through the same cameras",
            f"{right} of {regular} ({given} photos in all), and {_percent(seen)}",
        )


def _views(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    made, copied = result["synthetic"], result["repetitive"]
    for level, counts in made["counts"].items():
        yield (
            f"count error, {made['photos']} photos of {made['shelves']} synthetic shelves merged; {level}",
            _against_single(counts),
        )
    right = f"{copied['right_with_products']} of {copied['pairs']}, by points alone {copied['right_by_points_alone']}"
    yield "pairs of photos placed right on shelves of identical copies", right
    yield (
        "time of such a pair, median and most",
        " and ".join(f"{1000 * s:.0f} ms" for s in copied["cpu_seconds_a_pair"].values()),
    )


def _against_single(counts: dict[str, Any]) -> str:
    return f"{_percent(counts['count_error'])}, of a photo alone {_percent(counts['single_photo_count_error'])}"


def _demo(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    photos = f"{part['photos']} photos of {part['shelves']} synthetic shelves"
    yield f"count error, {photos} merged, by the detector of `make demo`", _against_single(part)


def _cut(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        f"count error, {part['photos']} drinks photos cut in four and merged, by {part['bundle']['name']}",
        f"{_percent(part['count_error'])}, of a part alone {_percent(part['part_alone_count_error'])}, "
        f"of the whole photo {_percent(part['photo_as_it_is_count_error'])}",
    )


def _time(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    times = ", ".join(
        f"{taken['cpu_seconds']} s ({taken['photos']} photos)" for taken in part["a_photo"]
    )
    yield "processor time of a photo of 12 megapixels, from file to merged list", times
