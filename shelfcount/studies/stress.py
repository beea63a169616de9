"""Robustness study: metrics of detectors on the same photos under conditions of five severities.

F1 and count error compare detections with the labels, moved along with the pixels. Consistency
compares a detector with itself: the share of products found on the original photo that it
still finds, by box (IoU 0.5) and label. It needs no labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.metrics.evaluate import detect_dataset
from shelfcount.metrics.matching import MATCH_IOU, match
from shelfcount.metrics.scoring import Evaluation, score
from shelfcount.metrics.uncertainty import f1_influence, standard_error
from shelfcount.records import Dataset, Detections, Detector, Progress, ShelfcountError
from shelfcount.runtime.photos import read_photos
from shelfcount.studies.stress_conditions import condition_generator
from shelfcount.vision.conditions import SEVERITIES, Condition
from shelfcount.vision.images import exif_phone

# Maximum loss of F1 at which a detector is regarded as robust to a condition.
TOLERATED = 0.05
# Maximum number of conditions for training: with more of them, each is used less often.
MAX_FIXED_CONDITIONS = 8
# A loss is significant if it is at least this number of standard errors.
SIGNIFICANT_ERRORS = 2.0


@dataclass(frozen=True, eq=False)
class StressedDetector:
    """A detector to evaluate.

    Attributes:
        name: Display name, unique in a study.
        detector: A detector with the classes of the data set.
        threshold: Score threshold, at least the detector's own.
        facts: Description of the detector, such as recipe and SHA-256.
    """

    name: str
    detector: Detector
    threshold: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def detect(self, image: NDArray[np.uint8], names: Sequence[str]) -> Detections:
        """Run the detector on a photo.

        Args:
            image: (h, w, 3) uint8, RGB.
            names: Class names of the data set.

        Returns:
            The detections above the score threshold, with classes as indices into `names`.
        """
        boxes = self.detector.detect(image)
        boxes = boxes[boxes.scores >= self.threshold]
        order = np.array([names.index(name) for name in self.detector.spec.classes])
        return boxes.replace(classes=order[boxes.classes])


@dataclass(frozen=True, eq=False)
class StressCell:
    """Detections on all photos under one condition at one severity.

    Attributes:
        truths: Labels of each photo, transformed with the pixels.
        detections: Detections of each subject on each photo.
        still_found: For each subject and photo, (n,) bool; whether a detection on the original
            photo that is still in view is detected again.
        clean: For each subject and photo, the detections on the original photo, transformed with
            the pixels.
    """

    truths: list[Detections]
    detections: list[list[Detections]]
    still_found: list[list[NDArray[np.bool_]]]
    clean: list[list[Detections]]


@dataclass(frozen=True)
class StressScores:
    """Metrics of one detector under one condition at one severity.

    Attributes:
        f1: Class-aware F1 over all boxes at IoU 0.5.
        lost: F1 on the original photos minus `f1`.
        lost_error: Standard error of `lost` over the photos. None for a single photo.
        count_error: Sum of the count errors by class, as a share of the labelled products. None if
            products are counted but none is labelled.
        consistency: Share of the original detections that keep box and class. None if there is
            none.
    """

    f1: float
    lost: float
    lost_error: float | None
    count_error: float | None
    consistency: float | None


@dataclass(frozen=True)
class StressSummary:
    """Metrics of one detector under one condition over all severities.

    Attributes:
        lost: Mean loss of F1 over the severities.
        lost_error: Standard error of `lost` over the photos. None for a single photo.
        tolerated_up_to: Parameter of the condition at which the loss of F1 reaches `TOLERATED`,
            interpolated linearly between severities. None if the loss does not reach it.
        never_tolerated: Whether the loss reaches `TOLERATED` at the lowest severity already, for a
            condition without a neutral parameter.
    """

    lost: float
    lost_error: float | None
    tolerated_up_to: float | None
    never_tolerated: bool = False


@dataclass(frozen=True, eq=False)
class StressStudy:
    """Detections of several detectors on the same photos under several conditions.

    Attributes:
        dataset: The original photos.
        subjects: The detectors. Conditions are ordered by the first one.
        conditions: The conditions.
        severities: The severities of each condition, ascending.
        seed: Seed of directions, positions and noise.
        clean: Metrics of each subject on the original photos.
        cells: Detections by name of the condition and severity.
        detections: Detections of each subject on each original photo.
    """

    dataset: Dataset
    subjects: tuple[StressedDetector, ...]
    conditions: tuple[Condition, ...]
    severities: tuple[int, ...]
    seed: int
    clean: tuple[Evaluation, ...]
    cells: Mapping[tuple[str, int], StressCell]
    detections: tuple[list[Detections], ...]

    @cached_property
    def results(self) -> dict[tuple[str, int], list[Evaluation]]:
        """Metrics of each subject by name of the condition and severity."""
        evaluations = {}
        for key, cell in self.cells.items():
            photos = tuple(
                dataclasses.replace(photo, truth=t)
                for photo, t in zip(self.dataset.photos, cell.truths, strict=True)
            )
            changed = dataclasses.replace(self.dataset, photos=photos)
            evaluations[key] = [
                score(changed, detections, 0.0, average_precision=False)
                for detections in cell.detections
            ]
        return evaluations

    def figures(self, condition: str, severity: int, subject: int) -> StressScores:
        """Return the metrics of a subject under one condition at one severity.

        Args:
            condition: Name of the condition.
            severity: Severity.
            subject: Index of the subject.
        """
        result, before = self.results[condition, severity][subject], self.clean[subject]
        still_found = np.concatenate(self.cells[condition, severity].still_found[subject])
        return StressScores(
            f1=result.micro.f1,
            lost=before.micro.f1 - result.micro.f1,
            lost_error=standard_error(f1_influence(before) - f1_influence(result)),
            count_error=result.count_by_class.relative,
            consistency=float(still_found.mean()) if len(still_found) else None,
        )

    def summary(self, condition: Condition, subject: int) -> StressSummary:
        """Return the metrics of a subject under a condition over all severities.

        Args:
            condition: The condition.
            subject: Index of the subject.
        """
        results = [self.results[condition.name, severity][subject] for severity in self.severities]
        before = self.clean[subject]
        lost = [before.micro.f1 - result.micro.f1 for result in results]
        differences = [f1_influence(before) - f1_influence(result) for result in results]
        values = [condition.values[severity - 1] for severity in self.severities]
        never = lost[0] >= TOLERATED and condition.neutral is None
        return StressSummary(
            float(np.mean(lost)),
            standard_error(np.mean(differences, axis=0)),
            None if never else interpolated_limit(condition.neutral, values, lost),
            never,
        )

    def ranked(self) -> list[Condition]:
        """Return the conditions, sorted by the loss of F1 of the first subject, largest first."""
        return sorted(self.conditions, key=lambda c: -self.summary(c, 0).lost)

    def weak_conditions(self, subject: int = 0) -> list[Condition]:
        """Return the conditions that a training should cover.

        Args:
            subject: Index of the subject.

        Returns:
            At most `MAX_FIXED_CONDITIONS` conditions whose mean loss of F1 is at least `TOLERATED`
            and at least `SIGNIFICANT_ERRORS` standard errors, largest loss first.
        """
        summaries = {
            condition.name: self.summary(condition, subject) for condition in self.conditions
        }
        weak = [
            c
            for c in self.conditions
            if (s := summaries[c.name]).lost
            >= max(TOLERATED, SIGNIFICANT_ERRORS * (s.lost_error or 0.0))
        ]
        return sorted(weak, key=lambda c: -summaries[c.name].lost)[:MAX_FIXED_CONDITIONS]

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as a JSON object, with the condition of the largest loss first.

        Each list of metrics has one entry per detector.
        """
        indices = range(len(self.subjects))
        return {
            "photos": len(self.dataset),
            "seed": self.seed,
            "iou": MATCH_IOU,
            "tolerated": TOLERATED,
            "detectors": [
                {
                    **subject.facts,
                    "name": subject.name,
                    "threshold": subject.threshold,
                    "products": clean.micro.truth,
                    "f1": clean.micro.f1,
                    "count_error": clean.count_by_class.relative,
                }
                for subject, clean in zip(self.subjects, self.clean, strict=True)
            ],
            "conditions": [
                {
                    **{
                        key: getattr(condition, key)
                        for key in ("name", "title", "group", "unit", "neutral")
                    },
                    "detectors": [dataclasses.asdict(self.summary(condition, i)) for i in indices],
                    "severities": [
                        {
                            "severity": severity,
                            "value": condition.values[severity - 1],
                            "products": self.results[condition.name, severity][0].micro.truth,
                            "detectors": [
                                dataclasses.asdict(self.figures(condition.name, severity, i))
                                for i in indices
                            ],
                        }
                        for severity in self.severities
                    ],
                }
                for condition in self.ranked()
            ],
            "phones": scores_by_phone(self.dataset, self.detections),
        }


