"""Several photos of one shelf as one: every product once, from the photo that sees it best.

Photos are placed on the shelf's front by `registration`; what is merged are detections, never pixels. Two
detections of two photos are one product if they agree inside the part of the shelf that both photos show,
as for tiles in `runtime.tiling`; two detections of one photo never are.
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

# Overlap in the common part at which two detections are one product: of one class, and of two. A product that
# stands further back than the others moves against them from photo to photo.
SAME_CLASS_IOU = 0.3
OTHER_CLASS_IOU = 0.5
# A smaller part of a product says nothing about the whole.
LEAST_PART = 0.1
# A box is cut if it ends so near to the border, as a share of its side, and a piece of another that contains so much of it.
CUT_SHARE = 0.05
PIECE_SHARE = 0.8
# A photo that shows a place and reports nothing there scored it somewhere below the threshold: half of it, say. On 24
# drinks validation photos, each cut in three and counted by the int8 detector, products came to 105 % of those that
# stand there, and without this vote to 115 %; shares from 0 to 0.75 made no odds for the count error.
MISSED = 0.5


@dataclass(frozen=True, eq=False)
class MergedShelf:
    """Photos that fit together, and what stands on the shelf that they show.

    Attributes:
        photos: In the order they were given.
        views: What registration kept of each.
        fronts: (3, 3) float64 for each, from its units to the shelf's front.
        products: Each once; boxes on the front, in units of `photo_pairs`; scores of the photo it is best seen in.
        best: (n, 2) int64, for each product the photo it is best seen in and its detection there.
        seen_in: (n,) int64, in how many photos each was found.
        placement: Row and position of each product.
        reason: Why these photos are not on the first shelf; empty for the first.
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
        """(3, 3) float64 for each photo, from its pixels (continuous, pixel i covers [i, i + 1)) to the shelf's front."""
        return [front @ view.to_units for front, view in zip(self.fronts, self.views, strict=True)]

    @property
    def counts(self) -> dict[str, int]:
        """Products of each class, most frequent first."""
        return self.products.counts(self.photos[0].classes)

    def rows(self) -> list[list[str]]:
        """Class names of each row from left to right, the top row first."""
        order = np.lexsort((self.placement.position, self.placement.row))
        named: list[list[str]] = [[] for _ in range(self.placement.n_rows)]
        for i in order:
            named[self.placement.row[i]].append(self.photos[0].classes[self.products.classes[i]])
        return named

    def to_json(self) -> list[dict[str, Any]]:
        """One entry a product, as `CountedPhoto.products` has them, with its photo and in how many it was found."""
        entries = []
        of_photo = [photo.products() for photo in self.photos]
        for i, (photo, detection) in enumerate(self.best.tolist()):
            place = {"row": int(self.placement.row[i]), "position": int(self.placement.position[i])}
            name = self.photos[0].classes[self.products.classes[i]]
            where = {"photo": self.photos[photo].path, "seen_in": int(self.seen_in[i])}
            entries.append({**of_photo[photo][detection], "class": name, **place, **where})
        return entries


@dataclass(frozen=True, eq=False)
class Merged:
    """All photos that were given.

    Attributes:
        photos: All that were counted, in the order they were given.
        shelves: The shelf that most photos show first. The others could not be placed on it, and are counted apart.
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
        paths: At least one photo, at most `MOST_PHOTOS`, in any order, of one phone or several.
        on_error: Told of each photo that can't be read, when it happens.
        progress: Called with (photos done, photos in all); placing them takes a little longer.

    Raises:
        ShelfcountError: If there are too many photos, or none can be read.
    """
    paths = list(paths)
    if len(paths) > MOST_PHOTOS:
        raise ShelfcountError(
            f"at most {MOST_PHOTOS} photos are merged at once, got {len(paths)}. Merge them shelf by shelf."
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
            f"merging needs at least 1 photo that can be read, got {len(paths)} that cannot"
        )
    return merge(counted, views, detector.spec.score_threshold, unread)


