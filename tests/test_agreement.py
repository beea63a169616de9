"""Tests of inter-annotator agreement with known differences and with simulated annotators."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import agreement as benchmark
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from shelfcount.cli.app import app
from shelfcount.cli.labels import agreement_lines
from shelfcount.data.coco import write_coco
from shelfcount.data.formats import read_labels
from shelfcount.labels.agreement import compare_labellings, is_second_labelling, shared_photos
from shelfcount.labels.agreement_coefficients import kappa
from shelfcount.labels.agreement_scores import Agreement
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError
from shelfcount.report import agreement_page

CLASSES = ("cola", "tea", "milk")
COLA, TEA, MILK = range(3)
# Photos with the same path are the same file and are not read, so they need not exist.
NOWHERE = Path("nowhere")


def labels(
    *photos: Detections, name: str = "first.json", classes: tuple[str, ...] = CLASSES
) -> Dataset:
    return Dataset(
        classes,
        tuple(Photo(NOWHERE / f"{i}.jpg", 400, 100, truth) for i, truth in enumerate(photos)),
        name=name,
    )


def row(*classes: int, left: float = 0, width: float = 20) -> Detections:
    """Return products of 20 x 40 pixels at a distance of 30 pixels."""
    boxes = [[30 * i + left, 10, 30 * i + left + width, 50] for i in range(len(classes))]
    return Detections(boxes, classes)


# --- agreement values


def test_one_labelling_twice_agrees_wholly() -> None:
    agreed = compare_labellings(labels(row(COLA, TEA)), labels(row(COLA, TEA), name="second.json"))
    assert vars(agreed.figures) == {"quality": 1, "presence": 1, "naming": 1, "tightness": 1}
    assert (agreed.kappa, agreed.alpha) == (1, 1)
    assert agreed.photos[0].disagreements == 0
    assert agreed.names == ("first.json", "second.json")


def test_each_part_sees_its_own_difference() -> None:
    first = labels(row(COLA, TEA, MILK, COLA))
    # The last product is missing, the second has another class, and all boxes are a fifth narrower,
    # which is an IoU of 0.8.
    agreed = compare_labellings(first, labels(row(COLA, MILK, MILK, width=16)))
    # 2 * 3 / (4 + 3), 2 of 3, 16 / 20.
    assert agreed.figures.presence == pytest.approx(6 / 7)
    assert agreed.figures.naming == pytest.approx(2 / 3)
    assert agreed.figures.tightness == pytest.approx(0.8)
    assert agreed.figures.quality == pytest.approx(6 / 7 * 2 / 3 * 0.8)
    assert agreed.confusion.tolist() == [[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert agreed.edges.mean(axis=0) == pytest.approx([0, 0, -0.2, 0])


def test_per_class_says_who_labels_what() -> None:
    agreed = compare_labellings(labels(row(COLA, TEA, MILK, COLA)), labels(row(COLA, MILK, MILK)))
    cola, tea, milk = agreed.per_class
    assert (cola.first, cola.second, cola.both, cola.alone, cola.otherwise, cola.share) == (
        2,
        1,
        1,
        (1, 0),
        (0, 0),
        2 / 3,
    )
    assert (tea.first, tea.second, tea.both, tea.otherwise, tea.share, tea.tightness) == (
        1,
        0,
        0,
        (1, 0),
        0,
        None,
    )
    assert (milk.first, milk.second, milk.both, milk.otherwise, milk.share) == (
        1,
        2,
        1,
        (0, 1),
        2 / 3,
    )
    # One of three pairs is milk in both, one is tea in the first and milk in the second:
    # (2/3 - 4/9) / (1 - 4/9).
    assert milk.kappa == pytest.approx(0.4)


def test_empty_photos_agree_and_lack_of_pairs_is_no_naming() -> None:
    nothing = Detections.empty()
    assert compare_labellings(labels(nothing), labels(nothing)).figures.quality == 1
    missed = compare_labellings(labels(row(COLA)), labels(nothing))
    assert (
        missed.figures.quality,
        missed.figures.naming,
        missed.kappa,
        missed.errors()["second"]["missed"],
    ) == (0, None, None, 1)


def test_pairing_overlaps_most_in_all() -> None:
    # Greedy pairing would pair the first box of `a` with the second of `b` (IoU 18/22), so that the
    # other two have no partner.
    a = Detections([[0, 0, 20, 40], [4, 0, 24, 40]], [COLA, COLA])
    b = Detections([[-6, 0, 14, 40], [2, 0, 22, 40]], [COLA, COLA])
    agreed = compare_labellings(labels(a), labels(b))
    assert agreed.photos[0].pairs.tolist() == [[0, 0], [1, 1]]
    assert compare_labellings(labels(b), labels(a)).figures == agreed.figures


def test_of_two_boxes_in_one_place_the_same_names_go_together() -> None:
    a = Detections([[0, 0, 20, 40]] * 2, [COLA, TEA])
    assert compare_labellings(labels(a), labels(a[[1, 0]])).figures.naming == 1


def test_what_one_could_not_tell_is_not_compared() -> None:
    untold = row(COLA, TEA).replace(ignore=[False, True])
    agreed = compare_labellings(labels(row(COLA, MILK)), labels(untold))
    assert agreed.figures.quality == 1
    assert agreed.per_class[MILK].share is None


def test_class_lists_may_differ() -> None:
    agreed = compare_labellings(labels(row(COLA)), labels(row(0), classes=("mate",)))
    assert agreed.classes == (*CLASSES, "mate")
    assert agreed.figures.naming == 0


def test_interval_holds_the_figure_and_narrows_with_photos() -> None:
    rng = np.random.default_rng(0)
    some = [row(COLA, TEA), row(COLA, TEA, TEA)] * 4
    other = [row(COLA, TEA), row(COLA, TEA, MILK)] * 4
    widths = []
    for times in (1, 9):
        agreed = compare_labellings(labels(*some * times), labels(*other * times), rng)
        low, high = agreed.interval["naming"]
        assert low < 0.8 < high
        widths.append(high - low)
    # Nine times as many photos give a third of the width. The bootstrap varies by less than a
    # fifth.
    assert widths[1] == pytest.approx(widths[0] / 3, rel=0.2)
    assert compare_labellings(labels(row(COLA)), labels(row(COLA)), rng).interval == {}


def test_kappa_and_alpha_as_published() -> None:
    # Cohen's kappa is 0.4 for the grants example of its Wikipedia article. Krippendorff's alpha is
    # 0.095 for two coders, ten articles and four disagreements in Krippendorff 2011, "Computing
    # Krippendorff's Alpha-Reliability".
    assert kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert compare_labellings(labels(row(*first)), labels(row(*second))).alpha == pytest.approx(
        0.095, abs=5e-4
    )


# --- photos in common


def test_photos_are_told_by_place_or_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i, grey in enumerate((10, 90)):
            Image.new("L", (8, 8), grey + 50 * (folder == "b" and i == 1)).save(
                tmp_path / folder / f"{folder}{i}.png"
            )
    sets = [
        Dataset(
            CLASSES,
            tuple(Photo(tmp_path / f / f"{f}{i}.png", 8, 8, Detections.empty()) for i in (0, 1)),
            name=f,
        )
        for f in "ab"
    ]
    assert shared_photos(*sets) == [(0, 0)]
    assert shared_photos(sets[0], sets[0]) == [(0, 0), (1, 1)]
    agreed = compare_labellings(*sets)
    assert agreed.unshared == (("a1.png",), ("b1.png",))
    with pytest.raises(
        ShelfcountError,
        match=r"'a' \(1 photo\) and 'b' \(1 photo\) have no photo in common",
    ):
        compare_labellings(sets[0].subset([1]), sets[1].subset([1]))


def test_photo_in_two_sizes_is_refused() -> None:
    other = labels(row(COLA))
    other = dataclasses.replace(other, photos=(dataclasses.replace(other.photos[0], width=500),))
    with pytest.raises(
        ShelfcountError,
        match=r"photo '0.jpg' has two sizes .*, 400 x 100 and 500 x 100",
    ):
        compare_labellings(labels(row(COLA)), other)


def test_second_labelling_is_told_from_a_copy_and_from_other_photos() -> None:
    first = labels(row(COLA, TEA), row(MILK))
    assert is_second_labelling(first, labels(row(COLA, COLA), row(MILK)))
    assert is_second_labelling(first, labels(row(COLA)))
    # The same boxes in another order are a copy, not a second annotation.
    assert not is_second_labelling(first, labels(row(COLA, TEA)[[1, 0]], row(MILK)))
    more = labels(row(COLA, COLA), row(MILK), row(TEA))
    assert not is_second_labelling(
        first, dataclasses.replace(more, photos=(*more.photos[:2], _elsewhere(more.photos[2])))
    )


def _elsewhere(photo: Photo) -> Photo:
    path = Path(__file__).parents[1] / "benchmarks" / "results" / "counted.jpg"
    return dataclasses.replace(photo, path=path)


# --- simulated annotators


@pytest.mark.parametrize("who", ["second", "each"])
def test_labellers_are_recognised_by_their_errors(who: str) -> None:
    rng = np.random.default_rng(5)
    known = labels(*[row(*rng.integers(0, 3, 12)) for _ in range(200)])
    planted = {"missed": 0.08, "misnamed": 0.05, "edge": 0.03}
    first = benchmark.labeller(known, rng, **planted) if who == "each" else known
    errors = compare_labellings(first, benchmark.labeller(known, rng, **planted)).errors()[who]
    # Tolerances are four standard errors: for a share of 2,400 products 4 * sqrt(0.08 * 0.92 /
    # 2400) = 0.022, and less for 9,000 edges.
    assert errors["missed"] == pytest.approx(0.08, abs=0.022)
    assert errors["misnamed"] == pytest.approx(0.05, abs=0.018)
    assert errors["edge"] == pytest.approx(0.03, abs=0.002)


# --- output


def test_json_is_plain_and_complete() -> None:
    agreed = compare_labellings(
        labels(row(COLA, TEA), row(COLA)),
        labels(row(COLA, MILK), row(COLA)),
        np.random.default_rng(0),
    )
    result = json.loads(json.dumps(agreed.to_json()))
    assert result["naming"] == pytest.approx(2 / 3)
    assert result["products"] == {"both": 3, "first_alone": 0, "second_alone": 0}
    assert [p["disagreements"] for p in result["per_photo"]] == [1, 0]
    assert result["interval_95"].keys() == {"quality", "presence", "naming", "tightness"}
    low, high = result["interval_95"]["naming"]
    assert dict(agreement_lines(agreed))["x naming"] == f"0.667 ({low:.3f} to {high:.3f})"


def shop(tmp_path: Path) -> Dataset:
    """Write two labelled photos of noise with a label file, and return the data set."""
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (100, 400, 3), np.uint8)).save(tmp_path / f"{i}.png")
    photos = tuple(
        Photo(tmp_path / f"{i}.png", 400, 100, row(COLA, TEA, TEA, MILK)) for i in range(2)
    )
    write_coco(Dataset(CLASSES, photos, name="labels.json"), tmp_path / "labels.json")
    return read_labels(tmp_path / "labels.json")


def test_page_shows_photos_on_which_they_differ(tmp_path: Path) -> None:
    first = shop(tmp_path)
    second = dataclasses.replace(
        first,
        photos=(dataclasses.replace(first.photos[0], truth=row(COLA, MILK, TEA)), first.photos[1]),
    )
    agreement_page.write_agreement_page(compare_labellings(first, second), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    # The second product is tea in one annotation and milk in the other. The last is only in the
    # first.
    assert "0.png: 2 disagreements. 1 tea, 2 milk." in page
    assert "On 1 other photo the two annotations agree." in page
    assert page.count("<img") == 2


@pytest.mark.slow
def test_check_measures_a_second_labelling(tmp_path: Path) -> None:
    first = shop(tmp_path)
    second = dataclasses.replace(
        first,
        photos=(dataclasses.replace(first.photos[0], truth=row(COLA, MILK, TEA)), first.photos[1]),
    )
    write_coco(second, tmp_path / "second.json")
    files = [tmp_path / "out.json", tmp_path / "out.html", tmp_path / "out-agreement.html"]
    arguments = [
        "check",
        "--data",
        f"{tmp_path}/labels.json",
        "--against",
        f"{tmp_path}/second.json",
    ]
    outcome = CliRunner().invoke(
        app, [*arguments, "--json", str(files[0]), "--html", str(files[1])]
    )
    assert "second.json labels 2 of these photos a second time" in outcome.output
    result = json.loads(files[0].read_text())
    # 7 pairs of 8 and 7 products, one of them with two classes.
    assert result["agreement"]["presence"] == pytest.approx(14 / 15)
    assert result["agreement"]["naming"] == pytest.approx(6 / 7)
    assert "leak" not in {finding["kind"] for finding in result["findings"]}
    assert all(file.exists() for file in files)


def test_check_calls_a_copy_a_leak(tmp_path: Path) -> None:
    shop(tmp_path)
    shutil.copy(tmp_path / "labels.json", tmp_path / "test.json")
    outcome = CliRunner().invoke(
        app, ["check", "--data", f"{tmp_path}/labels.json", "--against", f"{tmp_path}/test.json"]
    )
    assert outcome.exit_code == 1
    assert "leak" in outcome.output


@pytest.mark.slow
def test_drinks_as_published_against_corrected(drinks: Path) -> None:
    from shelfcount.labels.corrections import correct_labels, read_corrections

    published = read_labels(drinks / "val.json")
    file = read_corrections(
        Path(__file__).parents[1] / "benchmarks" / "data" / "drinks_val_corrections.json"
    )
    agreed: Agreement = compare_labellings(published, correct_labels(published, file))
    made = {
        action: sum(c.action == action for c in file.corrections)
        for action in ("add", "rename", "move")
    }
    assert agreed.to_json()["products"]["second_alone"] == made["add"]
    # The 2 moved boxes have an IoU above 0.5 with the original ones, so they are pairs.
    assert sum(int((~photo.same_class).sum()) for photo in agreed.photos) == made["rename"]
    assert agreed.to_json()["products"]["first_alone"] == 0
