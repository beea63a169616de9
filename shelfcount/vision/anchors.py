"""Anchors: fitted to the user's boxes once, laid out and decoded here for everything that follows.

Training, calibration, the runtime and the bundle's metadata all call these functions, so that no
two of them can disagree about what an output row means.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shelfcount.records import AnchorLevel

# Scales of the SSD box coder (Liu et al. 2016, arXiv:1512.02325; TensorFlow object detection API),
# in the order y, x, h, w that TFLite_Detection_PostProcess decodes.
CODER_SCALES = (10.0, 10.0, 5.0, 5.0)


def layout(levels: Sequence[AnchorLevel], height: int, width: int) -> np.ndarray:
    """Every anchor of a model in the order of its output rows.

    Args:
        levels: Finest stride first.
        height, width: Of the input in pixels.

    Returns:
        (A, 4) float32 (ycenter, xcenter, h, w) as ratios of the input; level by level, row by row,
        column by column, size by size: what ``permute(0, 2, 3, 1).reshape(1, -1, k)`` yields.
    """
    parts = []
    for level in levels:
        rows, columns = height // level.stride, width // level.stride
        y = (np.arange(rows) + 0.5) * level.stride / height
        x = (np.arange(columns) + 0.5) * level.stride / width
        sizes = np.asarray(level.sizes) / (height, width)
        grid = np.empty((rows, columns, len(sizes), 4), np.float32)
        grid[..., 0] = y[:, None, None]
        grid[..., 1] = x[None, :, None]
        grid[..., 2:] = sizes
        parts.append(grid.reshape(-1, 4))
    return np.concatenate(parts)


def decode(location: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Box deltas to boxes, as TFLite_Detection_PostProcess does it.

    Args:
        location: (..., A, 4) float32 deltas (y, x, h, w), multiplied by `CODER_SCALES`.
        anchors: (A, 4) from `layout`.

    Returns:
        (..., A, 4) float32 (ymin, xmin, ymax, xmax) as ratios of the input.
    """
    delta = location / np.asarray(CODER_SCALES, np.float32)
    center = delta[..., :2] * anchors[:, 2:] + anchors[:, :2]
    half = np.exp(delta[..., 2:]) * anchors[:, 2:] / 2
    return np.concatenate([center - half, center + half], axis=-1)


def encode(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The inverse of `decode`: (A, 4) yxyx ratios, one box for each anchor, to (A, 4) deltas."""
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    size = boxes[..., 2:] - boxes[..., :2]
    delta = np.concatenate(
        [(center - anchors[:, :2]) / anchors[:, 2:], np.log(size / anchors[:, 2:])], axis=-1
    )
    return delta * np.asarray(CODER_SCALES, np.float32)


def fit(
    sizes: np.ndarray, strides: Sequence[int], per_level: int = 1, seed: int = 0
) -> tuple[AnchorLevel, ...]:
    """Anchors for the products of one data set: k-means on their sizes, nearest by shape overlap.

    Dense shelves hold products of few sizes, so few anchors serve, and a level that no product
    needs is left out: that is where the time of a plain SSD goes.

    Args:
        sizes: (n, 2) (height, width) of the boxes in input pixels.
        strides: Of the levels the network offers, finest first.
        per_level: Anchors at one place of a level.
        seed: Of the start of the k-means.

    Returns:
        Levels, finest first, each with `per_level` sizes ordered by area: the heads share their
        weights over the levels, so every level has as many. The products of a level set them, or,
        where it has fewer than `per_level`, those nearest to it.

    Raises:
        ValueError: If there are no boxes, or one without a size.
    """
    sizes = np.asarray(sizes, np.float64)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not len(sizes):
        raise ValueError(
            f"anchors need box sizes of shape (n, 2) with n above 0, got {sizes.shape}"
        )
    sized = (np.isfinite(sizes) & (sizes > 0)).all(axis=1)
    if not sized.all():
        first = int(np.argmin(sized))
        raise ValueError(
            f"anchors need box sizes above 0, got {sizes[first].tolist()} in row {first} of {len(sizes)}"
        )
    # An anchor of a level stands 4 to 8 strides across in the middle of its range: below, few places
    # fall inside a product; above, one place cannot see the whole of it.
    reach = np.sqrt(sizes.prod(axis=1))
    upper = [8.0 * s for s in strides[:-1]] + [np.inf]
    lower = [0.0, *upper[:-1]]
    levels: list[AnchorLevel] = []
    for stride, low, high in zip(strides, lower, upper, strict=True):
        own = sizes[(reach > low) & (reach <= high)]
        # Fewer than 1 in 200 boxes do not pay for a level's anchors; the neighbour reaches them.
        if len(own) * 200 < len(sizes) and levels:
            continue
        if len(own) < per_level:
            own = sizes[np.argsort(np.abs(reach - 4 * stride))[: max(per_level, 8)]]
        centers = _k_means(
            own, min(per_level, len(np.unique(own, axis=0))), np.random.default_rng(seed)
        )
        levels.append(
            AnchorLevel(
                stride, tuple((float(h), float(w)) for h, w in _fill_up(centers, per_level))
            )
        )
    return tuple(levels)


def _fill_up(centers: np.ndarray, count: int) -> np.ndarray:
    # Products of fewer sizes than anchors: the further anchors are the same shapes a third of an
    # octave larger each time, as RetinaNet spaces its scales (arXiv:1708.02002, section 4).
    distinct = np.unique(centers.round(1).clip(min=0.1), axis=0)
    rounds = np.arange(-(-count // len(distinct)))
    grown = (distinct[None] * 2.0 ** (rounds / 3)[:, None, None]).reshape(-1, 2)[:count].round(1)
    return grown[np.argsort(grown.prod(axis=1), kind="stable")]


def recall(sizes: np.ndarray, levels: Sequence[AnchorLevel], least: float = 0.5) -> float:
    """Share of box sizes that some anchor matches in shape (IoU of centred boxes) by at least `least`."""
    anchors = np.concatenate([np.asarray(level.sizes) for level in levels])
    return float((_shape_iou(np.asarray(sizes, np.float64), anchors).max(axis=1) >= least).mean())


def _shape_iou(sizes: np.ndarray, centers: np.ndarray) -> np.ndarray:
    common = np.minimum(sizes[:, None], centers[None]).prod(axis=2)
    return common / (sizes.prod(axis=1)[:, None] + centers.prod(axis=1)[None] - common)


def _k_means(sizes: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    centers = sizes[rng.choice(len(sizes), k, replace=False)]
    for _ in range(100):
        nearest = _shape_iou(sizes, centers).argmax(axis=1)
        # An empty cluster keeps its centre.
        moved = np.array(
            [
                np.median(sizes[nearest == i], axis=0) if (nearest == i).any() else centers[i]
                for i in range(k)
            ]
        )
        if np.allclose(moved, centers):
            break
        centers = moved
    return centers[np.argsort(centers.prod(axis=1))]
