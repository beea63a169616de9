"""Product counts of photos, with class, box, row and position, as records, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount import files
from shelfcount.records import Detections, Detector, Dropped, Progress
from shelfcount.runtime.inference import detect_tiled
from shelfcount.runtime.photos import PhotoSource, name_of, read_photos
from shelfcount.shelf.facings import Arrangement, arrange
from shelfcount.shelf.photo_gate import Quality, check_photo
from shelfcount.shelf.rows import Placement, assign_rows
from shelfcount.vision import boxes as box_math

CSV_COLUMNS = ("photo", "class", "score", "x", "y", "w", "h", "row", "position")
# Spreadsheets run a cell that begins with one of these as a formula:
# owasp.org/www-community/attacks/CSV_Injection.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, eq=False)
class CountedPhoto:
    """Products on one photo.

    Attributes:
        path: Path of the photo as the caller gave it.
        width, height: Size of the upright photo in pixels.
        detections: The products, highest score first.
        placement: Row and position of each product.
        classes: Class names that `detections.classes` are indices into.
        quality: Result of the quality check, with advice if it failed.
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
        """Number of products of each detected class, most frequent first."""
        return self.detections.counts(self.classes)

    @cached_property
    def arrangement(self) -> Arrangement:
        """Facings, stacks, gaps and the front view; computed at the first access."""
        names = [self.classes[i] for i in self.detections.classes]
        return arrange(self.detections.boxes, names, self.placement, (self.width, self.height))

    def products(self) -> list[dict[str, Any]]:
        """Return one entry per product: class, score, box, row and position.

        Boxes are (x, y, width, height) in pixels of the upright photo.
        """
        detections = self.detections
        # Rounded as Python floats: JSON would show all digits of the binary value of a float32.
        boxes = [
            [round(float(v), 2) for v in box] for box in box_math.xyxy_to_xywh(detections.boxes)
        ]
        return [
            {
                "class": self.classes[c],
                "score": round(float(score), 4),
                "box": box,
                "row": int(row),
                "position": int(position),
            }
            for c, score, box, row, position in zip(
                detections.classes,
                detections.scores,
                boxes,
                self.placement.row,
                self.placement.position,
                strict=True,
            )
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of this photo in ``photos`` of `count_json`."""
        return {
            "path": self.path,
            "width": self.width,
            "height": self.height,
            "quality": self.quality.to_json(),
            "detections": self.products(),
            "counts": self.counts,
        }


def count_photo(detector: Detector, image: NDArray[np.uint8], path: str = "") -> CountedPhoto:
    """Count the products on a photo in memory.

    Args:
        detector: Any detector; large photos are tiled for it.
        image: (height, width, 3) uint8 RGB, upright.
        path: Path of the photo, for the result.
    """
    detections = detect_tiled(detector, image)
    height, width = image.shape[:2]
    quality = check_photo(image, detector.spec, detections.boxes)
    return CountedPhoto(
        path,
        width,
        height,
        detections,
        assign_rows(detections.boxes),
        detector.spec.classes,
        quality,
    )


def count_each(
    detector: Detector,
    photos: Iterable[PhotoSource],
    on_error: Callable[[Dropped], None] | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[CountedPhoto, NDArray[np.uint8]]]:
    """Count the products on photos one by one; one photo at a time is in memory.

    Args:
        detector: Any detector; large photos are tiled for it.
        photos: Paths, labelled photos or photos in memory.
        on_error: Called with each photo that cannot be read, which is then skipped. Default: the
            first such photo ends the loop with an error.
        progress: Called with (photos done, number of photos) after each photo.

    Yields:
        Each counted photo, and its (height, width, 3) uint8 RGB pixels, upright.

    Raises:
        ShelfcountError: If a photo cannot be read and `on_error` is None.
    """
    for photo, image in read_photos(photos, on_error, progress):
        yield count_photo(detector, image, name_of(photo)), image


def count_json(
    photos: Sequence[CountedPhoto], bundle_name: str, bundle_sha256: str
) -> dict[str, Any]:
    """Return the content of ``shelfcount count --json``. Its schema must not change.

    Args:
        photos: Counted photos.
        bundle_name: Name of the bundle.
        bundle_sha256: sha256 of the bundle.
    """
    return {
        "bundle": {"name": bundle_name, "sha256": bundle_sha256},
        "photos": [photo.to_json() for photo in photos],
        "merged": None,
    }


def summary_rows(photos: Sequence[CountedPhoto]) -> list[tuple[str, int, int]]:
    """Return (class, number of products, number of photos with the class) for each class.

    The class with most products is first; classes with equal numbers are sorted by name.
    """
    products: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for photo in photos:
        products.update(photo.counts)
        shown.update(photo.counts.keys())
    return sorted(
        ((name, n, shown[name]) for name, n in products.items()), key=lambda row: (-row[1], row[0])
    )


def write_csv(path: Path | str, photos: Sequence[CountedPhoto]) -> None:
    """Write a CSV file with one line per product and the columns `CSV_COLUMNS`.

    Boxes are in pixels of the upright photo. A photo without products has no line. Text that a
    spreadsheet would run as a formula gets a leading apostrophe.
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
    files.write_whole(path, text.getvalue())


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
