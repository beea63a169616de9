"""Tests of the anchors: order of the rows, box coding, fit to arbitrary data."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shelfcount.records import AnchorLevel
from shelfcount.vision import anchors

LEVELS = (
    AnchorLevel(8, ((20.0, 10.0), (30.0, 15.0))),
    AnchorLevel(16, ((40.0, 20.0), (60.0, 30.0))),
)


def test_layout_goes_level_row_column_size() -> None:
    table = anchors.anchor_grid(LEVELS, 32, 48) * np.float32([32, 48, 32, 48])
    assert table.shape == (4 * 6 * 2 + 2 * 3 * 2, 4)
    # By hand: the location (row, column) of stride s has its centre at (row + 0.5, column + 0.5) *
    # s.
    for index, expected in {
        0: (4, 4, 20, 10),
        1: (4, 4, 30, 15),
        2: (4, 12, 20, 10),
        12: (12, 4, 20, 10),
        47: (28, 44, 30, 15),
        48: (8, 8, 40, 20),
        50: (8, 24, 40, 20),
        59: (24, 40, 60, 30),
    }.items():
        np.testing.assert_allclose(table[index], expected, rtol=1e-6)
    assert anchors.anchor_grid(LEVELS, 32, 48).dtype == np.float32


def test_decode_by_hand() -> None:
    # delta / scales = (1, -1, log 2, 0): the centre moves by one anchor height down and one width
    # to the left, the height doubles.
    anchor = np.float32([[0.5, 0.5, 0.1, 0.2]])
    got = anchors.decode(np.float32([[10, -10, 5 * np.log(2), 0]]), anchor)
    np.testing.assert_allclose(got, [[0.6 - 0.1, 0.3 - 0.1, 0.6 + 0.1, 0.3 + 0.1]], rtol=1e-6)


@given(st.integers(0, 10_000))
def test_encode_is_the_inverse_of_decode(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = anchors.anchor_grid(LEVELS, 32, 48)
    location = rng.normal(0, 3, (len(table), 4)).astype(np.float32)
    np.testing.assert_allclose(
        anchors.encode(anchors.decode(location, table), table), location, atol=2e-3
    )


def test_decode_takes_a_batch() -> None:
    table = anchors.anchor_grid(LEVELS, 32, 48)
    batch = np.random.default_rng(0).normal(size=(3, len(table), 4)).astype(np.float32)
    np.testing.assert_array_equal(anchors.decode(batch, table)[2], anchors.decode(batch[2], table))


sides = st.one_of(st.sampled_from([0.01, 3.0, 40.0, 41.0, 500.0]), st.floats(0.01, 3000))
any_sizes = hnp.arrays(np.float64, st.tuples(st.integers(1, 25), st.just(2)), elements=sides)


@settings(deadline=None)
@given(
    any_sizes,
    st.integers(1, 9),
    st.sampled_from([(8,), (8, 16), (8, 16, 32), (8, 16, 32, 64, 128)]),
    st.integers(0, 3),
)
def test_fit_gives_every_level_as_many_anchors_whatever_the_data(
    sizes: np.ndarray, per_level: int, strides: tuple, seed: int
) -> None:
    levels = anchors.fit_anchors(sizes, strides, per_level, seed)
    assert 1 <= len(levels) <= len(strides)
    assert [level.stride for level in levels] == sorted(
        {level.stride for level in levels} & set(strides)
    )
    for level in levels:
        assert len(level.sizes) == per_level
        areas = [h * w for h, w in level.sizes]
        assert areas == sorted(areas)
    assert anchors.fit_anchors(sizes, strides, per_level, seed) == levels


@pytest.mark.parametrize("count", [1, 1000])
def test_fit_to_one_size_grows_it_by_thirds_of_an_octave(count: int) -> None:
    (level,) = anchors.fit_anchors(np.tile([40.0, 20.0], (count, 1)), (8,), 4)
    expected = [[40 * 2 ** (i / 3), 20 * 2 ** (i / 3)] for i in range(4)]
    np.testing.assert_allclose(level.sizes, expected, atol=0.051)


def test_one_anchor_a_place_is_the_median_size() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([[30.0, 18.0]]) * rng.normal(1, 0.03, (301, 1))
    (level,) = anchors.fit_anchors(sizes, (8,))
    np.testing.assert_allclose(level.sizes, [np.median(sizes, axis=0)], atol=0.051)
    assert anchors.recall(sizes, (level,), 0.7) == 1.0


def test_fit_leaves_out_levels_that_few_products_need() -> None:
    # The next level begins at 64 pixels, 8 strides of 8.
    small = np.tile([40.0, 30.0], (400, 1))
    large = np.tile([90.0, 90.0], (1, 1))
    assert [
        lv.stride for lv in anchors.fit_anchors(np.concatenate([small, large]), (8, 16, 32))
    ] == [8]
    assert [
        lv.stride
        for lv in anchors.fit_anchors(np.concatenate([small, np.tile(large, (4, 1))]), (8, 16, 32))
    ] == [8, 16]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (np.zeros((0, 2)), "sizes must have shape (n, 2) with n at least 1, got (0, 2)"),
        (np.ones((3, 4)), "sizes must have shape (n, 2) with n at least 1, got (3, 4)"),
        (
            np.array([[4.0, 5.0], [3.0, 0.0]]),
            "box sizes must be finite and above 0, got [3.0, 0.0] in row 1 of 2",
        ),
        (
            np.array([[np.nan, 5.0]]),
            "box sizes must be finite and above 0, got [nan, 5.0] in row 0 of 1",
        ),
    ],
)
def test_fit_refuses_what_has_no_size(sizes: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        anchors.fit_anchors(sizes, (8, 16))


def test_recall_by_hand() -> None:
    # 20 x 10 against 40 x 10 share half; 20 x 10 against 10 x 20 share 100 of 300.
    level = AnchorLevel(8, ((20.0, 10.0),))
    assert anchors.recall(
        np.array([[20.0, 10.0], [40.0, 10.0], [10.0, 20.0]]), (level,)
    ) == pytest.approx(2 / 3)
