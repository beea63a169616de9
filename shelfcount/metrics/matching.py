"""Matching of detections to ground-truth boxes at an IoU threshold.

Ground-truth boxes marked `ignore`, and detections that overlap only such boxes, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections
from shelfcount.vision.boxes import area, intersection, iou

MATCH_IOU = 0.5


@dataclass(frozen=True, eq=False)
class Matches:
    """Assignment of n detections to m ground-truth boxes on one photo.

    Attributes:
        partner: (n,) int64; index of the ground-truth box that a detection is matched to, -1 if
            none.
        absorbed: (n,) bool; detections that are left out, neither true nor false positives.
        missed: (m,) bool; ground-truth boxes without a match (false negatives).
    """

    partner: NDArray[np.int64]
    absorbed: NDArray[np.bool_]
    missed: NDArray[np.bool_]

    @property
    def hit(self) -> NDArray[np.bool_]:
        """(n,) bool; detections that are matched to a ground-truth box (true positives)."""
        return self.partner >= 0


def match(
    truth: Detections, detections: Detections, min_iou: float = MATCH_IOU, by_class: bool = True
) -> Matches:
    """Match detections with ground-truth boxes greedily by score, as COCO does.

    Detections are processed in the order of descending score. Each is matched to the unmatched
    ground-truth box with the highest IoU, if the IoU is at least `min_iou`. A detection without a
    match is left out (`Matches.absorbed`) if at least `min_iou` of its own area is inside one
    ignored ground-truth box (COCO's overlap for ``iscrowd``); one such box can absorb any number of
    detections. Detections marked `ignore` are left out too.

    The match of a detection depends only on detections with a higher score. The matches at a score
    threshold are therefore those without a threshold, restricted to the detections above it:
    `choose_threshold` matches once and evaluates all thresholds. Detections with equal scores are
    processed in the order of their class and box, independent of their order in the array.

    Args:
        truth: The m ground-truth boxes of a photo.
        detections: The n detections on the same photo, in any order.
        min_iou: Minimum IoU of a match, in (0, 1].
        by_class: Whether detections are matched only to boxes of their own class (class-aware). If
            False, the classes are ignored (class-agnostic).

    Returns:
        The assignment of the detections.

    Raises:
        ValueError: If `min_iou` is outside (0, 1].
    """
    if not 0 < min_iou <= 1:
        raise ValueError(f"min_iou must be in (0, 1], got {min_iou}")
    # In float32, boxes whose IoU is exactly min_iou would be decided differently from COCO.
    boxes, truth_boxes = detections.boxes.astype(np.float64), truth.boxes.astype(np.float64)
    comparable = np.full((len(detections), len(truth)), True)
    if by_class:
        comparable = detections.classes[:, None] == truth.classes
    comparable[detections.ignore] = False

    overlap = np.where(comparable & ~truth.ignore, iou(boxes, truth_boxes), 0.0)
    partner = np.full(len(detections), -1, np.int64)
    for i in best_first(detections):
        best = overlap[i].max(initial=0.0)
        if best >= min_iou:
            # If several ground-truth boxes have the highest IoU, COCO chooses the last of them.
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
    ) | detections.ignore
    return Matches(partner, absorbed, missed)


def best_first(detections: Detections) -> NDArray[np.int64]:
    """Return the order of detections by descending score.

    Detections with equal scores are ordered by class and box, so that the result does not depend on
    their order in the array.

    Args:
        detections: n detections.

    Returns:
        (n,) int64 indices into `detections`.
    """
    return np.lexsort((*detections.boxes.T, detections.classes, -detections.scores))
