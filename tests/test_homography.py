"""Photos and boxes are mapped by one convention: pixel i covers [i, i + 1)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelfcount.vision import boxes as box_math
from shelfcount.vision.homography import map_boxes, view_homography, warp

RULES = ("edges", "ellipse", "corners")
BOXES = np.array([[40.0, 30, 60, 90], [150, 100, 210, 130]])


@pytest.mark.parametrize("rule", RULES)
def test_a_box_stays_under_the_identity_and_moves_with_a_shift(rule: str) -> None:
    shift = np.array([[2.0, 0, 5], [0, 3, -7], [0, 0, 1]])
    np.testing.assert_allclose(map_boxes(BOXES, np.eye(3), rule), BOXES, atol=1e-9)
    expected = BOXES * [2, 3, 2, 3] + [5, -7, 5, -7]
    np.testing.assert_allclose(map_boxes(BOXES, shift, rule), expected, atol=1e-9)


@given(st.floats(-40, 40))
def test_under_a_rotation_corners_make_the_largest_box_and_edges_the_smallest(
    degrees: float,
) -> None:
    edges, ellipse, corners = (
        map_boxes(BOXES, view_homography(degrees, "z", 300, 200), rule) for rule in RULES
    )
    for inner, outer in ((edges, ellipse), (ellipse, corners)):
        assert (inner[:, :2] >= outer[:, :2] - 1e-9).all()
        assert (inner[:, 2:] <= outer[:, 2:] + 1e-9).all()


def test_corners_give_the_box_of_a_rectangle_and_ellipse_that_of_a_disc() -> None:
    turn = view_homography(45, "z", 300, 200)
    square = np.array([[140.0, 90, 160, 110]])
    # A square of 20 pixels is 20 sqrt(2) wide after 45 degrees; a disc does not change.
    np.testing.assert_allclose(
        box_math.xyxy_to_xywh(map_boxes(square, turn, "corners"))[0, 2:], 20 * np.sqrt(2)
    )
    np.testing.assert_allclose(map_boxes(square, turn, "ellipse"), square, atol=1e-9)


def test_a_photo_is_warped_as_its_boxes_are_mapped() -> None:
    image = np.zeros((60, 80), np.uint8)
    image[20:30, 10:16] = 200
    double = np.diag([2.0, 2, 1])
    shown = warp(image, double, (160, 120), interpolation=cv2.INTER_NEAREST)
    rows, columns = np.nonzero(shown)
    box = map_boxes(np.array([[10.0, 20, 16, 30]]), double)[0]
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box.tolist()


def test_the_area_outside_a_photo_is_filled_or_repeated() -> None:
    image = np.full((10, 10, 3), 50, np.uint8)
    shift = np.array([[1.0, 0, 4], [0, 1, 0], [0, 0, 1]])
    assert (warp(image, shift, (10, 10), fill=127)[:, :4] == 127).all()
    assert (warp(image, shift, (10, 10), cv2.BORDER_REPLICATE) == 50).all()
