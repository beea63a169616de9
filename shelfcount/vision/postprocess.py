"""Post-processing of raw heads into detections, in the steps of TFLite_Detection_PostProcess.

The reference is the source of the operator, tensorflow/lite/kernels/detection_postprocess.cc,
with fast (class-agnostic) suppression, which the bundle selects with ``use_regular_nms=false``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections
from shelfcount.vision import anchors as anchor_math
from shelfcount.vision import boxes as box_math

# Lowest score of detections: the threshold inside the .tflite file and of validation. mAP is an
# integral over all scores, so a higher threshold would lower it; torchvision's detectors use this
# one (box_score_thresh, score_thresh) for their published COCO results.
LOWEST_SCORE = 0.05


def detections_from_heads(
    location: NDArray[np.float32],
    scores: NDArray[np.float32],
    anchors: NDArray[np.float32],
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    width: float,
    height: float,
) -> Detections:
    """Decode the heads, suppress overlapping boxes and scale the boxes to the photo.

    Args:
        location: (A, 4) float32 deltas (y, x, h, w).
        scores: (A, C) float32 in [0, 1], after the sigmoid.
        anchors: (A, 4) float32 anchors as `anchor_grid` returns them.
        score_threshold: Anchors whose highest class score is below it are dropped before the
            suppression.
        nms_iou: IoU threshold of the suppression.
        max_detections: Maximum number of boxes.
        width, height: Size of the photo in pixels.

    Returns:
        Boxes in pixels of the photo, highest score first.
    """
    best = scores.max(axis=1)
    candidate = np.flatnonzero(best >= score_threshold)
    ratios = anchor_math.decode(location[candidate], anchors[candidate])
    kept = box_math.suppress(ratios, best[candidate], nms_iou, max_detections)
    chosen = candidate[kept]
    return Detections(
        ratios_to_pixels(ratios[kept], width, height), scores[chosen].argmax(axis=1), best[chosen]
    )


def ratios_to_pixels(
    ratios: NDArray[np.float32], width: float, height: float
) -> NDArray[np.float32]:
    """Convert (n, 4) (ymin, xmin, ymax, xmax) ratios to xyxy pixels, clipped at the border."""
    return box_math.clip(
        ratios[:, [1, 0, 3, 2]] * np.array([width, height, width, height], np.float32),
        width,
        height,
    )
