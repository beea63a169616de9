"""Large photos: look at overlapping windows, then merge what they saw so that every product counts once.

One question decides every merge: *do two windows agree about what both of them see?* A box of one
window and a box of another are the same product if they look alike inside the part of the photo
that both windows cover. For a product that both see whole, this is plain IoU; for one that a border
cuts, it compares the visible piece with the same piece of the fuller box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shelfcount.records import Detections, Detector, ModelSpec
from shelfcount.vision import boxes as box_math
from shelfcount.vision import images

# sqrt(box area) in the photo that must still be found: issue 2, "a 200-pixel product in a
# 12-megapixel photo is not lost".
SMALLEST_PRODUCT_PX = 200.0
# 8 x 8 tiles are 85 looks with the coarser levels, seconds on a phone; finer has no use.
MOST_TILES_PER_SIDE = 8
OVERLAP = 0.25
# A box counts as cut if it ends this near to a border inside the photo: a share of its own side, as
# a box is off by a share of its size, and input pixels, as the network sees no finer. Generous:
# calling a whole box cut is harmless where another window sees the product whole.
CUT_SHARE = 0.1
CUT_INPUT_PX = 2.0
# A cut box is a piece of a whole one that contains so much of it, the whole one grown by
# `PIECE_MARGIN` of its size: two boxes each off by 5 % of their size stay within.
PIECE_SHARE = 0.8
PIECE_MARGIN = 0.1


@dataclass(frozen=True)
class _Seen:
    """What the windows saw; column i of each array belongs to box i.

    Attributes:
        found: Boxes in pixels of the photo.
        windows: (n, 4) float32 xyxy, the window each box was seen in.
        cut: (n,) bool, the box ends at a window border inside the photo.
    """

    found: Detections
    windows: np.ndarray
    cut: np.ndarray

    def __getitem__(self, index: np.ndarray | slice) -> _Seen:
        return _Seen(self.found[index], self.windows[index], self.cut[index])


def tiles_per_side(spec: ModelSpec, width: int, height: int) -> int:
    """How finely a photo must be cut for its small products to look as large as those in training.

    A product of `SMALLEST_PRODUCT_PX` shall arrive at the network with at least the median size of
    the training data's products.

    Args:
        spec: Of the model; its input size and `product_px` decide.
        width, height: Of the photo in pixels.

    Returns:
        n for n x n tiles, 1 (the photo itself) to `MOST_TILES_PER_SIDE`.
    """
    photo_shrink = (width / spec.width + height / spec.height) / 2
    most_shrink = SMALLEST_PRODUCT_PX / spec.product_px[1]
    for per_side in range(1, MOST_TILES_PER_SIDE):
        if photo_shrink * _tile_share(per_side) <= most_shrink:
            return per_side
    return MOST_TILES_PER_SIDE


def detect_tiled(
    detector: Detector, image: np.ndarray, *, per_side: int | None = None
) -> Detections:
    """Products on a photo of any size, small ones included, each once.

    The photo is looked at in n x n tiles, in half as many to a side, and so on up to the whole
    photo, so that a product too large for the overlap of the fine tiles is seen whole by a coarser one.

    Args:
        detector: Any detector.
        image: (height, width, 3) uint8 RGB, upright.
        per_side: n; None for what `tiles_per_side` finds, 1 for the plain photo.

    Returns:
        Boxes in pixels of `image`, best score first. ``spec.max_detections`` holds for a tile, not here.

    Raises:
        ValueError: If `per_side` is below 1.
    """
    height, width = image.shape[:2]
    if per_side is None:
        per_side = tiles_per_side(detector.spec, width, height)
    if per_side < 1:
        raise ValueError(f"per_side must be at least 1, got {per_side}")
    if per_side == 1:
        return detector.detect(image)
    looks = [
        look for level, finer in _levels(per_side) for look in _look(detector, image, level, finer)
    ]
    return _merge(looks, detector.spec.nms_iou)


def _tile_share(per_side: int) -> float:
    """Side of a tile as a share of the photo's side, as `vision.images.tiles` cuts them."""
    return 1 / (per_side - (per_side - 1) * OVERLAP)


def _levels(per_side: int) -> Iterator[tuple[int, int | None]]:
    """Tiles to a side of each level, finest first, and of the level before it."""
    finer = None
    while per_side >= 1:
        yield per_side, finer
        finer, per_side = per_side, per_side // 2


