"""Merging of several photos of one shelf: each product once, from the photo with the best view.

`registration` maps the photos to the front of the shelf. Only detections are merged, not pixels.
Detections of two photos are one product if they agree inside the part of the shelf that both photos
show, as for tiles in `runtime.tiling`. Two detections of one photo are never one product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.records import Detections, Detector, Dropped, ShelfcountError
from shelfcount.shelf.count import CountedPhoto, count_photo
from shelfcount.shelf.count import report as report_counts
from shelfcount.shelf.photo_pairs import LEAST_SCORE, View, look, map_boxes
from shelfcount.shelf.registration import MOST_PHOTOS, Registration, register
from shelfcount.shelf.rows import Placement, rows
from shelfcount.vision import boxes as box_math
from shelfcount.vision import images

# Minimum IoU in the common part for two detections to be one product, if they have the same class
# and if they do not. Products at the back of the board shift against the others from photo to
# photo.
SAME_CLASS_IOU = 0.3
OTHER_CLASS_IOU = 0.5
# Minimum share of a product that the common part must contain for a comparison.
LEAST_PART = 0.1
# A box is cut if it ends this close to the border, as a share of its side. It is a piece of another
# box that contains at least this share of its area.
CUT_SHARE = 0.05
PIECE_SHARE = 0.8
# A photo that shows the position of a product but does not detect it gets this share of the score
# threshold as its score. On 24 drinks validation photos, each cut in three and counted by the int8
# detector, the merged count was 105 % of the labelled products, and 115 % without this vote. Shares
# from 0 to 0.75 made no difference to the count error.
MISSED = 0.5


@dataclass(frozen=True, eq=False)
class MergedShelf:
    """Photos of one shelf and the products on it.

    Attributes:
        photos: Photos in the order they were given.
        views: Registration data of each photo.
        fronts: (3, 3) float64 for each photo, from its units to the front of the shelf.
        products: Each product once; boxes on the front, in units of `photo_pairs`; scores of the
            photo with the best view.
        best: (n, 2) int64, for each product the photo with the best view and its detection there.
        seen_in: (n,) int64, number of photos in which each product was detected.
        placement: Row and position of each product.
        reason: Reason why these photos are not part of the first shelf; empty for the first shelf.
    """

    photos: tuple[CountedPhoto, ...]
    views: tuple[View, ...]
    fronts: tuple[np.ndarray, ...]
    products: Detections
    best: np.ndarray
    seen_in: np.ndarray
    placement: Placement
    reason: str

    @property
    def homographies(self) -> list[np.ndarray]:
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
        order = np.lexsort((self.placement.position, self.placement.row))
        named: list[list[str]] = [[] for _ in range(self.placement.n_rows)]
        for i in order:
            named[self.placement.row[i]].append(self.photos[0].classes[self.products.classes[i]])
        return named

    def to_json(self) -> list[dict[str, Any]]:
        """Return one entry per product.

        It is the entry of `CountedPhoto.products`, with the path of the photo and the number of
        photos
        in which the product was detected.
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
    progress: Callable[[int, int], None] | None = None,
) -> Merged:
    """Count the products on several photos of one shelf, each once.

    Args:
        detector: Any detector; large photos are tiled for it.
        paths: Paths of 1 to `MOST_PHOTOS` photos in any order, of one phone or several.
        on_error: Function that is called for each photo that cannot be read, at once.
        progress: Function that is called with (photos done, all photos). The merge follows after
            the last call.

    Raises:
        ShelfcountError: If there are too many photos, or none can be read.
    """
    paths = list(paths)
    if len(paths) > MOST_PHOTOS:
        raise ShelfcountError(
            f"at most {MOST_PHOTOS} photos can be merged at once, got {len(paths)}. "
            "Merge them shelf by shelf."
        )
    counted, views, unread = [], [], []
    for done, path in enumerate(paths, start=1):
        try:
            image = images.read_photo(path)
        except ShelfcountError as error:
            unread.append(Dropped(str(path), str(error)))
            if on_error is not None:
                on_error(unread[-1])
        else:
            counted.append(count_photo(detector, image, str(path)))
            views.append(look(image, counted[-1].detections))
        if progress is not None:
            progress(done, len(paths))
    if not counted:
        raise ShelfcountError(
            f"none of the {len(paths)} photos could be read. Merging needs at least one."
        )
    return merge(counted, views, detector.spec.score_threshold, unread)


def merge(
    photos: Sequence[CountedPhoto],
    views: Sequence[View],
    score_threshold: float,
    unread: Sequence[Dropped] = (),
) -> Merged:
    """Merge counted photos.

    Args:
        photos: At least one counted photo.
        views: Registration data of each photo, see `photo_pairs.look`.
        score_threshold: Score threshold of the detector.
        unread: Photos that could not be read, for the result.

    Raises:
        ShelfcountError: If there are more than `MOST_PHOTOS`.
    """
    registration = register(views)
    shelves = []
    for number, group in enumerate(registration.groups):
        members = sorted(group)
        reason = _reason(photos, registration, members) if number else ""
        shelves.append(_merge_shelf(members, photos, views, registration, score_threshold, reason))
    return Merged(tuple(photos), tuple(shelves), tuple(unread))


