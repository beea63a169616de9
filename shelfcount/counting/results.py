"""Results of counting: one photo or merged shelf, several photos, and planogram compliance.

Results print as text, show themselves as pictures in a notebook, and convert to tables.
"""

from __future__ import annotations

import html
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.counting.display import import_optional, preview_jpeg
from shelfcount.counting.plan_verdict import PlanVerdict
from shelfcount.drawing import pictures
from shelfcount.records import Detections, Dropped
from shelfcount.shelf import compliance
from shelfcount.shelf.count import CountedPhoto
from shelfcount.shelf.facings import Arrangement
from shelfcount.shelf.merge import Merged, MergedShelf, merge_counted
from shelfcount.shelf.panorama import arrange_merged, panorama, panorama_frame
from shelfcount.shelf.photo_features import extract_features
from shelfcount.shelf.planogram import Planogram, read_plan
from shelfcount.shelf.rows import Placement
from shelfcount.words import plural

# Maximum number of thumbnails for a list of photos, and their longest side in pixels.
MAX_THUMBNAILS, THUMBNAIL_SIDE = 6, 360


@dataclass(frozen=True, eq=False)
class ShelfCount:
    """Products counted on one photo, or on one shelf that several photos show.

    Attributes:
        name: Path of the photo, or the number of merged photos.
        detections: Detected products, highest score first; boxes in pixels of `image`.
        placement: Shelf row and position of each product.
        classes: Class names; `detections.classes` are indices into them.
        arrangement: Facings, stacks, gaps and the front view; boxes in pixels of `image`.
        placed: Counted photos, each with its (3, 3) homography from pixels of the photo to pixels
            of `image`.
        notes: Photos that are not included in the count, with the reason.
        advice: How to take a better photo, for photos that failed the quality check.
    """

    name: str
    detections: Detections
    placement: Placement
    classes: tuple[str, ...]
    arrangement: Arrangement
    placed: tuple[tuple[str, NDArray[np.float64]], ...]
    notes: tuple[str, ...]
    advice: tuple[str, ...]
    _entries: tuple[Mapping[str, Any], ...]
    _load: Callable[[], NDArray[np.uint8]]

    @property
    def counts(self) -> dict[str, int]:
        """Number of products by class name, most frequent first, without classes of no product."""
        return self.detections.counts(self.classes)

    @property
    def image(self) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 RGB: the upright photo, or the picture of the merged shelf.

        It is read or computed again on each access.
        """
        return self._load()

    def __len__(self) -> int:
        """Return the number of products."""
        return len(self.detections)

    def products(self) -> list[dict[str, Any]]:
        """Return one entry per product: class, score, box (x, y, width, height), row, position.

        Boxes are in pixels of the photo. For merged photos, they are in pixels of the entry's
        ``photo``, which shows the product best.
        """
        return [dict(entry) for entry in self._entries]

    def picture(self) -> NDArray[np.uint8]:
        """Draw boxes, rows and positions on `image`, with a legend of the counts.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        return pictures.annotate(
            self.image, self.detections, self.classes, rows=self.placement.pairs()
        )

    def check_compliance(self, plan: Planogram | Path | str) -> PlanVerdict:
        """Compare the shelf with a planogram.

        Args:
            plan: Planogram, or path of a planogram file.

        Returns:
            Score and deviations.

        Raises:
            ShelfcountError: If the file cannot be read or contains a class that the model does not
                have.
        """
        if not isinstance(plan, Planogram):
            plan = read_plan(plan, self.classes)
        return PlanVerdict(self, compliance.check_compliance(plan, self.arrangement))

    def to_planogram(self, name: str = "") -> Planogram:
        """Return the planogram of the shelf as it is.

        `shelfcount.shelf.planogram.write_plan` writes it to a file.

        Args:
            name: Name of the planogram. Default: the name of this result.

        Raises:
            ShelfcountError: If no products were detected.
        """
        return compliance.planogram_from_shelf(self.arrangement, name or self.name)

    def to_pandas(self) -> Any:
        """Return the products as a pandas DataFrame, one row per product.

        The columns are those of `products`, with the box as x, y, w and h, and additionally the
        photo, the facing (its index in the row) and the level (its height in a stack).

        Raises:
            ShelfcountError: If pandas is not installed.
        """
        pandas = import_optional("pandas", "to_pandas()")
        lines = []
        for entry, facing, level in zip(
            self._entries,
            self.arrangement.column.tolist(),
            self.arrangement.level.tolist(),
            strict=True,
        ):
            flat = {
                "photo": self.name,
                **entry,
                **dict(zip("xywh", entry["box"], strict=True)),
                "facing": facing,
                "level": level,
            }
            lines.append({key: value for key, value in flat.items() if key != "box"})
        columns = [
            "photo",
            "class",
            "score",
            "x",
            "y",
            "w",
            "h",
            "row",
            "position",
            "facing",
            "level",
        ]
        return pandas.DataFrame(
            lines, columns=columns + (["seen_in"] if lines and "seen_in" in lines[0] else [])
        )

    def to_supervision(self) -> Any:
        """Return the products as `supervision.Detections` in pixels of `image`.

        Its data contain class_name, row and position.

        Raises:
            ShelfcountError: If supervision is not installed.
        """
        supervision = import_optional("supervision", "to_supervision()")
        detections = self.detections
        names = np.array([self.classes[i] for i in detections.classes], dtype=str)
        return supervision.Detections(
            xyxy=np.array(detections.boxes),
            confidence=np.array(detections.scores),
            class_id=np.array(detections.classes),
            data={
                "class_name": names,
                "row": np.array(self.placement.row),
                "position": np.array(self.placement.position),
            },
        )

    def __repr__(self) -> str:
        counts = self.counts
        longest = max(map(len, counts), default=0)
        lines = [
            f"{self.name}: {_summary(self)}",
            *(f"  {name:{longest}}  {n:4}" for name, n in counts.items()),
        ]
        lines += [f"  failed the quality check: {advice}" for advice in self.advice]
        return "\n".join([*lines, *(f"  not included: {note}" for note in self.notes)])

    def _repr_jpeg_(self) -> bytes:
        return preview_jpeg(self.picture())


