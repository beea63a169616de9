"""Inter-annotator agreement between two annotations of the same photos.

Neither annotation is assumed to be correct. On each photo, the boxes of the two annotations are
paired so that the sum of their overlaps is as large as possible, whatever their class. A box
without a partner was labelled in one annotation only. The overall agreement is the product of
three shares, each of which is meaningful by itself. Panoptic quality is a product of recognition
and segmentation quality in the same way (Kirillov et al. 2019, arXiv:1801.00868).

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
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from shelfcount.data.formats import aligned
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError
from shelfcount.vision.boxes import area, intersection, iou
from shelfcount.words import plural

# Minimum IoU of a pair; the same as for a true positive in the detection metrics.
SAME_PRODUCT_IOU = 0.5
# A pair with a lower IoU is reported as a loose box. Boxes that the corrections of the drinks data
# move have an IoU of at most this with their new box.
LOOSE_IOU = 0.7
# Bonus of a pair with equal classes, which decides between assignments of equal overlap. It is too
# small to outweigh a difference of 0.01 in IoU.
CLASS_BONUS = 1e-3
# Bootstrap resamples for a confidence interval. With this number, its ends vary by less than the
# last digit shown.
DRAWS = 2000


@dataclass(frozen=True)
class Figures:
    """Overall agreement and its three factors.

    Attributes:
        quality: presence * naming * tightness. It is 1 for identical annotations.
        presence: Share of the labelled products that both annotations contain: 2 * pairs /
            (products of first + products of second). 1 if neither contains a product.
        naming: Share of the pairs that have the same class; None without pairs.
        tightness: Mean IoU of the pairs; None without pairs.
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
    """Agreement of two annotations on one photo.

    Attributes:
        photo: Photo as it is in the first annotation.
        first, second: Labels of the two annotations. Their classes index the same list.
        pairs: (k, 2) int64, indices into `first` and `second` of the two boxes of a pair.
        overlap: (k,) float64, IoU of each pair.
        alone: (n,) and (m,) bool, products that only `first` and only `second` contains. A box
            that an `ignore` box of the other annotation covers by half of its area or more is
            not counted here: it is left out of the comparison.
    """

    photo: Photo
    first: Detections
    second: Detections
    pairs: NDArray[np.int64]
    overlap: NDArray[np.float64]
    alone: tuple[np.ndarray, np.ndarray]

    @property
    def same_class(self) -> NDArray[np.bool_]:
        """(k,) bool, pairs that have the same class."""
        return self.first.classes[self.pairs[:, 0]] == self.second.classes[self.pairs[:, 1]]

    @property
    def loose(self) -> NDArray[np.bool_]:
        """(k,) bool, pairs that have the same class and an IoU below `LOOSE_IOU`."""
        return self.same_class & (self.overlap < LOOSE_IOU)

    @property
    def disagreements(self) -> int:
        """Number of products that are in one annotation only, differ in class or are loose."""
        return int(
            self.alone[0].sum() + self.alone[1].sum() + (~self.same_class).sum() + self.loose.sum()
        )

    @property
    def sums(self) -> np.ndarray:
        """(5,) float64, sums from which `Figures` are computed.

        The entries are the number of pairs, the number of pairs with the same class, the sum of
        IoU over all pairs, and the numbers of products that only the first and only the second
        annotation contains.
        """
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
        """Agreement on this photo alone."""
        return _figures(self.sums)

    @property
    def edges(self) -> np.ndarray:
        """(k, 4) float64, distance by which the second box exceeds the first at each edge.

        Columns are left, top, right and bottom, as shares of the first box's width and height. A
        value is negative if the edge of the second box is inside the first.
        """
        a, b = (
            self.first.boxes[self.pairs[:, 0]].astype(np.float64),
            self.second.boxes[self.pairs[:, 1]],
        )
        return (b - a) * (-1, -1, 1, 1) / np.tile(a[:, 2:] - a[:, :2], 2)


