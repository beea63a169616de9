"""Repeated shuffles as a page: the median and its interval, how it settles, how many are enough, what more photos would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.evaluation import settling
from shelfcount.evaluation.repeats import Repeat
from shelfcount.report import figures, page

NAMES = {
    "f1": "F1 at IoU 0.5",
    "f1_class_ignored": "F1, class ignored",
    "count_error": "count error, relative",
}


def picture(repeats: Sequence[Repeat], summary: Mapping[str, Any], figure: str = "f1") -> bytes:
    """How one figure settles, as PNG.

    Args:
        repeats: In the order of their seeds.
        summary: Of them, from `settling.summary`.
        figure: A key of `NAMES`.
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
    """Write the page whole or not at all.

    Args:
        repeats: In the order of their seeds, at least one.
        summary: Of them.
        facts: Where they come from.
        path: Of the HTML file.
    """
    known = [name for name in NAMES if name in summary]
    plots: list[page.Block] = [
        page.Figure(
            picture(repeats, summary, name),
            f"{NAMES[name]} of each repeat, and its median so far.",
            f"{NAMES[name]} over repeats",
        )
        for name in known
        if name != "f1_class_ignored"
    ]
    sections = [
        page.Section("", [_cards(summary)]),
        page.Section("How it settles", plots),
        page.Section("Spread", [_spreads(summary, known)]),
        page.Section("Classes", [_classes(settling.largest_share(repeats))]),
        *(
            [page.Section("More photos", [_shares(summary)])]
            if len(summary["by_share"]) > 1
            else []
        ),
        page.Section("Where it comes from", [page.Facts(facts)]),
    ]
    lead = "Training and test photos were shuffled anew for each repeat; photos that look alike stay on one side."
    page.write(path, "Repeated shuffles", sections, lead)


def said(enough: Mapping[str, Any]) -> str:
    """The answer to how many repeats are enough, as a sentence."""
    if enough["repeats"] is not None:
        return f"{enough['repeats']} repeats are enough for an interval of the median narrower than {enough['width']:g}"
    return f"not enough yet for an interval of the median narrower than {enough['width']:g}: that takes about {enough['expected']}"


def facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Where the repeats come from, for the page; without a warning, that they started from no detector is said."""
    plan, stamp = summary["plan"], summary["stamp"]
    return {
        "depth": "heads on the frozen trunk's features"
        if plan["depth"] == "fast"
        else "the whole network",
        "photos": plan["photos"],
        "fingerprint": plan["data"],
        "epochs": plan["epochs"],
        "start": plan["config"]["model"]["weights"],
        "seen before": summary["warning"] or "no: the start is no detector's",
        "processor time of a repeat": f"{summary['seconds_per_repeat']:g} s",
        "code": ", ".join(summary["commits"]),
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
                f"95 % interval {low:.3f} to {high:.3f}, from {f1['repeats']} repeats",
            ),
            page.Card(
                "Standard deviation of F1",
                f1["sd"],
                "between shuffles: what one split owes to luck",
            ),
            page.Card(
                "Median count error",
                count and count["median"],
                "products missed, added or misnamed, of those that stand there",
            ),
            page.Card("Enough", summary["enough"]["expected"], said(summary["enough"])),
        ]
    )


def _spreads(summary: Mapping[str, Any], known: Sequence[str]) -> page.Table:
    columns = [
        page.Column(name)
        for name in (
            "figure",
            "median",
            "from",
            "to",
            "SD",
            "first quartile",
            "third quartile",
            "repeats",
        )
    ]
    rows = []
    for name in known:
        of = summary[name]
        rows.append(
            [NAMES[name], of["median"], *of["interval"], of["sd"], *of["quartiles"], of["repeats"]]
        )
    caption = (
        "From and to: 95 % bootstrap interval of the median over shuffles of these photos. All repeats share them, so it says "
        "nothing of other photos."
    )
    return page.Table(columns, rows, caption)


def _classes(repeats: Sequence[Repeat]) -> page.Table:
    columns = [
        page.Column(name)
        for name in (
            "class",
            "examples in training",
            "median F1",
            "first quartile",
            "third quartile",
        )
    ]
    rows = []
    for c, row in enumerate(repeats[0].per_class):
        of = [r.per_class[c] for r in repeats if r.per_class[c].truth]
        f1 = [2 * figures_.tp / (figures_.truth + figures_.found) for figures_ in of]
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
        "Repeats on whose test photos the class stands.",
    )


def _shares(summary: Mapping[str, Any]) -> page.Table:
    columns = [
        page.Column(name)
        for name in ("share of the training photos", "photos", "median F1", "from", "to", "repeats")
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
        "The same shuffles, trained on a part of the training photos for as many steps.",
    )
