"""Tests of the box operations: overlap against torchvision, suppression against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shelfcount.vision import boxes as box_math

# Corners on a coarse grid, so that touching, equal and empty boxes are frequent.
corner_pairs = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 12), st.just(4)), elements=st.integers(0, 12).map(float)
)


def _upright(pairs: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [np.minimum(pairs[:, :2], pairs[:, 2:]), np.maximum(pairs[:, :2], pairs[:, 2:])], axis=1
    )


@given(corner_pairs, corner_pairs)
def test_iou_is_torchvisions(first: np.ndarray, second: np.ndarray) -> None:
    a, b = _upright(first), _upright(second)
    # torchvision returns NaN for two boxes of zero size; here their IoU is 0.
    expected = (
        torchvision.ops.box_iou(torch.from_numpy(a), torch.from_numpy(b)).nan_to_num(0).numpy()
    )
    np.testing.assert_allclose(box_math.iou(a, b), expected, atol=1e-6)
    np.testing.assert_array_equal(box_math.iou(a, b), box_math.iou(b, a).T)


def test_overlap_of_smaller_is_one_for_a_box_within_another() -> None:
    outer, inner, aside = [0, 0, 10, 10], [2, 2, 4, 4], [9, 0, 11, 10]
    got = box_math.overlap_of_smaller(np.float32([outer]), np.float32([inner, aside, [3, 3, 3, 9]]))
    # aside: 1 x 10 of its area of 2 x 10 is inside; a box of zero width has an overlap of 0.
    np.testing.assert_allclose(got, [[1.0, 0.5, 0.0]])


def test_area_of_a_box_turned_inside_out_is_zero() -> None:
    assert box_math.area(np.float32([[5, 0, 2, 3], [5, 3, 2, 0], [0, 0, 2, 3]])).tolist() == [
        0,
        0,
        6,
    ]


@pytest.mark.parametrize(("a", "b", "name"), [((3, 5), (1, 4), "a"), ((1, 4), (4,), "b")])
def test_overlap_names_the_array_of_wrong_shape(a: tuple, b: tuple, name: str) -> None:
    wrong = a if name == "a" else b
    with pytest.raises(
        ValueError, match=rf"{name} must have shape \(k, 4\), got \({', '.join(map(str, wrong))}"
    ):
        box_math.iou(np.zeros(a), np.zeros(b))


@given(
    corner_pairs,
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.one_of(st.none(), st.integers(0, 5)),
    st.integers(0, 9),
)
def test_suppression_is_greedy(
    pairs: np.ndarray, max_iou: float, most: int | None, seed: int
) -> None:
    boxes = _upright(pairs)
    scores = np.random.default_rng(seed).integers(0, 4, len(boxes)) / 4
    expected: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        fits = all(box_math.iou(boxes[[i]], boxes[[j]])[0, 0] <= max_iou for j in expected)
        if fits and (most is None or len(expected) < most):
            expected.append(i)
    assert box_math.suppress(boxes, scores, max_iou, most).tolist() == expected


def test_suppression_is_torchvisions_nms() -> None:
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 100, (400, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (400, 2))], axis=1).astype(
        np.float32
    )
    scores = rng.permutation(400).astype(np.float32)
    expected = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5)
    assert box_math.suppress(boxes, scores, 0.5).tolist() == expected.tolist()


def test_suppression_of_very_many_boxes_stays_small() -> None:
    # With an untrained network every anchor passes; all pairs of 60,000 boxes take 14 GB.
    boxes = (
        np.tile(np.float32([0, 0, 9, 9]), (60_000, 1))
        + np.arange(60_000, dtype=np.float32)[:, None] % 50 * 10
    )
    assert len(box_math.suppress(boxes, np.linspace(1, 0, 60_000), 0.5, 300)) == 50


def test_clip_cuts_at_the_border() -> None:
    got = box_math.clip(np.float32([[-5, -5, 30, 40], [25, 3, 30, 8]]), 20, 10)
    assert got.tolist() == [[0, 0, 20, 10], [20, 3, 20, 8]]
    assert got.dtype == np.float32


@given(corner_pairs)
def test_xywh_and_back(pairs: np.ndarray) -> None:
    boxes = _upright(pairs)
    np.testing.assert_array_equal(box_math.xywh_to_xyxy(box_math.xyxy_to_xywh(boxes)), boxes)
    assert box_math.xywh_to_xyxy(np.float32([[1, 2, 3, 4]])).tolist() == [[1, 2, 4, 6]]
