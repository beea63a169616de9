"""Robustness report: one HTML page with F1 losses by condition, curves and example photos.

The page works offline and on phones. The plots are SVG and follow the colours and width of the
page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shelfcount.evaluation.stress import TOLERATED, Study, generator
from shelfcount.report import figures
from shelfcount.report.page import embedded, show, template
from shelfcount.report.pictures import FOUND, MISSED
from shelfcount.vision.images import read_photo, write_whole
from shelfcount.words import plural

# Size (width, height) of a plot, and left, top, right and bottom of its frame, in SVG units.
PLOT = (330, 190)
FRAME = (34, 10, 322, 150)
# F1 loss at which a cell of the overview has its full colour.
FULL_COLOUR = 0.4
# Maximum number of conditions with example photos.
MOST_EXAMPLES = 6
# Longest side of an example in pixels: twice its size in points on a phone screen.
PICTURE_SIDE = 560


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
    holds: Sequence[str]


@dataclass(frozen=True)
class _Example:
    """A photo unchanged and under a condition, as data URLs, with a sentence on the detections."""

    title: str
    text: str
    pictures: Sequence[str]


def write_page(study: Study, result: Mapping[str, Any], path: Path | str) -> None:
    """Write the report as one HTML file. It is replaced only when complete.

    Args:
        study: Robustness study. Its photos are read again for the examples.
        result: `study.to_json()`, with ``stamp`` and ``data`` added.
        path: Path of the HTML file.

    Raises:
        ShelfcountError: If a photo cannot be read or the file cannot be written.
    """
    filters = {"show": show, "negated": lambda lost: points(-lost), "plural": plural}
    page = template("stress_page.html", **filters).render(
        shade=shade,
        result=result,
        strengths=study.strengths,
        weakest=[c for c in result["conditions"] if c["detectors"][0]["lost"] >= TOLERATED][:3],
        plots=[_plot(condition, result) for condition in result["conditions"]],
        examples=[_example(study, condition) for condition in result["conditions"][:MOST_EXAMPLES]],
        means=[means(i, result) for i in range(len(result["detectors"]))],
        facts=_facts(study, result),
        size=PLOT,
        frame=FRAME,
        tolerated=TOLERATED,
    )
    write_whole(path, page)


def picture(result: Mapping[str, Any]) -> bytes:
    """Plot F1 under each condition, largest F1 loss first.

    Args:
        result: As for `write_page`.

    Returns:
        PNG bytes.
    """
    everyone = range(len(result["detectors"]))
    conditions = [
        (
            condition["title"],
            [[step["detectors"][i]["f1"] for step in condition["strengths"]] for i in everyone],
        )
        for condition in result["conditions"]
    ]
    detectors = result["detectors"]
    return figures.robustness(
        conditions,
        [detector["f1"] for detector in detectors],
        [detector["name"] for detector in detectors],
    )


def points(share: float | None) -> str:
    """Return a share in percentage points with its sign, as the page prints it.

    Args:
        share: Share such as an F1 difference, or None for "not measured".

    >>> points(-0.2174), points(0.001), points(None)
    ('−21.7', '+0.1', 'not measured')

    >>> points(-0.0002)
    '0.0'
    """
    if share is None:
        return show(None)
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def value(number: float | None) -> str:
    """Return a parameter of a condition as text, with at least three significant digits.

    Args:
        number: Value of the parameter, or None for "not measured".

    >>> value(4448.7), value(0.0688), value(5.0)
    ('4,449', '0.0688', '5')
    """
    if number is None:
        return show(None)
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def shade(lost: float) -> str:
    """Return the CSS background of a cell, more opaque for a larger F1 loss.

    Args:
        lost: F1 loss as a share; `FULL_COLOUR` and more have the full colour.
    """
    return f"rgba(213, 94, 0, {0.7 * min(max(lost, 0) / FULL_COLOUR, 1):.2f})"


def holds(summary: Mapping[str, Any], condition: Mapping[str, Any]) -> str:
    """Return in words up to which parameter a detector tolerates a condition.

    Args:
        summary: Summary of the detector under the condition.
        condition: JSON data of the condition.
    """
    if summary["holds_never"]:
        return f"not even at {value(condition['strengths'][0]['value'])}"
    if summary["holds_to"] is None:
        return f"beyond {value(condition['strengths'][-1]['value'])}"
    return f"to {value(summary['holds_to'])}"


def means(i: int, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mean metrics of a detector over all conditions and severities.

    Args:
        i: Index of the detector.
        result: As for `write_page`.

    Returns:
        ``name``, ``clean`` (F1 on the unchanged photos), and the means ``f1``, ``lost``,
        ``count_error`` and ``consistency``. Missing values are left out of a mean; it is None if
        all are missing.
    """
    cells = [
        step["detectors"][i]
        for condition in result["conditions"]
        for step in condition["strengths"]
    ]
    known = {
        key: [cell[key] for cell in cells if cell[key] is not None]
        for key in ("f1", "lost", "count_error", "consistency")
    }
    means = {key: float(np.mean(shares)) if shares else None for key, shares in known.items()}
    return {"name": result["detectors"][i]["name"], "clean": result["detectors"][i]["f1"], **means}


