"""Tables of the page on speed: devices, input sizes, architectures, phones, scaling and peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from baseline_tables import comparison
from table_parts import not_measured, origin, read_result, table

from shelfcount.speed.model_rows import Ratio, format_ratio
from shelfcount.words import show

PEER_HEADS = (
    "detector",
    "format",
    "input",
    "MB",
    "GMAC",
    "memory, MB",
    "p50, ms",
    "p90, ms",
    "latency relative to the bundle",
    "not delegated to XNNPACK",
    "operators that only move data",
)
# Change of the power with which the time grows, from which it is reported.
BEND = 0.3
# Axes of `scaling.py`: heading, key of the result, and columns (key, heading, digits).
AXES = (
    (
        "Input size",
        "input_size",
        (
            ("at", "input side, px", 0),
            ("ms", "p50, ms", 1),
            ("p90_ms", "p90, ms", 1),
            ("gmac", "GMAC", 2),
            ("gmac_per_s", "GMAC per second", 1),
            ("largest_tensor_mb", "largest tensor, MB", 2),
        ),
    ),
    (
        "Number of classes",
        "classes",
        (
            ("at", "classes", 0),
            ("ms", "p50, ms", 1),
            ("p90_ms", "p90, ms", 1),
            ("gmac", "GMAC", 2),
            ("largest_tensor_mb", "largest tensor, MB", 2),
        ),
    ),
    (
        "Products on the photo, without the network",
        "products",
        (
            ("at", "products", 0),
            ("found", "detections", 0),
            ("suppression_ms", "suppression, ms", 1),
            ("rows_ms", "rows and positions, ms", 1),
            ("ms", "both, ms", 1),
        ),
    ),
    (
        "Photo size",
        "photo_size",
        (
            ("at", "megapixels", 0),
            ("tiles", "tiles", 0),
            ("looks", "network passes", 0),
            ("read_ms", "reading, ms", 0),
            ("network_ms", "network, ms", 0),
            ("rest_ms", "other, ms", 0),
            ("ms", "total, ms", 0),
        ),
    ),
    (
        "Photos in one `shelfcount count` command",
        "batch",
        (
            ("at", "photos", 0),
            ("s", "total, s", 2),
            ("ms_a_photo", "per photo, ms", 0),
            ("peak_mb", "peak memory, MB", 1),
        ),
    ),
)


def at_320(results: Path) -> str:
    """Return a network of 320 pixels beside the untrained baseline of 640."""
    return _benched(results, "drinks_bench_320.json", "Input of 320 pixels")


def at_640(results: Path) -> str:
    """Return the released bundle beside the untrained baseline of 640 pixels."""
    return _benched(results, "drinks_bench.json", "Baseline of 640 pixels")


def with_vnni(results: Path) -> str:
    """Return the previous bundle on a processor with AVX-512 and VNNI."""
    return _benched(results, "drinks_bench_vnni.json", "AVX-512 with VNNI")


def _benched(results: Path, name: str, what: str) -> str:
    result = read_result(results / name)
    return not_measured(what) if result is None else "\n\n".join(comparison(result))


def phones(results: Path) -> str:
    """Return the released bundle's results against the budgets of phones."""
    result = read_result(results / "drinks_bench_trained.json")
    if result is None:
        return not_measured("Phones")
    keys = ("name", "budget", "value", "state", "basis")
    rows = [
        [verdict["phone"], *(line[key] for key in keys)]
        for verdict in result["phones"]
        for line in verdict["lines"]
    ]
    heads = ("phone", "requirement", "budget", "value", "verdict", "source of the value")
    return "\n\n".join([table(heads, rows), origin(result)])


def peers(results: Path) -> str:
    """Return public detectors beside the bundle, as `peers.py` measured them."""
    result = read_result(results / "peers.json")
    if result is None:
        return not_measured("Peers")
    left_out = "".join(
        f" Not measured: {missing['peer']}, because {missing['reason']}"
        for missing in result["left_out"]
    )
    sources = "; ".join(dict.fromkeys(f"{row['name']}: {row['source']}" for row in result["rows"]))
    runs = result["rows"][0]["latency"]["runs"]
    legend = (
        f"Latency is that of one photo up to the heads, without suppression, over {runs} runs that "
        f"alternate between the detectors. The ratio is the median over paired runs, with its 10th "
        f"and 90th percentile. The other detectors have other classes, so F1 is not compared. "
        f"Sources: {sources}.{left_out} {origin(result)}"
    )
    return "\n\n".join([table(PEER_HEADS, [_peer(row) for row in result["rows"]]), legend])


def _peer(row: dict[str, Any]) -> list[str]:
    latency, times = row["latency"], row["times_bundle"]
    costs = (
        (row["size"] / 1e6, 2),
        (row["macs"] / 1e9, 2),
        (row["memory"] and row["memory"] / 1e6, 1),
        (latency["p50"], 1),
        (latency["p90"], 1),
    )
    return [
        row["name"],
        row["form"],
        f"{row['width']} x {row['height']}",
        *(show(value, digits) for value, digits in costs),
        format_ratio(Ratio(**times)) if times else "1",
        ", ".join(row["outside"]) or "none",
        ", ".join(row.get("moving", ())) or "none",
    ]


def growth(results: Path) -> str:
    """Return the cost of a count along each axis that `scaling.py` measured."""
    result = read_result(results / "scaling.json")
    if result is None:
        return not_measured("Scaling")
    parts = []
    for heading, axis, columns in AXES:
        if axis in result:
            x, ms = zip(
                *((row["at"], _milliseconds(row)) for row in result[axis]["rows"]), strict=True
            )
            heads = [head for _, head, _ in columns]
            rows = [
                [show(row[key], digits) for key, _, digits in columns]
                for row in result[axis]["rows"]
            ]
            parts += [f"### {heading}", table(heads, rows), GROWTH[axis](x, ms)]
    return "\n\n".join([*parts, origin(result)])


