"""From raw heads to boxes in numpy, step for step what TFLite_Detection_PostProcess does.

The op's source is the reference: tensorflow/lite/kernels/detection_postprocess.cc, fast
(class-agnostic) suppression, which the bundle asks for with ``use_regular_nms=false``.
"""

from __future__ import annotations

import numpy as np

from shelfcount.records import Detections
from shelfcount.vision import anchors as anchor_math
from shelfcount.vision import boxes as box_math


def detections_from_heads(
    location: np.ndarray,
    scores: np.ndarray,
    anchors: np.ndarray,
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    width: float,
    height: float,
) -> Detections:
    """Decode, suppress and scale to the photo.

    Args:
        location: (A, 4) float32 deltas (y, x, h, w).
        scores: (A, C) float32 in [0, 1], sigmoid already applied.
        anchors: (A, 4) from `anchors.layout`.
        score_threshold: Anchors whose best class is below it are dropped before suppression.
        nms_iou: Largest overlap of two kept boxes.
        max_detections: Most boxes returned.
        width, height: Of the photo in pixels; the boxes come back in them.

    Returns:
        Best score first.
    """
    best = scores.max(axis=1)
    candidate = np.flatnonzero(best >= score_threshold)
    ratios = anchor_math.decode(location[candidate], anchors[candidate])
    kept = box_math.suppress(ratios, best[candidate], nms_iou, max_detections)
    chosen = candidate[kept]
    return Detections(
        ratios_to_pixels(ratios[kept], width, height), scores[chosen].argmax(axis=1), best[chosen]
    )


def ratios_to_pixels(ratios: np.ndarray, width: float, height: float) -> np.ndarray:
    """(n, 4) (ymin, xmin, ymax, xmax) ratios to (n, 4) xyxy pixels, cut at the photo's border."""
    return box_math.clip(
        ratios[:, [1, 0, 3, 2]] * np.array([width, height, width, height], np.float32),
        width,
        height,
    )
