"""Choose the limits of the photo gate by the F1 that a bundle loses.

Labelled validation photos are changed by one condition at a time, at several severities. The gate
measures each photo and the bundle counts its products. Photos are sorted by a measure, and each
window of as many photos as the data set has gives the F1 lost against the same photos unchanged.
The limit of the measure is where this loss, made monotone, exceeds `F1_LOST`. No limit refuses more
than `FALSE_ALARMS` of the unchanged photos. Test photos choose nothing.

    python benchmarks/shelf/photo_gate.py --bundle BUNDLE --data VAL.json
        --corrections CORRECTIONS.json --unchanged TRAIN.json --held-out TEST.json

The limits are stored in the package, and a test compares the two.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from shelfcount.cli.console import progress_bar
from shelfcount.data.datasets import fingerprint
from shelfcount.data.formats import read_labels
from shelfcount.files import write_json, write_whole
from shelfcount.labels.corrections import correct_labels, read_corrections
from shelfcount.metrics.matching import match
from shelfcount.records import Dataset, Detections, Detector, Photo
from shelfcount.report.figures import BLUE, PLOT_GREY, VERMILION
from shelfcount.runtime.bundle import LiteRTDetector, read_bundle
from shelfcount.runtime.photos import read_photos
from shelfcount.shelf.photo_gate import COUNTING_LIMITS, LOWER_LIMITS, check_photo
from shelfcount.stamp import stamp
from shelfcount.studies.photo_limits import (
    F1_LOST,
    FALSE_ALARMS,
    SEEN_BY,
    GatedPhoto,
    LossCurve,
    count_refused,
    exceeded_limits,
    gate_limits,
    loss_curve,
    refusals_by_condition,
)
from shelfcount.vision.conditions import CONDITIONS, SEVERITIES
from shelfcount.vision.homography import map_detections, warp
from shelfcount.vision.images import FILL_GREY, read_photo

RESULTS = Path(__file__).parents[1] / "results"
SEED = 0
# Conditions that lose less than `F1_LOST` at their highest severity are applied twice.
AGAIN = {"blurrier": "defocus", "coarser": "resolution"}
FAR = (0.8, 0.6, 0.45, 0.35, 0.25)
TITLES = {
    "dark": "dark: grey level of the brightest tenth",
    "bright": "bright: share of overexposed pixels",
    "glare": "glare: share of white areas without texture",
    "blur": "blur: exponent",
    "motion": "motion: blur in one direction",
    "tilt": "tilt, degrees",
    "yaw": "yaw, degrees",
    "pitch": "pitch, degrees",
    "product_size": "product size in the input, relative to training",
    "product_pixels": "product size on the photo, relative to training",
}


# ---------------------------------------------------------------- photos under conditions


def changed(
    photo: np.ndarray, truth: Detections, condition: str, severity: int, rng: np.random.Generator
) -> tuple[np.ndarray, Detections, np.ndarray]:
    """Return the photo to count, its labels, and the photo to measure.

    Conditions of the view add a grey border to the photo to count. Its edges would reveal the view,
    so the photo to measure is mirrored at the border.
    """
    if condition == "far":
        image, homography = far(photo, FAR[severity - 1])
        return image, map_detections(truth, homography, photo.shape[1], photo.shape[0])[0], image
    if condition in AGAIN:
        condition = AGAIN[condition]
        first = CONDITIONS[condition].apply(photo, max(SEVERITIES), rng)
        photo, (truth, _) = first.image, first.move(truth)
    result = CONDITIONS[condition].apply(photo, severity, rng)
    labels, _ = result.move(truth)
    if CONDITIONS[condition].group != "view":
        return result.image, labels, result.image
    measured = warp(
        photo,
        result.homography,
        (photo.shape[1], photo.shape[0]),
        cv2.BORDER_REFLECT_101,
        interpolation=cv2.INTER_CUBIC,
    )
    return result.image, labels, measured


def far(photo: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the scaled-down photo in the middle of a grey one, and the homography."""
    height, width = photo.shape[:2]
    small = cv2.resize(
        photo, (round(width * share), round(height * share)), interpolation=cv2.INTER_AREA
    )
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    whole = np.full_like(photo, FILL_GREY)
    whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    return whole, np.array(
        [[small.shape[1] / width, 0, left], [0, small.shape[0] / height, top], [0, 0, 1]]
    )


def sample(
    detector: Detector, number: int, photo: Photo, condition: str, severity: int
) -> GatedPhoto:
    """Count and measure one photo under one condition."""
    image, truth = read_photo(photo.path), photo.truth
    measured = image
    if severity:
        image, truth, measured = changed(
            image, truth, condition, severity, np.random.default_rng([SEED, number])
        )
    found = detector.detect(image)
    matches = match(truth, found)
    right = int(matches.hit.sum())
    counts = (
        right,
        right + int((~matches.hit & ~matches.absorbed).sum()),
        int((~truth.ignore).sum()),
    )
    return GatedPhoto(
        number, condition, severity, measures(detector, measured, found.boxes), counts
    )


def measures(
    detector: Detector, image: np.ndarray, boxes: np.ndarray | None
) -> dict[str, float | None]:
    """Return the measures by name: sizes relative to training, angles without sign."""
    values: dict[str, float | None] = {}
    for check in check_photo(image, detector.spec, boxes).checks:
        values[check.name] = None if check.value is None else abs(check.value)
        if check.name.startswith("product") and check.value is not None:
            values[check.name] = check.value / detector.spec.product_px[1]
    return values


