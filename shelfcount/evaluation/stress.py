"""Robustness: metrics of detectors on the same photos under image corruptions.

The corruptions are the conditions of `vision.conditions`, each at five severities (strengths).
Three metrics are measured. F1 and count error compare the detections with the labels, which are
transformed with the pixels if a condition moves them. Consistency compares the detections with
those on the original photo: it is the share of the original detections that are detected again with
the same class and an IoU of at least 0.5. It does not depend on the labels.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from shelfcount.config import Config
from shelfcount.evaluation.metrics import MATCH_IOU, Evaluation, match, run, score
from shelfcount.records import Dataset, Detections, Detector, ShelfcountError
from shelfcount.vision.conditions import CONDITIONS, STRENGTHS, Condition
from shelfcount.vision.images import read_photo

# Maximum loss of F1 at which a detector is regarded as robust to a condition.
TOLERATED = 0.05
# Maximum number of conditions for training: with more of them, each is used less often.
MOST_COVERED = 8
# A loss is significant if it is at least this number of standard errors.
SURE = 2.0


@dataclass(frozen=True, eq=False)
class Subject:
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

    def found(self, image: NDArray[np.uint8], names: Sequence[str]) -> Detections:
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
class Cell:
    """Detections on all photos under one condition at one severity.

    Attributes:
        truths: Labels of each photo, transformed with the pixels.
        found: Detections of each subject on each photo.
        stayed: For each subject and photo, (n,) bool; whether a detection on the original photo
            that is still in view is detected again.
        clean: For each subject and photo, the detections on the original photo, transformed with
            the pixels.
    """

    truths: list[Detections]
    found: list[list[Detections]]
    stayed: list[list[NDArray[np.bool_]]]
    clean: list[list[Detections]]


@dataclass(frozen=True)
class Figures:
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
class Summary:
    """Metrics of one detector under one condition over all severities.

    Attributes:
        lost: Mean loss of F1 over the severities.
        lost_error: Standard error of `lost` over the photos. None for a single photo.
        holds_to: Parameter of the condition at which the loss of F1 reaches `TOLERATED`,
            interpolated linearly between severities. None if the loss does not reach it.
        holds_never: Whether the loss reaches `TOLERATED` at the lowest severity already, for a
            condition without a neutral parameter.
    """

    lost: float
    lost_error: float | None
    holds_to: float | None
    holds_never: bool = False


@dataclass(frozen=True, eq=False)
class Study:
    """Detections of several detectors on the same photos under several conditions.

    Attributes:
        dataset: The original photos.
        subjects: The detectors. Conditions are ordered by the first one.
        conditions: The conditions.
        strengths: The severities of each condition, ascending.
        seed: Seed of directions, positions and noise.
        clean: Metrics of each subject on the original photos.
        cells: Detections by name of the condition and severity.
        found: Detections of each subject on each original photo.
    """

    dataset: Dataset
    subjects: tuple[Subject, ...]
    conditions: tuple[Condition, ...]
    strengths: tuple[int, ...]
    seed: int
    clean: tuple[Evaluation, ...]
    cells: Mapping[tuple[str, int], Cell]
    found: tuple[list[Detections], ...]

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
                for detections in cell.found
            ]
        return evaluations

    def figures(self, condition: str, strength: int, subject: int) -> Figures:
        """Return the metrics of a subject under one condition at one severity.

        Args:
            condition: Name of the condition.
            strength: Severity.
            subject: Index of the subject.
        """
        result, before = self.results[condition, strength][subject], self.clean[subject]
        stayed = np.concatenate(self.cells[condition, strength].stayed[subject])
        return Figures(
            f1=result.micro.f1,
            lost=before.micro.f1 - result.micro.f1,
            lost_error=_standard_error(influence(before) - influence(result)),
            count_error=result.count_by_class.relative,
            consistency=float(stayed.mean()) if len(stayed) else None,
        )

    def summary(self, condition: Condition, subject: int) -> Summary:
        """Return the metrics of a subject under a condition over all severities.

        Args:
            condition: The condition.
            subject: Index of the subject.
        """
        results = [self.results[condition.name, strength][subject] for strength in self.strengths]
        before = self.clean[subject]
        lost = [before.micro.f1 - result.micro.f1 for result in results]
        differences = [influence(before) - influence(result) for result in results]
        values = [condition.values[strength - 1] for strength in self.strengths]
        never = lost[0] >= TOLERATED and condition.neutral is None
        return Summary(
            float(np.mean(lost)),
            _standard_error(np.mean(differences, axis=0)),
            None if never else crossing(condition.neutral, values, lost),
            never,
        )

    def ranked(self) -> list[Condition]:
        """Return the conditions, sorted by the loss of F1 of the first subject, largest first."""
        return sorted(self.conditions, key=lambda c: -self.summary(c, 0).lost)

    def to_cover(self, subject: int = 0) -> list[Condition]:
        """Return the conditions that a training should cover.

        Args:
            subject: Index of the subject.

        Returns:
            At most `MOST_COVERED` conditions whose mean loss of F1 is at least `TOLERATED` and at
            least `SURE` standard errors, largest loss first.
        """
        summaries = {
            condition.name: self.summary(condition, subject) for condition in self.conditions
        }
        weak = [
            c
            for c in self.conditions
            if (s := summaries[c.name]).lost >= max(TOLERATED, SURE * (s.lost_error or 0.0))
        ]
        return sorted(weak, key=lambda c: -summaries[c.name].lost)[:MOST_COVERED]

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
                    "strengths": [
                        {
                            "strength": strength,
                            "value": condition.values[strength - 1],
                            "products": self.results[condition.name, strength][0].micro.truth,
                            "detectors": [
                                dataclasses.asdict(self.figures(condition.name, strength, i))
                                for i in indices
                            ],
                        }
                        for strength in self.strengths
                    ],
                }
                for condition in self.ranked()
            ],
            "phones": phones(self.dataset, self.found),
        }


def chosen(names: str, strengths: str) -> tuple[tuple[Condition, ...], tuple[int, ...]]:
    """Parse the conditions and severities of options of the command line.

    Args:
        names: Names of conditions, separated by commas. Empty: all.
        strengths: Severities, separated by commas. Empty: all.

    Returns:
        The conditions in the given order, and the severities in ascending order, each without
        duplicates.

    Raises:
        ShelfcountError: If a condition or severity does not exist.
    """
    selected = [name.strip() for name in names.split(",") if name.strip()] or list(CONDITIONS)
    if unknown := [name for name in selected if name not in CONDITIONS]:
        raise ShelfcountError(
            f"unknown condition '{unknown[0]}'. Allowed conditions: {', '.join(CONDITIONS)}."
        )
    levels = [level.strip() for level in strengths.split(",") if level.strip()] or [
        str(s) for s in STRENGTHS
    ]
    if unknown := [level for level in levels if level not in map(str, STRENGTHS)]:
        allowed = ", ".join(map(str, STRENGTHS))
        raise ShelfcountError(f"unknown strength '{unknown[0]}'. Allowed strengths: {allowed}.")
    conditions = tuple(CONDITIONS[name] for name in dict.fromkeys(selected))
    return conditions, tuple(sorted({int(level) for level in levels}))


def spread(dataset: Dataset, photos: int) -> Dataset:
    """Select photos that are evenly spaced over a data set.

    Args:
        dataset: The data set.
        photos: Number of photos to select.

    Returns:
        The selected photos, or all if the data set does not have more.
    """
    positions = np.linspace(0, len(dataset) - 1, min(photos, len(dataset)))
    return dataset.subset(positions.round().astype(int).tolist())


def generator(seed: int, condition: str, photo: int) -> np.random.Generator:
    """Create the random generator of a condition on a photo, which is the same for every severity.

    Args:
        seed: Seed of the study.
        condition: Name of the condition.
        photo: Index of the photo.

    Returns:
        The random generator.
    """
    return np.random.default_rng((seed, zlib.crc32(condition.encode()), photo))


def measure(
    subjects: Sequence[Subject],
    dataset: Dataset,
    conditions: Sequence[Condition],
    strengths: Sequence[int] = STRENGTHS,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Study:
    """Run each detector on the same photos under each condition.

    Args:
        subjects: The detectors, at least one.
        dataset: Labelled photos, at least one.
        conditions: Conditions of `vision.conditions`.
        strengths: Severities of each condition, ascending.
        seed: Seed of everything random. The study depends only on the seed, the photos and the
            detectors.
        progress: Called with the number of photos done and the number of all photos.

    Returns:
        The detections and metrics.

    Raises:
        ShelfcountError: For the reasons given at `metrics.run` and `metrics.score`, or if two
            subjects have the same name.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) != len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ShelfcountError(f"detector '{duplicate}' is given more than once. Give it once.")
    counted = []
    for subject in subjects:
        detections = run(subject.detector, dataset)
        counted.append([boxes[boxes.scores >= subject.threshold] for boxes in detections])
    clean = tuple(score(dataset, boxes, 0.0, average_precision=False) for boxes in counted)
    keys = [(condition, strength) for condition in conditions for strength in strengths]
    cells = {
        (c.name, s): Cell(
            [], [[] for _ in subjects], [[] for _ in subjects], [[] for _ in subjects]
        )
        for c, s in keys
    }
    for index, photo in enumerate(dataset.photos):
        image = read_photo(photo.path)
        for condition, strength in keys:
            changed = condition.apply(image, strength, generator(seed, condition.name, index))
            cell = cells[condition.name, strength]
            cell.truths.append(changed.move(photo.truth)[0])
            for i, subject in enumerate(subjects):
                after = subject.found(changed.image, dataset.classes)
                before = changed.move(counted[i][index])[0]
                cell.found[i].append(after)
                cell.clean[i].append(before)
                cell.stayed[i].append(~match(before, after).missed[~before.ignore])
        if progress is not None:
            progress(index + 1, len(dataset))
    return Study(
        dataset,
        tuple(subjects),
        tuple(conditions),
        tuple(strengths),
        seed,
        clean,
        cells,
        tuple(counted),
    )


