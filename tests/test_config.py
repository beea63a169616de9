"""Tests of the configuration: error messages, --set changes, TOML round trip."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from shelfcount.config import Config, load_config, validate_config
from shelfcount.records import ShelfcountError


def _file(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_valid_and_frozen() -> None:
    config = load_config()
    assert config == Config()
    with pytest.raises(ValueError, match="frozen"):
        config.train.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("train.lrr=1", "train.lrr: unknown key. Did you mean 'train.lr'?"),
        ("augment.mosiac=1", "augment.mosiac: unknown key. Did you mean 'augment.mosaic'?"),
        ("modle.height=416", "modle: unknown key. Did you mean 'model'?"),
        ("train.qqqqqqqqq=1", "train.qqqqqqqqq: unknown key.\n"),
    ],
)
def test_unknown_key_names_the_one_that_was_meant(change: str, hint: str) -> None:
    with pytest.raises(ShelfcountError) as caught:
        load_config(changes=[change])
    assert hint in f"{caught.value}\n"


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        "train = 4\n[model]\nneck = 'wide'\nstrides = [16, 8]\n"
        "[augment]\nflpi = 1\nscale = [2.0, 1.0]\n[export]\nnms_iou = 0\n",
    )
    with pytest.raises(ShelfcountError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"the config in {path} cannot be used:"
    for expected in (
        "train: Input should be a valid dictionary or instance of TrainConfig, got 4",
        "model.neck: Input should be a valid integer, "
        "unable to parse string as an integer, got 'wide'",
        "model.strides: must be in ascending order, without duplicates, got [16, 8]",
        "augment.flpi: unknown key. Did you mean 'augment.flip'?",
        "augment.scale: must be (smallest, largest), got [2.0, 1.0]",
        "export.nms_iou: Input should be greater than 0, got 0",
    ):
        assert f"  {expected}" in lines
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.height=400", "model: height must be a multiple of 32, got 400"),
        ("model.width=50", "model.width: Input should be greater than or equal to 64, got 50"),
        ("model.strides=[]", "model.strides: Tuple should have at least 1 item"),
        ("model.strides=[8,0]", "model.strides[1]: Input should be greater than 0, got 0"),
        ("model.strides=[8,128]", "model: height must be a multiple of 128, got 416"),
        (
            "train.precision=float8",
            "train.precision: Input should be 'auto', '32-true', 'bf16-mixed' or '16-mixed', "
            "got 'float8'",
        ),
        (
            "train.epochs=1.5",
            "train.epochs: Input should be a valid integer, "
            "got a number with a fractional part, got 1.5",
        ),
        ("train.epochs.x=3", "train.epochs: Input should be a valid integer"),
        ("augment.flip=2", "augment.flip: Input should be less than or equal to 1, got 2"),
        ("augment.window=100", "augment.window must be 0 or a multiple of 32 up to 416, got 100"),
        ("augment.window=448", "augment.window must be 0 or a multiple of 32 up to 416, got 448"),
    ],
)
def test_wrong_value_states_rule_and_value(change: str, message: str) -> None:
    with pytest.raises(ShelfcountError, match=re.escape(message)):
        load_config(changes=[change])


def test_a_finer_pyramid_still_needs_the_backbones_stride() -> None:
    # The backbone ends at stride 32, whichever levels are kept; 400 is not a multiple of 32.
    with pytest.raises(ShelfcountError, match="height must be a multiple of 32, got 400"):
        load_config(changes=["model.strides=[8,16]", "model.height=400"])


@pytest.mark.parametrize("change", ["train.epochs", "epochs=30", "=", ""])
def test_set_without_section_or_value_shows_an_example(change: str) -> None:
    message = f"--set needs section.key=value, got '{change}'. For example --set train.epochs=30"
    with pytest.raises(ShelfcountError, match=re.escape(message)):
        load_config(changes=[change])


def test_set_below_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ShelfcountError, match=r"--set model\.neck=32: 'model' is a value, not a section"
    ):
        load_config(_file(tmp_path, "model = 3\n"), ["model.neck=32"])


@pytest.mark.parametrize(
    ("change", "section", "key", "expected"),
    [
        ("train.epochs=30", "train", "epochs", 30),
        (" train.lr =1e-3", "train", "lr", 1e-3),
        ("train.channels_last=false", "train", "channels_last", False),
        ("augment.scale=[0.5, 2.0]", "augment", "scale", (0.5, 2.0)),
        ("model.strides=[8, 16]", "model", "strides", (8, 16)),
        # A string with and without TOML's quotes; it may contain '='.
        ('model.weights="none"', "model", "weights", "none"),
        ("model.weights=none", "model", "weights", "none"),
        ("model.weights=a=b.safetensors", "model", "weights", "a=b.safetensors"),
    ],
)
def test_set_takes_toml_or_a_plain_string(
    change: str, section: str, key: str, expected: Any
) -> None:
    assert getattr(getattr(load_config(changes=[change]), section), key) == expected


def test_later_changes_win_over_earlier_and_over_the_file(tmp_path: Path) -> None:
    path = _file(
        tmp_path, "[train]\nepochs = 5\nlr = 0.01\n[model]\narchitecture = 'mobilenet_v3'\n"
    )
    config = load_config(path, ["train.epochs=6", "train.epochs=7"], "mobilenet_v4_s")
    assert (config.train.epochs, config.train.lr, config.model.architecture) == (
        7,
        0.01,
        "mobilenet_v4_s",
    )
    assert (
        load_config(path, ["model.architecture=mobilenet_v2"], "mobilenet_v4_s").model.architecture
        == "mobilenet_v2"
    )


def test_baseline_has_its_own_defaults_and_the_user_the_last_word() -> None:
    config = load_config(changes=["model.height=512"], architecture="resnet50")
    assert config.model.strides == (8, 16, 32, 64, 128)
    assert (config.model.height, config.model.width, config.model.anchors_per_place) == (
        512,
        640,
        9,
    )
    assert (config.train.loss, config.train.lr, load_config().train.loss) == (
        "focal",
        2e-4,
        "task_aligned",
    )
    with pytest.raises(ShelfcountError, match="train: Input should be a valid dictionary"):
        validate_config({"train": 3, "model": {"architecture": "resnet50"}}, "here")


@pytest.mark.parametrize("architecture", [None, "resnet50"])
def test_written_config_reads_back_equal(tmp_path: Path, architecture: str | None) -> None:
    config = load_config(
        changes=[
            "train.lr=0.00012345",
            "augment.scale=[0.5, 1.25]",
            "model.weights=käse 'x'.safetensors",
        ],
        architecture=architecture,
    )
    config.write(tmp_path / "config.toml")
    assert load_config(tmp_path / "config.toml") == config


@pytest.mark.parametrize(("data", "cause"), [(b"[train", "Expected"), (b"\xff\xfe", "utf-8")])
def test_unreadable_file_is_named(tmp_path: Path, data: bytes, cause: str) -> None:
    (tmp_path / "c.toml").write_bytes(data)
    with pytest.raises(ShelfcountError, match=rf"cannot read config '.*c\.toml': .*{cause}"):
        load_config(tmp_path / "c.toml")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShelfcountError, match=r"cannot read config '.*none\.toml': .*No such file"):
        load_config(tmp_path / "none.toml")
