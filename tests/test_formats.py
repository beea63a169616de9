"""Tests of the label formats, and of the known kinds of broken label files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shelfcount.data.coco import write_coco
from shelfcount.data.datasets import describe_dropped, fingerprint
from shelfcount.data.formats import read_class_names, read_labels
from shelfcount.data.stated_labels import _turned
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError
from shelfcount.vision.images import read_photo

WIDTH, HEIGHT = 80, 40


def photo(
    path: Path, width: int = WIDTH, height: int = HEIGHT, orientation: int = 1, seed: int = 0
) -> Path:
    """Write a photo of noise; width and height are those of the stored picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def coco(folder: Path, **changes: object) -> Path:
    """Write COCO labels with photo a.jpg, class cola and one box; `changes` replace keys."""
    if not (folder / "a.jpg").exists():
        photo(folder / "a.jpg")
    data = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": [box()],
        "categories": [{"id": 5, "name": "cola"}],
        **changes,
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(data))
    return path


def box(bbox: object = (10, 5, 20, 30), **changes: object) -> dict:
    return {"id": 1, "image_id": 1, "category_id": 5, "bbox": bbox, **changes}


def boxes(dataset: Dataset, index: int = 0) -> list[list[float]]:
    return dataset.photos[index].truth.boxes.tolist()


def only_reason(dataset: Dataset) -> str:
    (entry,) = dataset.dropped
    return str(entry)


# --- COCO


def test_coco_gives_boxes_classes_group_and_licence(tmp_path):
    path = coco(
        tmp_path,
        images=[{"id": 1, "file_name": "a.jpg", "store": 17}],
        annotations=[box(), box([0, 0, 5, 5], iscrowd=1)],
        licenses=[{"id": 1, "name": "CC BY 4.0"}],
        info={"source": "A. Person"},
    )
    dataset = read_labels(path)
    assert dataset.classes == ("cola",)
    assert boxes(dataset) == [[10, 5, 30, 35], [0, 0, 5, 5]]
    assert dataset.photos[0].truth.ignore.tolist() == [False, True]
    assert (dataset.photos[0].width, dataset.photos[0].height, dataset.photos[0].group) == (
        WIDTH,
        HEIGHT,
        "17",
    )
    assert (dataset.licence, dataset.attribution, dataset.dropped) == ("CC BY 4.0", "A. Person", ())


@pytest.mark.parametrize(
    "place", ["images/b.jpg", "../images/b.jpg", "../JPEGImages/b.jpg", "b.jpg"]
)
def test_photo_is_found_where_the_tools_put_it(tmp_path, place):
    folder = tmp_path / "annotations"
    photo(folder / place)
    path = coco(folder, images=[{"id": 1, "file_name": "b.jpg"}])
    assert read_labels(path).photos[0].path.samefile(folder / place)


def test_images_folder_that_the_user_names_takes_the_file_name_alone(tmp_path):
    photo(tmp_path / "elsewhere" / "b.jpg")
    path = coco(tmp_path / "labels", images=[{"id": 1, "file_name": "C:\\upload\\b.jpg"}])
    assert (
        read_labels(path, images=tmp_path / "elsewhere").photos[0].path
        == tmp_path / "elsewhere" / "b.jpg"
    )


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (
            box([100, 5, 20, 30]),
            r"annotations\[1\]: the box \(100, 5, 120, 35\) is outside the photo of 80 x 40",
        ),
        (box([-500, -500, 1000, 1000]), r"the box \(-500, -500, 500, 500\) is mostly outside"),
        (box([1e308, 0, 1e308, 5]), r"the box \(1e\+308, 0, inf, 5\) contains .* not finite"),
        (box([0, 0, 1e300, 1e300]), "is mostly outside"),
        (box([10, 5, 0, 30]), r"the box \(10, 5, 10, 35\) has a width or height of 0 or less"),
        (box([10, 5, -3, 30]), r"the box \(10, 5, 7, 35\) has a width or height of 0 or less"),
        (box([10, 5, 0.5, 30]), "less than a pixel wide or high"),
        (box([math.nan, 5, 20, 30]), r"the box \(nan, 5, nan, 35\) contains .* not finite"),
        (box([math.inf, 5, 20, 30]), r"the box \(inf, .* contains .* not finite"),
        (box(["10", "5", "20", "30"]), r"bbox\.0: .*valid number, got '10'"),
        (box({"x": 1}), "bbox: .*valid list"),
        (box([1, 2, 3]), r"\[x, y, width, height\], got 3 numbers"),
        (box([10**400, 0, 1, 1]), r"bbox\.0"),
        (box(category_id=99), "class '99' is not among the 1 known class$"),
        (box(category_id=None), "category_id"),
        (box(image_id=77), "no image has the id 77"),
        (box(image_id=[1]), "image_id"),
        (["not", "an", "object"], r"annotations\[1\]: entry: "),
        (box(None), "neither a bbox nor a polygon; its segmentation is None"),
        (box(None, segmentation={"counts": "abc", "size": [40, 80]}), "segmentation is RLE"),
        (box([], segmentation=[[1, 2], "x"]), "neither a bbox"),
    ],
)
def test_broken_coco_box_is_dropped_with_its_reason(tmp_path, annotation, reason):
    path = coco(tmp_path, annotations=[box(), annotation])
    dataset = read_labels(path)
    assert boxes(dataset) == [[10, 5, 30, 35]]
    with pytest.raises(ShelfcountError, match=reason):
        raise ShelfcountError(only_reason(dataset))


