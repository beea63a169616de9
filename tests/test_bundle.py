"""Tests of bundles: damaged bundles are refused, writing is atomic, user files are kept."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shelfcount.deploy.bundle import BUNDLE_FILES, require_replaceable, write_bundle
from shelfcount.records import AnchorLevel, ModelSpec, ShelfcountError
from shelfcount.runtime import bundle as bundle_module
from shelfcount.runtime.bundle import LiteRTDetector, find_bundle, read_bundle, spec_digest

SPEC = ModelSpec(
    "tiny",
    "mobilenet_v2_050",
    ("cola", "Käse 1\u2028x"),
    64,
    64,
    (AnchorLevel(8, ((20.0, 10.0),)),),
    0.31,
)
MODEL = b"TFL3 not read by the reader" * 5
FILES = {"model.tflite": MODEL, "model-raw.tflite": MODEL}
OTHER = {**FILES, "model.tflite": MODEL[1:]}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "shelf"
    write_bundle(folder, SPEC, FILES, "int8", {"f1": 0.5})
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "shelf"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change model.json and update its digest."""
    head = json.loads((folder / "model.json").read_text())
    change(head)
    head["digest"] = spec_digest(head)
    (folder / "model.json").write_text(json.dumps(head))


# ---------------------------------------------------------------- reading


def test_bundle_comes_back_as_written(written: Path) -> None:
    bundle = read_bundle(written)
    assert bundle.name == "shelf"
    assert bundle.recipe == "int8"
    assert bundle.measured == {"f1": 0.5}
    assert bundle.model_bytes == len(MODEL)
    assert bundle.sha256 == hashlib.sha256((written / "model.json").read_bytes()).hexdigest()
    assert (bundle.spec.classes, bundle.spec.levels, bundle.spec.score_threshold) == (
        SPEC.classes,
        SPEC.levels,
        0.31,
    )
    assert "torch" in bundle.spec.provenance["export_versions"]
    assert (written / "labels.txt").read_bytes() == "cola\nKäse 1\u2028x\n".encode()
    assert sorted(p.name for p in written.iterdir()) == [
        "labels.txt",
        "model-raw.tflite",
        "model.json",
        "model.tflite",
    ]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["model.tflite", "labels.txt", "model.json"]),
    at=st.integers(0, 10**6),
    flip=st.integers(1, 255),
)
def test_any_changed_byte_is_refused_by_name(
    written: Path, tmp_path: Path, name: str, at: int, flip: int
) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "copy", dirs_exist_ok=True))
    data = bytearray((written / name).read_bytes())
    data[at % len(data)] ^= flip
    (folder / name).write_bytes(data)
    try:
        unchanged = json.loads((written / "model.json").read_text())
        # Some changes do not alter the content: a blank for a line break, an A in an escape.
        if name == "model.json" and json.loads(bytes(data)) == unchanged:
            return
    except ValueError:
        pass
    with pytest.raises(ShelfcountError, match=rf"copy(/{name})?'"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["model.tflite", "labels.txt", "model.json"])
@pytest.mark.parametrize("left", [0, 1, -1])
def test_cut_file_is_refused_by_name(folder: Path, name: str, left: int) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:left])
    with pytest.raises(
        ShelfcountError,
        match=r"shelf' is not a bundle"
        if name == "model.json"
        else rf"shelf/{name}' was changed or damaged",
    ):
        read_bundle(folder)


def test_swapped_files_are_refused(folder: Path) -> None:
    (folder / "model.tflite").rename(folder / "x")
    (folder / "labels.txt").rename(folder / "model.tflite")
    (folder / "x").rename(folder / "labels.txt")
    with pytest.raises(
        ShelfcountError,
        match=rf"model\.tflite' was changed .* must be {hashlib.sha256(MODEL).hexdigest()[:12]}",
    ):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["model.tflite", "labels.txt"])
def test_missing_file_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(
        ShelfcountError, match=rf"cannot read '{name}' of bundle '.*shelf': No such"
    ):
        read_bundle(folder)
    (folder / name).mkdir()
    with pytest.raises(
        ShelfcountError, match=rf"cannot read '{name}' of bundle '.*shelf': Is a dir"
    ):
        read_bundle(folder)


def test_released_bundle_is_found_by_name(released: Path) -> None:
    assert find_bundle("drinks-int8") == Path(__file__).parents[1] / "export/release/drinks-int8"
    assert read_bundle("drinks-int8").sha256 == read_bundle(released).sha256
    # A name that is not packaged stays as it is, as does a path that only ends in a name.
    assert find_bundle("drinks") == Path("drinks")
    assert find_bundle("bundles/drinks-int8") == Path("bundles/drinks-int8")


