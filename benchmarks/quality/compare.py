"""What a new model or library changed: two results of `shelfcount bench` or `evaluate`, or two folders of them.

A difference counts where it is beyond noise, and each line says what that is:

* F1 over the same photos: 95 % of resamples of the photos (paired bootstrap) agree on its sign;
* F1 of a class: three standard errors, as there are many classes;
* latency on the same machine: the medians lie further apart than the runs spread, by 90th percentile above median;
  where the same baseline in the same versions took another time, the machine was busy with something else, and the
  bundle is held against the baseline that ran beside it: the ratios of their paired runs lie apart;
* what is stored without a spread (mAP, macro F1, count error, size, memory): a margin, stated.

    python benchmarks/quality/compare.py OLD NEW [--json OUT.json]

Exits with 1 where something got worse, 2 where nothing can be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from thin import read_whole

from shelfcount.files import write_whole
from shelfcount.metrics import uncertainty
from shelfcount.records import ShelfcountError

SEED = 0
# With 30 classes, two standard errors would call one of them changed in most comparisons.
CLASS_ERRORS = 3.0
# Metrics that no spread is stored for: a point, about what the bootstrap finds for F1 on the 40 drinks test photos, either way.
MARGIN = 0.01
# Metadata alone moves a file's size; the system's allocator a process's memory.
SIZE_MARGIN, MEMORY_MARGIN = 0.01, 0.1


@dataclass(frozen=True)
class Change:
    """One figure, before and after.

    Attributes:
        name: What it is.
        old, new: The figures; None where it was not measured.
        state: 'better', 'worse', 'same' (within noise) or 'not compared'.
        why: The noise that it was held against, or why it was not compared.
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


def judge(
    name: str, old: float | None, new: float | None, noise: float, why: str, *, more_is_better: bool
) -> Change:
    """A change by more than `noise` either way; None is 'not measured'."""
    if old is None or new is None:
        return Change(name, old, new, "not compared", "not measured in both")
    gain = new - old if more_is_better else old - new
    state = "same" if abs(gain) <= noise else "better" if gain > 0 else "worse"
    return Change(name, old, new, state, why)


# ---------------------------------------------------------------------------- accuracy


def accuracy(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Two evaluations, as `evaluate` writes them, on the same labelled photos.

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
            f"both results must be of the same photos and labels, got {len(differ)} photos that differ, such as '{differ[0]}'. "
            "Evaluate the old model again on the new data."
        )
    yield resampled(old, new)
    margin = f"margin {MARGIN:g}"
    yield judge("macro F1", old["macro_f1"], new["macro_f1"], MARGIN, margin, more_is_better=True)
    yield judge("mAP", old["map"], new["map"], MARGIN, margin, more_is_better=True)
    errors = (side["count_error"]["by_class"]["relative"] for side in (old, new))
    yield judge("count error", *errors, noise=MARGIN, why=margin, more_is_better=False)
    yield from classes(old, new)


def resampled(old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    """F1 by a bootstrap over photos, both models on the same resamples."""
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
        counts[1], counts[0], np.random.default_rng(SEED)
    )
    state = "better" if low > 0 else "worse" if high < 0 else "same"
    why = f"95 % of {uncertainty.RESAMPLES:,} resamples of {len(order)} photos change it by {low:+.4f} to {high:+.4f}"
    was, now = (float(uncertainty.f1_of(side.sum(axis=0))) for side in counts)
    return Change("F1", was, now, state, why)