def test_box_over_the_border_is_cut_and_listed(tmp_path):
    dataset = read_labels(coco(tmp_path, annotations=[box([-2, 5, 20, 30])]))
    assert boxes(dataset) == [[0, 5, 18, 35]]
    assert only_reason(dataset) == (
        "labels.json, annotations[0]: the box (-2, 5, 18, 35) exceeds the border of the photo of "
        "80 x 40 and was cut there"
    )


def test_overhang_of_rounding_is_no_news(tmp_path):
    dataset = read_labels(coco(tmp_path, annotations=[box([60, 5, 20.4, 30])]))
    assert boxes(dataset) == [[60, 5, 80, 35]]
    assert not dataset.dropped


def test_box_comes_from_the_polygon_where_there_is_none(tmp_path):
    dataset = read_labels(
        coco(
            tmp_path,
            annotations=[box([], segmentation=[[10, 6, 30, 5, 20, 35], [12, 7, 14, 8, 13, 9]])],
        )
    )
    assert boxes(dataset) == [[10, 5, 30, 35]]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "../../secret.jpg", "..\\..\\secret.jpg"]
)
def test_name_that_leads_out_of_the_folder_is_refused(tmp_path, monkeypatch, name):
    photo(tmp_path / "secret.jpg")
    folder = tmp_path / "a" / "b"
    path = coco(
        folder,
        images=[{"id": 1, "file_name": name}, {"id": 2, "file_name": "a.jpg"}],
        annotations=[box(), box(image_id=2)],
    )
    monkeypatch.chdir(folder)  # Such checks often fail for relative folders such as '.'.
    for spelled in (path, Path("labels.json")):
        dataset = read_labels(spelled)
        assert [p.path.name for p in dataset.photos] == ["a.jpg"]
        assert "is outside of" in only_reason(dataset)
        assert "Its 1 box is left out" in only_reason(dataset)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([{"id": 2, "file_name": "gone.jpg"}], r"images\[1\]: photo 'gone.jpg' is missing"),
        ([{"id": 2, "file_name": "cut.jpg"}], "photo 'cut.jpg' is cut short"),
        ([{"id": 2, "file_name": "cut.png"}], "photo 'cut.png' cannot be read"),
        ([{"id": 2, "file_name": "text.jpg"}], "photo 'text.jpg' cannot be read"),
        (
            [{"id": 2, "file_name": "a.jpg"}],
            r"photo 'a.jpg' is listed twice, first in labels.json, images\[0\]",
        ),
        (
            [{"id": 2, "file_name": "b.jpg", "width": 800, "height": 400}],
            "has 80 x 40 pixels, but the labels state 800 x 400",
        ),
        ([{"id": 1, "file_name": "a.jpg"}], "'a.jpg' is listed twice with the id 1"),
        ([{"id": 2, "file_name": ["b.jpg"]}], r"file_name: .*valid string, got \['b.jpg'\]"),
        ([{"id": 2, "file_name": "x" * 5000 + ".jpg"}], "is missing"),
        ([{"id": 2, "file_name": "two.jpg"}], "exists twice, as .*two.jpg' and '.*two.jpg'"),
    ],
)
def test_broken_photo_is_dropped_and_the_others_stay(tmp_path, images, reason):
    photo(tmp_path / "a.jpg")
    whole = photo(tmp_path / "b.jpg", seed=1).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[:-200])
    (tmp_path / "cut.png").write_bytes(photo(tmp_path / "b.png").read_bytes()[:-2000])
    (tmp_path / "text.jpg").write_text("this is no photo")
    photo(tmp_path / "two.jpg")
    photo(tmp_path / "images" / "two.jpg")
    path = coco(tmp_path, images=[{"id": 1, "file_name": "a.jpg"}, *images])
    dataset = read_labels(path)
    assert [p.path.name for p in dataset.photos] == ["a.jpg"]
    with pytest.raises(ShelfcountError, match=reason):
        raise ShelfcountError(only_reason(dataset))


