"""Accuracy plots as PNG bytes: confusion matrix, F1 by class, by threshold and against latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from shelfcount.metrics.scoring import ClassScore
from shelfcount.report.figures import (
    BLUE,
    FAINT,
    GREEN,
    NARROW_WIDTH,
    ORANGE,
    PLOT_GREY,
    PLOT_INK,
    label_1_2_5,
    plot_png,
)
from shelfcount.words import plural

# Maximum number of classes in a confusion matrix.
MAX_MATRIX_CLASSES = 40
# Minimum range of the F1 axis.
LEAST_F1_SPAN = 0.06


def confusion_matrix(matrix: NDArray[np.int64], names: Sequence[str]) -> bytes:
    """Plot a confusion matrix: the number of boxes in each cell, coloured by its share of the row.

    If there are more than `MAX_MATRIX_CLASSES` classes, those with the fewest labelled boxes are
    summed in one row and column.

    Args:
        matrix: (C + 1, C + 1) int; rows are labelled classes, columns predicted classes. The last
            column contains missed labelled boxes, the last row false positives on background.
        names: C class names.

    Returns:
        PNG bytes.

    Raises:
        ValueError: If the matrix does not have shape (C + 1, C + 1).
    """
    matrix = np.asarray(matrix)
    if matrix.shape != (len(names) + 1, len(names) + 1):
        raise ValueError(
            f"matrix must have shape ({len(names) + 1}, {len(names) + 1}) "
            f"for {plural(len(names), 'class', 'classes')}, got {matrix.shape}"
        )
    matrix, names = _fold(matrix, names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    n = len(matrix)

    def draw(ax: Axes) -> None:
        # The square root makes a share of 5 % visible next to a full diagonal.
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
                color="white" if light else PLOT_INK,
            )
        ax.set_xticks(range(n), [*names, "missed"], rotation=90)
        ax.set_yticks(range(n), [*names, "background"])
        ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
        ax.set_ylabel("labelled class")
        ax.set_xlabel("predicted class")
        ax.xaxis.set_label_position("top")
        ax.set_xticks(np.arange(n - 1) + 0.5, minor=True)
        ax.set_yticks(np.arange(n - 1) + 0.5, minor=True)
        ax.grid(which="minor", color=FAINT, linewidth=0.6)
        ax.tick_params(which="minor", length=0)
        # Lines separate missed products and false positives from confused classes.
        ax.axhline(n - 1.5, color=PLOT_INK, linewidth=1)
        ax.axvline(n - 1.5, color=PLOT_INK, linewidth=1)
        ax.spines[:].set_visible(False)

    side = 2.6 + 0.27 * n
    return plot_png(side, side, draw)


def _fold(matrix: NDArray[np.int64], names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Sum the rows and columns of the rarest classes, so that `MAX_MATRIX_CLASSES` classes remain.

    Returns:
        The folded matrix and the names of its classes.
    """
    if len(names) <= MAX_MATRIX_CLASSES:
        return matrix, list(names)
    kept = np.sort(np.argsort(-matrix[:-1].sum(axis=1), kind="stable")[: MAX_MATRIX_CLASSES - 1])
    target = np.full(len(matrix), MAX_MATRIX_CLASSES - 1)
    target[kept] = np.arange(len(kept))
    target[-1] = MAX_MATRIX_CLASSES
    folded = np.zeros((MAX_MATRIX_CLASSES + 1, MAX_MATRIX_CLASSES + 1), matrix.dtype)
    np.add.at(folded, (target[:, None], target[None, :]), matrix)
    return folded, [*(names[i] for i in kept), plural(len(names) - len(kept), "other")]