def merge(
    photos: Sequence[CountedPhoto],
    views: Sequence[View],
    score_threshold: float,
    unread: Sequence[Dropped] = (),
) -> Merged:
    """Merge photos that are counted and looked at already.

    Args:
        photos: At least one.
        views: What `photo_pairs.look` kept of each.
        score_threshold: Of the detector.
        unread: Passed on.

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
    """What ``shelfcount merge --json`` writes: `count.report` with ``merged`` filled. Others script against it.

    ``merged`` holds ``counts``, ``detections`` (each product once: box in pixels of ``photo``, the one it is best
    seen in; ``seen_in``, how many photos it was found in; row and position on the whole shelf), ``rows`` (class names from left to
    right), ``placed`` (path and homography, row by row, from its pixels to the shelf's front), and ``unplaced``: photos
    with why they are not part of the above, and their own counts.
    """
    shelf, *others = merged.shelves
    apart = [
        {"photos": [p.path for p in other.photos], "reason": other.reason, "counts": other.counts}
        for other in others
    ]
    lost = [
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
            "unplaced": apart + lost,
        },
    }


# ---------------------------------------------------------------------------- one shelf


@dataclass(frozen=True, eq=False)
class _Seen:
    """All that the photos of a shelf report; index i of each array is detection i.

    Attributes:
        found: Detections of all photos, each with its box in units of its photo.
        photo: (n,) int64, the photo of each.
        index: (n,) int64, its number among the detections of that photo.
        cut: (n,) bool, the box ends at the border of its photo.
        views: Of the photos.
        onto: (photos, n, 4) float64, the box of each detection in units of each photo; NaN if that has nothing in
            common with its own.
        front: (n, 4) float64, the box of each on the shelf's front.
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
    """Photos of `group`, from here on numbered 0, 1 and so on."""
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
    nowhere = np.full((3, 3), np.nan)
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
                    [map_boxes(views[a].boxes, steps.get((a, b), nowhere)) for a in group]
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
    """(n,) int64, the same number for detections of one product."""
    product = np.arange(len(seen.found))
    showing = [{int(photo)} for photo in seen.photo]
    pairs = [same for a, b in combinations(range(len(seen.views)), 2) for same in _same(seen, a, b)]
    for _, i, j in sorted(pairs, reverse=True):
        kept, dropped = product[i], product[j]
        if kept != dropped and not showing[kept] & showing[dropped]:
            product[product == dropped] = kept
            showing[kept] |= showing[dropped]
    # A piece too thin to resemble what another photo shows of the product still lies inside it.
    for piece in np.flatnonzero(seen.cut):
        others = np.flatnonzero(~seen.cut & (seen.photo != seen.photo[piece]))
        if len(others) and (product == product[piece]).sum() == 1:
            inside = _shares_inside(seen.onto[seen.photo[others], piece], seen.found.boxes[others])
            if inside.max() > PIECE_SHARE:
                product[piece] = product[others[inside.argmax()]]
    return product


def _same(seen: _Seen, a: int, b: int) -> Iterator[tuple[float, int, int]]:
    """Detections of photos a and b that may be one product: how sure it is, and the numbers of the two."""
    in_a, in_b = np.flatnonzero(seen.photo == a), np.flatnonzero(seen.photo == b)
    # The part of each that the other photo shows too: of a's in units of b, and of b's in units of a.
    whole_a, whole_b = seen.onto[b, in_a], seen.onto[a, in_b]
    part_a, part_b = _within(whole_a, seen.views[b]), _within(whole_b, seen.views[a])
    enough = [
        box_math.area(part) > LEAST_PART * box_math.area(whole)
        for part, whole in ((part_a, whole_a), (part_b, whole_b))
    ]
    overlap = box_math.iou(part_a, _same_part(part_b, whole_b, seen.found.boxes[in_b]))
    alike = seen.found.classes[in_a][:, None] == seen.found.classes[in_b][None]
    # What one class needs less than two, it has ahead of them.
    sureness = overlap + alike * (OTHER_CLASS_IOU - SAME_CLASS_IOU)
    for i, j in np.argwhere((sureness > OTHER_CLASS_IOU) & enough[0][:, None] & enough[1][None]):
        yield float(sureness[i, j]), int(in_a[i]), int(in_b[j])


def _same_part(parts: np.ndarray, wholes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The part of each box that is to the box as `parts` are to `wholes`: (n, 4) each."""
    size = np.tile(np.maximum(wholes[:, 2:] - wholes[:, :2], 1e-9), 2)
    return np.tile(boxes[:, :2], 2) + (parts - np.tile(wholes[:, :2], 2)) / size * np.tile(
        boxes[:, 2:] - boxes[:, :2], 2
    )


def _shares_inside(pieces: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n,) share of each piece that lies inside its box; 0 where the piece can't be."""
    common = np.concatenate(
        [np.maximum(pieces[:, :2], boxes[:, :2]), np.minimum(pieces[:, 2:], boxes[:, 2:])], axis=1
    )
    return np.nan_to_num(box_math.area(common) / np.maximum(box_math.area(pieces), 1e-9))


def _within(boxes: np.ndarray, view: View) -> np.ndarray:
    return np.clip(boxes, *(sign * np.tile(view.half, 2) for sign in (-1, 1)))


def _elect(seen: _Seen, members: np.ndarray) -> int:
    """The class that detections of one product give the most score; those that saw it whole, if any, choose."""
    voters = members[~seen.cut[members]] if not seen.cut[members].all() else members
    return int(np.bincount(seen.found.classes[voters], seen.found.scores[voters]).argmax())


def _best(seen: _Seen, members: np.ndarray, elected: int) -> int:
    """The detection that sees a product best: whole, then of its class, then with the best score; of pieces the largest."""
    if seen.cut[members].all():
        return int(members[box_math.area(seen.front[members]).argmax()])
    order = np.lexsort(
        (seen.found.scores[members], seen.found.classes[members] == elected, ~seen.cut[members])
    )
    return int(members[order[-1]])


def _front_box(seen: _Seen, members: np.ndarray, best: int) -> np.ndarray:
    """(4,) xyxy on the front; around all pieces of a product that no photo shows whole."""
    if not seen.cut[best]:
        return seen.front[best]
    return np.concatenate(
        [seen.front[members, :2].min(axis=0), seen.front[members, 2:].max(axis=0)]
    )


def _believed(
    seen: _Seen, members: Sequence[np.ndarray], best: np.ndarray, score_threshold: float
) -> np.ndarray:
    """(n,) bool: the photos that show a product's place whole give it, on average, at least the threshold.

    Without it every further photo would add its false alarms to the count, while what it misses is found by others.
    """
    score = np.full((len(members), len(seen.views)), -1.0)
    for row, found in zip(score, members, strict=True):
        np.maximum.at(row, seen.photo[found], seen.found.scores[found])
    for column, view in enumerate(seen.views):
        there = seen.onto[column, best]
        missed = (_within(there, view) == there).all(axis=1) & (score[:, column] < 0)
        score[missed, column] = MISSED * score_threshold
    showing = score >= 0
    return np.where(showing, score, 0).sum(axis=1) >= (score_threshold - 1e-6) * showing.sum(axis=1)


def _reason(
    photos: Sequence[CountedPhoto], registration: Registration, members: Sequence[int]
) -> str:
    """Why these photos are not on the first shelf."""
    links = [
        link
        for i in members
        if (link := registration.best_link(i, registration.groups[0])) is not None
    ]
    if not links:
        return "too few points were found to compare it with the others. Take it again, sharp and with more overlap."
    link = max(links, key=lambda link: link.score)
    other = photos[link.a if link.b in members else link.b].path
    return (
        f"it fits best on '{other}', and there {link.covered} of {link.squares} squares and {link.agreeing} of {link.products} "
        f"products agree: a score of {link.score:.2f}, and {LEAST_SCORE} is needed. Take a photo between the two."
    )