def classes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Classes whose F1 changed by `CLASS_ERRORS` standard errors; those within noise are not listed."""
    before = {row["name"]: row for row in old["per_class"]}
    for row in new["per_class"]:
        if row["name"] not in before or not row["truth"]:
            continue
        was = before[row["name"]]
        # F1 as a share of its boxes, binomial; both models saw the same photos, so that the true noise is smaller.
        noise = CLASS_ERRORS * math.sqrt(sum(variance(side) for side in (was, row)))
        change = judge(
            f"F1 of '{row['name']}'",
            was["f1"],
            row["f1"],
            noise,
            f"three standard errors are {noise:.3f}",
            more_is_better=True,
        )
        if change.state != "same":
            yield change


def variance(row: Mapping[str, Any]) -> float:
    """Of a class's F1; never 0, as a class found whole by luck is not certain (Laplace's rule)."""
    boxes = (row["truth"] + row["found"]) / 2
    share = (row["tp"] + 1) / (boxes + 2)
    return max(share * (1 - share), 0) / boxes


# ---------------------------------------------------------------------------- size and speed


def comparison(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Two results of `bench`: each model that is in both, and the bundle's accuracy."""
    rows = [
        {f"{row['name']}, {row['variant']}": row for row in side["rows"]} for side in (old, new)
    ]
    unfit = "taken with --quick" if old.get("quick") or new.get("quick") else ""
    if old["stamp"]["device"] != new["stamp"]["device"]:
        unfit = f"measured on another machine: {old['stamp']['device']} against {new['stamp']['device']}"
    unfit = unfit or busy(old, new)
    for name, was in rows[0].items():
        if name not in rows[1]:
            yield Change(name, None, None, "not compared", "only in the old result")
            continue
        now = rows[1][name]
        yield relative(f"size of {name}", was, now, "size", SIZE_MARGIN)
        if was.get("memory") or now.get("memory"):
            yield relative(f"memory of {name}", was, now, "memory", MEMORY_MARGIN)
        if was.get("outside") is not None and now.get("outside") is not None:
            outside = (len(side["outside"]) for side in (was, now))
            yield judge(
                f"operators of {name} outside XNNPACK",
                *outside,
                noise=0,
                why="counted in the file",
                more_is_better=False,
            )
        yield from latencies(name, was, now, unfit)
    for name in rows[1].keys() - rows[0].keys():
        yield Change(name, None, None, "not compared", "only in the new result")
    if same_reference(old, new):
        yield paired(old, new)
    if old.get("evaluation") and new.get("evaluation"):
        yield from accuracy(old["evaluation"], new["evaluation"])
    yield from budgets(old.get("phones") or [], new.get("phones") or [])


def relative(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], key: str, margin: float
) -> Change:
    """A cost in bytes, with a margin that is a share of the old one."""
    was, now = (None if side.get(key) is None else side[key] / 1e6 for side in (old, new))
    return judge(
        f"{name}, MB",
        was,
        now,
        margin * (was or 0),
        f"margin {100 * margin:g} %",
        more_is_better=False,
    )


def latencies(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], unfit: str
) -> Iterator[Change]:
    """Median times at each thread count that both have; `unfit` says why they cannot be compared, or nothing."""
    sides = [
        {entry["threads"]: entry for entry in [*(row.get("by_threads") or []), row["latency"]]}
        for row in (old, new)
    ]
    for threads in sorted(sides[0].keys() & sides[1].keys()):
        was, now = (side[threads] for side in sides)
        title = f"latency of {name}, {threads} thread{'s' if threads > 1 else ''}, ms"
        if unfit:
            yield Change(title, was["p50"], now["p50"], "not compared", unfit)
            continue
        spread = max(entry["p90"] - entry["p50"] for entry in (was, now))
        why = f"90th percentile up to {spread:.3g} ms above the median of {was['runs']} and {now['runs']} runs"
        yield judge(title, was["p50"], now["p50"], spread, why, more_is_better=False)


