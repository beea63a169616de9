"""Tests of facings, stacks, gaps and the front view on synthetic shelves with a known layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import placement
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placement import CATALOGUE, arranged, edge_errors, shelf

from shelfcount.shelf.facings import Arrangement, arrange, facings_json, shares
from shelfcount.shelf.rows import Placement, assign_rows
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.synthetic.scenes import render


@pytest.mark.parametrize("tilt", [-15.0, -7.0, 0.0, 15.0])
@pytest.mark.parametrize("yaw", [-30.0, 0.0, 15.0, 30.0])
def test_front_view_columns_and_stacks_hold_under_tilt_and_yaw(tilt: float, yaw: float) -> None:
    errors, right = [], []
    for seed in range(300, 306):
        rng = np.random.default_rng(seed)
        known = shelf(rng, sell=0.15)
        found = arranged(known, tilt, yaw, rng)
        errors.append(edge_errors(found.front_boxes, known.boxes))
        right.append(
            ((found.level > 0) == known.stacked) & (known.stacked | (found.column == known.column))
        )
    sideways, upright = np.mean(errors, axis=0)
    assert sideways < 0.35
    assert upright < 0.12
    assert np.concatenate(right).mean() > 0.99


@pytest.mark.parametrize(("tilt", "yaw"), [(0, 0), (15, 0), (-7, 15), (-15, -30), (10, 30)])
def test_sold_out_facings_are_found_and_nothing_else(tilt: float, yaw: float) -> None:
    hits = sold = found = 0
    for seed in range(400, 412):
        rng = np.random.default_rng(seed)
        known = shelf(rng, sell=0.25)
        arrangement = arranged(known, tilt, yaw, rng)
        hits += placement.gaps_hit(known, arrangement)
        sold, found = sold + len(known.sold), found + len(arrangement.gaps)
    assert sold > 50
    assert hits >= 0.95 * sold
    assert hits >= 0.95 * found


def level_shelf(*lines: str) -> Arrangement:
    """Return an arrangement of products 40 wide and 80 high, with spaces of 4 between them.

    One letter is a class, a space is a gap.
    """
    boxes, names, row = [], [], []
    for number, line in enumerate(lines):
        for place, name in enumerate(line):
            if name != " ":
                boxes.append([44 * place, 120 * number, 44 * place + 40, 120 * number + 80])
                names.append(name)
                row.append(number)
    return arrange(
        np.array(boxes, float),
        names,
        Placement(np.array(row), np.zeros(len(row), np.int64), len(lines)),
        (600, 600),
    )


def test_gaps_say_where_and_how_many() -> None:
    arrangement = level_shelf("aaa  bb a", "cccccccc")
    first, second = arrangement.gaps
    assert (first.row, first.after, first.facings) == (0, 2, 2)
    assert (second.row, second.after, second.facings) == (0, 4, 1)
    # Between the third product, which ends at 2 * 44 + 40, and the one at place 5.
    assert first.box == pytest.approx((128, 0, 220, 80), abs=2)


def test_neighbours_end_at_gaps_and_at_the_end_of_a_row() -> None:
    arrangement = level_shelf("ab cd", "eeeee")
    assert arrangement.left.tolist() == [-1, 0, -1, 2, -1, 4, 5, 6, 7]
    assert arrangement.right.tolist() == [1, -1, 3, -1, 5, 6, 7, 8, -1]


def test_stacks_share_a_facing() -> None:
    boxes = np.array(
        [
            [0, 100, 40, 150],
            [0, 50, 40, 100],
            [1, 0, 41, 50],
            [44, 100, 84, 150],
            [44, 51, 84, 101],
        ],
        float,
    )
    arrangement = arrange(
        boxes, list("aaabb"), Placement(np.zeros(5, np.int64), np.arange(5), 1), (200, 200)
    )
    assert arrangement.level.tolist() == [0, 1, 2, 0, 1]
    assert arrangement.rests_on.tolist() == [-1, 0, 1, -1, 3]
    assert arrangement.foot.tolist() == [0, 0, 0, 3, 3]
    assert arrangement.column.tolist() == [0, 0, 0, 1, 1]
    assert arrangement.facings(0).tolist() == [0, 3]
    assert arrangement.right.tolist() == [3, -1, -1, -1, -1]


def test_shares_of_the_shelf_by_count_and_by_width() -> None:
    """Two rows of four: b is twice as wide as a, and one a is stacked."""
    boxes = np.array(
        [
            [0, 100, 40, 200],
            [44, 100, 84, 200],
            [88, 100, 168, 200],
            [0, 300, 40, 400],
            [44, 300, 84, 400],
            [0, 200, 40, 299],
        ],
        float,
    )
    arrangement = arrange(
        boxes,
        list("aabaaa"),
        Placement(np.array([0, 0, 0, 1, 1, 1]), np.zeros(6, np.int64), 2),
        (400, 400),
    )
    found = {
        (s.name, s.row): (s.facings, s.products, s.by_count, round(s.by_width, 2))
        for s in shares(arrangement)
    }
    # By width: b has 80 of 4 * 40 + 80 = 240, and 80 of 160 in its row.
    assert found == {
        ("a", None): (4, 5, 0.8, 0.67),
        ("b", None): (1, 1, 0.2, 0.33),
        ("a", 0): (2, 2, pytest.approx(2 / 3), 0.5),
        ("b", 0): (1, 1, pytest.approx(1 / 3), 0.5),
        ("a", 1): (2, 3, 1.0, 1.0),
    }


def test_json_is_plain_and_complete() -> None:
    content = json.loads(json.dumps(facings_json(level_shelf("ab d", "aaaa"))))
    assert [p["class"] for p in content["products"]] == list("abdaaaa")
    assert content["products"][1]["box"] == [44, 0, 40, 80]
    assert content["gaps"][0]["after"] == 1
    assert {s["row"] for s in content["shares"]} == {None, 0, 1}
    assert np.array(content["to_front"]).shape == (3, 3)


def test_a_photo_from_the_front_stays_as_it_is() -> None:
    arrangement = level_shelf("aabbcc", "ccbbaa", "abcabc")
    assert arrangement.front_boxes == pytest.approx(arrangement.boxes, abs=2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 1000)] * 4, st.sampled_from("abc")), max_size=20))
def test_any_boxes_get_facings(corners: list[tuple[int, int, int, int, str]]) -> None:
    boxes = np.array(
        [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d, _ in corners], float
    ).reshape(-1, 4)
    arrangement = arrange(boxes, [name for *_, name in corners], assign_rows(boxes), (1000, 1000))
    assert np.isfinite(arrangement.front_boxes).all()
    for row in range(arrangement.n_rows):
        assert arrangement.column[arrangement.facings(row)].tolist() == list(
            range(len(arrangement.facings(row)))
        )
    assert ((arrangement.level == 0) == (arrangement.foot == np.arange(len(boxes)))).all()


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="must have the same length, got 2, 1 and 2"):
        arrange(
            np.array([[0, 0, 1, 1], [2, 0, 3, 1]]),
            ["a"],
            Placement(np.zeros(2, np.int64), np.arange(2), 1),
            (10, 10),
        )


def test_real_coolers_have_few_gaps_and_even_sizes(drinks: Path) -> None:
    """Full coolers have few gaps, and in the front view products of a class have similar sizes."""
    content = json.loads((drinks / "val.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    spaces = gaps = 0
    before, after = [], []
    for photo in content["images"]:
        labels = [a for a in content["annotations"] if a["image_id"] == photo["id"]]
        boxes = np.array([a["bbox"] for a in labels], float)
        boxes[:, 2:] += boxes[:, :2]
        found = arrange(
            boxes,
            [names[a["category_id"]] for a in labels],
            assign_rows(boxes),
            (photo["width"], photo["height"]),
        )
        gaps, spaces = (
            gaps + len(found.gaps),
            spaces + sum(len(found.facings(r)) - 1 for r in range(found.n_rows)),
        )
        before.append(uneven(found, found.boxes))
        after.append(uneven(found, found.front_boxes))
    assert gaps < 0.04 * spaces
    assert np.mean(after) < 0.9 * np.mean(before)


def uneven(found: Arrangement, boxes: np.ndarray) -> float:
    """Return the mean relative difference of a product's height from the median of its class."""
    height, names = boxes[:, 3] - boxes[:, 1], np.array(found.names)
    usual = np.array([np.median(height[names == name]) for name in found.names])
    return float(np.abs(height / usual - 1).mean())