@dataclass(frozen=True)
class ClassAgreement:
    """Agreement of two annotations on one class.

    Attributes:
        name: Class name.
        first, second: Numbers of compared products of this class in each annotation.
        both: Number of pairs that have this class in both annotations.
        alone: Numbers of products of this class in first and second without a partner.
        otherwise: Numbers of products of this class in first and second whose partner has
            another class.
        share: Specific agreement, 2 * both / (first + second); None if neither annotation
            contains the class.
        kappa: Cohen's kappa of this class against all others, over all pairs; None if it is
            undefined.
        tightness: Mean IoU of the pairs counted in `both`; None without any.
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
    """Agreement of two annotations of the same photos.

    Attributes:
        names: Display names of the two annotations.
        classes: Class names of both annotations.
        photos: Agreement on each photo that is in both, in the order of the first annotation.
        unshared: File names of the photos that only the first and only the second annotation has.
        interval: Ends of the 95 % confidence interval of each field of `Figures`, as `interval`
            returns them; empty if they were not computed.
    """

    names: tuple[str, str]
    classes: tuple[str, ...]
    photos: tuple[PhotoAgreement, ...]
    unshared: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @cached_property
    def figures(self) -> Figures:
        """Agreement over all photos."""
        return _figures(self._sums.sum(axis=0))

    @cached_property
    def _sums(self) -> np.ndarray:
        return np.array([photo.sums for photo in self.photos]).reshape(-1, 5)

    @cached_property
    def confusion(self) -> np.ndarray:
        """(C + 1, C + 1) int64 confusion matrix of C classes.

        Rows are classes of the first annotation, columns those of the second. The last row and
        the last column count products without a partner.
        """
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
        """Cohen's kappa of the classes of the pairs; None if there are fewer than two classes.

        1 is complete agreement, 0 is the agreement expected by chance.
        """
        return kappa(self.confusion[:-1, :-1])

    @property
    def alpha(self) -> float | None:
        """Krippendorff's alpha over all products; None if there are fewer than two values.

        A product without a partner has the value "nothing" in the other annotation. Thus alpha
        measures presence and class together, corrected for chance.
        """
        return alpha(self.confusion)

    @cached_property
    def edges(self) -> np.ndarray:
        """(k, 4) float64, `PhotoAgreement.edges` of the pairs of all photos."""
        return np.concatenate([np.zeros((0, 4)), *(photo.edges for photo in self.photos)])

    @cached_property
    def per_class(self) -> tuple[ClassAgreement, ...]:
        """Agreement on each class, in the order of `classes`."""
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
        neither = table[:-1, :-1].sum() - row - column + both
        return ClassAgreement(
            name=self.classes[c],
            first=first,
            second=second,
            both=both,
            alone=alone,
            otherwise=(first - both - alone[0], second - both - alone[1]),
            share=2 * both / (first + second) if first + second else None,
            kappa=kappa(np.array([[both, row - both], [column - both, neither]])),
            tightness=float(np.mean(overlap)) if overlap else None,
        )

    def errors(self) -> dict[str, dict[str, float | None]]:
        """Return error rates of the annotators under two alternative assumptions.

        The two annotations alone cannot show which assumption holds.

        Returns:
            Error rates under each assumption. ``second``: the first annotation is correct, and
            every difference is an error of the second. ``each``: both annotators err
            independently at the same rate, wrong classes are spread evenly over the other
            classes, and neither labels a product that does not exist. ``missed`` is the share of
            products that were not labelled, ``misnamed`` the share of pairs with a wrong class,
            ``added`` the share of labels without a product, and ``edge`` the standard deviation
            of a box edge as a share of the side. A rate is None if it cannot be estimated.
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
        """Return the agreement as lists, numbers and strings; undefined values are None."""
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
    """Return 95 % bootstrap confidence intervals, with photos as the resampled unit.

    Args:
        photos: Photos of one or several comparisons.
        rng: Random generator that draws the resamples.

    Returns:
        Field name of `Figures` to the two ends of its interval; empty for fewer than two photos.
        A field that is None in all resamples is left out.
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


def kappa(table: NDArray[np.int64]) -> float | None:
    """Return Cohen's kappa as NLTK computes it.

    Args:
        table: (n, n) int64 confusion matrix. Rows are classes of the first annotation, columns
            those of the second.

    Returns:
        Kappa, at most 1; None if the table contains fewer than two classes, since kappa is then
        undefined.

    >>> round(kappa(np.array([[20, 5], [10, 15]])), 3)
    0.4
    """
    return float(_named(table).kappa()) if _several(table) else None


def alpha(table: NDArray[np.int64]) -> float | None:
    """Return Krippendorff's alpha of two annotations as NLTK computes it.

    Args:
        table: (n, n) int64 confusion matrix. Rows are values of the first annotation, columns
            those of the second.

    Returns:
        Alpha, at most 1; None if the table contains fewer than two values, since alpha is then
        undefined.
    """
    return float(_named(table).alpha()) if _several(table) else None


def _several(table: np.ndarray) -> bool:
    """Return True if the table contains at least two classes."""
    return bool(np.count_nonzero(table.sum(axis=0) + table.sum(axis=1)) > 1)


def _named(table: np.ndarray) -> Any:
    """Return NLTK's annotation task with one item per count of the table."""
    # The import takes a second and is needed only for a second annotation.
    from nltk.metrics.agreement import AnnotationTask

    answers = np.indices(table.shape).reshape(2, -1).repeat(table.ravel(), axis=1).tolist()
    return AnnotationTask(
        [
            (annotator, item, name)
            for annotator, names in enumerate(answers)
            for item, name in enumerate(names)
        ]
    )


