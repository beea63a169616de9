"""Tests of confusions: counts as in the evaluation, and F1 gains that are computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shelfcount.metrics.confusions import analyse_errors, confusions, needs
from shelfcount.metrics.scoring import score
from shelfcount.records import Dataset, Detections, Photo
from shelfcount.report import confusion_page

CLASSES = ("cola", "tea", "milk")
COLA, TEA, MILK = range(3)


def row(*classes: int, scores: list[float] | None = None) -> Detections:
    return Detections([[30 * i, 10, 30 * i + 20, 50] for i in range(len(classes))], classes, scores)


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Dataset, list[Detections]]:
    """Two photos: two colas detected as tea; then one, a missed milk and a false tea."""
    for name in "ab":
        Image.new("RGB", (400, 60)).save(tmp_path / f"{name}.png")
    truths = row(COLA, COLA, COLA, TEA), row(COLA, TEA, MILK)
    photos = tuple(
        Photo(tmp_path / f"{name}.png", 400, 60, truth)
        for name, truth in zip("ab", truths, strict=True)
    )
    extra = Detections([[300, 10, 320, 50]], [TEA], [0.5])
    found = [
        row(TEA, TEA, COLA, TEA, scores=[0.9, 0.8, 0.7, 0.8]),
        Detections.concat([row(TEA, TEA, scores=[0.4, 0.8]), extra]),
    ]
    return Dataset(CLASSES, photos, name="labels.json"), found


def test_confusions_are_those_of_the_matrix(shop: tuple[Dataset, list[Detections]]) -> None:
    dataset, found = shop
    (only,) = confusions(dataset, found, 0.3)
    matrix = score(dataset, found, 0.3, average_precision=False).confusion
    assert (only.true, only.reported, len(only.mistakes)) == (COLA, TEA, matrix[COLA, TEA])
    assert (only.products, only.share, only.reverse, only.photos) == (
        4,
        0.75,
        0,
        ("a.png", "b.png"),
    )
    # Too few detections agree for a mean of tea alone, so the mean of all is used:
    # (0.7 + 0.8 + 0.8) / 3 = 0.77. The scores 0.9 and 0.8 reach it.
    assert ([m.score for m in only.mistakes], only.confident) == (pytest.approx([0.9, 0.8, 0.4]), 2)


def test_needs_bound_the_gain_of_correcting_a_class(
    shop: tuple[Dataset, list[Detections]],
) -> None:
    dataset, found = shop
    confusion = score(dataset, found, 0.3, average_precision=False).confusion
    cola, tea, milk = (
        next(n for n in needs(CLASSES, confusion) if n.name == name) for name in CLASSES
    )
    # 3 correct of 7 products and 7 detections: F1 6/14. With cola corrected, 6 are correct: 12/14.
    # With tea corrected, the same three and one detection less: 12/13.
    assert (cola.misnamed, cola.bound) == (3, pytest.approx(12 / 14 - 6 / 14))
    assert (tea.taken_for, tea.nothing, tea.bound) == (3, 1, pytest.approx(12 / 13 - 6 / 14))
    assert (milk.missed, milk.bound) == (1, pytest.approx(8 / 15 - 6 / 14))
    assert [n.name for n in needs(CLASSES, confusion)] == ["tea", "cola", "milk"]
    assert {n.trained for n in needs(CLASSES, confusion)} == {None}
    assert [n.trained for n in needs(CLASSES, confusion, {"tea": 7})] == [7, 0, 0]


def test_learning_curve_says_how_many_examples_halve_the_loss() -> None:
    confusion = np.array([[5, 1, 0], [0, 5, 0], [0, 0, 0]])
    # A loss of n^-0.5 halves with four times the examples: three times 100 more. A flat curve never
    # halves, and two points are too few.
    curves = {
        "falls": [(25, 0.2), (50, 0.02**0.5), (100, 0.1)],
        "flat": [(25, 0.2), (50, 0.2), (100, 0.2)],
    }
    assert {n.name: n.halving for n in needs(("falls", "flat"), confusion, curves=curves)} == {
        "falls": 300,
        "flat": None,
    }
    (cut,) = (
        n
        for n in needs(("falls", "flat"), confusion, curves={"falls": curves["falls"][:2]})
        if n.name == "falls"
    )
    assert (cut.halving, cut.gain) == (None, None)


def test_class_that_gains_most_from_more_examples_comes_first() -> None:
    # Both miss 4 of 10: 12 correct of 20 products and 12 detections. With one class corrected, 16
    # are detected and correct.
    confusion = np.array([[6, 0, 4], [0, 6, 4], [0, 0, 0]])
    curves = {"slow": [(25, 0.8), (50, 0.6), (100, 0.4)], "quick": [(5, 0.8), (10, 0.6), (20, 0.4)]}
    quick, slow = needs(("slow", "quick"), confusion, curves=curves)
    assert (quick.name, slow.name, quick.bound) == ("quick", "slow", slow.bound)
    # The same curve over a fifth of the examples: with 50 more, 70 / 20 against 150 / 100, to the
    # same power.
    own, slope = (
        2 * 16 / (20 + 16) - 2 * 12 / (20 + 12),
        np.polyfit(np.log([25, 50, 100]), np.log([0.8, 0.6, 0.4]), 1)[0],
    )
    assert quick.gain == pytest.approx(own * (1 - 3.5**slope))
    assert slow.gain == pytest.approx(own * (1 - 1.5**slope))


def test_classes_without_an_error_need_nothing() -> None:
    assert needs(("a", "b"), np.diag([3, 4, 0])) == []


def test_page_names_pairs_photos_and_costs(
    shop: tuple[Dataset, list[Detections]], tmp_path: Path
) -> None:
    dataset, found = shop
    evaluation = score(dataset, found, 0.3, average_precision=False)
    analysis = analyse_errors(dataset, found, evaluation, {"cola": 12, "tea": 3})
    confusion_page.write_confusion_page(dataset, evaluation, analysis, "m", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "cola confused with tea: 3 of 4, 2 of them with high confidence" in page
    assert "a.png, b.png" in page
    assert "training examples" in page
    # The mistakes, the examples of both classes, and the matrix.
    assert page.count("<img") == 4


@pytest.mark.slow
def test_page_of_a_model_without_mistakes(
    shop: tuple[Dataset, list[Detections]], tmp_path: Path
) -> None:
    dataset, _ = shop
    found = [photo.truth for photo in dataset.photos]
    evaluation = score(dataset, found, 0.3, average_precision=False)
    confusion_page.write_confusion_page(
        dataset, evaluation, analyse_errors(dataset, found, evaluation), "m", tmp_path / "page.html"
    )
    assert "No classes are confused." in (tmp_path / "page.html").read_text()
