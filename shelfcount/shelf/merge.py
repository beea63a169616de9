"""Merging of several photos of one shelf: each product is counted once, in the photo that shows
it best.

`registration` places the photos on the shelf's front; detections are merged, never pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections, Detector, Dropped, Progress, ShelfcountError
from shelfcount.shelf.count import CountedPhoto, count_each
from shelfcount.shelf.count import count_json as report_counts
from shelfcount.shelf.photo_features import PhotoFeatures, extract_features
from shelfcount.shelf.photo_pairs import MIN_SCORE
from shelfcount.shelf.registration import MAX_MERGED_PHOTOS, Registration, register
from shelfcount.shelf.rows import Placement, assign_rows
from shelfcount.shelf.shared_products import (
    believed_products,
    best_detection,
    elect_class,
    gather_detections,
    group_detections,
    product_front_box,
)
from shelfcount.words import plural


@dataclass(frozen=True, eq=False)
class MergedShelf:
    """Photos of one shelf and the products on it.

    Attributes:
        photos: Photos in the order they were given.
        views: Registration data of each photo.
        fronts: (3, 3) float64 for each photo, from its units to the front of the shelf.
        products: Each product once; boxes on the front, in units of `photo_features`; scores of the
            photo with the best view.
        best: (n, 2) int64, for each product the photo with the best view and its detection there.
        seen_in: (n,) int64, number of photos in which each product was detected.
        placement: Row and position of each product.
        reason: Reason why these photos are not part of the first shelf; empty for the first shelf.
    """

    photos: tuple[CountedPhoto, ...]
    views: tuple[PhotoFeatures, ...]
    fronts: tuple[NDArray[np.float64], ...]
    products: Detections
    best: NDArray[np.int64]
    seen_in: NDArray[np.int64]
    placement: Placement
    reason: str

    @property
    def homographies(self) -> list[NDArray[np.float64]]:
        """(3, 3) float64 for each photo, from its pixels to the front of the shelf.

        Pixels are continuous: pixel i covers [i, i + 1).
        """
        return [front @ view.to_units for front, view in zip(self.fronts, self.views, strict=True)]

    @property
    def counts(self) -> dict[str, int]:
        """Number of products of each class, most frequent first."""
        return self.products.counts(self.photos[0].classes)

    def rows(self) -> list[list[str]]:
        """Return the class names of each row from left to right, the top row first."""
        classes = self.photos[0].classes
        return self.placement.by_row([classes[i] for i in self.products.classes])

    def to_json(self) -> list[dict[str, Any]]:
        """Return one entry per product.

        It is the entry of `CountedPhoto.products`, with the path of the photo and the number of
        photos in which the product was detected.
        """
        entries = []
        photo_products = [photo.products() for photo in self.photos]
        for i, (photo, detection) in enumerate(self.best.tolist()):
            place = {"row": int(self.placement.row[i]), "position": int(self.placement.position[i])}
            name = self.photos[0].classes[self.products.classes[i]]
            source = {"photo": self.photos[photo].path, "seen_in": int(self.seen_in[i])}
            entries.append({**photo_products[photo][detection], "class": name, **place, **source})
        return entries


@dataclass(frozen=True, eq=False)
class Merged:
    """Result of a merge.

    Attributes:
        photos: All counted photos, in the order they were given.
        shelves: The shelf with most photos first. The photos of the other shelves could not be
            mapped to it and are counted separately.
        unread: Photos that could not be read.
    """

    photos: tuple[CountedPhoto, ...]
    shelves: tuple[MergedShelf, ...]
    unread: tuple[Dropped, ...] = ()


def merge_photos(
    detector: Detector,
    paths: Iterable[Path | str],
    on_error: Callable[[Dropped], None] | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Count the products on several photos of one shelf, each once.

    Args:
        detector: Any detector; large photos are tiled for it.
        paths: Paths of 1 to `MAX_MERGED_PHOTOS` photos in any order, of one phone or several.
        on_error: Function that is called for each photo that cannot be read, at once.
        progress: Function that is called with (photos done, all photos). The merge follows after
            the last call.

    Raises:
        ShelfcountError: If there are too many photos, or none can be read.
    """
    paths = list(paths)
    if len(paths) > MAX_MERGED_PHOTOS:
        raise ShelfcountError(
            f"at most {MAX_MERGED_PHOTOS} photos can be merged at once, got {len(paths)}. "
            "Merge them shelf by shelf."
        )
    unread: list[Dropped] = []

    def fail(dropped: Dropped) -> None:
        unread.append(dropped)
        if on_error is not None:
            on_error(dropped)

    counted, views = [], []
    for photo, image in count_each(detector, paths, fail, progress):
        counted.append(photo)
        views.append(extract_features(image, photo.detections))
    if not counted:
        raise ShelfcountError(
            f"no photo could be read, {plural(len(paths), 'photo')} given. Merging needs at least "
            "one."
        )
    return merge_counted(counted, views, detector.spec.score_threshold, unread)


