"""Tests of merging on rendered photos: real pixels, and the noisy ground truth as detections."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from simulated_detector import (
    CATALOGUE,
    CLASSES,
    THRESHOLD,
    Noise,
    counted,
    detected,
    errors,
    true_counts,
)

from shelfcount.records import Detections, ModelSpec, ShelfcountError
from shelfcount.shelf.merge import Merged, merge_counted, merge_json, merge_photos
from shelfcount.shelf.panorama import MAX_PANORAMA_PIXELS, panorama
from shelfcount.shelf.photo_features import extract_features
from shelfcount.shelf.registration import MAX_MERGED_PHOTOS
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.synthetic.scenes import Scene, render_views
from shelfcount.vision import boxes as box_math
from shelfcount.vision import images

# Rendering and registration take half a minute in all.
pytestmark = pytest.mark.slow


WIDE = ShelfParams(width=800, height=600, rows=(2, 3), facings=(12, 16))


def shelf(n: int, overlap: float, seed: int, params: ShelfParams = WIDE) -> list[Scene]:
    """Return photos of one shelf in random order."""
    rng = np.random.default_rng(seed)
    scenes = render_views(CATALOGUE, params, rng, n, overlap)
    return [scenes[i] for i in rng.permutation(n)]


def merged(scenes: Sequence[Scene], noise: Any, seed: int = 0) -> tuple[Merged, list[np.ndarray]]:
    """Return the merged scenes, and for each scene the physical products of its detections."""
    rng = np.random.default_rng(seed)
    found = [detected(scene, noise, rng) for scene in scenes]
    photos = [
        counted(f"{i}.jpg", scene.image, detections)
        for i, (scene, (detections, _)) in enumerate(zip(scenes, found, strict=True))
    ]
    looks = [
        extract_features(scene.image, detections)
        for scene, (detections, _) in zip(scenes, found, strict=True)
    ]
    return merge_counted(photos, looks, THRESHOLD), [items for _, items in found]


def relative_error(counted: Mapping[str, int], true: Mapping[str, int]) -> float:
    """Return missed, additional and misclassified products as a share of the true number."""
    return errors(counted, true) / sum(true.values())


# ---------------------------------------------------------------- every product once


@pytest.mark.parametrize(("n", "overlap", "seed"), [(3, 0.2, 0), (5, 0.3, 1), (4, 0.4, 2)])
def test_every_product_counts_once(n: int, overlap: float, seed: int) -> None:
    scenes = shelf(n, overlap, seed)
    result, items = merged(scenes, Noise())
    (whole,) = result.shelves
    assert whole.counts == true_counts(scenes)
    numbers = [items[photo][detection] for photo, detection in whole.best]
    assert len(set(numbers)) == len(numbers)
    # There are more detections than products, since two photos show some of the products.
    assert sum(map(len, items)) > len(numbers) == sum(true_counts(scenes).values())


@pytest.mark.slow
def test_noise_leaves_the_count_within_3_percent() -> None:
    """Boxes off by 3 %, and 2 % of them lost in each photo; six shelves of 3 to 8 photos."""
    wrong, there = 0, 0
    for seed in range(6):
        scenes = shelf(3 + seed, (0.2, 0.3, 0.4)[seed % 3], 10 + seed)
        result, _ = merged(scenes, Noise(jitter=0.03, lost=0.02), seed)
        assert [len(group.photos) for group in result.shelves] == [len(scenes)]
        wrong += errors(result.shelves[0].counts, true_counts(scenes))
        there += true_counts(scenes).total()
    assert wrong / there <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_merging_is_no_worse_than_counting_single_photos(seed: int) -> None:
    noise = Noise(jitter=0.04, lost=0.15, misnamed=0.05, invented=0.08)
    scenes = shelf(4, 0.3, 20 + seed)
    result, _ = merged(scenes, noise, seed)
    single = [
        relative_error(photo.counts, true_counts([scene]))
        for photo, scene in zip(result.photos, scenes, strict=True)
    ]
    # Merging cannot correct wrong classes and false negatives, but must not add to them.
    assert relative_error(result.shelves[0].counts, true_counts(scenes)) <= 1.2 * np.mean(single)


def bent(scene: Scene, strength: float) -> Scene:
    """Return the scene through a lens with radial distortion.

    `strength` is the displacement, as a share of half the photo's width, at this distance from the
    middle.
    """
    height, width = scene.image.shape[:2]
    middle, reach = np.array([width, height]) / 2, width / 2

    def source(points: np.ndarray) -> np.ndarray:
        off = (points - middle) / reach
        return middle + reach * off * (1 + strength * (off**2).sum(axis=-1, keepdims=True))

    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2) + 0.5
    image = cv2.remap(
        scene.image,
        (source(pixels) - 0.5).astype(np.float32),
        None,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )  # type: ignore[call-overload]
    corners = scene.truth.boxes.reshape(-1, 2).astype(np.float64)
    # The inverse of a small distortion is approximately its opposite.
    boxes = (2 * corners - source(corners)).reshape(-1, 4).astype(np.float32)
    return dataclasses.replace(
        scene, image=image, truth=scene.truth.replace(boxes=box_math.clip(boxes, width, height))
    )


@pytest.mark.slow
@pytest.mark.parametrize("strength", [-0.03, 0.03])
def test_a_lens_that_bends_lines_bends_no_count(strength: float) -> None:
    """Phones have at most 1 % distortion; with 3 %, ten photos add up to a circle."""
    scenes = [bent(scene, strength) for scene in shelf(10, 0.25, 40)]
    result, _ = merged(scenes, Noise())
    (whole,) = result.shelves
    assert relative_error(whole.counts, true_counts(scenes)) <= 0.03
    picture, _ = panorama(whole)
    # Ten photos with an overlap of a quarter are 7.75 times as wide as one of 1155 x 866 units.
    assert 5 < picture.shape[1] / picture.shape[0] < 15


def test_rows_run_through_all_photos() -> None:
    scenes = shelf(4, 0.3, 3)
    result, items = merged(scenes, Noise())
    (whole,) = result.shelves
    row_of = {
        int(item): int(row)
        for scene in scenes
        for item, row in zip(scene.items, scene.rows, strict=True)
    }
    assert whole.placement.row.tolist() == [
        row_of[items[photo][detection]] for photo, detection in whole.best
    ]
    left_of = {
        int(item): float(box[0])
        for scene in scenes
        for item, box in zip(scene.items, scene.plane_boxes, strict=True)
    }
    for number, names in enumerate(whole.rows()):
        members = np.flatnonzero(whole.placement.row == number)
        members = members[np.argsort(whole.placement.position[members])]
        assert names == [CLASSES[c] for c in whole.products.classes[members]]
        along = np.array(
            [left_of[items[photo][detection]] for photo, detection in whole.best[members]]
        )
        # Stacked products are at the position of the product below, within a third of the width.
        width = np.median(
            np.concatenate([scene.plane_boxes[:, 2] - scene.plane_boxes[:, 0] for scene in scenes])
        )
        assert (np.diff(along) > -width / 3).all()


# ---------------------------------------------------------------- two photos of a plain wall

# A wall with dots for the registration and space for products. One photo of 600 x 400 shows it from
# x = 0, another from x = 300.
WALL = np.full((400, 900, 3), 200, np.uint8)
for _x, _y, _size, *_colour in (
    np.random.default_rng(0).integers(0, [900, 400, 9, 255, 255, 255], (900, 6)).tolist()
):
    cv2.circle(WALL, (_x, _y), 2 + _size, _colour, -1)
SHIFT = 300


def pair(
    left: Sequence[tuple[list[float], int, float]], right: Sequence[tuple[list[float], int, float]]
) -> Merged:
    """Merge two photos of the wall.

    Detections are (xyxy on the wall, class, score) and are clipped at the borders of the photos.
    """
    # The same three products at the bottom of both photos support the registration.
    common: list[tuple[list[float], int, float]] = [
        ([x, 330, x + 40, 390], 5, 0.9) for x in (340.0, 420.0, 500.0)
    ]
    photos, looks = [], []
    for name, start, seen in (("left.jpg", 0, left), ("right.jpg", SHIFT, right)):
        boxes, classes, scores = zip(*[*seen, *common], strict=True)
        within = box_math.clip(
            np.array(boxes, np.float32) - np.array([start, 0, start, 0], np.float32), 600, 400
        )
        found = Detections(within, classes, scores)
        image = WALL[:, start : start + 600]
        photos.append(counted(name, image, found))
        looks.append(extract_features(image, found))
    result = merge_counted(photos, looks, THRESHOLD)
    assert len(result.shelves) == 1
    return result


def others(result: Merged) -> list[tuple[str, float, str, int]]:
    """Return (class, score, photo, number of photos) of the products except the common ones."""
    entries = result.shelves[0].to_json()
    return [
        (e["class"], e["score"], e["photo"], e["seen_in"])
        for e in entries
        if e["class"] != CLASSES[5]
    ]


def test_a_product_cut_by_one_photo_is_taken_from_the_other() -> None:
    # The left photo ends at 600, the right one begins at 300.
    result = pair([([560, 100, 600, 220], 1, 0.95)], [([560, 100, 640, 220], 1, 0.6)])
    assert others(result) == [(CLASSES[1], 0.6, "right.jpg", 2)]
    (entry,) = [e for e in result.shelves[0].to_json() if e["class"] == CLASSES[1]]
    assert entry["box"] == [260.0, 100.0, 80.0, 120.0]


def test_a_thin_piece_inside_a_whole_product_is_no_product() -> None:
    assert others(pair([([590, 100, 600, 150], 2, 0.9)], [([560, 100, 640, 220], 1, 0.6)])) == [
        (CLASSES[1], 0.6, "right.jpg", 2)
    ]


def test_the_better_view_names_the_product() -> None:
    box = [400.0, 100.0, 460.0, 220.0]
    assert others(pair([(box, 1, 0.6)], [(box, 2, 0.9)])) == [(CLASSES[2], 0.9, "right.jpg", 2)]


def test_neighbours_in_one_photo_are_never_one_product() -> None:
    # The IoU of the two products is 1/2, so they also overlap from photo to photo.
    first, second = [400.0, 100.0, 460.0, 220.0], [420.0, 100.0, 480.0, 220.0]
    seen = [(first, 1, 0.9), (second, 1, 0.8)]
    assert [entry[3] for entry in others(pair(seen, seen))] == [2, 2]


@pytest.mark.parametrize(("score", "counts"), [(0.5, 0), (0.59, 0), (0.61, 1), (0.9, 1)])
def test_what_one_of_two_photos_reports_must_be_sure(score: float, counts: int) -> None:
    # The other photo counts with a score of 0.2: from 0.6 on, the mean reaches 0.4.
    assert len(others(pair([([400, 100, 460, 220], 1, score)], []))) == counts


def test_what_only_one_photo_shows_needs_no_second() -> None:
    assert others(pair([([100, 100, 160, 220], 1, 0.41)], [])) == [
        (CLASSES[1], 0.41, "left.jpg", 1)
    ]
    # A photo that shows a product only in part has no vote: its detector may miss the product.
    assert others(pair([], [([270 + SHIFT, 100, 330 + SHIFT, 220], 1, 0.41)])) == [
        (CLASSES[1], 0.41, "right.jpg", 1)
    ]


# ---------------------------------------------------------------- photos that cannot be registered


def test_a_photo_of_another_shelf_is_named_and_counted_apart() -> None:
    scenes = shelf(3, 0.3, 4)
    (stranger,) = shelf(1, 0.3, 5)
    result, _ = merged([scenes[0], stranger, *scenes[1:]], Noise())
    whole, apart = result.shelves
    assert [photo.path for photo in whole.photos] == ["0.jpg", "2.jpg", "3.jpg"]
    assert whole.counts == true_counts(scenes)
    entry = merge_json(result, "bundle", "ab12")["merged"]["unplaced"]
    assert entry == [
        {"photos": ["1.jpg"], "reason": apart.reason, "counts": dict(true_counts([stranger]))}
    ]
    assert apart.reason.startswith("its best match is '")
    assert "below the required 1.4" in apart.reason


def test_a_photo_that_shows_nothing_to_compare() -> None:
    scenes = shelf(2, 0.4, 6)
    found = scenes[0].truth[~scenes[0].truth.ignore]
    shown = {"a.jpg": scenes[0].image, "flat.jpg": np.full((600, 800, 3), 120, np.uint8)}
    photos = [counted(name, image, found) for name, image in shown.items()]
    result = merge_counted(
        photos, [extract_features(image, found) for image in shown.values()], THRESHOLD
    )
    assert [len(group.products) for group in result.shelves] == [len(found), len(found)]
    assert result.shelves[1].reason.startswith("too few image features were found")


# ---------------------------------------------------------------- files


class KnowsTheViews:
    """Detector that returns the ground truth of a photo, in place of a trained network."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.spec = ModelSpec("truth", "none", CLASSES, 576, 800, (), THRESHOLD)
        self.known = {
            scene.image.tobytes(): detected(scene, Noise(), np.random.default_rng(0))[0]
            for scene in scenes
        }

    def detect(self, image: np.ndarray) -> Detections:
        return self.known[image.tobytes()]