def test_two_photos_with_one_id_are_both_left_out(tmp_path):
    photo(tmp_path / "b.jpg")
    photo(tmp_path / "c.jpg")
    images = [
        {"id": 1, "file_name": "a.jpg"},
        {"id": 1, "file_name": "b.jpg"},
        {"id": 2, "file_name": "c.jpg"},
    ]
    dataset = read_labels(coco(tmp_path, images=images))
    assert [p.path.name for p in dataset.photos] == ["c.jpg"]
    reason = only_reason(dataset)
    assert "several photos have the image id 1: a.jpg, b.jpg. Its 1 box is left out" in reason


def test_categories_of_one_name_are_one_class_and_roboflows_parent_is_none(tmp_path):
    categories = [
        {"id": 0, "name": "drinks", "supercategory": "none"},
        {"id": 5, "name": "cola", "supercategory": "drinks"},
        {"id": 6, "name": "cola", "supercategory": "drinks"},
    ]
    dataset = read_labels(
        coco(tmp_path, categories=categories, annotations=[box(), box(category_id=6)])
    )
    assert dataset.classes == ("cola",)
    assert dataset.photos[0].truth.classes.tolist() == [0, 0]
    assert [d.where for d in dataset.dropped] == [
        "labels.json, categories[0]",
        "labels.json, categories[2]",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{not json", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "is not COCO .*, got list"),
        ('{"images": {}, "annotations": [], "categories": []}', "is not COCO"),
        (
            '{"images": [], "categories": []}',
            r"is not COCO .*got the keys \['categories', 'images'\]",
        ),
        (
            '{"images": [], "annotations": [], "categories": []}',
            "no photo of .* can be used: it lists no photo",
        ),
        (
            '{"images": [], "annotations": [], '
            '"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "category id 1 has two names, 'a' and 'b'",
        ),
    ],
)
def test_meaningless_coco_is_an_error(tmp_path, text, reason):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(ShelfcountError, match=reason):
        read_labels(tmp_path / "labels.json")


def test_error_names_the_first_reason_when_no_photo_is_left(tmp_path):
    path = coco(tmp_path, images=[{"id": 1, "file_name": "gone.jpg"}])
    with pytest.raises(ShelfcountError, match=r"first of 1 reason: .*'gone.jpg' is missing"):
        read_labels(path)


# --- EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_photo_as_it_is_read(tmp_path, orientation):
    photo(tmp_path / "a.jpg", orientation=orientation)
    height, width = read_photo(tmp_path / "a.jpg").shape[:2]
    entry = read_labels(
        coco(tmp_path, images=[{"id": 1, "file_name": "a.jpg"}], annotations=[])
    ).photos[0]
    assert (entry.width, entry.height) == (width, height)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_size_of_other_formats_agrees_with_reading_too(tmp_path, suffix):
    photo(tmp_path / f"b{suffix}", orientation=6)
    height, width = read_photo(tmp_path / f"b{suffix}").shape[:2]
    entry = read_labels(
        coco(tmp_path, images=[{"id": 1, "file_name": f"b{suffix}"}], annotations=[])
    ).photos[0]
    assert (entry.width, entry.height) == (width, height)


