"""Tests of the difference between two versions of labels, and of `shelfcount correct`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from shelfcount.cli.app import app
from shelfcount.data.coco import write_coco
from shelfcount.data.datasets import fingerprint, require_reachable_photos
from shelfcount.data.formats import read_labels
from shelfcount.labels.corrections import (
    Correction,
    Corrections,
    apply_corrections,
    write_corrections,
)
from shelfcount.labels.label_changes import difference
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError

FIRST, SECOND, FREE, ALSO_FREE = [(left, 10.0, 20.0, 40.0) for left in (10.0, 40.0, 70.0, 95.0)]


@pytest.fixture
def shop(tmp_path: Path) -> Dataset:
    """Two photos with a cola and a tea each, labelled in labels.json."""
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (120, 60)).save(tmp_path / name)
    truth = Detections([[10, 10, 30, 50], [40, 10, 60, 50]], [0, 1])
    photos = tuple(Photo(tmp_path / name, 120, 60, truth) for name in ("a.jpg", "b.jpg"))
    write_coco(Dataset(("cola", "tea"), photos), tmp_path / "labels.json")
    return read_labels(tmp_path / "labels.json")


@pytest.fixture
def made(shop: Dataset) -> Corrections:
    changes = (
        Correction("a.jpg", "add", FREE, "seen", "tea"),
        Correction("a.jpg", "add", ALSO_FREE, "seen", "tea"),
        Correction("a.jpg", "rename", FIRST, "seen", "cola", to_class="tea"),
        Correction("b.jpg", "ignore", SECOND, "blurred", "tea"),
        Correction("b.jpg", "remove", FIRST, "no", "cola", decision="refused"),
        Correction("b.jpg", "add", FREE, "perhaps", "cola", decision="undecided"),
    )
    return Corrections("labels.json", fingerprint(shop), changes)


def test_difference_counts_and_names_what_was_done(shop: Dataset, made: Corrections) -> None:
    after = apply_corrections(shop, [made])
    changes = difference(shop, after, [made])
    assert changes.decisions == {"accepted": 4, "refused": 1, "undecided": 1}
    assert {action: n for action, n in changes.actions.items() if n} == {
        "add": 2,
        "rename": 1,
        "ignore": 1,
    }
    # One of two colas is renamed to tea, one of two teas is ignored, and two teas are added.
    assert changes.classes == {"cola": (2, 1), "tea": (2, 4)}
    assert changes.lines() == [
        "changes on 2 of 2 photos: 2 added, 1 renamed, 1 ignored; left out: 1 refused, 1 undecided",
        f"labels {fingerprint(shop)[:12]} -> {fingerprint(after)[:12]}",
        "  cola: 2 -> 1 (-1)",
        "  tea: 2 -> 4 (+2)",
        "  a.jpg: + tea (x 2), cola -> tea",
        "  b.jpg: tea ignored",
    ]


def test_what_two_files_say_alike_counts_once(shop: Dataset, made: Corrections) -> None:
    changes = difference(shop, apply_corrections(shop, [made, made]), [made, made])
    assert changes.decisions["accepted"] == 4


def test_no_correction_is_no_difference(shop: Dataset) -> None:
    none = [Corrections("labels.json", fingerprint(shop))]
    assert (
        difference(shop, apply_corrections(shop, none), none).lines()[0]
        == "changes on 0 of 2 photos: none"
    )


def test_new_labels_must_find_their_photos(shop: Dataset, tmp_path: Path) -> None:
    require_reachable_photos(shop, tmp_path / "new.json")
    with pytest.raises(
        ShelfcountError,
        match=f"photo 'a.jpg' in '{tmp_path}' cannot be found from new labels in '.*/far'",
    ):
        require_reachable_photos(shop, tmp_path / "far" / "new.json")


def test_verb_writes_a_version_of_its_own(shop: Dataset, made: Corrections, tmp_path: Path) -> None:
    write_corrections(made, tmp_path / "c.json")
    arguments = [
        "correct",
        "--data",
        f"{tmp_path}/labels.json",
        "--corrections",
        f"{tmp_path}/c.json",
        "--out",
        f"{tmp_path}/new.json",
    ]
    outcome = CliRunner().invoke(app, [*arguments, "--json", f"{tmp_path}/diff.json"])
    assert outcome.exit_code == 0, outcome.output
    assert "cola -> tea" in outcome.output
    written = read_labels(tmp_path / "new.json")
    result = json.loads((tmp_path / "diff.json").read_text())
    assert (
        result["fingerprint"]
        == fingerprint(written)
        != result["fingerprint_before"]
        == fingerprint(shop)
    )
    assert read_labels(tmp_path / "labels.json").boxes == 4
    assert sum(np.count_nonzero(~photo.truth.ignore) for photo in written.photos) == 5
    assert isinstance(CliRunner().invoke(app, arguments).exception, ShelfcountError)


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (["correct"], "no corrections were given"),
        (["propose"], "either a bundle or run that was not trained on these photos, or --folds"),
        (["propose"], "got neither"),
        (["propose", "bundle", "--folds", "2"], "got both"),
        (
            ["propose", "bundle", "--set", "train.epochs=1"],
            "--depth, --runs, --config and --set belong to --folds, got the model 'bundle'",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    shop: Dataset, tmp_path: Path, verb: list[str], message: str
) -> None:
    files = ["--data", f"{tmp_path}/labels.json", "--out", f"{tmp_path}/new.json"]
    outcome = CliRunner().invoke(app, [*verb, *files])
    assert message in str(outcome.exception)
