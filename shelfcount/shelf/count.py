"""Photos to counts: every product's class, box, row and position, as records, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shelfcount.records import Detections, Detector, Dropped, ShelfcountError
from shelfcount.runtime.tiling import detect_tiled
from shelfcount.shelf.rows import Placement, rows
from shelfcount.vision import boxes as box_math
from shelfcount.vision import images

# Sharpness depends on how large a photo is; it is measured at this size so that photos compare.
QUALITY_PIXELS = 1_000_000
CSV_COLUMNS = ("photo", "class", "score", "x", "y", "w", "h", "row", "position")
# Spreadsheets run a cell that begins so as a formula: owasp.org/www-community/attacks/CSV_Injection.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, eq=False)
class CountedPhoto:
    """What stands on one photo.

    Attributes:
        path: As it was given.
        width, height: Pixels of the upright photo.
        detections: The products, best score first.
        placement: Row and position of each.
        classes: Class names that `detections.classes` are indices into.
        quality: ``sharpness``, the variance of the Laplacian of the grey photo at one megapixel, and
            ``brightness``, its mean from 0 (black) to 255.
    """

    path: str
    width: int
    height: int
    detections: Detections
    placement: Placement
    classes: tuple[str, ...]
    quality: Mapping[str, float]

    @property
    def counts(self) -> dict[str, int]:
        """Products of each class that is there, most frequent first."""
        return self.detections.counts(self.classes)

    def products(self) -> list[dict[str, Any]]:
        """One entry a product: class, score, box (x, y, width, height in pixels), row, position."""
        found = self.detections
        # Rounded as Python floats: a float32 would print all the digits of its binary value.
        boxes = [[round(float(v), 2) for v in box] for box in box_math.xyxy_to_xywh(found.boxes)]
        return [
            {"class": self.classes[c], "score": round(float(score), 4), "box": box, "row": int(row), "position": int(position)}
            for c, score, box, row, position in zip(
                found.classes, found.scores, boxes, self.placement.row, self.placement.position, strict=True
            )
        ]

    def to_json(self) -> dict[str, Any]:
        """The entry of this photo in ``photos`` of the JSON that `report` makes."""
        return {
            "path": self.path,
            "width": self.width,
            "height": self.height,
            "quality": dict(self.quality),
            "detections": self.products(),
            "counts": self.counts,
        }


def count_photo(detector: Detector, image: np.ndarray, path: str = "") -> CountedPhoto:
    """Count one photo that is already read.

    Args:
        detector: Any detector; large photos are tiled for it.
        image: (height, width, 3) uint8 RGB, upright.
        path: For the reader of the result.
    """
    found = detect_tiled(detector, image)
    height, width = image.shape[:2]
    return CountedPhoto(path, width, height, found, rows(found.boxes), detector.spec.classes, quality(image))


def count(
    detector: Detector, paths: Iterable[Path | str], on_error: Callable[[Dropped], None] | None = None
) -> tuple[list[CountedPhoto], list[Dropped]]:
    """Count photos one after the other; one that can't be read does not stop the others.

    Args:
        detector: Any detector.
        paths: Photos.
        on_error: Told of each photo that can't be read, when it happens.

    Returns:
        The counted photos, and those that could not be read with the reason; each in the order of `paths`.
    """
    counted, failed = [], []
    for path in paths:
        try:
            image = images.read_photo(path)
        except ShelfcountError as error:
            failed.append(Dropped(str(path), str(error)))
            if on_error is not None:
                on_error(failed[-1])
            continue
        counted.append(count_photo(detector, image, str(path)))
    return counted, failed


def quality(image: np.ndarray) -> dict[str, float]:
    """Sharpness and brightness of (height, width, 3) uint8 RGB, as `CountedPhoto.quality` has them."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    factor = (QUALITY_PIXELS / grey.size) ** 0.5
    size = max(round(grey.shape[1] * factor), 1), max(round(grey.shape[0] * factor), 1)
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    return {"sharpness": round(float(cv2.Laplacian(grey, cv2.CV_64F).var()), 2), "brightness": round(float(grey.mean()), 2)}


def report(photos: Sequence[CountedPhoto], bundle_name: str, bundle_sha256: str) -> dict[str, Any]:
    """What ``shelfcount count --json`` writes. Its schema is fixed; others script against it."""
    return {
        "bundle": {"name": bundle_name, "sha256": bundle_sha256},
        "photos": [photo.to_json() for photo in photos],
        "merged": None,
    }


def summary_rows(photos: Sequence[CountedPhoto]) -> list[tuple[str, int, int]]:
    """(class, products on all photos, photos that show it), most products first, then by name."""
    products: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for photo in photos:
        products.update(photo.counts)
        shown.update(photo.counts.keys())
    return sorted(((name, n, shown[name]) for name, n in products.items()), key=lambda row: (-row[1], row[0]))


def write_csv(path: Path | str, photos: Sequence[CountedPhoto]) -> None:
    """One line for each product, columns `CSV_COLUMNS`; boxes in pixels of the upright photo.

    A photo without products has no line. Text that a spreadsheet would run as a formula gets an
    apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for photo in photos:
        for item in photo.products():
            writer.writerow([_inert(photo.path), _inert(item["class"]), item["score"], *item["box"], item["row"], item["position"]])
    images.write_whole(path, text.getvalue())


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