def _milliseconds(row: dict[str, Any]) -> float:
    return 1e3 * row["s"] if "s" in row else row["ms"]


def powers(x: Sequence[float], y: Sequence[float]) -> np.ndarray:
    """Return the power of x with which y grows between neighbours, as an (n - 1,) array."""
    return np.diff(np.log(np.maximum(y, 1e-6))) / np.diff(np.log(x))


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return fixed part and slope of y = fixed + slope * x, fitted by relative errors."""
    columns = np.stack([np.ones(len(x)), np.asarray(x, float)], axis=1)
    columns /= np.asarray(y, float)[:, None]
    fixed, slope = np.linalg.lstsq(columns, np.ones(len(x)), rcond=None)[0]
    return float(fixed), float(slope)


def power_sentence(
    x: Sequence[float], y: Sequence[float], unit: str, base: str = "", power: float = 1
) -> str:
    """Return how the time grows, and where its power changes most.

    Args:
        x: Values of the axis.
        y: Milliseconds.
        unit: Unit of x.
        base: Name of x to the `power`, such as the area of a side. Default: the unit.
        power: Power of x that the time is compared with.
    """
    steps, factor = powers(x, y) / power, y[-1] / max(y[0], 1e-6)
    text = f"From {x[0]:,g} to {x[-1]:,g} {unit}, the time grows by a factor of {factor:.1f}."
    changes = np.abs(np.diff(steps))
    if not len(changes) or changes.max() < BEND:
        whole = float(powers([x[0], x[-1]], [y[0], y[-1]])[0]) / power
        text += f" It is proportional to the power {whole:.2f} of the {base or unit} throughout."
        return text
    at = int(changes.argmax())
    return (
        f"{text} The power is {steps[at]:.2f} up to {x[at + 1]:,g} and {steps[at + 1]:.2f} above."
    )


def line_sentence(x: Sequence[float], y: Sequence[float], one: str, many: str) -> str:
    """Return the fixed and the growing part of the time, and where both are equal."""
    fixed, each = line(x, y)
    if fixed <= 0 or each <= 0:
        return f"The time has no fixed part beside the one that grows with the {many}."
    text, equal = f"The time fits {fixed:,.3g} ms plus {each:.3g} ms per {one}.", fixed / each
    if equal > x[-1]:
        return f"{text} The fixed part is larger for all measured numbers of {many}."
    return f"{text} Up to {equal:,.0f} {many}, the fixed part is larger."


# Sentence on the growth along each axis, by the key of the result.
GROWTH: dict[str, Callable[[Sequence[float], Sequence[float]], str]] = {
    "input_size": lambda x, y: power_sentence(x, y, "pixels per side", "area", 2),
    "classes": lambda x, y: line_sentence(x, y, "class", "classes"),
    "products": lambda x, y: power_sentence(x, y, "products"),
    "photo_size": lambda x, y: power_sentence(x, y, "megapixels"),
    "batch": lambda x, y: line_sentence(x, y, "photo", "photos"),
}


def members(results: Path) -> str:
    """Return size, work and latency of each architecture, as `family.py` measured them."""
    result = read_result(results / "family.json")
    if result is None:
        return not_measured("Architectures")
    heads = (
        "architecture",
        "input",
        "GMAC",
        "int8, MB",
        "int8, ms",
        "float32, ms",
        "float32 relative to int8",
        "not delegated to XNNPACK",
        "operators that only move data",
    )
    found = {(row["model"], row["size"], row["recipe"]): row for row in result["rows"]}
    rows = []
    for (model, size, recipe), row in found.items():
        if recipe == "int8":
            float_ms = found[model, size, "float32"]["ms"]["p50"]
            rows.append(
                [
                    model,
                    f"{size} x {size}",
                    show(row["gmac"]),
                    f"{row['bytes'] / 1e6:.2f}",
                    f"{row['ms']['p50']:.1f}",
                    f"{float_ms:.1f}",
                    f"{float_ms / row['ms']['p50']:.1f}",
                    *(", ".join(row[key]) for key in ("outside_xnnpack", "moving")),
                ]
            )
    legend = (
        f"Latencies are medians of {result['rows'][0]['runs']} runs that alternate between the "
        f"files. The operators are those of the int8 file. {origin(result)}"
    )
    return "\n\n".join([table(heads, rows), *_operators(result["operators"]), legend])


def _operators(profiles: Sequence[dict[str, Any]]) -> list[str]:
    """Return the time of each kind of operator, with a column for each network."""
    if not profiles:
        return []
    heads = ("operator", *(f"{profile['model']} {profile['size']}" for profile in profiles))
    columns = [
        {(kind["name"], kind["inside"]): kind for kind in profile["kinds"]} for profile in profiles
    ]
    kinds = sorted(
        {kind for column in columns for kind in column},
        key=lambda kind: (-sum(column[kind]["ms"] for column in columns if kind in column), kind),
    )
    rows = []
    for name, delegated in kinds:
        cells = [column.get((name, delegated)) for column in columns]
        rows.append(
            [
                name if delegated else f"{name}, not delegated",
                *(f"{cell['ms']:.2f} ms ({cell['count']})" if cell else "-" for cell in cells),
            ]
        )
    totals = (sum(kind["ms"] for kind in column.values()) for column in columns)
    rows.append(["all", *(f"{total:.2f} ms" for total in totals)])
    return [
        "Time of the int8 operators in LiteRT's profiler, which slows them a little. The number "
        "of operators is in parentheses.",
        table(heads, rows),
    ]