def report(merged: Merged, bundle_name: str, bundle_sha256: str) -> dict[str, Any]:
    """Return the content of ``shelfcount merge --json``. Its schema must not change.

    It is the content of `count.report` with these fields in ``merged``:

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


# ---------------------------------------------------------------------------- one shelf


@dataclass(frozen=True, eq=False)
class _Seen:
    """Detections of all photos of a shelf; index i of each array is detection i.

    Attributes:
        found: Detections of all photos, each with its box in units of its photo.
        photo: (n,) int64, photo of each detection.
        index: (n,) int64, index of each detection in its photo.
        cut: (n,) bool, whether the box ends at the border of its photo.
        views: Registration data of the photos.
        onto: (photos, n, 4) float64, box of each detection in units of each photo; NaN if the two
            photos show no common part of the shelf.
        front: (n, 4) float64, box of each detection on the front of the shelf.
    """

    found: Detections
    photo: np.ndarray
    index: np.ndarray
    cut: np.ndarray
    views: tuple[View, ...]
    onto: np.ndarray
    front: np.ndarray


def _see(
    group: Sequence[int],
    photos: Sequence[CountedPhoto],
    views: Sequence[View],
    registration: Registration,
) -> _Seen:
    """Collect the detections of the photos of `group`, which are renumbered from 0 on."""
    looks = [views[photo] for photo in group]
    cuts = []
    for view in looks:
        frame = np.concatenate([-view.half, view.half])
        cuts.append(
            (
                np.abs(view.boxes - frame)
                < CUT_SHARE * np.tile(view.boxes[:, 2:] - view.boxes[:, :2], 2)
            ).any(axis=1)
        )
    lengths = [len(view.boxes) for view in looks]
    steps = {(photo, photo): np.eye(3) for photo in group} | dict(registration.steps)
    steps |= {(b, a): np.linalg.inv(step) for (a, b), step in registration.steps.items()}
    unknown = np.full((3, 3), np.nan)
    return _Seen(
        Detections.concat(
            [
                photos[photo].detections.replace(boxes=view.boxes)
                for photo, view in zip(group, looks, strict=True)
            ]
        ),
        np.repeat(np.arange(len(group)), lengths),
        np.concatenate([np.arange(length) for length in lengths]),
        np.concatenate(cuts),
        tuple(looks),
        np.array(
            [
                np.concatenate(
                    [map_boxes(views[a].boxes, steps.get((a, b), unknown)) for a in group]
                )
                for b in group
            ]
        ),
        np.concatenate(
            [map_boxes(views[photo].boxes, registration.fronts[photo]) for photo in group]
        ),
    )


def _merge_shelf(
    group: Sequence[int],
    photos: Sequence[CountedPhoto],
    views: Sequence[View],
    registration: Registration,
    score_threshold: float,
    reason: str,
) -> MergedShelf:
    seen = _see(group, photos, views, registration)
    product = _products(seen)
    members = [np.flatnonzero(product == number) for number in np.unique(product)]
    classes = np.array([_elect(seen, m) for m in members], np.int64)
    best = np.array([_best(seen, m, c) for m, c in zip(members, classes, strict=True)], np.int64)
    kept = np.flatnonzero(_believed(seen, members, best, score_threshold))
    kept = kept[np.argsort(-seen.found.scores[best[kept]], kind="stable")]
    best = best[kept]
    boxes = np.array(
        [_front_box(seen, members[i], b) for i, b in zip(kept, best, strict=True)]
    ).reshape(-1, 4)
    return MergedShelf(
        tuple(photos[i] for i in group),
        seen.views,
        tuple(registration.fronts[i] for i in group),
        Detections(boxes, classes[kept], seen.found.scores[best]),
        np.stack([seen.photo[best], seen.index[best]], axis=1),
        np.array([len(np.unique(seen.photo[members[i]])) for i in kept], np.int64),
        rows(boxes),
        reason,
    )


def _products(seen: _Seen) -> np.ndarray:
    """Return (n,) int64 numbers that are equal for detections of one product."""
    product = np.arange(len(seen.found))
    showing = [{int(photo)} for photo in seen.photo]
    pairs = [same for a, b in combinations(range(len(seen.views)), 2) for same in _same(seen, a, b)]
    for _, i, j in sorted(pairs, reverse=True):
        kept, dropped = product[i], product[j]
        if kept != dropped and not showing[kept] & showing[dropped]:
            product[product == dropped] = kept
            showing[kept] |= showing[dropped]
    # A piece that is too thin to agree with another photo's box is inside that box.
    for piece in np.flatnonzero(seen.cut):
        others = np.flatnonzero(~seen.cut & (seen.photo != seen.photo[piece]))
        if len(others) and (product == product[piece]).sum() == 1:
            inside = _shares_inside(seen.onto[seen.photo[others], piece], seen.found.boxes[others])
            if inside.max() > PIECE_SHARE:
                product[piece] = product[others[inside.argmax()]]
    return product


def _same(seen: _Seen, a: int, b: int) -> Iterator[tuple[float, int, int]]:
    """Yield detections of photos a and b that may be one product.

    Yields:
        Their IoU in the common part, increased for equal classes, and the indices of the two.
    """
    in_a, in_b = np.flatnonzero(seen.photo == a), np.flatnonzero(seen.photo == b)
    # The part of each box that the other photo shows too: boxes of a in units of b, and boxes of b
    # in units of a.
    mapped_a, mapped_b = seen.onto[b, in_a], seen.onto[a, in_b]
    part_a, part_b = _within(mapped_a, seen.views[b]), _within(mapped_b, seen.views[a])
    enough = [
        box_math.area(part) > LEAST_PART * box_math.area(whole)
        for part, whole in ((part_a, mapped_a), (part_b, mapped_b))
    ]
    overlap = box_math.iou(part_a, _same_part(part_b, mapped_b, seen.found.boxes[in_b]))
    alike = seen.found.classes[in_a][:, None] == seen.found.classes[in_b][None]
    # Equal classes get a bonus: the difference between the two thresholds.
    agreement = overlap + alike * (OTHER_CLASS_IOU - SAME_CLASS_IOU)
    for i, j in np.argwhere((agreement > OTHER_CLASS_IOU) & enough[0][:, None] & enough[1][None]):
        yield float(agreement[i, j]), int(in_a[i]), int(in_b[j])


def _same_part(parts: np.ndarray, wholes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the part of each box that corresponds to `parts` of `wholes`; all are (n, 4)."""
    size = np.tile(np.maximum(wholes[:, 2:] - wholes[:, :2], 1e-9), 2)
    return np.tile(boxes[:, :2], 2) + (parts - np.tile(wholes[:, :2], 2)) / size * np.tile(
        boxes[:, 2:] - boxes[:, :2], 2
    )


