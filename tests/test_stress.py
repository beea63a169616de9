"""Tests of robustness: metrics computed by hand on simple shapes, and the released bundle."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from shelfcount import config
from shelfcount.cli import app
from shelfcount.data import datasets
from shelfcount.metrics import uncertainty
from shelfcount.metrics.scoring import score
from shelfcount.records import AnchorLevel, Dataset, Detections, ModelSpec, Photo, ShelfcountError
from shelfcount.report import stress_page
from shelfcount.studies import stress, stress_conditions, stress_words
from shelfcount.studies.stress_examples import choose_examples
from shelfcount.vision.conditions import CONDITIONS
from shelfcount.vision.images import write_photo

NAMES = ("red", "green")
COLOURS = ((255, 0, 0), (0, 255, 0))
# Round products: (left, top, right, bottom), class.
PRODUCTS = (((60, 60, 90, 120), 0), ((120, 50, 170, 110), 1), ((100, 130, 130, 180), 1))


class Shapes:
    """Detector of red and green shapes whose brightness is above 100; exact in sufficient light."""

    # The classes are in another order than those of the data set.
    spec = ModelSpec(
        "shapes",
        "a",
        ("green", "red"),
        64,
        64,
        (AnchorLevel(8, ((20.0, 10.0),)),),
        score_threshold=0.05,
    )

    def __init__(self, score: float = 0.9) -> None:
        self.score = score

    def detect(self, image: np.ndarray) -> Detections:
        boxes, classes = [], []
        for c, channel in enumerate((1, 0)):
            lit = (image[:, :, channel].astype(int) - image[:, :, 1 - channel] > 100).astype(
                np.uint8
            )
            _, _, stats, _ = cv2.connectedComponentsWithStats(lit)
            boxes += [[x, y, x + w, y + h] for x, y, w, h, area in stats[1:] if area > 20]
            classes += [c] * (len(boxes) - len(classes))
        return Detections(boxes, classes, [self.score] * len(boxes))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three photos of the same products; the first two name a phone in their EXIF data."""
    folder, photos = tmp_path_factory.mktemp("shapes"), []
    for i, (make, model) in enumerate((("Google", "Pixel 4"), ("Google", "Pixel 4"), ("", ""))):
        image = np.zeros((220, 220, 3), np.uint8)
        for (left, top, right, bottom), c in PRODUCTS:
            center, axes = (
                ((left + right - 1) / 2, (top + bottom - 1) / 2),
                ((right - left) / 2, (bottom - top) / 2),
            )
            y, x = np.mgrid[:220, :220]
            image[((x - center[0]) / axes[0]) ** 2 + ((y - center[1]) / axes[1]) ** 2 <= 1] = (
                COLOURS[c]
            )
        path = folder / f"{i}.png"
        write_photo(path, image)
        if make:
            exif = Image.Exif()
            exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = make, model
            Image.open(path).save(path, exif=exif)
        photos.append(
            Photo(
                path, 220, 220, Detections([box for box, _ in PRODUCTS], [c for _, c in PRODUCTS])
            )
        )
    return Dataset(NAMES, tuple(photos), name="shapes.json")


def study(
    shelf: Dataset, names: str, severities: str = "", detector: Shapes | None = None
) -> stress.StressStudy:
    return stress.run_stress(
        [stress.StressedDetector("shapes", detector or Shapes(), 0.5)],
        shelf,
        *stress_conditions.choose_conditions(names, severities),
    )


def test_movements_of_the_camera_keep_the_detections(shelf: Dataset) -> None:
    result = study(shelf, "tilt,yaw,pitch", "1,3")
    for condition in ("tilt", "yaw", "pitch"):
        for severity in (1, 3):
            figures = result.figures(condition, severity, 0)
            assert figures == stress.StressScores(
                f1=1.0, lost=0.0, lost_error=0.0, count_error=0.0, consistency=1.0
            )


def test_products_in_the_dark_are_lost(shelf: Dataset) -> None:
    # 255 darkened by 5 stops is sRGB 50, below the detector's limit of 100; by one stop, it is 188.
    result = study(shelf, "dark", "1,5")
    assert result.figures("dark", 1, 0).f1 == 1
    assert result.figures("dark", 5, 0) == stress.StressScores(
        f1=0.0, lost=1.0, lost_error=0.0, count_error=1.0, consistency=0.0
    )
    summary = result.summary(CONDITIONS["dark"], 0)
    # Mean of 0 and 1; a loss of 0.05 is at 0.05 of the range from 1 EV to 5 EV.
    assert (summary.lost, summary.tolerated_up_to) == (0.5, pytest.approx(1.2))
    assert [c.name for c in result.weak_conditions()] == ["dark"]


