"""Coarse colour grids of products, to detect rotated photos and gaps that contain a product.

A product is represented by a grid of 4 x 4 mean colours of its box. Comparison with the median
grid of its class shows whether the labels fit the photo as it is or rotated. Comparison with the
neighbouring product shows whether a gap in a row is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.checks.box_checks import LabelGap
from shelfcount.checks.findings import Finding, Severity
from shelfcount.records import Photo
from shelfcount.vision import boxes as box_math

Number = TypeVar("Number", bound=np.generic)
# Rows and columns of the colour grid.
_CELLS = 4
# Maximum number of boxes kept per photo, evenly spaced over its boxes. More do not change the
# medians and take much memory on dense shelves.
MAX_BOXES = 32
# Weight of a difference in log(width / height), relative to the mean difference of 8-bit Lab
# values.
ASPECT_WEIGHT = 5.0
# A class has a median look only if at least this many photos show it, the examined one included. A
# photo is examined only if it has at least `MIN_BOXES` boxes of such classes.
MIN_PHOTOS = 5
MIN_BOXES = 4
# Limits of the ratio of two distances to the median looks of the classes: after rotation, and as
# labelled. On the drinks training photos as labelled, the ratio is at least 0.95. It is below 0.9
# for all photos whose labels alone were rotated by 90, 180 or 270 degrees, for 99 % of the photos
# that were turned onto a side together with their labels, and for 92 % of those turned upside down.
# Below `MAX_TURNED` a photo is reported with a warning, below `CLEARLY_TURNED` with an error.
MAX_TURNED = 0.9
CLEARLY_TURNED = 0.8
# A gap is reported as an unlabelled product if both conditions are met. The distance between its
# colours and those of the neighbouring product is below this share of the median distance between
# products of the photo, and its edges are stronger than this share of the neighbour's. On the
# drinks training photos, 93 % of the gaps made by removing a box pass. On synthetic shelves, none
# of 190 empty places in front of bare boards passes. On the drinks validation and test photos, 35
# gaps pass; inspected one by one, each shows an unlabelled product.
MAX_DISTANCE = 0.8
MIN_EDGE_RATIO = 0.75
# Tried offsets of a proposed box, as shares of its width and height.
SHIFTS_X = (-0.2, -0.1, 0.0, 0.1, 0.2)
SHIFTS_Y = (-0.08, 0.0, 0.08)
# Proposals that overlap by a higher IoU, such as those from both sides of a gap, are merged.
SAME_GAP_IOU = 0.3


@dataclass(frozen=True, eq=False)
class ProductLook:
    """Colour grids of products of one photo, for each rotation of its labels by a quarter turn.

    Attributes:
        classes: (n,) int64, class indices.
        grids: (4, n, CELLS, CELLS, 3) float16, Lab colours minus the median of the photo, for the
            labels as they are and rotated clockwise by 90, 180 and 270 degrees.
        aspects: (4, n) float32, logarithm of width / height of the boxes in pixels.
    """

    classes: NDArray[np.int64]
    grids: NDArray[np.float16]
    aspects: NDArray[np.float32]


class Missing(NamedTuple):
    """Proposed box of a product that is likely unlabelled, as `likely_missing` finds it.

    Attributes:
        box: (4,) float64 xyxy, pixels of the upright photo.
        beside: Index of the neighbouring labelled box that it resembles.
        distance: Colour distance from that box: 0 if equal, 1 at the limit.
    """

    box: NDArray[np.float64]
    beside: int
    distance: float


def colour_grids(lab: NDArray[np.uint8], boxes: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the colour grids of boxes.

    Args:
        lab: (h, w, 3) uint8 Lab image.
        boxes: (n, 4) xyxy, pixels of the image.

    Returns:
        (n, CELLS, CELLS, 3) float32, mean Lab colours.
    """
    height, width = lab.shape[:2]
    low = np.floor(boxes[:, :2]).clip(0, (width - 1, height - 1)).astype(int)
    high = np.ceil(boxes[:, 2:]).clip(low + 1, (width, height)).astype(int)
    grids = np.zeros((len(boxes), _CELLS, _CELLS, 3), np.float32)
    for i, ((left, top), (right, bottom)) in enumerate(zip(low, high, strict=True)):
        grids[i] = cv2.resize(
            lab[top:bottom, left:right], (_CELLS, _CELLS), interpolation=cv2.INTER_AREA
        )
    return grids


