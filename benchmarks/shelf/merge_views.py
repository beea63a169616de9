"""How well several photos of one shelf are merged, against exact truth on synthetic shelves.

Synthetic photos are real pixels to registration; what a detector would report is the truth of each photo with noise.
merge_detected.py has real detectors.

    python benchmarks/shelf/merge_views.py [--shelves 24]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shelfcount.files import write_whole
from shelfcount.metrics.matching import match
from shelfcount.records import Detections
from shelfcount.shelf import photo_pairs
from shelfcount.shelf.count import CountedPhoto
from shelfcount.shelf.merge import Merged, merge_counted
from shelfcount.shelf.photo_features import PhotoFeatures, extract_features, match_keypoints
from shelfcount.shelf.photo_gate import Quality
from shelfcount.shelf.registration import Registration, register
from shelfcount.shelf.rows import assign_rows
from shelfcount.stamp import stamp
from shelfcount.synthetic.catalogue import Product, make_catalogue
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.synthetic.product_drawing import draw_product
from shelfcount.synthetic.scenes import Scene, render_views
from shelfcount.vision import boxes as box_math
from shelfcount.vision.homography import map_boxes, map_points

RESULT = Path(__file__).parents[1] / "results" / "merge_views.json"
SEED = 7
CATALOGUE = make_catalogue(24)
CLASSES = tuple(product.name for product in CATALOGUE)
THRESHOLD = 0.4
# Wide and low, so that the photos' width limits them and neighbours share no more than they are asked to; long runs of
# one product without gaps; an upright phone; a bad photographer; an oblique one; small pictures.
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


# ---------------------------------------------------------------------------- what a detector would report


@dataclass(frozen=True)
class Noise:
    """What a detector does to the truth: edges off by a share of the box, and chances a product is lost, misnamed or invented."""

    jitter: float = 0.0
    lost: float = 0.0
    misnamed: float = 0.0
    invented: float = 0.0


# The last is about what the drinks detector does: recall 0.78, precision 0.83 (drinks_int8.json).
LEVELS = {
    "true boxes": Noise(),
    "boxes off by 3 %, 2 % lost": Noise(jitter=0.03, lost=0.02),
    "boxes off by 4 %, 15 % lost, 5 % misnamed, 8 % invented": Noise(
        jitter=0.04, lost=0.15, misnamed=0.05, invented=0.08
    ),
}


def detected(scene: Scene, noise: Noise, rng: np.random.Generator) -> tuple[Detections, np.ndarray]:
    """What a detector reports of a scene, and the physical product of each, -1 for one that is not there."""
    truth, items = scene.truth[~scene.truth.ignore], scene.items[~scene.truth.ignore]
    kept = rng.random(len(truth)) >= noise.lost
    truth, items = truth[kept], items[kept]
    size = np.tile(truth.boxes[:, 2:] - truth.boxes[:, :2], 2)
    boxes = truth.boxes + rng.normal(0, 1, size.shape) * noise.jitter * size
    classes = np.where(
        rng.random(len(truth)) < noise.misnamed,
        rng.integers(0, len(CLASSES), len(truth)),
        truth.classes,
    )
    false = rng.integers(0, max(len(truth), 1), rng.binomial(len(truth), noise.invented))
    elsewhere = truth.boxes[false] + np.tile(
        rng.uniform(-1, 1, (len(false), 2)) * size[false, :2], 2
    )
    height, width = scene.image.shape[:2]
    found = Detections(
        box_math.clip(np.concatenate([boxes, elsewhere]).astype(np.float32), width, height),
        np.concatenate([classes, rng.integers(0, len(CLASSES), len(false))]),
        # Uniform, true ones from 0.5 and false ones up to 0.7: where they overlap, a threshold is a choice.
        np.concatenate([rng.uniform(0.5, 1, len(truth)), rng.uniform(THRESHOLD, 0.7, len(false))]),
    )
    return found, np.concatenate([items, np.full(len(false), -1)])


def counted(
    path: str, image: np.ndarray, found: Detections, classes: tuple[str, ...] = CLASSES
) -> CountedPhoto:
    """As `shelf.count` would have it."""
    height, width = image.shape[:2]
    return CountedPhoto(path, width, height, found, assign_rows(found.boxes), classes, Quality())


def true_counts(scenes: Sequence[Scene], classes: Sequence[str] = CLASSES) -> Counter[str]:
    """Physical products of each class that a photo labels."""
    seen = {
        int(item): classes[label]
        for scene in scenes
        for item, label, ignored in zip(
            scene.items, scene.truth.classes, scene.truth.ignore, strict=True
        )
        if not ignored
    }
    return Counter(seen.values())


def errors(found: Mapping[str, int], true: Mapping[str, int]) -> int:
    """Products missed, added or misnamed, as counts of classes tell."""
    return sum(abs(found.get(name, 0) - true.get(name, 0)) for name in {*found, *true})


class Tally:
    """Counts against the truth, of merged shelves and of their photos alone; what lies on ignored truth counts neither way."""

    def __init__(self) -> None:
        self.shelves: list[tuple[int, int, int]] = []
        self.photos: list[tuple[int, int]] = []
        self.placed = 0

    def add(
        self, merged: Merged, scenes: Sequence[Scene], classes: Sequence[str] = CLASSES
    ) -> None:
        """A shelf, and its photos in the same order. What was not placed on it counts as missed."""
        whole, true = merged.shelves[0], true_counts(scenes, classes)
        absorbed = {
            p.path: match(s.truth, p.detections).absorbed
            for p, s in zip(merged.photos, scenes, strict=True)
        }
        counted = np.array(
            [not absorbed[whole.photos[photo].path][found] for photo, found in whole.best], bool
        )
        found = whole.products[counted].counts(classes)
        self.shelves.append(
            (errors(found, true), abs(int(counted.sum()) - true.total()), true.total())
        )
        self.placed += len(whole.photos)
        for photo, scene in zip(merged.photos, scenes, strict=True):
            alone = true_counts([scene], classes)
            self.photos.append(
                (
                    errors(photo.detections[~absorbed[photo.path]].counts(classes), alone),
                    alone.total(),
                )
            )

    def to_json(self) -> dict[str, Any]:
        """Shares of the products that stand there: missed, added or misnamed ones, and how far the number of all is off."""
        (wrong, off, there), (alone, on_photos) = (
            np.sum(self.shelves, axis=0),
            np.sum(self.photos, axis=0),
        )
        return {
            "count_error": round(wrong / there, 4),
            "worst_shelf": round(max(own / products_ for own, _, products_ in self.shelves), 4),
            "number_of_products_off": round(off / there, 4),
            "single_photo_count_error": round(alone / on_photos, 4),
            "products": int(there),
            "photos_placed": self.placed,
        }


# ---------------------------------------------------------------------------- synthetic shelves


def shelf(number: int, catalogue: Sequence[Product] = CATALOGUE) -> tuple[list[Scene], float]:
    """Photos of a shelf in any order, and the overlap asked for."""
    rng = np.random.default_rng([SEED, number])
    n, overlap = int(rng.integers(3, 11)), float(rng.choice((0.2, 0.25, 0.3, 0.4)))
    scenes = render_views(catalogue, SHELVES[number % len(SHELVES)], rng, n, overlap)
    return [scenes[i] for i in rng.permutation(n)], overlap


def with_products(view: PhotoFeatures, found: Detections) -> PhotoFeatures:
    """The points of a photo that is looked at already, with other detections."""
    return dataclasses.replace(
        view, boxes=map_boxes(found.boxes, view.to_units), classes=found.classes
    )


def displacement(
    found: np.ndarray, true: np.ndarray, a: PhotoFeatures, b: PhotoFeatures
) -> np.ndarray:
    """Units between where two homographies take places of photo a, for those that b shows by the true one."""
    places = photo_pairs.GRID * a.half
    there = map_points(places, true)
    shown = (np.abs(there) <= b.half).all(axis=1)
    return np.hypot(*(map_points(places, found) - there)[shown].T)


def true_steps(
    scenes: Sequence[Scene], looks: Sequence[PhotoFeatures]
) -> dict[tuple[int, int], np.ndarray]:
    """For each pair of photos (a, b) the true homography from units of a to units of b."""
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
    """Largest displacement of each pair of photos that were found to show a place both."""
    true = true_steps(scenes, looks)
    off = [
        displacement(step, true[pair], looks[pair[0]], looks[pair[1]])
        for pair, step in found.steps.items()
    ]
    return [float(values.max()) if len(values) else np.inf for values in off]


def judged_pairs(
    scenes: Sequence[Scene], looks: Sequence[PhotoFeatures], found: Registration
) -> list[tuple[bool, float, float]]:
    """Of each pair's best fit: whether it is right (to 8 units), the share of photo a that b shows, the score."""
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
    """Counts against the truth, registration against the true homographies, and the scores that right and wrong fits reach."""
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
            pairs += judged_pairs(scenes, looks, registration)
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


