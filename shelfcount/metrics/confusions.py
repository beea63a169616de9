"""Confusions between classes: their photos and costs, and which classes need more examples.

An evaluation gives an upper bound of what more examples of a class could gain. Learning curves,
from trainings on parts of the data, give an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfcount.metrics.matching import match
from shelfcount.metrics.scoring import Evaluation, require_scorable
from shelfcount.records import Dataset, Detections, Photo

# Minimum number of detections for a mean score per class. With fewer, the mean of all classes is
# used.
MIN_AGREED = 5


def class_confidence_thresholds(
    dataset: Dataset, detections: Sequence[Detections], threshold: float
) -> NDArray[np.float64]:
    """Return the mean score of each class over the detections that agree with their labels.

    Args:
        dataset: Photos that the model was not trained on.
        detections: Detections on each photo, in the order of the photos.
        threshold: Score threshold. Detections below it are left out.

    Returns:
        (C,) float64. A class with fewer than `MIN_AGREED` such detections gets the mean over all
        classes. 1 if no detection agrees with a label.

    Raises:
        ShelfcountError: For the reasons given at `require_scorable`.
    """
    require_scorable(dataset, detections)
    sums, numbers = np.zeros(len(dataset.classes)), np.zeros(len(dataset.classes), np.int64)
    for photo, low in zip(dataset.photos, detections, strict=True):
        counted = low[low.scores >= threshold]
        agreed = counted[match(photo.truth, counted).hit]
        np.add.at(sums, agreed.classes, agreed.scores)
        np.add.at(numbers, agreed.classes, 1)
    overall = sums.sum() / numbers.sum() if numbers.sum() else 1.0
    return np.where(numbers >= MIN_AGREED, sums / np.maximum(numbers, 1), overall)


# A power law has two parameters, so its fit cannot be checked with fewer points.
_MIN_CURVE_POINTS = 3
# Maximum exponent of a usable power law: a flatter curve cannot be extrapolated.
MIN_SLOPE = -0.1
# About the number of examples of a class on two photos of a shelf, and small enough that a curve is
# not extrapolated far beyond its points.
MORE_EXAMPLES = 50
# Points of a learning curve: number of training examples of a class, and share of its products
# missed.
LearningCurve = Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Mistake:
    """One product that was detected with a wrong class.

    Attributes:
        photo: The photo with its labels.
        box: (4,) float32, xyxy pixels; the labelled box.
        score: Score of the detection.
        confident: Whether the score is at least the mean score of the predicted class over
            detections that agree with their labels.
    """

    photo: Photo
    box: NDArray[np.float32]
    score: float
    confident: bool


@dataclass(frozen=True, eq=False)
class Confusion:
    """One class that is confused with another.

    Attributes:
        true, reported: Indices of the labelled and the predicted class.
        mistakes: The confused products, highest score first.
        products: Number of products of the true class on all photos.
        reverse: Number of confusions in the opposite direction.
    """

    true: int
    reported: int
    mistakes: tuple[Mistake, ...]
    products: int
    reverse: int

    @property
    def share(self) -> float:
        """Share of the products of the true class that are confused."""
        return len(self.mistakes) / self.products

    @property
    def photos(self) -> tuple[str, ...]:
        """File names of the photos, the one with the most mistakes first."""
        names = [mistake.photo.path.name for mistake in self.mistakes]
        return tuple(sorted(dict.fromkeys(names), key=lambda name: -names.count(name)))

    @property
    def confident(self) -> int:
        """Number of mistakes with high confidence, for which the label may be wrong instead."""
        return sum(mistake.confident for mistake in self.mistakes)


def confusions(
    dataset: Dataset, detections: Sequence[Detections], threshold: float
) -> list[Confusion]:
    """List every pair of confused classes, based on class-agnostic matches as in `score`.

    Args:
        dataset: Labelled photos.
        detections: Detections on each photo, in the order of the photos.
        threshold: Score threshold. Detections below it are left out.

    Returns:
        The pairs, the most frequent first.

    Raises:
        ShelfcountError: For the reasons given at `require_scorable`.
    """
    require_scorable(dataset, detections)
    confidence = class_confidence_thresholds(dataset, detections, threshold)
    mistakes: dict[tuple[int, int], list[Mistake]] = {}
    products = np.zeros(len(dataset.classes), np.int64)
    for photo, low in zip(dataset.photos, detections, strict=True):
        truth, boxes = photo.truth, low[low.scores >= threshold]
        np.add.at(products, truth.classes[~truth.ignore], 1)
        matches = match(truth, boxes, by_class=False)
        for i in np.flatnonzero(matches.hit):
            t, reported = matches.partner[i], int(boxes.classes[i])
            if truth.classes[t] != reported:
                score = float(boxes.scores[i])
                mistake = Mistake(photo, truth.boxes[t], score, score >= confidence[reported])
                mistakes.setdefault((int(truth.classes[t]), reported), []).append(mistake)
    return sorted(
        (
            Confusion(
                true,
                reported,
                tuple(sorted(pair, key=lambda m: -m.score)),
                int(products[true]),
                len(mistakes.get((reported, true), ())),
            )
            for (true, reported), pair in mistakes.items()
        ),
        key=lambda c: (-len(c.mistakes), c.true, c.reported),
    )


@dataclass(frozen=True)
class Need:
    """Errors of one class and the F1 they cost.

    Attributes:
        name: Name of the class.
        products: Number of labelled products.
        missed: Number of labelled products without a detection.
        misnamed: Number of labelled products that were detected as another class.
        taken_for: Number of products of other classes that were detected as this class.
        nothing: Number of false positives on background.
        bound: Maximum F1 gain: increase of the overall F1 if every error of this class were
            corrected and nothing else changed. More training examples cannot gain more.
        trained: Number of training examples. None if it is not known.
        halving: Number of additional examples that would halve the share of missed products, by the
            learning curve. None without a curve that falls.
        gain: Estimated increase of the overall F1 with `MORE_EXAMPLES` additional examples, by the
            learning curve. None without a curve that falls.
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


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """Errors of a model by class.

    Attributes:
        pairs: Confused classes, the most frequent pair first.
        needs: Errors of each class and the F1 they cost.
        trained: Number of training examples by class name; None if unknown.
        curves: Learning curves by class name; None if unknown.
    """

    pairs: Sequence[Confusion]
    needs: Sequence[Need]
    trained: Mapping[str, int] | None = None
    curves: Mapping[str, LearningCurve] | None = None