@dataclass(frozen=True, eq=False)
class ShelfCounts(Sequence[ShelfCount]):
    """Results of photos that were counted one by one, in the order of the photos.

    Attributes:
        unread: Photos that could not be read, with the reason.
    """

    unread: tuple[Dropped, ...]
    _shelves: tuple[ShelfCount, ...]
    _photos: tuple[CountedPhoto, ...]
    _score_threshold: float

    def __getitem__(self, index: Any) -> Any:
        return self._shelves[index]

    def __len__(self) -> int:
        return len(self._shelves)

    def __iter__(self) -> Iterator[ShelfCount]:
        return iter(self._shelves)

    @property
    def counts(self) -> dict[str, int]:
        """Number of products on all photos by class name, most frequent first.

        A product that is visible on two photos is counted twice; `merge` counts it once.
        """
        total: Counter[str] = Counter()
        for shelf in self:
            total.update(shelf.counts)
        return dict(total.most_common())

    def merge(self) -> ShelfCount:
        """Merge overlapping photos of one shelf, so that each product is counted once.

        Returns:
            The shelf that most of the photos show. Its `notes` name the photos that do not belong
            to it.

        Raises:
            ShelfcountError: If there are more than `registration.MAX_MERGED_PHOTOS` photos, or a
                photo cannot be read again.
        """
        views = [
            extract_features(shelf.image, photo.detections)
            for shelf, photo in zip(self, self._photos, strict=True)
        ]
        return shelf_of_merged(
            merge_counted(self._photos, views, self._score_threshold, self.unread)
        )

    def to_pandas(self) -> Any:
        """Return the products of all photos as one DataFrame; see `ShelfCount.to_pandas`.

        Raises:
            ShelfcountError: If pandas is not installed.
        """
        return import_optional("pandas", "to_pandas()").concat(
            [shelf.to_pandas() for shelf in self], ignore_index=True
        )

    def __repr__(self) -> str:
        products = plural(sum(map(len, self)), "product")
        lines = [f"{products} on {plural(len(self), 'photo')}"]
        lines += [f"  {shelf.name}: {_summary(shelf)}" for shelf in self]
        return "\n".join([*lines, *(f"  not read: {dropped}" for dropped in self.unread)])

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{title}</th>" for title in ("photo", "products", "classes", "rows", "gaps")
        )
        lines = []
        for shelf in self:
            numbers = (
                len(shelf),
                len(shelf.counts),
                shelf.placement.n_rows,
                len(shelf.arrangement.gaps),
            )
            lines.append(
                f"<tr><td>{html.escape(shelf.name)}</td>"
                + "".join(f"<td>{n}</td>" for n in numbers)
                + "</tr>"
            )
        lines += [
            f"<tr><td>{html.escape(d.where)}</td>"
            f"<td colspan=4>not read: {html.escape(d.reason)}</td></tr>"
            for d in self.unread
        ]
        thumbnails = [
            preview_jpeg(shelf.picture(), THUMBNAIL_SIDE)
            for shelf in self._shelves[:MAX_THUMBNAILS]
        ]
        images = "".join(
            f'<img src="data:image/jpeg;base64,{b64encode(p).decode()}" style="margin:2px">'
            for p in thumbnails
        )
        return f"<table><tr>{head}</tr>{''.join(lines)}</table><div>{images}</div>"


def shelf_of_photo(photo: CountedPhoto, load: Callable[[], NDArray[np.uint8]]) -> ShelfCount:
    """Return the result of one counted photo.

    Args:
        photo: The counted photo.
        load: Function that returns the photo, (h, w, 3) uint8 RGB, upright.
    """
    return ShelfCount(
        photo.path,
        photo.detections,
        photo.placement,
        photo.classes,
        photo.arrangement,
        ((photo.path, np.eye(3)),),
        (),
        tuple(photo.quality.advice),
        tuple(photo.products()),
        load,
    )


def shelf_of_merged(merged: Merged) -> ShelfCount:
    """Return the result of merged photos: the shelf that most of them show."""
    shelf: MergedShelf = merged.shelves[0]
    framed, arrangement = panorama_frame(shelf), arrange_merged(shelf)
    notes = [
        f"{', '.join(photo.path for photo in other.photos)}: {other.reason}"
        for other in merged.shelves[1:]
    ]
    return ShelfCount(
        f"{plural(len(shelf.photos), 'photo')} of one shelf",
        framed.products,
        shelf.placement,
        shelf.photos[0].classes,
        arrangement,
        tuple(
            (photo.path, framed.onto @ h)
            for photo, h in zip(shelf.photos, shelf.homographies, strict=True)
        ),
        (*notes, *map(str, merged.unread)),
        tuple(
            f"{photo.path}: {advice}" for photo in shelf.photos for advice in photo.quality.advice
        ),
        tuple(shelf.to_json()),
        lambda: panorama(shelf)[0],
    )


def _summary(shelf: ShelfCount) -> str:
    rows = plural(shelf.placement.n_rows, "row")
    gaps = plural(len(shelf.arrangement.gaps), "gap")
    return f"{plural(len(shelf), 'product')} in {rows}, {gaps}"