def test_from_files_to_json(tmp_path: Path) -> None:
    scenes = shelf(3, 0.3, 7)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, scene in zip(paths, scenes, strict=True):
        images.write_photo(path, scene.image)
    missing = tmp_path / "missing.jpg"
    failed: list[str] = []
    steps: list[tuple[int, int]] = []
    result = merge_photos(
        KnowsTheViews(scenes),
        [paths[0], missing, *paths[1:]],
        lambda d: failed.append(d.where),
        lambda *step: steps.append(step),
    )
    assert failed == [str(missing)]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]

    content = json.loads(json.dumps(merge_json(result, "truth", "ab12")))
    assert list(content) == ["bundle", "photos", "merged"]
    assert [photo["path"] for photo in content["photos"]] == [str(path) for path in paths]
    whole = content["merged"]
    assert list(whole) == ["counts", "detections", "rows", "placed", "unplaced"]
    assert whole["counts"] == dict(true_counts(scenes))
    assert len(whole["detections"]) == sum(whole["counts"].values()) == sum(map(len, whole["rows"]))
    for product in whole["detections"]:
        assert list(product) == ["class", "score", "box", "row", "position", "photo", "seen_in"]
        assert whole["rows"][product["row"]][product["position"]] == product["class"]
        # The same box is among the detections of the photo.
        (photo,) = [photo for photo in content["photos"] if photo["path"] == product["photo"]]
        assert [d["class"] for d in photo["detections"] if d["box"] == product["box"]] == [
            product["class"]
        ]
    assert [(len(p["homography"]), p["path"]) for p in whole["placed"]] == [
        (3, str(path)) for path in paths
    ]
    (lost,) = whole["unplaced"]
    assert (lost["photos"], lost["counts"]) == ([str(missing)], {})
    assert "No such file" in lost["reason"]


