"""Tests of the conditions: units, reproducibility, severity order, mapping of boxes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from shelfcount.records import Detections
from shelfcount.vision import effects
from shelfcount.vision.conditions import CONDITIONS, SEVERITIES, Condition
from shelfcount.vision.homography import map_detections, view_homography
from shelfcount.vision.images import read_photo, stretch
from shelfcount.vision.phone_cameras import CAMERAS

SIDE = effects.REFERENCE_SIDE
ALL = pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Return a golden photo of the released bundle, at a size that keeps the tests fast."""
    folder = Path(__file__).parents[1] / "export" / "release" / "drinks-int8" / "golden"
    return stretch(read_photo(sorted(folder.glob("*.jpg"))[0]), 180, 240)


def grey(level: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def light_of(level: float) -> float:
    """Return the linear light of an sRGB level: an independent version of IEC 61966-2-1."""
    share = level / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def apply(condition: Condition, image: np.ndarray, severity: int, seed: int = 0) -> np.ndarray:
    return condition.apply(image, severity, np.random.default_rng(seed)).image


# ---------------------------------------------------------------- all of them


@ALL
def test_the_same_seed_gives_the_same_photo(condition: Condition, photo: np.ndarray) -> None:
    untouched = photo.copy()
    first, again = apply(condition, photo, 3), apply(condition, photo, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(photo, untouched)


@pytest.mark.parametrize(
    "condition", [c for c in CONDITIONS.values() if c.group != "view"], ids=lambda c: c.name
)
def test_each_strength_changes_more(condition: Condition, photo: np.ndarray) -> None:
    def distance(severity: int) -> float:
        changed = stretch(apply(condition, photo, severity), *photo.shape[:2])
        return float(np.abs(changed.astype(int) - photo).mean())

    # The mildest severities of 'resolution' do not change this photo, as it has fewer pixels.
    distances = [distance(severity) for severity in SEVERITIES]
    assert distances == sorted(distances)
    assert distances[-1] > 2 * distances[0] or condition.group == "phone"


@ALL
def test_values_lead_away_from_the_neutral_one(condition: Condition) -> None:
    steps = np.diff(
        [*([] if condition.neutral is None else [condition.neutral]), *condition.values]
    )
    assert (steps > 0).all() or (steps < 0).all()


def test_a_strength_must_exist(photo: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"severity must be one of \(1, 2, 3, 4, 5\), got 6"):
        CONDITIONS["dark"].apply(photo, 6, np.random.default_rng(0))


# ---------------------------------------------------------------- units


def test_light_and_back_is_exact() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(effects.from_light(effects.to_light(levels)), levels)


@pytest.mark.parametrize("stops", [-2.0, -1.0, 1.0])
def test_a_stop_doubles_light(stops: float) -> None:
    (level,) = np.unique(effects.exposed(grey(120, 2, 2), stops))
    # Tolerance: half a grey level.
    assert light_of(level - 0.5) <= light_of(120) * 2**stops <= light_of(level + 0.5)


def test_a_tungsten_lamp_is_as_red_as_its_standard() -> None:
    # CIE standard illuminant A, 2,856 K: x 0.44757, y 0.40745 (CIE 15). D65: x 0.31271, y 0.32902.
    def rgb(x: float, y: float) -> np.ndarray:
        return effects.XYZ_TO_RGB @ [x / y, 1, (1 - x - y) / y]

    expected = rgb(0.44757, 0.40745) / rgb(0.31271, 0.32902)
    gains = effects.kelvin_gains(2856)
    # D65 is 6 % greener than the Planckian light of 6,504 K, from which the fit starts.
    np.testing.assert_allclose(gains / gains[1], expected / expected[1], rtol=0.07)
    assert effects.LUMINANCE @ gains == pytest.approx(1)
    np.testing.assert_allclose(effects.kelvin_gains(effects.WHITE_KELVIN), 1)


def test_blur_is_as_wide_as_stated() -> None:
    disc, streak = effects.disc(9), effects.streak(16, 0.0)
    assert disc.sum() == pytest.approx(1)
    assert streak.sum() == pytest.approx(1)
    # The variance of a disc along one axis is d^2 / 16, of a line l^2 / 12; whole pixels add about
    # 1 / 12 and 1 / 6.
    places = np.arange(len(disc)) - len(disc) // 2
    assert disc.sum(axis=0) @ places**2 == pytest.approx(81 / 16 + 1 / 12, rel=0.02)
    places = np.arange(len(streak)) - len(streak) // 2
    assert streak.sum(axis=0) @ places**2 == pytest.approx(256 / 12 + 1 / 6, rel=0.02)
    assert streak.sum(axis=1) @ places**2 == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("zoom", [1, 2])
def test_blur_and_noise_grow_with_the_photo(zoom: int) -> None:
    rng = np.random.default_rng(1)
    large = effects.noisy(grey(128, 200 * zoom, SIDE * zoom), 12, rng)
    small = cv2.resize(large, (SIDE, 200), interpolation=cv2.INTER_AREA)
    # 250,000 samples; rounding to whole levels adds 1 / 12 to the variance.
    assert small.std() == pytest.approx(12, rel=0.02)
    edge = grey(0, 40 * zoom, SIDE * zoom)
    edge[:, edge.shape[1] // 2 :] = 255
    soft = effects.to_light(effects.defocused(edge, 6))[20 * zoom, :, 1]
    assert ((soft > 0.01) & (soft < 0.99)).sum() == pytest.approx(6 * zoom, abs=2)


def test_lamps_wash_out_the_stated_share() -> None:
    washed = [
        (
            effects.to_light(effects.glared(grey(0, 200, 200), 0.04, np.random.default_rng(s)))[
                :, :, 0
            ]
            >= 0.5
        ).mean()
        for s in range(6)
    ]
    # Lamps that cross the border or overlap cover less.
    assert 0.02 < np.mean(washed) <= 0.042


def test_a_shadow_darkens_about_half() -> None:
    shares = []
    for seed in range(8):
        light = effects.to_light(
            effects.shadowed(grey(200, 100, 150), 2, np.random.default_rng(seed))
        )[:, :, 0] / light_of(200)
        assert light.min() == pytest.approx(0.25, abs=0.01)
        assert light.max() == pytest.approx(1, abs=0.01)
        shares.append((light < 0.5).mean())
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)


def test_phones_get_worse_in_the_order_of_their_sensors(photo: np.ndarray) -> None:
    errors = [
        np.abs(c.take(photo, 10, np.random.default_rng(0)).astype(int) - photo).mean()
        for c in CAMERAS.values()
    ]
    assert list(CAMERAS) == ["large_sensor", "medium_sensor", "small_sensor"]
    assert errors == sorted(errors)


# ---------------------------------------------------------------- boxes


@pytest.mark.parametrize("name", ["tilt", "yaw", "pitch", "resolution"])
@pytest.mark.parametrize("seed", [0, 1])
def test_boxes_stay_on_their_products(name: str, seed: int) -> None:
    # One elliptical product at a time, which is located by its pixels afterwards.
    for left, top, right, bottom in ((60, 80, 120, 230), (250, 60, 310, 120), (180, 150, 230, 290)):
        image = np.zeros((360, SIDE, 3), np.uint8)
        center, half = (
            ((left + right - 1) / 2, (top + bottom - 1) / 2),
            ((right - left) / 2, (bottom - top) / 2),
        )
        y, x = np.mgrid[:360, :SIDE]
        image[((x - center[0]) / half[0]) ** 2 + ((y - center[1]) / half[1]) ** 2 <= 1] = 255
        changed = CONDITIONS[name].apply(image, 4, np.random.default_rng(seed))
        boxes, kept = changed.move(Detections([[left, top, right, bottom]], [0]))
        # Brighter than the grey outside the photo.
        rows, columns = np.nonzero(changed.image[:, :, 0] > 165)
        assert kept.tolist() == [0]
        np.testing.assert_allclose(
            boxes.boxes[0], [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1.3
        )


def test_without_movement_boxes_are_the_same() -> None:
    detections = Detections([[10, 20, 30.5, 40], [0, 0, 5, 5]], [2, 1], [0.5, 0.25], [False, True])
    out, kept = map_detections(detections, np.eye(3), 100, 100)
    assert kept.tolist() == [0, 1]
    np.testing.assert_array_equal(out.boxes, detections.boxes)
    assert (out.classes.tolist(), out.scores.tolist(), out.ignore.tolist()) == (
        [2, 1],
        [0.5, 0.25],
        [False, True],
    )


def test_what_leaves_the_frame_is_not_judged() -> None:
    # A shift by 60 to the left removes the first box, leaves 20 of 80 columns (a quarter) of the
    # second, and half of the third.
    shift = np.array([[1.0, 0, -60], [0, 1, 0], [0, 0, 1]])
    out, kept = map_detections(
        Detections([[0, 0, 50, 50], [0, 0, 80, 50], [20, 0, 100, 50]], [0, 1, 2]), shift, 100, 100
    )
    assert kept.tolist() == [1, 2]
    np.testing.assert_allclose(out.boxes, [[0, 0, 20, 50], [0, 0, 40, 50]], atol=1e-4)
    assert out.ignore.tolist() == [True, False]


def test_what_comes_to_lie_behind_the_camera_is_gone() -> None:
    # The depth is 1 - x / 100: the second box crosses the horizon at x = 100, the third is beyond
    # it.
    horizon = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    _, kept = map_detections(
        Detections([[10, 10, 30, 40], [80, 10, 120, 40], [150, 10, 180, 40]], [0, 0, 0]),
        horizon,
        1000,
        1000,
    )
    assert kept.tolist() == [0]


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_turn_leaves_the_middle_and_is_undone_by_its_opposite(axis: str) -> None:
    there = view_homography(30, axis, 400, 300)
    middle = there @ [200, 150, 1]
    np.testing.assert_allclose(middle[:2] / middle[2], [200, 150])
    np.testing.assert_allclose(view_homography(0, axis, 400, 300), np.eye(3), atol=1e-12)
    if axis == "z":
        np.testing.assert_allclose(
            view_homography(-30, axis, 400, 300) @ there, np.eye(3), atol=1e-12
        )
    else:
        # Across the axis a small product in the middle shrinks by the cosine (foreshortening).
        step = {"x": (0, 1), "y": (1, 0)}[axis]
        near = there @ [200 + 0.01 * step[0], 150 + 0.01 * step[1], 1]
        assert np.hypot(*(near[:2] / near[2] - [200, 150])) / 0.01 == pytest.approx(
            np.cos(np.radians(30)), rel=1e-3
        )