def test_painted_products_keep_their_places_in_the_front_view() -> None:
    """Photos of `data.synthetic`, with rounded bottles and cans and a decentred camera."""
    errors = []
    for seed in range(4):
        params = ShelfParams(width=640, height=480, facings=(10, 16), yaw=30, tilt=15)
        scene = render(CATALOGUE, params, np.random.default_rng(seed))
        seen = scene.truth.boxes
        # Without boxes at the border of the photo: stacks cut by it look like rows.
        whole = (
            ~scene.truth.ignore
            & (seen[:, :2] > 1).all(axis=1)
            & (seen[:, 2] < 639)
            & (seen[:, 3] < 479)
        )
        names = [CATALOGUE[i].name for i in scene.truth.classes[whole]]
        found = arrange(seen[whole], names, assign_rows(seen[whole]), (640, 480))
        errors.append(edge_errors(found.front_boxes, scene.plane_boxes[whole].astype(float)))
    sideways, upright = np.mean(errors, axis=0)
    assert sideways < 0.4
    assert upright < 0.12


def test_rows_read_off_a_regular_cooler() -> None:
    """Regular rows are 40 apart for products 80 high. Stacked or slanting rows are not regular."""
    board = np.array(
        [[44 * i, 120 * row, 44 * i + 40, 120 * row + 80] for row in (1, 0, 2) for i in range(5)],
        float,
    )
    assert placement.regular_rows(board).tolist() == [1] * 5 + [0] * 5 + [2] * 5
    # Stacked: the products above rest on those below.
    stacked = np.array(
        [[44 * i, 82 * row, 44 * i + 40, 82 * row + 80] for row in (0, 1) for i in range(5)], float
    )
    assert placement.regular_rows(stacked) is None
    # Slanting by half a height.
    slanting = board + np.linspace(0, 40, 5)[np.tile(np.arange(5), 3)][:, None] * (0, 1, 0, 1)
    assert placement.regular_rows(slanting) is None


def test_rows_of_regular_coolers_are_right(drinks: Path) -> None:
    photos = list(placement.coolers(drinks / "val.json"))
    regular = [(boxes, row) for boxes, row, _ in photos if len(row)]
    assert len(regular) > len(photos) / 2
    assert all((assign_rows(boxes).row == row).all() for boxes, row in regular)
