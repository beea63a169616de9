"""Tests of the metrics: against faster-coco-eval, numbers computed by hand, and properties."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfcount.metrics import uncertainty
from shelfcount.metrics.evaluate import detect_dataset, evaluate_detector
from shelfcount.metrics.matching import match
from shelfcount.metrics.scoring import CountError, DetectionCounts, score
from shelfcount.metrics.threshold import (
    _at,
    _count_influence,
    _curve,
    _f1_influence,
    _matched,
    choose_threshold,
    threshold_curve,
)
from shelfcount.records import AnchorLevel, Dataset, Detections, ModelSpec, Photo, ShelfcountError
from shelfcount.vision.images import write_photo

NAMES = ("cola", "water", "juice")
QUICK = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def dataset(*truths: Detections, names: tuple[str, ...] = NAMES) -> Dataset:
    return Dataset(
        names,
        tuple(Photo(Path(f"{i}.jpg"), 300, 300, truth) for i, truth in enumerate(truths)),
        name="test.json",
    )


def shelf(rng: np.random.Generator, n: int, ignored: float = 0.0) -> Detections:
    """Draw n products of 20 to 60 pixels that may overlap."""
    corner, size = rng.uniform(0, 200, (n, 2)), rng.uniform(20, 60, (n, 2))
    return Detections(
        np.hstack([corner, corner + size]),
        rng.integers(0, len(NAMES), n),
        ignore=rng.random(n) < ignored,
    )


def sighting(rng: np.random.Generator, truth: Detections, each: int = 2) -> Detections:
    """Draw `each` shifted copies of every box with distinct scores, a tenth with a random class."""
    boxes = np.repeat(truth.boxes, each, axis=0)
    boxes = boxes + rng.normal(0, 5, boxes.shape)
    boxes = np.concatenate(
        [np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1
    )
    classes = np.where(
        rng.random(len(boxes)) < 0.1,
        rng.integers(0, len(NAMES), len(boxes)),
        np.repeat(truth.classes, each),
    )
    return Detections(boxes, classes, (rng.permutation(len(boxes)) + 1) / (len(boxes) + 1))


def random_photos(
    seed: int, photos: int = 3, ignored: float = 0.2
) -> tuple[Dataset, list[Detections]]:
    rng = np.random.default_rng(seed)
    truths = [shelf(rng, int(rng.integers(0, 25)), ignored) for _ in range(photos)]
    return dataset(*truths), [sighting(rng, truth) for truth in truths]


# By hand: boxes of 100 x 100. Shifted by 20 along x, they overlap in 80 x 100: IoU 8000 / 12000 =
# 0.667. Shifted by 40: 6000 / 14000 = 0.429.
def at(
    *lefts: float,
    classes: list[int] | None = None,
    scores: list[float] | None = None,
    ignore: list[bool] | None = None,
) -> Detections:
    boxes = [[left, 0, left + 100, 100] for left in lefts]
    return Detections(boxes, [0] * len(lefts) if classes is None else classes, scores, ignore)


def test_best_score_is_matched_to_the_box_it_overlaps_most():
    matches = match(at(0, 20), at(5, 12, scores=[0.6, 0.9]))
    # 12 is 8 from the second and 12 from the first; only the first is left for 5.
    assert matches.partner.tolist() == [0, 1]
    assert not matches.missed.any()


def test_a_product_is_matched_once():
    matches = match(at(0), at(0, 5, scores=[0.6, 0.9]))
    assert matches.partner.tolist() == [-1, 0]
    assert not matches.absorbed.any()


@pytest.mark.parametrize(("shift", "hit"), [(20, True), (40, False)])
def test_overlap_of_half_is_needed(shift, hit):
    assert match(at(0), at(shift)).hit.tolist() == [hit]


def test_overlap_of_exactly_min_iou_counts():
    # 100 x 100 and its left half: IoU 5000 / 10000.
    assert match(at(0), Detections([[0, 0, 50, 100]], [0])).hit.all()


def test_wrong_class_matches_only_without_class():
    truth, found = at(0, classes=[0]), at(0, classes=[1])
    assert not match(truth, found).hit.any()
    assert match(truth, found, by_class=False).hit.all()


def test_ignored_truth_absorbs_any_number_of_its_class():
    truth = at(0, 200, ignore=[True, False])
    # The small box is inside the ignored one, although their IoU is 0.04: COCO's overlap for
    # crowds.
    found = Detections(
        [*at(0, 10, 200, 0).boxes, [0, 0, 20, 20]], [0, 0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.5]
    )
    matches = match(truth, found)
    assert matches.absorbed.tolist() == [True, True, False, False, True]
    assert matches.partner.tolist() == [-1, -1, 1, -1, -1]
    assert not matches.missed.any()


def test_a_real_product_comes_before_an_ignored_one():
    matches = match(at(0, 20, ignore=[True, False]), at(0))
    assert matches.partner.tolist() == [1]
    assert not matches.absorbed.any()


@pytest.mark.parametrize("min_iou", [0.0, 1.01, float("nan")])
def test_min_iou_is_checked(min_iou):
    with pytest.raises(ValueError, match=rf"min_iou must be in \(0, 1\], got {min_iou}"):
        match(at(0), at(0), min_iou)


def coco_pairs(truth: Detections, found: Detections) -> set[tuple[int, int]]:
    """Return the pairs (detection, truth) of faster-coco-eval at IoU 0.5, with ignored boxes."""
    from faster_coco_eval import COCO, COCOeval_faster

    frame = {
        "images": [{"id": 0, "width": 300, "height": 300}],
        "categories": [{"id": c, "name": name} for c, name in enumerate(NAMES)],
    }

    def coco(boxes: Detections) -> COCO:
        rows = []
        for i in range(len(boxes)):
            left, top, right, bottom = boxes.boxes[i].tolist()
            box = [left, top, right - left, bottom - top]
            row = {
                "id": i + 1,
                "image_id": 0,
                "category_id": int(boxes.classes[i]),
                "bbox": box,
                "area": box[2] * box[3],
            }
            rows.append({**row, "score": float(boxes.scores[i]), "iscrowd": int(boxes.ignore[i])})
        return COCO({**frame, "annotations": rows})

    judge = COCOeval_faster(coco(truth), coco(found), iouType="bbox", extra_calc=True)
    judge.params.iouThrs = np.array([0.5])
    judge.params.areaRng, judge.params.areaRngLbl = (
        judge.params.areaRng[:1],
        judge.params.areaRngLbl[:1],
    )
    judge.evaluate()
    judge.accumulate()
    return {tuple(int(part) - 1 for part in pair.split("_")) for pair in judge.eval["matched"]}


@pytest.mark.parametrize("seed", range(10))
def test_pairs_are_those_of_faster_coco_eval(seed):
    rng = np.random.default_rng(seed)
    truth = shelf(rng, 40, ignored=0.2)
    found = sighting(rng, truth)
    matches = match(truth, found)
    theirs = coco_pairs(truth, found)
    assert {(i, int(matches.partner[i])) for i in np.flatnonzero(matches.hit)} == {
        (i, j) for i, j in theirs if not truth.ignore[j]
    }
    assert set(np.flatnonzero(matches.absorbed)) == {i for i, j in theirs if truth.ignore[j]}


def own_ap50(data: Dataset, found: list[Detections]) -> float:
    """Return the mean over classes of the precision envelope at COCO's 101 recalls."""
    pairs = [match(photo.truth, boxes) for photo, boxes in zip(data.photos, found, strict=True)]
    precisions = []
    for c in range(len(data.classes)):
        truth = sum(int(((p.truth.classes == c) & ~p.truth.ignore).sum()) for p in data.photos)
        counted = [
            (boxes.classes == c) & ~m.absorbed for m, boxes in zip(pairs, found, strict=True)
        ]
        scores = np.concatenate(
            [boxes.scores[which] for boxes, which in zip(found, counted, strict=True)]
        )
        hits = np.concatenate([m.hit[which] for m, which in zip(pairs, counted, strict=True)])[
            np.argsort(-scores, kind="stable")
        ]
        tp = np.cumsum(hits)
        envelope = np.maximum.accumulate((tp / np.arange(1, len(tp) + 1))[::-1])[::-1]
        place = np.searchsorted(tp / truth, np.linspace(0, 1, 101), side="left")
        precisions.append(np.append(envelope, 0.0)[place].mean())
    return float(np.mean(precisions))


