"""Table of the page on shelves: photo gate, placement and merging."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from table_parts import percent, read_result, table

from shelfcount.words import NOT_MEASURED

HEADS = ("measurement", "value", "script", "commit")


def shelf(results: Path) -> str:
    """Return the results of photo gate, placement and merging."""
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
    return table(HEADS, rows)


def _gate(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    time, plain, held_out = result["twelve_megapixels"], result["unchanged"], result["held_out"]
    yield (
        "time of the photo gate, 12 megapixels",
        f"{time['p50_ms']} ms (p90 {time['p90_ms']} ms), {time['threads']} thread",
    )
    of_tests = (
        f"; test photos, which chose no limit: {held_out['refused']} of {held_out['photos']}"
        if held_out
        else ""
    )
    yield (
        "unchanged drinks photos that the gate refuses",
        f"{plain['refused']} of {plain['photos']}{of_tests}",
    )


def _placement(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    made = result["synthetic"]
    yield (
        "synthetic products in the right row and column, tilt up to 15 and yaw up to 30 degrees",
        f"{percent(made['products_in_right_row_and_column_or_stack'])} on "
        f"{made['photos']:,} photos",
    )
    yield (
        "recall and precision of gaps as sold-out facings, on the same photos",
        " and ".join(percent(made[key]) for key in ("gap_recall", "gap_precision")),
    )
    yield (
        "largest error of a class's share of shelf, by count and by width",
        " and ".join(percent(made[key]) for key in ("share_off_by_count", "share_off_by_width")),
    )
    if real := result.get("drinks"):
        regular, given = (sum(part[key] for part in real) for key in ("regular", "photos"))
        right = sum(part["as_photographed"]["photos_with_every_row_right"] for part in real)
        cells = [cell for part in real for cell in part["through_cameras"]]
        seen = sum(cell["photos_with_every_row_right"] for cell in cells) / (
            regular * len(cells) / len(real)
        )
        yield (
            "regular drinks coolers with every row right, as photographed and by simulated cameras",
            f"{right} of {regular} ({given} photos in all), and {percent(seen)}",
        )


def _views(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    made, copied = result["synthetic"], result["repetitive"]
    for level, counts in made["counts"].items():
        yield (
            f"count error of {made['photos']} photos of {made['shelves']} synthetic shelves, "
            f"merged; {level}",
            _against_single(counts),
        )
    right = (
        f"{copied['right_with_products']} of {copied['pairs']}, with key points only "
        f"{copied['right_by_points_alone']}"
    )
    yield "pairs of photos placed right, on shelves of identical products", right
    yield (
        "time of such a pair, median and maximum",
        " and ".join(f"{1000 * s:.0f} ms" for s in copied["cpu_seconds_a_pair"].values()),
    )


def _against_single(counts: dict[str, Any]) -> str:
    single = percent(counts["single_photo_count_error"])
    return f"{percent(counts['count_error'])}, of single photos {single}"


def _demo(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    photos = f"{part['photos']} photos of {part['shelves']} synthetic shelves"
    yield (
        f"count error of {photos}, merged, with the detector of `make demo`",
        _against_single(part),
    )


def _cut(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        f"count error of {part['photos']} drinks photos cut in four and merged, with "
        f"{part['bundle']['name']}",
        f"{percent(part['count_error'])}, of single parts "
        f"{percent(part['part_alone_count_error'])}, of the whole photo "
        f"{percent(part['photo_as_it_is_count_error'])}",
    )


def _time(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    times = ", ".join(
        f"{taken['cpu_seconds']} s ({taken['photos']} photos)" for taken in part["a_photo"]
    )
    yield "CPU time per photo of 12 megapixels, from file to merged list", times