def _misnamed_by_each(naming: float, classes: int) -> float | None:
    """Return the error rate c that solves (1 - c)^2 + c^2 / (classes - 1) = naming.

    The left side is the probability that both annotators are correct or make the same error.
    """
    if classes < 2:
        return None
    a = 1 + 1 / (classes - 1)
    root = 1 - a * (1 - naming)
    return float((1 - np.sqrt(root)) / a) if root >= 0 else None


def is_second_labelling(first: Dataset, second: Dataset) -> bool:
    """Return True if `second` is another annotation of photos of `first`.

    This is the case if every photo of `second` is the same file as a photo of `first`, by path or
    by content, and at least one label differs. The same photos with identical labels are a copy.

    Args:
        first: Labelled photos.
        second: Labelled photos to compare with them.

    Returns:
        True for a second annotation, False for a copy or for other photos.

    Raises:
        ShelfcountError: If a photo whose path is not in both cannot be read.
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
    """Return the indices of photos that are the same file in both data sets.

    Args:
        first, second: Data sets to compare.

    Returns:
        (index in first, index in second) of each photo with the same path or the same content,
        in the order of `first`.

    Raises:
        ShelfcountError: If a photo whose path is not in both cannot be read.
    """
    by_path = {photo.path.resolve(): i for i, photo in enumerate(first.photos)}
    matches = {
        j: by_path[photo.path.resolve()]
        for j, photo in enumerate(second.photos)
        if photo.path.resolve() in by_path
    }
    unmatched = [j for j in range(len(second)) if j not in matches]
    if unmatched:
        taken = set(matches.values())
        digests = {_digest(photo): i for i, photo in enumerate(first.photos) if i not in taken}
        matches |= {
            j: digests[digest]
            for j in unmatched
            if (digest := _digest(second.photos[j])) in digests
        }
    return sorted((i, j) for j, i in matches.items())


def _digest(photo: Photo) -> str:
    try:
        return hashlib.sha256(photo.path.read_bytes()).hexdigest()
    except OSError as error:
        raise ShelfcountError(
            f"cannot read photo '{photo.path}': {error.strerror or error}"
        ) from error


def compare(first: Dataset, second: Dataset, rng: np.random.Generator | None = None) -> Agreement:
    """Measure the agreement of two annotations of the same photos.

    Args:
        first, second: Annotations to compare. Their class lists may differ. Photos that only one
            of them has are named in the result and not compared.
        rng: Random generator that draws the resamples for the confidence intervals. Default: no
            intervals are computed.

    Returns:
        Agreement per photo, per class and over all photos.

    Raises:
        ShelfcountError: If the annotations share no photo, give a photo two sizes, or a photo
            cannot be read.
    """
    names = Path(first.name).name or "first", Path(second.name).name or "second"
    a, b = aligned(first, second)
    shared = shared_photos(a, b)
    if not shared:
        raise ShelfcountError(
            f"'{names[0]}' ({plural(len(a), 'photo')}) and '{names[1]}' "
            f"({plural(len(b), 'photo')}) have no photo in common. Agreement is measured on photos "
            "that are in both: give two annotations of the same photos."
        )
    photos = tuple(_compare(a.photos[i], b.photos[j]) for i, j in shared)
    unshared = [
        tuple(
            photo.path.name
            for k, photo in enumerate(data.photos)
            if k not in {pair[side] for pair in shared}
        )
        for side, data in enumerate((a, b))
    ]
    return Agreement(
        names, a.classes, photos, (unshared[0], unshared[1]), interval(photos, rng) if rng else {}
    )


def _compare(photo: Photo, other: Photo) -> PhotoAgreement:
    if (photo.width, photo.height) != (other.width, other.height):
        sizes = f"{photo.width} x {photo.height} and {other.width} x {other.height}"
        raise ShelfcountError(
            f"photo '{photo.path.name}' has two sizes in the two annotations, {sizes}. "
            "Export both annotations from the same photos."
        )
    a, b = photo.truth, other.truth
    # In float64, so that swapping the annotations does not change the decision on boxes whose IoU
    # is exactly at the limit.
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
    """Return (n,) bool: unpaired products of `own` outside the `ignore` boxes of `other`."""
    alone = ~own.ignore
    alone[paired] = False
    inside = intersection(
        own.boxes.astype(np.float64), other.boxes[other.ignore].astype(np.float64)
    )
    return alone & ~(inside >= SAME_PRODUCT_IOU * area(own.boxes)[:, None]).any(axis=1)


def describe(agreement: Agreement) -> list[tuple[str, str]]:
    """Return the agreement as (title, value with its 95 % interval) for a terminal."""

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
        ("Cohen's kappa of the classes", shown(agreement.kappa)),
        ("Krippendorff's alpha of presence and class", shown(agreement.alpha)),
    ]
