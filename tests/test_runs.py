"""Run folders: a saved run loads as the same detector, and errors name the damaged file."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shelfcount import config
from shelfcount.records import AnchorLevel, ModelSpec, ShelfcountError
from shelfcount.training import runs
from shelfcount.training.networks import build
from shelfcount.vision.images import read_photo

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = ModelSpec(
    "tiny",
    "mobilenet_v2_050",
    ("cola", "water"),
    64,
    96,
    (AnchorLevel(8, ((20.0, 10.0),)), AnchorLevel(16, ((40.0, 20.5),))),
    0.31,
    provenance={"seed": 3},
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    net = build(SPEC.architecture, 2, SPEC.levels, 16).eval()
    folder = tmp_path_factory.mktemp("runs") / "run"
    runs.save_run(
        folder,
        config.load_config(None, ["model.neck=16", "model.height=64", "model.width=96"]),
        SPEC,
        net,
    )
    return folder, net


@pytest.fixture
def run(saved: tuple[Path, torch.nn.Module], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved[0], tmp_path / "run"))


def test_saved_run_loads_as_the_same_network(saved: tuple[Path, torch.nn.Module]) -> None:
    folder, net = saved
    image = np.random.default_rng(0).integers(0, 256, (100, 50, 3), np.uint8)
    loaded = runs.load_run(folder)
    assert loaded.spec == SPEC
    for ours, theirs in zip(
        runs.TorchDetector(net, SPEC).heads(image), loaded.heads(image), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_heads_have_one_row_per_anchor_and_one_column_per_class(
    saved: tuple[Path, torch.nn.Module],
) -> None:
    location, scores = runs.load_run(saved[0]).heads(np.zeros((64, 96, 3), np.uint8))
    # 8 x 12 anchors at stride 8 and 4 x 6 at stride 16.
    assert location.shape == (120, 4)
    assert scores.shape == (120, 2)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_pixels_span_minus_one_to_one() -> None:
    torch.testing.assert_close(
        runs.normalise(torch.tensor([0, 255], dtype=torch.uint8)),
        torch.tensor([-127 / 127.5, 128 / 127.5]),
    )


def test_a_threshold_replaces_that_of_the_spec(saved: tuple[Path, torch.nn.Module]) -> None:
    assert runs.load_run(saved[0]).spec.score_threshold == 0.31
    assert runs.load_run(saved[0], 0.05).spec.score_threshold == 0.05


def test_sources_are_saved_as_absolute_paths(run: Path) -> None:
    runs.write_sources(run, runs.Sources("here/train.json", corrections=(Path("c.json"),)))
    assert runs.read_sources(run) == runs.Sources(
        str(Path("here/train.json").resolve()), corrections=(Path("c.json").resolve(),)
    )


def test_run_without_sources_says_which_options_to_give(run: Path) -> None:
    with pytest.raises(
        ShelfcountError,
        match=r"cannot read the photo locations of run '.*run' from data\.json \(.*No such file"
        r".*\)\. Give --data and --val",
    ):
        runs.read_sources(run)
    (run / "data.json").write_text('{"train": "a"}')
    with pytest.raises(ShelfcountError, match=r"data\.json \('class_names' is missing\)"):
        runs.read_sources(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": "64"}, "height must be int, got '64'"),
        ({"height": 65}, "multiple of every stride, got 65 x 96 and stride 8"),
        ({"levels": [{"stride": 8}]}, "field 'sizes' is missing"),
        ({"levels": [{"stride": 0, "sizes": [[1, 1]]}]}, "stride and sizes above 0, got stride 0"),
        ({"classes": []}, "the model has no classes. It must have at least one"),
        ({"score_threshold": 2}, r"score_threshold must be in \[0, 1\] and .*, got 2 and"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"product_px": None}, "product_px and levels must be lists"),
    ],
)
def test_spec_with_a_wrong_field_is_refused_by_name(
    run: Path, change: dict[str, Any], message: str
) -> None:
    data = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps({**data, **change}))
    with pytest.raises(ShelfcountError, match=rf"spec\.json'.*{message}"):
        runs.load_run(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"cannot read '.*spec\.json'"),
        ("[1]", r"spec\.json' must contain a JSON object, got list"),
        ("\udcff", r"cannot read '.*spec\.json'"),
    ],
)
def test_spec_that_is_no_object_is_refused_by_name(run: Path, text: str, message: str) -> None:
    (run / "spec.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ShelfcountError, match=message):
        runs.load_run(run)


def test_unfinished_run_says_how_to_finish_it(run: Path) -> None:
    (run / "spec.json").unlink()
    with pytest.raises(
        ShelfcountError,
        match=r"not a finished run: it has no spec\.json\. "
        r"Finish it with `shelfcount train \.\.\. --resume`",
    ):
        runs.load_run(run)


def test_garbage_for_weights_is_refused_by_name(run: Path) -> None:
    weights = run / "model.safetensors"
    for data in (b"", b"\xff" * 64, weights.read_bytes()[:-10]):
        weights.write_bytes(data)
        with pytest.raises(ShelfcountError, match=r"cannot read weights '.*model\.safetensors'"):
            runs.load_run(run)
    weights.unlink()
    with pytest.raises(ShelfcountError, match=r"cannot read weights '.*model\.safetensors'"):
        runs.load_run(run)


def test_weights_of_another_model_are_refused(run: Path) -> None:
    data = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps({**data, "classes": ["cola", "water", "juice"]}))
    with pytest.raises(
        ShelfcountError,
        match=r"weights in '.*run' do not fit its spec\.json: (?s:.*)classify\.predict",
    ):
        runs.load_run(run)


def test_the_float_run_of_the_release_counts_like_the_released_bundle() -> None:
    release = Path(__file__).parents[1] / "export" / "release"
    assert not (release / "drinks-float" / runs.SOURCES).exists(), (
        "its paths would be valid on one machine only"
    )
    detector, golden = runs.load_run(release / "drinks-float"), release / "drinks-int8" / "golden"
    photos = json.loads((golden / "golden.json").read_text())["photos"]
    same, counted = 0, 0
    for photo in photos:
        counts = Counter(
            detector.detect(read_photo(golden / photo["file"])).counts(detector.spec.classes)
        )
        same += (counts & Counter(photo["counts"])).total()
        counted += (counts | Counter(photo["counts"])).total()
    # The bundle was fine-tuned from this run with fake quantization, so most counts agree. With
    # other weights, almost none would.
    assert same >= 0.8 * counted
