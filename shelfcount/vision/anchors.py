"""Anchor boxes: fitting to the labelled boxes, the grid over the input, and decoding of offsets.

Training, calibration, the runtime and the metadata of a bundle all use these functions, so
that an output row means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import AnchorLevel, Dataset

# Scales of the SSD box coder (Liu et al. 2016, arXiv:1512.02325; TensorFlow object detection API),
# in the order y, x, h, w that TFLite_Detection_PostProcess decodes.
CODER_SCALES = (10.0, 10.0, 5.0, 5.0)


def anchor_grid(levels: Sequence[AnchorLevel], height: int, width: int) -> NDArray[np.float32]:
    """Return all anchors of a model in the order of its output rows.

    Args:
        levels: Anchor levels, finest stride first.
        height, width: Size of the input in pixels.

    Returns:
        (A, 4) float32 (ycenter, xcenter, h, w) as ratios of the input. The order is level, row,
        column, size, which is the order of ``permute(0, 2, 3, 1).reshape(1, -1, k)``.
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


def decode(location: NDArray[np.float32], anchors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Decode box deltas to boxes, as TFLite_Detection_PostProcess does.

    Args:
        location: (..., A, 4) float32 deltas (y, x, h, w), multiplied by `CODER_SCALES`.
        anchors: (A, 4) float32 anchors as `anchor_grid` returns them.

    Returns:
        (..., A, 4) float32 (ymin, xmin, ymax, xmax) as ratios of the input.
    """
    delta = location / np.asarray(CODER_SCALES, np.float32)
    center = delta[..., :2] * anchors[:, 2:] + anchors[:, :2]
    half = np.exp(delta[..., 2:]) * anchors[:, 2:] / 2
    return np.concatenate([center - half, center + half], axis=-1)


def encode(boxes: NDArray[np.float32], anchors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Encode boxes as deltas; the inverse of `decode`.

    Args:
        boxes: (A, 4) float32 (ymin, xmin, ymax, xmax) as ratios of the input, one for each anchor.
        anchors: (A, 4) float32 anchors as `anchor_grid` returns them.

    Returns:
        (A, 4) float32 deltas (y, x, h, w), multiplied by `CODER_SCALES`.
    """
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    size = boxes[..., 2:] - boxes[..., :2]
    delta = np.concatenate(
        [(center - anchors[:, :2]) / anchors[:, 2:], np.log(size / anchors[:, 2:])], axis=-1
    )
    return delta * np.asarray(CODER_SCALES, np.float32)


def fit_anchors(
    sizes: NDArray[np.floating], strides: Sequence[int], per_level: int = 1, seed: int = 0
) -> tuple[AnchorLevel, ...]:
    """Return anchors for the products of one data set: k-means on their sizes with shape IoU.

    Products on dense shelves have few different sizes, so few anchors are enough. Levels that few
    products need are left out, which saves most of the time of a plain SSD.

    Args:
        sizes: (n, 2) (height, width) of the boxes in input pixels.
        strides: Strides of the levels of the network, finest first.
        per_level: Number of anchors per location of a level.
        seed: Seed for the start of the k-means.

    Returns:
        Levels, finest first, each with `per_level` sizes ordered by area. The number is the same
        for every level because the levels share the weights of the heads. The anchors of a level
        are fitted to the products in its size range, or, if these are fewer than `per_level`, to
        the products that are nearest in size.

    Raises:
        ValueError: If there are no boxes, or a box has no size.
    """
    sizes = np.asarray(sizes, np.float64)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not len(sizes):
        raise ValueError(f"sizes must have shape (n, 2) with n at least 1, got {sizes.shape}")
    sized = (np.isfinite(sizes) & (sizes > 0)).all(axis=1)
    if not sized.all():
        first = int(np.argmin(sized))
        raise ValueError(
            "box sizes must be finite and above 0, "
            f"got {sizes[first].tolist()} in row {first} of {len(sizes)}"
        )
    # The products of a level are up to 8 strides in size, from the limit of the next finer level
    # on: smaller ones contain few anchor locations, and for larger ones the receptive field of one
    # location does not cover the whole product.
    reach = np.sqrt(sizes.prod(axis=1))
    upper = [8.0 * s for s in strides[:-1]] + [np.inf]
    lower = [0.0, *upper[:-1]]
    levels: list[AnchorLevel] = []
    for stride, low, high in zip(strides, lower, upper, strict=True):
        members = sizes[(reach > low) & (reach <= high)]
        # Fewer than 1 in 200 boxes are not worth a level. The neighbouring level detects them.
        if len(members) * 200 < len(sizes) and levels:
            continue
        if len(members) < per_level:
            members = sizes[np.argsort(np.abs(reach - 4 * stride))[: max(per_level, 8)]]
        centers = _k_means(
            members, min(per_level, len(np.unique(members, axis=0))), np.random.default_rng(seed)
        )
        levels.append(
            AnchorLevel(
                stride, tuple((float(h), float(w)) for h, w in _fill_up(centers, per_level))
            )
        )
    return tuple(levels)


def _fill_up(centers: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    # If there are fewer distinct sizes than anchors, the further anchors are the same shapes, each
    # time larger by a third of an octave, the spacing of RetinaNet's scales (arXiv:1708.02002,
    # section 4).
    distinct = np.unique(centers.round(1).clip(min=0.1), axis=0)
    rounds = np.arange(-(-count // len(distinct)))
    grown = (distinct[None] * 2.0 ** (rounds / 3)[:, None, None]).reshape(-1, 2)[:count].round(1)
    return grown[np.argsort(grown.prod(axis=1), kind="stable")]


def recall(
    sizes: NDArray[np.floating], levels: Sequence[AnchorLevel], min_iou: float = 0.5
) -> float:
    """Return the share of box sizes that an anchor matches in shape.

    Args:
        sizes: (n, 2) (height, width) of the boxes in input pixels.
        levels: Anchor levels.
        min_iou: Minimum IoU of a box and an anchor with the same centre.
    """
    anchors = np.concatenate([np.asarray(level.sizes) for level in levels])
    return float((_shape_iou(np.asarray(sizes, np.float64), anchors).max(axis=1) >= min_iou).mean())


def _shape_iou(sizes: NDArray[np.float64], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    common: NDArray[np.float64] = np.minimum(sizes[:, None], centers[None]).prod(axis=2)
    union = sizes.prod(axis=1)[:, None] + centers.prod(axis=1)[None] - common
    return np.asarray(common / union)


def _k_means(sizes: NDArray[np.float64], k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    centers = sizes[rng.choice(len(sizes), k, replace=False)]
    for _ in range(100):
        nearest = _shape_iou(sizes, centers).argmax(axis=1)
        # The centre of an empty cluster stays where it is.
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


def box_sizes(data: Dataset, height: int, width: int) -> NDArray[np.float64]:
    """Return the sizes of all boxes in pixels of the network input.

    Args:
        data: Labelled photos.
        height: Height of the network input in pixels.
        width: Width of the network input in pixels.

    Returns:
        (n, 2) float64 (height, width), ignored areas included.
    """
    parts = [
        (p.truth.boxes[:, 2:] - p.truth.boxes[:, :2])[:, ::-1].astype(np.float64)
        * (height / p.height, width / p.width)
        for p in data.photos
        if len(p.truth)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 2))