# ---------------------------------------------------------------------------- shelves that repeat themselves


@dataclass(frozen=True, eq=False)
class Twin:
    """Two photos of a shelf on which all products of a class are one and the same picture, and nothing else is."""

    a: PhotoFeatures
    b: PhotoFeatures
    a_to_b: np.ndarray

    def off(self, homography: np.ndarray) -> float:
        """Median distance in units, over what both photos show, to where the true homography goes."""
        return float(np.median(displacement(homography, self.a_to_b, self.a, self.b)))

    def plain_fit(self) -> np.ndarray:
        """What distinct points and a robust fit alone make of it."""
        near = match_keypoints(self.a, self.b)
        p, q = self.a.points[near.distinct], self.b.points[near.index[0, near.distinct]]
        return cv2.findHomography(p, q, cv2.USAC_MAGSAC, photo_pairs.INLIER_UNITS)[0]

    def best(self) -> photo_pairs.PairFit:
        """What points and products together make of it."""
        return photo_pairs.fit_pair(
            (0, 1), self.a, self.b, match_keypoints(self.a, self.b)
        )[0]


def twin(seed: int, overlap: float = 0.25) -> Twin:
    """By seed."""
    rng = np.random.default_rng(seed)
    plane, truth = copied_shelf(rng)
    width = 1200
    (a, to_a), (b, to_b) = (
        photograph(plane, truth, left, width, rng) for left in (300, 300 + (1 - overlap) * width)
    )
    return Twin(a, b, to_b @ np.linalg.inv(to_a))


def copied_shelf(rng: np.random.Generator) -> tuple[np.ndarray, Detections]:
    """Three rows of runs of 5 to 9 products, each a copy of one sprite, on plain boards."""
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
    """A photo of the plane from `left` on, a little turned, and the homography from the plane to its units."""
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
    """Another exposure, with noise of its own."""
    return np.clip(image * rng.uniform(0.85, 1.15) + rng.normal(0, 4, image.shape), 0, 255).astype(
        np.uint8
    )


def moved(x: float, y: float) -> np.ndarray:
    """(3, 3) that moves by so many pixels."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def repetitive(pairs: int) -> dict[str, Any]:
    """How many pairs of photos of copied shelves are placed to 3 units, by points alone and with products; and the time that takes.

    No pair takes longer than these, for which all proposals are tried.
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
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shelves", type=int, default=24, help="synthetic shelves of 3 to 10 photos (default: 24)"
    )
    given = parser.parse_args()
    result = {"synthetic": synthetic(given.shelves), "repetitive": repetitive(24)}
    write_whole(
        RESULT,
        json.dumps({"stamp": stamp(seed=SEED, threads=cv2.getNumThreads()), **result}, indent=1)
        + "\n",
    )
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
