"""Counting from Python: `count` takes photos and a bundle and returns the products on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from shelfcount.counting.results import ShelfCount, ShelfCounts
from shelfcount.records import Detector, Dropped, ShelfcountError
from shelfcount.runtime.bundle import Bundle, LiteRTDetector
from shelfcount.shelf.count import CountedPhoto, count_photo
from shelfcount.vision.images import read_photo
from shelfcount.words import plural

PhotoLike = Path | str | np.ndarray


def count(
    photos: PhotoLike | Sequence[PhotoLike],
    bundle: Bundle | Detector | Path | str,
    *,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
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
        overlapping photos to one shelf, and `ShelfCount.judge` compares a shelf with a planogram.

    Raises:
        ShelfcountError: If the bundle cannot be used, an array is not a photo, or none of the
            photos can be read.
    """
    detector = (
        LiteRTDetector.open(bundle, threads) if isinstance(bundle, Bundle | Path | str) else bundle
    )
    inputs = [photos] if isinstance(photos, Path | str | np.ndarray) else list(photos)
    counted, shelves, unread = [], [], []
    for number, photo in enumerate(inputs, start=1):
        name = f"photo {number}" if isinstance(photo, np.ndarray) else str(photo)
        load = _loader(photo)
        try:
            image = load()
        except ShelfcountError as error:
            unread.append(Dropped(name, str(error)))
        else:
            counted.append(count_photo(detector, image, name))
            shelves.append(_of_photo(counted[-1], load))
        if progress is not None:
            progress(number, len(inputs))
    if not counted:
        reasons = "".join(f"\n  {dropped}" for dropped in unread)
        raise ShelfcountError(
            f"no photo could be read, {plural(len(inputs), 'photo')} given. "
            f"Counting needs at least one.{reasons}"
        )
    return ShelfCounts(tuple(unread), tuple(shelves), tuple(counted), detector.spec.score_threshold)


def _of_photo(photo: CountedPhoto, load: Callable[[], np.ndarray]) -> ShelfCount:
    placed, entries = ((photo.path, np.eye(3)),), tuple(photo.products())
    return ShelfCount(
        photo.path,
        photo.detections,
        photo.placement,
        photo.classes,
        photo.arrangement,
        placed,
        (),
        tuple(photo.quality.advice),
        entries,
        load,
    )


def _loader(photo: PhotoLike) -> Callable[[], np.ndarray]:
    if not isinstance(photo, np.ndarray):
        return lambda: read_photo(photo)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ShelfcountError(
            f"a photo array must be (height, width, 3) uint8 RGB, got {photo.shape} {photo.dtype}"
        )
    return lambda: photo
