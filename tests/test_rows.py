"""Tests of rows and positions on synthetic shelves with known rows and on labelled coolers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfcount.shelf.rows import Placement, assign_rows
from shelfcount.vision import boxes as box_math

WIDTH, HEIGHT = 1500, 2000  # pixels of the synthetic shelf


def shelf(
    rng: np.random.Generator, n_rows: int = 5, stacks: float = 0.0, missing: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return products on level shelves: (n, 4) xyxy boxes, (n,) rows, (n,) positions."""
    boxes, row, position = [], [], []
    pitch = HEIGHT / n_rows
    for number in range(n_rows):
        line, left, place = pitch * (number + 1) - 20, 10.0, 0
        while left < WIDTH - 140:
            width, height = rng.uniform(60, 140), rng.uniform(0.35, 0.85) * pitch
            stacked = height < 0.42 * pitch and rng.random() < stacks
            for level in range(2 if stacked else 1):
                bottom = line - level * height
                if level > 0 or rng.random() >= missing:
                    boxes.append([left, bottom - height, left + width, bottom])
                    row.append(number)
                    position.append(place)
                    place += 1
            left += width + rng.uniform(2, 20)
    return np.array(boxes), np.array(row), np.array(position)


def seen_through(boxes: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """Return the bounding boxes of the warped corners of boxes."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    warped = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=2) @ homography.T
    warped = warped[..., :2] / warped[..., 2:]
    return np.concatenate([warped.min(axis=1), warped.max(axis=1)], axis=1)


def camera(tilt: float, yaw: float, pitch: float = 0.0) -> np.ndarray:
    """Return the homography from the shelf plane to a photo, angles in degrees.

    The lens has 65 degrees; from the front, the shelf fills the photo.
    """
    focal = WIDTH / 2 / np.tan(np.radians(32.5))
    t, p, y = np.radians([tilt, pitch, yaw])
    roll = np.array([[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]])
    turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    rotation = roll @ nod @ turn
    plane = np.stack([rotation[:, 0], rotation[:, 1], [0, 0, focal]], axis=1)
    to_photo = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    return to_photo @ plane @ np.array([[1, 0, -WIDTH / 2], [0, 1, -HEIGHT / 2], [0, 0, 1.0]])


def jittered(rng: np.random.Generator, boxes: np.ndarray, share: float) -> np.ndarray:
    return boxes + rng.normal(0, share, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def share_right(found: Placement, row: np.ndarray) -> float:
    return float((found.row == row).mean())


TILTS = (-15.0, -7.0, 0.0, 7.0, 15.0)
YAWS = (-30.0, -15.0, 0.0, 15.0, 30.0)


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize("yaw", YAWS)
def test_rows_hold_under_tilt_and_yaw(tilt: float, yaw: float) -> None:
    right = []
    for seed in range(100, 106):
        rng = np.random.default_rng(seed)
        boxes, row, _ = shelf(rng, int(rng.integers(3, 8)), missing=0.2)
        seen = jittered(rng, seen_through(boxes, camera(tilt, yaw, rng.uniform(-10, 10))), 0.03)
        right.append(share_right(assign_rows(seen), row))
    assert np.mean(right) >= 0.98


@pytest.mark.parametrize(("tilt", "yaw"), [(0, 0), (15, 0), (-15, 0), (0, 15), (7, -15)])
def test_stacked_products_belong_to_the_row_they_rest_on(tilt: float, yaw: float) -> None:
    right, placed = [], []
    for seed in range(200, 206):
        rng = np.random.default_rng(seed)
        boxes, row, position = shelf(rng, 5, stacks=0.8)
        found = assign_rows(jittered(rng, seen_through(boxes, camera(tilt, yaw)), 0.02))
        right.append(share_right(found, row))
        placed.append(((found.row == row) & (found.position == position)).mean())
    assert np.mean(right) >= 0.98
    assert np.mean(placed) >= 0.96


def test_positions_run_left_to_right_and_stacks_bottom_to_top() -> None:
    boxes = np.array(
        [
            [100, 200, 150, 300],
            [0, 200, 50, 300],
            [102, 100, 152, 200],
            [200, 120, 260, 302],
            [0, 500, 60, 620],
        ],
        float,
    )
    placement = assign_rows(boxes)
    assert placement.row.tolist() == [0, 0, 0, 0, 1]
    assert placement.position.tolist() == [1, 0, 2, 3, 0]
    assert placement.n_rows == 2


def test_aligned_facings_on_two_shelves_are_two_rows() -> None:
    """Equal products above each other: a gap of a third of the height is a shelf, not a stack."""
    boxes = np.array([[x, y, x + 60, y + 120] for y in (0, 160) for x in range(0, 700, 70)], float)
    assert assign_rows(boxes).row.tolist() == [0] * 10 + [1] * 10


@pytest.mark.parametrize(
    ("boxes", "n_rows"), [([], 0), ([[5, 5, 20, 40]], 1), ([[5, 5, 5, 5], [5, 5, 5, 5]], 1)]
)
def test_none_one_and_sizeless_boxes(boxes: list[list[float]], n_rows: int) -> None:
    placement = assign_rows(np.array(boxes, float).reshape(-1, 4))
    assert placement.n_rows == n_rows
    assert sorted(placement.position) == list(range(len(boxes)))


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"boxes must have shape \(n, 4\), got \(3, 5\)"):
        assign_rows(np.zeros((3, 5)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 1000)] * 4), max_size=25))
def test_any_boxes_get_rows_and_unique_positions(corners: list[tuple[int, int, int, int]]) -> None:
    boxes = np.array(
        [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners], float
    ).reshape(-1, 4)
    placement = assign_rows(boxes)
    assert set(placement.row) == set(range(placement.n_rows))
    for number in range(placement.n_rows):
        assert sorted(placement.position[placement.row == number]) == list(
            range((placement.row == number).sum())
        )


def test_the_order_and_the_scale_of_boxes_change_nothing() -> None:
    rng = np.random.default_rng(1)
    boxes = shelf(rng)[0]
    order = rng.permutation(len(boxes))
    assert (assign_rows(boxes[order]).row == assign_rows(boxes).row[order]).all()
    assert (assign_rows(boxes * 0.25).row == assign_rows(boxes).row).all()
    assert (assign_rows(boxes + 5000).position == assign_rows(boxes).position).all()


def test_rows_of_real_coolers_are_level_and_not_crowded(drinks: Path) -> None:
    """Bottom edges are close to the line of their row, and boxes of a row do not overlap much.

    The photos have no labelled rows.
    """
    content = json.loads((drinks / "train.json").read_text())
    level, crowded = [], 0
    for photo in content["images"]:
        boxes = np.array(
            [a["bbox"] for a in content["annotations"] if a["image_id"] == photo["id"]], float
        ).reshape(-1, 4)
        boxes = box_math.xywh_to_xyxy(boxes)
        placement = assign_rows(boxes)
        height = np.median(boxes[:, 3] - boxes[:, 1])
        for number in range(placement.n_rows):
            members = boxes[placement.row == number]
            x, bottom = (members[:, 0] + members[:, 2]) / 2, members[:, 3]
            line = np.polyfit(x, bottom, 1) if len(members) > 2 else [0, np.median(bottom)]
            level.append(np.abs(bottom - np.polyval(line, x)).max() < 0.35 * height)
            common = np.minimum(members[:, None, 2], members[None, :, 2]) - np.maximum(
                members[:, None, 0], members[None, :, 0]
            )
            width = members[:, 2] - members[:, 0]
            beside = np.abs(bottom[:, None] - bottom[None]) < 0.5 * height
            crowded += int(
                np.triu((common > 0.7 * np.minimum(width[:, None], width[None])) & beside, 1).sum()
            )
    # The rows that are not level are stacks, about one in seventeen photos.
    assert np.mean(level) > 0.97
    assert crowded < 0.002 * len(content["annotations"])
