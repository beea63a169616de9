r"""From where on is a photo not fit to be counted? Measures of the photo gate against the F1 that a bundle loses.

Labelled validation photos are put under graded conditions, one kind at a time. For each photo the gate's measure is taken and
the products are counted. Photos in the order of the measure, as many at a time as there are photos, give the F1 lost against
the same photos unchanged; the limit is where that, made monotone, passes `F1_LOST`. But no limit is so strict that
it refuses more than `FALSE_ALARMS` of the photos as they were taken. Test photos choose nothing.

    python benchmarks/shelf/photo_gate.py --bundle BUNDLE --data VAL.json --corrections CORRECTIONS.json \
        --unchanged TRAIN.json --held-out TEST.json

The limits it finds are those in shelfcount/shelf/photogate.py; a test holds the two equal.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from shelfcount.cli.console import progress_bar
from shelfcount.data.datasets import fingerprint
from shelfcount.data.formats import read_labels
from shelfcount.files import write_whole
from shelfcount.labels.corrections import correct_labels, read_corrections
from shelfcount.metrics.matching import match
from shelfcount.records import Dataset, Detections, Detector, Photo, ShelfcountError
from shelfcount.report.figures import BLUE, PLOT_GREY, VERMILION
from shelfcount.runtime.bundle import LiteRTDetector, read_bundle
from shelfcount.runtime.photos import read_photos
from shelfcount.shelf.photo_gate import COUNTING_LIMITS, LOWER_LIMITS, check_photo
from shelfcount.stamp import stamp
from shelfcount.vision.conditions import CONDITIONS, SEVERITIES
from shelfcount.vision.homography import map_detections, warp
from shelfcount.vision.images import FILL_GREY, read_photo

RESULTS = Path(__file__).parents[1] / "results"
SEED = 0
F1_LOST = 0.05
FALSE_ALARMS = 0.01
# What each measure is to see. `far` is a photo taken from further away, on a grey ground.
SEEN_BY = {
    "dark": ("dark",),
    "bright": ("bright",),
    "glare": ("glare",),
    "blur": ("defocus", "blurrier"),
    # Blur of any kind shows some; a photo must not be refused for what does no harm.
    "motion": ("motion", "defocus"),
    "tilt": ("tilt",),
    "yaw": ("yaw",),
    "pitch": ("pitch",),
    "product_size": ("far",),
    "product_pixels": ("resolution", "coarser"),
}
# Conditions that at their strongest cost less than `F1_LOST`, once more on top of that.
AGAIN = {"blurrier": "defocus", "coarser": "resolution"}
FAR = (0.8, 0.6, 0.45, 0.35, 0.25)
TITLES = {
    "dark": "dark: grey level of the brightest tenth",
    "bright": "bright: share blown out",
    "glare": "glare: share white and blank",
    "blur": "blur: exponent",
    "motion": "motion: blur in one direction",
    "tilt": "tilt, degrees",
    "yaw": "yaw, degrees",
    "pitch": "pitch, degrees",
    "product_size": "product size to the model, share of training's",
    "product_pixels": "product size on the photo, share of training's",
}


@dataclass(frozen=True)
class Sample:
    """One photo under one condition: its measures and (found and right, found, labelled) products; severity 0 is unchanged."""

    photo: int
    condition: str
    severity: int
    values: Mapping[str, float | None]
    counts: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Curve:
    """F1 lost over a measure: places in the order in which photos get worse, what was lost there, and that made monotone."""

    places: np.ndarray
    lost: np.ndarray
    smooth: np.ndarray
    limit: float


def f1(samples: Sequence[Sample]) -> float:
    """Over all of their products."""
    right, found, labelled = np.sum([s.counts for s in samples], axis=0)
    return float(2 * right / max(found + labelled, 1))


# ---------------------------------------------------------------- photos under conditions


def changed(
    photo: np.ndarray, truth: Detections, condition: str, severity: int, rng: np.random.Generator
) -> tuple[np.ndarray, Detections, np.ndarray]:
    """The photo to count, its labels, and the photo to measure.

    The two photos differ where a condition lets a grey border come into view: its edges would tell the view. What is measured has
    the photo mirrored there, so that level stays level.
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
    """The photo at a share of its size in the middle of a grey one, and the homography."""
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


def sample(detector: Detector, number: int, photo: Photo, condition: str, severity: int) -> Sample:
    """Count and measure one photo."""
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
    return Sample(number, condition, severity, measures(detector, measured, found.boxes), counts)


def measures(
    detector: Detector, image: np.ndarray, boxes: np.ndarray | None
) -> dict[str, float | None]:
    """By check; products' sizes as shares of that in training, angles without their sign."""
    values: dict[str, float | None] = {}
    for check in check_photo(image, detector.spec, boxes).checks:
        values[check.name] = None if check.value is None else abs(check.value)
        if check.name.startswith("product") and check.value is not None:
            values[check.name] = check.value / detector.spec.product_px[1]
    return values


def as_taken(detector: Detector, source: str) -> list[dict[str, float | None]]:
    """The measures of all photos of a data set."""
    return [
        measures(detector, image, detector.detect(image).boxes)
        for _, image in read_photos(read_labels(source).photos)
    ]


def samples(detector: Detector, dataset: Dataset, progress: Callable[..., None]) -> list[Sample]:
    """All photos, unchanged and under every condition."""
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


# ---------------------------------------------------------------- from F1 lost to limits


