"""HTML page on repeats: median and interval, repeats needed, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from shelfcount.report import page
from shelfcount.report.figures import BLUE, PLOT_GREY, VERMILION, plot_png
from shelfcount.studies import repeat_statistics
from shelfcount.studies.repeat_statistics import repeats_needed_text
from shelfcount.studies.repeats import Repeat
from shelfcount.words import plural

NAMES = {
    "f1": "F1 at IoU 0.5",
    "f1_class_ignored": "class-agnostic F1",
    "count_error": "relative count error",
}


def plot_repeats(
    repeats: Sequence[Repeat], summary: Mapping[str, Any], figure: str = "f1"
) -> bytes:
    """Plot how the median of a metric converges with the number of repeats.

    Args:
        repeats: Repeats in the order of their seeds.
        summary: Summary of the repeats, from `summarize_repeats`.
        figure: Metric, a key of `NAMES`.

    Returns:
        PNG bytes.
    """
    values = [
        v for r in repeat_statistics.largest_share(repeats) if (v := getattr(r, figure)) is not None
    ]
    steps = summary["settling"][figure]
    return plot_running_spread(
        values, [s["median"] for s in steps], [s["interval"] for s in steps], NAMES[figure]
    )


def write_repeats_page(
    repeats: Sequence[Repeat],
    summary: Mapping[str, Any],
    facts: Mapping[str, Any],
    path: Path | str,
) -> None:
    """Write the report as one HTML file. It is replaced only when complete.

    Args:
        repeats: Repeats in the order of their seeds, at least one.
        summary: Summary of the repeats, from `summarize_repeats`.
        facts: Provenance of the repeats, from `repeats_facts`.
        path: Path of the HTML file.

    Raises:
        ShelfcountError: If the file cannot be written.
    """
    known = [name for name in NAMES if name in summary]
    plots: list[page.Block] = [
        page.Figure(
            plot_repeats(repeats, summary, name),
            f"{NAMES[name][0].upper()}{NAMES[name][1:]} of each repeat, "
            "and the median of the repeats so far.",
            f"{NAMES[name]} by number of repeats",
        )
        for name in known
        if name != "f1_class_ignored"
    ]
    sections = [
        page.Section("", [_cards(summary)]),
        page.Section("Convergence of the median", plots),
        page.Section("Variance over random splits", [_spreads(summary, known)]),
        page.Section("F1 by class", [_classes(repeat_statistics.largest_share(repeats))]),
        *(
            [page.Section("Learning curve", [_shares(summary)])]
            if len(summary["by_share"]) > 1
            else []
        ),
        page.Section("Provenance", [page.Facts(facts)]),
    ]
    lead = (
        "Each repeat trains and tests on another random split of the photos. "
        "Near-duplicate photos are never divided between training and test."
    )
    page.write_html(path, "Repeated hold-out", sections, lead)


def _cards(summary: Mapping[str, Any]) -> page.Cards:
    f1 = summary["f1"]
    low, high = f1["interval"]
    count = summary.get("count_error")
    return page.Cards(
        [
            page.Card(
                "Median F1",
                f1["median"],
                f"95 % confidence interval {low:.3f} to {high:.3f}, "
                f"{plural(f1['repeats'], 'repeat')}",
            ),
            page.Card(
                "Standard deviation of F1",
                f1["sd"],
                "over random splits",
            ),
            page.Card(
                "Median count error",
                count and count["median"],
                "sum of |counted - labelled| over photos and classes, divided by the labelled "
                "products",
            ),
            page.Card(
                "Repeats needed",
                summary["repeats_needed"]["expected"],
                repeats_needed_text(summary["repeats_needed"]),
            ),
        ]
    )


def _spreads(summary: Mapping[str, Any], known: Sequence[str]) -> page.Table:
    columns = [
        page.Column(name)
        for name in (
            "metric",
            "median",
            "lower bound",
            "upper bound",
            "standard deviation",
            "first quartile",
            "third quartile",
            "repeats",
        )
    ]
    rows = []
    for name in known:
        s = summary[name]
        rows.append(
            [NAMES[name], s["median"], *s["interval"], s["sd"], *s["quartiles"], s["repeats"]]
        )
    caption = (
        "Lower and upper bound: 95 % bootstrap confidence interval of the median over random "
        "splits of these photos. All repeats use the same photos, so the interval does not cover "
        "the variation between sets of photos."
    )
    return page.Table(columns, rows, caption)


def _classes(repeats: Sequence[Repeat]) -> page.Table:
    columns = [
        page.Column(name)
        for name in (
            "class",
            "mean training examples",
            "median F1",
            "first quartile",
            "third quartile",
        )
    ]
    rows = []
    for c, row in enumerate(repeats[0].per_class):
        tested = [r.per_class[c] for r in repeats if r.per_class[c].truth]
        f1 = [2 * counts.tp / (counts.truth + counts.found) for counts in tested]
        trained = float(np.mean([r.per_class[c].trained for r in repeats]))
        rows.append(
            [
                row.name,
                round(trained),
                *(np.quantile(f1, [0.5, 0.25, 0.75]).tolist() if f1 else [None] * 3),
            ]
        )
    return page.Table(
        columns,
        sorted(rows, key=lambda row: (row[2] is None, row[2])),
        "Lowest median F1 first. Repeats without products of the class in their test photos are "
        "left out.",
    )


def _shares(summary: Mapping[str, Any]) -> page.Table:
    columns = [
        page.Column(name)
        for name in (
            "share of the training photos",
            "mean number of photos",
            "median F1",
            "lower bound",
            "upper bound",
            "repeats",
        )
    ]
    rows = [
        [
            f"{s['share']:g}",
            s["photos"],
            s["f1"]["median"],
            *s["f1"]["interval"],
            s["f1"]["repeats"],
        ]
        for s in summary["by_share"]
    ]
    return page.Table(
        columns,
        rows,
        "The same random splits, trained on a share of the training photos with the same number of "
        "steps.",
    )


def plot_running_spread(
    values: Sequence[float],
    medians: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    metric: str,
) -> bytes:
    """Plot how the median of a metric converges with the number of repeats.

    Each repeat is a dot, the median a line, and its confidence interval a band.

    Args:
        values: Value of each repeat, in their order.
        medians, intervals: Median and its (low, high) interval after one repeat, two, and so on.
        metric: Name of the metric, for the axis.

    Returns:
        PNG bytes.
    """
    numbers = range(1, len(values) + 1)

    def draw(ax: Axes) -> None:
        ax.scatter(
            numbers, values, s=14, color=PLOT_GREY, linewidths=0, label="one repeat", zorder=1
        )
        low, high = zip(*intervals, strict=True)
        ax.fill_between(
            numbers,
            low,
            high,
            color=BLUE,
            alpha=0.2,
            linewidth=0,
            label="confidence interval",
            zorder=2,
        )
        ax.plot(numbers, medians, color=BLUE, label="median so far", zorder=3)
        ax.axhline(
            medians[-1],
            color=VERMILION,
            linewidth=1,
            linestyle="--",
            label=f"median of all {len(values)}",
            zorder=2,
        )
        ax.set(xlabel="repeats", ylabel=metric)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid()
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)

    return plot_png(7.2, 3.8, draw)
