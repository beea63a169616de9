"""The command line: exit codes, messages on stderr, and the fixed JSON schema."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer
from conftest import Overfit, Shelves

from shelfcount import __version__, machine
from shelfcount.cli import app
from shelfcount.cli.app import VERBS, Verb
from shelfcount.data.datasets import fingerprint
from shelfcount.deploy import convert
from shelfcount.labels.corrections import Correction, Corrections, write_corrections
from shelfcount.runtime.bundle import read_bundle, spec_digest
from shelfcount.shelf.count import CSV_COLUMNS
from shelfcount.vision.images import read_photo


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Shelfcount = Callable[..., Said]


@pytest.fixture
def shelfcount(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shelfcount:
    """Runs a verb through the entry point, in this process."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["shelfcount", *map(str, arguments)])
        code: object = 0
        try:
            app.main()
        except SystemExit as stop:
            code = stop.code or 0
        said = capsys.readouterr()
        assert isinstance(code, int)
        return Said(code, said.out, said.err)

    return run


def refused(said: Said, *parts: str) -> None:
    """Exit code 2, and the reason on stderr alone, in one line's form and without a traceback."""
    assert said.code == 2, said
    for part in parts:
        assert part in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


# ---------------------------------------------------------------- misuse


def test_help_lists_the_verbs(shelfcount: Shelfcount) -> None:
    said = shelfcount("--help")
    assert said.code == 0
    for verb in ("synth", "train", "export", "verify", "count", "evaluate", "bench"):
        assert verb in said.out


def test_unknown_verb_and_option_are_misuse(shelfcount: Shelfcount) -> None:
    assert shelfcount("cuont").code == 2
    said = shelfcount("count", "--jsno", "x")
    assert said.code == 2
    assert "--jsno" in said.err


def test_version_is_printed(shelfcount: Shelfcount) -> None:
    assert shelfcount("--version") == Said(0, f"shelfcount {__version__}\n", "")


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_help_of_a_verb_ends_with_an_example_that_is_valid(
    shelfcount: Shelfcount, verb: Verb
) -> None:
    said = shelfcount(verb.name, "--help")
    assert said.code == 0
    assert said.out.splitlines()[-1] == f"    shelfcount {verb.example}"
    # Parsing alone: the options exist, and none that is required is missing.
    command = typer.main.get_command(app.app).commands[verb.name]  # type: ignore[attr-defined]
    assert command.make_context(verb.name, shlex.split(verb.example)[1:]).params


