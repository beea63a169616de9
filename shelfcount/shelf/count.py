"""Photos to counts: every product's class, box, row and position, as records, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.records import Detections, Detector, Dropped, ShelfcountError
from shelfcount.runtime.tiling import detect_tiled
from shelfcount.shelf.facings import Arrangement, arrange
from shelfcount.shelf.photogate import Quality, judge
from shelfcount.shelf.rows import Placement, rows
from shelfcount.vision import boxes as box_math
from shelfcount.vision import images

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
        quality: Whether the photo is fit to be counted, and what to do where not.
    """

    path: str
    width: int
    height: int
    detections: Detections
    placement: Placement
    classes: tuple[str, ...]
    quality: Quality

    @property
    def counts(self) -> dict[str, int]:
        """Products of each class that is there, most frequent first."""
        return self.detections.counts(self.classes)

    @property
    def arrangement(self) -> Arrangement:
        """Facings, stacks, gaps and the front view; fitted anew at each call."""
        names = [self.classes[i] for i in self.detections.classes]
        return arrange(self.detections.boxes, names, self.placement, (self.width, self.height))

    def products(self) -> list[dict[str, Any]]:
        """One entry a product: class, score, box (x, y, width, height in pixels), row, position."""
        found = self.detections
        # Rounded as Python floats: a float32 would print all the digits of its binary value.
        boxes = [[round(float(v), 2) for v in box] for box in box_math.xyxy_to_xywh(found.boxes)]
        return [
            {
                "class": self.classes[c],
                "score": round(float(score), 4),
                "box": box,
                "row": int(row),
                "position": int(position),
            }
            for c, score, box, row, position in zip(
                found.classes,
                found.scores,
                boxes,
                self.placement.row,
                self.placement.position,
                strict=True,
            )
        ]

    def to_json(self) -> dict[str, Any]:
        """The entry of this photo in ``photos`` of the JSON that `report` makes."""
        return {
            "path": self.path,
            "width": self.width,
            "height": self.height,
            "quality": self.quality.to_json(),
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
    quality = judge(image, detector.spec, found.boxes)
    return CountedPhoto(
        path, width, height, found, rows(found.boxes), detector.spec.classes, quality
    )


def count(
    detector: Detector,
    paths: Iterable[Path | str],
    on_error: Callable[[Dropped], None] | None = None,
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
    return sorted(
        ((name, n, shown[name]) for name, n in products.items()), key=lambda row: (-row[1], row[0])
    )


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
            writer.writerow(
                [
                    _inert(photo.path),
                    _inert(item["class"]),
                    item["score"],
                    *item["box"],
                    item["row"],
                    item["position"],
                ]
            )
    images.write_whole(path, text.getvalue())


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
