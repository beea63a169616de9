"""Scores of agreement between two labellings: by photo, by class and in total.

The quality of the data is the product of three shares, as panoptic quality is (Kirillov et al.
2019, arXiv:1801.00868):

    quality = presence x naming x tightness
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.labels.agreement_coefficients import alpha, kappa, misnamed_by_each
from shelfcount.records import Detections, Photo

# A pair with a lower IoU is reported as a loose box. Boxes that the corrections of the drinks data
# move have an IoU of at most this with their new box.
LOOSE_IOU = 0.7
# Bootstrap resamples for a confidence interval. With this number, its ends vary by less than the
# last digit shown.
_DRAWS = 2000


@dataclass(frozen=True)
class AgreementScores:
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


def agreement_scores(sums: NDArray[np.float64]) -> AgreementScores:
    """Compute the agreement from counts.

    Args:
        sums: (5,) float64; number of pairs, pairs of the same class, sum of the IoUs of the pairs,
            and products that only the first and only the second annotation contains.

    Returns:
        Overall agreement and its three factors.
    """
    pairs, same, overlap, first, second = sums.tolist()
    whole = 2 * pairs + first + second
    if not pairs:
        return AgreementScores(float(not whole), float(not whole), None, None)
    parts = 2 * pairs / whole, same / pairs, overlap / pairs
    return AgreementScores(float(np.prod(parts)), *parts)


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
    alone: tuple[NDArray[np.bool_], NDArray[np.bool_]]

    @property
    def same_class(self) -> NDArray[np.bool_]:
        """(k,) bool, pairs that have the same class."""
        same = self.first.classes[self.pairs[:, 0]] == self.second.classes[self.pairs[:, 1]]
        return np.asarray(same)

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
    def sums(self) -> NDArray[np.float64]:
        """(5,) float64, sums from which `AgreementScores` are computed.

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
    def figures(self) -> AgreementScores:
        """Agreement on this photo alone."""
        return agreement_scores(self.sums)

    @property
    def edges(self) -> NDArray[np.float64]:
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
        interval: Ends of the 95 % confidence interval of each field of `AgreementScores`, as
            `interval` returns them; empty if they were not computed.
    """

    names: tuple[str, str]
    classes: tuple[str, ...]
    photos: tuple[PhotoAgreement, ...]
    unshared: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @cached_property
    def figures(self) -> AgreementScores:
        """Agreement over all photos."""
        return agreement_scores(self._sums.sum(axis=0))

    @cached_property
    def _sums(self) -> NDArray[np.float64]:
        return np.array([photo.sums for photo in self.photos]).reshape(-1, 5)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
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
            np.add.at(table[:, -1], photo.first.classes[photo.alone[0]], 1)
            np.add.at(table[-1], photo.second.classes[photo.alone[1]], 1)
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
    def edges(self) -> NDArray[np.float64]:
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
                "misnamed": None if naming is None else misnamed_by_each(naming, len(self.classes)),
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

    The intervals of F1 are in `metrics.uncertainty`. Agreement is another statistic: a product of
    three factors, one of which needs the sum of IoUs.

    Args:
        photos: Photos of one or several comparisons.
        rng: Random generator that draws the resamples.

    Returns:
        Field name of `AgreementScores` to the two ends of its interval; empty for fewer than two
        photos. A field that is None in all resamples is left out.
    """
    n = len(photos)
    if n < 2:
        return {}
    weights = rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS)
    draws = [agreement_scores(row) for row in weights @ np.array([photo.sums for photo in photos])]
    ends = {}
    for name in ("quality", "presence", "naming", "tightness"):
        values = [value for draw in draws if (value := getattr(draw, name)) is not None]
        if values:
            low, high = np.percentile(values, (2.5, 97.5)).tolist()
            ends[name] = (low, high)
    return ends