def curve(check: str, made: Sequence[Sample]) -> Curve:
    """F1 lost over one measure.

    Raises:
        ShelfcountError: If no severity of the condition loses as much as `F1_LOST`.
    """
    plain = {s.photo: s for s in made if not s.severity}
    sign = -1 if check in LOWER_LIMITS else 1
    seen = sorted(((sign * v, s) for s in made if s.condition in ("unchanged", *SEEN_BY[check]) and (v := s.values[check]) is not None),
                  key=lambda pair: pair[0])  # fmt: skip
    size = len(plain)
    windows = [seen[i : i + size] for i in range(len(seen) - size + 1)]
    places = np.array([np.median([value for value, _ in window]) for window in windows])
    lost = np.array(
        [f1([plain[s.photo] for _, s in window]) - f1([s for _, s in window]) for window in windows]
    )
    smooth = monotone(lost)
    if smooth[-1] < F1_LOST:
        raise ShelfcountError(
            f"{check} must lose {F1_LOST} of F1 at some severity, got {smooth[-1]:.3f}. Make its conditions stronger."
        )
    return Curve(
        sign * places, lost, smooth, float(sign * places[int(np.argmax(smooth >= F1_LOST))])
    )


def monotone(values: np.ndarray) -> np.ndarray:
    """The rising sequence nearest to the values: pool adjacent violators."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (last, n), (before, m) = blocks.pop(), blocks.pop()
            blocks.append([(last * n + before * m) / (n + m), n + m])
    return np.concatenate([np.full(int(n), value) for value, n in blocks])


def limits(
    curves: Mapping[str, Curve], unchanged: Sequence[Mapping[str, float | None]]
) -> dict[str, dict[str, float]]:
    """For each check the limit, rounded to two digits towards fit, and the two values it was chosen from."""
    chosen = {}
    for check, found in curves.items():
        values = [v for photo in unchanged if (v := photo[check]) is not None]
        usual = float(
            np.quantile(values, FALSE_ALARMS if check in LOWER_LIMITS else 1 - FALSE_ALARMS)
        )
        limit = min(found.limit, usual) if check in LOWER_LIMITS else max(found.limit, usual)
        chosen[check] = {
            "limit": two_digits(limit, up=check not in LOWER_LIMITS),
            "f1_lost_at": round(found.limit, 4),
            "usual": round(usual, 4),
        }
    return chosen


def two_digits(value: float, up: bool) -> float:
    """The next number with two significant digits."""
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(np.round((np.ceil if up else np.floor)(np.round(value / unit, 6)) * unit, 6))


def refused(values: Mapping[str, float | None], by: Mapping[str, float]) -> list[str]:
    """Checks that the measures fail."""
    return [
        c
        for c, limit in by.items()
        if (v := values[c]) is not None and (v < limit if c in LOWER_LIMITS else v > limit)
    ]


def held_out(
    photos: Sequence[Mapping[str, float | None]], source: str, by: Mapping[str, float]
) -> dict[str, Any]:
    """How many photos are refused that chose no limit."""
    return {
        "name": Path(source).name,
        "photos": len(photos),
        "refused": sum(bool(refused(values, by)) for values in photos),
    }


def outcome(made: Sequence[Sample], by: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """For each condition and severity: how many photos are refused, and the F1 of all, of those and of the others."""
    grades = dict.fromkeys((s.condition, s.severity) for s in made)
    for condition, severity in grades:
        own = [s for s in made if (s.condition, s.severity) == (condition, severity)]
        out = [s for s in own if refused(s.values, by)]
        kept = [s for s in own if not refused(s.values, by)]
        yield {
            "condition": condition,
            "severity": severity,
            "photos": len(own),
            "refused": len(out),
            "f1": round(f1(own), 4),
            "f1_refused": round(f1(out), 4) if out else None,
            "f1_kept": round(f1(kept), 4) if kept else None,
        }


# ---------------------------------------------------------------- the rest


def draw(
    curves: Mapping[str, Curve],
    chosen: Mapping[str, Mapping[str, float]],
    unchanged: Sequence[Mapping[str, Any]],
) -> bytes:
    """F1 lost over each measure, as PNG."""
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
    """Milliseconds of processor time that the gate takes on one thread: what else the machine does is no part of it."""
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
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", required=True, help="labelled validation photos")
    parser.add_argument("--corrections", type=Path, help="of their labels")
    parser.add_argument(
        "--unchanged", nargs="*", default=[], help="more photos, of which few may be refused"
    )
    parser.add_argument("--held-out", help="photos that choose nothing: how many are refused")
    given = parser.parse_args()
    opened, dataset = read_bundle(given.bundle), read_labels(given.data)
    if given.corrections:
        dataset = correct_labels(dataset, read_corrections(given.corrections))
    detector = LiteRTDetector.open(opened, threads=1)
    with progress_bar("counting under conditions") as advance:
        made = samples(detector, dataset, advance)
    unchanged = [s.values for s in made if not s.severity]
    unchanged += [values for source in given.unchanged for values in as_taken(detector, source)]
    curves = {check: curve(check, made) for check in SEEN_BY}
    chosen = limits(curves, unchanged)
    by = {check: entry["limit"] for check, entry in chosen.items()}
    alarms = [refused(values, by) for values in unchanged]
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
        "held_out": held_out(as_taken(detector, given.held_out), given.held_out, by)
        if given.held_out
        else None,
        "outcome": list(outcome(made, by)),
        "twelve_megapixels": twelve_megapixels(detector, read_photo(dataset.photos[0].path)),
    }
    write_whole(RESULTS / "photo_gate.json", json.dumps(result, indent=1) + "\n")
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