@pytest.mark.parametrize("seed", range(3))
def test_map50_is_that_of_our_own_pairs(seed):
    rng = np.random.default_rng(seed)
    data = dataset(*(shelf(rng, 40, ignored=0.1) for _ in range(5)))
    found = [sighting(rng, photo.truth) for photo in data.photos]
    # Scores are distinct within a photo and between photos, so that the order of photos has no
    # effect.
    found = [boxes.replace(scores=boxes.scores * 0.9 + 0.001 * i) for i, boxes in enumerate(found)]
    result = score(data, found, 0.5)
    assert result.map50 == pytest.approx(own_ap50(data, found), abs=1e-9)
    assert 0 < result.map < result.map50 < 1


def test_map_sees_300_detections_of_a_class():
    # 250 products of one class: with COCO's default of 100, recall would end at 0.4.
    columns, rows = np.meshgrid(np.arange(25) * 10.0, np.arange(10) * 10.0)
    corner = np.stack([columns.ravel(), rows.ravel()], axis=1)
    truth = Detections(np.hstack([corner, corner + 9]), np.zeros(250))
    result = score(dataset(truth), [truth], 0.5)
    assert (result.map, result.map50) == (1.0, 1.0)


def test_a_false_box_of_any_size_lowers_map():
    # COCO leaves out boxes of more than 1e10 pixels. Precision is 1/2 at every recall.
    found = Detections([[0, 0, 2e5, 2e5], [0, 0, 100, 100]], [0, 0], [0.9, 0.8])
    assert score(dataset(at(0)), [found], 0.5).map50 == pytest.approx(0.5)


