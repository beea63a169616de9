"""Tiled inference: detection on overlapping tiles of a large photo, and merging of the results.

A box of one tile and a box of another are the same product if they agree inside the part of
the photo that both tiles cover. For a product that both tiles show whole, this is plain IoU;
for a product that a border cuts, it compares the visible piece with the same piece of the
fuller box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections, Detector, ModelSpec
from shelfcount.vision import boxes as box_math

# Size in pixels of the photo, sqrt(box area), of products that tiling must still detect.
MIN_PRODUCT_PX = 200.0
# 8 x 8 tiles and the coarser levels are 85 runs of the network, which take seconds on a phone.
MAX_TILES_PER_SIDE = 8
OVERLAP = 0.25
# A box counts as cut if it ends this close to a tile border inside the photo. The distance is a
# share of the side of the box, since the error of a box is proportional to its size, or input
# pixels, since the network has no finer resolution. The limits are generous: a complete box that
# counts as cut does no harm if another tile contains the product completely.
_CUT_SHARE = 0.1
CUT_INPUT_PX = 2.0
# A cut box is a piece of a complete box that contains at least this share of its area after it is
# enlarged by `PIECE_MARGIN` of its size. The margin covers errors of 5 % of the size in both boxes.
_PIECE_SHARE = 0.8
PIECE_MARGIN = 0.1


@dataclass(frozen=True)
class _TileDetections:
    """Detections of the tiles; entry i of each array belongs to box i.

    Attributes:
        detections: Boxes in pixels of the photo.
        windows: (n, 4) float32 xyxy, the tile of each box in pixels of the photo.
        cut: (n,) bool, whether the box ends at a tile border inside the photo.
    """

    detections: Detections
    windows: NDArray[np.float32]
    cut: NDArray[np.bool_]

    def __getitem__(self, index: NDArray[np.bool_] | NDArray[np.int64] | slice) -> _TileDetections:
        return _TileDetections(self.detections[index], self.windows[index], self.cut[index])


def tiles_per_side(spec: ModelSpec, width: int, height: int) -> int:
    """Return the number of tiles per side that small products of a photo need.

    A product of `MIN_PRODUCT_PX` must have at least the median size of the products in the
    training data when it reaches the network.

    Args:
        spec: Metadata of the model: input size and `product_px`.
        width, height: Size of the photo in pixels.

    Returns:
        n for n x n tiles, 1 (the photo itself) to `MAX_TILES_PER_SIDE`.
    """
    photo_shrink = (width / spec.width + height / spec.height) / 2
    max_shrink = MIN_PRODUCT_PX / spec.product_px[1]
    for per_side in range(1, MAX_TILES_PER_SIDE):
        if photo_shrink * _tile_share(per_side) <= max_shrink:
            return per_side
    return MAX_TILES_PER_SIDE


def detect_tiled(
    detector: Detector, image: NDArray[np.uint8], *, per_side: int | None = None
) -> Detections:
    """Return the products on a photo of any size, each once.

    The detector runs on n x n tiles, then on half as many per side, and so on up to the whole
    photo. A coarser tile contains completely the products that are too large for the overlap of the
    finer tiles.

    Args:
        detector: Any detector.
        image: (height, width, 3) uint8 RGB, upright.
        per_side: Number of tiles per side; 1 for the whole photo only. Default: `tiles_per_side`.

    Returns:
        Boxes in pixels of `image`, highest score first. ``spec.max_detections`` limits the boxes of
        a tile, not of the photo.

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
    parts = [
        part
        for level, finer in _levels(per_side)
        for part in _detect_tiles(detector, image, level, finer)
    ]
    return _merge(parts, detector.spec.nms_iou)


def _tile_share(per_side: int) -> float:
    """Return the side of a tile as a share of the photo's side, see `tiles`."""
    return 1 / (per_side - (per_side - 1) * OVERLAP)


def _levels(per_side: int) -> Iterator[tuple[int, int | None]]:
    """Yield the tiles per side of each level, finest first, with those of the level before."""
    finer = None
    while per_side >= 1:
        yield per_side, finer
        finer, per_side = per_side, per_side // 2


def _detect_tiles(
    detector: Detector, image: NDArray[np.uint8], per_side: int, finer: int | None
) -> Iterator[_TileDetections]:
    """Yield the detections of each tile of one level, in pixels of the photo.

    Boxes that fit into the overlap of the next finer level's tiles are left out.
    """
    height, width = image.shape[:2]
    photo = np.array([0, 0, width, height], np.float32)
    for left, top, right, bottom in tiles(width, height, per_side, OVERLAP):
        detections = detector.detect(np.ascontiguousarray(image[top:bottom, left:right]))
        detections = detections.replace(
            boxes=box_math.clip(
                detections.boxes + np.array([left, top, left, top], np.float32), width, height
            )
        )
        if finer is not None:
            # A finer tile contained these products completely and at a larger scale. Here they are
            # smaller than in training, where a network may detect two products as one.
            zone = np.array([width, height]) * _tile_share(finer) * OVERLAP
            detections = detections[
                ((detections.boxes[:, 2:] - detections.boxes[:, :2]) > zone).any(axis=1)
            ]
        window = np.array([left, top, right, bottom], np.float32)
        side = np.tile(detections.boxes[:, 2:] - detections.boxes[:, :2], 2)
        pixel = np.tile(
            [(right - left) / detector.spec.width, (bottom - top) / detector.spec.height], 2
        )
        near = np.abs(detections.boxes - window) <= np.maximum(
            _CUT_SHARE * side, CUT_INPUT_PX * pixel
        )
        yield _TileDetections(
            detections,
            np.tile(window, (len(detections), 1)),
            (near & (window != photo)).any(axis=1),
        )