@pytest.mark.parametrize(
    ("module", "verbs"),
    [
        ("scipy", {"check", "evaluate", "bench", "train", "repeat", "export"}),
        ("torch", {"train", "repeat", "export"}),
        ("litert_torch", {"export"}),
    ],
)
def test_a_missing_extra_is_named_before_the_arguments(
    shelfcount: Shelfcount, monkeypatch: pytest.MonkeyPatch, module: str, verbs: set[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    for verb in VERBS:
        said = shelfcount(verb.name, "--no-such-option")
        assert said.code == 2
        message = (
            f"`{verb.name}` needs the {verb.extra} extra: pip install 'shelfcount[{verb.extra}]'"
        )
        assert (message in said.err) == (verb.name in verbs)
        assert ("--no-such-option" in said.err) == (verb.name not in verbs)
    refused(
        shelfcount("propose", "--folds", 2, "--data", "x.json", "--out", "c.json"),
        "`propose --folds` needs the train extra" if module != "litert_torch" else "x.json",
    )


def test_a_run_without_torch_is_refused(
    shelfcount: Shelfcount, tmp_path: Path, shelves: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    (tmp_path / "config.toml").touch()
    refused(
        shelfcount("evaluate", tmp_path, "--data", shelves.val_json),
        "is a run, which needs the train extra: pip install 'shelfcount[train]'",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_verb_with_its_exit_code(tmp_path: Path, number: signal.Signals) -> None:
    arguments = ["synth", "--out", str(tmp_path / "s"), "--photos", "10000", "--workers", "1"]

    def interruptible() -> None:
        # A shell that starts the tests in the background ignores interrupts for its children.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        [sys.executable, "-m", "shelfcount", *arguments],
        stderr=subprocess.PIPE,
        preexec_fn=interruptible,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.jpg")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_unknown_config_key_names_the_near_one(shelfcount: Shelfcount, tmp_path: Path) -> None:
    said = shelfcount(
        "train", "--data", tmp_path / "none.json", "--out", tmp_path / "run", "--set", "train.lrr=1"
    )
    refused(said, "train.lrr: unknown key. Did you mean 'train.lr'?")
    assert not (tmp_path / "run").exists()


def test_missing_data_are_named(shelfcount: Shelfcount, tmp_path: Path) -> None:
    refused(
        shelfcount("train", "--data", tmp_path / "none.json", "--out", tmp_path / "run"),
        "none.json",
    )


def test_size_must_be_two_numbers(shelfcount: Shelfcount, tmp_path: Path) -> None:
    said = shelfcount("synth", "--out", tmp_path / "s", "--size", "big")
    refused(said, "--size needs two whole numbers such as 640x480, got 'big'")


def test_no_permission_is_told_without_a_traceback(
    shelfcount: Shelfcount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "s"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    refused(
        shelfcount(
            "synth", "--out", tmp_path / "s", "--photos", 1, "--size", "64x64", "--workers", 1
        ),
        "Permission denied",
        str(tmp_path / "s"),
    )


# ---------------------------------------------------------------- synth


def test_synth_writes_labels_that_can_be_read(shelfcount: Shelfcount, tmp_path: Path) -> None:
    arguments = (
        "synth",
        "--out",
        tmp_path / "s",
        "--photos",
        2,
        "--classes",
        2,
        "--size",
        "128x96",
        "--facings",
        "3-4",
        "--workers",
        1,
    )
    said = shelfcount(*arguments)
    assert said.code == 0
    assert said.out.startswith("2 photos, ")
    labels = json.loads((tmp_path / "s" / "labels.json").read_text())
    assert [(i["width"], i["height"]) for i in labels["images"]] == [(128, 96)] * 2
    refused(shelfcount(*arguments), "is not an empty folder")
    assert shelfcount(*arguments, "--force").code == 0


# ---------------------------------------------------------------- train and export


@pytest.mark.usefixtures("one_thread")
def test_train_writes_a_run_and_keeps_an_old_one(
    shelfcount: Shelfcount, tmp_path: Path, shelves: Shelves, tiny: tuple[str, ...]
) -> None:
    sets = [part for change in (*tiny, "train.epochs=1") for part in ("--set", change)]
    arguments = ("train", "--data", shelves.train_json, "--out", tmp_path / "run", *sets)
    said = shelfcount(*arguments)
    assert said.code == 0, said
    assert f"run: {tmp_path / 'run'}" in said.out
    # A seventh of 8 photos, by groups.
    assert "no --val: 1 of 8 photos" in said.err
    assert {"config.toml", "spec.json", "model.safetensors", "history.csv", "data.json"} <= {
        p.name for p in (tmp_path / "run").iterdir()
    }
    refused(
        shelfcount(*arguments),
        "contains a run already. Continue it with --resume, start over with --force",
    )


def test_slow_precision_is_warned_of(
    shelfcount: Shelfcount,
    tmp_path: Path,
    shelves: Shelves,
    tiny: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "instructions", frozenset)
    told = {}
    for precision in ("bf16-mixed", "auto"):
        sets = [
            part
            for change in (*tiny, "train.accelerator=cpu", f"train.precision={precision}")
            for part in ("--set", change)
        ]
        # Nothing is there to go on with, so that nothing is trained.
        said = shelfcount(
            "train", "--data", shelves.train_json, "--out", tmp_path / "run", "--resume", *sets
        )
        refused(said, "nothing to resume")
        told[precision] = said.err
    assert "has no instructions for bfloat16" in told["bf16-mixed"]
    assert "bfloat16" not in told["auto"]
    assert "epochs in 32-true; log in" in told["auto"]


def test_corrections_must_name_the_labels_given(
    shelfcount: Shelfcount, tmp_path: Path, shelves: Shelves
) -> None:
    empty = Corrections("other.json", "0" * 64, (), ())
    write_corrections(empty, tmp_path / "c.json")
    said = shelfcount(
        "train",
        "--data",
        shelves.train_json,
        "--out",
        tmp_path / "run",
        "--corrections",
        tmp_path / "c.json",
    )
    refused(
        said,
        "c.json' corrects the labels of 'other.json', but the labels given are labels.json. "
        "Leave the file out, or give the labels that it names.",
    )


@pytest.mark.slow
def test_evaluate_on_corrected_labels(
    shelfcount: Shelfcount, tmp_path: Path, bundle: Path, overfit: Overfit
) -> None:
    # One label taken away: one product less to be found.
    first = overfit.photos.photos[0]
    x0, y0, x1, y1 = first.truth.boxes[0].tolist()
    gone = Correction(
        first.path.name,
        "remove",
        (x0, y0, x1 - x0, y1 - y0),
        "for the test",
        overfit.photos.classes[first.truth.classes[0]],
    )
    write_corrections(
        Corrections(overfit.labels.name, fingerprint(overfit.photos), (gone,), ()),
        tmp_path / "c.json",
    )
    for name, extra in (("plain", ()), ("corrected", ("--corrections", tmp_path / "c.json"))):
        said = shelfcount(
            "evaluate",
            bundle,
            "--data",
            overfit.labels,
            "--json",
            tmp_path / f"{name}.json",
            *extra,
        )
        assert said.code == 0, said
    plain, corrected = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("plain", "corrected")
    )
    assert corrected["boxes"] == plain["boxes"] - 1
    assert corrected["data"]["fingerprint"] != plain["data"]["fingerprint"]


@pytest.mark.slow
def test_export_writes_a_bundle_that_verifies(
    shelfcount: Shelfcount,
    tmp_path: Path,
    overfit: Overfit,
    converted: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Converting is tested in test_deploy.py and takes its time.
    monkeypatch.setattr(convert, "to_litert", lambda net, spec: converted)
    said = shelfcount("export", overfit.run, "--out", tmp_path / "b")
    assert said.code == 0, said
    assert "PyTorch 0.9" in said.out or "PyTorch 1.0" in said.out
    assert "points)" in said.out
    measured = read_bundle(tmp_path / "b").measured
    assert measured["f1_pytorch"] > 0.9
    assert measured["calibration_photos"] == measured["validation_photos"] == 4
    assert shelfcount("verify", tmp_path / "b").out.startswith("good: ")
    refused(
        shelfcount("export", overfit.run, "--out", tmp_path / "b"),
        "exists already. Choose another --out, or replace it with --force",
    )
    refused(
        shelfcount("export", overfit.run, "--out", tmp_path / "c", "--recipe", "int4"),
        "unknown recipe 'int4'",
    )
    refused(shelfcount("export", tmp_path / "b", "--out", tmp_path / "c"), "config.toml")


@pytest.mark.slow
def test_export_of_a_run_whose_photos_moved_says_what_to_give(
    shelfcount: Shelfcount, tmp_path: Path, overfit: Overfit
) -> None:
    run = shutil.copytree(overfit.run, tmp_path / "run")
    gone = {"train": str(tmp_path / "gone.json"), "val": None, "class_names": None}
    (run / "data.json").write_text(json.dumps(gone))
    refused(
        shelfcount("export", run, "--out", tmp_path / "b"),
        "gone.json",
        "give their location with --data, --val and --corrections",
    )


@pytest.mark.slow
def test_export_of_a_run_that_was_handed_on_takes_its_photos_from_the_options(
    shelfcount: Shelfcount,
    tmp_path: Path,
    overfit: Overfit,
    converted: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convert, "to_litert", lambda net, spec: converted)
    run = shutil.copytree(
        overfit.run,
        tmp_path / "run",
        ignore=shutil.ignore_patterns("data.json", "checkpoints", "tensorboard"),
    )
    refused(
        shelfcount("export", run, "--out", tmp_path / "b", "--recipe", "float16"),
        "Give --data and --val",
    )
    photos = ("--data", overfit.labels, "--val", overfit.labels)
    said = shelfcount("export", run, "--out", tmp_path / "b", "--recipe", "float16", *photos)
    assert said.code == 0, said
    assert read_bundle(tmp_path / "b").measured["validation_photos"] == 4
    missing = tmp_path / "no.json"
    refused(
        shelfcount("export", run, "--out", tmp_path / "c", *photos, "--corrections", missing),
        "no.json",
        "and --corrections",
    )


# ---------------------------------------------------------------- verify


@pytest.mark.slow
def test_damaged_bundle_is_a_negative_verdict(
    shelfcount: Shelfcount, tmp_path: Path, bundle: Path
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    assert shelfcount("verify", copy).code == 0
    model = bytearray((copy / "model.tflite").read_bytes())
    model[1000] ^= 1
    (copy / "model.tflite").write_bytes(model)
    said = shelfcount("verify", copy)
    assert said.code == 1
    assert said.out.startswith("FAILED")
    assert "model.tflite' was changed or damaged" in said.out
    refused(shelfcount("count", copy, "photo.jpg"), "was changed or damaged")


@pytest.mark.slow
def test_bundle_that_breaks_the_contract_is_a_negative_verdict(
    shelfcount: Shelfcount, tmp_path: Path, bundle: Path
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    # Somebody swaps the two models and mends the checksums.
    (copy / "model.tflite").write_bytes((bundle / "model-raw.tflite").read_bytes())
    head = json.loads((copy / "model.json").read_text())
    head["files"]["model.tflite"] = head["files"]["model-raw.tflite"]
    (copy / "model.json").write_text(json.dumps({**head, "digest": spec_digest(head)}))
    said = shelfcount("verify", copy, "--json", tmp_path / "verdict.json")
    assert said.code == 1
    assert (
        "FAILED model.tflite: the inputs are image FLOAT32 [1, 96, 96, 3], "
        "but must be image UINT8 [1, 96, 96, 3]"
    ) in said.out
    assert json.loads((tmp_path / "verdict.json").read_text())["good"] is False


@pytest.mark.slow
def test_serve_answers_until_it_is_interrupted(bundle: Path) -> None:
    command = [sys.executable, "-m", "shelfcount", "serve", str(bundle), "--port", "0"]

    def interruptible() -> None:
        # If a shell started the tests in the background, they and the server ignore interrupts.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=interruptible
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        try:
            with urllib.request.urlopen(f"{address}bundle/labels.txt", timeout=10) as answer:
                assert answer.read() == (bundle / "labels.txt").read_bytes()
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=10) == 0


# ---------------------------------------------------------------- count


@pytest.mark.slow
def test_count_json_has_the_fixed_schema(
    shelfcount: Shelfcount, tmp_path: Path, bundle: Path, overfit: Overfit
) -> None:
    photos = [p.path for p in overfit.photos.photos]
    out = tmp_path / "counts.json"
    said = shelfcount(
        "count",
        bundle,
        *photos,
        "--json",
        out,
        "--csv",
        tmp_path / "counts.csv",
        "--picture",
        tmp_path / "pictures",
    )
    assert said.code == 0, said
    result = json.loads(out.read_text())
    # Key by key as the design fixes it: others script against it.
    assert list(result) == ["bundle", "photos", "merged"]
    assert result["bundle"] == {
        "name": "tiny-int8",
        "sha256": hashlib.sha256((bundle / "model.json").read_bytes()).hexdigest(),
    }
    assert result["merged"] is None
    assert [p["path"] for p in result["photos"]] == [str(p) for p in photos]
    classes = read_bundle(bundle).spec.classes
    for photo in result["photos"]:
        assert list(photo) == ["path", "width", "height", "quality", "detections", "counts"]
        assert (photo["width"], photo["height"]) == (256, 192)
        assert list(photo["quality"]) == ["fit", "advice", "checks"]
        for found in photo["detections"]:
            assert list(found) == ["class", "score", "box", "row", "position"]
            assert found["class"] in classes
            assert 0 <= found["score"] <= 1
            x, y, w, h = found["box"]
            assert min(x, y) >= 0
            assert w > 0
            assert h > 0
            assert x + w <= 256.01
            assert y + h <= 192.01
            assert isinstance(found["row"], int)
            assert isinstance(found["position"], int)
        assert photo["counts"] == Counter(found["class"] for found in photo["detections"])
    found = [item for photo in result["photos"] for item in photo["detections"]]
    # The network knows these photos by heart: a tenth more or less than their labels, no worse.
    assert len(found) == pytest.approx(overfit.photos.boxes, rel=0.1)
    assert f"{len(found)} products on 4 photos" in said.out

    with (tmp_path / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(CSV_COLUMNS)
    assert [(r["class"], float(r["score"]), float(r["x"]), int(r["row"])) for r in rows] == [
        (f["class"], f["score"], f["box"][0], f["row"]) for f in found
    ]
    for path in photos:
        picture = read_photo(tmp_path / "pictures" / f"{path.stem}.jpg")
        assert (picture != 0).any()


@pytest.mark.slow
def test_unreadable_photo_does_not_stop_the_others(
    shelfcount: Shelfcount, tmp_path: Path, bundle: Path, overfit: Overfit
) -> None:
    good = [p.path for p in overfit.photos.photos[:2]]
    bad = tmp_path / "cut.jpg"
    bad.write_bytes(good[0].read_bytes()[:2000])
    said = shelfcount("count", bundle, good[0], bad, good[1], "--json", tmp_path / "out.json")
    assert said.code == 1
    assert "not counted:" in said.err
    assert "cut.jpg" in said.err
    assert "on 2 photos; 1 not counted" in said.out
    assert [p["path"] for p in json.loads((tmp_path / "out.json").read_text())["photos"]] == [
        str(p) for p in good
    ]
    assert shelfcount("count", bundle, bad).code == 2


@pytest.mark.slow
def test_existing_results_are_kept_without_force(
    shelfcount: Shelfcount, tmp_path: Path, bundle: Path, overfit: Overfit
) -> None:
    photo, old = overfit.photos.photos[0].path, tmp_path / "old"
    old.write_text("mine")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / f"{photo.stem}.jpg").write_text("mine")
    for option, value in (("--json", old), ("--csv", old), ("--picture", tmp_path / "pictures")):
        refused(
            shelfcount("count", bundle, photo, option, value),
            "exists already. Choose another name, or overwrite it with --force",
        )
    refused(
        shelfcount("evaluate", bundle, "--data", overfit.labels, "--json", old), "exists already"
    )
    assert old.read_text() == "mine"
    assert shelfcount("count", bundle, photo, "--json", old, "--force").code == 0
    assert json.loads(old.read_text())["photos"]


@pytest.mark.slow
def test_photos_of_one_name_get_a_picture_each(
    shelfcount: Shelfcount, tmp_path: Path, bundle: Path, overfit: Overfit
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(overfit.photos.photos[0].path, tmp_path / folder / "shelf.jpg")
    assert (
        shelfcount(
            "count",
            bundle,
            tmp_path / "a" / "shelf.jpg",
            tmp_path / "b" / "shelf.jpg",
            "--picture",
            tmp_path / "p",
        ).code
        == 0
    )
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == ["shelf-2.jpg", "shelf.jpg"]


# ---------------------------------------------------------------- evaluate


@pytest.mark.slow
@pytest.mark.parametrize("what", ["run", "bundle"])
def test_evaluate_takes_a_run_or_a_bundle(
    shelfcount: Shelfcount, tmp_path: Path, overfit: Overfit, bundle: Path, what: str
) -> None:
    model = overfit.run if what == "run" else bundle
    said = shelfcount(
        "evaluate",
        model,
        "--data",
        overfit.labels,
        "--json",
        tmp_path / "e.json",
        "--picture",
        tmp_path / "confusion.png",
    )
    assert said.code == 0, said
    result = json.loads((tmp_path / "e.json").read_text())
    assert result["data"]["name"] == "few.json"
    assert len(result["data"]["fingerprint"]) == 64
    assert {"date", "commit", "versions", "device"} <= result["stamp"].keys()
    assert result["model"].get("sha256") == (
        read_bundle(bundle).sha256 if what == "bundle" else None
    )
    line = next(line for line in said.out.splitlines() if line.startswith("F1 at IoU 0.5"))
    # An overfitted float model must reach 0.9; int8 may lose a tenth, as test_deploy.py states.
    assert float(line.split()[-1]) > 0.8
    assert "mAP 0.5:0.95" in said.out
    assert "not measured" not in said.out
    assert result["best_threshold"]["f1"] >= result["f1"]
    assert (
        f"{result['best_threshold']['f1']:.4f} at {result['best_threshold']['threshold']:.4f}"
        in said.out
    )
    assert read_photo(tmp_path / "confusion.png").ndim == 3


@pytest.mark.slow
def test_evaluate_on_other_classes_is_refused(
    shelfcount: Shelfcount, tmp_path: Path, overfit: Overfit, bundle: Path
) -> None:
    labels = json.loads(overfit.labels.read_text())
    labels["categories"][0]["name"] = "chalk"
    other = overfit.labels.with_name("other.json")
    other.write_text(json.dumps(labels))
    refused(shelfcount("evaluate", bundle, "--data", other), "chalk")


def test_evaluate_of_neither_run_nor_bundle_is_refused(
    shelfcount: Shelfcount, tmp_path: Path, shelves: Shelves
) -> None:
    refused(shelfcount("evaluate", tmp_path, "--data", shelves.val_json), str(tmp_path))


# ---------------------------------------------------------------- the entry point as installed


def test_installed_entry_point_exits_with_the_code(tmp_path: Path) -> None:
    entry = Path(sys.executable).with_name("shelfcount")
    done = subprocess.run(
        [str(entry), "count", str(tmp_path), "photo.jpg"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "is not a bundle" in done.stderr
    assert np.size(done.stderr.splitlines()) == 1
