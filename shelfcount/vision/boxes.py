"""Box operations on arrays: overlap, clipping, non-maximum suppression.

Every box is xyxy (left, top, right, bottom) unless a name says otherwise.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float = TypeVar("Float", bound=np.floating)


def area(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the (n,) areas of (n, 4) xyxy boxes; 0 if right < left or bottom < top."""
    width: NDArray[np.floating] = np.clip(boxes[:, 2] - boxes[:, 0], 0, None)
    height: NDArray[np.floating] = np.clip(boxes[:, 3] - boxes[:, 1], 0, None)
    return width * height


def intersection(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the area of the intersection of every pair of boxes.

    Args:
        a: (n, 4) xyxy.
        b: (m, 4) xyxy, same unit.

    Returns:
        (n, m); entry [i, j] compares a[i] with b[j].

    Raises:
        ValueError: If either array is not (k, 4).
    """
    for name, boxes in (("a", a), ("b", b)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name} must have shape (k, 4), got {boxes.shape}")
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    area_in_both: NDArray[np.floating] = np.clip(high - low, 0, None).prod(axis=2)
    return area_in_both


def iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the intersection over union (IoU) of every pair of boxes.

    Args:
        a: (n, 4) xyxy.
        b: (m, 4) xyxy, same unit.

    Returns:
        (n, m) in [0, 1]; entry [i, j] compares a[i] with b[j]. 0 for two boxes of zero size.

    Raises:
        ValueError: If either array is not (k, 4).

    >>> iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]])).round(3).tolist()
    [[0.333]]
    """
    common = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - common
    return np.where(union > 0, common / np.maximum(union, np.finfo(np.float32).tiny), 0.0)


def overlap_of_smaller(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the intersection of every pair of boxes as a share of the smaller box.

    Args:
        a: (n, 4) xyxy.
        b: (m, 4) xyxy, same unit.

    Returns:
        (n, m) in [0, 1]; 1 if one box contains the other, 0 if the smaller one has zero size.

    Raises:
        ValueError: If either array is not (k, 4).
    """
    smaller = np.minimum(area(a)[:, None], area(b)[None, :])
    return np.where(
        smaller > 0, intersection(a, b) / np.maximum(smaller, np.finfo(np.float32).tiny), 0.0
    )


def pieces_inside(
    pieces: NDArray[np.floating], boxes: NDArray[np.floating], margin: float = 0.0
) -> NDArray[np.floating]:
    """Return the share of each piece's area that is inside a box.

    A piece is a box that a border cuts. It shows the product of a complete box if most of it is
    inside that box.

    Args:
        pieces: (..., 4) xyxy; may contain NaN for an unknown position.
        boxes: (..., 4) xyxy, same unit. The leading dimensions of both are broadcast.
        margin: Share of its width and height by which a box is enlarged on each side.

    Returns:
        (...) in [0, 1]; 0 for pieces of zero size and for unknown positions.

    >>> pieces_inside(np.array([0.0, 0, 4, 2]), np.array([2.0, 0, 6, 4])).tolist()
    0.5
    """
    grown = boxes
    if margin:
        wider = margin * (boxes[..., 2:] - boxes[..., :2])
        grown = np.concatenate([boxes[..., :2] - wider, boxes[..., 2:] + wider], axis=-1)
    low = np.maximum(pieces[..., :2], grown[..., :2])
    high = np.minimum(pieces[..., 2:], grown[..., 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    whole = np.clip(pieces[..., 2:] - pieces[..., :2], 0, None).prod(axis=-1)
    return np.asarray(np.nan_to_num(common / np.maximum(whole, np.finfo(np.float32).tiny)))


def common_part_iou(
    a: NDArray[np.floating],
    a_windows: NDArray[np.floating],
    b: NDArray[np.floating],
    b_windows: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Return the IoU of every pair of boxes inside the part that both of their windows show.

    For a box that the border of its window cuts, this compares the visible piece with the same
    piece of the fuller box.

    Args:
        a: (n, 4) xyxy.
        a_windows: (n, 4) xyxy, the window in which each box was seen.
        b: (m, 4) xyxy, same unit.
        b_windows: (m, 4) xyxy.

    Returns:
        (n, m) in [0, 1]; 0 if the windows, or the boxes inside them, have no common part.
    """
    a_boxes, b_boxes = np.broadcast_arrays(a[:, None], b[None])
    low = np.maximum(a_windows[:, None, :2], b_windows[None, :, :2])
    high = np.maximum(np.minimum(a_windows[:, None, 2:], b_windows[None, :, 2:]), low)
    common = np.concatenate([low, low], axis=2), np.concatenate([high, high], axis=2)
    a_boxes, b_boxes = np.clip(a_boxes, *common), np.clip(b_boxes, *common)
    overlap = np.clip(
        np.minimum(a_boxes[..., 2:], b_boxes[..., 2:])
        - np.maximum(a_boxes[..., :2], b_boxes[..., :2]),
        0,
        None,
    ).prod(axis=2)
    union = (
        (a_boxes[..., 2:] - a_boxes[..., :2]).prod(axis=2)
        + (b_boxes[..., 2:] - b_boxes[..., :2]).prod(axis=2)
        - overlap
    )
    return np.where(union > 0, overlap / np.maximum(union, np.finfo(np.float32).tiny), 0.0)


def enclosing_box(boxes: NDArray[Float]) -> NDArray[Float]:
    """Return the (4,) xyxy box around (n, 4) xyxy boxes, at least one."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def suppress(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    max_iou: float,
    max_boxes: int | None = None,
) -> NDArray[np.int64]:
    """Return the boxes that greedy, class-agnostic non-maximum suppression keeps.

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,); boxes with equal scores are taken in their order.
        max_iou: A box whose IoU with a kept box is greater than this is dropped.
        max_boxes: Maximum number of boxes; None for no limit.

    Returns:
        (k,) int64 indices of the kept boxes, highest score first.
    """
    remaining = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    # One row of overlaps at a time: all pairs of an untrained network's boxes do not fit into
    # memory.
    while len(remaining) and (max_boxes is None or len(kept) < max_boxes):
        best, remaining = remaining[0], remaining[1:]
        kept.append(int(best))
        remaining = remaining[iou(boxes[best][None], boxes[remaining])[0] <= max_iou]
    return np.array(kept, np.int64)


def clip(boxes: NDArray[Float], width: float, height: float) -> NDArray[Float]:
    """Return (n, 4) xyxy boxes clipped at the border of a photo of `width` x `height` pixels."""
    clipped: NDArray[Float] = np.clip(
        boxes, 0, np.array([width, height, width, height], boxes.dtype)
    )
    return clipped


def xywh_to_xyxy(boxes: NDArray[Float]) -> NDArray[Float]:
    """Convert (n, 4) boxes from (left, top, width, height) to (left, top, right, bottom)."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes: NDArray[Float]) -> NDArray[Float]:
    """Convert (n, 4) boxes from (left, top, right, bottom) to (left, top, width, height)."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