def test_one_photo_merges_to_itself() -> None:
    scenes = shelf(1, 0.3, 8)
    result, items = merged(scenes, Noise())
    (whole,) = result.shelves
    assert len(whole.products) == len(items[0])
    assert set(whole.seen_in.tolist()) == {1}
    np.testing.assert_array_equal(
        whole.placement.row, result.photos[0].placement.row[whole.best[:, 1]]
    )


def test_a_photo_given_twice_counts_once() -> None:
    (scene,) = shelf(1, 0.3, 8)
    result, _ = merged([scene, scene], Noise())
    (whole,) = result.shelves
    assert whole.counts == true_counts([scene])
    assert set(whole.seen_in.tolist()) == {2}


def test_photos_without_products() -> None:
    parts = [WALL[:, start : start + 600] for start in (0, SHIFT)]
    photos = [
        counted(name, part, Detections.empty())
        for name, part in zip(("left.jpg", "right.jpg"), parts, strict=True)
    ]
    (whole,) = merge_counted(
        photos, [extract_features(part, Detections.empty()) for part in parts], THRESHOLD
    ).shelves
    assert (whole.counts, whole.rows(), whole.to_json()) == ({}, [], [])
    picture, shown = panorama(whole)
    assert len(shown) == 0
    # A pixel of a photo of 600 x 400 is 1 / sqrt(0.24) = 2.041 units: 900 pixels are 1837 units.
    assert picture.shape[1] == pytest.approx(1837, abs=3)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ShelfcountError, match="no photo could be read, 2 photos given"):
        merge_photos(KnowsTheViews([]), [tmp_path / "a.jpg", tmp_path / "b.jpg"])


