"""Labels that are probably wrong: where a model that did not learn from them disagrees, and is sure of it.

A model is sure of a class where it scores it as high as it does, on average, where the labels agree with it:
confident learning's threshold, one for each class (Northcutt et al. 2021, "Confident Learning",
doi:10.1613/jair.1.12125). Of the kinds of error in ObjectLab (Tkachenko et al. 2023, arXiv:2309.00832) products
left out and wrong names are proposed. Loose boxes are not: of five on the drinks' validation photos a person had
moved none. Nor are labels of which a model sees nothing: on shelves these mostly stand in the back row.
The photos must be held out: on photos that it learnt from, a model has learnt the errors too.

A proposal is a correction on which nobody has decided yet. It says where to look; what is written down in
its place rests on what a person sees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shelfcount.data.corrections import SAME_BOX_IOU, Box, Correction, Corrections
from shelfcount.data.formats import fingerprint
from shelfcount.evaluation.metrics import Matches, check, match
from shelfcount.records import Dataset, Detections, Photo
from shelfcount.vision.boxes import clip, intersection, iou, xywh_to_xyxy, xyxy_to_xywh

# With fewer agreed detections of a class, what the model's scores are over all classes says more.
FEWEST_AGREED = 5
# A detection that overlaps a label by more, but by less than finds it, is about that product; only below is one missing.
BESIDE_IOU = 0.3


@dataclass(frozen=True, eq=False)
class Proposal:
    """A label that is probably wrong, or missing.

    Attributes:
        photo: With its labels as they are.
        correction: What the model would have there; undecided.
        score: Of the detection.
        sureness: Score / what the model scores on average where the labels agree that it is this class; at least 1.
    """

    photo: Photo
    correction: Correction
    score: float
    sureness: float


def self_confidence(dataset: Dataset, found: Sequence[Detections], threshold: float) -> np.ndarray:
    """The mean score of each class where a label agrees with it.

    Args:
        dataset: Held-out photos.
        found: Detections on each.
        threshold: Below it nothing is a detection.

    Returns:
        (C,) float64; of classes with fewer than `FEWEST_AGREED`, the mean over all. 1 where nothing agrees.

    Raises:
        ShelfcountError: As `metrics.score` does.
    """
    check(dataset, found)
    sums, numbers = np.zeros(len(dataset.classes)), np.zeros(len(dataset.classes), np.int64)
    for photo, low in zip(dataset.photos, found, strict=True):
        sure = low[low.scores >= threshold]
        agreed = sure[match(photo.truth, sure).hit]
        np.add.at(sums, agreed.classes, agreed.scores)
        np.add.at(numbers, agreed.classes, 1)
    overall = sums.sum() / numbers.sum() if numbers.sum() else 1.0
    return np.where(numbers >= FEWEST_AGREED, sums / np.maximum(numbers, 1), overall)


def propose(
    dataset: Dataset, found: Sequence[Detections], threshold: float, model: str
) -> list[Proposal]:
    """Every label a model surely disagrees with, surest first.

    Args:
        dataset: Photos the model did not learn from.
        found: What it finds on each.
        threshold: The score from which it reports.
        model: Its name, for the reasons.

    Raises:
        ShelfcountError: As `metrics.score` does.
    """
    confidence = self_confidence(dataset, found, threshold)
    # Photos nobody labelled yet have nothing to agree with: then all that the model reports is proposed.
    least = confidence if dataset.boxes else np.full(len(confidence), threshold)
    proposals = []
    for photo, low in zip(dataset.photos, found, strict=True):
        sure = low[low.scores >= np.maximum(least, threshold)[low.classes]]
        matches = match(photo.truth, sure, by_class=False)
        for i in range(len(sure)):
            change = _change(photo, sure, matches, i, dataset.classes)
            if change is not None:
                action, label, box, words = change
                class_ = int(sure.classes[i])
                name, score = dataset.classes[class_], float(sure.scores[i])
                correction = Correction(
                    photo=photo.path.name,
                    action=action,
                    box=box,
                    reason=f"{model} reports '{name}' with score {score:.2f}; {words}",
                    class_=label,
                    to_class=name if action == "rename" else None,
                    decision="undecided",
                )
                proposals.append(Proposal(photo, correction, score, score / float(least[class_])))
    return surest_first(proposals)


def surest_first(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Proposals of one or several models in the order in which to look at them."""
    return sorted(proposals, key=lambda p: (-p.sureness, p.correction.photo, p.correction.box))


def _change(
    photo: Photo, sure: Detections, matches: Matches, i: int, classes: Sequence[str]
) -> tuple[str, str, Box, str] | None:
    """Action, class and box of the entry, and why; None where detection and label agree."""
    name = classes[sure.classes[i]]
    partner = int(matches.partner[i])
    if partner < 0:
        overlap = iou(sure.boxes[i : i + 1], photo.truth.boxes)[0]
        if (
            matches.absorbed[i]
            or _ignored(sure.boxes[i : i + 1], photo.truth)
            or overlap.max(initial=0) >= BESIDE_IOU
        ):
            return None
        return "add", name, _box(sure.boxes[i], photo), "nothing is labelled there"
    labelled = classes[photo.truth.classes[partner]]
    if labelled == name:
        return None
    return (
        "rename",
        labelled,
        _box(photo.truth.boxes[partner], photo),
        f"it is labelled '{labelled}'",
    )


def _ignored(box: np.ndarray, truth: Detections) -> bool:
    """Whether half of a (1, 4) box lies where no person could tell, of whatever class."""
    covered = intersection(box, truth.boxes[truth.ignore])[0]
    return bool(covered.max(initial=0) >= 0.5 * np.prod(box[0, 2:] - box[0, :2]))


def _box(corners: np.ndarray, photo: Photo) -> Box:
    """(4,) xyxy as the plain numbers of a correction, inside the photo also when rounded."""
    # Rounded before the sides are taken, so that left + width stays within the border.
    inside = clip(corners[None].astype(np.float64), photo.width, photo.height).round(2)
    left, top, width, height = (round(v, 2) for v in xyxy_to_xywh(inside)[0].tolist())
    return left, top, width, height


def draft(dataset: Dataset, proposals: Sequence[Proposal], most: int | None = None) -> Corrections:
    """A corrections file to decide on: every entry is undecided until a person writes `accepted` or `refused`.

    Args:
        dataset: The labels that were compared.
        proposals: From `propose`.
        most: At most so many, the surest.
    """
    chosen = tuple(p.correction for p in surest_first(proposals)[:most])
    return Corrections(_file_name(dataset), fingerprint(dataset), chosen)


def decided(proposals: Sequence[Proposal], corrections: Corrections) -> list[Proposal]:
    """Proposals with what a person decided on them in a corrections file; the others stay undecided."""
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
    """Whether two entries propose the same; another machine's detections may lie a fraction of a pixel off."""
    if (a.photo, a.action, a.class_, a.to_class) != (b.photo, b.action, b.class_, b.to_class):
        return False
    return bool(iou(*(xywh_to_xyxy(np.array([c.box])) for c in (a, b)))[0, 0] >= SAME_BOX_IOU)


def _file_name(dataset: Dataset) -> str:
    return dataset.name.replace("\\", "/").rstrip("/").rpartition("/")[2]