def _facts(study: Study, result: Mapping[str, Any]) -> dict[str, str]:
    stamp = result["stamp"]
    detectors = {}
    for subject in study.subjects:
        bundle = (
            f"sha256 {str(subject.facts['sha256'])[:12]}, " if "sha256" in subject.facts else ""
        )
        detectors[subject.name] = f"{bundle}score threshold {subject.threshold:.3f}"
    labels = (
        f"{result['data']['name']}, {plural(len(study.dataset), 'photo')}, "
        f"fingerprint {result['data']['fingerprint'][:12]}"
    )
    made = f"{stamp['date']}, commit {stamp['commit']}, seed {stamp['seed']}"
    return {**detectors, "labels": labels, "measured": made, "device": stamp["device"]}


def _plot(condition: Mapping[str, Any], result: Mapping[str, Any]) -> _Plot:
    left, top, right, bottom = FRAME
    steps = condition["strengths"]
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
        [(float(x), value(step["value"])) for x, step in zip(across, steps, strict=True)],
        [(up(share), f"{share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        up(result["detectors"][0]["f1"]),
        [holds(summary, condition) for summary in condition["detectors"]],
    )


def _example(study: Study, condition: Mapping[str, Any]) -> _Example:
    """Return a typical photo at the middle severity.

    It is the photo with the median share of products that are still detected.
    """
    steps = study.strengths
    strength = steps[len(steps) // 2]
    cell = study.cells[condition["name"], strength]
    kept = [float(stayed.mean()) if len(stayed) else 1.0 for stayed in cell.stayed[0]]
    index = int(np.argsort(kept, kind="stable")[len(kept) // 2])
    image = read_photo(study.dataset.photos[index].path)
    (applied,) = (c for c in study.conditions if c.name == condition["name"])
    changed = applied.apply(image, strength, generator(study.seed, applied.name, index)).image
    before, stayed = cell.clean[0][index], cell.stayed[0][index]
    visible = before.boxes[~before.ignore]
    pictures = [
        _picture(image, [(box, FOUND) for box in study.found[0][index].boxes]),
        _picture(
            changed,
            [(box, FOUND if kept else MISSED) for box, kept in zip(visible, stayed, strict=True)],
        ),
    ]
    text = (
        f"Severity {strength} ({applied.unit}: {value(applied.values[strength - 1])}). Of the "
        f"{plural(len(stayed), 'product')} detected on the unchanged photo, {int(stayed.sum())} "
        f"{'is' if stayed.sum() == 1 else 'are'} still detected with box and class."
    )
    return _Example(applied.title, text, pictures)


def _picture(image: np.ndarray, boxes: Sequence[tuple[np.ndarray, tuple[int, int, int]]]) -> str:
    scale = PICTURE_SIDE / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    picture = cv2.resize(
        image, size, interpolation=cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
    )
    for box, colour in boxes:
        left, top, right, bottom = (round(float(v) * scale) for v in box)
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 2, cv2.LINE_AA)
    return embedded(picture)
