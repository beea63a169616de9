"""Changes between two results of `shelfcount bench` or `evaluate` that are larger than noise.

Each change states the noise it is compared with:

* F1 on the same photos: the 95 % interval of a paired bootstrap over the photos;
* F1 of a class: three standard errors, since there are many classes;
* latency on the same machine: the spread of the runs, as 90th percentile minus median. If the
  unchanged baseline has another latency with the same versions, the machine was busy, and the
  ratio to the baseline over paired runs is compared instead;
* values that are stored without a spread (mAP, macro F1, count error, size, memory): a margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.metrics import uncertainty
from shelfcount.records import ShelfcountError
from shelfcount.studies.result_files import read_result
from shelfcount.words import plural

_SEED = 0
# With two standard errors, most comparisons of 30 classes would report one as changed.
_CLASS_ERRORS = 3.0
# Margin of metrics without a stored spread: about the bootstrap interval of F1 on 40 test photos.
_MARGIN = 0.01
# Metadata changes the size of a file, and the allocator the memory of a process.
_SIZE_MARGIN, _MEMORY_MARGIN = 0.01, 0.1


@dataclass(frozen=True)
class Change:
    """One value, before and after.

    Attributes:
        name: Name of the value.
        old, new: The values, or None if not measured.
        state: 'better', 'worse', 'same' (within noise) or 'not compared'.
        why: The noise it was compared with, or why it was not compared.
    """

    name: str
    old: float | None
    new: float | None
    state: str
    why: str

    def __str__(self) -> str:
        values = [value if value is None else f"{value:.4g}" for value in (self.old, self.new)]
        shown = (
            ""
            if values == [None, None]
            else ": " + " -> ".join(value or "not measured" for value in values)
        )
        return f"{self.state:12} {self.name}{shown} ({self.why})"


def _compare_values(
    name: str, old: float | None, new: float | None, noise: float, why: str, *, more_is_better: bool
) -> Change:
    """Compare two values. They differ if the change is larger than `noise`."""
    if old is None or new is None:
        return Change(name, old, new, "not compared", "not measured in both")
    gain = new - old if more_is_better else old - new
    state = "same" if abs(gain) <= noise else "better" if gain > 0 else "worse"
    return Change(name, old, new, state, why)


# ---------------------------------------------------------------------------- accuracy


def _accuracy(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Compare two results of `evaluate` on the same labelled photos.

    Raises:
        ShelfcountError: If the photos or their labels differ.
    """
    photos = [{row["path"]: row["truth"] for row in side["per_photo"]} for side in (old, new)]
    if photos[0] != photos[1]:
        differ = sorted(
            path
            for path in photos[0].keys() | photos[1].keys()
            if photos[0].get(path) != photos[1].get(path)
        )
        raise ShelfcountError(
            "the results are not of the same photos and labels. Different: "
            f"{plural(len(differ), 'photo')}, such as '{differ[0]}'. "
            "Evaluate the old model again on the new data."
        )
    yield f1_change(old, new)
    margin = f"margin {_MARGIN:g}"
    yield _compare_values(
        "macro F1", old["macro_f1"], new["macro_f1"], _MARGIN, margin, more_is_better=True
    )
    yield _compare_values("mAP", old["map"], new["map"], _MARGIN, margin, more_is_better=True)
    was, now = (side["count_error"]["by_class"]["relative"] for side in (old, new))
    yield _compare_values("count error", was, now, _MARGIN, margin, more_is_better=False)
    yield from _classes(old, new)


def f1_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    """Compare F1 by a paired bootstrap over the photos."""
    order = [row["path"] for row in old["per_photo"]]
    counts = []
    for side in (old, new):
        rows = {row["path"]: row for row in side["per_photo"]}
        counts.append(
            np.array(
                [[rows[path][key] for key in ("truth", "found", "tp")] for path in order], float
            )
        )
    low, high = uncertainty.f1_difference_interval(
        counts[1], counts[0], np.random.default_rng(_SEED)
    )
    state = "better" if low > 0 else "worse" if high < 0 else "same"
    why = (
        f"95 % bootstrap interval of the difference, {plural(len(order), 'photo')}: {low:+.4f} to "
        f"{high:+.4f}"
    )
    was, now = (float(uncertainty.f1_of(side.sum(axis=0))) for side in counts)
    return Change("F1", was, now, state, why)


