"""Fixtures shared by several test files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from shelfcount.records import Dataset


@pytest.fixture(scope="session")
def drinks() -> Path:
    """Folder of the real drinks photos, which are not part of the repository."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "drinks"
    if not (folder / "train.json").is_file():
        pytest.skip(f"the drinks photos are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def released() -> Path:
    """Path of the released bundle, or of the one in the variable SHELFCOUNT_CONSUMERS_BUNDLE."""
    return Path(
        os.environ.get("SHELFCOUNT_CONSUMERS_BUNDLE")
        or Path(__file__).parents[1] / "export" / "release" / "drinks-int8"
    )


# The following fixtures serve the tests of training, export and the command line: a tiny data set,
# and a tiny detector that is overfitted to four photos and converted once. torch is imported inside
# the fixtures, so that other tests do not load it.

# 96 pixels, half-width backbone, no pretrained weights: 0.1 s per step of 4 photos on one core.
TINY = (
    "model.architecture=mobilenet_v2_050",
    "model.weights=none",
    "model.neck=32",
    "model.height=96",
    "model.width=96",
    "train.batch=4",
    "train.workers=0",
    "train.precision=32-true",
    "train.accelerator=cpu",
    "train.validate_every=1",
    "train.lr=1e-2",
    "train.backbone_lr=1.0",
    "train.ema=0.9",
)
# No augmentation, for overfitting.
STILL = (
    *(
        f"augment.{name}=0"
        for name in ("mosaic", "flip", "aspect", "rotate", "perspective", "brightness", "contrast")
    ),
    *(f"augment.{name}=0" for name in ("saturation", "hue", "blur", "noise", "jpeg")),
    "augment.scale=[1, 1]",
)


@dataclass(frozen=True)
class Shelves:
    """Synthetic photos with the same 3 classes: 8 for training, 4 for validation."""

    train_json: Path
    val_json: Path
    train: Dataset
    val: Dataset


@dataclass(frozen=True)
class Overfit:
    """A run that is overfitted to four photos."""

    run: Path
    labels: Path
    photos: Dataset


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Limit torch to one thread: with tiny convolutions, two threads mostly wait."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Configuration changes of the tiny detector, as for `--set`."""
    return TINY


@pytest.fixture(scope="session")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Shelves:
    from shelfcount.synthetic.generation import generate
    from shelfcount.synthetic.layout import ShelfParams

    folder = tmp_path_factory.mktemp("shelves")
    plain = ShelfParams(
        width=256,
        height=192,
        rows=(2, 2),
        facings=(4, 5),
        gap=0,
        occlusion=0,
        back_row=0,
        yaw=3,
        pitch=2,
        tilt=1,
        light=0.2,
        blur=0,
        noise=0,
    )
    sets = [
        generate(folder / name, photos=n, classes=3, seed=seed, params=plain)
        for seed, (name, n) in enumerate((("train", 8), ("val", 4)))
    ]
    return Shelves(folder / "train" / "labels.json", folder / "val" / "labels.json", *sets)


@pytest.fixture(scope="session")
def overfit(
    tmp_path_factory: pytest.TempPathFactory, shelves: Shelves, one_thread: None
) -> Overfit:
    from shelfcount import config
    from shelfcount.data import coco, formats
    from shelfcount.training import runs
    from shelfcount.training.fit import fit

    run, labels = (
        tmp_path_factory.mktemp("overfit") / "run",
        shelves.train_json.with_name("few.json"),
    )
    coco.write_coco(shelves.train.subset(range(4)), labels)
    photos = formats.read_labels(labels)
    settings = config.load_config(
        None, [*TINY, *STILL, "train.epochs=200", "train.validate_every=40", "train.patience=1000"]
    )
    fit(photos, photos, run, settings)
    runs.write_sources(run, runs.Sources(str(labels), str(labels)))
    return Overfit(run, labels, photos)


@pytest.fixture(scope="session")
def converted(overfit: Overfit) -> bytes:
    """Return the overfit network as a float32 .tflite file with raw heads.

    The conversion is slow, so it is done once per session.
    """
    from shelfcount.deploy import convert
    from shelfcount.training.runs import load_run

    detector = load_run(overfit.run)
    return convert.to_litert(detector.net, detector.spec)


@pytest.fixture(scope="session")
def artifact(overfit: Overfit, converted: bytes) -> Callable[[str], bytes]:
    """Return a function that makes the main model file of a recipe, once per recipe."""
    from functools import cache

    from shelfcount.deploy import bundle
    from shelfcount.training import inputs
    from shelfcount.training.runs import read_spec

    spec = read_spec(overfit.run)
    photos = inputs.calibration_photos(overfit.photos, spec, 4)
    return cache(lambda recipe: bundle.main_artifact(converted, spec, recipe, photos))


@pytest.fixture(scope="session")
def bundle(
    tmp_path_factory: pytest.TempPathFactory,
    overfit: Overfit,
    converted: bytes,
    artifact: Callable[[str], bytes],
) -> Path:
    """Folder of an int8 bundle of the overfit network. Tests that change it copy it first."""
    from shelfcount.deploy import golden
    from shelfcount.deploy.bundle import raw_artifact, write_bundle
    from shelfcount.runtime.bundle import RAW_MODEL
    from shelfcount.training.runs import read_spec

    folder, spec = tmp_path_factory.mktemp("bundles") / "tiny-int8", read_spec(overfit.run)
    files = {"model.tflite": artifact("int8"), RAW_MODEL: raw_artifact(converted, spec)}
    write_bundle(
        folder,
        spec,
        {**files, **golden.make_golden(files["model.tflite"], spec, overfit.photos)},
        "int8",
        {"f1": 1.0},
    )
    return folder
