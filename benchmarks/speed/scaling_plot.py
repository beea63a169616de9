"""Plot the result of scaling.py."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from shelfcount.report.figures import BLUE, FAINT, ORANGE, PLOT_GREY, PLOT_INK


def scaling_plot(result: dict[str, Any]) -> bytes:
    """Draw a panel for each axis, with logarithmic scales, as PNG bytes."""
    shown = [
        ("input_size", "network, ms", "ms"),
        ("classes", "network, ms", "ms"),
        ("products", "suppression, rows and positions, ms", "ms"),
        ("photo_size", "one photo from file to counts, ms", "ms"),
        ("batch", "shelfcount count, ms per photo", "ms_a_photo"),
    ]
    style: Any = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": PLOT_INK,
        "axes.edgecolor": PLOT_GREY,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11.5, 6.4), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        for ax, (part, title, key) in zip(axes, shown, strict=False):
            _panel(ax, result[part]["rows"], key, title, result[part]["axis"])
        maximum = result["products"]["maximum"]
        if result["products"]["rows"][-1]["at"] > maximum:
            axes[2].axvline(maximum, color=ORANGE, linestyle="--", linewidth=1.2)
            place = {
                "xytext": (4, 8),
                "textcoords": "offset points",
                "rotation": 90,
                "ha": "left",
                "va": "bottom",
            }
            axes[2].annotate(
                "maximum of the file", (maximum, axes[2].get_ylim()[0]), color=ORANGE, **place
            )
        axes[-1].axis("off")
        about = (
            f"Median times, one thread,\n{result['stamp']['device']}.\n\n"
            "Dotted: proportional growth,\nfor the input side to its area."
        )
        axes[-1].text(0, 0.5, about, va="center")
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
    return data.getvalue()


def _panel(ax: Axes, found: Sequence[dict[str, Any]], key: str, title: str, label: str) -> None:
    """Draw the rows of one axis, and proportional growth for comparison."""
    x, y = [row["at"] for row in found], [row[key] for row in found]
    ax.set(xscale="log", yscale="log", xlabel=label)
    ax.set_title(title, loc="left", fontsize=10)
    if key == "ms":
        # Twice the side is four times the area.
        power = 2 if label == "input side, px" else 1
        ax.plot(x, [y[0] * (v / x[0]) ** power for v in x], ":", color=PLOT_GREY, linewidth=1.2)
    ax.plot(x, y, "o-", color=BLUE, markersize=4)
    for a, b in zip(x, y, strict=True):
        ax.annotate(
            _ms(b), (a, b), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    ax.set_xticks(x, [f"{v:,}" for v in x])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.margins(0.12, 0.2)
    ax.grid(color=FAINT)
    ax.set_axisbelow(True)


def _ms(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
