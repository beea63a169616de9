"""Plot style and plots of training and latency as PNG bytes.

The style is dark on white with a palette for colour-blind readers. No global matplotlib state
is changed, and no window system is needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from shelfcount.drawing.marks import OKABE_ITO
from shelfcount.words import plural

BLUE, ORANGE, GREEN, VERMILION = (
    "#{:02X}{:02X}{:02X}".format(*OKABE_ITO[name])
    for name in ("blue", "orange", "green", "vermilion")
)
PLOT_GREY, PLOT_INK, FAINT = "#9AA3AE", "#1C2026", "#E3E7EC"
# Width in inches of plots for phones. The text of wider ones is too small there.
NARROW_WIDTH = 5.6

_STYLE: Any = {
    # Dollar signs in class names are printed as such.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": PLOT_INK,
    "axes.labelcolor": PLOT_INK,
    "axes.edgecolor": PLOT_GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": PLOT_INK,
    "ytick.color": PLOT_INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


def plot_png(width: float, height: float, draw: Callable[[Axes], None]) -> bytes:
    """Draw on one pair of axes of `width` x `height` inches and return the PNG bytes."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        data = io.BytesIO()
        # The name and version of the software are left out, so that the bytes do not depend on it.
        figure.savefig(data, format="png", dpi=180, metadata={"Software": None})
    return data.getvalue()


def label_1_2_5(axis: Axis) -> None:
    """Set the ticks of a logarithmic axis at 1, 2, 5, 10, 20, ...

    Narrow ranges get enough ticks this way, and wide ranges not too many.
    """
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def training_curves(
    epochs: Sequence[int], losses: Mapping[str, Sequence[float]], f1: Sequence[float | None]
) -> bytes:
    """Plot losses (left axis, logarithmic) and validation F1 (right axis) over the epochs.

    Args:
        epochs: Epoch numbers.
        losses: Values per epoch, by name of the loss.
        f1: Validation F1 per epoch, in [0, 1]; None for an epoch without validation.

    Returns:
        PNG bytes.
    """

    def draw(ax: Axes) -> None:
        for (name, values), colour, style in zip(
            losses.items(),
            cycle((BLUE, ORANGE, GREEN)),
            cycle(("-", "--", "-.", ":")),
            strict=False,
        ):
            ax.plot(epochs, values, style, color=colour, label=name)
        ax.set_yscale("log")
        label_1_2_5(ax.yaxis)
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        right = ax.twinx()
        # The right axes draw the grid and are behind the left ones, so the grid crosses no line.
        ax.set_zorder(right.get_zorder() + 1)
        ax.patch.set_visible(False)
        right.xaxis.set_visible(True)
        right.tick_params(axis="x", labelbottom=False)
        known = [(e, v) for e, v in zip(epochs, f1, strict=True) if v is not None]
        right.plot(
            [e for e, _ in known],
            [v for _, v in known],
            color=VERMILION,
            marker="o",
            markersize=3.5,
            label="F1",
        )
        right.set(ylim=(0, 1.02), ylabel="validation F1")
        right.grid()
        lines = [*ax.get_lines(), *right.get_lines()]
        ax.legend(
            lines,
            [str(line.get_label()) for line in lines],
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=4,
        )

    return plot_png(7.2, 3.8, draw)


def latency_by_threads(rows: Sequence[tuple[str, Sequence[tuple[int, float, float]]]]) -> bytes:
    """Plot latency by model and thread count: a dot at the median, a line to the 90th percentile.

    Args:
        rows: (label, [(threads, median in ms, 90th percentile in ms), ...]), top to bottom. A row
            without times is labelled "not measured".

    Returns:
        PNG bytes.
    """
    counts = sorted({threads for _, times in rows for threads, _, _ in times})
    look = {
        t: (colour, marker)
        for t, colour, marker in zip(
            counts, cycle((BLUE, ORANGE, GREEN, VERMILION)), cycle("osD^"), strict=False
        )
    }

    def draw(ax: Axes) -> None:
        for i, (_, times) in enumerate(rows):
            for index, (threads, p50, p90) in enumerate(times):
                # Thread counts are offset vertically, as their latencies are often similar.
                y = i + 0.26 * (index - (len(times) - 1) / 2)
                colour, marker = look[threads]
                ax.plot([p50, p90], [y, y], color=colour, linewidth=1.4)
                ax.scatter(p50, y, s=34, color=colour, marker=marker, zorder=3)
                text = f"{p50:,.0f}" if p50 >= 100 else f"{p50:.3g}"
                ax.annotate(
                    text,
                    (max(p50, p90), y),
                    xytext=(7, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            if not times:
                ax.text(
                    0.01,
                    i,
                    "not measured",
                    va="center",
                    color=PLOT_GREY,
                    transform=ax.get_yaxis_transform(),
                )
        if counts:
            ax.set_xscale("log")
            label_1_2_5(ax.xaxis)
        ax.margins(x=0.1)
        ax.set_yticks(range(len(rows)), [label for label, _ in rows])
        ax.set(
            ylim=(len(rows) - 0.4, -0.6),
            xlabel="latency per photo in ms (logarithmic):\nmedian, line to the 90th percentile",
        )
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
        for threads in counts:
            ax.scatter(
                [],
                [],
                color=look[threads][0],
                marker=look[threads][1],
                label=plural(threads, "thread"),
            )
        if counts:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(counts))

    return plot_png(NARROW_WIDTH, 1.1 + 0.24 * max(len(counts), 2) * max(len(rows), 1), draw)
