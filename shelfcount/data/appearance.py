"""How products look, coarsely: enough to tell a turned photo, and a gap that holds a product.

A product is 4 x 4 colours of its box. Compared with the usual look of its class, it tells whether the
labels fit the photo as it stands or turned; compared with the product beside it, whether a gap in
a row is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from shelfcount.data.box_checks import Gap
from shelfcount.data.findings import Finding, Severity
from shelfcount.records import Photo
from shelfcount.vision import boxes as box_math

CELLS = 4
# Boxes kept of a photo, evenly drawn; more change no median and fill the memory on dense shelves.
MOST_BOXES = 32
# Weight of the logarithm of width by height beside the mean difference of 8-bit Lab values.
ASPECT_WEIGHT = 5.0
# A class is known from so many photos, of which the one in question may be one, and a photo judged by so many boxes of
# known classes.
FEWEST_PHOTOS = 5
FEWEST_BOXES = 4
# Distance to the classes' usual look when turned, by that as labelled. The drinks training photos: 0.95 and more as
# labelled. With labels turned by 90, 180 or 270 degrees: below 0.9 for all; lying on the side: for 99 in 100; upside
# down: for 92 in 100. Below the second it is beyond doubt.
MOST_TURNED = 0.9
CLEARLY_TURNED = 0.8
# A gap holds a product if its colours are nearer to the product beside it than this share of the median distance between
# products of the photo, and its edges are as strong as this share of the product's. Of gaps made by taking a box away on
# the drinks training photos, 93 in 100 pass; of empty places on synthetic shelves, bare boards behind, none of 190. On the
# drinks validation and test photos 35 gaps pass: each shows an unlabelled product, looked at one by one.
MOST_DISTANT = 0.8
LEAST_EDGES = 0.75
# Where the product may stand exactly, in shares of its width and height.
SHIFTS_X = (-0.2, -0.1, 0.0, 0.1, 0.2)
SHIFTS_Y = (-0.08, 0.0, 0.08)
# Proposals from both sides of a gap, or shifted onto one another, are one.
SAME_GAP_IOU = 0.3


@dataclass(frozen=True, eq=False)
class Sample:
    """The look of some of a photo's products, under each quarter turn of its labels.

    Attributes:
        classes: (n,) int64.
        looks: (4, n, CELLS, CELLS, 3) float16 Lab less the photo's own median, for the labels as they are and turned
            clockwise by 90, 180 and 270 degrees.
        aspects: (4, n) float32, logarithm of width by height in pixels.
    """

    classes: np.ndarray
    looks: np.ndarray
    aspects: np.ndarray


class Missing(NamedTuple):
    """A product that was probably left unlabelled.

    Attributes:
        box: (4,) float64 xyxy pixels, where it stands.
        beside: Index of the labelled box that it looks like.
        distance: In appearance from that box, 0 for the same, 1 at the limit.
    """

    box: np.ndarray
    beside: int
    distance: float


def thumbnails(lab: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n, CELLS, CELLS, 3) float32 mean colours of (n, 4) xyxy boxes in an (h, w, 3) picture."""
    height, width = lab.shape[:2]
    low = np.floor(boxes[:, :2]).clip(0, (width - 1, height - 1)).astype(int)
    high = np.ceil(boxes[:, 2:]).clip(low + 1, (width, height)).astype(int)
    found = np.zeros((len(boxes), CELLS, CELLS, 3), np.float32)
    for i, ((left, top), (right, bottom)) in enumerate(zip(low, high, strict=True)):
        found[i] = cv2.resize(
            lab[top:bottom, left:right], (CELLS, CELLS), interpolation=cv2.INTER_AREA
        )
    return found


def sample(lab: np.ndarray, photo: Photo) -> Sample:
    """The look of a photo's products.

    Args:
        lab: (h, w, 3) uint8 Lab of the upright photo.
        photo: Its labels.
    """
    judged = _some(np.flatnonzero(~photo.truth.ignore & (box_math.area(photo.truth.boxes) > 0)))
    size = np.array([photo.width, photo.height] * 2, np.float64)
    ratios = photo.truth.boxes[judged] / size
    # The photo's exposure and cast, so that what is left is the products' own.
    usual = np.median(lab[::4, ::4].reshape(-1, 3), axis=0)
    looks, aspects = [], []
    for _ in range(4):
        boxes = ratios * size
        looks.append((thumbnails(lab, boxes) - usual).astype(np.float16))
        aspects.append(np.log((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])))
        ratios = np.stack([1 - ratios[:, 3], ratios[:, 0], 1 - ratios[:, 1], ratios[:, 2]], axis=1)
    return Sample(photo.truth.classes[judged], np.array(looks), np.array(aspects, np.float32))