def _classes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Yield classes whose F1 changed by more than `_CLASS_ERRORS` standard errors."""
    before = {row["name"]: row for row in old["per_class"]}
    for row in new["per_class"]:
        if row["name"] not in before or not row["truth"]:
            continue
        was = before[row["name"]]
        # F1 is taken as a binomial share of its boxes. The true noise is smaller, since both models
        # have the same photos.
        noise = _CLASS_ERRORS * math.sqrt(sum(_variance(side) for side in (was, row)))
        change = _compare_values(
            f"F1 of '{row['name']}'",
            was["f1"],
            row["f1"],
            noise,
            f"three standard errors are {noise:.3f}",
            more_is_better=True,
        )
        if change.state != "same":
            yield change


def _variance(row: Mapping[str, Any]) -> float:
    """Return the variance of a class's F1, which Laplace's rule keeps above 0."""
    boxes = (row["truth"] + row["found"]) / 2
    share = (row["tp"] + 1) / (boxes + 2)
    return float(max(share * (1 - share), 0) / boxes)


# ---------------------------------------------------------------------------- size and speed


def _comparison(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Compare two results of bench: the models that both have, and the bundle's accuracy."""
    rows = [
        {f"{row['name']}, {row['variant']}": row for row in side["rows"]} for side in (old, new)
    ]
    unfit = "taken with --quick" if old.get("quick") or new.get("quick") else ""
    if old["stamp"]["device"] != new["stamp"]["device"]:
        unfit = (
            f"measured on another machine: {old['stamp']['device']} against "
            f"{new['stamp']['device']}"
        )
    unfit = unfit or _busy(old, new)
    for name, was in rows[0].items():
        if name not in rows[1]:
            yield Change(name, None, None, "not compared", "only in the old result")
            continue
        now = rows[1][name]
        yield _size(f"size of {name}", was, now, "size", _SIZE_MARGIN)
        if was.get("memory") or now.get("memory"):
            yield _size(f"memory of {name}", was, now, "memory", _MEMORY_MARGIN)
        if was.get("outside") is not None and now.get("outside") is not None:
            before, after = (len(side["outside"]) for side in (was, now))
            yield _compare_values(
                f"operators of {name} outside XNNPACK",
                before,
                after,
                0,
                "counted in the file",
                more_is_better=False,
            )
        yield from _latencies(name, was, now, unfit)
    for name in rows[1].keys() - rows[0].keys():
        yield Change(name, None, None, "not compared", "only in the new result")
    if _same_reference(old, new):
        yield _times_faster(old, new)
    if old.get("evaluation") and new.get("evaluation"):
        yield from _accuracy(old["evaluation"], new["evaluation"])
    yield from _budgets(old.get("phones") or [], new.get("phones") or [])


def _size(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], key: str, margin: float
) -> Change:
    """Compare a size in bytes with a margin that is a share of the old size."""
    was, now = (None if side.get(key) is None else side[key] / 1e6 for side in (old, new))
    return _compare_values(
        f"{name}, MB",
        was,
        now,
        margin * (was or 0),
        f"margin {100 * margin:g} %",
        more_is_better=False,
    )


def _latencies(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], unfit: str
) -> Iterator[Change]:
    """Compare median latencies for each number of threads that both results have.

    Args:
        name: Name of the model.
        old, new: Its rows in both results.
        unfit: Why latencies cannot be compared, or an empty string.
    """
    sides = [
        {entry["threads"]: entry for entry in [*(row.get("by_threads") or []), row["latency"]]}
        for row in (old, new)
    ]
    for threads in sorted(sides[0].keys() & sides[1].keys()):
        was, now = (side[threads] for side in sides)
        title = f"latency of {name}, {plural(threads, 'thread')}, ms"
        if unfit:
            yield Change(title, was["p50"], now["p50"], "not compared", unfit)
            continue
        spread = max(entry["p90"] - entry["p50"] for entry in (was, now))
        why = (
            f"90th percentile up to {spread:.3g} ms above the median of {was['runs']} and "
            f"{now['runs']} runs"
        )
        yield _compare_values(title, was["p50"], now["p50"], spread, why, more_is_better=False)