def test_folder_takes_precedence_over_a_packaged_bundle(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    folder.rename("drinks-int8")
    assert read_bundle("drinks-int8").spec.classes == SPEC.classes


def test_unknown_name_lists_the_packaged_bundles(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # drinks-float is a run, not a bundle.
    with pytest.raises(
        ShelfcountError, match=r"'drinks-int4' is not a bundle: .* only: drinks-int8\. `shelfcount"
    ):
        read_bundle("drinks-int4")
    monkeypatch.setattr(bundle_module, "RELEASE_FOLDERS", (tmp_path / "none", written.parent))
    with pytest.raises(ShelfcountError, match=r"'drinks-int8' is not a bundle: .* only: shelf\."):
        read_bundle("drinks-int8")
    monkeypatch.setattr(bundle_module, "RELEASE_FOLDERS", (tmp_path / "none",))
    with pytest.raises(ShelfcountError, match=r"only: none\."):
        read_bundle("drinks-int8")


def test_folder_without_model_json_says_how_to_make_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(
        ShelfcountError, match=r"is not a bundle: .*shelfcount export RUN --out BUNDLE"
    ):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda head: head.update(format=2),
            r"model\.json' must have format 1, got 2\. It was written by another version",
        ),
        (lambda head: head.pop("format"), r"model\.json' must have format 1, got None"),
        (lambda head: head.pop("recipe"), r"model\.json': field 'recipe' is missing"),
        (
            lambda head: head.update(files=["model.tflite"]),
            r"model\.json': field 'files' has the wrong type",
        ),
        (
            lambda head: head["files"].pop("labels.txt"),
            r"model\.json' does not list labels\.txt, "
            r"only \['model-raw\.tflite', 'model\.tflite'\]",
        ),
        (
            lambda head: head["spec"].update(height="tall"),
            r"model\.json': invalid model spec: height must be int, got 'tall'",
        ),
        (
            lambda head: head["spec"]["classes"].append("chalk"),
            r"labels\.txt' must list the 3 classes of model\.json in their order, got 2 lines",
        ),
        (lambda head: head["spec"]["classes"].reverse(), r"labels\.txt' must list the 2 classes"),
        (
            lambda head: head["files"].update({"../../secret": "0"}),
            r"lists '\.\./\.\./secret', which is outside the bundle",
        ),
        (
            lambda head: head["files"].update({"/etc/hostname": "0"}),
            "lists '/etc/hostname', which is outside the bundle",
        ),
    ],
)
def test_head_that_does_not_fit_is_refused_by_name(
    folder: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(folder, change)
    with pytest.raises(ShelfcountError, match=message):
        read_bundle(folder)


@pytest.mark.parametrize("text", ["[]", "null", "3", "\ufeff{}"])
def test_head_that_is_no_object_is_refused(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text)
    with pytest.raises(ShelfcountError, match=r"shelf(/model\.json)?'"):
        read_bundle(folder)


def test_file_that_is_no_model_is_refused_by_the_runtime(written: Path) -> None:
    with pytest.raises(ShelfcountError, match="LiteRT cannot load the model"):
        LiteRTDetector.open(written)


@pytest.mark.slow
def test_model_of_another_input_is_refused(bundle: Path) -> None:
    opened = read_bundle(bundle)
    wrong = ModelSpec("other", "mobilenet_v2_050", opened.spec.classes, 64, 64, opened.spec.levels)
    with pytest.raises(
        ShelfcountError,
        match=r"must take uint8 \(1, 64, 64, 3\) and give 4 outputs, got uint8 \(1, 96, 96, 3\)",
    ):
        LiteRTDetector((bundle / "model.tflite").read_bytes(), wrong)


@pytest.mark.slow
def test_opened_bundle_detects_on_a_photo_of_any_size(bundle: Path) -> None:
    detector = LiteRTDetector.open(bundle, score_threshold=0.06)
    for shape in ((96, 96, 3), (500, 131, 3), (1, 1, 3)):
        found = detector.detect(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        height, width = shape[:2]
        assert ((found.boxes >= 0) & (found.boxes <= [width, height, width, height])).all()
        assert (found.scores >= 0.06).all()


# ---------------------------------------------------------------- writing


def test_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", _no_room)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(tmp_path / "new", SPEC, FILES, "int8", {})
    assert not (tmp_path / "new").exists()


def _no_room(*_: Any, **__: Any) -> int:
    raise OSError(28, "No space left on device")


def test_failed_writing_leaves_the_old_bundle(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_bundle(folder).sha256
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", _no_room)
        with pytest.raises(OSError, match="No space left"):
            write_bundle(folder, SPEC, OTHER, "int8", {}, force=True)
    assert read_bundle(folder).sha256 == before
    # The next attempt removes the files that the last one left.
    assert write_bundle(folder, SPEC, OTHER, "int8", {}, force=True).sha256 != before
    assert [p.name for p in folder.parent.iterdir()] == ["shelf"]


def test_existing_is_kept_without_force(folder: Path) -> None:
    with pytest.raises(
        ShelfcountError,
        match=r"shelf' exists already\. Choose another --out, or replace it with --force",
    ):
        write_bundle(folder, SPEC, FILES, "int8", {})


@pytest.mark.parametrize(
    "content",
    [
        {"holiday.jpg": "x"},
        {"model.json": '{"modelTopology": {}}', "weights.bin": "x"},
        {"model.json": "{"},
    ],
)
def test_force_keeps_what_is_no_bundle(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ShelfcountError, match="is not a bundle; --force replaces bundles only"):
        require_replaceable(tmp_path, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(content)


def test_force_takes_an_empty_folder_or_a_damaged_bundle(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    require_replaceable(tmp_path / "empty", force=True)
    (folder / "model.tflite").unlink()
    require_replaceable(folder, force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ShelfcountError, match="is not a bundle"):
        require_replaceable(tmp_path / "file", force=True)


def test_the_table_of_files_covers_the_released_bundle() -> None:
    released = Path(__file__).parents[1] / "export" / "release" / "drinks-int8"
    files = [p.relative_to(released).as_posix() for p in released.rglob("*") if p.is_file()]
    assert [f for f in files if not any(fnmatch(f, name) for name in BUNDLE_FILES)] == []
    for name, file in BUNDLE_FILES.items():
        module, maker = file.maker.rsplit(".", 1)
        assert callable(getattr(importlib.import_module(f"shelfcount.{module}"), maker)), name


def test_a_file_that_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'notes\.txt' is not a file of a bundle: model.tflite, "):
        write_bundle(tmp_path / "b", SPEC, {**FILES, "notes.txt": b"x"}, "int8", {})
    assert not (tmp_path / "b").exists()
