"""Robustness: the same photos under conditions of `vision.conditions`, in five strengths each.

Three figures tell what a condition does to a detector. F1 and count error hold what it finds against the labels, moved
along where a condition moves pixels. Consistency holds it against itself: the share of the products it found on the photo
as it was that it still finds, box (IoU 0.5) and label. It needs no labels to be right, only the detector to be steady.
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
from PIL import ExifTags, Image

from shelfcount.config import Config
from shelfcount.evaluation.metrics import MATCH_IOU, Evaluation, match, run, score
from shelfcount.records import Dataset, Detections, Detector, ShelfcountError
from shelfcount.vision.conditions import CONDITIONS, STRENGTHS, Condition
from shelfcount.vision.images import read_photo

# F1 that may be lost before a condition counts as one that a detector does not stand.
TOLERATED = 0.05
# How many conditions training is given at most: each is seen the less often the more there are.
MOST_COVERED = 8
# Standard errors by which a loss must exceed 0 to be no accident of the photos.
SURE = 2.0


@dataclass(frozen=True, eq=False)
class Subject:
    """A detector to be judged.

    Attributes:
        name: For people; no two of a study share one.
        detector: Of the data's classes.
        threshold: Score from which a detection counts; not below the detector's own.
        facts: What it is: recipe, sha256 and the like.
    """

    name: str
    detector: Detector
    threshold: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def found(self, image: np.ndarray, names: Sequence[str]) -> Detections:
        """What counts on a photo, with classes as indices into `names`."""
        boxes = self.detector.detect(image)
        boxes = boxes[boxes.scores >= self.threshold]
        order = np.array([names.index(name) for name in self.detector.spec.classes])
        return boxes.replace(classes=order[boxes.classes])


@dataclass(frozen=True, eq=False)
class Cell:
    """One condition at one strength over all photos.

    Attributes:
        truths: Labels of each photo, moved along.
        found: For each subject, what it found on each photo.
        stayed: For each subject and photo, of those it found on the photo as it was and that are still in view: which are found (bool).
        clean: For each subject and photo, those same detections, moved along.
    """

    truths: list[Detections]
    found: list[list[Detections]]
    stayed: list[list[np.ndarray]]
    clean: list[list[Detections]]


@dataclass(frozen=True)
class Figures:
    """What a subject made of a condition at a strength.

    Attributes:
        f1: Micro, at IoU 0.5.
        lost: F1 on the photos as they were less `f1`.
        lost_error: Standard error of `lost`, photos being what was drawn; None for one photo.
        count_error: Products missed, added or misnamed / products that stand there; None if none stands there.
        consistency: Share of products that keep box and label; None where none was found on the photos as they were.
    """

    f1: float
    lost: float
    lost_error: float | None
    count_error: float | None
    consistency: float | None


@dataclass(frozen=True)
class Summary:
    """What a subject made of a condition over its strengths.

    Attributes:
        lost: Mean over the strengths of the F1 lost.
        lost_error: Its standard error; None for one photo.
        holds_to: Parameter at which `TOLERATED` is lost, between strengths by straight lines; None if that is never so.
        holds_never: Whether it is lost at the mildest strength, of a condition that has no neutral parameter.
    """

    lost: float
    lost_error: float | None
    holds_to: float | None
    holds_never: bool = False


@dataclass(frozen=True, eq=False)
class Study:
    """Detectors on the same photos under conditions.

    Attributes:
        dataset: The photos.
        subjects: The first is the one by which conditions are ordered.
        conditions: Those studied.
        strengths: Those studied.
        seed: Of directions, places and noise.
        clean: For each subject, scores on the photos as they were.
        cells: For each condition's name and strength.
        found: For each subject, what it found on each photo as it was.
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
        """For each condition's name and strength, the scores of each subject."""
        judged = {}
        for key, cell in self.cells.items():
            photos = tuple(
                dataclasses.replace(photo, truth=t)
                for photo, t in zip(self.dataset.photos, cell.truths, strict=True)
            )
            changed = dataclasses.replace(self.dataset, photos=photos)
            judged[key] = [
                score(changed, found, 0.0, average_precision=False) for found in cell.found
            ]
        return judged

    def figures(self, condition: str, strength: int, subject: int) -> Figures:
        """Of a subject in one cell."""
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
        """Of a subject over the strengths of a condition."""
        results = [self.results[condition.name, strength][subject] for strength in self.strengths]
        before = self.clean[subject]
        lost = [before.micro.f1 - result.micro.f1 for result in results]
        drawn = np.mean([influence(before) - influence(result) for result in results], axis=0)
        values = [condition.values[strength - 1] for strength in self.strengths]
        never = lost[0] >= TOLERATED and condition.neutral is None
        return Summary(
            float(np.mean(lost)),
            _standard_error(drawn),
            None if never else crossing(condition.neutral, values, lost),
            never,
        )

    def ranked(self) -> list[Condition]:
        """The conditions, those first under which the first subject loses most F1."""
        return sorted(self.conditions, key=lambda c: -self.summary(c, 0).lost)

    def to_cover(self, subject: int = 0) -> list[Condition]:
        """At most `MOST_COVERED` conditions that cost `TOLERATED` or more on average and beyond chance, weakest first."""
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
        """As plain lists, numbers and strings; conditions weakest first, and in each list of figures one entry a detector."""
        everyone = range(len(self.subjects))
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
                    "detectors": [dataclasses.asdict(self.summary(condition, i)) for i in everyone],
                    "strengths": [
                        {
                            "strength": strength,
                            "value": condition.values[strength - 1],
                            "products": self.results[condition.name, strength][0].micro.truth,
                            "detectors": [
                                dataclasses.asdict(self.figures(condition.name, strength, i))
                                for i in everyone
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
    """Conditions and strengths from comma-separated lists; all where a list is empty.

    Raises:
        ShelfcountError: If a name or strength does not exist.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(CONDITIONS)
    if unknown := [name for name in wanted if name not in CONDITIONS]:
        raise ShelfcountError(
            f"conditions must be among {', '.join(CONDITIONS)}; got '{unknown[0]}'"
        )
    levels = [level.strip() for level in strengths.split(",") if level.strip()] or [
        str(s) for s in STRENGTHS
    ]
    if unknown := [level for level in levels if level not in map(str, STRENGTHS)]:
        raise ShelfcountError(
            f"strengths must be among {', '.join(map(str, STRENGTHS))}; got '{unknown[0]}'"
        )
    return tuple(CONDITIONS[name] for name in dict.fromkeys(wanted)), tuple(
        sorted({int(level) for level in levels})
    )


def spread(dataset: Dataset, photos: int) -> Dataset:
    """So many photos, evenly from the first to the last; all of them if there are no more."""
    return dataset.subset(
        np.linspace(0, len(dataset) - 1, min(photos, len(dataset))).round().astype(int).tolist()
    )


def generator(seed: int, condition: str, photo: int) -> np.random.Generator:
    """Of what is random in a condition on a photo, the same for every strength."""
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
    """Show the same changed photos to each detector.

    Args:
        subjects: At least one.
        dataset: Labelled photos, at least one.
        conditions: Of `vision.conditions`.
        strengths: Of each, ascending.
        seed: Of all that is random; the study depends on it and the photos alone.
        progress: Called with (photos done, photos in all).

    Raises:
        ShelfcountError: As `metrics.run` and `metrics.score` do, or if two subjects share a name.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) != len(names):
        raise ShelfcountError(f"each detector must be given once, got {names}")
    counted = []
    for subject in subjects:
        found = run(subject.detector, dataset)
        counted.append([boxes[boxes.scores >= subject.threshold] for boxes in found])
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
                found_now = subject.found(changed.image, dataset.classes)
                before = changed.move(counted[i][index])[0]
                cell.found[i].append(found_now)
                cell.clean[i].append(before)
                cell.stayed[i].append(~match(before, found_now).missed[~before.ignore])
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


def influence(result: Evaluation) -> np.ndarray:
    """(photos,) float64 by how much each photo moves the F1, to first order (the delta method for a ratio of sums)."""
    f1, whole = result.micro.f1, max(result.micro.truth + result.micro.found, 1)
    return np.array(
        [(2 * p.score.tp - f1 * (p.score.truth + p.score.found)) / whole for p in result.photos]
    )


def _standard_error(influences: np.ndarray) -> float | None:
    n = len(influences)
    return (
        float(np.sqrt(n / (n - 1) * ((influences - influences.mean()) ** 2).sum()))
        if n > 1
        else None
    )


def crossing(
    neutral: float | None, values: Sequence[float], lost: Sequence[float], limit: float = TOLERATED
) -> float | None:
    """Where the loss first reaches the limit, by straight lines from no loss at `neutral` through (value, loss).

    Args:
        neutral: None where the first loss is below the limit.
        values: In the order of strength, rising or falling.
        lost: One a value.
        limit: Above 0.
    """
    before, was = (values[0] if neutral is None else neutral), 0.0
    for value, now in zip(values, lost, strict=True):
        if now >= limit:
            return float(before + (value - before) * (limit - was) / (now - was))
        before, was = value, now
    return None


def phones(dataset: Dataset, found: Sequence[Sequence[Detections]]) -> list[dict[str, Any]]:
    """F1 and count error on the photos of each phone that EXIF names, most photos first; photos that name none are left out.

    Args:
        dataset: n photos.
        found: For each detector, what counts on each photo.
    """
    taken: dict[str, list[int]] = {}
    for i, photo in enumerate(dataset.photos):
        if model := phone_model(photo.path):
            taken.setdefault(model, []).append(i)
    rows = []
    for model, indices in sorted(taken.items(), key=lambda item: -len(item[1])):
        scored = [
            score(
                dataset.subset(indices), [boxes[i] for i in indices], 0.0, average_precision=False
            )
            for boxes in found
        ]
        figures = [{"f1": s.micro.f1, "count_error": s.count_by_class.relative} for s in scored]
        rows.append(
            {
                "phone": model,
                "photos": len(indices),
                "products": scored[0].micro.truth,
                "detectors": figures,
            }
        )
    return rows


def phone_model(path: Path) -> str:
    """Maker and model that a photo's EXIF data name, or nothing."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
    except OSError:
        return ""
    make, model = (
        str(exif.get(tag) or "").strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
    )
    # Many makers begin the model with their name.
    return model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()


def covered(base: Config, conditions: Sequence[Condition]) -> Config:
    """A training config that shows photos under these conditions too, beside those it shows already."""
    names = tuple(
        dict.fromkeys([*base.augment.conditions, *(condition.name for condition in conditions)])
    )
    return base.model_copy(
        update={"augment": base.augment.model_copy(update={"conditions": names})}
    )
