"""Tests of registration on rendered photos with known homographies and on repetitive shelves."""

from __future__ import annotations

import dataclasses

import cv2
import merge_views
import numpy as np
import pytest
from simulated_detector import CATALOGUE

from shelfcount.records import Detections, ShelfcountError
from shelfcount.shelf import photo_pairs
from shelfcount.shelf.photo_features import extract_features, match_keypoints
from shelfcount.shelf.registration import MAX_MERGED_PHOTOS, register
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.synthetic.scenes import Scene, render_views
from shelfcount.vision.homography import map_boxes, map_points

# Rendering and registration take a quarter of a minute in all.
pytestmark = pytest.mark.slow


# Two wide rows: the width limits the photos, so that neighbours have exactly the stated overlap.
WIDE = ShelfParams(width=800, height=600, rows=(2, 3), facings=(12, 16))


def labelled(scene: Scene) -> Detections:
    return scene.truth[~scene.truth.ignore]


# ---------------------------------------------------------------- points and boxes


def test_boxes_keep_their_width_when_the_photo_tilts() -> None:
    tilt = np.deg2rad(10)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    # 40 x 100 around the origin: the middles of the edges rotate, so each side shrinks by
    # cos 10 = 0.985.
    (box,) = map_boxes(np.array([[-20, -50, 20, 50]]), turn)
    np.testing.assert_allclose(box, [-19.696, -49.240, 19.696, 49.240], atol=1e-3)


def test_what_goes_behind_the_camera_goes_nowhere() -> None:
    # The depth is 1 - x / 100: 0 at x = 100, negative beyond.
    oblique = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    mapped = map_points(np.array([[50.0, 10], [100, 10], [150, 10]]), oblique)
    np.testing.assert_allclose(mapped, np.array([[100, 20], [np.nan, np.nan], [np.nan, np.nan]]))


def test_points_and_boxes_come_back() -> None:
    there = np.array([[0.9, 0.05, 30], [-0.04, 1.1, -20], [1e-4, -5e-5, 1]])
    points = np.random.default_rng(0).uniform(-500, 500, (50, 2))
    np.testing.assert_allclose(
        map_points(map_points(points, there), np.linalg.inv(there)), points, atol=1e-9
    )
    shift = np.array([[2, 0, 30], [0, 2, -20], [0, 0, 1.0]])
    boxes = np.array([[0, 0, 10, 20], [-5, 3, 8, 30.0]])
    np.testing.assert_allclose(
        map_boxes(map_boxes(boxes, shift), np.linalg.inv(shift)), boxes, atol=1e-9
    )


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (4000, 3000), (416, 416)])
def test_every_photo_has_a_million_square_units(size: tuple[int, int]) -> None:
    view = extract_features(
        np.zeros((size[1], size[0], 3), np.uint8), Detections([[0, 0, *size]], [0])
    )
    assert (2 * view.half).prod() == pytest.approx(1e6)
    np.testing.assert_allclose(view.boxes[0], [*-view.half, *view.half])
    assert len(view.points) == 0
    assert view.picture.shape[0] * view.picture.shape[1] <= 1.002e6


def test_a_point_is_found_where_it_is_in_a_photo_of_any_size() -> None:
    image = np.full((600, 800, 3), 90, np.uint8)
    cv2.circle(image, (300, 200), 12, (250, 250, 250), -1)
    for scale in (1, 4):
        large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        view = extract_features(large, Detections.empty())
        pixels = map_points(view.points, np.linalg.inv(view.to_units)) / scale
        # The middle pixel of the disc is (300, 200); the centre of this pixel is (300.5, 200.5).
        assert np.hypot(*(pixels - [300.5, 200.5]).T).min() < 0.5


# ---------------------------------------------------------------- whole shelves


def shuffled(n: int, overlap: float, seed: int, params: ShelfParams = WIDE) -> list[Scene]:
    rng = np.random.default_rng(seed)
    scenes = render_views(CATALOGUE, params, rng, n, overlap)
    return [scenes[i] for i in rng.permutation(n)]


@pytest.mark.parametrize(("n", "overlap", "seed"), [(3, 0.2, 0), (5, 0.25, 1), (4, 0.4, 2)])
def test_photos_in_any_order_are_placed_to_a_unit_or_two(n: int, overlap: float, seed: int) -> None:
    scenes = shuffled(n, overlap, seed)
    looks = [extract_features(s.image, labelled(s)) for s in scenes]
    found = register(looks)
    assert [sorted(group) for group in found.groups] == [list(range(n))]
    # benchmarks/results/merge_views.json, "registration_units", has the maximum over all shelves.
    assert max(merge_views.misplaced(scenes, looks, found)) < 2


