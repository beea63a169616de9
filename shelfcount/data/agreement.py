"""How far two labellings of the same photos agree: on what is there, on its name, and on its box.

Neither is taken to be right. Boxes of the two are paired on each photo so that their overlaps add up to the
most, whatever their class; what is left over was labelled by one alone. The one figure for the quality of
the data is the product of three shares, each of which can be read alone (as panoptic quality is one of
recognition and segmentation: Kirillov et al. 2019, arXiv:1801.00868):

    quality = presence x naming x tightness
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from shelfcount.data.formats import aligned
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError
from shelfcount.vision.boxes import area, intersection, iou

# The overlap at which a detection counts as having found a product, so that both judge alike.
SAME_PRODUCT_IOU = 0.5
# Two boxes on one product that overlap by less are worth a look; the corrections of the drinks move a label at 0.7.
LOOSE_IOU = 0.7
# Of two assignments that overlap alike, the one that agrees on the class: too little to outweigh a hundredth of IoU.
CLASS_BONUS = 1e-3
# Draws of photos, with replacement, for the interval of a figure; its ends move by less than their last digit shown.
DRAWS = 2000


@dataclass(frozen=True)
class Figures:
    """The figure for the quality and its three parts.

    Attributes:
        quality: presence * naming * tightness; 1 is one labelling twice.
        presence: Of the products that the two labelled, counted in both, the share that both did:
            2 pairs / (products of first + products of second). 1 where neither labelled any.
        naming: Share of the pairs that have one name; None without pairs.
        tightness: Mean IoU of the pairs; None without.
    """

    quality: float
    presence: float
    naming: float | None
    tightness: float | None


def _figures(sums: np.ndarray) -> Figures:
    pairs, same, overlap, first, second = sums.tolist()
    whole = 2 * pairs + first + second
    if not pairs:
        return Figures(float(not whole), float(not whole), None, None)
    parts = 2 * pairs / whole, same / pairs, overlap / pairs
    return Figures(float(np.prod(parts)), *parts)


@dataclass(frozen=True, eq=False)
class PhotoAgreement:
    """Two labellings of one photo.

    Attributes:
        photo: As the first has it.
        first, second: Labels, classes as indices into one list.
        pairs: (k, 2) int64, indices into first and second of the two boxes of one product.
        overlap: (k,) float64, IoU of each pair.
        alone: (n,) and (m,) bool, products that only this one labelled. What lies by half or more of its area
            where the other labelled `ignore` is neither paired nor alone: it is not compared.
    """

    photo: Photo
    first: Detections
    second: Detections
    pairs: np.ndarray
    overlap: np.ndarray
    alone: tuple[np.ndarray, np.ndarray]

    @property
    def same_class(self) -> np.ndarray:
        """(k,) bool, pairs that have one name."""
        return self.first.classes[self.pairs[:, 0]] == self.second.classes[self.pairs[:, 1]]

    @property
    def loose(self) -> np.ndarray:
        """(k,) bool, pairs that agree on all but the box."""
        return self.same_class & (self.overlap < LOOSE_IOU)

    @property
    def disagreements(self) -> int:
        """Products on which the two differ."""
        return int(
            self.alone[0].sum() + self.alone[1].sum() + (~self.same_class).sum() + self.loose.sum()
        )

    @property
    def sums(self) -> np.ndarray:
        """(5,) float64: pairs, pairs of one name, sum of their IoU, and products that first and second alone have."""
        return np.array(
            [
                len(self.pairs),
                self.same_class.sum(),
                self.overlap.sum(),
                self.alone[0].sum(),
                self.alone[1].sum(),
            ]
        )

    @property
    def figures(self) -> Figures:
        """Of this photo alone."""
        return _figures(self.sums)

    @property
    def edges(self) -> np.ndarray:
        """(k, 4) float64: how far the second box reaches beyond the first at left, top, right and bottom.

        In shares of the first box's width and height; below 0 where it ends inside.
        """
        a, b = (
            self.first.boxes[self.pairs[:, 0]].astype(np.float64),
            self.second.boxes[self.pairs[:, 1]],
        )
        return (b - a) * (-1, -1, 1, 1) / np.tile(a[:, 2:] - a[:, :2], 2)


@dataclass(frozen=True)
class ClassAgreement:
    """One class in two labellings.

    Attributes:
        name: Of the class.
        first, second: Products of it that are compared, in each.
        both: Those that both call so.
        alone: Called so by first or second where the other labelled nothing.
        otherwise: Called so by first or second where the other has another name.
        share: 2 both / (first + second), the specific agreement; None where neither has any.
        kappa: Cohen's, of this class against the rest, over all pairs; None where it says nothing.
        tightness: Mean IoU where both call it so; None where none.
    """

    name: str
    first: int
    second: int
    both: int
    alone: tuple[int, int]
    otherwise: tuple[int, int]
    share: float | None
    kappa: float | None
    tightness: float | None


@dataclass(frozen=True, eq=False)
class Agreement:
    """Two labellings of the same photos.

    Attributes:
        names: Of the two, for people.
        classes: The list of both.
        photos: Those that both labelled, in the order of the first.
        unshared: File names of the photos that only first, and only second, has.
        interval: Ends of the 95 % interval of each of `Figures`, from `interval`; empty where not asked for.
    """

    names: tuple[str, str]
    classes: tuple[str, ...]
    photos: tuple[PhotoAgreement, ...]
    unshared: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @cached_property
    def figures(self) -> Figures:
        """Over all photos."""
        return _figures(self._sums.sum(axis=0))

    @cached_property
    def _sums(self) -> np.ndarray:
        return np.array([photo.sums for photo in self.photos]).reshape(-1, 5)

    @cached_property
    def confusion(self) -> np.ndarray:
        """(C + 1, C + 1) int64; row = name in first, column = name in second, the last of each is nothing."""
        table = np.zeros((len(self.classes) + 1,) * 2, np.int64)
        for photo in self.photos:
            np.add.at(
                table,
                (photo.first.classes[photo.pairs[:, 0]], photo.second.classes[photo.pairs[:, 1]]),
                1,
            )
            np.add.at(table, (photo.first.classes[photo.alone[0]], -1), 1)
            np.add.at(table, (-1, photo.second.classes[photo.alone[1]]), 1)
        return table

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of the names of the pairs: 1 complete, 0 what chance gives; None where there is but one name."""
        return kappa(self.confusion[:-1, :-1])

    @property
    def alpha(self) -> float | None:
        """Krippendorff's alpha over all products, "nothing" being a value; None where there is but one value.

        So it judges presence and name in one, corrected for chance.
        """
        return alpha(self.confusion)

    @cached_property
    def edges(self) -> np.ndarray:
        """(k, 4) float64, `PhotoAgreement.edges` of all pairs."""
        return np.concatenate([np.zeros((0, 4)), *(photo.edges for photo in self.photos)])

    @cached_property
    def per_class(self) -> tuple[ClassAgreement, ...]:
        """One entry for each class."""
        overlap: list[list[float]] = [[] for _ in self.classes]
        for photo in self.photos:
            for class_, value in zip(
                photo.first.classes[photo.pairs[photo.same_class, 0]],
                photo.overlap[photo.same_class],
                strict=True,
            ):
                overlap[class_].append(float(value))
        return tuple(self._of_class(c, values) for c, values in enumerate(overlap))

    def _of_class(self, c: int, overlap: Sequence[float]) -> ClassAgreement:
        table = self.confusion
        first, second, both = int(table[c].sum()), int(table[:, c].sum()), int(table[c, c])
        alone = int(table[c, -1]), int(table[-1, c])
        row, column = table[c, :-1].sum(), table[:-1, c].sum()
        rest = table[:-1, :-1].sum() - row - column + both
        return ClassAgreement(
            name=self.classes[c],
            first=first,
            second=second,
            both=both,
            alone=alone,
            otherwise=(first - both - alone[0], second - both - alone[1]),
            share=2 * both / (first + second) if first + second else None,
            kappa=kappa(np.array([[both, row - both], [column - both, rest]])),
            tightness=float(np.mean(overlap)) if overlap else None,
        )

    def errors(self) -> dict[str, dict[str, float | None]]:
        """What the disagreement says of the labellers, under two assumptions that can't be told apart from here.

        ``second``: the first is right, so all is the second's error. ``each``: both err alike and
        independently, names evenly over the other classes, and neither labels what is not there. ``missed`` and
        ``misnamed`` are shares of the products, ``added`` of those labelled; ``edge`` is the standard deviation of a box's edge, in
        shares of the box's side. None where there is nothing to tell it from.
        """
        pairs, same, _, first, second = self._sums.sum(axis=0).tolist()
        edge = float(self.edges.std()) if pairs else None
        naming = same / pairs if pairs else None
        return {
            "second": {
                "missed": first / (pairs + first) if pairs + first else None,
                "added": second / (pairs + second) if pairs + second else None,
                "misnamed": None if naming is None else 1 - naming,
                "edge": edge,
            },
            "each": {
                "missed": 1 - self.figures.presence,
                "added": None,
                "misnamed": None
                if naming is None
                else _misnamed_by_each(naming, len(self.classes)),
                "edge": None if edge is None else edge / float(np.sqrt(2)),
            },
        }

    def to_json(self) -> dict[str, Any]:
        """As plain lists, numbers and strings; what can't be told is null."""
        edges = self.edges.mean(axis=0).tolist() if len(self.edges) else [None] * 4
        return {
            "first": self.names[0],
            "second": self.names[1],
            "photos": len(self.photos),
            "unshared": [list(names) for names in self.unshared],
            **vars(self.figures),
            "interval_95": {name: list(ends) for name, ends in self.interval.items()},
            "kappa": self.kappa,
            "alpha": self.alpha,
            "products": {
                "both": len(self.edges),
                "first_alone": int(self._sums[:, 3].sum()),
                "second_alone": int(self._sums[:, 4].sum()),
            },
            "second_reaches_beyond": dict(
                zip(("left", "top", "right", "bottom"), edges, strict=True)
            ),
            "errors": self.errors(),
            "per_class": [vars(row) for row in self.per_class if row.first + row.second],
            "per_photo": [
                {"photo": p.photo.path.name, **vars(p.figures), "disagreements": p.disagreements}
                for p in self.photos
            ],
        }


