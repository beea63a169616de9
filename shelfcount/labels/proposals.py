"""Proposed corrections: labels with which a model that did not learn from them disagrees
confidently.

A model is confident of a class from the average score that it gives where labels agree with it
(confident learning: Northcutt et al. 2021, doi:10.1613/jair.1.12125). Of the errors in
ObjectLab (Tkachenko et al. 2023, arXiv:2309.00832) missing products and wrong names are
proposed. Loose boxes are not: of five on the drinks validation photos a person had moved none.
Labels of which a model detects nothing are not either: on shelves these are mostly products in
the back row. Photos must be held out, since a model has learnt the errors of its training
photos. A proposal says where to look; a person decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.data.datasets import fingerprint
from shelfcount.labels.corrections import SAME_BOX_IOU, XYWH, Correction, Corrections
from shelfcount.metrics.confusions import class_confidence_thresholds
from shelfcount.metrics.matching import Matches, match
from shelfcount.records import Dataset, Detections, Photo
from shelfcount.vision.boxes import clip, intersection, iou, xywh_to_xyxy, xyxy_to_xywh

# An unmatched detection whose IoU with a label is at least this shows the labelled product. Only a
# detection with less overlap can be a product without a label.
BESIDE_IOU = 0.3


@dataclass(frozen=True, eq=False)
class HeldOutDetections:
    """Photos with the detections of a model that was not trained on them.

    Attributes:
        photos: Labelled photos.
        detections: Detections on each photo, including low scores.
        threshold: Score threshold of the model.
        model: Description of the model, at least its ``name``.
    """

    photos: Dataset
    detections: Sequence[Detections]
    threshold: float
    model: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Proposal:
    """A label that is likely to be wrong or missing.

    Attributes:
        photo: The photo with its labels.
        correction: The correction that the model suggests, undecided.
        score: Score of the detection.
        relative_confidence: Score divided by the mean score of the class over detections that agree
            with their labels; at least 1.
    """

    photo: Photo
    correction: Correction
    score: float
    relative_confidence: float


def propose(
    dataset: Dataset, detections: Sequence[Detections], threshold: float, model: str
) -> list[Proposal]:
    """Return likely label errors: labels that a model contradicts with high confidence.

    Args:
        dataset: Photos that the model was not trained on.
        detections: Detections on each photo, in the order of the photos.
        threshold: Score threshold of the model.
        model: Name of the model, for the reason of each correction.

    Returns:
        The proposals, most confident first. If no photo has labels, every detection is proposed.

    Raises:
        ShelfcountError: For the reasons given at `require_scorable`.
    """
    confidence = class_confidence_thresholds(dataset, detections, threshold)
    # Without labels no detection agrees with one, so the score threshold decides alone.
    minimum = confidence if dataset.boxes else np.full(len(confidence), threshold)
    proposals = []
    for photo, low in zip(dataset.photos, detections, strict=True):
        confident = low[low.scores >= np.maximum(minimum, threshold)[low.classes]]
        matches = match(photo.truth, confident, by_class=False)
        for i in range(len(confident)):
            change = _change(photo, confident, matches, i, dataset.classes)
            if change is not None:
                action, label, box, words = change
                class_ = int(confident.classes[i])
                name, score = dataset.classes[class_], float(confident.scores[i])
                correction = Correction(
                    photo=photo.path.name,
                    action=action,
                    box=box,
                    reason=f"{model} detects '{name}' with score {score:.2f}; {words}",
                    class_=label,
                    to_class=name if action == "rename" else None,
                    decision="undecided",
                )
                proposals.append(Proposal(photo, correction, score, score / float(minimum[class_])))
    return by_confidence(proposals)


def by_confidence(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Return the proposals of one or several models, most confident first."""
    return sorted(
        proposals, key=lambda p: (-p.relative_confidence, p.correction.photo, p.correction.box)
    )


def _change(
    photo: Photo, confident: Detections, matches: Matches, i: int, classes: Sequence[str]
) -> tuple[str, str, XYWH, str] | None:
    """Return action, class, box and reason of a correction; None if no label is contradicted."""
    name = classes[confident.classes[i]]
    partner = int(matches.partner[i])
    if partner < 0:
        overlap = iou(confident.boxes[i : i + 1], photo.truth.boxes)[0]
        if (
            matches.absorbed[i]
            or _ignored(confident.boxes[i : i + 1], photo.truth)
            or overlap.max(initial=0) >= BESIDE_IOU
        ):
            return None
        return "add", name, _box(confident.boxes[i], photo), "no product is labelled there"
    labelled = classes[photo.truth.classes[partner]]
    if labelled == name:
        return None
    return (
        "rename",
        labelled,
        _box(photo.truth.boxes[partner], photo),
        f"it is labelled '{labelled}'",
    )


def _ignored(box: NDArray[np.float32], truth: Detections) -> bool:
    """Check whether at least half of a (1, 4) box is inside an ignored area of any class."""
    covered = intersection(box, truth.boxes[truth.ignore])[0]
    return bool(covered.max(initial=0) >= 0.5 * np.prod(box[0, 2:] - box[0, :2]))


def _box(corners: NDArray[np.float32], photo: Photo) -> XYWH:
    """Convert a (4,) xyxy box to the numbers of a correction, clipped to the photo."""
    # The corners are rounded before the sides are computed, so that left + width is inside the
    # photo.
    inside = clip(corners[None].astype(np.float64), photo.width, photo.height).round(2)
    left, top, width, height = (round(v, 2) for v in xyxy_to_xywh(inside)[0].tolist())
    return left, top, width, height


def draft_corrections(
    dataset: Dataset, proposals: Sequence[Proposal], max_proposals: int | None = None
) -> Corrections:
    """Build a corrections file from proposals, for a person to decide on.

    Args:
        dataset: The data set with the labels that were compared.
        proposals: Proposals from `propose`.
        max_proposals: Maximum number of entries. The most confident proposals are kept.
            Default: all.

    Returns:
        The corrections. Every entry is undecided until a person sets it to 'accepted' or 'refused'.
    """
    chosen = tuple(p.correction for p in by_confidence(proposals)[:max_proposals])
    return Corrections(_file_name(dataset), fingerprint(dataset), chosen)


def with_decisions(proposals: Sequence[Proposal], corrections: Corrections) -> list[Proposal]:
    """Return the proposals with the decisions of a corrections file.

    Args:
        proposals: Proposals from `propose`.
        corrections: A corrections file, such as one from `draft_corrections` with decisions.

    Returns:
        The proposals, in the same order. Those without an entry in the file are unchanged.
    """
    return [
        dataclasses.replace(
            p,
            correction=next(
                (c for c in corrections.corrections if _same(c, p.correction)), p.correction
            ),
        )
        for p in proposals
    ]


def _same(a: Correction, b: Correction) -> bool:
    """Check whether two entries propose the same; boxes may differ slightly between machines."""
    if (a.photo, a.action, a.class_, a.to_class) != (b.photo, b.action, b.class_, b.to_class):
        return False
    return bool(iou(*(xywh_to_xyxy(np.array([c.box])) for c in (a, b)))[0, 0] >= SAME_BOX_IOU)


def _file_name(dataset: Dataset) -> str:
    return dataset.name.replace("\\", "/").rstrip("/").rpartition("/")[2]
