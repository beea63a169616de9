"""Plots of training, accuracy and latency as PNG bytes, in one style that colour-blind readers can follow.

Dark ink on white, also for a page in dark mode, which puts a figure on a card. No global matplotlib
state is touched and no window system is needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from shelfcount.evaluation.metrics import ClassScore

# Okabe and Ito's colour-blind safe set.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#9AA3AE"
INK, FAINT = "#1C2026", "#E3E7EC"
MOST_CLASSES = 40
LEAST_F1_SPAN = 0.06
# Inches: what is wider has letters too small for a phone.
NARROW = 5.6

_STYLE: Any = {
    # A dollar sign in a class name is a dollar sign.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


def _png(width: float, height: float, draw: Callable[[Axes], None]) -> bytes:
    """Draw on one pair of axes of `width` x `height` inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        data = io.BytesIO()
        # Without the software's name two runs give the same bytes whatever the version is called.
        figure.savefig(data, format="png", dpi=180, metadata={"Software": None})
    return data.getvalue()


def _label_1_2_5(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5, 10, 20 ...: narrow ranges get some, wide ones are not crowded."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def confusion_matrix(matrix: np.ndarray, names: Sequence[str]) -> bytes:
    """Which class is taken for which; colour is the share of a row, the number is boxes.

    Above `MOST_CLASSES` classes those with the fewest labelled boxes are added up to one row and column.

    Args:
        matrix: (C + 1, C + 1) int; row is the labelled class, column the detected one. The last
            column holds labelled boxes that were missed, the last row detections where nothing is labelled.
        names: C class names.

    Returns:
        PNG bytes.

    Raises:
        ValueError: If the matrix is not one larger than the names.
    """
    matrix = np.asarray(matrix)
    if matrix.shape != (len(names) + 1, len(names) + 1):
        raise ValueError(
            f"matrix must have shape ({len(names) + 1}, {len(names) + 1}) for {len(names)} classes, got {matrix.shape}"
        )
    matrix, names = _fold(matrix, names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    n = len(matrix)

    def draw(ax: Axes) -> None:
        # Square root: one box in twenty taken for another class has to be seen beside a full diagonal.
        ax.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1.15, aspect="equal")
        for row, column in zip(*np.nonzero(matrix), strict=True):
            light = share[row, column] > 0.45
            size = 8 if matrix[row, column] < 1000 else 6
            ax.text(
                column,
                row,
                f"{matrix[row, column]}",
                ha="center",
                va="center",
                fontsize=size,
                color="white" if light else INK,
            )
        ax.set_xticks(range(n), [*names, "missed"], rotation=90)
        ax.set_yticks(range(n), [*names, "background"])
        ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
        ax.set_ylabel("labelled")
        ax.set_xlabel("detected")
        ax.xaxis.set_label_position("top")
        ax.set_xticks(np.arange(n - 1) + 0.5, minor=True)
        ax.set_yticks(np.arange(n - 1) + 0.5, minor=True)
        ax.grid(which="minor", color=FAINT, linewidth=0.6)
        ax.tick_params(which="minor", length=0)
        # Misses and false alarms are another kind of mistake than a mix-up.
        ax.axhline(n - 1.5, color=INK, linewidth=1)
        ax.axvline(n - 1.5, color=INK, linewidth=1)
        ax.spines[:].set_visible(False)

    side = 2.6 + 0.27 * n
    return _png(side, side, draw)


def _fold(matrix: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Add up the rows and columns of the rarest classes beyond `MOST_CLASSES`."""
    if len(names) <= MOST_CLASSES:
        return matrix, list(names)
    kept = np.sort(np.argsort(-matrix[:-1].sum(axis=1), kind="stable")[: MOST_CLASSES - 1])
    target = np.full(len(matrix), MOST_CLASSES - 1)
    target[kept] = np.arange(len(kept))
    target[-1] = MOST_CLASSES
    folded = np.zeros((MOST_CLASSES + 1, MOST_CLASSES + 1), matrix.dtype)
    np.add.at(folded, (target[:, None], target[None, :]), matrix)
    return folded, [*(names[i] for i in kept), f"{len(names) - len(kept)} others"]


def per_class_f1(
    scores: Sequence[ClassScore], baseline: Sequence[ClassScore] | None = None
) -> bytes:
    """F1 of every class as a bar, worst on top, with the number of labelled boxes behind its name.

    Args:
        scores: Of one model; a class without labelled boxes has no F1 and is only counted below the plot.
        baseline: Of another model on the same photos, drawn as a mark on each bar.

    Returns:
        PNG bytes.
    """
    rows = sorted(
        (row for row in scores if row.score.truth), key=lambda row: row.score.f1, reverse=True
    )
    absent = len(scores) - len(rows)

    def draw(ax: Axes) -> None:
        ax.barh(
            range(len(rows)),
            [row.score.f1 for row in rows],
            height=0.68,
            color=BLUE,
            label="this model",
        )
        if baseline is not None:
            place = {row.name: i for i, row in enumerate(rows)}
            marks = [(row.score.f1, place[row.name]) for row in baseline if row.name in place]
            ax.scatter(
                [m for m, _ in marks],
                [i for _, i in marks],
                marker="|",
                s=110,
                linewidth=2.4,
                color=ORANGE,
                zorder=3,
                label="baseline",
            )
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        for i, row in enumerate(rows):
            ax.text(1.015, i, f"{row.score.f1:.2f}", va="center", fontsize=8.5)
        ax.set_yticks(range(len(rows)), [f"{row.name}  ({row.score.truth})" for row in rows])
        ax.set_xlim(0, 1)
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
        note = f"; classes without any: {absent}" if absent else ""
        # Of one line it would be wider than the bars' part of the picture.
        ax.set_xlabel(f"F1 at IoU 0.5\n(in brackets: labelled boxes{note})")

    return _png(NARROW, 1.2 + 0.25 * max(len(rows), 1), draw)


def f1_over_threshold(models: Sequence[tuple[str, np.ndarray, np.ndarray, float]]) -> bytes:
    """F1 over the score threshold, a line for each model and a dot at its own threshold.

    Args:
        models: Name, (k,) ascending thresholds, (k,) F1 at each, and the threshold that the model has; four at most.

    Returns:
        PNG bytes.
    """

    def draw(ax: Axes) -> None:
        for (name, thresholds, f1, chosen), colour, style in zip(
            models, (BLUE, ORANGE, GREEN, INK), ("-", "--", "-.", ":"), strict=False
        ):
            ax.step(thresholds, f1, style, where="pre", color=colour, label=name)
            # The entry of the curve that holds for it: the first threshold not below.
            at = min(int(np.searchsorted(thresholds, chosen)), len(f1) - 1)
            ax.plot(
                [chosen],
                [f1[at]],
                "o",
                color=colour,
                markersize=8,
                markeredgecolor="white",
                zorder=3,
            )
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score threshold", ylabel="F1 at IoU 0.5")
        ax.grid()
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return _png(NARROW, 3.4, draw)


def training_curves(
    epochs: Sequence[int], losses: Mapping[str, Sequence[float]], f1: Sequence[float | None]
) -> bytes:
    """Losses (left axis, logarithmic) and validation F1 (right axis) over the epochs.

    Args:
        epochs: Numbers of the epochs.
        losses: By name, one value an epoch.
        f1: In [0, 1]; None for an epoch without validation.

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
        _label_1_2_5(ax.yaxis)
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        right = ax.twinx()
        # The whole grid belongs to the right axes, which go behind, so that it crosses no line.
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

    return _png(7.2, 3.8, draw)


def settling(
    values: Sequence[float],
    medians: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    what: str,
) -> bytes:
    """How the median of a figure settles as repeats grow: a dot for each repeat, a line for the median, a band for its interval.

    Args:
        values: Of each repeat, in their order.
        medians, intervals: After one repeat, after two, and so on.
        what: The figure, for the axis.

    Returns:
        PNG bytes.
    """
    numbers = range(1, len(values) + 1)

    def draw(ax: Axes) -> None:
        ax.scatter(numbers, values, s=14, color=GREY, linewidths=0, label="one repeat", zorder=1)
        low, high = zip(*intervals, strict=True)
        ax.fill_between(
            numbers,
            low,
            high,
            color=BLUE,
            alpha=0.2,
            linewidth=0,
            label="interval of the median",
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
        ax.set(xlabel="repeats", ylabel=what)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid()
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)

    return _png(7.2, 3.8, draw)


def robustness(
    conditions: Sequence[tuple[str, Sequence[Sequence[float]]]],
    clean: Sequence[float],
    detectors: Sequence[str],
) -> bytes:
    """F1 under each condition: a row of dots from its mildest strength, pale, to its hardest, dark.

    Args:
        conditions: Title, and for each detector F1 at each strength; the first on top.
        clean: For each detector, F1 on the photos as they are: an upright line.
        detectors: Their names.

    Returns:
        PNG bytes.
    """
    colours = [
        colour
        for colour, _ in zip(cycle((BLUE, ORANGE, GREEN, VERMILION)), detectors, strict=False)
    ]
    apart = 0.56 / len(detectors)

    def draw(ax: Axes) -> None:
        for i, (colour, name) in enumerate(zip(colours, detectors, strict=True)):
            ax.axvline(clean[i], color=colour, linewidth=1, linestyle="--", zorder=1)
            ax.scatter([], [], color=colour, s=26, label=name)
            for row, (_, by_detector) in enumerate(conditions):
                scores, height = by_detector[i], row + apart * (i - (len(detectors) - 1) / 2)
                ax.plot(
                    scores, [height] * len(scores), color=colour, linewidth=0.8, alpha=0.5, zorder=2
                )
                # On white below, so that a pale dot does not show the line through it.
                ax.scatter(scores, [height] * len(scores), s=26, color="white", zorder=3)
                shades = [to_rgba(colour, alpha) for alpha in np.linspace(0.25, 1, len(scores))]
                ax.scatter(scores, [height] * len(scores), s=26, color=shades, zorder=4)
        ax.set_yticks(range(len(conditions)), [title for title, _ in conditions])
        ax.set(
            xlabel="F1; pale: mildest strength, dark: hardest; dashed: the photos as they are",
            ylim=(len(conditions) - 0.4, -0.6),
        )
        ax.grid(axis="x")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return _png(7.2, 1.1 + 0.26 * len(conditions) * max(1.0, 0.7 * len(detectors)), draw)


def latency_by_threads(rows: Sequence[tuple[str, Sequence[tuple[int, float, float]]]]) -> bytes:
    """Time of one photo by model and thread count: a dot at the median, a line to the 90th percentile.

    Args:
        rows: (label, [(threads, median in ms, 90th percentile in ms), ...]), top to bottom; without any time prints as
            "not measured".

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
            for place, (threads, p50, p90) in enumerate(times):
                # Side by side, not on top of each other: often the difference is small.
                y = i + 0.26 * (place - (len(times) - 1) / 2)
                colour, marker = look[threads]
                ax.plot([p50, p90], [y, y], color=colour, linewidth=1.4)
                ax.scatter(p50, y, s=34, color=colour, marker=marker, zorder=3)
                shown = f"{p50:,.0f}" if p50 >= 100 else f"{p50:.3g}"
                ax.annotate(
                    shown,
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
                    color=GREY,
                    transform=ax.get_yaxis_transform(),
                )
        if counts:
            ax.set_xscale("log")
            _label_1_2_5(ax.xaxis)
        ax.margins(x=0.1)
        ax.set_yticks(range(len(rows)), [label for label, _ in rows])
        ax.set(
            ylim=(len(rows) - 0.4, -0.6),
            xlabel="time of one photo in ms, logarithmic:\nmedian, line to the 90th percentile",
        )
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
        for threads in counts:
            ax.scatter(
                [],
                [],
                color=look[threads][0],
                marker=look[threads][1],
                label=f"{threads} thread{'s' if threads > 1 else ''}",
            )
        if counts:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(counts))

    return _png(NARROW, 1.1 + 0.24 * max(len(counts), 2) * max(len(rows), 1), draw)


def f1_against(points: Sequence[tuple[str, float | None, float | None]], what: str) -> bytes:
    """F1 over what a model costs, with a line through the models that no other beats in both (the Pareto front).

    Args:
        points: (label, cost, F1). A model that lacks either is named under the plot instead.
        what: The cost and its unit, for the axis, such as 'median time of one photo in ms'.

    Returns:
        PNG bytes.
    """
    known = sorted(
        (cost, -f1, label) for label, cost, f1 in points if cost is not None and f1 is not None
    )
    left_out = [label for label, cost, f1 in points if cost is None or f1 is None]
    front: list[tuple[float, float]] = []
    for cost, minus_f1, _ in known:
        if not front or -minus_f1 > front[-1][1]:
            front.append((cost, -minus_f1))

    def draw(ax: Axes) -> None:
        ax.plot(
            [cost for cost, _ in front],
            [f1 for _, f1 in front],
            color=GREEN,
            linewidth=1.4,
            linestyle="--",
            label="Pareto front: no other costs less and finds more",
        )
        for cost, minus_f1, _ in known:
            on_front = (cost, -minus_f1) in front
            ax.scatter(
                cost,
                -minus_f1,
                s=52,
                color=GREEN if on_front else GREY,
                marker="o" if on_front else "X",
                zorder=4 if on_front else 3,
            )
        ax.set_xscale("log")
        _label_1_2_5(ax.xaxis)
        ax.margins(x=0.2, y=0.34)
        low, high = ax.get_ylim()
        # Forms of one model differ by less than the photos can tell; a finer scale would show that as a climb.
        spare = max(0.0, LEAST_F1_SPAN - (high - low)) / 2
        ax.set_ylim(max(0.0, low - spare), min(1.0, high + spare))
        note = f"\nnot measured: {', '.join(left_out)}" if left_out else ""
        ax.set(xlabel=f"{what}, logarithmic{note}", ylabel="F1 at IoU 0.5")
        ax.grid()
        if len(front) > 1:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
        _name_points(ax, [(cost, -minus_f1, label) for cost, minus_f1, label in known])

    return _png(NARROW, 4.6, draw)


def _name_points(ax: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Put each label where it covers neither a point nor another label, with a thin line to its point where that is away."""
    figure: Any = ax.figure
    figure.draw_without_rendering()
    marks = ax.transData.transform(np.array([(x, y) for x, y, _ in points]).reshape(-1, 2))
    taken = [Bbox.from_bounds(px - 6, py - 6, 12, 12) for px, py in marks]
    frame = ax.get_window_extent()
    # Up and down in turn, further each time: forms of one model have nearly one F1.
    steps = [
        (dx, sign * (11 + 13 * far)) for far in range(12) for sign in (1, -1) for dx in (0, 34, -34)
    ]
    pixels = figure.dpi / 72
    for (px, py), (x, y, label) in zip(marks, points, strict=True):
        text = ax.annotate(
            label,
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8.5,
        )
        size = text.get_window_extent()
        boxes = [
            Bbox.from_bounds(
                px + dx * pixels - size.width / 2, py + dy * pixels - size.height / 2, *size.size
            )
            for dx, dy in steps
        ]
        free = [
            i
            for i, box in enumerate(boxes)
            if frame.x0 < box.x0
            and box.x1 < frame.x1
            and not any(box.overlaps(other) for other in taken)
        ]
        chosen = free[0] if free else 0
        taken.append(boxes[chosen].padded(2))
        text.set_position(steps[chosen])
        # Lines to other points pass behind it, and it behind the points.
        text.set(zorder=2.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        if steps[chosen] not in ((0, 11), (0, -11)):
            line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 5, "shrinkB": 4}
            ax.annotate(
                "",
                (x, y),
                xytext=steps[chosen],
                textcoords="offset points",
                arrowprops=line,
                zorder=2.2,
            )
