"""Tests of the Python API for counting: results, their display, and their conversion to tables."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import shelfcount
from shelfcount.counting.display import SHOWN_SIDE
from shelfcount.counting.results import ShelfCount
from shelfcount.records import Detections, ModelSpec, ShelfcountError
from shelfcount.shelf.planogram import write_plan
from shelfcount.vision.images import write_photo

PHOTO = np.random.default_rng(0).integers(0, 255, (120, 200, 3)).astype(np.uint8)


class Cooler:
    """Detector that returns the same products for every photo.

    The upper row has cola, cola, a gap and tea, the lower row two waters.
    """

    spec = ModelSpec("cooler", "none", ("cola", "tea", "water"), 128, 128, ())

    def detect(self, image: np.ndarray) -> Detections:
        boxes = [
            [10, 10, 30, 50],
            [32, 10, 52, 50],
            [76, 10, 96, 50],
            [10, 70, 30, 110],
            [32, 70, 52, 110],
        ]
        return Detections(boxes, [0, 0, 1, 2, 2], [0.9, 0.8, 0.7, 0.6, 0.5])


def one(photo: np.ndarray | Path = PHOTO) -> ShelfCount:
    (shelf,) = shelfcount.count(photo, Cooler())
    return shelf


def test_importing_shelfcount_loads_nothing_heavy() -> None:
    heavy = (
        "import sys, shelfcount; print([m for m in "
        "('numpy', 'cv2', 'torch', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", heavy], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
    with pytest.raises(AttributeError, match="module 'shelfcount' has no attribute 'counts'"):
        _ = shelfcount.counts  # type: ignore[attr-defined]


def test_one_photo() -> None:
    shelf = one()
    assert shelf.counts == {"cola": 2, "water": 2, "tea": 1}
    assert len(shelf) == 5
    assert shelf.products()[2] == {
        "class": "tea",
        "score": 0.7,
        "box": [76.0, 10.0, 20.0, 40.0],
        "row": 0,
        "position": 2,
    }
    (gap,) = shelf.arrangement.gaps
    assert (gap.row, gap.after, gap.facings) == (0, 1, 1)
    first, *lines = repr(shelf).splitlines()
    assert (first, lines[:3]) == (
        "photo 1: 5 products in 2 rows, 1 gap",
        ["  cola      2", "  water     2", "  tea       1"],
    )
    # A photo of noise fails the quality check.
    assert lines[3:] == [f"  failed the quality check: {advice}" for advice in shelf.advice] != []
    ((name, homography),) = shelf.placed
    assert name == "photo 1"
    np.testing.assert_array_equal(homography, np.eye(3))


def test_photos_that_cannot_be_read_are_named_and_the_others_counted(tmp_path: Path) -> None:
    good, missing = tmp_path / "<b>.png", tmp_path / "missing.jpg"
    write_photo(good, PHOTO)
    reported: list[tuple[int, int]] = []
    counted = shelfcount.count(
        [missing, good, PHOTO], Cooler(), progress=lambda *done: reported.append(done)
    )
    assert [shelf.name for shelf in counted] == [str(good), "photo 3"]
    assert counted.counts == {"cola": 4, "water": 4, "tea": 2}
    assert reported == [(1, 3), (2, 3), (3, 3)]
    assert repr(counted).splitlines()[0] == "10 products on 2 photos"
    assert "missing.jpg: cannot read photo" in repr(counted)
    with pytest.raises(
        ShelfcountError,
        match=r"no photo could be read, 1 photo given\. Counting .* one\.\n.*missing\.jpg",
    ):
        shelfcount.count(missing, Cooler())


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_arrays_that_are_no_photos_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(
        ShelfcountError, match=r"must be \(height, width, 3\) uint8 RGB, got \(4, 4"
    ):
        shelfcount.count(wrong, Cooler())


def test_a_notebook_shows_pictures(tmp_path: Path) -> None:
    picture = cv2.imdecode(np.frombuffer(one()._repr_jpeg_(), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert max(picture.shape[:2]) == SHOWN_SIDE
    photo = tmp_path / "<b>.png"
    write_photo(photo, PHOTO)
    page = shelfcount.count([photo, PHOTO], Cooler())._repr_html_()
    assert page.count('<img src="data:image/jpeg;base64,') == 2
    # 5 products of 3 classes in 2 rows with 1 gap.
    assert "<td>photo 2</td><td>5</td><td>3</td><td>2</td><td>1</td>" in page
    assert "&lt;b&gt;.png" in page
    assert "<b>" not in page


def test_against_a_plan(tmp_path: Path) -> None:
    shelf = one()
    plan = shelf.to_planogram("cooler")
    assert shelf.check_compliance(plan).score == 1

    class Changed(Cooler):
        def detect(self, image: np.ndarray) -> Detections:
            return super().detect(image).replace(classes=[0, 0, 1, 2, 1])

    write_plan(tmp_path / "plan.json", plan)
    (today,) = shelfcount.count(PHOTO, Changed())
    verdict = today.check_compliance(tmp_path / "plan.json")
    assert repr(verdict).splitlines() == [
        "photo 1: 80 % as planned",
        "  row 1: tea stands on 1 facing of water",
    ]
    assert verdict._repr_jpeg_()[:2] == b"\xff\xd8"
    content = json.loads(json.dumps(verdict.to_json()))
    assert content["photos"] == [{"path": "photo 1", "homography": np.eye(3).tolist()}]
    assert (content["score"], content["notes"], len(content["deviations"])) == (0.8, [], 1)


def test_pandas() -> None:
    counted = shelfcount.count([PHOTO, PHOTO], Cooler())
    table = counted.to_pandas()
    assert table.columns.tolist() == [
        "photo",
        "class",
        "score",
        "x",
        "y",
        "w",
        "h",
        "row",
        "position",
        "facing",
        "level",
    ]
    assert table.groupby(["photo", "class"]).size().tolist() == [2, 1, 2, 2, 1, 2]
    assert table.loc[2, ["x", "y", "w", "h", "facing", "level"]].tolist() == [76, 10, 20, 40, 2, 0]
    assert counted[0].check_compliance(counted[0].to_planogram()).to_pandas().empty


@pytest.mark.slow
def test_supervision() -> None:
    import supervision

    detections = one().to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert detections.xyxy[2].tolist() == [76, 10, 96, 50]
    assert detections["class_name"].tolist() == ["cola", "cola", "tea", "water", "water"]
    assert detections["row"].tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("package", "method"), [("pandas", "to_pandas"), ("supervision", "to_supervision")]
)
def test_what_is_not_installed_is_named(
    package: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        ShelfcountError,
        match=rf"{method}\(\) needs {package}.*No module named.*pip install {package}",
    ):
        getattr(one(), method)()


def halves(released: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a golden photo of the released bundle, and two parts that share 0.32 of its width."""
    photo = cv2.imread(str(released / "golden" / "1.jpg"))
    whole = cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
    width = whole.shape[1]
    return whole, [whole[:, : round(0.62 * width)], whole[:, round(0.3 * width) :]]