def product_look(lab: NDArray[np.uint8], photo: Photo) -> ProductLook:
    """Return the colour grids of at most `MAX_BOXES` products of a photo.

    Args:
        lab: (h, w, 3) uint8 Lab image of the upright photo.
        photo: Photo with its labels. Ignored areas are left out.

    Returns:
        Colour grids and aspect ratios for each quarter turn of the labels.
    """
    indices = _some(np.flatnonzero(~photo.truth.ignore & (box_math.area(photo.truth.boxes) > 0)))
    size = np.array([photo.width, photo.height] * 2, np.float64)
    ratios = photo.truth.boxes[indices] / size
    # Subtracting the median colour removes exposure and colour cast of the photo.
    usual = np.median(lab[::4, ::4].reshape(-1, 3), axis=0)
    looks, aspects = [], []
    for _ in range(4):
        boxes = ratios * size
        looks.append((colour_grids(lab, boxes) - usual).astype(np.float16))
        aspects.append(np.log((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])))
        ratios = np.stack([1 - ratios[:, 3], ratios[:, 0], 1 - ratios[:, 1], ratios[:, 2]], axis=1)
    return ProductLook(photo.truth.classes[indices], np.array(looks), np.array(aspects, np.float32))


def find_rotated(photos: Sequence[Photo], samples: Sequence[ProductLook]) -> list[Finding]:
    """Return findings on photos whose products resemble their classes only after rotation.

    Args:
        photos: All photos of the data set.
        samples: Colour grids of each photo, from `product_look`.

    Returns:
        One finding per photo whose labels, or which itself, is likely rotated.
    """
    usual = _usual_looks(samples)
    findings = []
    for photo, grids in zip(photos, samples, strict=True):
        known = np.array([c in usual for c in grids.classes.tolist()], bool)
        if known.sum() < MIN_BOXES:
            continue
        looks, aspects = grids.grids[:, known].astype(np.float32), grids.aspects[:, known]
        expected = [usual[c] for c in grids.classes[known].tolist()]
        as_labelled = _distance(looks[0], aspects[0], expected)
        turns: dict[tuple[str, int], float] = {}
        for quarter in (1, 2, 3):
            turns["labels", quarter] = _distance(looks[quarter], aspects[quarter], expected)
            sign = 1 if quarter == 2 else -1
            turns["photo", quarter] = _distance(
                np.rot90(looks[0], -quarter, axes=(1, 2)), sign * aspects[0], expected
            )
        (what, quarter), smallest = min(turns.items(), key=lambda item: item[1])
        if smallest < MAX_TURNED * as_labelled:
            ratio = as_labelled / max(smallest, 1e-6)
            findings.append(_turned_finding(photo, what, 90 * quarter, ratio))
    return findings


def _usual_looks(samples: Sequence[ProductLook]) -> dict[int, tuple[NDArray[np.float32], float]]:
    """Return class index to its median (CELLS, CELLS, 3) colour grid and median aspect.

    Classes on fewer than `MIN_PHOTOS` photos are left out.
    """
    classes = np.concatenate([s.classes for s in samples]) if samples else np.zeros(0, np.int64)
    shown = np.repeat(np.arange(len(samples)), [len(s.classes) for s in samples])
    usual = {}
    for c in np.unique(classes).tolist():
        if len(np.unique(shown[classes == c])) >= MIN_PHOTOS:
            looks = np.concatenate([s.grids[0, s.classes == c] for s in samples])
            aspects = np.concatenate([s.aspects[0, s.classes == c] for s in samples])
            usual[c] = (np.median(looks.astype(np.float32), axis=0), float(np.median(aspects)))
    return usual