def test_too_many_photos_are_refused_before_any_is_read() -> None:
    with pytest.raises(
        ShelfcountError, match=f"at most {MAX_MERGED_PHOTOS} photos can be merged at once, got 41"
    ):
        merge_photos(KnowsTheViews([]), ["a.jpg"] * 41)


# ---------------------------------------------------------------- the picture


def test_the_panorama_shows_products_where_their_boxes_are() -> None:
    scenes = shelf(4, 0.3, 9)
    result, _ = merged(scenes, Noise())
    (whole,) = result.shelves
    picture, shown = panorama(whole)
    assert picture.dtype == np.uint8
    assert picture.shape[0] * picture.shape[1] <= MAX_PANORAMA_PIXELS * 1.01
    # The shelf is nearly as wide as 1 + 3 * 0.7 photos of 1155 units.
    assert picture.shape[1] > 2.3 * 1155
    likeness = []
    for (photo, detection), box in zip(whole.best, shown.boxes, strict=True):
        left, top, right, bottom = box.astype(int)
        source_box = result.photos[photo].detections.boxes[detection].astype(int)
        original = scenes[photo].image[source_box[1] : source_box[3], source_box[0] : source_box[2]]
        painted = cv2.resize(
            picture[top:bottom, left:right], original.shape[1::-1], interpolation=cv2.INTER_AREA
        )
        likeness.append(
            np.corrcoef(cv2.blur(painted, (3, 3)).ravel(), cv2.blur(original, (3, 3)).ravel())[0, 1]
        )
    assert np.median(likeness) > 0.9