def test_scores_below_the_threshold_do_not_count(shelf: Dataset) -> None:
    figures = study(shelf, "dark", "1", Shapes(score=0.4)).figures("dark", 1, 0)
    assert (figures.f1, figures.lost, figures.count_error, figures.consistency) == (0, 0, 1, None)


def test_the_weakest_condition_comes_first(shelf: Dataset) -> None:
    result = study(shelf, "tilt,dark", "5")
    assert [c.name for c in result.ranked()] == ["dark", "tilt"]
    listed = result.to_json()
    assert [c["name"] for c in listed["conditions"]] == ["dark", "tilt"]
    (step,) = listed["conditions"][0]["severities"]
    assert (step["severity"], step["value"], step["products"]) == (5, 5, 9)
    assert step["detectors"][0] == {
        "f1": 0.0,
        "lost": 1.0,
        "lost_error": 0.0,
        "count_error": 1.0,
        "consistency": 0.0,
    }
    json.dumps(listed)


def test_a_study_depends_on_the_seed_alone(shelf: Dataset) -> None:
    names = "glare,noise,motion"
    assert study(shelf, names, "5").to_json() == study(shelf, names, "5").to_json()


def test_the_generator_differs_by_photo_and_condition_only() -> None:
    draws = {
        (c, i): stress_conditions.condition_generator(0, c, i).random()
        for c in ("glare", "yaw")
        for i in (0, 1)
    }
    assert len(set(draws.values())) == 4
    assert stress_conditions.condition_generator(0, "yaw", 1).random() == draws["yaw", 1]


def test_parameter_at_which_the_loss_reaches_the_limit() -> None:
    # From 2 (loss 0.02) to 3 (loss 0.12) the loss rises by 0.1: 0.05 is at 0.3 of this range.
    assert stress.interpolated_limit(0, [1, 2, 3], [0.0, 0.02, 0.12]) == pytest.approx(2.3)
    # From the neutral 6,500 to 5,200 with a loss of 0.1: half of the range.
    assert stress.interpolated_limit(6500, [5200, 4300], [0.1, 0.2]) == pytest.approx(5850)
    assert stress.interpolated_limit(0, [1, 2], [-0.01, 0.049]) is None


def test_the_standard_error_is_that_of_resampled_photos() -> None:
    # Compared with the bootstrap: 4,000 draws of 30 photos with 20 products each, of which a random
    # number is detected.
    rng = np.random.default_rng(0)
    truth = Detections([[20 * i, 0, 20 * i + 15, 15] for i in range(20)], [0] * 20)
    photos = Dataset(NAMES, tuple(Photo(Path(f"{i}.jpg"), 400, 20, truth) for i in range(30)))
    detections = [truth[rng.random(20) < rng.uniform(0.3, 0.9)] for _ in photos.photos]
    result = score(photos, detections, 0.0, average_precision=False)
    hits, counted = (
        np.array([p.score.tp for p in result.photos]),
        np.array([p.score.truth + p.score.predicted for p in result.photos]),
    )
    drawn = rng.integers(0, 30, (4000, 30))
    bootstrap = (2 * hits[drawn].sum(axis=1) / counted[drawn].sum(axis=1)).std()
    assert uncertainty.standard_error(uncertainty.f1_influence(result)) == pytest.approx(
        bootstrap, rel=0.06
    )


def test_metrics_by_phone(shelf: Dataset) -> None:
    result = study(shelf, "dark", "1").to_json()
    assert result["phones"] == [
        {
            "phone": "Google Pixel 4",
            "photos": 2,
            "products": 6,
            "detectors": [{"f1": 1.0, "count_error": 0.0}],
        }
    ]


def test_lists_are_read_and_refused() -> None:
    conditions, severities = stress_conditions.choose_conditions("yaw, glare,yaw", "4,2")
    assert ([c.name for c in conditions], severities) == (["yaw", "glare"], (2, 4))
    assert len(stress_conditions.choose_conditions("", "")[0]) == len(CONDITIONS)
    with pytest.raises(
        ShelfcountError, match=r"unknown condition 'glair'\. Allowed conditions: dark, bright, "
    ):
        stress_conditions.choose_conditions("glair", "")
    with pytest.raises(
        ShelfcountError, match=r"unknown severity '0'\. Allowed severities: 1, 2, 3, 4, 5\."
    ):
        stress_conditions.choose_conditions("", "3,0")


def test_photos_are_drawn_evenly(shelf: Dataset) -> None:
    assert [p.path.name for p in datasets.evenly_spaced(shelf, 2).photos] == ["0.png", "2.png"]
    assert len(datasets.evenly_spaced(shelf, 50)) == 3