def _distance(
    grids: NDArray[np.float32],
    aspects: NDArray[np.float32],
    expected: Sequence[tuple[NDArray[np.float32], float]],
) -> float:
    colours = np.abs(grids - np.array([look for look, _ in expected])).mean(axis=(1, 2, 3))
    return float(
        np.median(
            colours + ASPECT_WEIGHT * np.abs(aspects - np.array([aspect for _, aspect in expected]))
        )
    )


def _turned_finding(photo: Photo, what: str, degrees: int, times: float) -> Finding:
    name = photo.path.name
    if what == "labels":
        message = (
            f"{name}: the labels fit the photo {times:.1f} times better if they are rotated by "
            f"{degrees} degrees clockwise"
        )
        fix = (
            "The EXIF rotation was likely applied to the photo or to the labels only. Export the "
            "labels again from the upright photo."
        )
    else:
        message = (
            f"{name}: the products resemble their classes {times:.1f} times better if the photo is "
            f"rotated by {degrees} degrees clockwise"
        )
        fix = "Rotate the photo upright together with its boxes."
    severity: Severity = "error" if times > 1 / CLEARLY_TURNED else "warning"
    return Finding(severity, "orientation", message, fix, photo.path, degree=times * MAX_TURNED)


def likely_missing(
    lab: NDArray[np.uint8], boxes: NDArray[np.floating], gaps: Sequence[LabelGap]
) -> list[Missing]:
    """Return the gaps in rows that resemble the neighbouring product, most similar first.

    Args:
        lab: (h, w, 3) uint8 Lab image of the upright photo.
        boxes: (n, 4) xyxy, pixels of the photo, the labelled products.
        gaps: Gaps between these boxes, from `find_label_gaps`.

    Returns:
        Proposed boxes, shortest colour distance first. Overlapping proposals are merged.
    """
    if not gaps:
        return []
    looks = colour_grids(lab, boxes)
    some = _some(looks)
    pairs = np.abs(some[:, None] - some[None]).mean(axis=(2, 3, 4))[np.triu_indices(len(some), 1)]
    limit = max(MAX_DISTANCE * float(np.median(pairs)), 1e-6)
    light = lab[..., 0].astype(np.float32)
    edges = np.hypot(cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1))
    proposals = []
    for gap in gaps:
        width, height = gap.box[2:] - gap.box[:2]
        places = np.array(
            [gap.box + np.array([x * width, y * height] * 2) for x in SHIFTS_X for y in SHIFTS_Y]
        )
        places = box_math.clip(places, lab.shape[1], lab.shape[0])
        distances = (
            np.abs(colour_grids(lab, places) - looks[gap.beside]).mean(axis=(1, 2, 3)) / limit
        )
        place = places[distances.argmin()]
        if distances.min() < 1 and _mean(edges, place) > MIN_EDGE_RATIO * _mean(
            edges, boxes[gap.beside]
        ):
            proposals.append(Missing(place, gap.beside, float(distances.min())))
    kept = box_math.suppress(
        np.array([m.box for m in proposals]).reshape(-1, 4),
        np.array([-m.distance for m in proposals]),
        SAME_GAP_IOU,
    )
    return [proposals[i] for i in kept]


def _some(rows: NDArray[Number]) -> NDArray[Number]:
    """Return at most `MAX_BOXES` rows, evenly spaced."""
    return (
        rows[np.unique(np.linspace(0, len(rows) - 1, MAX_BOXES).astype(int))]
        if len(rows) > MAX_BOXES
        else rows
    )


def _mean(picture: NDArray[np.float32], box: NDArray[np.floating]) -> float:
    left, top, right, bottom = box.astype(int)
    return float(picture[top : bottom + 1, left : right + 1].mean())
