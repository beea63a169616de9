"""Boxes as arrays: overlap, clipping, suppression. Every box is xyxy unless a name says otherwise."""

from __future__ import annotations

import numpy as np


def area(boxes: np.ndarray) -> np.ndarray:
    """(n,) areas of (n, 4) xyxy boxes; 0 where a box is turned inside out."""
    return np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Overlap area of every pair.

    Args:
        a: (n, 4) xyxy.
        b: (m, 4) xyxy, same unit.

    Returns:
        (n, m); entry [i, j] belongs to a[i] and b[j].

    Raises:
        ValueError: If either array is not (k, 4).
    """
    for name, boxes in (("a", a), ("b", b)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name} must have shape (k, 4), got {boxes.shape}")
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of boxes, (n, m) in [0, 1]; 0 for boxes of no size.

    >>> iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]])).round(3).tolist()
    [[0.333]]
    """
    common = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - common
    return np.where(union > 0, common / np.maximum(union, np.finfo(np.float32).tiny), 0.0)


def overlap_of_smaller(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over the smaller box of every pair, (n, m): 1 where one box lies inside the other."""
    smaller = np.minimum(area(a)[:, None], area(b)[None, :])
    return np.where(
        smaller > 0, intersection(a, b) / np.maximum(smaller, np.finfo(np.float32).tiny), 0.0
    )


def suppress(
    boxes: np.ndarray, scores: np.ndarray, max_iou: float, most: int | None = None
) -> np.ndarray:
    """Greedy non-maximum suppression, whatever the class.

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,) higher is better; ties keep their order.
        max_iou: A box that overlaps a kept one by more is dropped.
        most: Stop after so many boxes.

    Returns:
        Indices of the kept boxes, best first.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    # One row of overlaps at a time: all pairs of an untrained network's boxes would fill the memory.
    while len(waiting) and (most is None or len(kept) < most):
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        waiting = waiting[iou(boxes[best][None], boxes[waiting])[0] <= max_iou]
    return np.array(kept, np.int64)


def clip(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Boxes cut at the photo's border."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


def xywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """(left, top, width, height) to (left, top, right, bottom)."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes: np.ndarray) -> np.ndarray:
    """(left, top, right, bottom) to (left, top, width, height)."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