def _look(
    detector: Detector, image: np.ndarray, per_side: int, finer: int | None
) -> Iterator[_Seen]:
    """What each tile of one level saw, in pixels of the photo."""
    height, width = image.shape[:2]
    photo = np.array([0, 0, width, height], np.float32)
    for left, top, right, bottom in images.tiles(width, height, per_side, OVERLAP):
        found = detector.detect(np.ascontiguousarray(image[top:bottom, left:right]))
        found = found.replace(
            boxes=box_math.clip(
                found.boxes + np.array([left, top, left, top], np.float32), width, height
            )
        )
        if finer is not None:
            # What fits into the overlap of the finer tiles was seen whole there, and larger. Here it
            # is below the sizes of training, where a network takes two products for one.
            zone = np.array([width, height]) * _tile_share(finer) * OVERLAP
            found = found[((found.boxes[:, 2:] - found.boxes[:, :2]) > zone).any(axis=1)]
        window = np.array([left, top, right, bottom], np.float32)
        side = np.tile(found.boxes[:, 2:] - found.boxes[:, :2], 2)
        pixel = np.tile(
            [(right - left) / detector.spec.width, (bottom - top) / detector.spec.height], 2
        )
        near = np.abs(found.boxes - window) <= np.maximum(CUT_SHARE * side, CUT_INPUT_PX * pixel)
        yield _Seen(found, np.tile(window, (len(found), 1)), (near & (window != photo)).any(axis=1))


def _merge(looks: list[_Seen], nms_iou: float) -> Detections:
    seen = _Seen(
        Detections.concat([look.found for look in looks]),
        np.concatenate([look.windows for look in looks]),
        np.concatenate([look.cut for look in looks]),
    )
    whole = seen[~seen.cut]
    whole = whole[_suppress(whole, nms_iou)]
    cut = seen[seen.cut]
    # One at a time: a table of all pairs of 64 full tiles would not fit into the memory.
    known = np.array(
        [_is_piece(cut[i : i + 1], whole, nms_iou) for i in range(len(cut.found))], bool
    )
    merged = Detections.concat([whole.found, _unite(cut[~known], nms_iou)])
    return merged[np.argsort(-merged.scores, kind="stable")]


def _is_piece(cut: _Seen, whole: _Seen, nms_iou: float) -> bool:
    """Whether one cut box shows a part of a product that another window saw whole."""
    inside = _share_inside(cut.found.boxes, whole.found.boxes) > PIECE_SHARE
    return bool((inside | (_agreement(cut, whole) > nms_iou)).any())


def _agreement(a: _Seen, b: _Seen) -> np.ndarray:
    """(n, m) IoU of a[i] and b[j] inside the part of the photo that both their windows see."""
    a_boxes, b_boxes = np.broadcast_arrays(a.found.boxes[:, None], b.found.boxes[None])
    low = np.maximum(a.windows[:, None, :2], b.windows[None, :, :2])
    high = np.maximum(np.minimum(a.windows[:, None, 2:], b.windows[None, :, 2:]), low)
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


def _share_inside(pieces: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n, m) share of each piece's area inside each box grown by `PIECE_MARGIN`."""
    margin = PIECE_MARGIN * (boxes[:, 2:] - boxes[:, :2])
    grown = np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)
    return box_math.intersection(pieces, grown) / np.maximum(
        box_math.area(pieces)[:, None], np.finfo(np.float32).tiny
    )


def _suppress(whole: _Seen, nms_iou: float) -> np.ndarray:
    """Indices of whole boxes that no better box of another window stands for, best first.

    Boxes of one window are left alone: the network has suppressed them itself, and products that
    really overlap must not be lost because two windows together see them twice.
    """
    boxes, windows = whole.found.boxes, whole.windows
    alive = np.ones(len(boxes), bool)
    kept = []
    for i in np.argsort(-whole.found.scores, kind="stable"):
        if alive[i]:
            kept.append(i)
            foreign = (windows != windows[i]).any(axis=1)
            alive &= ~(foreign & (box_math.iou(boxes[i : i + 1], boxes)[0] > nms_iou))
    return np.array(kept, np.int64)


def _unite(pieces: _Seen, nms_iou: float) -> Detections:
    """Pieces of products that no window saw whole, one box around the pieces of each."""
    linked = (_agreement(pieces, pieces) > nms_iou) | np.eye(len(pieces.found), dtype=bool)
    product = np.arange(len(linked))
    # Each round takes the smallest number among the linked pieces, until nothing changes.
    while (
        len(linked)
        and (lower := np.where(linked, product[None], len(linked)).min(axis=1)).tolist()
        != product.tolist()
    ):
        product = lower
    united = []
    for members in (product == number for number in np.unique(product)):
        found = pieces.found[members]
        around = np.concatenate([found.boxes[:, :2].min(axis=0), found.boxes[:, 2:].max(axis=0)])
        best = [int(found.scores.argmax())]
        united.append(found[np.array(best)].replace(boxes=around[None]))
    products = Detections.concat(united)
    # A piece too thin to agree with the others still lies in what they make together.
    inside = _share_inside(products.boxes, products.boxes) > PIECE_SHARE
    larger = box_math.area(products.boxes)[None] > box_math.area(products.boxes)[:, None]
    return products[~(inside & larger).any(axis=1)]