def turned(photos: Sequence[Photo], samples: Sequence[Sample]) -> list[Finding]:
    """Photos whose products look like their classes only when labels or photo are turned.

    Args:
        photos: All photos of the data.
        samples: One for each.
    """
    usual = _usual_looks(samples)
    found = []
    for photo, own in zip(photos, samples, strict=True):
        known = np.array([c in usual for c in own.classes.tolist()], bool)
        if known.sum() < FEWEST_BOXES:
            continue
        looks, aspects = own.looks[:, known].astype(np.float32), own.aspects[:, known]
        expected = [usual[c] for c in own.classes[known].tolist()]
        as_labelled = _distance(looks[0], aspects[0], expected)
        turns: dict[tuple[str, int], float] = {}
        for quarter in (1, 2, 3):
            turns["labels", quarter] = _distance(looks[quarter], aspects[quarter], expected)
            sign = 1 if quarter == 2 else -1
            turns["photo", quarter] = _distance(
                np.rot90(looks[0], -quarter, axes=(1, 2)), sign * aspects[0], expected
            )
        (what, quarter), least = min(turns.items(), key=lambda item: item[1])
        if least < MOST_TURNED * as_labelled:
            found.append(_turned_finding(photo, what, 90 * quarter, as_labelled / max(least, 1e-6)))
    return found


def _usual_looks(samples: Sequence[Sample]) -> dict[int, tuple[np.ndarray, float]]:
    """Class to its median look (CELLS, CELLS, 3) and aspect, for classes that enough photos show."""
    classes = np.concatenate([s.classes for s in samples]) if samples else np.zeros(0, np.int64)
    shown = np.repeat(np.arange(len(samples)), [len(s.classes) for s in samples])
    usual = {}
    for c in np.unique(classes).tolist():
        if len(np.unique(shown[classes == c])) >= FEWEST_PHOTOS:
            looks = np.concatenate([s.looks[0, s.classes == c] for s in samples])
            aspects = np.concatenate([s.aspects[0, s.classes == c] for s in samples])
            usual[c] = (np.median(looks.astype(np.float32), axis=0), float(np.median(aspects)))
    return usual


def _distance(
    looks: np.ndarray, aspects: np.ndarray, expected: Sequence[tuple[np.ndarray, float]]
) -> float:
    colours = np.abs(looks - np.array([look for look, _ in expected])).mean(axis=(1, 2, 3))
    return float(
        np.median(
            colours + ASPECT_WEIGHT * np.abs(aspects - np.array([aspect for _, aspect in expected]))
        )
    )


def _turned_finding(photo: Photo, what: str, degrees: int, times: float) -> Finding:
    name = photo.path.name
    if what == "labels":
        message = f"{name}: the labels fit the photo {times:.1f} times as well turned by {degrees} degrees clockwise"
        fix = "The EXIF rotation was applied to one of the two only. Export the labels again from the upright photo."
    else:
        message = f"{name}: the products look {times:.1f} times as much like their classes with the photo turned by {degrees} degrees clockwise"
        fix = "Turn the photo upright together with its boxes."
    severity: Severity = "error" if times > 1 / CLEARLY_TURNED else "warning"
    return Finding(severity, "orientation", message, fix, photo.path, degree=times * MOST_TURNED)


def likely_missing(lab: np.ndarray, boxes: np.ndarray, gaps: Sequence[Gap]) -> list[Missing]:
    """Those gaps in rows that look like the product beside them, the surest first.

    Args:
        lab: (h, w, 3) uint8 Lab of the upright photo.
        boxes: (n, 4) xyxy pixels, the labelled products.
        gaps: From `box_checks.gaps` of these boxes.
    """
    if not gaps:
        return []
    looks = thumbnails(lab, boxes)
    some = _some(looks)
    pairs = np.abs(some[:, None] - some[None]).mean(axis=(2, 3, 4))[np.triu_indices(len(some), 1)]
    limit = max(MOST_DISTANT * float(np.median(pairs)), 1e-6)
    light = lab[..., 0].astype(np.float32)
    edges = np.hypot(cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1))
    found = []
    for gap in gaps:
        width, height = gap.box[2:] - gap.box[:2]
        places = np.array(
            [gap.box + np.array([x * width, y * height] * 2) for x in SHIFTS_X for y in SHIFTS_Y]
        )
        places = box_math.clip(places, lab.shape[1], lab.shape[0])
        distances = np.abs(thumbnails(lab, places) - looks[gap.beside]).mean(axis=(1, 2, 3)) / limit
        place = places[distances.argmin()]
        if distances.min() < 1 and _mean(edges, place) > LEAST_EDGES * _mean(
            edges, boxes[gap.beside]
        ):
            found.append(Missing(place, gap.beside, float(distances.min())))
    kept = box_math.suppress(
        np.array([m.box for m in found]).reshape(-1, 4),
        np.array([-m.distance for m in found]),
        SAME_GAP_IOU,
    )
    return [found[i] for i in kept]


def _some(rows: np.ndarray) -> np.ndarray:
    """At most `MOST_BOXES` rows, evenly drawn."""
    return (
        rows[np.unique(np.linspace(0, len(rows) - 1, MOST_BOXES).astype(int))]
        if len(rows) > MOST_BOXES
        else rows
    )


def _mean(picture: np.ndarray, box: np.ndarray) -> float:
    left, top, right, bottom = box.astype(int)
    return float(picture[top : bottom + 1, left : right + 1].mean())