def interval(
    photos: Sequence[PhotoAgreement], rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """95 % intervals of the figures, photos being what was drawn; empty for fewer than two photos.

    Args:
        photos: From one or several comparisons.
        rng: Draws the photos.
    """
    n = len(photos)
    if n < 2:
        return {}
    weights = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    draws = [_figures(row) for row in weights @ np.array([photo.sums for photo in photos])]
    ends = {}
    for name in ("quality", "presence", "naming", "tightness"):
        values = [value for draw in draws if (value := getattr(draw, name)) is not None]
        if values:
            low, high = np.percentile(values, (2.5, 97.5)).tolist()
            ends[name] = (low, high)
    return ends


def kappa(table: np.ndarray) -> float | None:
    """Cohen's kappa, as NLTK has it.

    Args:
        table: (n, n) int64, how often first said row and second column.

    Returns:
        At most 1; None where both gave but one name, so that chance alone would agree always and nothing can be said.

    >>> round(kappa(np.array([[20, 5], [10, 15]])), 3)
    0.4
    """
    return float(_named(table).kappa()) if _several(table) else None


def alpha(table: np.ndarray) -> float | None:
    """Krippendorff's alpha for names given by two, as NLTK has it.

    Args:
        table: (n, n) int64, how often first said row and second column.

    Returns:
        At most 1; None where only one name was given, so that nothing can be said.
    """
    return float(_named(table).alpha()) if _several(table) else None


def _several(table: np.ndarray) -> bool:
    """Whether the two gave more than one name."""
    return bool(np.count_nonzero(table.sum(axis=0) + table.sum(axis=1)) > 1)


def _named(table: np.ndarray) -> Any:
    """NLTK's task of two who named as many things as the table holds."""
    # A second to import, which data that was labelled once need not spend.
    from nltk.metrics.agreement import AnnotationTask

    said = np.indices(table.shape).reshape(2, -1).repeat(table.ravel(), axis=1).tolist()
    return AnnotationTask(
        [(who, thing, name) for who, names in enumerate(said) for thing, name in enumerate(names)]
    )


def _misnamed_by_each(naming: float, classes: int) -> float | None:
    """c with (1 - c)^2 + c^2 / (classes - 1) = naming: both right, or both wrong in the same way."""
    if classes < 2:
        return None
    a = 1 + 1 / (classes - 1)
    root = 1 - a * (1 - naming)
    return float((1 - np.sqrt(root)) / a) if root >= 0 else None


def is_second_labelling(first: Dataset, second: Dataset) -> bool:
    """Whether `second` labels photos of `first` anew, rather than being data of its own.

    So it is if every photo of it is the same file as one of `first`, by its place or its bytes, and some box
    differs. The same photos with the very same labels are a copy, which no second labeller makes.
    """
    pairs = shared_photos(first, second)
    if len(pairs) < len(second):
        return False
    a, b = aligned(first, second)
    return any(not _same_labels(a.photos[i].truth, b.photos[j].truth) for i, j in pairs)


def _same_labels(a: Detections, b: Detections) -> bool:
    columns = [
        [part.classes.tolist(), part.boxes.tolist(), part.ignore.tolist()] for part in (a, b)
    ]
    rows = [sorted(zip(*three, strict=True)) for three in columns]
    return rows[0] == rows[1]


def shared_photos(first: Dataset, second: Dataset) -> list[tuple[int, int]]:
    """Indices of the photos that are the same file in both: in the same place, or of the same bytes.

    Raises:
        ShelfcountError: If a photo that is not in the same place can't be read.
    """
    places = {photo.path.resolve(): i for i, photo in enumerate(first.photos)}
    found = {
        j: places[photo.path.resolve()]
        for j, photo in enumerate(second.photos)
        if photo.path.resolve() in places
    }
    left = [j for j in range(len(second)) if j not in found]
    if left:
        taken = set(found.values())
        digests = {_digest(photo): i for i, photo in enumerate(first.photos) if i not in taken}
        found |= {
            j: digests[digest] for j in left if (digest := _digest(second.photos[j])) in digests
        }
    return sorted((i, j) for j, i in found.items())


def _digest(photo: Photo) -> str:
    try:
        return hashlib.sha256(photo.path.read_bytes()).hexdigest()
    except OSError as error:
        raise ShelfcountError(
            f"cannot read photo '{photo.path}': {error.strerror or error}"
        ) from error


def compare(first: Dataset, second: Dataset, rng: np.random.Generator | None = None) -> Agreement:
    """Two labellings of the same photos.

    Args:
        first, second: Labels with names for classes, which may differ. Photos that only one has are named in
            the result and not compared.
        rng: Draws photos for the intervals; without it there are none.

    Raises:
        ShelfcountError: If they share no photo, or have one in two sizes.
    """
    names = Path(first.name).name or "first", Path(second.name).name or "second"
    a, b = aligned(first, second)
    shared = shared_photos(a, b)
    if not shared:
        raise ShelfcountError(
            f"two labellings must be of the same photos, got none in common of {len(a)} in '{names[0]}' and {len(b)} in '{names[1]}'"
        )
    photos = tuple(_compare(a.photos[i], b.photos[j]) for i, j in shared)
    left = [
        tuple(
            photo.path.name
            for k, photo in enumerate(data.photos)
            if k not in {pair[side] for pair in shared}
        )
        for side, data in enumerate((a, b))
    ]
    return Agreement(
        names, a.classes, photos, (left[0], left[1]), interval(photos, rng) if rng else {}
    )


def _compare(photo: Photo, other: Photo) -> PhotoAgreement:
    if (photo.width, photo.height) != (other.width, other.height):
        sizes = f"{photo.width} x {photo.height} and {other.width} x {other.height}"
        raise ShelfcountError(
            f"photo '{photo.path.name}' must have one size in both labellings, got {sizes}"
        )
    a, b = photo.truth, other.truth
    # float64, so that boxes which overlap by just the least are decided alike from both sides.
    overlap = iou(a.boxes.astype(np.float64), b.boxes.astype(np.float64))
    overlap[a.ignore] = 0
    overlap[:, b.ignore] = 0
    near = overlap >= SAME_PRODUCT_IOU
    pairs = np.stack(
        linear_sum_assignment(
            np.where(near, overlap + CLASS_BONUS * (a.classes[:, None] == b.classes), 0),
            maximize=True,
        ),
        1,
    )
    pairs = pairs[near[pairs[:, 0], pairs[:, 1]]].astype(np.int64)
    alone = _alone(a, b, pairs[:, 0]), _alone(b, a, pairs[:, 1])
    return PhotoAgreement(photo, a, b, pairs, overlap[pairs[:, 0], pairs[:, 1]], alone)


def _alone(own: Detections, other: Detections, paired: np.ndarray) -> np.ndarray:
    """(n,) bool, products of one without a partner, and not where the other could not tell."""
    alone = ~own.ignore
    alone[paired] = False
    inside = intersection(
        own.boxes.astype(np.float64), other.boxes[other.ignore].astype(np.float64)
    )
    return alone & ~(inside >= SAME_PRODUCT_IOU * area(own.boxes)[:, None]).any(axis=1)


def describe(agreement: Agreement) -> list[tuple[str, str]]:
    """The figures as (name, value with its 95 % interval), for a terminal."""

    def shown(value: float | None, name: str = "") -> str:
        ends = (
            " ({:.3f} to {:.3f})".format(*agreement.interval[name])
            if name in agreement.interval
            else ""
        )
        return "not measured" if value is None else f"{value:.3f}{ends}"

    parts = {
        "quality": "quality",
        "= presence": "presence",
        "x naming": "naming",
        "x tightness": "tightness",
    }
    return [
        *((title, shown(getattr(agreement.figures, name), name)) for title, name in parts.items()),
        ("Cohen's kappa of the names", shown(agreement.kappa)),
        ("Krippendorff's alpha, nothing being a name", shown(agreement.alpha)),
    ]
