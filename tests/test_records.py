"""Tests of the records: validation, immutability, JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from shelfcount.records import AnchorLevel, Dataset, Detections, ModelSpec, Photo, ShelfcountError

TWO = [[0, 0, 10, 20], [5, 5, 15, 30]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"boxes": np.zeros((12, 5)), "classes": [0] * 12},
            "boxes must have shape (n, 4), got (12, 5)",
        ),
        ({"boxes": [0, 0, 1, 1], "classes": [0]}, "boxes must have shape (n, 4), got (4,)"),
        (
            {"boxes": TWO, "classes": [0]},
            "classes must have shape (2,) as there are 2 boxes, got (1,)",
        ),
        (
            {"boxes": TWO, "classes": [0, 1], "scores": [[0.5, 0.5]]},
            "scores must have shape (2,) as there are 2 boxes, got (1, 2)",
        ),
        (
            {"boxes": TWO, "classes": [0, 1], "ignore": [True] * 3},
            "ignore must have shape (2,) as there are 2 boxes, got (3,)",
        ),
        (
            {"boxes": [TWO[0], [1, 2, np.nan, 4]], "classes": [0, 1]},
            "boxes must be finite, got [1.0, 2.0, nan, 4.0] in row 1 of 2",
        ),
        (
            {"boxes": [[1, 2, np.inf, 4], TWO[0]], "classes": [0, 1]},
            "boxes must be finite, got [1.0, 2.0, inf, 4.0] in row 0 of 2",
        ),
        (
            {"boxes": [TWO[0], [9, 0, 3, 5]], "classes": [0, 1]},
            "right >= left and bottom >= top, got [9.0, 0.0, 3.0, 5.0] in row 1 of 2",
        ),
        (
            {"boxes": [[0, 8, 3, 5], TWO[0]], "classes": [0, 1]},
            "right >= left and bottom >= top, got [0.0, 8.0, 3.0, 5.0] in row 0 of 2",
        ),
        (
            {"boxes": TWO, "classes": [0, 1], "scores": [0.5, 1.5]},
            "scores must be in [0, 1], got 1.5 in row 1 of 2",
        ),
        (
            {"boxes": TWO, "classes": [0, 1], "scores": [-0.25, 0.5]},
            "scores must be in [0, 1], got -0.25 in row 0 of 2",
        ),
        (
            {"boxes": TWO, "classes": [0, 1], "scores": [0.5, np.nan]},
            "scores must be in [0, 1], got nan in row 1 of 2",
        ),
    ],
)
def test_detections_refuse_what_is_no_box(columns: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Detections(**columns)


def test_a_box_of_no_size_is_allowed() -> None:
    # Clipping makes such a box of one outside the photo.
    assert len(Detections([[100, 0, 100, 20]], [0])) == 1


def test_arrays_of_a_record_are_its_own_and_read_only() -> None:
    boxes = np.array(TWO, np.float32)
    found = Detections(boxes, [0, 1])
    boxes[:] = -1
    assert found.boxes.tolist() == TWO
    for column in (found.boxes, found.classes, found.scores, found.ignore):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


def test_columns_have_the_stated_types_and_defaults() -> None:
    found = Detections(TWO, [0.0, 1.0])
    assert [c.dtype for c in (found.boxes, found.classes, found.scores, found.ignore)] == [
        np.float32,
        np.int64,
        np.float32,
        bool,
    ]
    assert found.scores.tolist() == [1, 1]
    assert not found.ignore.any()


def test_choosing_replacing_and_joining() -> None:
    found = Detections([*TWO, [0, 0, 1, 1]], [2, 0, 2], [0.9, 0.8, 0.7], [False, False, True])
    assert found[found.classes == 2].scores.tolist() == np.float32([0.9, 0.7]).tolist()
    assert found[[1]].boxes.tolist() == [TWO[1]]
    assert found.replace(classes=[1, 1, 1]).classes.tolist() == [1, 1, 1]
    joined = Detections.concat([found[:1], Detections.empty(), found[1:]])
    assert joined.boxes.tolist() == found.boxes.tolist()
    assert joined.ignore.tolist() == found.ignore.tolist()
    assert len(Detections.concat([])) == 0


def test_counts_are_most_frequent_first_and_without_the_ignored() -> None:
    boxes = np.tile([0, 0, 1, 1], (6, 1))
    found = Detections(boxes, [2, 0, 2, 1, 1, 0], ignore=[False, False, False, False, False, True])
    assert list(found.counts(("a", "b", "c", "d")).items()) == [("b", 2), ("c", 2), ("a", 1)]
    assert Detections.empty().counts(("a",)) == {}


def test_photo_needs_a_size() -> None:
    with pytest.raises(ValueError, match=r"photo 'a\.jpg' has a size of 0 x 5 pixels"):
        Photo(Path("a.jpg"), 0, 5, Detections.empty())


@pytest.mark.parametrize("wrong", [-1, 2])
def test_dataset_refuses_a_class_it_has_no_name_for(wrong: int) -> None:
    photo = Photo(Path("a.jpg"), 9, 9, Detections([[0, 0, 1, 1]] * 2, [1, wrong]))
    message = rf"class index {wrong} on 'a\.jpg' is out of range.* at least 0 and below 2"
    with pytest.raises(ValueError, match=message):
        Dataset(("a", "b"), (photo,))


def test_dataset_refuses_two_classes_of_one_name() -> None:
    with pytest.raises(ValueError, match=r"duplicate class names \['cola'\] in drinks"):
        Dataset(("cola", "tea", "cola"), (), name="drinks")


def test_subset_keeps_everything_but_the_photos() -> None:
    photos = tuple(
        Photo(Path(f"{i}.jpg"), 9, 9, Detections([[0, 0, 1, 1]] * i, [0] * i)) for i in range(4)
    )
    whole = Dataset(("a",), photos, name="n", licence="CC0", attribution="someone")
    part = whole.subset([3, 1])
    assert [p.path.name for p in part.photos] == ["3.jpg", "1.jpg"]
    assert (part.classes, part.name, part.licence, part.attribution) == (
        ("a",),
        "n",
        "CC0",
        "someone",
    )
    assert (len(part), part.boxes, whole.boxes) == (2, 4, 6)


@pytest.mark.parametrize(("stride", "sizes"), [(0, ((1.0, 1.0),)), (8, ()), (8, ((1.0, 0.0),))])
def test_anchor_level_needs_stride_and_sizes(stride: int, sizes: tuple) -> None:
    with pytest.raises(
        ValueError,
        match=re.escape(f"stride and sizes above 0, got stride {stride} and sizes {sizes}"),
    ):
        AnchorLevel(stride, sizes)


def _spec(**changes: object) -> ModelSpec:
    levels = (AnchorLevel(8, ((20.0, 10.0),)), AnchorLevel(16, ((40.5, 20.0),)))
    return ModelSpec(
        **{
            "name": "n",
            "architecture": "a",
            "classes": ("x", "y"),
            "height": 64,
            "width": 96,
            "levels": levels,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, "the model has no classes"),
        (
            {"score_threshold": 1.5},
            "score_threshold must be in [0, 1] and nms_iou in (0, 1], got 1.5 and 0.5",
        ),
        (
            {"nms_iou": 0},
            "score_threshold must be in [0, 1] and nms_iou in (0, 1], got 0.4 and 0",
        ),
        (
            {"width": 100},
            "the input size must be a multiple of every stride, got 64 x 100 and stride 8",
        ),
    ],
)
def test_spec_refuses(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        _spec(**changes)


def test_spec_survives_json() -> None:
    spec = _spec(score_threshold=0.35, provenance={"seed": 3, "versions": {"torch": "2"}})
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda d: d.pop("levels"), "field 'levels' is missing"),
        (lambda d: d.update(colour="red"), "unknown field 'colour'"),
        (
            lambda d: d.update(levels=[{"stride": 8, "sizes": [[1]]}]),
            "not enough values to unpack (expected 2, got 1)",
        ),
        (lambda d: d.update(height="416"), "height must be int, got '416'"),
        (lambda d: d.update(height=65), "got 65 x 96 and stride 8"),
    ],
)
def test_spec_of_another_form_is_named(change, cause: str) -> None:
    data = json.loads(json.dumps(_spec().to_json()))
    change(data)
    with pytest.raises(ShelfcountError, match="invalid model spec: ") as caught:
        ModelSpec.from_json(data)
    assert cause in str(caught.value)
