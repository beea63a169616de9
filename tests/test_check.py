"""Tests of the data check: faults of photos, boxes and classes, and no findings on good data."""

import base64
import copy
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import check_faults
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shelfcount.checks import appearance, box_checks
from shelfcount.checks.check import check_dataset
from shelfcount.checks.class_checks import FEW_BOXES, check_classes, same_but_misspelt
from shelfcount.checks.findings import KINDS, Finding, Report
from shelfcount.checks.photo_checks import MIN_TO_COMPARE, measure_photo, quality_findings
from shelfcount.data.formats import read_labels
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError
from shelfcount.report import check_page
from shelfcount.synthetic.generation import generate
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.vision import boxes as box_math
from shelfcount.vision.images import decode_photo, read_photo, write_photo

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 384, 288


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Sixteen good photos of 6 classes, without gaps, occlusion and blur."""
    params = ShelfParams(
        WIDTH,
        HEIGHT,
        rows=(3, 3),
        facings=(8, 10),
        gap=0,
        occlusion=0,
        back_row=0,
        yaw=5,
        tilt=2,
        light=0.3,
        blur=0,
    )
    return generate(
        tmp_path_factory.mktemp("checks") / "shelves", photos=16, classes=6, seed=2, params=params
    )


def found(dataset: Dataset, against: Dataset | None = None) -> dict[str, list[Finding]]:
    kinds: dict[str, list[Finding]] = {}
    for finding in check_dataset(dataset, against).findings:
        kinds.setdefault(finding.kind, []).append(finding)
    return kinds


def changed(dataset: Dataset, index: int, **changes: object) -> Dataset:
    photos = list(dataset.photos)
    photos[index] = dataclasses.replace(photos[index], **changes)
    return dataclasses.replace(dataset, photos=tuple(photos))


def repainted(
    dataset: Dataset, index: int, path: Path, paint: Callable[[np.ndarray], np.ndarray]
) -> Dataset:
    """Return the data set with one photo changed by `paint` and its labels unchanged."""
    write_photo(path, paint(read_photo(dataset.photos[index].path)))
    return changed(dataset, index, path=path)


def labelled(number: int, name: str = "cola") -> Dataset:
    """Return a data set with one class and a number of boxes; the photos do not exist."""
    return classes_of({name: number})


def classes_of(numbers: dict[str, int], photos: int = 2) -> Dataset:
    truth = Detections(
        np.tile([1, 2, 30, 40], (sum(numbers.values()), 1)),
        np.repeat(np.arange(len(numbers)), list(numbers.values())),
    )
    parts = np.array_split(np.arange(len(truth)), photos)
    return Dataset(
        tuple(numbers),
        tuple(Photo(Path(f"{i}.jpg"), 96, 96, truth[part]) for i, part in enumerate(parts)),
    )


def row(*lefts: float, top: float = 50, width: float = 20, height: float = 40) -> np.ndarray:
    return np.array([[left, top, left + width, top + height] for left in lefts], np.float32)


def test_good_photos_have_no_findings_but_few_examples(shelves: Dataset) -> None:
    assert set(found(shelves)) <= {"few-examples", "anchor-recall"}
    assert check_dataset(shelves).passed


# ---------------------------------------------------------------- entries dropped by the reader


@pytest.fixture
def damaged(tmp_path: Path) -> Report:
    """Report on COCO labels with one fault of each kind that `read` recognizes."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 100, 3), np.uint8)
    for name in ("good.png", "half.jpg", "small.jpg", "side.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "half.jpg").write_bytes((tmp_path / "half.jpg").read_bytes()[:900])
    exif = Image.Exif()
    exif[274] = 6  # The upright photo is rotated by 90 degrees clockwise.
    Image.fromarray(noise).save(tmp_path / "side.jpg", exif=exif)
    sizes = {
        "good.png": (100, 60),
        "half.jpg": (100, 60),
        "small.jpg": (200, 120),
        "side.jpg": (100, 60),
        "gone.jpg": (100, 60),
    }
    boxes = [
        (10, 10, 20, 30),
        (150, 10, 20, 30),
        (90, 10, 60, 30),
        (10, 10, 0, 30),
        (99.2, 10, 1, 30),
        (80, 10, 30, 30),
    ]
    labels = {
        "images": [
            {"id": i, "file_name": name, "width": w, "height": h}
            for i, (name, (w, h)) in enumerate(sizes.items())
        ],
        "annotations": [{"image_id": 0, "category_id": 1, "bbox": box} for box in boxes]
        + [{"image_id": 77, "category_id": 1}],
        "categories": [{"id": 1, "name": "cola"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    return check_dataset(read_labels(tmp_path / "labels.json"))


def test_what_reading_left_out_is_told_by_kind(damaged: Report) -> None:
    kinds = Counter((f.severity, f.kind) for f in damaged.findings)
    assert {
        key: kinds[key]
        for key in kinds
        if key[1].startswith("box") or key[1].endswith("photo") or key[1].startswith("un")
    } == {
        ("error", "missing-photo"): 1,
        ("error", "broken-photo"): 2,
        ("warning", "box-outside"): 2,
        ("warning", "box-without-size"): 2,
        ("note", "box-cut"): 1,
        ("warning", "unusable-label"): 1,
    }
    assert kinds["note", "orientation"] == 1
    assert not damaged.passed


def test_missing_and_broken_photos_are_named(damaged: Report) -> None:
    files = {f.kind: f.file for f in damaged.findings if f.kind == "missing-photo"}
    assert files["missing-photo"] == Path(damaged.dataset.name).parent / "gone.jpg"
    broken = {
        f.file.name: f.message for f in damaged.findings if f.kind == "broken-photo" and f.file
    }
    assert (
        "photo 'half.jpg' is cut short: its JPEG data has no end marker (900 bytes)"
        in broken["half.jpg"]
    )
    assert "has 100 x 60 pixels, but the labels state 200 x 120" in broken["small.jpg"]


def test_photo_that_breaks_after_reading_is_an_error(shelves: Dataset, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    (finding,) = found(changed(shelves, 3, path=tmp_path / "bad.jpg"))["broken-photo"]
    assert (finding.severity, finding.file) == ("error", tmp_path / "bad.jpg")
    assert f"cannot decode '{tmp_path / 'bad.jpg'}' (8 bytes)" in finding.message


def test_look_refuses_a_photo_of_another_size(shelves: Dataset) -> None:
    with pytest.raises(
        ShelfcountError,
        match=f"has {WIDTH} x {HEIGHT} pixels, but its labels were read for 200 x {HEIGHT}",
    ):
        measure_photo(dataclasses.replace(shelves.photos[0], width=200))


# ---------------------------------------------------------------- photos


def blurred(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 3)


def dark(image: np.ndarray) -> np.ndarray:
    return (image * 0.2).astype(np.uint8)


def glaring(image: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    return np.clip(
        image + 255 * np.exp(-((x / 0.6) ** 2) - (y / 0.6) ** 2)[..., None], 0, 255
    ).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "paint"), [("blurred", blurred), ("dark", dark), ("glare", glaring)]
)
def test_spoilt_photo_is_found_and_no_other(
    shelves: Dataset, tmp_path: Path, kind: str, paint: Callable
) -> None:
    (finding,) = found(repainted(shelves, 2, tmp_path / "spoilt.jpg", paint))[kind]
    assert finding.file == tmp_path / "spoilt.jpg"
    assert finding.degree > 1


def test_slight_blur_on_a_large_photo_is_none(shelves: Dataset, tmp_path: Path) -> None:
    """A blur of 1.5 pixels at four times the size is below a pixel at the measured size."""
    photo = shelves.photos[0]
    large = cv2.resize(read_photo(photo.path), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    write_photo(tmp_path / "large.jpg", cv2.GaussianBlur(large, (0, 0), 1.5))
    truth = photo.truth.replace(boxes=photo.truth.boxes * 4)
    assert (
        quality_findings(measure_photo(Photo(tmp_path / "large.jpg", 4 * WIDTH, 4 * HEIGHT, truth)))
        == []
    )


def test_products_of_few_pixels_are_told(shelves: Dataset, tmp_path: Path) -> None:
    photo = shelves.photos[0]
    write_photo(
        tmp_path / "small.jpg",
        cv2.resize(read_photo(photo.path), (WIDTH // 6, HEIGHT // 6), interpolation=cv2.INTER_AREA),
    )
    small = Photo(
        tmp_path / "small.jpg",
        WIDTH // 6,
        HEIGHT // 6,
        photo.truth.replace(boxes=photo.truth.boxes / 6),
    )
    side = float(np.median((small.truth.boxes[:, 2:] - small.truth.boxes[:, :2]).min(axis=1)))
    messages = [
        f.message for f in quality_findings(measure_photo(small)) if f.kind == "low-resolution"
    ]
    assert messages == [
        f"small.jpg: the median product has a shorter side of {side:.1f} pixels; the minimum is 12"
    ]


def test_photo_without_boxes_is_told(shelves: Dataset) -> None:
    (finding,) = found(changed(shelves, 1, truth=Detections.empty()))["no-boxes"]
    assert finding.file == shelves.photos[1].path


def test_photo_unlike_the_rest_is_told_once_there_is_a_rest(
    shelves: Dataset, tmp_path: Path
) -> None:
    odd = repainted(
        shelves,
        5,
        tmp_path / "odd.jpg",
        lambda image: np.random.default_rng(0).integers(0, 255, image.shape, np.uint8),
    )
    (finding,) = found(odd)["unlike-the-rest"]
    assert finding.file == tmp_path / "odd.jpg"
    assert "unlike-the-rest" not in found(odd.subset(range(MIN_TO_COMPARE - 1)))


def turned_clockwise(boxes: np.ndarray, quarters: int) -> np.ndarray:
    """Return boxes rotated clockwise as shares of the photo's width and height."""
    shares = boxes / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    for _ in range(quarters):
        shares = np.stack([1 - shares[:, 3], shares[:, 0], 1 - shares[:, 1], shares[:, 2]], axis=1)
    return shares * [WIDTH, HEIGHT, WIDTH, HEIGHT]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_labels_turned_against_the_photo_are_an_error(shelves: Dataset, quarters: int) -> None:
    truth = shelves.photos[4].truth
    wrong = changed(shelves, 4, truth=truth.replace(boxes=turned_clockwise(truth.boxes, quarters)))
    (finding,) = found(wrong)["orientation"]
    assert (finding.severity, finding.file) == ("error", shelves.photos[4].path)
    assert f"rotated by {90 * (4 - quarters)} degrees clockwise" in finding.message


def test_photo_lying_on_its_side_is_told(shelves: Dataset, tmp_path: Path) -> None:
    photo = shelves.photos[4]
    write_photo(tmp_path / "side.jpg", np.ascontiguousarray(np.rot90(read_photo(photo.path), -1)))
    left, top, right, bottom = photo.truth.boxes.T
    truth = photo.truth.replace(
        boxes=np.stack([HEIGHT - bottom, left, HEIGHT - top, right], axis=1)
    )
    side = changed(shelves, 4, path=tmp_path / "side.jpg", width=HEIGHT, height=WIDTH, truth=truth)
    (finding,) = found(side)["orientation"]
    assert "if the photo is rotated by 270 degrees clockwise" in finding.message


# ---------------------------------------------------------------- duplicates


def test_same_file_twice_and_labels_that_differ(shelves: Dataset, tmp_path: Path) -> None:
    photo = shelves.photos[0]
    (tmp_path / "again.jpg").write_bytes(photo.path.read_bytes())
    again = dataclasses.replace(photo, path=tmp_path / "again.jpg")
    (finding,) = found(dataclasses.replace(shelves, photos=(*shelves.photos, again)))["duplicate"]
    assert (finding.severity, finding.file, finding.others) == (
        "warning",
        photo.path,
        (again.path,),
    )
    other = dataclasses.replace(again, truth=again.truth[1:])
    (finding,) = found(dataclasses.replace(shelves, photos=(*shelves.photos, other)))["duplicate"]
    assert finding.severity == "error"
    assert (
        finding.message
        == f"{photo.path.name} is the same file as again.jpg, but their labels differ"
    )


def test_nearly_the_same_picture_is_a_note_within_and_a_leak_between(
    shelves: Dataset, tmp_path: Path
) -> None:
    first, second = shelves.subset(range(8)), shelves.subset(range(8, 16))
    write_photo(
        tmp_path / "near.jpg",
        np.clip(read_photo(first.photos[2].path) * 0.9 + 12, 0, 255).astype(np.uint8),
        60,
    )
    near = dataclasses.replace(first.photos[2], path=tmp_path / "near.jpg")
    (finding,) = found(dataclasses.replace(first, photos=(*first.photos, near)))["near-duplicate"]
    assert (finding.severity, finding.others) == ("note", (near.path,))
    leaky = dataclasses.replace(second, photos=(*second.photos, near), name="test.json")
    (finding,) = found(first, leaky)["leak"]
    assert (finding.severity, finding.file, finding.others) == (
        "error",
        first.photos[2].path,
        (near.path,),
    )
    assert finding.message.endswith(
        "is the same as, or a near-duplicate of, near.jpg in 'test.json'"
    )


def test_equal_group_names_in_two_data_sets_are_no_leak(shelves: Dataset) -> None:
    groups = [
        changed(part, 0, group="store 1")
        for part in (shelves.subset([0, 1]), shelves.subset([2, 3]))
    ]
    assert "leak" not in found(*groups)


# ---------------------------------------------------------------- boxes


def test_doubled_boxes_are_pairs_above_the_limit() -> None:
    """The IoU of boxes of width 20 is 18 / 22 at a distance of 2, and 14 / 26 at 6."""
    (pair,) = box_checks.find_duplicate_boxes(row(10, 12, 60, 66))
    assert pair == (0, 1, pytest.approx(18 / 22))


def test_doubled_box_of_two_classes_is_named(shelves: Dataset) -> None:
    truth = shelves.photos[0].truth
    again = Detections.concat([truth, truth[:1].replace(classes=(truth.classes[:1] + 1) % 6)])
    (finding,) = found(changed(shelves, 0, truth=again))["doubled-box"]
    assert finding.box == pytest.approx(truth.boxes[0])
    names = [shelves.classes[i] for i in (again.classes[0], again.classes[-1])]
    assert f"boxes of '{names[0]}' and '{names[1]}' overlap with an IoU of 1.00" in finding.message


def test_box_over_its_neighbours_is_oversized_and_a_large_bottle_is_not() -> None:
    boxes, classes = row(10, 32, 54, 76, 98), np.zeros(5, int)
    assert box_checks.oversized(boxes, classes) == []
    loose = boxes.copy()
    loose[2] = [44, 30, 84, 110]  # Twice as wide and high, and over both neighbours.
    ((index, times),) = box_checks.oversized(loose, classes)
    assert (index, times) == (2, pytest.approx(2))
    bottle = boxes.copy()
    bottle[4] = [98, 10, 138, 90]  # As large, but next to its neighbours.
    assert box_checks.oversized(bottle, classes) == []


def test_tilted_photo_is_told(shelves: Dataset, tmp_path: Path) -> None:
    photo = shelves.photos[0]
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), -14, 0.7)
    write_photo(
        tmp_path / "askew.jpg",
        cv2.warpAffine(
            read_photo(photo.path), turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE
        ),
    )
    left, top, right, bottom = photo.truth.boxes.T
    corners = np.stack(
        [
            np.stack([x, y, np.ones_like(x)], axis=1) @ turn.T
            for x in (left, right)
            for y in (top, bottom)
        ]
    )
    truth = photo.truth.replace(
        boxes=np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)
    )
    (finding,) = found(changed(shelves, 0, path=tmp_path / "askew.jpg", truth=truth))["tilted"]
    assert float(re.findall(r"slope by (-?[\d.]+) degrees", finding.message)[0]) == pytest.approx(
        14, abs=3
    )


@settings(deadline=None)
@given(st.integers(1, 4), st.floats(-0.2, 0.2), st.floats(0.5, 4))
def test_gap_is_where_the_box_was(missing: int, slope: float, scale: float) -> None:
    lefts = np.arange(6) * 21.0
    boxes = row(*lefts)
    boxes[:, [1, 3]] += (lefts * slope)[:, None].astype(np.float32)
    boxes = (boxes + np.array([5, 20, 5, 20])) * scale
    gaps = box_checks.find_label_gaps(
        np.delete(boxes, missing, axis=0), np.zeros((0, 4)), 1000, 1000
    )
    # Derived from both sides, or from one side if the row ends on the other.
    assert 1 <= len(gaps) <= 2
    assert min(box_math.iou(gap.box[None], boxes[missing][None])[0, 0] for gap in gaps) > 0.75


def test_no_gap_at_the_ends_in_full_rows_or_where_products_are_ignored() -> None:
    none = np.zeros((0, 4))
    assert box_checks.find_label_gaps(row(10, 31, 52, 73), none, 500, 500) == []
    assert box_checks.find_label_gaps(none, none, 500, 500) == []
    holey = row(10, 31, 73, 94)
    assert len(box_checks.find_label_gaps(holey, none, 500, 500)) == 2
    assert box_checks.find_label_gaps(holey, row(52), 500, 500) == []


def test_gap_with_a_product_is_missing_a_box_and_a_bare_one_is_not(shelves: Dataset) -> None:
    """Each box inside a full row is left out once.

    Most of the gaps are found at the place of the box. None is found if the board is painted over
    the product.
    """
    hits, tried, wrong = 0, 0, 0
    for photo in shelves.photos[:6]:
        lab = cv2.cvtColor(read_photo(photo.path), cv2.COLOR_RGB2LAB)
        boxes = photo.truth.boxes[~photo.truth.ignore]
        for i, box in enumerate(boxes):
            others = np.delete(boxes, i, axis=0)
            gaps = [
                g
                for g in box_checks.find_label_gaps(others, np.zeros((0, 4)), WIDTH, HEIGHT)
                if box_math.iou(g.box[None], box[None])[0, 0] > 0.5
            ]
            if not gaps:
                continue
            tried += 1
            hits += any(
                box_math.iou(m.box[None], box[None])[0, 0] > 0.5
                for m in appearance.likely_missing(lab, others, gaps)
            )
            bare = lab.copy()
            left, top, right, bottom = box.astype(int)
            bare[max(top - 2, 0) : bottom + 3, max(left - 4, 0) : right + 5] = (150, 128, 128)
            wrong += len(appearance.likely_missing(bare, others, gaps))
    assert tried > 20
    assert hits / tried > 0.9
    assert wrong == 0


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("minrinda-sodakem", "mirinda-sodakem"),
        ("reveive-chanhmuoi-chai", "revive-chanhmuoi-chai"),
        ("Coca Cola", "coca_cola"),
        ("cocacola", "Coca-Cola"),
        ("café crème", "cafe creme"),
        ("sparkling-lemonade", "sparklnig-lemonade"),  # Two swapped letters count as one edit.
        ("strawberyshake", "strawberry-shakes"),
    ],
)
def test_one_name_spelt_in_two_ways(a: str, b: str) -> None:
    assert same_but_misspelt(a, b)
    assert same_but_misspelt(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("twister-cam", "twister-cam2"),
        ("mirinda-cam", "mirinda-me"),
        ("string-red", "string-red-chai"),
        ("cola-330ml", "cola-500ml"),
        ("tea", "ten"),
        ("0", "00"),
    ],
)
def test_variants_of_a_product_are_two_names(a: str, b: str) -> None:
    assert not same_but_misspelt(a, b)


def test_rare_slip_is_an_error_and_a_common_one_a_warning() -> None:
    (rare,) = check_classes(classes_of({"mirinda": 200, "minrinda": 4}))
    assert (rare.severity, rare.kind) == ("error", "misspelt-class")
    assert (
        rare.message
        == "class 'minrinda' (4 boxes) looks like a misspelling of 'mirinda' (200 boxes)"
    )
    assert (rare.file, rare.box) == (Path("1.jpg"), (1, 2, 30, 40))
    (common,) = check_classes(classes_of({"mirinda": 200, "minrinda": 90}))
    assert common.severity == "warning"


@pytest.mark.parametrize("name", ["0", "00", "?!", "undefined", "Test 3", "new_class"])
def test_names_of_no_product_are_junk(name: str) -> None:
    kinds = [f.kind for f in check_classes(classes_of({"cola": 60, "tea": 60, name: 1}))]
    assert kinds == ["junk-class"]


@pytest.mark.parametrize(
    "numbers",
    [{"4006381333931": 50, "4006381333948": 50}, {"object": 500}, {"box-tea": 50, "new-cola": 50}],
)
def test_article_numbers_an_only_class_and_words_within_names_are_no_junk(
    numbers: dict[str, int],
) -> None:
    assert check_classes(classes_of(numbers)) == []


def test_number_with_many_boxes_may_be_a_beer() -> None:
    (finding,) = check_classes(classes_of({"cola": 60, "tea": 60, "333": 60}))
    assert (finding.kind, finding.severity) == ("junk-class", "warning")


def test_few_examples_say_how_few() -> None:
    messages = [
        f.message
        for f in check_classes(
            classes_of({"cola": FEW_BOXES, "tea": FEW_BOXES - 1, "milk": 1, "mate": 0}, photos=8)
        )
    ]
    assert messages == [
        "class 'tea' (39 boxes) has fewer than the minimum of 40 boxes",
        "class 'milk' (1 box) is on one photo only, so it cannot be used for both training and "
        "testing",
        "class 'mate' has no box",
    ]


def test_imbalance_is_told_against_the_median_class() -> None:
    (finding,) = check_classes(classes_of({"cola": 600, "tea": 50, "milk": 60}))
    assert (finding.severity, finding.kind) == ("note", "imbalance")
    assert finding.message == (
        "class 'cola' (600 boxes) has 10 times as many boxes as the median class; the limit is "
        "10 times"
    )


def test_boxes_of_all_shapes_lack_anchors() -> None:
    rng = np.random.default_rng(0)
    sides = 10 ** rng.uniform(0.7, 2.4, (300, 2))
    boxes = np.concatenate([np.zeros((300, 2)), sides], axis=1)
    dataset = Dataset(
        ("cola",), (Photo(Path("gone.jpg"), 416, 416, Detections(boxes, np.zeros(300))),)
    )
    (finding,) = found(dataset)["anchor-recall"]
    assert finding.severity == "error"
    assert re.search(
        r"anchors match \d\d% of the boxes in shape, below the limit of 90%", finding.message
    )
    assert re.search(r"--set model.anchors_per_place=3, which matches \d\d%", finding.fix)
    assert "anchor-recall" not in found(labelled(10))


# ---------------------------------------------------------------- report and page


def test_report_is_ordered_worst_first_and_counts() -> None:
    report = Report(
        labelled(2),
        (
            Finding("note", "box-cut", "d", ""),
            Finding("warning", "blurred", "c", "", degree=1.2),
            Finding("warning", "blurred", "b", "", degree=3),
            Finding("error", "leak", "a", ""),
        ),
    )
    assert "".join(f.message for f in report.findings) == "abcd"
    assert report.counts() == {"error": 1, "warning": 2, "note": 1}
    assert not report.passed
    assert Report(report.dataset, report.findings[1:]).passed


def test_report_as_json_names_files_by_the_folder_they_share(tmp_path: Path) -> None:
    finding = Finding(
        "error",
        "leak",
        "m",
        "f",
        tmp_path / "a" / "1.jpg",
        (10, 20, 40, 60),
        (tmp_path / "b" / "2.jpg",),
        1.23456,
    )
    data = json.loads(json.dumps(Report(labelled(2), (finding,), "some/test.json").to_json()))
    assert data == {
        "data": "",
        "against": "test.json",
        "photos": 2,
        "boxes": 2,
        "classes": 1,
        "passed": False,
        "counts": {"error": 1, "warning": 0, "note": 0},
        "kinds": {"leak": {"title": KINDS["leak"].title, "why": KINDS["leak"].why}},
        "findings": [
            {
                "severity": "error",
                "kind": "leak",
                "file": "a/1.jpg",
                "box": [10, 20, 30, 40],
                "others": ["b/2.jpg"],
                "message": "m",
                "fix": "f",
                "degree": 1.235,
            }
        ],
    }


def test_finding_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown severity 'error' or kind 'blury'"):
        Finding("error", "blury", "", "")


def test_progress_counts_photos_and_no_photos_is_no_error(shelves: Dataset) -> None:
    steps: list[tuple[int, int]] = []
    check_dataset(shelves.subset([0, 1]), progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]
    assert check_dataset(Dataset((), ())).findings == ()


class Page(HTMLParser):
    """Text of an HTML page, and the addresses that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.sources, self.images, self.open = "", [], 0, []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_shows_each_finding_with_its_picture_and_fetches_nothing(
    shelves: Dataset, tmp_path: Path
) -> None:
    first, second = shelves.photos[:2]
    findings = (
        Finding(
            "error", "leak", "the same <b>photo</b>", "Keep one.", first.path, others=(second.path,)
        ),
        Finding(
            "warning",
            "doubled-box",
            "two boxes on one",
            "Remove one.",
            first.path,
            tuple(first.truth.boxes[0].tolist()),
        ),
        Finding(
            "error", "missing-photo", "gone.jpg is missing", "Put it there.", tmp_path / "gone.jpg"
        ),
    )
    check_page.write_check_page(
        Report(dataclasses.replace(shelves, name="a/shop.json"), findings, "test.json"),
        tmp_path / "page.html",
    )
    page = Page((tmp_path / "page.html").read_text())
    assert page.open == []
    assert page.images == 3
    for text in (
        "shop.json",
        "compared with test.json",
        "2 errors",
        "1 warning,",
        "the same <b>photo</b>",
        "gone.jpg is missing",
        "Keep one.",
    ):
        assert text in page.text
    assert "Fix the errors before training." in page.text
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in page.sources)
    anchors = [source for source in page.sources if source.startswith("#")]
    assert anchors == ["#missing-photo", "#leak", "#doubled-box"]


def test_page_marks_the_box_and_shows_its_surroundings(tmp_path: Path) -> None:
    image = np.full((300, 400, 3), 200, np.uint8)
    write_photo(tmp_path / "a.png", image)
    truth = Detections([[20, 20, 60, 80], [300, 200, 340, 260]], [0, 0])
    dataset = Dataset(("cola",), (Photo(tmp_path / "a.png", 400, 300, truth),))
    finding = Finding(
        "warning", "oversized-box", "m", "f", tmp_path / "a.png", (300, 200, 340, 260)
    )
    check_page.write_check_page(Report(dataset, (finding,)), tmp_path / "page.html")
    (source,) = re.findall(
        r'src="data:image/jpeg;base64,([^"]+)"', (tmp_path / "page.html").read_text()
    )
    picture = decode_photo(base64.b64decode(source), "page")
    # The crop is 3 times the box height of 60 pixels around its centre, cut at the border: 170 x
    # 160 pixels, shown as 520 x 489.
    assert picture.shape == (489, 520, 3)
    left = round((300 - 230) * 520 / 170)
    assert np.abs(picture[245, left].astype(int) - (213, 40, 20)).max() < 40
    assert np.abs(picture[20, 20].astype(int) - 200).max() < 10


def test_page_counts_what_it_does_not_show(tmp_path: Path) -> None:
    findings = tuple(
        Finding("note", "box-cut", f"box {i}", "")
        for i in range(check_page.MAX_FINDINGS_PER_KIND + 7)
    )
    check_page.write_check_page(Report(labelled(1), findings), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "7 more findings of this kind: see the JSON report (--json)." in page
    assert "The data set can be used for training. Review the findings below first." in page


# ---------------------------------------------------------------- real photos, and the benchmark


@pytest.mark.slow
def test_drinks_as_found_have_the_faults_their_readme_names(drinks: Path) -> None:
    kinds = found(read_labels(drinks / "raw.json"))
    assert {re.findall("'(.+?)'", f.message)[0] for f in kinds["misspelt-class"]} == {
        "minrinda-sodakem",
        "reveive-chanhmuoi-chai",
    }
    assert {re.findall("'(.+?)'", f.message)[0] for f in kinds["junk-class"]} == {"0", "00"}
    assert [f.message for f in kinds["few-examples"] if "(1 box)" in f.message] == [
        "class 'revive-chanhmuoi' (1 box) is on one photo only, so it cannot be used for both "
        "training and testing"
    ]
    assert all(
        f.severity == "error" for kind in ("misspelt-class", "junk-class") for f in kinds[kind]
    )
    assert len(kinds["near-duplicate"]) == 3  # The number in tests/test_splits.py.
    assert len(kinds["doubled-box"]) == 2  # By inspection, each pair is on one product.


@pytest.mark.slow
def test_drinks_splits_are_fit_to_train_on_and_share_no_photo(drinks: Path) -> None:
    report = check_dataset(read_labels(drinks / "train.json"), read_labels(drinks / "test.json"))
    assert report.passed
    assert Counter(
        f.kind
        for f in report.findings
        if f.kind in ("doubled-box", "leak", "oversized-box", "blurred", "orientation")
    ) == {"doubled-box": 1}


def test_benchmark_has_a_fault_of_every_kind() -> None:
    # Malformed entries are tested with the parsers.
    assert check_faults.FAULTS.keys() == KINDS.keys() - {"unusable-label"}
    result = json.loads(check_faults.RESULT.read_text())
    assert all(
        figures["kinds"].keys() == check_faults.FAULTS.keys() for figures in result["sets"].values()
    )


def test_benchmark_holds_missing_boxes_against_corrections(monkeypatch: pytest.MonkeyPatch) -> None:
    def photo(*boxes: list[float], untold: list[float] | None = None) -> Dataset:
        every = [*boxes, *([untold] if untold else [])]
        truth = Detections(every, [0] * len(every), ignore=[box is untold for box in every])
        return Dataset(("cola",), (Photo(Path("a.jpg"), 400, 100, truth),))

    kept, added, dark = [0, 0, 20, 40], [30, 0, 50, 40], [90, 0, 140, 40]
    places = ((31, 1, 51, 41), (100, 0, 120, 40), (300, 0, 320, 40))
    findings = tuple(
        Finding("warning", "missing-box", "m", "f", Path("a.jpg"), place) for place in places
    )
    monkeypatch.setattr(check_faults, "check_dataset", lambda data: Report(data, findings))
    counts = check_faults.missing_indeed(
        photo(kept), photo(kept, added, [60, 0, 80, 40], untold=dark)
    )
    assert counts == {"right": 1, "untold": 1, "wrong": 1, "added": 2, "found": 1}


@pytest.mark.slow
def test_benchmark_finds_what_it_plants(
    shelves: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("missing-photo", "duplicate", "dark", "junk-class", "box-cut", "doubled-box")
    monkeypatch.setattr(check_faults, "FAULTS", {kind: check_faults.FAULTS[kind] for kind in few})
    results = check_faults.measure(copy.copy(shelves), tmp_path, each=3, seed=0)
    assert {
        kind: (r["planted"], r["recall"], r["precision"]) for kind, r in results.items()
    } == dict.fromkeys(few, (3, 1.0, 1.0))