def _same_reference(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether both have the same baseline and the same versions of all libraries."""
    if old["stamp"]["versions"] != new["stamp"]["versions"] or any(
        "reference" not in side for side in (old, new)
    ):
        return False
    was, now = (side["rows"][side["reference"]] for side in (old, new))
    return all(was[key] == now[key] for key in ("name", "variant", "size", "macs"))


def _busy(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return why latencies cannot be compared if the unchanged baseline has another one.

    Returns:
        An empty string if they can be compared.
    """
    if not _same_reference(old, new):
        return ""
    was, now = (side["rows"][side["reference"]] for side in (old, new))
    if all(change.state == "same" for change in _latencies("", was, now, "")):
        return ""
    return (
        f"the unchanged baseline took {was['latency']['p50']:.4g} and {now['latency']['p50']:.4g} "
        "ms, so the machine was busy"
    )


def _times_faster(old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    """Compare the speed relative to the baseline, by the spread of paired runs."""
    was, now = (side["times_faster"] for side in (old, new))
    state = (
        "better" if now["low"] > was["high"] else "worse" if now["high"] < was["low"] else "same"
    )
    why = (
        f"paired runs spread from {was['low']:g} to {was['high']:g} and from {now['low']:g} to "
        f"{now['high']:g}"
    )
    return Change("times faster than the baseline", was["median"], now["median"], state, why)


def _budgets(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[Change]:
    """Yield requirements of phone budgets that were met and are missed, or the reverse."""
    before = {
        (verdict["phone"], line["name"]): line["state"]
        for verdict in old
        for line in verdict["lines"]
    }
    for verdict in new:
        for line in verdict["lines"]:
            states = before.get((verdict["phone"], line["name"])), line["state"]
            if "missed" in states and None not in states and states[0] != states[1]:
                state = "worse" if states[1] == "missed" else "better"
                yield Change(
                    f"{verdict['phone']}, {line['name']}",
                    None,
                    None,
                    state,
                    f"was {states[0]}, is {states[1]}: {line['value']}",
                )


# ---------------------------------------------------------------------------- files


def result_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change] | None:
    """Compare two results.

    Returns:
        None if they are not both of bench or both of evaluate.

    Raises:
        ShelfcountError: If they are of different photos, or a value is missing.
    """
    commands = [_command(side) for side in (old, new)]
    if commands[0] != commands[1] or commands[0] is None:
        return None
    try:
        return list(_comparison(old, new) if commands[0] == "bench" else _accuracy(old, new))
    except (KeyError, TypeError) as error:
        raise ShelfcountError(
            f"a value of a result is missing or has the wrong type ({error}). "
            "Write both results with this version of shelfcount."
        ) from error


def folder_changes(old: Path, new: Path) -> dict[str, list[Change]]:
    """Compare two results, or the results with the same name in two folders.

    Returns:
        Changes by file. A file of a folder that cannot be compared has one change with the reason.

    Raises:
        ShelfcountError: If nothing can be compared.
    """
    found = {}
    for name, both in _pairs(old, new).items():
        try:
            changes = result_changes(*both)
        except ShelfcountError as error:
            if not old.is_dir():
                raise
            changes = [Change("all values", None, None, "not compared", str(error))]
        found[name] = changes or [
            Change(
                "all values",
                None,
                None,
                "not compared",
                "not a result of bench or of evaluate in both",
            )
        ]
    if all(change.state == "not compared" for changes in found.values() for change in changes):
        raise ShelfcountError(
            f"no results of `bench` or `evaluate` that can be compared in {', '.join(found)}"
        )
    return found


def _command(result: Any) -> str | None:
    """Return the command that wrote a result: 'bench', 'evaluate' or None."""
    if not isinstance(result, dict):
        return None
    if "rows" in result and "stamp" in result and all("latency" in row for row in result["rows"]):
        return "bench"
    return "evaluate" if "per_photo" in result and "per_class" in result else None


def _pairs(old: Path, new: Path) -> dict[str, tuple[Any, Any]]:
    """Read two results, or the results with the same name in two folders.

    Raises:
        ShelfcountError: If one is a file and the other a folder, if a file is not JSON, or if the
            folders have no common file name.
    """
    if old.is_dir() != new.is_dir():
        raise ShelfcountError(
            f"'{old}' and '{new}' are a file and a folder. Give two files or two folders."
        )
    if not old.is_dir():
        return {new.name: (_load(old), _load(new))}
    names = sorted(
        {path.name for path in old.glob("*.json")} & {path.name for path in new.glob("*.json")}
    )
    if not names:
        raise ShelfcountError(f"'{old}' and '{new}' have no .json file with the same name")
    return {name: (_load(old / name), _load(new / name)) for name in names}


def _load(path: Path) -> Any:
    """Read a result and the rows for single photos beside it.

    Raises:
        ShelfcountError: If the file cannot be read or is not JSON.
    """
    try:
        return read_result(path)
    except (OSError, ValueError) as error:
        raise ShelfcountError(f"cannot read result '{path}': {error}") from error