def test_boxes_in_the_upright_frame_stay(tmp_path):
    photo(tmp_path / "a.jpg", orientation=6)
    path = coco(
        tmp_path, images=[{"id": 1, "file_name": "a.jpg", "width": HEIGHT, "height": WIDTH}]
    )
    dataset = read_labels(path)
    assert boxes(dataset) == [[10, 5, 30, 35]]
    assert not dataset.dropped


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_stated_before_rotation_are_turned_with_the_picture(tmp_path, orientation):
    """The box is at the white patch before and after OpenCV rotates the picture."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[5:35, 10:30] = 255
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=100)
    dataset = read_labels(coco(tmp_path))
    y, x = np.nonzero(read_photo(tmp_path / "a.jpg")[..., 0] > 128)
    assert boxes(dataset) == [[x.min(), y.min(), x.max() + 1, y.max() + 1]]
    assert "1 photo with a stated size before the EXIF rotation" in only_reason(dataset)


@given(st.sampled_from([(5, 5), (6, 8), (7, 7), (8, 6)]), st.tuples(*[st.integers(0, 40)] * 4))
def test_turning_there_and_back_changes_nothing(orientations, corners):
    there, back = orientations
    start = np.array([corners], float)
    assert np.array_equal(_turned(_turned(start, there, 80, 40), back, 40, 80), start)


# --- writing and fingerprint


def test_written_and_read_again_is_equal(tmp_path):
    photo(tmp_path / "images" / "a.jpg", seed=1)
    photo(tmp_path / "images" / "b.jpg", seed=2)
    truth = Detections(
        [[0.1, 0.2, 33.3, 39.9], [1 / 3, 2 / 3, 10 / 3, 40]], [1, 0], ignore=[False, True]
    )
    original = Dataset(
        ("fanta", "cola", "unused"),
        (
            Photo(tmp_path / "images" / "a.jpg", WIDTH, HEIGHT, truth, "store 1"),
            Photo(tmp_path / "images" / "b.jpg", WIDTH, HEIGHT, Detections.empty(), "store 2"),
        ),
        licence="CC0-1.0",
        attribution="B. Person",
    )
    for place in ("data.json", "splits/data.json", "images/data.json"):
        write_coco(original, tmp_path / place)
        again = read_labels(tmp_path / place)
        assert (again.classes, again.licence, again.attribution, again.dropped) == (
            original.classes,
            "CC0-1.0",
            "B. Person",
            (),
        )
        assert [(p.path, p.width, p.height, p.group) for p in again.photos] == [
            (p.path, p.width, p.height, p.group) for p in original.photos
        ]
        for old, new in zip(original.photos, again.photos, strict=True):
            for column in ("boxes", "classes", "ignore"):
                assert np.array_equal(getattr(old.truth, column), getattr(new.truth, column))
        assert str(tmp_path) not in (tmp_path / place).read_text().replace(
            json.dumps(again.name), ""
        )
        assert fingerprint(again) == fingerprint(original)


def test_photos_elsewhere_are_written_with_their_full_path(tmp_path):
    photo(tmp_path / "far" / "a.jpg")
    dataset = Dataset(
        ("cola",),
        (Photo(tmp_path / "far" / "a.jpg", WIDTH, HEIGHT, Detections([[1, 2, 3, 4]], [0])),),
    )
    write_coco(dataset, tmp_path / "x" / "y" / "data.json")
    with pytest.raises(ShelfcountError, match="is outside of"):
        read_labels(tmp_path / "x" / "y" / "data.json")
    assert boxes(read_labels(tmp_path / "x" / "y" / "data.json", images=tmp_path / "far")) == [
        [1, 2, 3, 4]
    ]


def test_fingerprint_sees_what_matters_and_nothing_else(tmp_path):
    photo(tmp_path / "a.jpg", seed=1)
    photo(tmp_path / "b.jpg", seed=2)
    photo(tmp_path / "moved" / "z.jpg", seed=1)

    def dataset(
        classes=("cola", "fanta"), first="a.jpg", box=(1, 2, 30, 40), class_=0, ignore=False
    ):
        truth = Detections([box, [0, 0, 9, 9]], [class_, 1], ignore=[ignore, False])
        return Dataset(
            classes,
            (
                Photo(tmp_path / first, WIDTH, HEIGHT, truth),
                Photo(tmp_path / "b.jpg", WIDTH, HEIGHT, Detections.empty()),
            ),
        )

    base = fingerprint(dataset())
    assert len(base) == 64
    assert fingerprint(dataset().subset([1, 0])) == base
    assert fingerprint(dataset(first="moved/z.jpg")) == base
    changed = [
        dataset(box=(1, 2, 30, 39.5)),
        dataset(class_=1),
        dataset(ignore=True),
        dataset(classes=("cola", "pepsi")),
        dataset(classes=("cola", "fanta", "more")),
        dataset(first="b.jpg"),
        dataset().subset([0]),
    ]
    assert len({base, *map(fingerprint, changed)}) == 1 + len(changed)
    with pytest.raises(ShelfcountError, match=r"cannot read photo .*gone.jpg"):
        fingerprint(dataset(first="gone.jpg"))


# --- YOLO

LINE = "0 0.25 0.5 0.25 0.75"  # of 80 x 40: centre (20, 20), 20 x 30
BOX = [10.0, 5.0, 30.0, 35.0]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def roboflow(folder: Path) -> Path:
    for i, split in enumerate(("train", "valid", "test")):
        photo(folder / split / "images" / f"{split}_jpg.rf.0a1b.jpg", seed=i)
        write(folder / split / "labels" / f"{split}_jpg.rf.0a1b.txt", LINE)
    text = (
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\n"
        "names: ['cola', 'fanta']\n"
        "roboflow:\n  license: CC BY 4.0\n  url: https://example.org/d\n"
    )
    return write(folder / "data.yaml", text)


def test_roboflow_split_is_chosen_behind_a_hash(tmp_path):
    path = roboflow(tmp_path)
    for spelled in (f"{path}#val", f"{tmp_path}#val", tmp_path / "valid"):
        dataset = read_labels(spelled)
        assert [(p.path.name, p.group) for p in dataset.photos] == [
            ("valid_jpg.rf.0a1b.jpg", "valid_jpg")
        ]
        assert (dataset.classes, boxes(dataset), dataset.dropped) == (("cola", "fanta"), [BOX], ())
    assert (read_labels(f"{path}#val").licence, read_labels(f"{path}#val").attribution) == (
        "CC BY 4.0",
        "https://example.org/d",
    )


def test_several_splits_must_be_told_apart(tmp_path):
    path = roboflow(tmp_path)
    with pytest.raises(
        ShelfcountError,
        match=(
            r"has several splits. Its splits are train, val, test. "
            r"Select one as in 'data.yaml#train'"
        ),
    ):
        read_labels(path)
    with pytest.raises(ShelfcountError, match=r"no split 'dev'\. Its splits are train, val, test"):
        read_labels(f"{path}#dev")


def test_ultralytics_and_cvat_layouts(tmp_path):
    photo(tmp_path / "images" / "train" / "a.jpg")
    write(tmp_path / "labels" / "train" / "a.txt", LINE)
    write(tmp_path / "train.txt", "./images/train/a.jpg\nimages/train/gone.jpg\n")
    write(
        tmp_path / "data.yaml",
        "path: ./\ntrain: images/train\nval: train.txt\nnames:\n  0: cola\n  7: fanta\n",
    )
    for split in ("train", "val"):
        dataset = read_labels(f"{tmp_path}#{split}")
        assert (dataset.classes, boxes(dataset)) == (("cola", "fanta"), [BOX])
    assert "train.txt, row 2: photo 'images/train/gone.jpg' is missing" in only_reason(dataset)


def test_cvat_darknet_layout(tmp_path):
    photo(tmp_path / "obj_train_data" / "a.jpg")
    write(tmp_path / "obj_train_data" / "a.txt", LINE)
    write(tmp_path / "obj.names", "cola\n")
    write(tmp_path / "train.txt", "data/obj_train_data/a.jpg\n")
    write(
        tmp_path / "obj.data",
        "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
    )
    dataset = read_labels(tmp_path)
    assert (dataset.classes, boxes(dataset), dataset.dropped) == (("cola",), [BOX], ())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "cola\nfanta\n"),
        ("notes.json", '{"categories": [{"id": 0, "name": "cola"}, {"id": 1, "name": "fanta"}]}'),
    ],
)
def test_label_studio_layout(tmp_path, name, text):
    photo(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", LINE)
    write(tmp_path / name, text)
    dataset = read_labels(tmp_path)
    assert (dataset.classes, boxes(dataset), dataset.dropped) == (("cola", "fanta"), [BOX], ())


def test_makesense_zip_has_no_photos(tmp_path):
    photo(tmp_path / "photos" / "a.jpg")
    write(tmp_path / "zip" / "a.txt", LINE)
    write(tmp_path / "zip" / "labels.txt", "cola\n")
    dataset = read_labels(tmp_path / "zip", images=tmp_path / "photos")
    assert (boxes(dataset), dataset.dropped) == ([BOX], ())
    with pytest.raises(
        ShelfcountError, match=r"no photos in \. of '.*zip'. .* give it as `images`"
    ):
        read_labels(tmp_path / "zip")


def test_ratios_are_of_the_upright_photo(tmp_path):
    photo(tmp_path / "a.jpg", orientation=6)
    write(tmp_path / "a.txt", "0 0.5 0.5 0.5 0.5")
    write(tmp_path / "classes.txt", "cola")
    assert boxes(read_labels(tmp_path)) == [[10, 20, 30, 60]]  # 40 x 80 once upright


def test_polygon_gives_its_bounding_box(tmp_path):
    photo(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "0 0.125 0.5 0.375 0.125 0.25 0.875")
    write(tmp_path / "classes.txt", "cola")
    assert boxes(read_labels(tmp_path)) == [BOX]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.1", "a.txt, row 2: the line must have 5 columns .*, got 4 columns"),
        ("0 0.5 0.5 0.1 0.1 0.9", "got 6"),
        ("cola 0.5 0.5 0.1 0.1", "class number, got 'cola'"),
        ("-1 0.5 0.5 0.1 0.1", "class number, got '-1'"),
        ("0 0.5 half 0.1 0.1", "could not convert string to float: 'half'"),
        ("0 nan 0.5 0.1 0.1", "not finite"),
        ("0 0.1 0.2 nan 0.4 0.3 0.1", "not finite"),
        ("0 200 150 20 30", "is outside the photo of 80 x 40"),
        ("17 0.5 0.5 0.1 0.5", "row 2: class '17' is not among the 1 known class$"),
        ("0 1e308 1e308 1e308 1e308", "finite|outside"),
    ],
)
def test_broken_yolo_line_is_dropped(tmp_path, line, reason):
    photo(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", f"{LINE}\n{line}\n\n")
    write(tmp_path / "classes.txt", "cola")
    dataset = read_labels(tmp_path)
    assert boxes(dataset) == [BOX]
    with pytest.raises(ShelfcountError, match=reason):
        raise ShelfcountError(only_reason(dataset))


def test_yolo_files_without_partner_are_listed(tmp_path):
    for name in ("a.jpg", "empty.jpg", "unlabelled.jpg", "twice.jpg", "twice.png", "binary.jpg"):
        photo(tmp_path / "images" / name)
    for name in ("a.txt", "twice.txt", "orphan.txt"):
        write(tmp_path / "labels" / name, LINE)
    write(tmp_path / "labels" / "empty.txt", "")
    (tmp_path / "labels" / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    write(tmp_path / "classes.txt", "cola")
    dataset = read_labels(tmp_path)
    assert [(p.path.name, len(p.truth)) for p in dataset.photos] == [("a.jpg", 1), ("empty.jpg", 0)]
    reasons = sorted(map(str, dataset.dropped))
    assert len(reasons) == 4
    assert reasons[0].startswith(
        "images/unlabelled.jpg: the photo has no label file 'unlabelled.txt'"
    )
    assert reasons[1].startswith("labels/binary.txt: ")
    assert reasons[2] == "labels/orphan.txt: the labels do not belong to any photo"
    assert reasons[3].startswith(
        "labels/twice.txt: the labels are ambiguous: 'images/twice.jpg' and 'images/twice.png'"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: [cola\n", "is not valid YAML"),
        ("- cola\n", r"must contain keys such as names and train, got \['cola'\]"),
        ("names: [yes, {a: 1}]\ntrain: .\n", "must contain a name for every class number"),
        ("names: [cola]\ntrain: ../../etc\n", "'../../etc' .* does not exist inside"),
        ("names: [cola]\ntrain: /etc\n", "'/etc' .* does not exist inside"),
    ],
)
def test_broken_data_yaml_is_an_error(tmp_path, text, reason):
    photo(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", LINE)
    with pytest.raises(ShelfcountError, match=reason):
        read_labels(write(tmp_path / "data.yaml", text))


# --- numbered classes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "number,name\n0,cola\n17,fanta\n"),
        ("t.csv", "\ufeff0;cola\n17;fanta\n"),
        ("t.json", '{"0": "cola", "17": "fanta"}'),
    ],
)
def test_lookup_table_forms(tmp_path, name, text):
    assert read_class_names(write(tmp_path / name, text)) == {"0": "cola", "17": "fanta"}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "t.csv",
            "0,cola\n1,fanta,x\n",
            r"entry 2 must be a class number and a name, got \['1', 'fanta', 'x'\]",
        ),
        (
            "t.csv",
            "0,cola\n0,fanta\n",
            "entry 2: class 0 has two names, 'cola' and 'fanta'",
        ),
        ("t.json", '{"0": ["cola"]}', r"entry 1 must be a class number and a name, got \['0'"),
        ("t.json", '"cola"', "t.json' contains no table"),
        ("t.csv", "", "t.csv' contains no table"),
    ],
)
def test_broken_lookup_table_is_an_error(tmp_path, name, text, reason):
    with pytest.raises(ShelfcountError, match=reason):
        read_class_names(write(tmp_path / name, text))


def test_numbers_become_names_and_unknown_numbers_are_listed(tmp_path):
    categories = [
        {"id": 1, "name": "0"},
        {"id": 2, "name": "17"},
        {"id": 3, "name": "sprite"},
        {"id": 4, "name": "00"},
    ]
    path = coco(
        tmp_path, categories=categories, annotations=[box(category_id=i) for i in (1, 2, 3, 4)]
    )
    table = write(tmp_path / "table.csv", "0,cola\n17,fanta\n")
    for class_names in (table, {"0": "cola", "17": "fanta"}):
        dataset = read_labels(path, class_names=class_names)
        assert dataset.classes == ("cola", "fanta", "sprite")
        assert dataset.photos[0].truth.classes.tolist() == [0, 1, 2]
        assert "annotations[3]: class '00' is not among the 3 known classes" in only_reason(dataset)


def test_table_names_yolo_classes_where_no_file_does(tmp_path):
    photo(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", f"{LINE}\n3 0.5 0.5 0.5 0.5")
    with pytest.raises(ShelfcountError, match=r"class numbers in .* have no names"):
        read_labels(tmp_path)
    dataset = read_labels(tmp_path, class_names={"3": "fanta", "0": "cola", "9": "sprite"})
    assert dataset.classes == ("fanta", "cola", "sprite")
    assert dataset.photos[0].truth.classes.tolist() == [1, 0]


# --- Pascal VOC


def voc_object(name: str = "cola", corners: tuple = (10, 5, 30, 35), difficult: int = 0) -> str:
    edges = "".join(
        f"<{edge}>{value}</{edge}>"
        for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{edges}</bndbox></object>"
    )


def voc(path: Path, filename: str, *objects: str, head: str = "") -> Path:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return write(
        path,
        f"{head}<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>",
    )


def test_voc_folders(tmp_path):
    photo(tmp_path / "JPEGImages" / "a.jpg")
    xml = voc(
        tmp_path / "Annotations" / "a.xml",
        "a.jpg",
        voc_object(),
        voc_object("fanta", (0, 0, 9, 9), difficult=1),
    )
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a\ngone\n")
    for path in (tmp_path, tmp_path / "Annotations", xml):
        dataset = read_labels(path)
        assert (dataset.classes, boxes(dataset), dataset.dropped) == (
            ("cola", "fanta"),
            [BOX, [0, 0, 9, 9]],
            (),
        )
        assert dataset.photos[0].truth.ignore.tolist() == [False, True]
    dataset = read_labels(f"{tmp_path}#train")
    assert len(dataset) == 1
    assert only_reason(dataset) == "train.txt: 'gone.xml' does not exist"


def test_voc_beside_the_photos_and_without_suffix(tmp_path):
    photo(tmp_path / "a.png")
    voc(tmp_path / "a.xml", "a", voc_object())
    assert boxes(read_labels(tmp_path)) == [BOX]


BOMB = '<!DOCTYPE b [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("head", "filename", "objects", "reason"),
    [
        (BOMB, "a.jpg", [voc_object("&b;")], r"b.xml: the file has a DOCTYPE \(b\)"),
        ('<!DOCTYPE b SYSTEM "file:///etc/passwd">', "a.jpg", [], "a DOCTYPE"),
        ("<broken>", "a.jpg", [], "b.xml: no element found"),
        ("", "../../etc/passwd", [], "is outside of"),
        ("", "a.jpg", [], "is listed twice, first in a.xml"),
        (
            "",
            "b.jpg",
            [voc_object(corners=(1, 2, 3, "x"))],
            r"b.xml, object 0: bndbox must contain the numbers .*got \['1', '2', '3', 'x'\]",
        ),
        ("", "b.jpg", [voc_object("")], "the object has no name"),
        ("", "b.jpg", ["<object><name>cola</name></object>"], "bndbox must contain"),
        ("", "b.jpg", [voc_object(corners=(10, 5, 5, 35))], "width or height of 0 or less"),
    ],
)
def test_broken_voc_is_dropped(tmp_path, head, filename, objects, reason):
    folder = tmp_path / "deep" / "deeper"
    photo(folder / "a.jpg")
    photo(folder / "b.jpg", seed=1)
    voc(folder / "a.xml", "a.jpg", voc_object())
    voc(folder / "b.xml", filename, *objects, head=head)
    dataset = read_labels(folder)
    assert dataset.boxes == 1
    with pytest.raises(ShelfcountError, match=reason):
        raise ShelfcountError(only_reason(dataset))


# --- SKU-110K


def test_sku110k_rows(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    rows = [
        "a.jpg,10,5,30,35,object,80,40",
        "a.jpg,10,5,30,35,object,80",
        "a.jpg,10,5,nan,35,object,80,40",
        "a.jpg,ten,5,30,35,object,80,40",
        "a.jpg,10,5,30,35,object,81,40",
        "gone.jpg,10,5,30,35,object,80,40",
    ]
    dataset = read_labels(
        write(tmp_path / "annotations" / "annotations_train.csv", "\n".join(rows))
    )
    assert (dataset.classes, boxes(dataset)) == (("object",), [BOX])
    assert sorted(d.where.removeprefix("annotations_train.csv, row ") for d in dataset.dropped) == [
        "2",
        "3",
        "4",
        "5",
        "6",
    ]


def test_sku110k_that_is_no_csv(tmp_path):
    with pytest.raises(ShelfcountError, match="is not valid CSV: field larger"):
        read_labels(write(tmp_path / "a.csv", "x" * 200_000))


# --- recognition of the format, and summary of the data


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(ShelfcountError, match=r"'.*nowhere' does not exist"):
        read_labels(tmp_path / "nowhere")
    with pytest.raises(ShelfcountError, match=r"a\.zip'. .* Unpack the archive first"):
        read_labels(write(tmp_path / "a.zip", ""))
    with pytest.raises(
        ShelfcountError, match="format must be one of coco, yolo, voc, sku110k, got 'tfrecord'"
    ):
        read_labels(coco(tmp_path), format="tfrecord")
    with pytest.raises(ShelfcountError, match="has no splits, so '#val' cannot be selected"):
        read_labels(f"{coco(tmp_path)}#val")


def test_folder_with_one_json_is_coco(tmp_path):
    coco(tmp_path)
    assert boxes(read_labels(tmp_path)) == [BOX]
    write(tmp_path / "second.json", "{}")
    with pytest.raises(
        ShelfcountError, match=r"contains 2 COCO .json files \(labels.json, second.json\)"
    ):
        read_labels(tmp_path)


def test_what_was_dropped_is_counted_and_listed(tmp_path):
    dataset = read_labels(coco(tmp_path, annotations=[box(), *[box(category_id=9)] * 4]))
    lines = describe_dropped(dataset, max_listed=3)
    assert lines[0] == "read 1 photo, 1 box, 1 class; left out or corrected: 4"
    assert lines[1] == "  labels.json, annotations[1]: class '9' is not among the 1 known class"
    assert lines[-1] == "  and 1 more"
    assert len(lines) == 5
    assert describe_dropped(read_labels(coco(tmp_path))) == ["read 1 photo, 1 box, 1 class"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.sampled_from(["image_id", "category_id", "bbox", "segmentation", "iscrowd"]), JSON
    ),
    JSON,
)
def test_no_value_in_a_record_brings_coco_down(tmp_path, changes, extra):
    dataset = read_labels(coco(tmp_path, annotations=[box(), {**box(), **changes}, extra]))
    read_boxes = sum(len(photo.truth) for photo in dataset.photos)  # `iscrowd` boxes are ignored.
    assert read_boxes + len(dataset.dropped) >= 3  # Each annotation is read or listed as dropped.
    assert all("\n" not in str(entry) for entry in dataset.dropped)


def test_drinks_have_the_numbers_of_their_readme(drinks):
    """data/drinks/README.md states 180, 24 and 40 photos, 33 classes, and 7,387 boxes in total."""
    parts = [read_labels(drinks / f"{name}.json") for name in ("train", "val", "test")]
    assert [len(part) for part in parts] == [180, 24, 40]
    assert sum(part.boxes for part in parts) == 7387
    assert {len(part.classes) for part in parts} == {33}
    assert {part.licence for part in parts} == {"CC BY 4.0"}
    assert not any(part.dropped for part in parts)
