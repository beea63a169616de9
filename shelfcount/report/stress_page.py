"""HTML page on a robustness study: curves by condition, and examples of lost products.

The plots are SVG and follow the colours and width of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from numpy.typing import NDArray

from shelfcount.drawing.marks import FOUND, MISSED
from shelfcount.files import write_whole
from shelfcount.report.figures import BLUE, GREEN, ORANGE, VERMILION, plot_png
from shelfcount.report.page import embedded, template
from shelfcount.studies.stress import TOLERATED
from shelfcount.studies.stress_examples import StressExample
from shelfcount.studies.stress_words import (
    format_points,
    format_severity,
    mean_scores,
    tolerance_text,
)
from shelfcount.words import plural, show

# Size (width, height) of a plot, and left, top, right and bottom of its frame, in SVG units.
PLOT = (330, 190)
FRAME = (34, 10, 322, 150)
# F1 loss at which a cell of the overview has its full colour.
FULL_COLOUR = 0.4
# Longest side of an example in pixels: twice its size in points on a phone screen.
_PICTURE_SIDE = 560


@dataclass(frozen=True)
class _Line:
    """One curve of a plot.

    Attributes:
        detector: Index of the detector.
        consistency: Whether the curve shows consistency instead of F1.
        points: Points as in the SVG attribute of a polyline.
    """

    detector: int
    consistency: bool
    points: str


@dataclass(frozen=True)
class _Plot:
    """Curves of one condition. Ticks and levels are (position, text) of the axes."""

    condition: Mapping[str, Any]
    lines: Sequence[_Line]
    ticks: Sequence[tuple[float, str]]
    levels: Sequence[tuple[float, str]]
    clean: float
    tolerated: Sequence[str]


@dataclass(frozen=True)
class _Example:
    """A photo unchanged and under a condition, as data URLs, with a sentence on the detections."""

    title: str
    text: str
    pictures: Sequence[str]


def write_stress_page(
    result: Mapping[str, Any], examples: Sequence[StressExample], path: Path | str
) -> None:
    """Write the report as one HTML file. It is replaced only when complete.

    Args:
        result: `StressStudy.to_json()`, with ``stamp`` and ``data`` added.
        examples: Example photos from `stress_examples.choose_examples`.
        path: Path of the HTML file.

    Raises:
        ShelfcountError: If the file cannot be written.
    """
    page = template(
        "stress_page.html", show=show, negated=lambda lost: format_points(-lost), plural=plural
    ).render(
        shade=shade,
        result=result,
        severities=[step["severity"] for step in result["conditions"][0]["severities"]],
        weakest=[c for c in result["conditions"] if c["detectors"][0]["lost"] >= TOLERATED][:3],
        plots=[_plot(condition, result) for condition in result["conditions"]],
        examples=[_example(example) for example in examples],
        means=[mean_scores(i, result) for i in range(len(result["detectors"]))],
        facts=_facts(result),
        size=PLOT,
        frame=FRAME,
        tolerated=TOLERATED,
    )
    write_whole(path, page)


def plot_stress(result: Mapping[str, Any]) -> bytes:
    """Plot F1 under each condition, largest F1 loss first.

    Args:
        result: As for `write_stress_page`.

    Returns:
        PNG bytes.
    """
    everyone = range(len(result["detectors"]))
    conditions = [
        (
            condition["title"],
            [[step["detectors"][i]["f1"] for step in condition["severities"]] for i in everyone],
        )
        for condition in result["conditions"]
    ]
    detectors = result["detectors"]
    return plot_robustness(
        conditions,
        [detector["f1"] for detector in detectors],
        [detector["name"] for detector in detectors],
    )


def shade(lost: float) -> str:
    """Return the CSS background of a cell, more opaque for a larger F1 loss.

    Args:
        lost: F1 loss as a share; `FULL_COLOUR` and more have the full colour.
    """
    return f"rgba(213, 94, 0, {0.7 * min(max(lost, 0) / FULL_COLOUR, 1):.2f})"


def _facts(result: Mapping[str, Any]) -> dict[str, str]:
    stamp = result["stamp"]
    detectors = {}
    for detector in result["detectors"]:
        bundle = f"sha256 {str(detector['sha256'])[:12]}, " if "sha256" in detector else ""
        detectors[detector["name"]] = f"{bundle}score threshold {detector['threshold']:.3f}"
    labels = (
        f"{result['data']['name']}, {plural(result['photos'], 'photo')}, "
        f"fingerprint {result['data']['fingerprint'][:12]}"
    )
    made = f"{stamp['date']}, commit {stamp['commit']}, seed {stamp['seed']}"
    return {**detectors, "labels": labels, "measured": made, "device": stamp["device"]}


def _plot(condition: Mapping[str, Any], result: Mapping[str, Any]) -> _Plot:
    left, top, right, bottom = FRAME
    steps = condition["severities"]
    across = np.linspace(left + 14, right - 14, len(steps))

    def up(share: float) -> float:
        return bottom - share * (bottom - top)

    lines = []
    for i in range(len(result["detectors"])):
        for key in ("consistency", "f1"):
            shares = [step["detectors"][i][key] for step in steps]
            coordinates = [
                f"{x:.1f},{up(share):.1f}"
                for x, share in zip(across, shares, strict=True)
                if share is not None
            ]
            lines.append(_Line(i, key == "consistency", " ".join(coordinates)))
    return _Plot(
        condition,
        lines,
        [(float(x), format_severity(step["value"])) for x, step in zip(across, steps, strict=True)],
        [(up(share), f"{share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        up(result["detectors"][0]["f1"]),
        [tolerance_text(summary, condition) for summary in condition["detectors"]],
    )


def _example(example: StressExample) -> _Example:
    applied, still_found = example.condition, example.still_found
    pictures = [
        _picture(example.image, [(box, FOUND) for box in example.detections.boxes]),
        _picture(
            example.changed,
            [
                (box, FOUND if kept else MISSED)
                for box, kept in zip(example.expected.boxes, still_found, strict=True)
            ],
        ),
    ]
    text = (
        f"Severity {example.severity} ({applied.unit}: "
        f"{format_severity(applied.values[example.severity - 1])}). Of the "
        f"{plural(len(still_found), 'product')} detected on the unchanged photo, "
        f"{int(still_found.sum())} "
        f"{'is' if still_found.sum() == 1 else 'are'} still detected with box and class."
    )
    return _Example(applied.title, text, pictures)


def _picture(
    image: NDArray[np.uint8], boxes: Sequence[tuple[NDArray[np.floating], tuple[int, int, int]]]
) -> str:
    scale = _PICTURE_SIDE / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    method = cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
    picture = np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
    for box, colour in boxes:
        left, top, right, bottom = (round(float(v) * scale) for v in box)
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 2, cv2.LINE_AA)
    return embedded(picture)


def plot_robustness(
    conditions: Sequence[tuple[str, Sequence[Sequence[float]]]],
    clean: Sequence[float],
    detectors: Sequence[str],
) -> bytes:
    """Plot F1 under each condition: a row of dots from the lowest severity (pale) to the highest.

    Args:
        conditions: Title and, for each detector, F1 at each severity. The first one is on top.
        clean: F1 of each detector on the unchanged photos, drawn as a vertical line.
        detectors: Names of the detectors.

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
                # White dots below hide the line behind pale, transparent dots.
                ax.scatter(scores, [height] * len(scores), s=26, color="white", zorder=3)
                shades = [to_rgba(colour, alpha) for alpha in np.linspace(0.25, 1, len(scores))]
                ax.scatter(scores, [height] * len(scores), s=26, color=shades, zorder=4)
        ax.set_yticks(range(len(conditions)), [title for title, _ in conditions])
        ax.set(
            xlabel="F1; pale: lowest severity, dark: highest; dashed: unchanged photos",
            ylim=(len(conditions) - 0.4, -0.6),
        )
        ax.grid(axis="x")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return plot_png(7.2, 1.1 + 0.26 * len(conditions) * max(1.0, 0.7 * len(detectors)), draw)
