"""Tests of corrections: effect of each action, several files, and refused files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shelfcount.data.coco import write_coco
from shelfcount.data.datasets import fingerprint
from shelfcount.data.formats import read_labels
from shelfcount.labels.corrections import (
    XYWH,
    Correction,
    Corrections,
    apply_corrections,
    correct_labels,
    read_corrections,
    write_corrections,
)
from shelfcount.metrics.matching import match
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError

DRINKS_TEST = Path(__file__).parents[1] / "benchmarks" / "data" / "drinks_test_corrections.json"
COLA, TEA = 0, 1
# (left, top, width, height) of the two products on a.jpg, and of a free place. b.jpg has no
# product.
FIRST, SECOND, FREE = (10.0, 10.0, 20.0, 40.0), (40.0, 10.0, 20.0, 40.0), (70.0, 10.0, 20.0, 40.0)


@pytest.fixture
def labels(tmp_path) -> Dataset:
    """Two labelled photos. a.jpg shows a cola and a tea, b.jpg no product."""
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (100, 60)).save(tmp_path / name)
    truth = Detections([[10, 10, 30, 50], [40, 10, 60, 50]], [COLA, TEA])
    photos = (
        Photo(tmp_path / "a.jpg", 100, 60, truth),
        Photo(tmp_path / "b.jpg", 100, 60, Detections.empty()),
    )
    return Dataset(("cola", "tea"), photos, name="shelf")


def correction(
    action: str, box: XYWH = FIRST, class_: str | None = "cola", **changes
) -> Correction:
    return Correction("a.jpg", action, box, "seen so", class_, **changes)


def corrected(labels: Dataset, *corrections: Correction) -> Dataset:
    return correct_labels(labels, Corrections("shelf.json", fingerprint(labels), corrections))


def products(dataset: Dataset) -> list[tuple[str, list[float]]]:
    """Return class name and xyxy box of the labelled products on a.jpg, without ignored ones."""
    truth = dataset.photos[0].truth
    return [
        (dataset.classes[c], box)
        for c, box, i in zip(truth.classes, truth.boxes.tolist(), truth.ignore, strict=True)
        if not i
    ]


# --- effect of each action


def test_without_corrections_the_labels_stay(labels):
    assert fingerprint(corrected(labels)) == fingerprint(labels)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            correction("add", FREE, "tea"),
            [("cola", [10, 10, 30, 50]), ("tea", [40, 10, 60, 50]), ("tea", [70, 10, 90, 50])],
        ),
        (
            correction("move", to_box=(12, 8, 16, 30)),
            [("tea", [40, 10, 60, 50]), ("cola", [12, 8, 28, 38])],
        ),
        (
            correction("rename", to_class="tea"),
            [("tea", [40, 10, 60, 50]), ("tea", [10, 10, 30, 50])],
        ),
        (correction("remove"), [("tea", [40, 10, 60, 50])]),
        (correction("ignore"), [("tea", [40, 10, 60, 50])]),
        (correction("ignore", FREE, None), [("cola", [10, 10, 30, 50]), ("tea", [40, 10, 60, 50])]),
    ],
    ids=lambda value: value.action if isinstance(value, Correction) else "",
)
def test_action_changes_what_has_to_be_found(labels, change, expected):
    before = fingerprint(labels)
    assert products(corrected(labels, change)) == expected
    assert fingerprint(labels) == before


def test_ignored_area_forgives_every_class_and_its_neighbour_none(labels):
    truth = corrected(labels, correction("ignore", FREE, None)).photos[0].truth
    detections = Detections(
        [[71, 11, 89, 49], [71, 11, 89, 49], [40, 10, 60, 50]], [COLA, TEA, COLA]
    )
    assert match(truth, detections).absorbed.tolist() == [True, True, False]


def test_box_in_the_file_may_be_rounded(labels):
    # Each edge of a 20 x 40 box differs by 0.1 pixels, which is an IoU of 19.8 * 39.8 / 800 =
    # 0.985.
    assert products(corrected(labels, correction("remove", (10.1, 10.1, 19.8, 39.8)))) == [
        ("tea", [40, 10, 60, 50])
    ]


def test_of_two_labels_alike_each_correction_takes_one(labels):
    double = Detections([[10, 10, 30, 50], [10, 10, 30, 50]], [COLA, COLA])
    labels = labels.subset([0])
    labels = dataclasses.replace(
        labels, photos=(dataclasses.replace(labels.photos[0], truth=double),)
    )
    assert products(corrected(labels, correction("remove"))) == [("cola", [10, 10, 30, 50])]
    assert products(corrected(labels, correction("remove"), correction("remove"))) == []


def test_order_of_corrections_does_not_matter(labels):
    changes = [
        correction("rename", to_class="tea"),
        correction("add", FREE),
        correction("ignore", SECOND, "tea"),
    ]
    assert fingerprint(corrected(labels, *changes)) == fingerprint(
        corrected(labels, *changes[::-1])
    )


def test_corrected_labels_survive_coco(labels, tmp_path):
    result = corrected(labels, correction("ignore"), correction("add", FREE, "tea"))
    write_coco(result, tmp_path / "corrected.json")
    assert fingerprint(read_labels(tmp_path / "corrected.json")) == fingerprint(result)


# --- decisions, and several files


def test_only_what_was_accepted_is_applied(labels):
    changes = [
        correction("remove", decision="refused"),
        correction("rename", SECOND, "tea", to_class="cola", decision="undecided"),
    ]
    assert products(corrected(labels, *changes)) == products(labels)
    accepted = dataclasses.replace(changes[1], decision="accepted")
    assert products(corrected(labels, changes[0], accepted)) == [
        ("cola", [10, 10, 30, 50]),
        ("cola", [40, 10, 60, 50]),
    ]


def test_files_for_the_same_labels_are_joined_and_later_ones_follow(labels):
    first = Corrections("shelf.json", fingerprint(labels), (correction("rename", to_class="tea"),))
    again = Corrections(
        "shelf.json",
        fingerprint(labels),
        (
            dataclasses.replace(first.corrections[0], reason="another person"),
            correction("add", FREE),
        ),
    )
    then = correct_labels(
        labels,
        Corrections(
            "shelf.json", fingerprint(labels), (*first.corrections, correction("add", FREE))
        ),
    )
    later = Corrections("new.json", fingerprint(then), (correction("remove", class_="tea"),))
    result = apply_corrections(labels, [later, first, again])
    assert products(result) == [("tea", [40, 10, 60, 50]), ("cola", [70, 10, 90, 50])]


def test_people_who_contradict_each_other_are_told(labels):
    files = [
        Corrections("s", fingerprint(labels), (change,))
        for change in (correction("remove"), correction("rename", to_class="tea"))
    ]
    with pytest.raises(
        ShelfcountError,
        match=r"rename 'cola' .*: another correction already changes this label",
    ):
        apply_corrections(labels, files)


def test_file_that_fits_neither_labels_nor_their_successor_is_refused(labels):
    first = Corrections("shelf.json", fingerprint(labels), (correction("remove"),))
    with pytest.raises(
        ShelfcountError,
        match=r"corrections of 'odd\.json' are for labels with the fingerprint 00ff",
    ):
        apply_corrections(labels, [Corrections("odd.json", "00ff"), first])


# --- refused corrections


def test_other_labels_are_refused(labels):
    made_for = fingerprint(labels.subset([0]))
    with pytest.raises(
        ShelfcountError,
        match=(
            f"of 'shelf.json' are for labels with the fingerprint {made_for}, "
            f"but shelf has {fingerprint(labels)}"
        ),
    ):
        correct_labels(labels, Corrections("shelf.json", made_for))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # The cola moved by a quarter of its width, which is an IoU of 15 * 40 / (25 * 40) = 0.6.
        (
            [correction("remove", (15.0, 10.0, 20.0, 40.0))],
            r"remove 'cola' at \[15.0, .*'a.jpg': no label matches. .* at least 0.9; .* has 0.60",
        ),
        (
            [correction("remove", class_="tea")],
            "remove 'tea' at .*: no label matches. .* the nearest has 0.00",
        ),
        (
            [correction("remove", class_="beer")],
            "remove 'beer' .*: the data has no class 'beer' among its 2 classes",
        ),
        (
            [correction("rename", to_class="beer")],
            "rename 'cola' .*: the data has no class 'beer' among its 2 classes",
        ),
        (
            [correction("remove"), correction("ignore")],
            "ignore 'cola' .*: another correction already changes this label",
        ),
        ([correction("add", class_="tea")], "add 'tea' .*: 2 labels would overlap here"),
        (
            [correction("add", FREE), correction("add", FREE)],
            r"add 'cola' at \[70.0, .*: 2 labels would overlap here",
        ),
        (
            [correction("add", (90.0, 10.0, 20.0, 40.0))],
            "add 'cola' .*: the new box is not inside the photo of 100 x 60",
        ),
        (
            [dataclasses.replace(correction("remove"), photo="c.jpg")],
            "remove 'cola' .* on 'c.jpg': shelf has no photo of this name",
        ),
    ],
)
def test_correction_that_does_not_fit_is_named(labels, changes, message):
    with pytest.raises(ShelfcountError, match=message):
        corrected(labels, *changes)


def test_photos_of_one_name_are_refused(labels, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "a.jpg"
    Image.new("RGB", (100, 60)).save(other)
    double = dataclasses.replace(
        labels, photos=(*labels.photos, dataclasses.replace(labels.photos[0], path=other))
    )
    with pytest.raises(
        ShelfcountError, match="shelf has 1 photo with the file name of another photo"
    ):
        corrected(double)


# --- corrections files


def test_file_round_trip(tmp_path):
    changes = (
        correction("add", FREE, "tea"),
        correction("move", to_box=(12.5, 8.0, 16.0, 30.0)),
        correction("rename", to_class="trà ô long"),
        correction("remove"),
        correction("ignore", FREE, None),
        correction("remove", decision="refused"),
        correction("remove", SECOND, "tea", decision="undecided"),
    )
    written = Corrections("shelf.json", "f" * 64, changes, ("a.jpg", "b.jpg"))
    write_corrections(written, tmp_path / "c.json")
    assert read_corrections(tmp_path / "c.json") == written
    # One correction per line, so that a diff of the file is readable.
    assert len((tmp_path / "c.json").read_text().splitlines()) == len(changes) + 2


def test_file_without_corrections_round_trips(tmp_path):
    write_corrections(Corrections("shelf.json", "f"), tmp_path / "c.json")
    assert read_corrections(tmp_path / "c.json") == Corrections("shelf.json", "f")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"action": "delete"},
            "correction 1: .*delete.* has no valid action. .* one of add, move, rename, remove, "
            "ignore",
        ),
        (
            {"action": ["add"]},
            r"correction 1: .*\['add'\].* has no valid action. .* one of add, move",
        ),
        ({"reason": None}, "correction 1: reason must be a text that is not empty, got None"),
        ({"reason": " "}, "correction 1: reason must be a text that is not empty, got ' '"),
        (
            {"box": [1, 2, 3]},
            r"correction 1: box must be \[left, top, width, height\] .*, got \[1, 2, 3\]",
        ),
        (
            {"box": [1, 2, 3, 0]},
            r"correction 1: box must be .* with width and height above 0, got \[1, 2, 3, 0\]",
        ),
        ({"box": [1, 2, 3, float("nan")]}, r"correction 1: box must be .*nan"),
        ({"box": [1, 2, 3, 10**400]}, "correction 1: box must be .*1000"),
        ({"box": [1, 2, 3, "4"]}, "correction 1: box must be .*'4'"),
        (
            {"action": "rename"},
            "correction 1: missing key to_class. It must be an object with the keys .*to_class",
        ),
        (
            {"decision": "maybe"},
            "correction 1: decision must be one of accepted, refused, undecided, got 'maybe'",
        ),
        ({"to_class": "tea"}, "correction 1: unknown key 'to_class'. Allowed keys: photo, action"),
    ],
)
def test_malformed_entry_is_named(tmp_path, changes, message):
    entry = {
        "photo": "a.jpg",
        "action": "remove",
        "box": [10, 10, 20, 40],
        "class": "cola",
        "reason": "a shadow",
        **changes,
    }
    path = tmp_path / "c.json"
    path.write_text(
        json.dumps(
            {"data": "shelf.json", "fingerprint": "f", "reviewed": [], "corrections": [entry]}
        )
    )
    with pytest.raises(ShelfcountError, match=message):
        read_corrections(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [],
            "missing keys data, fingerprint, reviewed, corrections. It must be an object with the "
            "keys data, fingerprint, reviewed, corrections",
        ),
        (
            {"data": "x", "fingerprint": 1, "reviewed": [], "corrections": []},
            "fingerprint must be a text, got 1",
        ),
        (
            {"data": "x", "fingerprint": "f", "reviewed": [], "corrections": {}},
            "corrections must be a list, got {}",
        ),
        (
            {"data": "x", "fingerprint": "f", "reviewed": [3], "corrections": []},
            "reviewed must be a text that is not empty, got 3",
        ),
        (
            {"data": "x", "fingerprint": "f", "reviewed": [], "corrections": [], "note": ""},
            "unknown key 'note'. Allowed keys: data, fingerprint",
        ),
    ],
)
def test_malformed_file_is_named(tmp_path, content, message):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ShelfcountError, match=message):
        read_corrections(path)


def test_corrections_of_the_drinks_fit_their_photos(drinks):
    labels, corrections = read_labels(drinks / "test.json"), read_corrections(DRINKS_TEST)
    result = correct_labels(labels, corrections)
    assert (
        {c.photo for c in corrections.corrections}
        <= set(corrections.reviewed)
        <= {p.path.name for p in labels.photos}
    )
    change = {
        action: sum(c.action == action for c in corrections.corrections)
        for action in ("add", "remove")
    }
    ignored = sum(c.action == "ignore" and c.class_ is not None for c in corrections.corrections)
    to_find = sum(int((~p.truth.ignore).sum()) for p in result.photos)
    assert to_find == labels.boxes + change["add"] - change["remove"] - ignored
    assert all(np.isfinite(p.truth.boxes).all() for p in result.photos)
