"""Tests of synthetic shelf photos and their ground truth."""

import json

import cv2
import numpy as np
import pytest

from shelfcount.data import formats
from shelfcount.records import ShelfcountError
from shelfcount.synthetic.catalogue import CATALOGUE_SIZE, SHAPES, VARIANTS, make_catalogue
from shelfcount.synthetic.generation import generate
from shelfcount.synthetic.layout import (
    BACKGROUNDS,
    CM_PER_FACING,
    Layout,
    ShelfParams,
    layout_shelf,
)
from shelfcount.synthetic.painting import paint
from shelfcount.synthetic.product_drawing import draw_product
from shelfcount.synthetic.scenes import LABEL_VISIBLE, MIN_IGNORED, Scene, render, render_views
from shelfcount.vision.boxes import iou
from shelfcount.vision.images import read_photo

SMALL = ShelfParams(width=320, height=256, rows=(2, 3), facings=(6, 9))
CATALOGUE = make_catalogue(24)


def _mapped(boxes: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """Return the (n, 4) bounding boxes of xyxy boxes after a homography."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 1, 2).astype(np.float64)
    corners = cv2.perspectiveTransform(corners, homography).reshape(-1, 4, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _scenes(n: int, params: ShelfParams = SMALL) -> list[Scene]:
    return [render(CATALOGUE, params, np.random.default_rng([1, i])) for i in range(n)]


def test_the_largest_catalogue_has_distinct_names_of_all_kinds():
    catalogue = make_catalogue(CATALOGUE_SIZE)
    assert len({p.name for p in catalogue}) == CATALOGUE_SIZE
    assert {p.kind for p in catalogue} == set(SHAPES)


def test_a_small_catalogue_starts_a_larger_one_and_holds_look_alikes():
    assert make_catalogue(60)[:20] == make_catalogue(20)
    brands = {
        (p.brand, p.thing): {q.kind for q in CATALOGUE if (q.brand, q.thing) == (p.brand, p.thing)}
        for p in CATALOGUE
    }
    assert max(len(kinds) for kinds in brands.values()) > 1


@pytest.mark.parametrize("n", [0, CATALOGUE_SIZE + 1])
def test_catalogue_size_out_of_range(n):
    with pytest.raises(ShelfcountError, match=f"classes .* must be from 1 to 200, got {n}"):
        make_catalogue(n)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_sprite_fills_its_height_and_has_an_outline(kind):
    product = next(p for p in make_catalogue(CATALOGUE_SIZE) if p.kind == kind)
    for variant in range(VARIANTS):
        drawn = draw_product(product, 8, variant)
        rows = np.flatnonzero((drawn[..., 3] > 127).any(axis=1))
        # A tilted product is slightly less high, and a curved base adds 3.5 % of the width.
        assert rows[-1] - rows[0] + 1 == pytest.approx(8 * product.height, rel=0.1)
        assert drawn[..., :3][drawn[..., 3] > 127].std() > 5


def test_same_seed_same_scene_and_another_seed_another():
    one, same, other = (render(CATALOGUE, SMALL, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.truth.boxes, same.truth.boxes)
    assert (one.image != other.image).any()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_truth_lies_in_the_photo_and_has_size(background):
    params = ShelfParams(
        width=256,
        height=320,
        rows=(2, 4),
        facings=(5, 12),
        background=background,
        occlusion=0.5,
        yaw=40,
        tilt=20,
    )
    scene = render(CATALOGUE, params, np.random.default_rng(3))
    assert scene.image.shape == (320, 256, 3)
    assert scene.image.dtype == np.uint8
    boxes = scene.truth.boxes
    assert len(boxes)
    assert boxes.min() >= 0
    assert (boxes[:, 2] <= 256).all()
    assert (boxes[:, 3] <= 320).all()
    assert (boxes[:, 2:] - boxes[:, :2]).min() > 1
    assert scene.visible.min() >= MIN_IGNORED
    assert scene.truth.ignore[scene.visible < LABEL_VISIBLE].all()


def _placed(params: ShelfParams, seed: int) -> tuple[Layout, list[Scene]]:
    """Return a layout, and two photos of it that overlap by 0.9 and together show all of it."""
    scenes = render_views(CATALOGUE, params, np.random.default_rng(seed), 2, overlap=0.9)
    rng = np.random.default_rng(seed)
    width = int(rng.integers(params.facings[0], params.facings[1] + 1)) * CM_PER_FACING
    return layout_shelf(CATALOGUE, params, width * 1.1, rng), scenes


def test_the_number_of_boxes_is_what_was_placed_where_nothing_is_hidden():
    params = ShelfParams(width=640, height=480, back_row=0, occlusion=0, yaw=5, facings=(10, 10))
    layout, scenes = _placed(params, 5)
    labelled = {
        int(i): int(c)
        for s in scenes
        for i, c in zip(s.items, s.truth.classes, strict=True)
        if not s.truth.ignore[s.items == i][0]
    }
    assert labelled == {i: item.product for i, item in enumerate(layout.items)}


def test_products_behind_the_front_row_are_marked_ignore():
    params = ShelfParams(
        width=640, height=480, back_row=1, occlusion=0, gap=0.3, yaw=5, facings=(10, 10)
    )
    layout, scenes = _placed(params, 6)
    for scene in scenes:
        behind = np.array([layout.items[i].layer < 0 for i in scene.items])
        assert behind.any()
        assert scene.truth.ignore[behind].all()
        assert not scene.truth.ignore[~behind & (scene.visible > LABEL_VISIBLE)].any()


def test_hulls_and_areas_are_those_of_the_painted_pixels():
    params = ShelfParams(back_row=0, occlusion=0, stacked=0, background="white")
    layout = layout_shelf(CATALOGUE, params, 60, np.random.default_rng(2))
    plane = paint(
        layout, CATALOGUE, params, (-5, -5, 65, layout.height + 5), 4.0, np.random.default_rng(2)
    )
    shown = np.bincount(plane.owner.ravel(), minlength=len(layout.items) + 1)[1:]
    whole = np.flatnonzero(shown == plane.areas)
    assert len(whole) >= 3
    for item in whole:
        y, x = np.nonzero(plane.owner == item + 1)
        hull = plane.hulls[item]
        assert (*hull.min(axis=0), *hull.max(axis=0)) == (
            x.min(),
            y.min(),
            x.max() + 1,
            y.max() + 1,
        )


def test_the_homography_takes_a_product_to_its_box():
    params = ShelfParams(width=480, height=360, yaw=20, pitch=8, tilt=0, facings=(8, 10))
    overlaps = []
    for scene in _scenes(3, params):
        boxes = scene.truth.boxes
        inside = (
            (boxes[:, :2] > 0).all(axis=1)
            & (boxes[:, 2:] < (480, 360)).all(axis=1)
            & ~scene.truth.ignore
        )
        overlaps.append(
            np.diag(iou(_mapped(scene.plane_boxes[inside], scene.homography), boxes[inside]))
        )
    # The IoU is below 1, and there is no tilt, since the bounding box of a rotated rectangle is
    # larger than that of the product in it.
    assert np.concatenate(overlaps).min() > 0.9


def test_one_product_in_two_views_is_one_place_of_the_plane():
    params = ShelfParams(
        width=480, height=360, facings=(8, 8), rows=(2, 2), yaw=15, pitch=0, tilt=0
    )
    first, second, third = render_views(CATALOGUE, params, np.random.default_rng(4), 3)
    for a, b in ((first, second), (second, third)):
        common = np.intersect1d(a.items, b.items)
        in_a, in_b = (np.array([np.flatnonzero(s.items == i)[0] for i in common]) for s in (a, b))
        whole = [
            (s.truth.boxes[at][:, :2] > 0).all(axis=1)
            & (s.truth.boxes[at][:, 2:] < (480, 360)).all(axis=1)
            for s, at in ((a, in_a), (b, in_b))
        ]
        in_a, in_b = in_a[whole[0] & whole[1]], in_b[whole[0] & whole[1]]
        assert len(in_a) >= 3
        np.testing.assert_array_equal(a.truth.classes[in_a], b.truth.classes[in_b])
        between = b.homography @ np.linalg.inv(a.homography)
        centres = (a.plane_boxes[in_a][:, :2] + a.plane_boxes[in_a][:, 2:]).astype(np.float64) / 2
        photo_a, photo_b = (
            cv2.perspectiveTransform(centres[None], s.homography)[0] for s in (a, b)
        )
        np.testing.assert_allclose(
            cv2.perspectiveTransform(photo_a[None], between)[0], photo_b, atol=0.01
        )
        # The homography maps the boxes too. This is exact only if verticals remain vertical, hence
        # without pitch and tilt.
        moved = _mapped(a.truth.boxes[in_a], between)
        gap = (moved[:, :2] + moved[:, 2:]) / 2 - (
            b.truth.boxes[in_b][:, :2] + b.truth.boxes[in_b][:, 2:]
        ) / 2
        assert np.abs(gap).max() < 2


def test_views_agree_pixel_by_pixel_where_they_overlap():
    params = ShelfParams(
        width=320,
        height=240,
        facings=(6, 6),
        rows=(2, 2),
        yaw=10,
        light=0,
        noise=0,
        blur=0,
        jpeg=100,
    )
    a, b = render_views(CATALOGUE, params, np.random.default_rng(4), 2)
    warped = cv2.warpPerspective(a.image, b.homography @ np.linalg.inv(a.homography), (320, 240))
    seen = warped.any(axis=2)
    assert seen.mean() > 0.15
    error = np.abs(warped[seen].astype(int) - b.image[seen]).mean()
    # A shift by 6 pixels gives a much larger difference than resampling.
    shifted = np.abs(np.roll(warped, 6, axis=1)[seen].astype(int) - b.image[seen]).mean()
    assert error < 0.5 * shifted


def test_rows_are_ordered_by_y_and_positions_by_x():
    for scene in _scenes(4):
        boxes, known = scene.truth.boxes, ~scene.truth.ignore
        centres = (boxes[:, 0] + boxes[:, 2]) / 2
        bottoms = []
        for row in range(scene.rows[known].max() + 1):
            members = np.flatnonzero((scene.rows == row) & known)
            order = members[np.argsort(scene.positions[members])]
            assert scene.positions[order].tolist() == list(range(len(members)))
            assert (np.diff(centres[order]) >= 0).all()
            bottoms.append(np.median(scene.plane_boxes[members, 3]))
        assert (np.diff(bottoms) > 0).all()
        assert (scene.positions[~known] == -1).all()


def test_density_raises_the_number_of_boxes():
    few, many = (
        np.mean(
            [
                len(s.truth)
                for s in _scenes(4, ShelfParams(width=320, height=256, rows=(3, 3), facings=(n, n)))
            ]
        )
        for n in (5, 20)
    )
    assert many > 2 * few


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 10}, "width .* must be a whole number from 64 to 8192, got 10"),
        ({"width": 640.5}, "width .* must be a whole number from 64 to 8192, got 640.5"),
        ({"rows": (0, 3)}, r"rows .* must be whole numbers from 1 to 12, got \(0, 3\)"),
        ({"rows": 3}, r"rows .* must be \(minimum, maximum\), got 3"),
        ({"facings": (9, 4)}, r"facings .* must be \(minimum, maximum\), got \(9, 4\)"),
        ({"gap": 1.5}, "gap .* must be a number from 0 to 1, got 1.5"),
        ({"noise": float("nan")}, "noise .* must be a number from 0 to 1, got nan"),
        ({"yaw": 60}, "yaw .* must be a number from 0 to 45, got 60"),
        ({"jpeg": 5}, "jpeg .* must be a whole number from 20 to 100, got 5"),
        ({"background": "marble"}, "background .* must be one of cooler, .*, got 'marble'"),
    ],
)
def test_parameters_out_of_range(wrong, message):
    with pytest.raises(ShelfcountError, match=message):
        ShelfParams(**wrong)


@pytest.mark.parametrize(
    ("catalogue", "n", "overlap", "message"),
    [
        ((), 1, 0.4, "catalogue .* is empty. Give at least 1 product"),
        (CATALOGUE, 0, 0.4, "views .* must be at least 1, got 0"),
        (CATALOGUE, 2, 0.95, "overlap .* must be from 0 to 0.9, got 0.95"),
        (CATALOGUE, 400, 0.4, r"takes \d+ x \d+ pixels; the maximum is 32766 pixels per side"),
    ],
)
def test_views_out_of_range(catalogue, n, overlap, message):
    with pytest.raises(ShelfcountError, match=message):
        render_views(catalogue, SMALL, np.random.default_rng(0), n, overlap)


def test_generated_photos_depend_on_seed_and_number_only(tmp_path):
    steps = []
    generate(tmp_path / "few", photos=2, classes=8, seed=7, params=SMALL)
    more = generate(
        tmp_path / "more",
        photos=5,
        classes=8,
        seed=7,
        params=SMALL,
        workers=2,
        progress=lambda *s: steps.append(s),
    )
    other = generate(tmp_path / "other", photos=1, classes=8, seed=8, params=SMALL)
    for name in ("00000.jpg", "00001.jpg"):
        assert (tmp_path / "few/images" / name).read_bytes() == (
            tmp_path / "more/images" / name
        ).read_bytes()
    assert (tmp_path / "few/images/00000.jpg").read_bytes() != (
        tmp_path / "other/images/00000.jpg"
    ).read_bytes()
    assert steps == [(i, 5) for i in range(1, 6)]
    assert len(more.classes) == 8
    assert other.classes == more.classes


def test_what_is_generated_reads_back_with_its_truth(tmp_path):
    written = generate(tmp_path, photos=2, classes=5, seed=1, params=SMALL, views=2)
    read = formats.read_labels(tmp_path / "labels.json")
    assert read.licence == "CC0-1.0"
    assert read.classes == written.classes
    assert [p.group for p in read.photos] == ["00000", "00000", "00001", "00001"]
    scenes = json.loads((tmp_path / "scenes.json").read_text())
    for a, b, facts in zip(written.photos, read.photos, scenes["photos"], strict=True):
        np.testing.assert_allclose(a.truth.boxes, b.truth.boxes, atol=1e-3)
        np.testing.assert_array_equal(a.truth.ignore, b.truth.ignore)
        assert len(facts["rows"]) == len(facts["positions"]) == len(facts["items"]) == len(b.truth)
        assert facts["file"] == f"images/{b.path.name}"
        assert read_photo(b.path).shape == (SMALL.height, SMALL.width, 3)


def test_nothing_is_overwritten_unasked(tmp_path):
    generate(tmp_path, photos=1, classes=3, seed=1, params=SMALL)
    before = (tmp_path / "images/00000.jpg").read_bytes()
    with pytest.raises(ShelfcountError, match=r"is not an empty folder, .* not overwritten"):
        generate(tmp_path, photos=1, classes=3, seed=2, params=SMALL)
    assert (tmp_path / "images/00000.jpg").read_bytes() == before
    generate(tmp_path, photos=1, classes=3, seed=2, params=SMALL, force=True)
    assert (tmp_path / "images/00000.jpg").read_bytes() != before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"photos": 0}, "photos .* must be at least 1, got 0"),
        ({"seed": -1}, "seed .* must be at least 0, got -1"),
    ],
)
def test_generate_out_of_range(tmp_path, wrong, message):
    with pytest.raises(ShelfcountError, match=message):
        generate(tmp_path / "out", **{"photos": 1, "classes": 3, "seed": 0, **wrong})
    assert not (tmp_path / "out").exists()