def test_photos_of_several_phones() -> None:
    scenes = shuffled(3, 0.4, 3)
    # One photo has four times the pixels; one is a darker portrait crop of a landscape photo.
    changes = [np.diag([2.0, 2, 1]), np.eye(3), np.array([[1, 0, -150], [0, 1, 0], [0, 0, 1.0]])]
    large = cv2.resize(scenes[0].image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    dark = (scenes[2].image[:, 150:650] * 0.7).astype(np.uint8)
    found_on = [
        labelled(s).replace(boxes=map_boxes(labelled(s).boxes, change))
        for s, change in zip(scenes, changes, strict=True)
    ]
    looks = [
        extract_features(image, found)
        for image, found in zip((large, scenes[1].image, dark), found_on, strict=True)
    ]
    found = register(looks)
    assert [sorted(group) for group in found.groups] == [[0, 1, 2]]
    changed = [
        dataclasses.replace(s, homography=change @ s.homography)
        for s, change in zip(scenes, changes, strict=True)
    ]
    assert max(merge_views.misplaced(changed, looks, found)) < 2


@pytest.mark.parametrize("seed", range(4))
def test_the_front_view_is_not_oblique(seed: int) -> None:
    scenes = shuffled(5, 0.3, 30 + seed)
    looks = [extract_features(s.image, labelled(s)) for s in scenes]
    found = register(looks)
    assert len(found.groups) == 1
    onto = found.fronts[0] @ looks[0].to_units @ scenes[0].homography
    plane = np.concatenate([s.plane_boxes for s in scenes])
    ends = np.array(
        [
            [plane[:, 0].min(), np.median(plane[:, 1]), 1],
            [plane[:, 2].max(), np.median(plane[:, 1]), 1],
        ]
    )
    left, right = ends @ onto[2]
    # Ratio of the depths at the ends of the shelf. The angles of the photos, up to 18 degrees,
    # would give a factor of 1.7.
    assert 1 / 1.15 < left / right < 1.15
    (x0, y0), (x1, y1) = map_points(ends[:, :2], onto)
    # The roll of a photo is up to 4 degrees, the mean is smaller.
    assert abs(np.degrees(np.arctan2(y1 - y0, x1 - x0))) < 4


def test_a_class_of_two_sizes_does_not_tilt_the_front() -> None:
    """Small bottles above and large ones of the same class below, as on the drinks photos."""
    small = [[60 * i, 100, 60 * i + 50, 200] for i in range(5, 12)]
    large = [[90 * i, 600, 90 * i + 75, 750] for i in range(4, 8)]
    view = extract_features(
        np.zeros((1000, 1000, 3), np.uint8), Detections([*small, *large], [0] * 11)
    )
    (front,) = register([view]).fronts
    top, bottom = np.array([[0, -350, 1], [0, 175, 1]]) @ front[2]
    # Equal heights would need a factor of 1.5, and half of that in depth.
    assert 1 / 1.1 < top / bottom < 1.1


def test_one_photo_is_its_own_front() -> None:
    (scene,) = shuffled(1, 0.3, 5)
    found = register([extract_features(scene.image, Detections.empty())])
    assert found.groups == ((0,),)
    np.testing.assert_allclose(found.fronts[0] / found.fronts[0][2, 2], np.eye(3), atol=1e-9)


def test_a_photo_of_another_shelf_stays_apart() -> None:
    shelf, other = shuffled(3, 0.3, 6), shuffled(1, 0.3, 7)
    found = register([extract_features(s.image, labelled(s)) for s in [*shelf, *other]])
    assert [sorted(group) for group in found.groups] == [[0, 1, 2], [3]]
    link = found.best_link(3, found.groups[0])
    assert link is not None
    assert not link.is_valid


def test_two_shelves_are_two_groups() -> None:
    photos = shuffled(3, 0.3, 8) + shuffled(2, 0.3, 9)
    found = register([extract_features(s.image, labelled(s)) for s in photos])
    assert [sorted(group) for group in found.groups] == [[0, 1, 2], [3, 4]]


def test_a_photo_without_points_stays_apart() -> None:
    (scene,) = shuffled(1, 0.3, 10)
    flat = np.full((600, 800, 3), 128, np.uint8)
    found = register(
        [extract_features(scene.image, labelled(scene)), extract_features(flat, Detections.empty())]
    )
    assert found.groups == ((0,), (1,))
    assert found.best_link(1, (0,)) is None


def test_no_photos() -> None:
    assert register([]).groups == ()


def test_too_many_photos_are_refused() -> None:
    flat = extract_features(np.zeros((30, 40, 3), np.uint8), Detections.empty())
    with pytest.raises(
        ShelfcountError,
        match=f"at most {MAX_MERGED_PHOTOS} photos can be merged at once, "
        f"got {MAX_MERGED_PHOTOS + 1}",
    ):
        register([flat] * (MAX_MERGED_PHOTOS + 1))


# ---------------------------------------------------------------- repetitive shelves


def test_products_repair_what_points_alone_get_wrong() -> None:
    twins = [merge_views.twin(seed) for seed in range(8)]
    plain = [pair.off(pair.plain_fit()) for pair in twins]
    links = [pair.best() for pair in twins]
    found = [pair.off(link.homography) for pair, link in zip(twins, links, strict=True)]
    # A facing is 60 to 90 units wide, so an error of one facing is more than 50 units.
    assert sum(off > 50 for off in plain) >= 4, plain
    assert sum(off < 3 for off in found) >= 7, found
    assert all(link.is_valid for link, off in zip(links, found, strict=True) if off < 3)


def test_without_products_points_decide() -> None:
    a, b = (extract_features(scene.image, Detections.empty()) for scene in shuffled(2, 0.4, 11))
    (link, *_) = photo_pairs.fit_pair((0, 1), a, b, match_keypoints(a, b))
    assert (link.agreeing, link.products, link.is_valid) == (0, 0, True)
    assert link.score == 2 * link.cover


def test_products_that_contradict_stop_a_fit_that_points_suggest() -> None:
    a, b = (extract_features(scene.image, labelled(scene)) for scene in shuffled(2, 0.4, 11))
    near = match_keypoints(a, b)
    assert photo_pairs.fit_pair((0, 1), a, b, near)[0].is_valid
    strangers = dataclasses.replace(b, classes=b.classes + 100)
    (link, *_) = photo_pairs.fit_pair((0, 1), a, strangers, near)
    assert link.products >= photo_pairs.MIN_COMMON_PRODUCTS
    assert (link.agreeing, link.is_valid) == (0, False)