def test_map_does_not_depend_on_the_threshold():
    data, found = random_photos(3)
    assert score(data, found, 0.9).map == score(data, found, 0.0).map


@QUICK
@given(seeds)
def test_truth_given_as_prediction_scores_exactly_one(seed):
    rng = np.random.default_rng(seed)
    data = dataset(
        shelf(rng, 12, ignored=0.3), Detections.empty(), at(0), shelf(rng, 3, ignored=1.0)
    )
    result = score(data, [photo.truth for photo in data.photos], 1.0)
    for total in (
        result.micro,
        result.class_agnostic,
        *(row.score for row in result.photos),
        *(row.score for row in result.per_class),
    ):
        assert (total.precision, total.recall, total.f1) == (1.0, 1.0, 1.0)
    assert (result.macro_f1, result.map, result.map50) == (1.0, 1.0, 1.0)
    assert result.count_by_class == result.count_total == CountError(0.0, 0.0, 0.0)
    assert result.count_bias == 0
    assert np.trace(result.confusion) == result.confusion.sum() == result.micro.truth


def test_no_detections_give_zero():
    result = score(dataset(at(0)), [Detections.empty()], 0.5)
    assert (result.micro, result.map, result.map50, result.count_total.relative) == (
        DetectionCounts(1, 0, 0),
        0.0,
        0.0,
        1.0,
    )


def test_no_products_and_no_detections_give_one():
    result = score(dataset(Detections.empty(), Detections.empty()), [Detections.empty()] * 2, 0.5)
    assert result.micro == DetectionCounts(0, 0, 0)
    assert (result.micro.f1, result.macro_f1, result.count_total.relative) == (1.0, 1.0, 0.0)
    assert result.map is None


@pytest.mark.parametrize(
    ("counts", "rates"),
    [
        (DetectionCounts(0, 0, 0), (1.0, 1.0, 1.0)),
        (DetectionCounts(3, 0, 0), (0.0, 0.0, 0.0)),
        (DetectionCounts(0, 3, 0), (0.0, 0.0, 0.0)),
        (DetectionCounts(4, 2, 1), (0.5, 0.25, 1 / 3)),  # 2 x 1 / (4 + 2)
    ],
)
def test_division_by_zero(counts, rates):
    assert (counts.precision, counts.recall, counts.f1) == rates