def analyse_errors(
    dataset: Dataset,
    detections: Sequence[Detections],
    evaluation: Evaluation,
    trained: Mapping[str, int] | None = None,
    curves: Mapping[str, LearningCurve] | None = None,
) -> ErrorAnalysis:
    """Analyse the errors of a model by class.

    Args:
        dataset: Labelled photos.
        detections: Detections of the model on each photo.
        evaluation: Metrics of these detections, from `metrics.scoring.score`.
        trained: Number of training examples by class name, if it is known.
        curves: Learning curves by class name, as for `needs`, if they are known.

    Returns:
        Confused pairs and errors by class.

    Raises:
        ShelfcountError: If data and detections do not match.
    """
    return ErrorAnalysis(
        confusions(dataset, detections, evaluation.threshold),
        needs(dataset.classes, evaluation.confusion, trained, curves),
        trained,
        curves,
    )


def needs(
    classes: Sequence[str],
    confusion: NDArray[np.int64],
    trained: Mapping[str, int] | None = None,
    curves: Mapping[str, LearningCurve] | None = None,
) -> list[Need]:
    """List the errors of each class and the F1 they cost.

    Args:
        classes: Names of the C classes.
        confusion: (C + 1, C + 1) int64 confusion matrix of an `Evaluation`.
        trained: Number of training examples of each class.
        curves: Learning curves of some classes, for example from
            `repeat_statistics.learning_curves`.

    Returns:
        One entry per class with an error, sorted by `Need.gain`, then by `Need.bound`, highest
        first.
    """
    truth = int(confusion[:-1].sum())
    detected = int(confusion[:, :-1].sum())
    correct = int(np.trace(confusion[:-1, :-1]))
    base = 2 * correct / max(truth + detected, 1)
    rows = []
    for c, name in enumerate(classes):
        missed, nothing = int(confusion[c, -1]), int(confusion[-1, c])
        misnamed = int(confusion[c, :-1].sum() - confusion[c, c])
        taken_for = int(confusion[:-1, c].sum() - confusion[c, c])
        if missed + nothing + misnamed + taken_for:
            corrected_tp = correct + missed + misnamed + taken_for
            corrected_f1 = 2 * corrected_tp / max(truth + detected + missed - nothing, 1)
            examples = None if trained is None else trained.get(name, 0)
            halving = gain = None
            if curves and (fit := _power_law(curves.get(name, ()))):
                largest, slope = fit
                halving = round(largest * (2 ** (-1 / slope) - 1))
                # The curve describes the missed products of this class, so products of other
                # classes that were detected as this class are left out.
                found_tp = correct + missed + misnamed
                recoverable = 2 * found_tp / max(truth + detected + missed, 1) - base
                gain = recoverable * (1 - (1 + MORE_EXAMPLES / largest) ** slope)
            rows.append(
                Need(
                    name,
                    int(confusion[c].sum()),
                    missed,
                    misnamed,
                    taken_for,
                    nothing,
                    corrected_f1 - base,
                    examples,
                    halving,
                    gain,
                )
            )
    return sorted(rows, key=lambda need: (-(need.gain or 0.0), -need.bound, need.name))


def _power_law(curve: LearningCurve) -> tuple[float, float] | None:
    """Fit a power law to a learning curve.

    Returns:
        The largest number of examples on the curve and the exponent of the power law. None if there
        are fewer than `_MIN_CURVE_POINTS` points or the exponent is not below `MIN_SLOPE`.
    """
    points = np.array([point for point in curve if min(point) > 0], np.float64).reshape(-1, 2)
    if len(points) < _MIN_CURVE_POINTS or len(np.unique(points[:, 0])) < _MIN_CURVE_POINTS:
        return None
    slope = float(np.polyfit(np.log(points[:, 0]), np.log(points[:, 1]), 1)[0])
    return (float(points[:, 0].max()), slope) if slope < MIN_SLOPE else None
