"""From the confusion matrix to what to do: which products are taken for which, where, and what that costs.

An evaluation alone says what a class costs now, not what more examples of it would mend: that takes learning
curves, from trainings on parts of the data. `needs` gives the first, as an upper bound, and the second where it is given curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shelfcount.evaluation.label_errors import self_confidence
from shelfcount.evaluation.metrics import check, match
from shelfcount.records import Dataset, Detections, Photo

# A power law has two unknowns: with fewer points nothing would say how well it fits.
FEWEST_POINTS = 3
# A curve that falls by less, as the exponent of its power law, says nothing of how far it would fall.
LEAST_SLOPE = -0.1
# About what two photos of a shelf add to a class, and few enough that a curve need not be drawn far beyond its points.
MORE_EXAMPLES = 50
# Examples of a class in training, and the share of its products lost with so many.
Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Mistake:
    """One product that was reported under another name.

    Attributes:
        photo: With its labels.
        box: (4,) float32 xyxy, as labelled.
        score: Of the detection.
        sure: Whether it is as high as the reported class scores, on average, where the labels agree.
    """

    photo: Photo
    box: np.ndarray
    score: float
    sure: bool


@dataclass(frozen=True, eq=False)
class Confusion:
    """One class taken for another.

    Attributes:
        true, reported: Their indices.
        mistakes: Surest first.
        products: Of the true class, on all photos.
        reverse: How often the reported is taken for the true one.
    """

    true: int
    reported: int
    mistakes: tuple[Mistake, ...]
    products: int
    reverse: int

    @property
    def share(self) -> float:
        """Of the true class's products."""
        return len(self.mistakes) / self.products

    @property
    def photos(self) -> tuple[str, ...]:
        """File names, the photo with most of them first."""
        names = [mistake.photo.path.name for mistake in self.mistakes]
        return tuple(sorted(dict.fromkeys(names), key=lambda name: -names.count(name)))

    @property
    def sure(self) -> int:
        """How many of the mistakes the model is sure of: there the label may be the mistake."""
        return sum(mistake.sure for mistake in self.mistakes)


def confusions(dataset: Dataset, found: Sequence[Detections], threshold: float) -> list[Confusion]:
    """Every class taken for another, the most frequent first; paired without regard to the class, as `metrics.score` does.

    Args:
        dataset: n photos.
        found: Detections on each.
        threshold: Those scored below it are left out.

    Raises:
        ShelfcountError: As `metrics.score` does.
    """
    check(dataset, found)
    usual = self_confidence(dataset, found, threshold)
    mistakes: dict[tuple[int, int], list[Mistake]] = {}
    products = np.zeros(len(dataset.classes), np.int64)
    for photo, low in zip(dataset.photos, found, strict=True):
        truth, boxes = photo.truth, low[low.scores >= threshold]
        np.add.at(products, truth.classes[~truth.ignore], 1)
        matches = match(truth, boxes, by_class=False)
        for i in np.flatnonzero(matches.hit):
            t, reported = matches.partner[i], int(boxes.classes[i])
            if truth.classes[t] != reported:
                score = float(boxes.scores[i])
                mistake = Mistake(photo, truth.boxes[t], score, score >= usual[reported])
                mistakes.setdefault((int(truth.classes[t]), reported), []).append(mistake)
    return sorted(
        (
            Confusion(
                true,
                reported,
                tuple(sorted(of, key=lambda m: -m.score)),
                int(products[true]),
                len(mistakes.get((reported, true), ())),
            )
            for (true, reported), of in mistakes.items()
        ),
        key=lambda c: (-len(c.mistakes), c.true, c.reported),
    )


@dataclass(frozen=True)
class Need:
    """What the errors of one class cost.

    Attributes:
        name: Of the class.
        products: That stand on the photos.
        missed: Of these, nothing was reported.
        misnamed: Of these, another class was reported.
        taken_for: Products of other classes that were reported as this.
        nothing: Reported as this where nothing stands.
        bound: By how much F1 would rise if all of these were mended and nothing else changed: more examples can't give more.
        trained: Examples it had in training; None where that is not known.
        halving: How many more examples would halve what is lost, by its learning curve; None without one that falls.
        gain: By how much F1 would rise with `MORE_EXAMPLES` more of them, by that curve.
    """

    name: str
    products: int
    missed: int
    misnamed: int
    taken_for: int
    nothing: int
    bound: float
    trained: int | None = None
    halving: int | None = None
    gain: float | None = None


def needs(
    classes: Sequence[str],
    confusion: np.ndarray,
    trained: Mapping[str, int] | None = None,
    curves: Mapping[str, Curve] | None = None,
) -> list[Need]:
    """What each class costs; classes without an error are left out.

    First those to which more examples would give most, as far as curves say so; then the dearest.

    Args:
        classes: C names.
        confusion: (C + 1, C + 1) int64 of an `Evaluation`.
        trained: Examples of each class in training.
        curves: Learning curves of some classes, such as the repeats of a training on parts of the data give.
    """
    truth, found, right = (
        int(confusion[:-1].sum()),
        int(confusion[:, :-1].sum()),
        int(np.trace(confusion[:-1, :-1])),
    )
    base = 2 * right / max(truth + found, 1)
    rows = []
    for c, name in enumerate(classes):
        missed, nothing = int(confusion[c, -1]), int(confusion[-1, c])
        misnamed = int(confusion[c, :-1].sum() - confusion[c, c])
        taken_for = int(confusion[:-1, c].sum() - confusion[c, c])
        if missed + nothing + misnamed + taken_for:
            mended = (
                2
                * (right + missed + misnamed + taken_for)
                / max(truth + found + missed - nothing, 1)
            )
            examples = None if trained is None else trained.get(name, 0)
            halving = gain = None
            if curves and (fit := _power_law(curves.get(name, ()))):
                most, slope = fit
                halving = round(most * (2 ** (-1 / slope) - 1))
                # The curve is of what the class itself loses: not of others taken for it.
                own = 2 * (right + missed + misnamed) / max(truth + found + missed, 1) - base
                gain = own * (1 - (1 + MORE_EXAMPLES / most) ** slope)
            rows.append(
                Need(
                    name,
                    int(confusion[c].sum()),
                    missed,
                    misnamed,
                    taken_for,
                    nothing,
                    mended - base,
                    examples,
                    halving,
                    gain,
                )
            )
    return sorted(rows, key=lambda need: (-(need.gain or 0.0), -need.bound, need.name))


def _power_law(curve: Curve) -> tuple[float, float] | None:
    """The most examples that were tried, and the exponent of a power law through the points; None where it hardly falls."""
    points = np.array([point for point in curve if min(point) > 0], np.float64).reshape(-1, 2)
    if len(points) < FEWEST_POINTS or len(np.unique(points[:, 0])) < FEWEST_POINTS:
        return None
    slope = float(np.polyfit(np.log(points[:, 0]), np.log(points[:, 1]), 1)[0])
    return (float(points[:, 0].max()), slope) if slope < LEAST_SLOPE else None