def _shares_inside(pieces: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the (n,) share of each piece's area in its box; 0 if the piece is NaN."""
    common = np.concatenate(
        [np.maximum(pieces[:, :2], boxes[:, :2]), np.minimum(pieces[:, 2:], boxes[:, 2:])], axis=1
    )
    return np.nan_to_num(box_math.area(common) / np.maximum(box_math.area(pieces), 1e-9))


def _within(boxes: np.ndarray, view: View) -> np.ndarray:
    return np.clip(boxes, *(sign * np.tile(view.half, 2) for sign in (-1, 1)))


def _elect(seen: _Seen, members: np.ndarray) -> int:
    """Return the class with the highest sum of scores among the detections of one product.

    Cut detections are left out if another detection is complete.
    """
    voters = members[~seen.cut[members]] if not seen.cut[members].all() else members
    return int(np.bincount(seen.found.classes[voters], seen.found.scores[voters]).argmax())


def _best(seen: _Seen, members: np.ndarray, elected: int) -> int:
    """Return the detection with the best view of a product.

    Complete detections are preferred, then those of the elected class, then the highest score. If
    all detections are cut, it is the largest.
    """
    if seen.cut[members].all():
        return int(members[box_math.area(seen.front[members]).argmax()])
    order = np.lexsort(
        (seen.found.scores[members], seen.found.classes[members] == elected, ~seen.cut[members])
    )
    return int(members[order[-1]])


def _front_box(seen: _Seen, members: np.ndarray, best: int) -> np.ndarray:
    """Return the (4,) xyxy box of a product on the front.

    It encloses all pieces if no photo shows the product completely.
    """
    if not seen.cut[best]:
        return seen.front[best]
    return np.concatenate(
        [seen.front[members, :2].min(axis=0), seen.front[members, 2:].max(axis=0)]
    )


def _believed(
    seen: _Seen, members: Sequence[np.ndarray], best: np.ndarray, score_threshold: float
) -> np.ndarray:
    """Return (n,) bool: whether the mean score of a product is at least the score threshold.

    The mean is over all photos that detect the product or show its position completely. Without
    this vote, each further photo would add its false positives to the count, while other photos
    make up for its false negatives.
    """
    score = np.full((len(members), len(seen.views)), -1.0)
    for row, detections in zip(score, members, strict=True):
        np.maximum.at(row, seen.photo[detections], seen.found.scores[detections])
    for column, view in enumerate(seen.views):
        mapped = seen.onto[column, best]
        missed = (_within(mapped, view) == mapped).all(axis=1) & (score[:, column] < 0)
        score[missed, column] = MISSED * score_threshold
    voting = score >= 0
    return np.where(voting, score, 0).sum(axis=1) >= (score_threshold - 1e-6) * voting.sum(axis=1)


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
        f"below the required {LEAST_SCORE}. Take a photo between the two."
    )
