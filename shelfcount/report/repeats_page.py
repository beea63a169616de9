"""Report of repeated hold-out: median, confidence interval, convergence and learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.evaluation import settling
from shelfcount.evaluation.repeats import Repeat
from shelfcount.report import figures, page
from shelfcount.words import plural

NAMES = {
    "f1": "F1 at IoU 0.5",
    "f1_class_ignored": "class-agnostic F1",
    "count_error": "relative count error",
}


def picture(repeats: Sequence[Repeat], summary: Mapping[str, Any], figure: str = "f1") -> bytes:
    """Plot how the median of a metric converges with the number of repeats.

    Args:
        repeats: Repeats in the order of their seeds.
        summary: Summary of the repeats, from `settling.summary`.
        figure: Metric, a key of `NAMES`.

    Returns:
        PNG bytes.
    """
    values = [v for r in settling.largest_share(repeats) if (v := getattr(r, figure)) is not None]
    steps = summary["settling"][figure]
    return figures.settling(
        values, [s["median"] for s in steps], [s["interval"] for s in steps], NAMES[figure]
    )


def write_page(
    repeats: Sequence[Repeat],
    summary: Mapping[str, Any],
    facts: Mapping[str, Any],
    path: Path | str,
) -> None:
    """Write the report as one HTML file. It is replaced only when complete.

    Args:
        repeats: Repeats in the order of their seeds, at least one.
        summary: Summary of the repeats, from `settling.summary`.
        facts: Provenance of the repeats, from `facts`.
        path: Path of the HTML file.

    Raises:
        ShelfcountError: If the file cannot be written.
    """
    known = [name for name in NAMES if name in summary]
    plots: list[page.Block] = [
        page.Figure(
            picture(repeats, summary, name),
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
        page.Section("F1 by class", [_classes(settling.largest_share(repeats))]),
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
    page.write(path, "Repeated hold-out", sections, lead)


def said(enough: Mapping[str, Any]) -> str:
    """Return a sentence on how many repeats are needed, without its full stop.

    Args:
        enough: Entry ``enough`` of a summary: target ``width`` of the interval, number of
            ``repeats`` that reached it or None, and ``expected`` number of repeats.
    """
    interval = "95 % confidence interval of the median"
    if enough["repeats"] is not None:
        repeats = plural(enough["repeats"], "repeat")
        return f"{repeats} are enough for a {interval} narrower than {enough['width']:g}"
    repeats = plural(enough["expected"], "repeat")
    return f"about {repeats} are needed for a {interval} narrower than {enough['width']:g}"


def facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance of the repeats for the report.

    Args:
        summary: Summary of the repeats with ``plan``, ``stamp`` and ``warning``.
    """
    plan, stamp = summary["plan"], summary["stamp"]
    return {
        "trained": "neck and heads on cached features of the frozen backbone"
        if plan["depth"] == "fast"
        else "the whole network",
        "photos": plan["photos"],
        "fingerprint": plan["data"],
        "epochs": plan["epochs"],
        "initial weights": plan["config"]["model"]["weights"],
        "trained on these photos before": summary["warning"]
        or "no, the initial weights are not those of a detector",
        "CPU time per repeat": f"{summary['seconds_per_repeat']:g} s",
        "commits": ", ".join(summary["commits"]),
        "device": stamp["device"],
    }


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
            page.Card("Repeats needed", summary["enough"]["expected"], said(summary["enough"])),
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
