"""Tests of splits: groups stay together, classes are balanced, the seed determines the parts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shelfcount.data.formats import read_labels
from shelfcount.data.splits import near_duplicate_groups, shuffled, split
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
PHOTOS = 40


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    """Paths of photos of smooth noise, of which no two are near-duplicates."""
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for i in range(PHOTOS):
        coarse = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        paths.append(folder / f"{i:02}.jpg")
        Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(
            paths[-1], quality=95
        )
    return paths


def photo(path: Path, classes: list[int], group: str = "") -> Photo:
    truth = Detections(np.tile([1, 2, 30, 40], (len(classes), 1)), classes)
    return Photo(path, 96, 96, truth, group)


def dataset(pictures: list[Path], groups: list[str] | None = None) -> Dataset:
    rng = np.random.default_rng(0)
    photos = [
        photo(path, rng.integers(0, 3, 10).tolist(), groups[i] if groups else path.stem)
        for i, path in enumerate(pictures)
    ]
    return Dataset(("a", "b", "c"), tuple(photos), name="shelf")


def paths(parts: dict[str, Dataset]) -> dict[str, set[Path]]:
    return {name: {p.path for p in part.photos} for name, part in parts.items()}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=PHOTOS, max_size=PHOTOS).filter(
        lambda g: len(set(g)) >= 3
    ),
    st.integers(0, 99),
)
def test_every_photo_is_in_one_part_and_no_group_is_parted(pictures, groups, seed):
    parts = split(dataset(pictures, groups), SHARES, seed)
    assert list(parts) == list(SHARES)
    assert sorted(p.path for part in parts.values() for p in part.photos) == pictures
    part_groups = [{p.group for p in part.photos} for part in parts.values()]
    assert all(part_groups)
    assert sum(map(len, part_groups)) == len(set(groups))


def test_shares_and_classes_are_met(pictures):
    """40 photos of 10 boxes in groups of one photo give nearly exact shares.

    The number of photos differs by at most one, the share of a class by less than 0.1.
    """
    whole = dataset(pictures)
    total = np.bincount(np.concatenate([p.truth.classes for p in whole.photos]))
    for name, part in split(whole, SHARES, 0).items():
        assert abs(len(part) - SHARES[name] * PHOTOS) <= 1
        boxes = np.bincount(np.concatenate([p.truth.classes for p in part.photos]))
        assert np.abs(boxes / total - SHARES[name]).max() < 0.1
        assert part.name == f"shelf ({name})"


def test_seed_decides_and_order_does_not(pictures):
    whole = dataset(pictures)
    shuffled = whole.subset(np.random.default_rng(1).permutation(PHOTOS).tolist())
    assert (
        paths(split(whole, SHARES, 7))
        == paths(split(whole, SHARES, 7))
        == paths(split(shuffled, SHARES, 7))
    )
    assert paths(split(whole, SHARES, 7)) != paths(split(whole, SHARES, 8))


def test_photos_keep_their_order(pictures):
    for part in split(dataset(pictures), SHARES, 0).values():
        assert [p.path for p in part.photos] == sorted(p.path for p in part.photos)


def test_the_smallest_part_gets_a_photo_too(pictures):
    parts = split(dataset(pictures[:4]), {"train": 0.98, "val": 0.01, "test": 0.01}, 0)
    assert [len(part) for part in parts.values()] == [2, 1, 1]


def test_near_duplicates_belong_together_and_so_do_chains(pictures, tmp_path):
    with Image.open(pictures[0]) as image:
        image.resize((70, 80)).save(tmp_path / "smaller.jpg", quality=50)
        image.point(lambda value: min(255, value + 12)).save(tmp_path / "lighter.png")
    files = [
        pictures[0],
        pictures[1],
        tmp_path / "smaller.jpg",
        pictures[2],
        tmp_path / "lighter.png",
    ]
    groups = ["a", "b", "c", "c", "d"]  # Photo 3 has the group of 2, which is a copy of 0.
    photos = tuple(photo(path, [0], group) for path, group in zip(files, groups, strict=True))
    labels = near_duplicate_groups(Dataset(("cola",), photos))
    assert labels.tolist() == [0, 1, 0, 0, 0]


def test_a_photo_on_its_side_is_compared_upright(pictures, tmp_path):
    exif = Image.Exif()
    # The upright photo is rotated by 90 degrees clockwise, so the stored one is rotated back.
    exif[274] = 6
    with Image.open(pictures[0]) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(
            tmp_path / "side.jpg", exif=exif, quality=95
        )
    photos = (photo(pictures[0], []), photo(tmp_path / "side.jpg", []), photo(pictures[1], []))
    assert near_duplicate_groups(Dataset((), photos)).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "shares", [{}, {"train": 0.7, "val": 0.2}, {"train": 1.2, "val": -0.2}, {"train": float("nan")}]
)
def test_shares_must_sum_to_one(pictures, shares):
    with pytest.raises(ShelfcountError, match=r"shares must be above 0 and sum to 1, got \{"):
        split(dataset(pictures), shares, 0)


def test_too_few_groups_are_an_error(pictures):
    groups = ["one", "two"] * (PHOTOS // 2)
    with pytest.raises(ShelfcountError, match="cannot split 2 groups of 40 photos into 3 parts"):
        split(dataset(pictures, groups), SHARES, 0)


def test_photo_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(ShelfcountError, match=r"cannot read photo '.*gone\.jpg'"):
        near_duplicate_groups(Dataset((), (photo(tmp_path / "gone.jpg", []),)))


def test_drinks_near_duplicates_are_found_and_lie_in_one_split(drinks):
    """By inspection, three pairs of the 244 photos show the same cooler.

    The README states that such photos are in one split.
    """
    parts = {name: read_labels(drinks / f"{name}.json") for name in ("train", "val", "test")}
    pairs = 0
    for part in parts.values():
        pairs += len(part) - len(set(near_duplicate_groups(part).tolist()))
    whole = Dataset(
        parts["train"].classes, tuple(p for part in parts.values() for p in part.photos)
    )
    assert pairs == len(whole) - len(set(near_duplicate_groups(whole).tolist())) == 3


@given(st.integers(0, 1000))
def test_shuffled_deals_out_every_photo_once_and_parts_no_group(seed: int) -> None:
    groups = np.arange(60) // 2
    parts = shuffled(groups, SHARES, seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(60))
    assert not set(groups[parts["train"]]) & set(groups[parts["test"]])
    # With groups of two photos, the shares of 60 photos are exact.
    assert [len(part) for part in parts.values()] == [36, 12, 12]


def test_shuffled_parts_of_two_seeds_share_what_chance_gives() -> None:
    tests = [set(shuffled(np.arange(1000), SHARES, seed)["test"]) for seed in range(10)]
    shared = [len(a & b) / len(a) for i, a in enumerate(tests) for b in tests[:i]]
    # A test part contains a fifth of all photos, and thus of another test part.
    assert np.mean(shared) == pytest.approx(0.2, abs=0.02)


def test_shuffled_leaves_no_part_without_photos() -> None:
    for seed in range(20):
        assert all(
            len(part)
            for part in shuffled(np.array([0, 1, 1, 1, 1, 1, 1, 2]), SHARES, seed).values()
        )
    with pytest.raises(ShelfcountError, match="cannot split 2 groups of 8 photos into 3 parts"):
        shuffled(np.array([0, 1, 1, 1, 1, 1, 1, 1]), SHARES, 0)
