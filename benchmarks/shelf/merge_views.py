"""Measure how exactly several photos of one shelf are merged, on synthetic shelves.

    python benchmarks/shelf/merge_views.py [--shelves 24]

The photos are rendered, and the detections are their true boxes with the errors of a simulated
detector. merge_detected.py measures real detectors.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from simulated_detector import CATALOGUE, LEVELS, THRESHOLD, Tally, counted, detected

from shelfcount.files import write_json
from shelfcount.records import Detections
from shelfcount.shelf import photo_pairs
from shelfcount.shelf.merge import merge_counted
from shelfcount.shelf.photo_features import PhotoFeatures, extract_features, match_keypoints
from shelfcount.shelf.registration import Registration, register
from shelfcount.stamp import stamp
from shelfcount.synthetic.catalogue import Product
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.synthetic.product_drawing import draw_product
from shelfcount.synthetic.scenes import Scene, render_views
from shelfcount.vision import boxes as box_math
from shelfcount.vision.homography import map_boxes, map_points

RESULT = Path(__file__).parents[1] / "results" / "merge_views.json"
SEED = 7
# Wide and low shelves, so that neighbouring photos share no more than the overlap; long runs of one
# product without gaps; portrait photos; bad photos; oblique photos; small photos.
SHELVES = (
    ShelfParams(width=1200, height=900, rows=(2, 3), facings=(16, 22)),
    ShelfParams(
        width=1200,
        height=900,
        rows=(2, 3),
        facings=(16, 22),
        run=(5, 8),
        gap=0,
        back_row=1,
        occlusion=0,
    ),
    ShelfParams(width=900, height=1200, rows=(4, 6), facings=(8, 10), yaw=10),
    ShelfParams(
        width=1200, height=900, rows=(2, 3), facings=(16, 22), blur=1, noise=1, light=1, jpeg=30
    ),
    ShelfParams(width=1200, height=900, rows=(3, 4), facings=(22, 30), yaw=25, tilt=8, pitch=12),
    ShelfParams(width=640, height=480),
)


# ---------------------------------------------------------------------------- synthetic shelves


def shelf(number: int, catalogue: Sequence[Product] = CATALOGUE) -> tuple[list[Scene], float]:
    """Return photos of a shelf in random order, and their overlap."""
    rng = np.random.default_rng([SEED, number])
    n, overlap = int(rng.integers(3, 11)), float(rng.choice((0.2, 0.25, 0.3, 0.4)))
    scenes = render_views(catalogue, SHELVES[number % len(SHELVES)], rng, n, overlap)
    return [scenes[i] for i in rng.permutation(n)], overlap


def with_products(view: PhotoFeatures, found: Detections) -> PhotoFeatures:
    """Return the features of a photo with other detections."""
    return dataclasses.replace(
        view, boxes=map_boxes(found.boxes, view.to_units), classes=found.classes
    )


def displacement(
    found: np.ndarray, true: np.ndarray, a: PhotoFeatures, b: PhotoFeatures
) -> np.ndarray:
    """Return distances between the places that two homographies map a grid of photo a to.

    Only places that photo b shows, by the true homography, are compared.
    """
    places = photo_pairs.GRID * a.half
    there = map_points(places, true)
    shown = (np.abs(there) <= b.half).all(axis=1)
    return np.hypot(*(map_points(places, found) - there)[shown].T)


def true_steps(
    scenes: Sequence[Scene], looks: Sequence[PhotoFeatures]
) -> dict[tuple[int, int], np.ndarray]:
    """Return the true homography from units of a to units of b, by pair of photos (a, b)."""
    onto = [view.to_units @ scene.homography for view, scene in zip(looks, scenes, strict=True)]
    return {
        (a, b): onto[b] @ np.linalg.inv(onto[a])
        for a in range(len(scenes))
        for b in range(len(scenes))
        if a != b
    }


def misplaced(
    scenes: Sequence[Scene], looks: Sequence[PhotoFeatures], found: Registration
) -> list[float]:
    """Return the largest displacement of each registered pair of photos."""
    true = true_steps(scenes, looks)
    off = [
        displacement(step, true[pair], looks[pair[0]], looks[pair[1]])
        for pair, step in found.steps.items()
    ]
    return [float(values.max()) if len(values) else np.inf for values in off]


def score_pairs(
    scenes: Sequence[Scene], looks: Sequence[PhotoFeatures], found: Registration
) -> list[tuple[bool, float, float]]:
    """Return for each best fit whether it is right (8 units), the common share and the score."""
    true, pairs = true_steps(scenes, looks), []
    for link in found.links:
        off = displacement(link.homography, true[link.a, link.b], looks[link.a], looks[link.b])
        pairs.append(
            (
                len(off) > 0 and float(np.median(off)) < 8,
                len(off) / len(photo_pairs.GRID),
                link.score,
            )
        )
    return pairs


def synthetic(shelves: int) -> dict[str, Any]:
    """Measure count errors, registration errors, and the scores of right and wrong fits."""
    tallies = {level: Tally() for level in LEVELS}
    off: list[float] = []
    pairs: list[tuple[bool, float, float]] = []
    asked: Counter[str] = Counter()
    photos_in_all = 0
    for number in range(shelves):
        scenes, overlap = shelf(number)
        photos_in_all += len(scenes)
        asked[f"{overlap:.2f}"] += 1
        plain = [extract_features(scene.image, Detections.empty()) for scene in scenes]
        for level, noise in LEVELS.items():
            rng = np.random.default_rng([SEED, number, 1])
            found = [detected(scene, noise, rng)[0] for scene in scenes]
            looks = [
                with_products(view, detections)
                for view, detections in zip(plain, found, strict=True)
            ]
            photos = [
                counted(f"{i}.jpg", s.image, d)
                for i, (s, d) in enumerate(zip(scenes, found, strict=True))
            ]
            registration = register(looks)
            off += misplaced(scenes, looks, registration)
            pairs += score_pairs(scenes, looks, registration)
            tallies[level].add(merge_counted(photos, looks, THRESHOLD), scenes)
    right = [score for good, share, score in pairs if good and share >= 0.15]
    return {
        "shelves": shelves,
        "photos": photos_in_all,
        "overlap_asked_for": dict(sorted(asked.items())),
        "counts": {level: tally.to_json() for level, tally in tallies.items()},
        "registration_units": {
            "median": _round(np.median(off)),
            "p99": _round(np.percentile(off, 99)),
            "max": _round(max(off)),
        },
        "pairs": {
            "compared": len(pairs),
            "right_with_15_percent_in_common": len(right),
            "lowest_score_of_these": _round(min(right)),
            "highest_score_of_a_wrong_fit": _round(
                max(score for good, _, score in pairs if not good)
            ),
        },
    }


def _round(value: Any) -> float:
    return round(float(value), 3)


# ---------------------------------------------------------------------------- repetitive shelves


@dataclass(frozen=True, eq=False)
class Twin:
    """Two photos of a shelf on which all products of a class are identical pictures."""

    a: PhotoFeatures
    b: PhotoFeatures
    a_to_b: np.ndarray

    def off(self, homography: np.ndarray) -> float:
        """Return the median distance in units to the true homography, over the common area."""
        return float(np.median(displacement(homography, self.a_to_b, self.a, self.b)))

    def plain_fit(self) -> np.ndarray:
        """Fit a homography to distinct key points alone."""
        near = match_keypoints(self.a, self.b)
        p, q = self.a.points[near.distinct], self.b.points[near.index[0, near.distinct]]
        return cv2.findHomography(p, q, cv2.USAC_MAGSAC, photo_pairs.INLIER_UNITS)[0]

    def best(self) -> photo_pairs.PairFit:
        """Fit a homography to key points and products."""
        return photo_pairs.fit_pair((0, 1), self.a, self.b, match_keypoints(self.a, self.b))[0]


def twin(seed: int, overlap: float = 0.25) -> Twin:
    """Render two photos of a shelf with identical products."""
    rng = np.random.default_rng(seed)
    plane, truth = copied_shelf(rng)
    width = 1200
    (a, to_a), (b, to_b) = (
        photograph(plane, truth, left, width, rng) for left in (300, 300 + (1 - overlap) * width)
    )
    return Twin(a, b, to_b @ np.linalg.inv(to_a))


def copied_shelf(rng: np.random.Generator) -> tuple[np.ndarray, Detections]:
    """Draw three rows with runs of 5 to 9 identical products, on plain boards."""
    kinds = rng.permutation(len(CATALOGUE))
    plane = np.full((1200, 3000, 3), (176, 176, 172), np.uint8)
    boxes: list[list[int]] = []
    classes: list[int] = []
    foot = 20
    for row in range(3):
        order = np.repeat(kinds[4 * row + rng.integers(0, 4, 9)], rng.integers(5, 10, 9))
        copies = {kind: draw_product(CATALOGUE[kind], 10, 0) for kind in set(order.tolist())}
        foot += max(len(copy) for copy in copies.values())
        left = 30
        for kind in order.tolist():
            height, width = copies[kind].shape[:2]
            if left + width > plane.shape[1] - 30:
                break
            painted = copies[kind][..., 3] > 127
            plane[foot - height : foot, left : left + width][painted] = copies[kind][painted, :3]
            boxes.append([left, foot - height, left + width, foot])
            classes.append(kind)
            left += width + 3
        plane[foot : foot + 15] = (60, 60, 70)
        foot += 30
    return plane[: foot + 10], Detections(boxes, classes)


def photograph(
    plane: np.ndarray, truth: Detections, left: float, width: int, rng: np.random.Generator
) -> tuple[PhotoFeatures, np.ndarray]:
    """Render a slightly rotated photo of the plane from `left` on.

    Returns:
        Features of the photo, and the homography from the plane to its units.
    """
    size = width, len(plane)
    turn = rng.uniform(-0.03, 0.03)
    camera = np.array(
        [
            [np.cos(turn), -np.sin(turn), 0],
            [np.sin(turn), np.cos(turn), 0],
            [*rng.uniform(-8e-5, 8e-5, 2), 1],
        ]
    )
    middle = np.array(size) / 2
    homography = moved(*middle) @ camera @ moved(-middle[0] - left, -middle[1])
    image = cv2.warpPerspective(plane, homography, size, borderValue=(120, 120, 120))
    image = dimmed(image, rng)
    boxes = map_boxes(truth.boxes, homography)
    shown = box_math.clip(boxes, *size)
    seen = box_math.area(shown) > 0.3 * box_math.area(boxes)
    view = extract_features(image, Detections(shown[seen], truth.classes[seen]))
    return view, view.to_units @ homography


def dimmed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the photo with another exposure and noise."""
    return np.clip(image * rng.uniform(0.85, 1.15) + rng.normal(0, 4, image.shape), 0, 255).astype(
        np.uint8
    )


