"""Detection metrics: what was found against what stands on the shelf.

Running a detector (`run`) and scoring what it found (`score`) are apart, so that one pass over the
photos serves every threshold. Conventions that hold for every number here:

* A product is found where a detection of its class overlaps it with IoU 0.5 or more.
* 0/0 is 1 where nothing was to be found and nothing was found, else 0: an empty photo left empty is right.
* Truth marked `ignore`, and detections that only meet such truth, count neither way, in F1, mAP and counts.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.records import Dataset, Detections, Detector, ShelfcountError
from shelfcount.vision.boxes import area, intersection, iou, xyxy_to_xywh
from shelfcount.vision.images import read_photo

MATCH_IOU = 0.5
# Photos of shelves hold more than COCO's 100 products; 300 is what SKU-110K (Goldman et al. 2019,
# arXiv:1904.00853) reports at. The first two entries only fill COCO's recall columns.
MAX_DETECTIONS = (1, 100, 300)
# mAP integrates over all scores, so detections cut higher than this would understate it; torchvision's
# detectors (box_score_thresh, score_thresh) cut here for their COCO figures.
AP_FLOOR = 0.05


@dataclass(frozen=True, eq=False)
class Matches:
    """Which detection found which product on one photo.

    Attributes:
        partner: (n,) int64; index of the truth box a detection found, -1 where it found none.
        absorbed: (n,) bool; detections that count neither way.
        missed: (m,) bool; truth boxes that had to be found and were not.
    """

    partner: np.ndarray
    absorbed: np.ndarray
    missed: np.ndarray

    @property
    def hit(self) -> np.ndarray:
        """(n,) bool; detections that found a product."""
        return self.partner >= 0


def match(
    truth: Detections, found: Detections, min_iou: float = MATCH_IOU, by_class: bool = True
) -> Matches:
    """Pair detections with truth greedily by score, as COCO does.

    The best-scored detection takes the free truth box it overlaps most, if by `min_iou` or more. One
    that gets none is absorbed if at least `min_iou` of its own area lies in an ignored truth box (COCO's
    overlap for ``iscrowd``); such a box absorbs any number. Detections marked `ignore` are absorbed.

    What a detection gets depends on better-scored ones only. So the matches at a threshold are those
    without any threshold, cut at it: `best_threshold` matches once and sweeps. Detections of one
    score are taken in the order of their class and box, not of the array.

    Args:
        truth: m boxes.
        found: n boxes on the same photo, any order.
        min_iou: Smallest overlap that counts, in (0, 1].
        by_class: Whether a detection must name the class; else any product it overlaps will do.

    Raises:
        ValueError: If `min_iou` is outside (0, 1].
    """
    if not 0 < min_iou <= 1:
        raise ValueError(f"min_iou must be in (0, 1], got {min_iou}")
    # float64, as float32 decides boxes that overlap by just min_iou differently from COCO.
    boxes, truth_boxes = found.boxes.astype(np.float64), truth.boxes.astype(np.float64)
    comparable = np.full((len(found), len(truth)), True)
    if by_class:
        comparable = found.classes[:, None] == truth.classes
    comparable[found.ignore] = False

    overlap = np.where(comparable & ~truth.ignore, iou(boxes, truth_boxes), 0.0)
    partner = np.full(len(found), -1, np.int64)
    for i in best_first(found):
        best = overlap[i].max(initial=0.0)
        if best >= min_iou:
            # COCO gives an equally good pair to the later truth box.
            partner[i] = np.flatnonzero(overlap[i] == best)[-1]
            overlap[:, partner[i]] = 0.0

    missed = ~truth.ignore
    missed[partner[partner >= 0]] = False
    meets_ignored = (
        intersection(boxes, truth_boxes)
        >= min_iou * np.maximum(area(boxes), np.finfo(np.float32).tiny)[:, None]
    )
    absorbed = (partner < 0) & (meets_ignored & comparable & truth.ignore).any(
        axis=1
    ) | found.ignore
    return Matches(partner, absorbed, missed)


def best_first(found: Detections) -> np.ndarray:
    """(n,) indices, best score first; equal scores by class and box, so that the order they came in changes nothing."""
    return np.lexsort((*found.boxes.T, found.classes, -found.scores))


@dataclass(frozen=True)
class Score:
    """How many products were to be found, were reported, and were found.

    Attributes:
        truth: Products that stand there.
        found: Detections that count.
        tp: Detections that found a product.
    """

    truth: int
    found: int
    tp: int

    @property
    def precision(self) -> float:
        return float(ratio(self.tp, self.found, self.truth))

    @property
    def recall(self) -> float:
        return float(ratio(self.tp, self.truth, self.found))

    @property
    def f1(self) -> float:
        return float(ratio(2 * self.tp, self.truth + self.found, 0))

    def to_json(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self),
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }


def ratio(part: Any, whole: Any, other: Any) -> np.ndarray:
    """part / whole; where whole is 0, 1 if `other`, the opposite side of the comparison, is 0 as well, else 0."""
    part, whole, other = np.broadcast_arrays(part, whole, other)
    return np.where(whole > 0, part / np.maximum(whole, 1), other == 0)


@dataclass(frozen=True)
class ClassScore:
    """One class over all photos.

    Attributes:
        name: Of the class.
        score: At IoU 0.5.
        count_mae: Mean over photos of |found - truth|, products.
        count_bias: Mean over photos of found - truth, products; above 0 means counted too often.
    """

    name: str
    score: Score
    count_mae: float
    count_bias: float

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.score.to_json(),
            "count_mae": self.count_mae,
            "count_bias": self.count_bias,
        }


@dataclass(frozen=True)
class PhotoScore:
    """One photo, all classes; sort by ``score.f1`` for the photos to look at first."""

    path: Path
    score: Score


@dataclass(frozen=True)
class CountError:
    """How far counts are off, over all photos.

    Attributes:
        mae: Mean of the photos' errors, products.
        rmse: Root of the mean of their squares, products.
        relative: Sum of the photos' errors / number of products that stand there; None where
            none stands there and some were counted.
    """

    mae: float
    rmse: float
    relative: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A detector on labelled photos at one score threshold.

    Attributes:
        classes: Names, in the order of `per_class` and `confusion`.
        threshold: Detections below it were left out, except for `map` and `map50`.
        micro: Over all boxes.
        any_class: The same with the class ignored: is a product there, whatever it is?
        macro_f1: Mean F1 of the classes that have truth; that of `micro` where none has.
        map: Mean average precision over IoU 0.50 to 0.95 at 300 detections, as COCO defines it;
            None where it was not asked for or no truth exists.
        map50: The same at IoU 0.5 only.
        count_by_class: A photo's error is the sum over classes of |found - truth|: each product
            missed counts, and one taken for another counts twice.
        count_total: A photo's error is |all found - all truth|, where errors cancel.
        count_bias: Mean over photos of (all found - all truth), products.
        per_class: One row for each class.
        photos: One row for each photo, in the order of the data.
        confusion: (C + 1, C + 1) int64; row = true class, column = reported class, paired without
            regard to the class. The last column counts products missed, the last row detections on background.
    """

    classes: tuple[str, ...]
    threshold: float
    micro: Score
    any_class: Score
    macro_f1: float
    map: float | None
    map50: float | None
    count_by_class: CountError
    count_total: CountError
    count_bias: float
    per_class: tuple[ClassScore, ...]
    photos: tuple[PhotoScore, ...]
    confusion: np.ndarray

    def _names(self) -> list[str]:
        """Photos relative to the folder they share: results travel, the machine's paths stay."""
        folder = (
            os.path.commonpath([row.path.absolute().parent for row in self.photos])
            if self.photos
            else ""
        )
        return [os.path.relpath(row.path.absolute(), folder) for row in self.photos]

    def to_json(self) -> dict[str, Any]:
        """As plain lists, numbers and strings; what was not measured is null."""
        return {
            "photos": len(self.photos),
            "boxes": self.micro.truth,
            "threshold": self.threshold,
            "iou": MATCH_IOU,
            **{key: value for key, value in self.micro.to_json().items() if key != "truth"},
            "macro_f1": self.macro_f1,
            "any_class": self.any_class.to_json(),
            "map": self.map,
            "map50": self.map50,
            "count_error": {
                "by_class": dataclasses.asdict(self.count_by_class),
                "total": dataclasses.asdict(self.count_total),
                "bias": self.count_bias,
            },
            "per_class": [row.to_json() for row in self.per_class],
            "per_photo": [
                {"path": name, **row.score.to_json()}
                for name, row in zip(self._names(), self.photos, strict=True)
            ],
            "confusion": {"classes": list(self.classes), "matrix": self.confusion.tolist()},
        }