def test_numbers_computed_by_hand():
    # Photo 0: two colas and a water; a cola is detected, the water is detected as juice, and there
    # is a false cola. Photo 1: one missed water; the detection at 0.2 is below the threshold.
    data = dataset(at(0, 200, 400, classes=[0, 0, 1]), at(0, classes=[1]))
    found = [
        at(0, 400, 800, classes=[0, 2, 0], scores=[0.9, 0.8, 0.7]),
        at(0, classes=[1], scores=[0.2]),
    ]
    result = score(data, found, 0.5)
    assert result.micro == DetectionCounts(truth=4, predicted=3, tp=1)
    assert result.class_agnostic == DetectionCounts(truth=4, predicted=3, tp=2)
    assert [row.score for row in result.per_class] == [
        DetectionCounts(2, 2, 1),
        DetectionCounts(2, 0, 0),
        DetectionCounts(0, 1, 0),
    ]
    assert result.macro_f1 == pytest.approx((0.5 + 0.0) / 2)  # juice has no labels
    assert [row.score for row in result.photos] == [
        DetectionCounts(3, 3, 1),
        DetectionCounts(1, 0, 0),
    ]
    assert [(row.count_mae, row.count_bias) for row in result.per_class] == [
        (0.0, 0.0),
        (1.0, -1.0),
        (0.5, 0.5),
    ]
    # Count error by class: 2 on photo 0 (a water too few, a juice too many), 1 on photo 1. Error of
    # the total count: 0 and 1.
    assert result.count_by_class == CountError(1.5, pytest.approx(np.sqrt(2.5)), 0.75)
    assert result.count_total == CountError(0.5, pytest.approx(np.sqrt(0.5)), 0.25)
    assert result.count_bias == -0.5
    # Rows cola, water, juice, background; columns cola, water, juice, missed.
    assert result.confusion.tolist() == [[1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_relative_count_error_of_no_product_is_undefined():
    assert score(dataset(Detections.empty()), [at(0)], 0.5).count_total == CountError(
        1.0, 1.0, None
    )


def test_json_is_plain_and_complete():
    data, found = random_photos(0)
    plain = json.loads(json.dumps(score(data, found, 0.5).to_json(), allow_nan=False))
    assert plain["photos"] == len(plain["per_photo"]) == 3
    assert plain["boxes"] == sum(row["truth"] for row in plain["per_class"])
    assert [row["name"] for row in plain["per_class"]] == list(NAMES)
    assert plain["per_photo"][0]["path"] == "0.jpg"
    assert np.shape(plain["confusion"]["matrix"]) == (4, 4)


@QUICK
@given(seeds, st.floats(0, 1))
def test_metrics_are_between_0_and_1(seed, threshold):
    data, found = random_photos(seed)
    result = score(data, found, threshold, average_precision=False)
    for total in (
        result.micro,
        result.class_agnostic,
        *(row.score for row in result.photos),
        *(row.score for row in result.per_class),
    ):
        assert total.tp <= min(total.truth, total.predicted)
        assert 0 <= total.precision <= 1
        assert 0 <= total.recall <= 1
        assert 0 <= total.f1 <= 1
    assert 0 <= result.macro_f1 <= 1
    assert result.confusion[:-1].sum() == result.micro.truth


@QUICK
@given(seeds)
def test_order_of_detections_and_photos_changes_nothing(seed):
    data, found = random_photos(seed)
    # Few distinct scores, as from an int8 model.
    found = [boxes.replace(scores=np.round(boxes.scores, 1)) for boxes in found]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data))
    shuffled = [found[i][rng.permutation(len(found[i]))] for i in order]
    before = score(data, found, 0.3, average_precision=False).to_json()
    after = score(data.subset(order), shuffled, 0.3, average_precision=False).to_json()
    by_path = {"key": lambda row: row["path"]}
    assert sorted(before.pop("per_photo"), **by_path) == sorted(after.pop("per_photo"), **by_path)
    assert before == after
    assert choose_threshold(data, found)[0] == choose_threshold(data.subset(order), shuffled)[0]


@QUICK
@given(seeds)
def test_removing_a_hit_never_raises_recall(seed):
    data, found = random_photos(seed, photos=1)
    hits = np.flatnonzero(match(data.photos[0].truth, found[0]).hit)
    before = score(data, found, 0.0, average_precision=False).micro.recall
    for i in hits:
        rest = found[0][np.arange(len(found[0])) != i]
        assert score(data, [rest], 0.0, average_precision=False).micro.recall <= before


def test_threshold_is_the_middle_of_its_plateau():
    # Two products at 0.9 and 0.6, background at 0.2: every threshold above 0.2 and up to 0.6 is
    # best.
    data, found = dataset(at(0, 200)), [at(0, 200, 400, scores=[0.9, 0.6, 0.2])]
    for by in ("f1", "count"):
        assert choose_threshold(data, found, by)[0] == pytest.approx(0.4)
    curve = choose_threshold(data, found)[1]
    assert curve.thresholds.tolist() == pytest.approx([0.2, 0.6, 0.9, 1.0])
    assert curve.f1.tolist() == pytest.approx([0.8, 1.0, 2 / 3, 0.0])
    assert curve.precision.tolist() == pytest.approx([2 / 3, 1.0, 1.0, 0.0])
    assert curve.recall.tolist() == [1.0, 1.0, 0.5, 0.0]
    assert curve.count_error.tolist() == [1, 0, 1, 2]


