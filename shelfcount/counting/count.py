"""Counting from Python: `count` takes photos and a bundle and returns the products on them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelfcount.counting.results import ShelfCount, ShelfCounts, shelf_of_photo
from shelfcount.records import Detector, Dropped, Progress, ShelfcountError
from shelfcount.runtime.bundle import Bundle, LiteRTDetector
from shelfcount.runtime.photos import PhotoArray, load_photo, name_of, read_photos
from shelfcount.shelf.count import CountedPhoto, count_photo
from shelfcount.words import plural

PhotoLike = Path | str | NDArray[np.uint8]


def count(
    photos: PhotoLike | Sequence[PhotoLike],
    bundle: Bundle | Detector | Path | str,
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> ShelfCounts:
    """Count the products on photos.

    Args:
        photos: One or several photos, as paths or as upright (height, width, 3) uint8 RGB arrays.
            The pixels of photos given as paths are not kept in memory; the files are read again
            for pictures.
        bundle: Folder of a bundle, the name of a bundle that comes with the package, an opened
            bundle, or a detector.
        threads: Number of LiteRT interpreter threads. Ignored for a detector.
        progress: Called with (photos done, number of photos) after each photo.

    Returns:
        One `ShelfCount` per photo. Notebooks display it as a picture. `ShelfCounts.merge` merges
        overlapping photos to one shelf, and `ShelfCount.check_compliance` compares a shelf with a
        planogram.

    Raises:
        ShelfcountError: If the bundle cannot be used, an array is not a photo, or none of the
            photos can be read.
    """
    detector = (
        LiteRTDetector.open(bundle, threads) if isinstance(bundle, Bundle | Path | str) else bundle
    )
    inputs = [photos] if isinstance(photos, Path | str | np.ndarray) else list(photos)
    sources = [
        PhotoArray(f"photo {number}", photo) if isinstance(photo, np.ndarray) else photo
        for number, photo in enumerate(inputs, start=1)
    ]
    counted: list[CountedPhoto] = []
    shelves: list[ShelfCount] = []
    unread: list[Dropped] = []
    for source, image in read_photos(sources, unread.append, progress):
        counted.append(count_photo(detector, image, name_of(source)))
        shelves.append(shelf_of_photo(counted[-1], partial(load_photo, source)))
    if not counted:
        reasons = "".join(f"\n  {dropped}" for dropped in unread)
        raise ShelfcountError(
            f"no photo could be read, {plural(len(inputs), 'photo')} given. "
            f"Counting needs at least one.{reasons}"
        )
    return ShelfCounts(tuple(unread), tuple(shelves), tuple(counted), detector.spec.score_threshold)
