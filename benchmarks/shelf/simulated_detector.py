"""Simulated detections of synthetic photos, and counts that are compared with the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shelfcount.metrics.matching import match
from shelfcount.records import Detections
from shelfcount.shelf.count import CountedPhoto
from shelfcount.shelf.merge import Merged
from shelfcount.shelf.photo_gate import Quality
from shelfcount.shelf.rows import assign_rows
from shelfcount.synthetic.catalogue import make_catalogue
from shelfcount.synthetic.scenes import Scene
from shelfcount.vision import boxes as box_math

CATALOGUE = make_catalogue(24)
CLASSES = tuple(product.name for product in CATALOGUE)
# Score threshold of the simulated detector.
THRESHOLD = 0.4


@dataclass(frozen=True)
class Noise:
    """Errors of a simulated detector.

    Attributes:
        jitter: Standard deviation of an edge, as a share of the box.
        lost: Probability that a product is missed.
        misnamed: Probability that a product gets a random class.
        invented: Number of false positives, as a share of the products.
    """

    jitter: float = 0.0
    lost: float = 0.0
    misnamed: float = 0.0
    invented: float = 0.0


# The last level is worse than the drinks detector.
LEVELS = {
    "true boxes": Noise(),
    "boxes off by 3 %, 2 % lost": Noise(jitter=0.03, lost=0.02),
    "boxes off by 4 %, 15 % lost, 5 % misnamed, 8 % invented": Noise(
        jitter=0.04, lost=0.15, misnamed=0.05, invented=0.08
    ),
}


def detected(scene: Scene, noise: Noise, rng: np.random.Generator) -> tuple[Detections, np.ndarray]:
    """Return simulated detections of a scene, and the physical product of each.

    Returns:
        n detections, and (n,) the number of the product, or -1 for a false positive.
    """
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
        # Scores of true and of false positives overlap between 0.5 and 0.7, so that any threshold
        # has errors.
        np.concatenate([rng.uniform(0.5, 1, len(truth)), rng.uniform(THRESHOLD, 0.7, len(false))]),
    )
    return found, np.concatenate([items, np.full(len(false), -1)])


def counted(
    path: str, image: np.ndarray, found: Detections, classes: tuple[str, ...] = CLASSES
) -> CountedPhoto:
    """Return detections as a counted photo."""
    height, width = image.shape[:2]
    return CountedPhoto(path, width, height, found, assign_rows(found.boxes), classes, Quality())


def true_counts(scenes: Sequence[Scene], classes: Sequence[str] = CLASSES) -> Counter[str]:
    """Count the physical products of each class that are labelled on at least one photo."""
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
    """Return the sum of the absolute count errors of all classes."""
    return sum(abs(found.get(name, 0) - true.get(name, 0)) for name in {*found, *true})


class Tally:
    """Count errors of merged shelves and of their single photos.

    Detections on ignored areas do not count.
    """

    def __init__(self) -> None:
        self.shelves: list[tuple[int, int, int]] = []
        self.photos: list[tuple[int, int]] = []
        self.placed = 0

    def add(
        self, merged: Merged, scenes: Sequence[Scene], classes: Sequence[str] = CLASSES
    ) -> None:
        """Add a shelf and its photos in the same order. Products not placed are missed."""
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
        """Return count errors as shares of the true products."""
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