def test_a_detector_is_given_once(shelf: Dataset) -> None:
    twice = [stress.StressedDetector("shapes", Shapes(), 0.5)] * 2
    with pytest.raises(ShelfcountError, match="detector 'shapes' is given more than once"):
        stress.run_stress(twice, shelf, *stress_conditions.choose_conditions("dark", "1"))


def test_the_fix_is_a_config_that_training_reads(tmp_path: Path) -> None:
    base = config.load_config(changes=["train.epochs=7", 'augment.conditions=["yaw"]'])
    fixed = stress_conditions.add_conditions(base, [CONDITIONS["warm"], CONDITIONS["yaw"]])
    fixed.write(tmp_path / "fix.toml")
    read = config.load_config(tmp_path / "fix.toml")
    assert read == fixed
    assert (read.augment.conditions, read.train.epochs) == (("yaw", "warm"), 7)


def test_unknown_conditions_are_refused_by_the_config() -> None:
    with pytest.raises(
        ShelfcountError,
        match=r"augment.conditions: unknown condition 'glair', allowed are dark, .*",
    ):
        config.load_config(changes=['augment.conditions=["glair"]'])


def test_the_page_contains_the_results(shelf: Dataset, tmp_path: Path) -> None:
    result = study(shelf, "tilt,dark", "1,5")
    stamp = {"date": "2026-01-02 03:04 UTC", "commit": "abc", "device": "a server", "seed": 0}
    stress_page.write_stress_page(
        {
            **result.to_json(),
            "data": {"name": "shapes.json", "fingerprint": "f" * 64},
            "stamp": stamp,
        },
        choose_examples(result),
        tmp_path / "p.html",
    )
    page = " ".join((tmp_path / "p.html").read_text().split())
    assert "Largest F1 losses: too dark (−50.0 points on average)." in page
    assert page.index("Too dark") < page.index("Phone tilted")
    assert page.count("<polyline") == 4  # F1 and consistency of two conditions
    assert (
        "Of the 3 products detected on the unchanged photo, "
        "0 are still detected with box and class." in page
    )
    assert "Google Pixel 4" in page
    assert not re.search(r"https?://", page)


def test_the_picture_has_a_row_for_each_condition_and_detector(shelf: Dataset) -> None:
    subjects = [stress.StressedDetector(name, Shapes(), 0.5) for name in ("shapes", "same")]
    heights = []
    for names in ("dark", "dark,tilt"):
        result = stress.run_stress(
            subjects, shelf, *stress_conditions.choose_conditions(names, "1,5")
        ).to_json()
        heights.append(
            cv2.imdecode(
                np.frombuffer(stress_page.plot_stress(result), np.uint8), cv2.IMREAD_COLOR
            ).shape[0]
        )
    assert heights[1] > heights[0]


def test_numbers_of_the_page_in_words() -> None:
    assert (
        stress_words.format_points(-0.2174),
        stress_words.format_points(0.001),
        stress_words.format_points(-0.0002),
    ) == ("−21.7", "+0.1", "0.0")
    assert stress_words.format_points(None) == "not measured"
    condition = {"severities": [{"value": 300}, {"value": 3}]}
    words = [
        stress_words.tolerance_text({"tolerated_up_to": to, "never_tolerated": never}, condition)
        for to, never in ((4448.7, False), (None, False), (None, True))
    ]
    assert words == ["to 4,449", "beyond 3", "not even at 300"]


@pytest.mark.slow
def test_the_verb_on_the_released_bundle(
    drinks: Path, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [
        f"--{kind}={tmp_path / name}"
        for kind, name in (
            ("json", "s.json"),
            ("html", "s.html"),
            ("picture", "s.png"),
            ("fix", "s.toml"),
        )
    ]
    arguments = [
        "stress",
        str(released),
        "--data",
        str(drinks / "val.json"),
        "--photos",
        "2",
        "--conditions",
        "warm,uneven",
        *outputs,
    ]
    monkeypatch.setattr(sys, "argv", ["shelfcount", *arguments])
    app.app(standalone_mode=False)
    result = json.loads((tmp_path / "s.json").read_text())
    assert result["photos"] == 2
    assert result["detectors"][0]["name"] == f"{released.name} (int8)"
    assert result["stamp"]["seed"] == 0
    assert (tmp_path / "s.html").stat().st_size > 20_000
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    # The order depends on the bundle. The larger loss is first, and a small loss is not covered.
    lost = {c["name"]: c["detectors"][0]["lost"] for c in result["conditions"]}
    assert list(lost) == sorted(("uneven", "warm"), key=lambda name: -lost[name])
    covered = tomllib.loads((tmp_path / "s.toml").read_text())["augment"]["conditions"]
    assert set(covered) <= {name for name in lost if lost[name] >= result["tolerated"]}
    with pytest.raises(ShelfcountError, match=r"s.json' exists already"):
        app.app(standalone_mode=False)
