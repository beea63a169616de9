"""Tests of likely label errors: only labels contradicted with high confidence are proposed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from shelfcount.cli.app import app
from shelfcount.data.coco import write_coco
from shelfcount.data.datasets import fingerprint
from shelfcount.labels.corrections import Corrections, correct_labels, read_corrections
from shelfcount.labels.proposals import draft_corrections, propose, with_decisions
from shelfcount.metrics.confusions import MIN_AGREED, class_confidence_thresholds
from shelfcount.records import Dataset, Detections, Photo
from shelfcount.report import proposals_page
from shelfcount.runtime.bundle import LiteRTDetector
from shelfcount.vision.images import read_photo

COLA, TEA = 0, 1
AGREED = MIN_AGREED


def row(classes: list[int], scores: list[float] | None = None) -> Detections:
    return Detections([[30 * i, 10, 30 * i + 20, 50] for i in range(len(classes))], classes, scores)


@pytest.fixture
def shelf(tmp_path: Path) -> Dataset:
    """One photo: five colas, five teas, and a cola that is labelled tea."""
    Image.new("RGB", (400, 60)).save(tmp_path / "a.jpg")
    return Dataset(
        ("cola", "tea"),
        (Photo(tmp_path / "a.jpg", 400, 60, row([COLA] * 5 + [TEA] * 5 + [TEA])),),
        name="shop/labels.json",
    )


def found(*last: tuple[int, float]) -> Detections:
    """Detect the ten products with mean scores of 0.7 (cola) and 0.5 (tea), then `last`."""
    scores = [0.6, 0.8, 0.6, 0.8, 0.7, 0.4, 0.6, 0.4, 0.6, 0.5]
    return row([COLA] * 5 + [TEA] * 5 + [c for c, _ in last], scores + [s for _, s in last])


def test_self_confidence_is_the_mean_where_labels_agree(shelf: Dataset) -> None:
    assert class_confidence_thresholds(shelf, [found((COLA, 0.95))], 0.3) == pytest.approx(
        [0.7, 0.5]
    )
    # Two teas are below the threshold. Three are too few for a mean of their own, so the mean of
    # all eight detections is used.
    cut = [0.6, 0.8, 0.6, 0.8, 0.7, 0.6, 0.6, 0.5]
    assert class_confidence_thresholds(shelf, [found()], 0.45)[TEA] == pytest.approx(np.mean(cut))


def test_confident_other_class_is_proposed(shelf: Dataset) -> None:
    (proposal,) = propose(shelf, [found((COLA, 0.77))], 0.3, "m")
    correction = proposal.correction
    assert (correction.action, correction.class_, correction.to_class, correction.decision) == (
        "rename",
        "tea",
        "cola",
        "undecided",
    )
    assert correction.box == (300, 10, 20, 40)
    assert correction.reason == "m detects 'cola' with score 0.77; it is labelled 'tea'"
    assert proposal.relative_confidence == pytest.approx(0.77 / 0.7)


def test_average_scores_and_agreement_propose_nothing(shelf: Dataset) -> None:
    assert propose(shelf, [found((COLA, 0.69))], 0.3, "m") == []
    assert propose(shelf, [found((TEA, 0.99))], 0.3, "m") == []


def test_product_without_label_is_proposed_outside_ignored_areas(shelf: Dataset) -> None:
    reported = [found((TEA, 0.6), (TEA, 0.9))]
    (proposal,) = propose(shelf, reported, 0.3, "m")
    assert (proposal.correction.action, proposal.correction.class_, proposal.correction.box) == (
        "add",
        "tea",
        (330, 10, 20, 40),
    )
    area = Detections([[325, 0, 400, 60]], [COLA], ignore=[True])
    photo = dataclasses.replace(
        shelf.photos[0], truth=Detections.concat([shelf.photos[0].truth, area])
    )
    assert propose(dataclasses.replace(shelf, photos=(photo,)), reported, 0.3, "m") == []


def test_most_confident_come_first_and_the_number_is_limited(shelf: Dataset) -> None:
    proposals = propose(shelf, [found((COLA, 0.77), (TEA, 0.9))], 0.3, "m")
    # 0.9 / 0.5 beats 0.77 / 0.7.
    assert [p.correction.action for p in proposals] == ["add", "rename"]
    file = draft_corrections(shelf, proposals, max_proposals=1)
    assert (file.data, file.fingerprint, len(file.corrections)) == (
        "labels.json",
        fingerprint(shelf),
        1,
    )


def test_all_detections_on_photos_without_labels_are_proposed(shelf: Dataset) -> None:
    bare = dataclasses.replace(
        shelf, photos=(dataclasses.replace(shelf.photos[0], truth=Detections.empty()),)
    )
    proposals = propose(bare, [found()], 0.3, "m")
    assert len(proposals) == 10
    accepted = tuple(dataclasses.replace(p.correction, decision="accepted") for p in proposals)
    labelled = correct_labels(
        bare, dataclasses.replace(draft_corrections(bare, proposals), corrections=accepted)
    )
    assert sorted(labelled.photos[0].truth.classes.tolist()) == [COLA] * 5 + [TEA] * 5


def test_decisions_are_matched_although_a_box_moved_slightly(shelf: Dataset) -> None:
    (proposal,) = propose(shelf, [found((COLA, 0.77))], 0.3, "m")
    nearly = dataclasses.replace(
        proposal.correction, box=(300.3, 10.0, 20.0, 40.0), decision="refused", reason="a tea"
    )
    (same,) = with_decisions([proposal], Corrections("labels.json", "f", (nearly,)))
    assert same.correction.decision == "refused"
    (other,) = with_decisions(
        [proposal], Corrections("labels.json", "f", (dataclasses.replace(nearly, to_class="milk"),))
    )
    assert other.correction.decision == "undecided"


# --- the page and the verb


def test_page_contains_the_draft_and_escapes_it(shelf: Dataset, tmp_path: Path) -> None:
    proposals = propose(shelf, [found((COLA, 0.77))], 0.3, "</script><script>alert(1)</script>")
    proposals_page.write_proposals_page(
        shelf, proposals, draft_corrections(shelf, proposals), tmp_path / "page.html"
    )
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    inside = page.split('id="draft">')[1].split("</script>")[0]
    (tmp_path / "saved.json").write_text(json.dumps(json.loads(inside)))
    assert read_corrections(tmp_path / "saved.json") == draft_corrections(shelf, proposals)
    assert page.count('data-decision="accepted"') == 1


def test_released_bundle_finds_errors_inserted_into_labels(tmp_path: Path, released: Path) -> None:
    """The labels are the bundle's detections on its golden photos; one is removed, one renamed."""
    detector = LiteRTDetector.open(released)
    photos = []
    for path in sorted((released / "golden").glob("*.jpg")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        image = read_photo(path)
        photos.append(
            Photo(tmp_path / path.name, image.shape[1], image.shape[0], detector.detect(image))
        )
    first, second = photos[0].truth, photos[1].truth
    # The most confident of its class on its photo, since only scores above the mean are proposed.
    common = np.bincount(np.concatenate([p.truth.classes for p in photos])).argmax()
    out, wrong = (int(np.flatnonzero(t.classes == common)[0]) for t in (first, second))
    names = second.classes.copy()
    names[wrong] = (common + 1) % len(detector.spec.classes)
    photos[0] = dataclasses.replace(photos[0], truth=first[np.arange(len(first)) != out])
    photos[1] = dataclasses.replace(photos[1], truth=second.replace(classes=names))
    write_coco(Dataset(detector.spec.classes, tuple(photos)), tmp_path / "labels.json")
    said = CliRunner().invoke(
        app,
        [
            "propose",
            str(released),
            "--data",
            f"{tmp_path}/labels.json",
            "--out",
            f"{tmp_path}/c.json",
            "--html",
            f"{tmp_path}/p.html",
        ],
    )
    assert said.exit_code == 0, said.output
    assert "2 proposals, 1 to add a label and 1 to rename one" in said.output
    proposed = {c.action: c for c in read_corrections(tmp_path / "c.json").corrections}
    assert (proposed["add"].photo, proposed["rename"].photo) == (
        photos[0].path.name,
        photos[1].path.name,
    )
    assert proposed["rename"].to_class == proposed["add"].class_ == detector.spec.classes[common]
    assert (tmp_path / "p.html").exists()