def influence(result: Evaluation) -> NDArray[np.float64]:
    """Compute the influence of each photo on F1 (the delta method for a ratio of sums).

    Args:
        result: Metrics on n photos.

    Returns:
        (n,) float64; change of F1 by each photo, to first order.
    """
    f1, whole = result.micro.f1, max(result.micro.truth + result.micro.found, 1)
    return np.array(
        [(2 * p.score.tp - f1 * (p.score.truth + p.score.found)) / whole for p in result.photos]
    )


def _standard_error(influences: NDArray[np.float64]) -> float | None:
    n = len(influences)
    return (
        float(np.sqrt(n / (n - 1) * ((influences - influences.mean()) ** 2).sum()))
        if n > 1
        else None
    )


def crossing(
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


def phones(dataset: Dataset, found: Sequence[Sequence[Detections]]) -> list[dict[str, Any]]:
    """Compute F1 and count error by the phone that took the photos, as named in their EXIF data.

    Args:
        dataset: Labelled photos.
        found: Detections of each detector on each photo, above its score threshold.

    Returns:
        One row per phone, most photos first. Photos without the name of a phone are left out.
    """
    by_phone: dict[str, list[int]] = {}
    for i, photo in enumerate(dataset.photos):
        if model := phone_model(photo.path):
            by_phone.setdefault(model, []).append(i)
    rows = []
    for model, indices in sorted(by_phone.items(), key=lambda item: -len(item[1])):
        evaluations = [
            score(
                dataset.subset(indices), [boxes[i] for i in indices], 0.0, average_precision=False
            )
            for boxes in found
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


def phone_model(path: Path) -> str:
    """Read the name of the phone that took a photo from its EXIF data.

    Args:
        path: The photo.

    Returns:
        Maker and model, or an empty string if the photo cannot be read or has no such data.
    """
    try:
        with Image.open(path) as image:
            exif = image.getexif()
    except OSError:
        return ""
    make, model = (
        str(exif.get(tag) or "").strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
    )
    # The model of many makers starts with the name of the maker.
    return model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()


def covered(base: Config, conditions: Sequence[Condition]) -> Config:
    """Add conditions to the augmentation of a training configuration.

    Args:
        base: Configuration of a training run.
        conditions: Conditions to add.

    Returns:
        A copy of the configuration with its own conditions and the added ones.
    """
    names = tuple(
        dict.fromkeys([*base.augment.conditions, *(condition.name for condition in conditions)])
    )
    return base.model_copy(
        update={"augment": base.augment.model_copy(update={"conditions": names})}
    )