def run_stress(
    subjects: Sequence[StressedDetector],
    dataset: Dataset,
    conditions: Sequence[Condition],
    severities: Sequence[int] = SEVERITIES,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> StressStudy:
    """Run each detector on the same photos under each condition.

    Args:
        subjects: The detectors, at least one.
        dataset: Labelled photos, at least one.
        conditions: Conditions of `vision.conditions`.
        severities: Severities of each condition, ascending.
        seed: Seed of everything random. The study depends only on the seed, the photos and the
            detectors.
        progress: Called with the number of photos done and the number of all photos.

    Returns:
        The detections and metrics.

    Raises:
        ShelfcountError: For the reasons given at `detect_dataset` and `score`, or if two
            subjects have the same name.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) != len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ShelfcountError(f"detector '{duplicate}' is given more than once. Give it once.")
    counted = []
    for subject in subjects:
        detections = detect_dataset(subject.detector, dataset)
        counted.append([boxes[boxes.scores >= subject.threshold] for boxes in detections])
    clean = tuple(score(dataset, boxes, 0.0, average_precision=False) for boxes in counted)
    keys = [(condition, severity) for condition in conditions for severity in severities]
    cells = {
        (c.name, s): StressCell(
            [], [[] for _ in subjects], [[] for _ in subjects], [[] for _ in subjects]
        )
        for c, s in keys
    }
    for index, (photo, image) in enumerate(read_photos(dataset.photos, progress=progress)):
        for condition, severity in keys:
            changed = condition.apply(
                image, severity, condition_generator(seed, condition.name, index)
            )
            cell = cells[condition.name, severity]
            cell.truths.append(changed.move(photo.truth)[0])
            for i, subject in enumerate(subjects):
                after = subject.detect(changed.image, dataset.classes)
                before = changed.move(counted[i][index])[0]
                cell.detections[i].append(after)
                cell.clean[i].append(before)
                cell.still_found[i].append(~match(before, after).missed[~before.ignore])
    return StressStudy(
        dataset,
        tuple(subjects),
        tuple(conditions),
        tuple(severities),
        seed,
        clean,
        cells,
        tuple(counted),
    )


def interpolated_limit(
    neutral: float | None, values: Sequence[float], lost: Sequence[float], limit: float = TOLERATED
) -> float | None:
    """Find the parameter of a condition at which the loss first reaches a limit.

    The loss is interpolated linearly between the points (value, loss), starting with no loss at
    `neutral`.

    Args:
        neutral: Parameter without effect. None if there is none; the first loss must then be below
            the limit.
        values: Parameters in the order of severity, ascending or descending.
        lost: Loss at each parameter.
        limit: Limit of the loss, above 0.

    Returns:
        The parameter, or None if the limit is not reached.
    """
    last_value, last_loss = (values[0] if neutral is None else neutral), 0.0
    for value, loss in zip(values, lost, strict=True):
        if loss >= limit:
            share = (limit - last_loss) / (loss - last_loss)
            return float(last_value + (value - last_value) * share)
        last_value, last_loss = value, loss
    return None


def scores_by_phone(
    dataset: Dataset, detections: Sequence[Sequence[Detections]]
) -> list[dict[str, Any]]:
    """Compute F1 and count error by the phone that took the photos, as named in their EXIF data.

    Args:
        dataset: Labelled photos.
        detections: Detections of each detector on each photo, above its score threshold.

    Returns:
        One row per phone, most photos first. Photos without the name of a phone are left out.
    """
    by_phone: dict[str, list[int]] = {}
    for i, photo in enumerate(dataset.photos):
        if model := exif_phone(photo.path):
            by_phone.setdefault(model, []).append(i)
    rows = []
    for model, indices in sorted(by_phone.items(), key=lambda item: -len(item[1])):
        evaluations = [
            score(
                dataset.subset(indices), [boxes[i] for i in indices], 0.0, average_precision=False
            )
            for boxes in detections
        ]
        metrics = [
            {"f1": e.micro.f1, "count_error": e.count_by_class.relative} for e in evaluations
        ]
        rows.append(
            {
                "phone": model,
                "photos": len(indices),
                "products": evaluations[0].micro.truth,
                "detectors": metrics,
            }
        )
    return rows