@pytest.mark.parametrize(("floor", "middle"), [(0.0, 0.3), (0.2, 0.4), (0.6, 0.6)])
def test_no_plateau_reaches_below_the_floor(floor, middle):
    assert choose_threshold(dataset(at(0)), [at(0, scores=[0.6])], floor=floor)[0] == pytest.approx(
        middle
    )


def test_the_widest_of_several_plateaus_is_taken():
    # F1 is 2/3 above 0.5 (one of two detected) and up to 0.1 (both, with two false positives), and
    # lower between.
    threshold, curve = choose_threshold(
        dataset(at(0, 200)), [at(0, 400, 600, 200, scores=[0.9, 0.5, 0.45, 0.1])]
    )
    assert curve.f1.tolist() == pytest.approx([2 / 3, 0.4, 0.5, 2 / 3, 0.0])
    assert threshold == pytest.approx(0.7)


def test_neighbouring_float32_scores_are_told_apart():
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    data, found = dataset(at(0)), [at(0, 200, scores=[high, low])]
    assert score(data, found, choose_threshold(data, found)[0]).micro.f1 == 1.0


@pytest.mark.parametrize("truth", [at(0), Detections.empty()])
def test_threshold_without_detections(truth):
    assert choose_threshold(dataset(truth), [Detections.empty()])[0] == 0.5


@QUICK
@given(seeds)
def test_one_matching_serves_every_threshold(seed):
    data, found = random_photos(seed)
    threshold, curve = choose_threshold(data, found)
    for i in range(0, len(curve.thresholds), 3):
        result = score(data, found, curve.thresholds[i], average_precision=False)
        assert result.micro.f1 == pytest.approx(curve.f1[i])
        assert result.count_by_class.mae * len(data) == pytest.approx(curve.count_error[i])
    assert threshold_curve(data, found).best_f1 == (
        curve.thresholds[curve.f1.argmax()],
        curve.f1.max(),
    )
    chosen = score(data, found, threshold, average_precision=False).micro.f1
    assert chosen == pytest.approx(curve.f1[np.searchsorted(curve.thresholds, threshold)])


def test_thresholds_without_significant_difference_are_one_plateau():
    # Eight photos on which any threshold up to 0.8 is best, one with a product at 0.3, and one with
    # two false positives at 0.3.
    truth, found = [at(0)] * 8 + [at(0, 200), at(0)], [at(0, scores=[0.8])] * 8
    found += [at(0, 200, scores=[0.8, 0.3]), at(0, 400, 600, scores=[0.8, 0.3, 0.3])]
    threshold, curve = choose_threshold(dataset(*truth), found)
    # One photo gains by a low threshold, another loses: F1 is lower below 0.3, but not
    # significantly.
    assert curve.f1.tolist() == pytest.approx([22 / 24, 20 / 21, 0.0])
    assert threshold == pytest.approx(0.4)
    # If every photo has the false positives, the difference is significant.
    assert choose_threshold(dataset(*[at(0)] * 10), [found[-1]] * 10)[0] == pytest.approx(0.55)


@pytest.mark.parametrize("by", ["f1", "count"])
def test_standard_error_is_that_of_resampled_photos(by):
    data, found = random_photos(5, photos=40)
    photos = [
        _matched(p.truth, f, len(data.classes)) for p, f in zip(data.photos, found, strict=True)
    ]
    curve = _curve(photos)
    value = curve.f1 if by == "f1" else -curve.count_error
    top = int(value.argmax())
    influence = _f1_influence if by == "f1" else _count_influence
    ours = uncertainty.difference_standard_error(influence(photos, curve), top)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(400):
        drawn = [photos[i] for i in rng.integers(0, 40, 40)]
        parts = [_at(curve.thresholds, photo) for photo in drawn]
        n, hits, steps = (sum(part[i] for part in parts) for i in range(3))
        whole = sum(photo.truth for photo in drawn)
        redrawn = 2 * hits / (whole + n) if by == "f1" else -(whole + steps)
        draws.append(redrawn - redrawn[top])
    # 400 draws estimate a standard deviation to about 4 %; the linear estimate adds its own error.
    bootstrap = np.std(draws, axis=0)
    large = bootstrap > 0.5 * bootstrap.max()
    np.testing.assert_allclose(ours[large], bootstrap[large], rtol=0.25)


