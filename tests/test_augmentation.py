"""Tests of augmentation: boxes stay on their products, and samples are reproducible."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shelfcount.config import AugmentConfig
from shelfcount.records import Dataset, Detections, Photo
from shelfcount.training import augmentation
from shelfcount.training.augmentation import TrainingPhotos, _widen, _widen_boxes
from shelfcount.training.batches import EpochSampler, collate
from shelfcount.vision import homography
from shelfcount.vision.images import FILL_GREY, write_photo

HEIGHT, WIDTH = 96, 128
# Colours of red, green and blue products: class c is bright only in channel c.
RED = {0: (230, 20, 20), 1: (20, 230, 20), 2: (20, 20, 230)}
# Augmentation that moves pixels without changing colours.
GEOMETRY = AugmentConfig(
    mosaic=0,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    blur=0,
    noise=0,
    jpeg=0,
    perspective=0.5,
    rotate=8,
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four photos with two, three, no and one (ignored) products; larger than the input."""
    return _draw(tmp_path_factory.mktemp("shelf"), round_=False)


@pytest.fixture(scope="module")
def round_shelf(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same photos with elliptical products.

    The bounding box of an ellipse grows little under rotation, as that of bottles and cans.
    """
    return _draw(tmp_path_factory.mktemp("round"), round_=True)


def _draw(folder: Path, round_: bool) -> Dataset:
    layouts = [
        ([[40, 60, 90, 120], [150, 30, 190, 140]], [0, 1], [False, False]),
        ([[20, 20, 80, 70], [110, 90, 150, 170], [180, 40, 230, 100]], [2, 0, 1], [False] * 3),
        ([], [], []),
        ([[90, 50, 170, 130]], [2], [True]),
    ]
    photos = []
    for i, (boxes, classes, ignore) in enumerate(layouts):
        image = np.full((192, 256, 3), FILL_GREY, np.uint8)
        for (left, top, right, bottom), c in zip(boxes, classes, strict=True):
            if round_:
                center, half = (
                    ((left + right - 1) / 2, (top + bottom - 1) / 2),
                    ((right - left) / 2, (bottom - top) / 2),
                )
                y, x = np.mgrid[:192, :256]
                image[((x - center[0]) / half[0]) ** 2 + ((y - center[1]) / half[1]) ** 2 <= 1] = (
                    RED[c]
                )
            else:
                image[top:bottom, left:right] = RED[c]
        write_photo(folder / f"{i}.png", image)
        photos.append(
            Photo(folder / f"{i}.png", 256, 192, Detections(boxes, classes, ignore=ignore))
        )
    return Dataset(("red", "green", "blue"), tuple(photos))


def _photos(
    shelf: Dataset, config: AugmentConfig | None, epochs: int = 100, seed: int = 0
) -> TrainingPhotos:
    return TrainingPhotos(shelf, HEIGHT, WIDTH, config, epochs, seed)


def _product_pixels(image: torch.Tensor, c: int) -> np.ndarray:
    """Return (H, W) bool: pixels with the colour of class c, up to half of a blended edge."""
    channels = image.numpy().astype(int)
    return channels[c] - np.delete(channels, c, axis=0).max(axis=0) > 105


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_without_augmentation_photos_are_stretched_and_boxes_scaled(shelf: Dataset) -> None:
    sample = _photos(shelf, None)[0, 0]
    assert sample["image"].shape == (3, HEIGHT, WIDTH)
    assert sample["image"].dtype == torch.uint8
    # 256 x 192 to 128 x 96 halves everything.
    assert sample["boxes"].tolist() == [[20, 30, 45, 60], [75, 15, 95, 70]]
    assert sample["classes"].tolist() == [0, 1]
    assert sample["image"][:, 45, 30].tolist() == list(RED[0])


def test_sample_depends_on_seed_epoch_and_index_alone(shelf: Dataset) -> None:
    photos = _photos(shelf, AugmentConfig())
    first = {key: photos[key] for key in [(0, 0), (0, 1), (3, 1), (90, 3)]}
    # With another order, another object, and other states of the global generators.
    again = _photos(shelf, AugmentConfig())
    for key in reversed(first):
        random.seed(123)
        torch.manual_seed(456)
        np.random.seed(789)  # noqa: NPY002
        assert _same(again[key], first[key])
    assert not torch.equal(photos[0, 1]["image"], photos[3, 1]["image"])
    assert not torch.equal(
        _photos(shelf, AugmentConfig(), seed=1)[0, 1]["image"], first[0, 1]["image"]
    )


@pytest.mark.parametrize(
    "config",
    [AugmentConfig(mosaic=1, mosaic_until=1), AugmentConfig(mosaic=0), GEOMETRY],
    ids=["mosaic", "plain", "geometry"],
)
def test_boxes_stay_inside_and_columns_belong_together(
    shelf: Dataset, config: AugmentConfig
) -> None:
    photos = _photos(shelf, config)
    border = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    for epoch in range(25):
        for index in range(len(shelf)):
            sample = photos[epoch, index]
            boxes = sample["boxes"]
            assert type(sample["image"]) is torch.Tensor
            assert sample["image"].shape == (3, HEIGHT, WIDTH)
            assert boxes.shape == (len(sample["classes"]), 4)
            assert sample["ignore"].shape == (len(boxes),)
            assert ((boxes >= 0) & (boxes <= border)).all()
            assert (boxes[:, 2:] - boxes[:, :2] > 1).all()


@pytest.mark.parametrize(
    ("perspective", "aspect", "tolerance"),
    [(0.0, 0.0, 2.0), (0.0, 0.15, 2.0), (1.0, 0.15, 2.5)],
)
def test_boxes_follow_their_products(
    round_shelf: Dataset, perspective: float, aspect: float, tolerance: float
) -> None:
    photos = _photos(
        round_shelf, GEOMETRY.model_copy(update={"perspective": perspective, "aspect": aspect})
    )
    checked, off = 0, []
    for epoch in range(40):
        sample = photos[epoch, 1]
        # One product of each class here, so its pixels are found by colour.
        for box, c in zip(sample["boxes"].numpy(), sample["classes"].tolist(), strict=True):
            rows, columns = np.nonzero(_product_pixels(sample["image"], c))
            if len(rows) < 30:
                continue
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            # A rotated product that is cut at the border is smaller than its cut box.
            margin = 2 + WIDTH * aspect / 2
            if min(box[0] - margin, box[1] - 2, WIDTH - margin - box[2], HEIGHT - 2 - box[3]) > 0:
                np.testing.assert_allclose(seen, box, atol=tolerance)
                off.append(box - seen)
                checked += 1
    assert checked > 30
    # No edge is biased, since a network learns even a bias of a fraction of a pixel.
    assert np.abs(np.mean(off, axis=0)).max() < 0.5


def test_no_box_stands_on_the_grey_beside_a_narrowed_photo(shelf: Dataset) -> None:
    # Enlarging moves products out of the frame. Narrowing afterwards shows the place where they
    # were.
    photos = _photos(
        shelf,
        GEOMETRY.model_copy(
            update={"perspective": 0, "rotate": 0, "scale": (1.3, 1.6), "aspect": 0.3}
        ),
    )
    boxes = 0
    for epoch in range(60):
        sample = photos[epoch, 1]
        for box, c in zip(sample["boxes"].numpy(), sample["classes"].tolist(), strict=True):
            left, top, right, bottom = np.rint(box).astype(int)
            if min(right - left, bottom - top) > 6:
                assert _product_pixels(sample["image"], c)[top:bottom, left:right].mean() > 0.7
                boxes += 1
    assert boxes > 60


def test_mosaic_boxes_cover_the_products_and_nothing_else(shelf: Dataset) -> None:
    still = {"rotate": 0, "perspective": 0, "flip": 0, "aspect": 0, "scale": (1.0, 1.0)}
    photos = _photos(
        shelf, GEOMETRY.model_copy(update={"mosaic": 1.0, "mosaic_until": 1.0, **still})
    )
    # Only translation is left.
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    products = 0
    for epoch in range(25):
        sample = photos[epoch, 0]
        boxes, classes = sample["boxes"].numpy(), sample["classes"].numpy()
        products += len(boxes)
        for c in range(3):
            pixels = _product_pixels(sample["image"], c)
            covered = np.zeros_like(pixels)
            for left, top, right, bottom in boxes[classes == c]:
                covered |= (
                    (x > left - 1.5) & (x < right + 1.5) & (y > top - 1.5) & (y < bottom + 1.5)
                )
                window = pixels[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
                # A narrow part of a product fills little of its box.
                assert min(window.shape) < 8 or window.mean() > 0.6
            # Parts narrower than a pixel have no box: a column or two of pixels as long as a
            # product.
            assert (pixels & ~covered).sum() <= HEIGHT
    assert products > 60


def test_mosaic_ends_before_the_last_epochs(shelf: Dataset) -> None:
    config = GEOMETRY.model_copy(update={"mosaic": 1.0, "mosaic_until": 0.5})
    photos = _photos(shelf, config, epochs=10)
    # Photo 2 has no product, so all products are from the three other photos of the mosaic.
    assert sum(len(photos[epoch, 2]["boxes"]) for epoch in range(5)) > 0
    assert sum(len(photos[epoch, 2]["boxes"]) for epoch in range(5, 10)) == 0


def test_a_product_cut_to_little_is_not_judged(shelf: Dataset) -> None:
    photos = _photos(shelf, GEOMETRY.model_copy(update={"scale": (1.8, 2.2), "aspect": 0}))
    samples = [photos[epoch, 1] for epoch in range(30)]
    assert any(s["ignore"].any() for s in samples)
    # A box that is marked `ignore` touches the border. The box of photo 3 is always marked.
    for s in samples:
        for left, top, right, bottom in s["boxes"][s["ignore"]].tolist():
            assert min(left, top, WIDTH - right, HEIGHT - bottom) == 0
    assert all(photos[epoch, 3]["ignore"].all() for epoch in range(10))


@pytest.mark.parametrize("share", [0.8, 0.93, 1.0, 1.2])
def test_widening_keeps_the_frame_and_pads_with_grey(share: float) -> None:
    image = torch.full((3, 40, 101), 255, dtype=torch.uint8)
    image[:, 10:30, 30:60] = 0
    wide, boxes = (
        _widen(image, share),
        _widen_boxes(torch.tensor([[30.0, 10.0, 60.0, 30.0]]), share, 101),
    )
    assert wide.shape == image.shape
    rows, columns = np.nonzero(wide[0].numpy() < 60)
    np.testing.assert_allclose(
        [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], boxes[0], atol=1.5
    )
    # The first row contains only white background, and padding for the missing width.
    padding = (wide[0, 0] == FILL_GREY).sum()
    assert padding == max(101 - round(101 * share), 0)
    assert (wide[0, 0] == 255).sum() == 101 - padding


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 5), st.integers(0, 5))
def test_sampler_shares_out_without_loss(size: int, world: int, seed: int, epoch: int) -> None:
    shares = [list(EpochSampler(size, seed, lambda: epoch, rank, world)) for rank in range(world)]
    per_rank = -(-size // world)
    assert [len(share) for share in shares] == [per_rank] * world
    assert len(EpochSampler(size, seed, lambda: epoch, 0, world)) == per_rank
    assert {e for share in shares for e, _ in share} == {epoch}
    times = Counter(i for share in shares for _, i in share)
    # Each photo is drawn once. If the number of photos is not a multiple of the number of
    # processes, some are repeated to fill the last round.
    assert set(times) == set(range(size))
    assert sum(times.values()) == per_rank * world
    assert max(times.values()) - min(times.values()) <= 1
    if size % world == 0:
        assert set(times.values()) == {1}


def test_sampler_follows_the_epoch_and_the_seed() -> None:
    epoch = 0
    sampler = EpochSampler(20, 3, lambda: epoch)
    first = list(sampler)
    assert list(sampler) == first
    epoch = 1
    second = list(sampler)
    assert [i for _, i in second] != [i for _, i in first]
    assert [i for _, i in EpochSampler(20, 4, lambda: 0)] != [i for _, i in first]


def test_collate_stacks_pictures_and_keeps_labels_apart(shelf: Dataset) -> None:
    photos = _photos(shelf, None)
    images, labels = collate([photos[0, i] for i in range(3)])
    assert images.shape == (3, 3, HEIGHT, WIDTH)
    assert [len(label["boxes"]) for label in labels] == [2, 3, 0]
    assert set(labels[0]) == {"boxes", "classes", "ignore"}


@pytest.mark.parametrize("name", ["yaw", "tilt", "resolution", "small_sensor"])
def test_conditions_take_the_boxes_along(round_shelf: Dataset, name: str) -> None:
    still = {
        "mosaic": 0,
        "brightness": 0,
        "contrast": 0,
        "saturation": 0,
        "hue": 0,
        "blur": 0,
        "noise": 0,
        "jpeg": 0,
    }
    still |= {"aspect": 0, "rotate": 0, "perspective": 0, "scale": (1, 1)}
    photos = TrainingPhotos(
        round_shelf, HEIGHT, WIDTH, AugmentConfig(**still, conditions=(name,), condition=1)
    )
    compared = 0
    for epoch in range(8):
        sample = photos[epoch, 0]
        assert sample["image"].shape == (3, HEIGHT, WIDTH)
        for (left, top, right, bottom), c, ignore in zip(
            sample["boxes"].tolist(),
            sample["classes"].tolist(),
            sample["ignore"].tolist(),
            strict=True,
        ):
            seen = np.argwhere(_product_pixels(sample["image"], c))
            if not ignore and len(seen):
                compared += 1
                # The tolerance is a pixel of blur and of resizing on each side; the border of the
                # photo may hide part of both.
                np.testing.assert_allclose([left, top], seen.min(axis=0)[::-1], atol=2.5)
                np.testing.assert_allclose([right, bottom], seen.max(axis=0)[::-1] + 1, atol=2.5)
    assert compared >= 8


def test_what_is_left_to_judge_is_the_same_under_conditions() -> None:
    assert augmentation.MIN_VISIBLE == homography.MIN_VISIBLE


def test_a_pasted_product_takes_the_place_and_brings_its_class(
    round_shelf: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augmentation, "PASTED_SHARE", 1.0)
    monkeypatch.setattr(augmentation, "MAX_SIZE_DIFFERENCE", 9.0)
    still = AugmentConfig(
        **{
            name: 0
            for name in AugmentConfig.model_fields
            if name not in ("scale", "paste", "conditions")
        },
        scale=(1, 1),
        paste=1,
    )
    photos = TrainingPhotos(round_shelf, 192, 256, still, seed=3)
    seen: Counter[int] = Counter()
    for epoch in range(12):
        sample = photos[epoch, 1]
        for (left, top, right, bottom), c in zip(
            sample["boxes"].int().tolist(), sample["classes"].tolist(), strict=True
        ):
            middle = sample["image"][:, (top + bottom) // 2, (left + right) // 2]
            assert int(middle.argmax()) == c
            seen[c] += 1
    # 36 places are drawn from 5 products: 2 each of classes 0 and 1 with a weight of 1 / sqrt(2),
    # and one of class 2, without the ignored one, with a weight of 1.
    assert all(seen[c] >= 4 for c in (0, 1, 2))


def test_without_pasting_the_other_random_choices_are_as_before(shelf: Dataset) -> None:
    plain = TrainingPhotos(shelf, HEIGHT, WIDTH, AugmentConfig(), seed=1)[3, 0]
    unlikely = TrainingPhotos(shelf, HEIGHT, WIDTH, AugmentConfig(paste=0), seed=1)[3, 0]
    assert torch.equal(plain["image"], unlikely["image"])


def test_a_window_shows_a_part_with_its_labels_and_does_not_judge_what_it_cuts(
    shelf: Dataset,
) -> None:
    still = AugmentConfig(
        mosaic=0,
        scale=(1, 1),
        aspect=0,
        rotate=0,
        perspective=0,
        brightness=0,
        contrast=0,
        saturation=0,
        hue=0,
        blur=0,
        noise=0,
        jpeg=0,
    )
    whole = TrainingPhotos(shelf, HEIGHT, WIDTH, still)
    photos = TrainingPhotos(shelf, HEIGHT, WIDTH, still.model_copy(update={"window": 64}))
    visible = 0
    for epoch in range(40):
        part, uncut = photos[epoch, 1], whole[epoch, 1]
        assert part["image"].shape == (3, 64, 64)
        for box, c, ignore in zip(part["boxes"], part["classes"], part["ignore"], strict=True):
            assert bool((box >= 0).all())
            assert bool((box <= 64).all())
            left, top, right, bottom = box.round().int().tolist()
            # The colour of the class fills the box at every position of the window.
            assert _product_pixels(part["image"], int(c))[
                top + 2 : bottom - 2, left + 2 : right - 2
            ].all()
            entire = uncut["boxes"][uncut["classes"] == c][0]
            share = (box[2:] - box[:2]).prod() / (entire[2:] - entire[:2]).prod()
            assert bool(ignore) == bool(share < 0.35)
            visible += not ignore
    assert visible > 20