def _merge(parts: list[_TileDetections], nms_iou: float) -> Detections:
    seen = _TileDetections(
        Detections.concat([part.detections for part in parts]),
        np.concatenate([part.windows for part in parts]),
        np.concatenate([part.cut for part in parts]),
    )
    whole = seen[~seen.cut]
    whole = whole[_suppress(whole, nms_iou)]
    cut = seen[seen.cut]
    # One box at a time: a table of all pairs of 64 full tiles does not fit into memory.
    known = np.array(
        [_is_piece(cut[i : i + 1], whole, nms_iou) for i in range(len(cut.detections))], np.bool_
    )
    merged = Detections.concat([whole.detections, _unite(cut[~known], nms_iou)])
    return merged[np.argsort(-merged.scores, kind="stable")]


def _is_piece(cut: _TileDetections, whole: _TileDetections, nms_iou: float) -> bool:
    """Return whether a cut box is a piece of a product that another tile contains completely."""
    inside = _share_inside(cut.detections.boxes, whole.detections.boxes) > _PIECE_SHARE
    return bool((inside | (_agreement(cut, whole) > nms_iou)).any())


def _agreement(a: _TileDetections, b: _TileDetections) -> NDArray[np.floating]:
    """Return the (n, m) IoU of a[i] and b[j] inside the part of the photo that both tiles cover."""
    return box_math.common_part_iou(a.detections.boxes, a.windows, b.detections.boxes, b.windows)


def _share_inside(
    pieces: NDArray[np.floating], boxes: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return the (n, m) share of each piece's area in each box, enlarged by `PIECE_MARGIN`."""
    return box_math.pieces_inside(pieces[:, None], boxes[None], PIECE_MARGIN)


def _suppress(whole: _TileDetections, nms_iou: float) -> NDArray[np.int64]:
    """Return the indices of the boxes that no box of another tile suppresses, best score first.

    Boxes of one tile do not suppress each other: the network has already suppressed them, and
    products that really overlap must not be lost because two tiles contain them.
    """
    boxes, windows = whole.detections.boxes, whole.windows
    alive = np.ones(len(boxes), bool)
    kept = []
    for i in np.argsort(-whole.detections.scores, kind="stable"):
        if alive[i]:
            kept.append(i)
            foreign = (windows != windows[i]).any(axis=1)
            alive &= ~(foreign & (box_math.iou(boxes[i : i + 1], boxes)[0] > nms_iou))
    return np.array(kept, np.int64)


def _unite(pieces: _TileDetections, nms_iou: float) -> Detections:
    """Return one box around the pieces of each product that no tile contains completely."""
    linked = (_agreement(pieces, pieces) > nms_iou) | np.eye(len(pieces.detections), dtype=bool)
    product = np.arange(len(linked))
    # Connected components: every piece takes the smallest number of the pieces linked to it,
    # until nothing changes.
    while (
        len(linked)
        and (lower := np.where(linked, product[None], len(linked)).min(axis=1)).tolist()
        != product.tolist()
    ):
        product = lower
    united = []
    for members in (product == number for number in np.unique(product)):
        detections = pieces.detections[members]
        around = box_math.enclosing_box(detections.boxes)
        best = [int(detections.scores.argmax())]
        united.append(detections[np.array(best)].replace(boxes=around[None]))
    products = Detections.concat(united)
    # A piece that is too thin to agree with the others is inside the box around them.
    inside = _share_inside(products.boxes, products.boxes) > _PIECE_SHARE
    larger = box_math.area(products.boxes)[None] > box_math.area(products.boxes)[:, None]
    return products[~(inside & larger).any(axis=1)]


def tiles(
    width: int, height: int, per_side: int, overlap: float = 0.25
) -> Iterator[tuple[int, int, int, int]]:
    """Yield overlapping tiles that cover a photo, `per_side` in each direction.

    A tile has the aspect ratio of the photo, so that products are stretched in a tile as they were
    in training.

    Args:
        width, height: Size of the photo in pixels.
        per_side: Number of tiles per side; 1 gives the photo itself.
        overlap: Share of a tile's side that the neighbouring tile covers too.

    Yields:
        (left, top, right, bottom) in pixels.
    """
    share = 1 / (per_side - (per_side - 1) * overlap)
    tile_width, tile_height = round(width * share), round(height * share)
    for top in np.linspace(0, height - tile_height, per_side).round().astype(int):
        for left in np.linspace(0, width - tile_width, per_side).round().astype(int):
            yield int(left), int(top), int(left) + tile_width, int(top) + tile_height


def input_shrink(spec: ModelSpec, width: int, height: int) -> tuple[float, float]:
    """Return pixels of the photo per pixel of the network's input, x and y, in the finest tiles."""
    _, _, tile_width, tile_height = next(tiles(width, height, tiles_per_side(spec, width, height)))
    return tile_width / spec.width, tile_height / spec.height