@pytest.mark.slow
def test_parts_of_a_photo_merge_to_the_whole(released: Path) -> None:
    whole, parts = halves(released)
    known, *views = shelfcount.count([whole, *parts], released)
    shelf = shelfcount.count(parts, released).merge()
    assert shelf.notes == ()
    assert [name for name, _ in shelf.placed] == ["photo 1", "photo 2"]
    # Each product is counted once: fewer than on both parts together, and about as many as on the
    # whole photo.
    assert len(shelf) < sum(map(len, views))
    assert abs(len(shelf) - len(known)) <= 0.15 * len(known)
    assert shelf.image.shape[2] == 3
    assert shelf.detections.boxes[:, 2].max() <= shelf.image.shape[1]
    assert {"photo", "seen_in"} < set(shelf.products()[0])
    # A photo that shows something else is named.
    stranger = shelfcount.count([*parts, PHOTO], released).merge()
    assert [note.split(":")[0] for note in stranger.notes] == ["photo 3"]


@pytest.mark.slow
def test_the_verb_judges_several_photos_as_one_shelf(released: Path, tmp_path: Path) -> None:
    _, parts = halves(released)
    for name, part in zip(("left.png", "right.png"), parts, strict=True):
        write_photo(tmp_path / name, part)

    def planogram(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "shelfcount",
            "planogram",
            str(released),
            *arguments,
            "--plan",
            "plan.json",
        ]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    learnt = planogram("left.png", "right.png", "--learn")
    assert learnt.returncode == 0, learnt.stderr
    met = planogram("right.png", "left.png", "--json", "verdict.json", "--picture", "verdict.jpg")
    assert met.returncode == 0, met.stdout + met.stderr
    assert "2 photos of one shelf: 100 % as planned" in met.stdout
    content = json.loads((tmp_path / "verdict.json").read_text())
    assert [photo["path"] for photo in content["photos"]] == ["right.png", "left.png"]
    assert (tmp_path / "verdict.jpg").stat().st_size > 0
    half = planogram("left.png")
    assert half.returncode == 1
    assert "is missing" in half.stdout
    write_photo(tmp_path / "noise.png", PHOTO)
    refused = planogram("left.png", "noise.png", "--learn", "--force")
    assert refused.returncode == 2
    assert "1 photo cannot be merged with the others, see above." in refused.stderr
