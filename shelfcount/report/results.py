"""Counting from Python: results that print well, show themselves in a notebook, and become tables.

`count` is what ``import shelfcount`` offers; the parts that it puts together are those of ``shelfcount count``,
``merge`` and ``planogram``.
"""

from __future__ import annotations

import html
import importlib
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.data import plans
from shelfcount.records import Detections, Detector, Dropped, ShelfcountError
from shelfcount.report import pictures
from shelfcount.report.plan_picture import draw_verdict
from shelfcount.runtime.bundle import Bundle, LiteRTDetector
from shelfcount.shelf import planogram
from shelfcount.shelf.count import CountedPhoto, count_photo
from shelfcount.shelf.facings import Arrangement
from shelfcount.shelf.merge import Merged, MergedShelf, merge
from shelfcount.shelf.panorama import arranged, frame, panorama
from shelfcount.shelf.photo_pairs import look
from shelfcount.shelf.rows import Placement
from shelfcount.vision.images import encode_photo, read_photo

# A notebook holds its pictures: at this size and quality one has about 80 kB, and its tags can still be read.
SHOWN_SIDE, SHOWN_QUALITY = 960, 72
# Of all photos together no more than these are shown, so small.
MOST_THUMBNAILS, THUMBNAIL_SIDE = 6, 360

PhotoLike = Path | str | np.ndarray


