"""Tests of tiling on real pixels, so that tile borders really cut products."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from shelfcount.records import Detections, ModelSpec
from shelfcount.runtime import inference
from shelfcount.runtime.inference import MAX_TILES_PER_SIDE, detect_tiled, tiles_per_side
from shelfcount.vision import boxes as box_math

WIDTH, HEIGHT = 4000, 3000
SPEC = ModelSpec("blobs", "none", ("even", "odd"), 416, 416, (), product_px=(30.0, 42.0, 58.0))


class BlobDetector:
    """Detector of rectangles of one colour at the network's resolution.

    The red channel is the number of the product.
    """

    def __init__(
        self,
        spec: ModelSpec = SPEC,
        jitter: float = 0.0,
        smallest: float = 3.0,
        largest: float = 1e9,
        seed: int = 0,
    ) -> None:
        self.spec = spec
        self.jitter, self.smallest, self.largest = jitter, smallest, largest
        self.rng = np.random.default_rng(seed)
        self.looks = 0

    def detect(self, image: np.ndarray) -> Detections:
        self.looks += 1
        # Nearest neighbour at pixel centres: the best possible input for a network of this size.
        rows = ((np.arange(self.spec.height) + 0.5) * image.shape[0] / self.spec.height).astype(int)
        columns = ((np.arange(self.spec.width) + 0.5) * image.shape[1] / self.spec.width).astype(
            int
        )
        small = image[rows[:, None], columns[None], 0]
        boxes, classes = [], []
        for number in (
            np.flatnonzero(np.bincount(small.ravel(), minlength=256))[1:] if small.any() else ()
        ):
            mask = small == number
            y, x = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            boxes.append([x[0], y[0], x[-1] + 1, y[-1] + 1])
            classes.append(number % 2)
        found = np.array(boxes, np.float32).reshape(-1, 4)
        reach = np.sqrt(box_math.area(found))
        visible = (reach >= self.smallest) & (reach <= self.largest)
        found, classes = found[visible], np.array(classes, int)[visible]
        size = np.tile(found[:, 2:] - found[:, :2], 2)
        found = found + self.rng.uniform(-self.jitter, self.jitter, found.shape) * size
        found = found * (
            np.tile(image.shape[1::-1], 2) / np.tile([self.spec.width, self.spec.height], 2)
        )
        scores = self.rng.uniform(0.5, 1, len(found))
        order = np.argsort(-scores)
        return Detections(
            box_math.clip(found, image.shape[1], image.shape[0])[order],
            classes[order],
            scores[order],
        )


def paint(boxes: np.ndarray, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes.astype(int), start=1):
        image[top:bottom, left:right, 0] = number
    return image


def packed(rng: np.random.Generator, smallest: int, largest: int, gap: int) -> np.ndarray:
    """Return rows of products from edge to edge: every tile border cuts some of them."""
    boxes: list[list[int]] = []
    top = gap
    while top + smallest <= HEIGHT:
        row_height = int(rng.integers(smallest, largest + 1))
        left = gap
        while left + smallest <= WIDTH:
            width, height = (
                int(rng.integers(smallest, largest + 1)),
                int(rng.integers(max(smallest, row_height // 2), row_height + 1)),
            )
            bottom = min(top + row_height, HEIGHT)
            boxes.append([left, max(top, bottom - height), min(left + width, WIDTH), bottom])
            left += width + gap
        top += row_height + gap
    return np.array(boxes, np.float32)[:255]


def assert_each_once(found: Detections, truth: np.ndarray, least_iou: float) -> None:
    overlaps = box_math.iou(truth, found.boxes.astype(np.float64))
    assert len(found) == len(truth)
    assert sorted(overlaps.argmax(axis=1)) == list(range(len(truth)))
    assert overlaps.max(axis=1).min() > least_iou
    numbers = overlaps.argmax(axis=0) + 1
    assert (found.classes == numbers % 2).all()
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize(
    ("size", "median", "expected"),
    [
        ((416, 416), 42, 1),  # the photo is the input
        ((1024, 768), 42, 1),  # shrinks by (2.46 + 1.85) / 2 = 2.2, 200 / 42 = 4.8 allowed
        # shrinks by 8.41; halves leave 8.41 / 1.75 = 4.81, just above 200 / 42 = 4.76
        ((4000, 3000), 42, 3),
        ((4000, 3000), 41, 2),  # 200 / 41 = 4.88 suffices for 2
        ((4000, 3000), 100, 6),  # 200 / 100 = 2; 8.41 / 4.75 = 1.77, 8.41 / 4 = 2.1
        ((30000, 20000), 42, MAX_TILES_PER_SIDE),
    ],
)
def test_a_200_pixel_product_arrives_with_the_median_size(
    size: tuple[int, int], median: float, expected: int
) -> None:
    spec = dataclasses.replace(SPEC, product_px=(median / 2, median, median * 2))
    assert tiles_per_side(spec, *size) == expected


def test_products_too_small_for_the_whole_photo_are_found_in_tiles() -> None:
    truth = packed(np.random.default_rng(0), 200, 300, 20)
    detector = BlobDetector(
        smallest=30.0
    )  # training's 10th percentile; 200 px are 24 px of the whole photo
    image = paint(truth)
    assert len(detector.detect(image)) < len(truth)
    assert_each_once(detect_tiled(detector, image), truth, 0.8)


@pytest.mark.parametrize(
    ("per_side", "sizes"),
    [(3, (60, 250)), (2, (150, 500)), (3, (200, 900)), (4, (60, 900)), (8, (60, 300))],
)
@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_each_product_of_60_to_900_pixels_once(
    per_side: int, sizes: tuple[int, int], jitter: float
) -> None:
    truth = packed(np.random.default_rng(per_side), *sizes, 6)
    found = detect_tiled(
        BlobDetector(jitter=jitter, seed=per_side), paint(truth), per_side=per_side
    )
    # Every edge is off by up to 5 %: (0.9 / 1.1) in one axis is 0.82. With these seeds, both axes
    # at once do not reach the maximum.
    assert_each_once(found, truth, 0.8 if jitter == 0 else 0.75)


@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_products_on_every_tile_border_once(jitter: float) -> None:
    windows = np.array(list(inference.tiles(WIDTH, HEIGHT, 3)))
    columns, rows = (np.unique(windows[:, [axis, axis + 2]]) for axis in (0, 1))
    crossings = [(x, y) for x in columns for y in rows if 0 < x < WIDTH and 0 < y < HEIGHT]
    truth = np.array([[x - 90, y - 60, x + 90, y + 60] for x, y in crossings], np.float32)
    assert_each_once(
        detect_tiled(BlobDetector(jitter=jitter), paint(truth), per_side=3), truth, 0.75
    )


@pytest.mark.parametrize("jitter", [0.0, 0.05])
@pytest.mark.parametrize("per_side", [2, 3])
def test_halves_are_united_where_no_window_saw_the_product_whole(
    per_side: int, jitter: float
) -> None:
    truth = packed(np.random.default_rng(13), 500, 900, 6)

    class BlindToWholePhoto(BlobDetector):
        def detect(self, image: np.ndarray) -> Detections:
            return Detections.empty() if image.shape[0] == HEIGHT else super().detect(image)

    found = detect_tiled(BlindToWholePhoto(jitter=jitter), paint(truth), per_side=per_side)
    assert_each_once(found, truth, 0.75)


def test_small_products_before_a_large_one_all_count() -> None:
    large = np.array([[1000, 800, 2900, 2300]], np.float32)
    small = np.array(
        [[x, y, x + 150, y + 200] for x in range(1040, 2700, 200) for y in range(850, 2000, 240)],
        np.float32,
    )
    truth = np.concatenate([large, small])
    assert_each_once(detect_tiled(BlobDetector(), paint(truth), per_side=3), truth, 0.8)


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_that_overlap_both_count(seed: int) -> None:
    """Overlapping products count separately.

    Blobs cannot overlap, so each pixel encodes its position in the photo, and the detector looks up
    the products there.
    """
    first = np.array(
        [[x, y, x + 200, y + 300] for x in range(100, 3600, 330) for y in range(50, 2600, 350)],
        np.float32,
    )
    truth = np.concatenate(
        [first, first + np.array([100, 0, 100, 0], np.float32)]
    )  # IoU 1/3 within a pair
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([x // 16, y // 16, x % 16 + 16 * (y % 16)], axis=2).astype(np.uint8)

    class KnowsThePlace(BlobDetector):
        def detect(self, image: np.ndarray) -> Detections:
            column, row, offset = image[0, 0].astype(int)
            left, top = column * 16 + offset % 16, row * 16 + offset // 16
            seen = box_math.clip(
                truth - np.array([left, top, left, top], np.float32), image.shape[1], image.shape[0]
            )
            index = np.flatnonzero(box_math.area(seen) > 0.05 * box_math.area(truth))
            size = np.tile(seen[index, 2:] - seen[index, :2], 2)
            noisy = seen[index] + self.rng.uniform(-0.03, 0.03, (len(index), 4)) * size
            return Detections(
                box_math.clip(noisy, image.shape[1], image.shape[0]),
                (index + 1) % 2,
                self.rng.uniform(0.5, 1, len(index)),
            )

    assert_each_once(detect_tiled(KnowsThePlace(seed=seed), image, per_side=3), truth, 0.75)


def test_small_photos_are_looked_at_once() -> None:
    detector = BlobDetector()
    image = paint(np.array([[20, 20, 80, 100]], np.float32), 416, 416)
    assert detect_tiled(detector, image).boxes.tolist() == [[20, 20, 80, 100]]
    assert detector.looks == 1


def test_coarser_levels_down_to_the_whole_photo() -> None:
    detector = BlobDetector()
    assert len(detect_tiled(detector, np.zeros((300, 400, 3), np.uint8), per_side=5)) == 0
    assert detector.looks == 5 * 5 + 2 * 2 + 1


def test_per_side_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="per_side must be at least 1, got 0"):
        detect_tiled(BlobDetector(), np.zeros((30, 40, 3), np.uint8), per_side=0)