class Fixed:
    """A detector that returns the same detections for every photo."""

    def __init__(
        self, answer: Detections, classes: tuple[str, ...] = NAMES, threshold: float = 0.05
    ) -> None:
        self.spec = ModelSpec(
            "fixed",
            "none",
            classes,
            32,
            32,
            (AnchorLevel(8, ((8.0, 8.0),)),),
            score_threshold=threshold,
        )
        self.answer = answer

    def detect(self, image: np.ndarray) -> Detections:
        return self.answer


@pytest.fixture
def on_disk(tmp_path):
    data = dataset(at(0, 200, classes=[0, 1]), at(0, classes=[0]))
    photos = tuple(replace(photo, path=tmp_path / photo.path) for photo in data.photos)
    for photo in photos:
        write_photo(photo.path, np.zeros((photo.height, photo.width, 3), np.uint8))
    return replace(data, photos=photos)


def test_evaluate_runs_over_all_photos_and_reports_progress(on_disk):
    steps = []
    answer = at(0, 200, classes=[0, 1], scores=[0.9, 0.3])
    result = evaluate_detector(
        Fixed(answer),
        on_disk,
        threshold=0.5,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert result.micro == DetectionCounts(truth=3, predicted=2, tp=2)
    # All products are detected; the only false positive (water, photo 1) has the score of the true
    # one.
    assert result.map50 > 0.5
    assert steps == [(1, 2), (2, 2)]


def test_evaluate_leaves_map_out_if_the_detector_threshold_is_high(on_disk):
    result = evaluate_detector(Fixed(at(0), threshold=0.4), on_disk)
    assert (result.threshold, result.map) == (0.4, None)
    with pytest.raises(
        ShelfcountError,
        match=r"threshold 0\.2 is below the detector's own, 0\.4, .* at least 0\.4\.",
    ):
        evaluate_detector(Fixed(at(0), threshold=0.4), on_disk, threshold=0.2)


def test_classes_of_the_model_are_matched_by_name(on_disk):
    found = detect_dataset(
        Fixed(at(0, 200, classes=[2, 1]), classes=("juice", "water", "cola")), on_disk
    )
    assert found[0].classes.tolist() == [0, 1]


def test_other_classes_are_refused(on_disk):
    with pytest.raises(
        ShelfcountError, match=r"only the model has \['beer'\], only the data \['juice'\]"
    ):
        detect_dataset(Fixed(at(0), classes=("cola", "water", "beer")), on_disk)


def test_a_photo_of_another_size_is_refused(on_disk):
    write_photo(on_disk.photos[1].path, np.zeros((200, 100, 3), np.uint8))
    with pytest.raises(
        ShelfcountError,
        match=r"1\.jpg' has 100 x 200 pixels, but its labels were made for 300 x 300\.",
    ):
        detect_dataset(Fixed(at(0)), on_disk)


@pytest.mark.parametrize(
    ("data", "found", "message"),
    [
        (dataset(), [], r"test\.json must contain at least one photo for an evaluation, got 0"),
        (
            dataset(at(0), at(0)),
            [at(0)],
            r"got detections for 1 photo, but test\.json has 2\. .* one entry per photo",
        ),
        (
            dataset(at(0)),
            [at(0, classes=[3])],
            r"detection on '0\.jpg' has the class index 3\. Indices must be from 0 to 2\.",
        ),
        (
            dataset(Detections([[5, 5, 5, 9]], [0])),
            [at(0)],
            r"box 0 of '0\.jpg' has no area: .* = \[5\.0, 5\.0, 5\.0, 9\.0\]\.",
        ),
    ],
)
def test_input_that_cannot_be_scored_is_refused(data, found, message):
    with pytest.raises(ShelfcountError, match=message):
        score(data, found, 0.5)
    with pytest.raises(ShelfcountError, match=message):
        choose_threshold(data, found)


def test_parameters_are_checked():
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got 1\.5"):
        score(dataset(at(0)), [at(0)], 1.5)
    with pytest.raises(ValueError, match="by must be 'f1' or 'count', got 'map'"):
        choose_threshold(dataset(at(0)), [at(0)], "map")
    with pytest.raises(ValueError, match=r"floor must be in \[0, 1\], got -1"):
        choose_threshold(dataset(at(0)), [at(0)], floor=-1)


def test_metrics_need_no_torch():
    code = (
        "import sys, shelfcount.metrics.scoring; "
        "sys.exit('torch' in sys.modules or 'faster_coco_eval' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
