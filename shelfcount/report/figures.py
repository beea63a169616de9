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
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from shelfcount.evaluation.metrics import ClassScore

# Okabe and Ito's colour-blind safe set.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#9AA3AE"
INK, FAINT = "#1C2026", "#E3E7EC"
MOST_CLASSES = 40

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
        raise ValueError(f"matrix must have shape ({len(names) + 1}, {len(names) + 1}) for {len(names)} classes, got {matrix.shape}")
    matrix, names = _fold(matrix, names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    n = len(matrix)

    def draw(ax: Axes) -> None:
        # Square root: one box in twenty taken for another class has to be seen beside a full diagonal.
        ax.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1.15, aspect="equal")
        for row, column in zip(*np.nonzero(matrix), strict=True):
            light = share[row, column] > 0.45
            size = 8 if matrix[row, column] < 1000 else 6
            ax.text(column, row, f"{matrix[row, column]}", ha="center", va="center", fontsize=size, color="white" if light else INK)
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


def per_class_f1(scores: Sequence[ClassScore], baseline: Sequence[ClassScore] | None = None) -> bytes:
    """F1 of every class as a bar, worst on top, with the number of labelled boxes behind its name.

    Args:
        scores: Of one model; a class without labelled boxes has no F1 and is only counted below the plot.
        baseline: Of another model on the same photos, drawn as a mark on each bar.

    Returns:
        PNG bytes.
    """
    rows = sorted((row for row in scores if row.score.truth), key=lambda row: row.score.f1, reverse=True)
    absent = len(scores) - len(rows)

    def draw(ax: Axes) -> None:
        ax.barh(range(len(rows)), [row.score.f1 for row in rows], height=0.68, color=BLUE, label="this model")
        if baseline is not None:
            place = {row.name: i for i, row in enumerate(rows)}
            marks = [(row.score.f1, place[row.name]) for row in baseline if row.name in place]
            ax.scatter(
                [m for m, _ in marks], [i for _, i in marks], marker="|", s=110, linewidth=2.4, color=ORANGE, zorder=3, label="baseline"
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
        ax.set_xlabel(f"F1 at IoU 0.5 (in brackets: labelled boxes{note})")

    return _png(7.2, 1.2 + 0.25 * max(len(rows), 1), draw)


def threshold_curve(
    thresholds: Sequence[float] | np.ndarray,
    precision: Sequence[float] | np.ndarray,
    recall: Sequence[float] | np.ndarray,
    f1: Sequence[float] | np.ndarray,
    chosen: float,
) -> bytes:
    """Precision, recall and F1 over the score threshold, all of one length, with the chosen threshold marked; PNG bytes."""

    def draw(ax: Axes) -> None:
        for values, name, colour, style in ((precision, "precision", BLUE, "--"), (recall, "recall", ORANGE, "-."), (f1, "F1", INK, "-")):
            ax.plot(thresholds, values, style, color=colour, label=name)
        ax.axvline(chosen, color=VERMILION, linewidth=1.2)
        at_left = chosen > 0.75
        ax.annotate(
            f"chosen: {chosen:.2f}",
            (chosen, 0.03),
            xytext=(-6 if at_left else 6, 0),
            textcoords="offset points",
            ha="right" if at_left else "left",
            color=VERMILION,
        )
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score threshold")
        ax.grid()
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    return _png(7.2, 3.8, draw)


def training_curves(epochs: Sequence[int], losses: Mapping[str, Sequence[float]], f1: Sequence[float | None]) -> bytes:
    """Losses (left axis, logarithmic) and validation F1 (right axis) over the epochs.

    Args:
        epochs: Numbers of the epochs.
        losses: By name, one value an epoch.
        f1: In [0, 1]; None for an epoch without validation.

    Returns:
        PNG bytes.
    """

    def draw(ax: Axes) -> None:
        for (name, values), colour, style in zip(losses.items(), cycle((BLUE, ORANGE, GREEN)), cycle(("-", "--", "-.", ":")), strict=False):
            ax.plot(epochs, values, style, color=colour, label=name)
        ax.set_yscale("log")
        _label_1_2_5(ax.yaxis)
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="x")
        right = ax.twinx()
        known = [(e, v) for e, v in zip(epochs, f1, strict=True) if v is not None]
        right.plot([e for e, _ in known], [v for _, v in known], color=VERMILION, marker="o", markersize=3.5, label="F1")
        right.set(ylim=(0, 1.02), ylabel="validation F1")
        right.grid(axis="y")
        lines = [*ax.get_lines(), *right.get_lines()]
        ax.legend(lines, [str(line.get_label()) for line in lines], loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)

    return _png(7.2, 3.8, draw)


def latency_bars(rows: Sequence[tuple[str, float | None, float | None]]) -> bytes:
    """Median time of one photo as a bar, the 90th percentile as its whisker.

    Args:
        rows: (label, median in ms, 90th percentile in ms), top to bottom; None prints as "not measured".

    Returns:
        PNG bytes.
    """
    longest = max((p90 or p50 or 0 for _, p50, p90 in rows), default=0) or 1

    def draw(ax: Axes) -> None:
        for i, (_, p50, p90) in enumerate(rows):
            if p50 is None:
                ax.text(0.01 * longest, i, "not measured", va="center", color=GREY)
                continue
            ax.barh(i, p50, height=0.62, color=BLUE)
            if p90 is not None:
                ax.plot([p50, p90, p90, p90], [i, i, i - 0.14, i + 0.14], color=INK, linewidth=1.2)
            ax.text((p90 or p50) + 0.015 * longest, i, f"{p50:,.0f} ms" if p50 >= 100 else f"{p50:.3g} ms", va="center")
        ax.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        ax.set(
            xlim=(0, 1.16 * longest), ylim=(len(rows) - 0.4, -0.6), xlabel="time of one photo in ms: median, whisker to the 90th percentile"
        )
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)

    return _png(7.2, 1.0 + 0.42 * max(len(rows), 1), draw)


def f1_against_latency(points: Sequence[tuple[str, float | None, float | None]]) -> bytes:
    """F1 over the time of one photo, with a line through the models that no other beats in both.

    Args:
        points: (label, median in ms, F1). A model that lacks either is named under the plot instead.

    Returns:
        PNG bytes.
    """
    known = sorted((ms, -f1, label) for label, ms, f1 in points if ms is not None and f1 is not None)
    left_out = [label for label, ms, f1 in points if ms is None or f1 is None]
    front: list[tuple[float, float]] = []
    for ms, minus_f1, _ in known:
        if not front or -minus_f1 > front[-1][1]:
            front.append((ms, -minus_f1))

    def draw(ax: Axes) -> None:
        ax.plot(
            [ms for ms, _ in front],
            [f1 for _, f1 in front],
            color=GREEN,
            linewidth=1.4,
            linestyle="--",
            label="no other is both faster and better",
        )
        for ms, minus_f1, label in known:
            on_front = (ms, -minus_f1) in front
            ax.scatter(ms, -minus_f1, s=52, color=GREEN if on_front else GREY, marker="o" if on_front else "X", zorder=3)
            ax.annotate(label, (ms, -minus_f1), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8.5)
        ax.set_xscale("log")
        _label_1_2_5(ax.xaxis)
        ax.margins(0.16)
        note = f"\nnot measured: {', '.join(left_out)}" if left_out else ""
        ax.set(xlabel=f"median time of one photo in ms, logarithmic{note}", ylabel="F1 at IoU 0.5")
        ax.grid()
        if len(front) > 1:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return _png(7.2, 4.2, draw)