@dataclass(frozen=True, eq=False)
class ShelfCount:
    """What stands on one photo, or on the one shelf that several photos show.

    Attributes:
        name: The photo's path, or how many photos were merged.
        detections: The products, best score first; boxes in pixels of `image`.
        placement: Row and position of each.
        classes: Class names that `detections.classes` are indices into.
        arrangement: Facings, stacks, gaps and the front view; boxes in pixels of `image`.
        placed: The photos that are part of it, each with a (3, 3) homography from its pixels to those of `image`.
        notes: What is not part of the count though it was given, such as a photo that fits nowhere.
        advice: What to do better, for photos that are not fit to be counted.
    """

    name: str
    detections: Detections
    placement: Placement
    classes: tuple[str, ...]
    arrangement: Arrangement
    placed: tuple[tuple[str, np.ndarray], ...]
    notes: tuple[str, ...]
    advice: tuple[str, ...]
    _entries: tuple[Mapping[str, Any], ...]
    _load: Callable[[], np.ndarray]

    @property
    def counts(self) -> dict[str, int]:
        """Products of each class that is there, most frequent first."""
        return self.detections.counts(self.classes)

    @property
    def image(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB, read anew at each call: the upright photo, or the picture of the merged shelf."""
        return self._load()

    def __len__(self) -> int:
        return len(self.detections)

    def products(self) -> list[dict[str, Any]]:
        """One entry a product: class, score, box (x, y, width, height), row, position.

        Boxes are in pixels of the photo; of merged photos, in those of ``photo``, the one that shows the product best.
        """
        return [dict(entry) for entry in self._entries]

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: `image` with boxes, rows and positions, and a legend of the counts."""
        places = list(
            zip(self.placement.row.tolist(), self.placement.position.tolist(), strict=True)
        )
        return pictures.annotate(self.image, self.detections, self.classes, rows=places)

    def judge(self, plan: plans.Plan | Path | str) -> PlanVerdict:
        """Compare with a plan, or a file that holds one.

        Raises:
            ShelfcountError: If the file cannot be read or names a class that the model has not.
        """
        wanted = plan if isinstance(plan, plans.Plan) else plans.read_plan(plan, self.classes)
        return PlanVerdict(self, planogram.judge(wanted, self.arrangement))

    def learn(self, name: str = "") -> plans.Plan:
        """The plan that this shelf meets as it is; `shelfcount.data.plans.write_plan` keeps it.

        Raises:
            ShelfcountError: If nothing stands on it.
        """
        return planogram.learn(self.arrangement, name or self.name)

    def to_pandas(self) -> Any:
        """A DataFrame with a line for each product: `products`, the box as x, y, w, h, its facing in the row, and its level there.

        Raises:
            ShelfcountError: If pandas is not installed.
        """
        pandas = _optional("pandas", "to_pandas()")
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
        """`supervision.Detections` in pixels of `image`, with class_name, row and position in its data.

        Raises:
            ShelfcountError: If supervision is not installed.
        """
        supervision = _optional("supervision", "to_supervision()")
        found = self.detections
        names = np.array([self.classes[i] for i in found.classes], dtype=str)
        return supervision.Detections(
            xyxy=np.array(found.boxes),
            confidence=np.array(found.scores),
            class_id=np.array(found.classes),
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
        lines += [f"  unfit: {advice}" for advice in self.advice]
        return "\n".join([*lines, *(f"  not counted here: {note}" for note in self.notes)])

    def _repr_jpeg_(self) -> bytes:
        return _shown(self.picture())


@dataclass(frozen=True, eq=False)
class ShelfCounts(Sequence[ShelfCount]):
    """Photos that were counted one by one, in the order they were given.

    Attributes:
        unread: Photos that could not be read.
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
        """Products of each class on all photos, most frequent first. What two photos show counts twice; `merge` counts it once."""
        total: Counter[str] = Counter()
        for shelf in self:
            total.update(shelf.counts)
        return dict(total.most_common())

    def merge(self) -> ShelfCount:
        """The shelf that most of the photos show, each product once. `ShelfCount.notes` names photos that do not fit.

        Raises:
            ShelfcountError: If there are more photos than `registration.MOST_PHOTOS`.
        """
        views = [
            look(shelf.image, photo.detections)
            for shelf, photo in zip(self, self._photos, strict=True)
        ]
        return _of_merged(merge(self._photos, views, self._score_threshold, self.unread))

    def to_pandas(self) -> Any:
        """`ShelfCount.to_pandas` of all photos, one below the other.

        Raises:
            ShelfcountError: If pandas is not installed.
        """
        return _optional("pandas", "to_pandas()").concat(
            [shelf.to_pandas() for shelf in self], ignore_index=True
        )

    def __repr__(self) -> str:
        lines = [f"{sum(map(len, self))} products on {len(self)} photo{'s' * (len(self) != 1)}"]
        lines += [f"  {shelf.name}: {_summary(shelf)}" for shelf in self]
        return "\n".join([*lines, *(f"  not read: {dropped}" for dropped in self.unread)])

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{title}</th>" for title in ("photo", "products", "classes", "rows", "gaps")
        )
        lines = []
        for shelf in self:
            figures = (
                len(shelf),
                len(shelf.counts),
                shelf.placement.n_rows,
                len(shelf.arrangement.gaps),
            )
            lines.append(
                f"<tr><td>{html.escape(shelf.name)}</td>"
                + "".join(f"<td>{n}</td>" for n in figures)
                + "</tr>"
            )
        lines += [
            f"<tr><td>{html.escape(d.where)}</td><td colspan=4>not read: {html.escape(d.reason)}</td></tr>"
            for d in self.unread
        ]
        thumbnails = [
            _shown(shelf.picture(), THUMBNAIL_SIDE) for shelf in self._shelves[:MOST_THUMBNAILS]
        ]
        shown = "".join(
            f'<img src="data:image/jpeg;base64,{b64encode(p).decode()}" style="margin:2px">'
            for p in thumbnails
        )
        return f"<table><tr>{head}</tr>{''.join(lines)}</table><div>{shown}</div>"


@dataclass(frozen=True, eq=False)
class PlanVerdict:
    """How well a shelf meets its plan.

    Attributes:
        shelf: That was judged.
        verdict: Score and deviations; boxes in pixels of the shelf's image.
    """

    shelf: ShelfCount
    verdict: planogram.Verdict

    @property
    def score(self) -> float:
        """Share of facings as planned, 0 to 1."""
        return self.verdict.score

    @property
    def deviations(self) -> tuple[planogram.Deviation, ...]:
        """By row of the plan, then what is planned nowhere."""
        return self.verdict.deviations

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the shelf with each deviation marked, and their list."""
        return draw_verdict(self.shelf.image, self.shelf.arrangement, self.verdict)

    def to_json(self) -> dict[str, Any]:
        """What ``shelfcount planogram --json`` writes: photos, with homographies to the pixels that boxes are in, and the verdict."""
        placed = [
            {"path": path, "homography": homography.tolist()}
            for path, homography in self.shelf.placed
        ]
        return {"photos": placed, "notes": list(self.shelf.notes), **self.verdict.to_json()}

    def to_pandas(self) -> Any:
        """A DataFrame with a line for each deviation.

        Raises:
            ShelfcountError: If pandas is not installed.
        """
        columns = [
            "kind",
            "class",
            "facings",
            "plan_row",
            "shelf_row",
            "planned",
            "seen",
            "instead",
            "message",
        ]
        return _optional("pandas", "to_pandas()").DataFrame(
            self.verdict.to_json()["deviations"], columns=columns
        )

    def __repr__(self) -> str:
        return "\n".join(
            [
                f"{self.shelf.name}: {100 * self.score:.0f} % as planned",
                *(f"  {deviation}" for deviation in self.deviations),
            ]
        )

    def _repr_jpeg_(self) -> bytes:
        return _shown(self.picture())


def count(
    photos: PhotoLike | Sequence[PhotoLike],
    bundle: Bundle | Detector | Path | str,
    *,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ShelfCounts:
    """Count the products on photos.

    Args:
        photos: One or several; paths, or (height, width, 3) uint8 RGB arrays, upright. Of photos given as paths no pixels are
            kept: they are read again where they are shown.
        bundle: Folder of a bundle, one that is read, or a detector.
        threads: Of the LiteRT interpreter.
        progress: Called with (photos done, photos in all).

    Returns:
        One `ShelfCount` a photo. In a notebook it shows itself; `merge` makes one shelf of photos that overlap, and
        `ShelfCount.judge` compares it with a plan.

    Raises:
        ShelfcountError: If the bundle cannot be used, or none of the photos can be read.
    """
    detector = (
        LiteRTDetector.open(bundle, threads) if isinstance(bundle, Bundle | Path | str) else bundle
    )
    given = [photos] if isinstance(photos, Path | str | np.ndarray) else list(photos)
    counted, shelves, unread = [], [], []
    for number, photo in enumerate(given, start=1):
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
            progress(number, len(given))
    if not counted:
        reasons = "".join(f"\n  {dropped}" for dropped in unread)
        raise ShelfcountError(
            f"counting needs at least 1 photo that can be read, got {len(unread)} that cannot{reasons}"
        )
    return ShelfCounts(tuple(unread), tuple(shelves), tuple(counted), detector.spec.score_threshold)


def _of_photo(photo: CountedPhoto, load: Callable[[], np.ndarray]) -> ShelfCount:
    place, entries = ((photo.path, np.eye(3)),), tuple(photo.products())
    return ShelfCount(
        photo.path,
        photo.detections,
        photo.placement,
        photo.classes,
        photo.arrangement,
        place,
        (),
        tuple(photo.quality.advice),
        entries,
        load,
    )


def _of_merged(merged: Merged) -> ShelfCount:
    shelf: MergedShelf = merged.shelves[0]
    framed, arrangement = frame(shelf), arranged(shelf)
    notes = [
        f"{', '.join(photo.path for photo in other.photos)}: {other.reason}"
        for other in merged.shelves[1:]
    ]

    return ShelfCount(
        f"{len(shelf.photos)} photo{'s' * (len(shelf.photos) != 1)} of one shelf",
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


def _loader(photo: PhotoLike) -> Callable[[], np.ndarray]:
    if not isinstance(photo, np.ndarray):
        return lambda: read_photo(photo)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ShelfcountError(
            f"a photo given as an array must be (height, width, 3) uint8 RGB, got {photo.shape} {photo.dtype}"
        )
    return lambda: photo


def _summary(shelf: ShelfCount) -> str:
    gaps = len(shelf.arrangement.gaps)
    rows = shelf.placement.n_rows
    return f"{len(shelf)} products in {rows} row{'s' * (rows != 1)}, {gaps} gap{'s' * (gaps != 1)}"


def _shown(picture: np.ndarray, side: int = SHOWN_SIDE) -> bytes:
    return encode_photo(pictures.shrunk(picture, side), quality=SHOWN_QUALITY)


def _optional(package: str, wanted_by: str) -> Any:
    """A package that shelfcount can do without."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ShelfcountError(
            f"{wanted_by} needs {package}, which cannot be imported: {error}. Install it: pip install {package}"
        ) from error