def as_taken(detector: Detector, source: str) -> list[dict[str, float | None]]:
    """Return the measures of all photos of a data set."""
    return [
        measures(detector, image, detector.detect(image).boxes)
        for _, image in read_photos(read_labels(source).photos)
    ]


def samples(
    detector: Detector, dataset: Dataset, progress: Callable[..., None]
) -> list[GatedPhoto]:
    """Count and measure all photos, unchanged and under every condition."""
    conditions = dict.fromkeys(condition for group in SEEN_BY.values() for condition in group)
    grades = [
        ("unchanged", 0),
        *((condition, severity) for condition in conditions for severity in SEVERITIES),
    ]
    made = []
    for i, (condition, severity) in enumerate(grades, start=1):
        made += [
            sample(detector, number, photo, condition, severity)
            for number, photo in enumerate(dataset.photos)
        ]
        progress(i, len(grades))
    return made


# ---------------------------------------------------------------- picture and time


def draw(
    curves: Mapping[str, LossCurve],
    chosen: Mapping[str, Mapping[str, float]],
    unchanged: Sequence[Mapping[str, Any]],
) -> bytes:
    """Draw the F1 lost over each measure, as PNG bytes."""
    with matplotlib.rc_context(
        {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(15, 6), layout="constrained")
        for axes, (check, found) in zip(figure.subplots(2, 5).flat, curves.items(), strict=True):
            usual = [v for photo in unchanged if (v := photo[check]) is not None]
            axes.axvspan(
                *np.quantile(usual, [0.005, 0.995]),
                color=PLOT_GREY,
                alpha=0.25,
                lw=0,
                label="99 % of unchanged photos",
            )
            axes.plot(
                found.places, 100 * found.lost, ".", ms=3, color=BLUE, label="F1 lost, points"
            )
            axes.plot(found.places, 100 * found.smooth, color=BLUE)
            axes.axvline(
                chosen[check]["limit"], color=VERMILION, label=f"limit {chosen[check]['limit']:g}"
            )
            axes.axhline(100 * F1_LOST, color=PLOT_GREY, lw=0.8)
            axes.set_title(TITLES[check], fontsize=9)
            axes.set_ylim(-3, 30)
            if check in LOWER_LIMITS:
                axes.invert_xaxis()
            axes.legend(frameon=False, fontsize=7, loc="upper left")
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=130, metadata={"Software": None})
    return data.getvalue()


def twelve_megapixels(detector: Detector, photo: np.ndarray, runs: int = 15) -> dict[str, Any]:
    """Measure the CPU time of the gate on one thread, in milliseconds."""
    image = cv2.resize(photo, (4000, 3000), interpolation=cv2.INTER_CUBIC)
    threads, taken = cv2.getNumThreads(), []
    cv2.setNumThreads(1)
    for _ in range(runs):
        begin = time.process_time()
        check_photo(image, detector.spec)
        taken.append(1e3 * (time.process_time() - begin))
    cv2.setNumThreads(threads)
    return {
        "runs": runs,
        "p50_ms": round(float(np.median(taken)), 1),
        "p90_ms": round(float(np.quantile(taken, 0.9)), 1),
        "threads": 1,
    }


def main() -> int:
    """Measure and write the result. Returns 1 if the package has other limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="Bundle that counts.")
    parser.add_argument("--data", required=True, help="Labelled validation photos.")
    parser.add_argument("--corrections", type=Path, help="Corrections of their labels.")
    parser.add_argument("--unchanged", nargs="*", default=[], help="More unchanged photos.")
    parser.add_argument("--held-out", help="Photos that choose no limit.")
    given = parser.parse_args()
    opened, dataset = read_bundle(given.bundle), read_labels(given.data)
    if given.corrections:
        dataset = correct_labels(dataset, read_corrections(given.corrections))
    detector = LiteRTDetector.open(opened, threads=1)
    with progress_bar("counting under conditions") as advance:
        made = samples(detector, dataset, advance)
    unchanged = [s.values for s in made if not s.severity]
    unchanged += [values for source in given.unchanged for values in as_taken(detector, source)]
    curves = {check: loss_curve(check, made) for check in SEEN_BY}
    chosen = gate_limits(curves, unchanged)
    by = {check: entry["limit"] for check, entry in chosen.items()}
    alarms = [exceeded_limits(values, by) for values in unchanged]
    result = {
        "stamp": stamp(seed=SEED, threads=1),
        "bundle": {"name": opened.name, "sha256": opened.sha256},
        "data": {
            "name": Path(given.data).name,
            "fingerprint": fingerprint(dataset),
            "photos": len(dataset),
        },
        "f1_lost": F1_LOST,
        "false_alarms_of_each_check": FALSE_ALARMS,
        "limits": chosen,
        "unchanged": {
            "photos": len(unchanged),
            "refused": sum(map(bool, alarms)),
            "by_check": {check: sum(check in alarm for alarm in alarms) for check in by},
        },
        "held_out": count_refused(as_taken(detector, given.held_out), given.held_out, by)
        if given.held_out
        else None,
        "outcome": list(refusals_by_condition(made, by)),
        "twelve_megapixels": twelve_megapixels(detector, read_photo(dataset.photos[0].path)),
    }
    write_json(RESULTS / "photo_gate.json", result)
    write_whole(RESULTS / "photo_gate.png", draw(curves, chosen, unchanged))
    print(
        json.dumps(
            {key: result[key] for key in ("limits", "unchanged", "held_out", "twelve_megapixels")},
            indent=1,
        )
    )
    if by != asdict(COUNTING_LIMITS):
        print(
            "COUNTING_LIMITS in shelfcount/shelf/photo_gate.py must be these; they differ",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