def per_class_f1(
    scores: Sequence[ClassScore], baseline: Sequence[ClassScore] | None = None
) -> bytes:
    """Plot the F1 of every class as a bar, lowest on top, with its number of labelled boxes.

    Args:
        scores: Metrics of one model by class. Classes without labelled boxes have no F1; their
            number is printed below the plot.
        baseline: Metrics of another model on the same photos, drawn as a mark on each bar.

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
        # On one line, the text would be wider than the axes.
        ax.set_xlabel(f"F1 at IoU 0.5\n(in brackets: labelled boxes{note})")

    return plot_png(NARROW_WIDTH, 1.2 + 0.25 * max(len(rows), 1), draw)


def f1_over_threshold(
    models: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64], float]],
) -> bytes:
    """Plot F1 over the score threshold: a line for each model and a dot at its own threshold.

    Args:
        models: At most four tuples of name, (k,) ascending thresholds, (k,) F1 at each threshold,
            and the model's own threshold.

    Returns:
        PNG bytes.
    """

    def draw(ax: Axes) -> None:
        for (name, thresholds, f1, chosen), colour, style in zip(
            models, (BLUE, ORANGE, GREEN, PLOT_INK), ("-", "--", "-.", ":"), strict=False
        ):
            ax.step(thresholds, f1, style, where="pre", color=colour, label=name)
            # The step of the curve at `chosen` has the value of the first threshold that is not
            # smaller.
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

    return plot_png(NARROW_WIDTH, 3.4, draw)


def f1_against(points: Sequence[tuple[str, float | None, float | None]], x_label: str) -> bytes:
    """Plot F1 over the cost of a model, with a line through the Pareto front.

    Args:
        points: (label, cost, F1) of each model. Models without cost or F1 are named below the plot.
        x_label: Name and unit of the cost, for the axis, such as 'median latency per photo in ms'.

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
            label="Pareto front: no model costs less and has a higher F1",
        )
        for cost, minus_f1, _ in known:
            on_front = (cost, -minus_f1) in front
            ax.scatter(
                cost,
                -minus_f1,
                s=52,
                color=GREEN if on_front else PLOT_GREY,
                marker="o" if on_front else "X",
                zorder=4 if on_front else 3,
            )
        ax.set_xscale("log")
        label_1_2_5(ax.xaxis)
        ax.margins(x=0.2, y=0.34)
        low, high = ax.get_ylim()
        # Formats of one model differ by less than the sampling error of the photos. A finer scale
        # would exaggerate the differences.
        spare = max(0.0, LEAST_F1_SPAN - (high - low)) / 2
        ax.set_ylim(max(0.0, low - spare), min(1.0, high + spare))
        note = f"\nnot measured: {', '.join(left_out)}" if left_out else ""
        ax.set(xlabel=f"{x_label} (logarithmic){note}", ylabel="F1 at IoU 0.5")
        ax.grid()
        if len(front) > 1:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
        _name_points(ax, [(cost, -minus_f1, label) for cost, minus_f1, label in known])

    return plot_png(NARROW_WIDTH, 4.6, draw)


def _name_points(ax: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Place each label so that it covers no point and no other label.

    Labels that are not directly above or below their point are connected to it by a thin line.

    Args:
        ax: Axes to draw on.
        points: (x, y, label) in data coordinates.
    """
    figure: Any = ax.figure
    figure.draw_without_rendering()
    marks = ax.transData.transform(np.array([(x, y) for x, y, _ in points]).reshape(-1, 2))
    taken = [Bbox.from_bounds(px - 6, py - 6, 12, 12) for px, py in marks]
    frame = ax.get_window_extent()
    # Candidate positions alternate above and below the point with growing distance, as the formats
    # of one model have almost the same F1.
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
        # Labels are drawn over the lines to other points, and below the points.
        text.set(zorder=2.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        if steps[chosen] not in ((0, 11), (0, -11)):
            line = {
                "arrowstyle": "-",
                "color": PLOT_GREY,
                "linewidth": 0.6,
                "shrinkA": 5,
                "shrinkB": 4,
            }
            ax.annotate(
                "",
                (x, y),
                xytext=steps[chosen],
                textcoords="offset points",
                arrowprops=line,
                zorder=2.2,
            )