def moved(x: float, y: float) -> np.ndarray:
    """Return the (3, 3) translation by x and y pixels."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def repetitive(pairs: int) -> dict[str, Any]:
    """Count the pairs of photos of repetitive shelves that are placed within 3 units.

    Pairs are placed by key points alone and with products. Their time is an upper limit, since all
    proposals are tried for these pairs.
    """
    twins = [twin(seed) for seed in range(pairs)]
    alone = sum(pair.off(pair.plain_fit()) < 3 for pair in twins)
    together, seconds = 0, []
    for pair in twins:
        begin = time.process_time()
        best = pair.best()
        seconds.append(time.process_time() - begin)
        together += pair.off(best.homography) < 3
    return {
        "pairs": pairs,
        "overlap": 0.25,
        "right_by_points_alone": alone,
        "right_with_products": together,
        "cpu_seconds_a_pair": {"median": _round(np.median(seconds)), "max": _round(max(seconds))},
    }


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shelves", type=int, default=24, help="Synthetic shelves of 3 to 10 photos. Default: 24."
    )
    given = parser.parse_args()
    result = {"synthetic": synthetic(given.shelves), "repetitive": repetitive(24)}
    write_json(RESULT, {"stamp": stamp(seed=SEED, threads=cv2.getNumThreads()), **result})
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