def same_reference(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether both ran beside one and the same baseline, in the same versions of all libraries."""
    if old["stamp"]["versions"] != new["stamp"]["versions"] or any(
        "reference" not in side for side in (old, new)
    ):
        return False
    was, now = (side["rows"][side["reference"]] for side in (old, new))
    return all(was[key] == now[key] for key in ("name", "variant", "size", "macs"))


def busy(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Why times cannot be compared, where the unchanged baseline itself took another time; else nothing."""
    if not same_reference(old, new):
        return ""
    was, now = (side["rows"][side["reference"]] for side in (old, new))
    if all(change.state == "same" for change in latencies("", was, now, "")):
        return ""
    return f"the baseline itself went from {was['latency']['p50']:.4g} to {now['latency']['p50']:.4g} ms: the machine was not as free"


def paired(old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    """How many times faster the bundle is than the baseline that ran in turn with it: better or worse where the spreads lie apart."""
    was, now = (side["times_faster"] for side in (old, new))
    state = (
        "better" if now["low"] > was["high"] else "worse" if now["high"] < was["low"] else "same"
    )
    why = f"paired runs spread from {was['low']:g} to {was['high']:g} and from {now['low']:g} to {now['high']:g}"
    return Change("times faster than the baseline", was["median"], now["median"], state, why)


def budgets(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[Change]:
    """Lines of a phone's budget that were kept and are missed, or the other way round."""
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
                    f"was {states[0]}, is {states[1]}: {line['got']}",
                )


# ---------------------------------------------------------------------------- files


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change] | None:
    """Every figure of two results; None where they are not both of `bench` or both of `evaluate`.

    Raises:
        ShelfcountError: If they are of other photos, or lack a figure.
    """
    kinds = [kind(side) for side in (old, new)]
    if kinds[0] != kinds[1] or kinds[0] is None:
        return None
    try:
        return list(comparison(old, new) if kinds[0] == "bench" else accuracy(old, new))
    except (KeyError, TypeError) as error:
        raise ShelfcountError(
            f"a result lacks or mistypes {error!r}; was it written by this version of shelfcount?"
        ) from error


def compare_all(old: Path, new: Path) -> dict[str, list[Change]]:
    """Changes by file; of two folders, those files that cannot be compared say why in a line of their own.

    Raises:
        ShelfcountError: If nothing can be compared.
    """
    found = {}
    for name, both in pairs(old, new).items():
        try:
            changes = compare(*both)
        except ShelfcountError as error:
            if not old.is_dir():
                raise
            changes = [Change("all figures", None, None, "not compared", str(error))]
        found[name] = changes or [
            Change(
                "all figures",
                None,
                None,
                "not compared",
                "not a result of bench or of evaluate in both",
            )
        ]
    if all(change.state == "not compared" for changes in found.values() for change in changes):
        raise ShelfcountError(
            f"OLD and NEW must hold results of `bench` or of `evaluate` that can be compared, got none in {', '.join(found)}"
        )
    return found


def kind(result: Any) -> str | None:
    """'bench' or 'evaluate', by what a result holds."""
    if not isinstance(result, dict):
        return None
    if "rows" in result and "stamp" in result and all("latency" in row for row in result["rows"]):
        return "bench"
    return "evaluate" if "per_photo" in result and "per_class" in result else None


def pairs(old: Path, new: Path) -> dict[str, tuple[Any, Any]]:
    """Results by name, from two files or from files of one name in two folders.

    Raises:
        ShelfcountError: If one is a file and the other a folder, a file is no JSON, or the folders share no file.
    """
    if old.is_dir() != new.is_dir():
        raise ShelfcountError(
            f"OLD and NEW must be two files or two folders, got '{old}' and '{new}'"
        )
    if not old.is_dir():
        return {new.name: (load(old), load(new))}
    names = sorted(
        {path.name for path in old.glob("*.json")} & {path.name for path in new.glob("*.json")}
    )
    if not names:
        raise ShelfcountError(f"'{old}' and '{new}' must share a .json file, got none of one name")
    return {name: (load(old / name), load(new / name)) for name in names}


def load(path: Path) -> Any:
    """Read a result and the rows for single photos beside it.

    Raises:
        ShelfcountError: If the file cannot be read or is not JSON.
    """
    try:
        return read_whole(path)
    except (OSError, ValueError) as error:
        raise ShelfcountError(f"cannot read result '{path}': {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Print every figure with its noise, and the balance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="result, or folder of results, of before")
    parser.add_argument("new", type=Path, help="of now")
    parser.add_argument("--json", type=Path, help="write every figure here")
    given = parser.parse_args(arguments)
    try:
        found = compare_all(given.old, given.new)
    except ShelfcountError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, changes in found.items():
        print(name)
        for change in changes:
            print(f"  {change}")
    balance = Counter(change.state for changes in found.values() for change in changes)
    print(
        f"{balance['better']} better, {balance['worse']} worse, {balance['same']} within noise, {balance['not compared']} not compared"
    )
    if given.json:
        write_whole(
            given.json,
            json.dumps(
                {name: [asdict(change) for change in changes] for name, changes in found.items()},
                indent=1,
            ),
        )
    return int(balance["worse"] > 0)


if __name__ == "__main__":
    sys.exit(main())