def evaluate(
    detector: Detector,
    dataset: Dataset,
    *,
    threshold: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run a detector over labelled photos and score it.

    mAP needs the detections of low score. It is measured where the detector's own threshold
    (``spec.score_threshold``) is `AP_FLOOR` or below: open the detector low and give the threshold here.

    Args:
        detector: Of the classes of `dataset`, in any order.
        dataset: At least one photo.
        threshold: For F1 and counts; the detector's own where None.
        progress: Called with (photos done, photos in all).

    Raises:
        ShelfcountError: As `run` and `score` do, or if `threshold` is below the detector's own, where
            detections are missing.
    """
    own = detector.spec.score_threshold
    if threshold is not None and threshold < own:
        raise ShelfcountError(
            f"the threshold must be at least {own:g}, below which the detector reports nothing, got {threshold:g}"
        )
    found = run(detector, dataset, progress=progress)
    return score(
        dataset, found, own if threshold is None else threshold, average_precision=own <= AP_FLOOR
    )


def run(
    detector: Detector, dataset: Dataset, *, progress: Callable[[int, int], None] | None = None
) -> list[Detections]:
    """What a detector finds on each photo, with classes as indices into ``dataset.classes``.

    Args:
        detector: Of the classes of `dataset`, in any order.
        dataset: Photos to read from disk.
        progress: Called with (photos done, photos in all).

    Raises:
        ShelfcountError: If the classes differ, or a photo cannot be read or has another size than its labels say.
    """
    names = detector.spec.classes
    if set(names) != set(dataset.classes):
        raise ShelfcountError(
            f"the model and {dataset.name or 'the data'} must have the same classes; "
            f"only the model has {sorted(set(names) - set(dataset.classes))}, only the data {sorted(set(dataset.classes) - set(names))}"
        )
    to_dataset = np.array([dataset.classes.index(name) for name in names])
    found = []
    for done, photo in enumerate(dataset.photos, start=1):
        image = read_photo(photo.path)
        height, width = image.shape[:2]
        if (width, height) != (photo.width, photo.height):
            raise ShelfcountError(
                f"photo '{photo.path}' must be {photo.width} x {photo.height} pixels as its labels say, got {width} x {height}. "
                "Label the photo again or give the file the labels were made on."
            )
        boxes = detector.detect(image)
        found.append(boxes.replace(classes=to_dataset[boxes.classes]))
        if progress is not None:
            progress(done, len(dataset))
    return found


def score(
    dataset: Dataset,
    found: Sequence[Detections],
    threshold: float,
    *,
    average_precision: bool = True,
) -> Evaluation:
    """Score detections against the truth.

    Args:
        dataset: n photos, at least one.
        found: Detections on each photo in the order of the photos, down to a score near 0 (see `AP_FLOOR`).
        threshold: Detections scored below it are left out of everything but mAP.
        average_precision: Whether to measure mAP, the slow part; its fields are None without.

    Raises:
        ValueError: If `threshold` is outside [0, 1].
        ShelfcountError: If there is no photo, `found` has not one entry for each, a detection's class
            is none of the data's or a truth box has no area.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    check(dataset, found)
    classes = len(dataset.classes)
    truths, founds, hits = (np.zeros((len(dataset), classes), np.int64) for _ in range(3))
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    for p, (photo, low) in enumerate(zip(dataset.photos, found, strict=True)):
        boxes = low[low.scores >= threshold]
        own = match(photo.truth, boxes)
        truths[p] = per_class_counts(photo.truth, ~photo.truth.ignore, classes)
        founds[p] = per_class_counts(boxes, ~own.absorbed, classes)
        hits[p] = per_class_counts(boxes, own.hit, classes)

        anyone = match(photo.truth, boxes, by_class=False)
        np.add.at(
            confusion,
            (photo.truth.classes[anyone.partner[anyone.hit]], boxes.classes[anyone.hit]),
            1,
        )
        confusion[:-1, -1] += per_class_counts(photo.truth, anyone.missed, classes)
        confusion[-1, :-1] += per_class_counts(boxes, ~anyone.hit & ~anyone.absorbed, classes)
    confusion.setflags(write=False)

    off = founds - truths
    per_class = tuple(
        ClassScore(
            name,
            _total(truths[:, c], founds[:, c], hits[:, c]),
            float(np.abs(off[:, c]).mean()),
            float(off[:, c].mean()),
        )
        for c, name in enumerate(dataset.classes)
    )
    micro = _total(truths, founds, hits)
    with_truth = [row.score.f1 for row in per_class if row.score.truth]
    mean_ap, mean_ap50 = (
        _average_precision(dataset, found) if average_precision and micro.truth else (None, None)
    )
    return Evaluation(
        classes=dataset.classes,
        threshold=float(threshold),
        micro=micro,
        any_class=_total(confusion[:-1], confusion[:, :-1], confusion[:-1, :-1]),
        macro_f1=float(np.mean(with_truth)) if with_truth else micro.f1,
        map=mean_ap,
        map50=mean_ap50,
        count_by_class=_count_error(np.abs(off).sum(axis=1), micro.truth),
        count_total=_count_error(np.abs(off.sum(axis=1)), micro.truth),
        count_bias=float(off.sum(axis=1).mean()),
        per_class=per_class,
        photos=tuple(
            PhotoScore(photo.path, _total(truths[p], founds[p], hits[p]))
            for p, photo in enumerate(dataset.photos)
        ),
        confusion=confusion,
    )


def check(dataset: Dataset, found: Sequence[Detections]) -> None:
    """Refuse what cannot be scored.

    Raises:
        ShelfcountError: As `score` does.
    """
    name = dataset.name or "the data"
    if not len(dataset):
        raise ShelfcountError(f"an evaluation needs at least one photo, got none in {name}")
    if len(found) != len(dataset):
        raise ShelfcountError(
            f"there must be detections for each of the {len(dataset)} photos of {name}, got them for {len(found)}"
        )
    for photo, boxes in zip(dataset.photos, found, strict=True):
        foreign = boxes.classes[(boxes.classes < 0) | (boxes.classes >= len(dataset.classes))]
        if len(foreign):
            raise ShelfcountError(
                f"classes must be from 0 to {len(dataset.classes) - 1}, got {foreign[0]} detected on '{photo.path}'"
            )
        flat = np.flatnonzero((area(photo.truth.boxes) <= 0) & ~photo.truth.ignore)
        if len(flat):
            raise ShelfcountError(
                f"a truth box must have an area to be found, got {photo.truth.boxes[flat[0]].tolist()} as box {flat[0]} on '{photo.path}'"
            )


def per_class_counts(boxes: Detections, which: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) int64, how many of the boxes that the (n,) bool mask `which` selects are of each class."""
    return np.bincount(boxes.classes[which], minlength=classes)


def _total(truths: np.ndarray, founds: np.ndarray, hits: np.ndarray) -> Score:
    return Score(int(truths.sum()), int(founds.sum()), int(hits.sum()))


def _count_error(errors: np.ndarray, truth: int) -> CountError:
    relative = float(errors.sum() / truth) if truth else (None if errors.any() else 0.0)
    return CountError(float(errors.mean()), float(np.sqrt(np.mean(errors**2.0))), relative)


def _average_precision(dataset: Dataset, found: Sequence[Detections]) -> tuple[float, float]:
    """(mAP, mAP50) as faster-coco-eval computes them; the data must hold truth that is not ignored."""
    from faster_coco_eval import COCO, COCOeval_faster

    frame = {
        "images": [
            {"id": p, "width": photo.width, "height": photo.height}
            for p, photo in enumerate(dataset.photos)
        ],
        "categories": [{"id": c, "name": name} for c, name in enumerate(dataset.classes)],
    }
    truth = COCO({**frame, "annotations": _annotations([photo.truth for photo in dataset.photos])})
    reported = COCO(
        {**frame, "annotations": _annotations([boxes[~boxes.ignore] for boxes in found])}
    )
    coco = COCOeval_faster(truth, reported, iouType="bbox")
    coco.params.maxDets = list(MAX_DETECTIONS)
    # One range for all sizes: pixels of a photo say little about a product. COCO forgives a false
    # detection whose area is outside the range, so it has no upper end.
    coco.params.areaRng, coco.params.areaRngLbl = [[0.0, np.inf]], ["all"]
    coco.evaluate()
    coco.accumulate()
    # (IoU, recall, class, size range, maximum of detections); -1 for classes without truth.
    precision = np.asarray(coco.eval["precision"])[..., 0, -1]
    of_class = precision[:, :, precision[0, 0] > -1]
    return float(of_class.mean()), float(of_class[0].mean())


def _annotations(photos: Sequence[Detections]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for p, boxes in enumerate(photos):
        columns = (
            xyxy_to_xywh(boxes.boxes.astype(np.float64)),
            boxes.classes,
            boxes.scores,
            boxes.ignore,
        )
        for box, c, confidence, ignore in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            # COCO's matching takes id 0 for "no match", so ids start at 1.
            row = {
                "id": len(rows) + 1,
                "image_id": p,
                "category_id": c,
                "bbox": box,
                "area": box[2] * box[3],
            }
            rows.append({**row, "score": confidence, "iscrowd": int(ignore)})
    return rows