def merge_counted(
    photos: Sequence[CountedPhoto],
    views: Sequence[PhotoFeatures],
    score_threshold: float,
    unread: Sequence[Dropped] = (),
) -> Merged:
    """Merge counted photos.

    Args:
        photos: At least one counted photo.
        views: Registration data of each photo, see `photo_features.extract_features`.
        score_threshold: Score threshold of the detector.
        unread: Photos that could not be read, for the result.

    Raises:
        ShelfcountError: If there are more than `MAX_MERGED_PHOTOS`.
    """
    registration = register(views)
    shelves = []
    for number, group in enumerate(registration.groups):
        members = sorted(group)
        reason = _reason(photos, registration, members) if number else ""
        shelves.append(_merge_shelf(members, photos, views, registration, score_threshold, reason))
    return Merged(tuple(photos), tuple(shelves), tuple(unread))


def merge_json(merged: Merged, bundle_name: str, bundle_sha256: str) -> dict[str, Any]:
    """Return the content of ``shelfcount merge --json``. Its schema must not change.

    It is the content of `count_json` with these fields in ``merged``:

    * ``counts``: number of products of each class.
    * ``detections``: each product once, with its box in pixels of ``photo``, the photo with the
      best view; ``seen_in``, the number of photos in which it was detected; row and position on the
      whole shelf.
    * ``rows``: class names from left to right.
    * ``placed``: path and homography (row by row, from pixels to the front of the shelf) of the
      merged photos.
    * ``unplaced``: photos that are not part of the above, with the reason and their own counts.

    Args:
        merged: Result of the merge.
        bundle_name: Name of the bundle.
        bundle_sha256: sha256 of the bundle.
    """
    shelf, *others = merged.shelves
    separate = [
        {"photos": [p.path for p in other.photos], "reason": other.reason, "counts": other.counts}
        for other in others
    ]
    unread = [
        {"photos": [dropped.where], "reason": dropped.reason, "counts": {}}
        for dropped in merged.unread
    ]
    placed = [
        {"path": p.path, "homography": h.tolist()}
        for p, h in zip(shelf.photos, shelf.homographies, strict=True)
    ]
    return {
        **report_counts(merged.photos, bundle_name, bundle_sha256),
        "merged": {
            "counts": shelf.counts,
            "detections": shelf.to_json(),
            "rows": shelf.rows(),
            "placed": placed,
            "unplaced": separate + unread,
        },
    }


def _merge_shelf(
    group: Sequence[int],
    photos: Sequence[CountedPhoto],
    views: Sequence[PhotoFeatures],
    registration: Registration,
    score_threshold: float,
    reason: str,
) -> MergedShelf:
    shelf = gather_detections(group, photos, views, registration)
    product = group_detections(shelf)
    members = [np.flatnonzero(product == number) for number in np.unique(product)]
    classes = np.array([elect_class(shelf, m) for m in members], np.int64)
    best = np.array(
        [best_detection(shelf, m, c) for m, c in zip(members, classes, strict=True)], np.int64
    )
    kept = np.flatnonzero(believed_products(shelf, members, best, score_threshold))
    kept = kept[np.argsort(-shelf.detections.scores[best[kept]], kind="stable")]
    best = best[kept]
    boxes = np.array(
        [product_front_box(shelf, members[i], b) for i, b in zip(kept, best, strict=True)]
    ).reshape(-1, 4)
    return MergedShelf(
        tuple(photos[i] for i in group),
        shelf.views,
        tuple(registration.fronts[i] for i in group),
        Detections(boxes, classes[kept], shelf.detections.scores[best]),
        np.stack([shelf.photo[best], shelf.index[best]], axis=1),
        np.array([len(np.unique(shelf.photo[members[i]])) for i in kept], np.int64),
        assign_rows(boxes),
        reason,
    )


def _reason(
    photos: Sequence[CountedPhoto], registration: Registration, members: Sequence[int]
) -> str:
    """Return the reason why these photos are not part of the first shelf."""
    links = [
        link
        for i in members
        if (link := registration.best_link(i, registration.groups[0])) is not None
    ]
    if not links:
        return (
            "too few image features were found to compare it with the others. "
            "Take it again, in focus and with more overlap."
        )
    link = max(links, key=lambda link: link.score)
    other = photos[link.a if link.b in members else link.b].path
    return (
        f"its best match is '{other}': {link.covered} of {link.squares} squares and "
        f"{link.agreeing} of {link.products} products agree. The score of {link.score:.2f} is "
        f"below the required {MIN_SCORE}. Take a photo between the two."
    )
