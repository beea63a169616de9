"""Training is repeatable, can be resumed, and learns. All runs use 96-pixel synthetic photos."""

from __future__ import annotations

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Overfit, Shelves
from safetensors.torch import load_file

from shelfcount import config
from shelfcount.metrics.evaluate import evaluate_detector
from shelfcount.metrics.threshold import Validation
from shelfcount.records import Dataset, Detections, ModelSpec, ShelfcountError
from shelfcount.training import lightning_module
from shelfcount.training.fit import fit
from shelfcount.training.inputs import make_spec
from shelfcount.training.runs import TorchDetector, load_run, read_spec
from shelfcount.vision.anchors import box_sizes

pytestmark = pytest.mark.usefixtures("one_thread")

Train = Callable[..., TorchDetector]


def constant_validation(dataset: Dataset, detections: Any) -> Validation:
    """Return the same metrics for every epoch, so that the first epoch remains the best."""
    return Validation(0.5, 0.25, mean_ap=0.5)


def rising_validation() -> Callable[..., Validation]:
    """Return a function by which each epoch is better than the one before.

    The run then keeps the weights of the last epoch.
    """
    epochs = (epoch / 1000 for epoch in range(1, 1000))
    return lambda dataset, detections: Validation(mean := next(epochs), 0.25, mean_ap=mean)


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def checkpoint(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def train(shelves: Shelves, tiny: tuple[str, ...]) -> Train:
    def run(
        folder: Path, *changes: str, validate: Any = constant_validation, **options: Any
    ) -> TorchDetector:
        settings = config.load_config(None, [*tiny, *changes])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lightning_module, "validate", validate)
            return fit(shelves.train, shelves.val, folder, settings, **options)

    return run


# ---------------------------------------------------------------- repeatable and resumable


# 8 photos in batches of 4 for 6 epochs: 12 steps, with random augmentation.
LONG = ("train.epochs=6",)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, train: Train) -> Path:
    folder = tmp_path_factory.mktemp("fit") / "uninterrupted"
    train(folder, *LONG, validate=rising_validation())
    return folder


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (one / "history.csv").read_text() == (other / "history.csv").read_text()
    assert what_was_learnt(one) == what_was_learnt(other)


def what_was_learnt(run: Path) -> ModelSpec:
    """Return the model specification without the values that depend on the clock."""
    spec = read_spec(run)
    return replace(
        spec,
        provenance={k: v for k, v in spec.provenance.items() if k not in ("trained", "minutes")},
    )


@pytest.mark.slow
def test_one_seed_gives_one_set_of_weights_whatever_the_number_of_workers(
    tmp_path: Path, train: Train, uninterrupted: Path
) -> None:
    train(tmp_path / "again", *LONG, "train.workers=2", validate=rising_validation())
    assert_same_run(uninterrupted, tmp_path / "again")
    train(tmp_path / "other", "train.epochs=1", "train.seed=1")
    assert history(tmp_path / "other")[0]["loss"] != history(uninterrupted)[0]["loss"]


class StoppedError(Exception):
    pass


def kill_at(step: int) -> Callable[..., None]:
    def on_step(done: int, total: int, metrics: Any) -> None:
        if done == step:
            raise StoppedError

    return on_step


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_continues_after_its_last_epoch(
    tmp_path: Path, train: Train, uninterrupted: Path, workers: int
) -> None:
    changes = (*LONG, f"train.workers={workers}")
    validate = rising_validation()
    # Step 7 is the first of epoch 4 of 6; three epochs are in the checkpoint.
    with pytest.raises(StoppedError):
        train(tmp_path, *changes, validate=validate, on_step=kill_at(7))
    assert not (tmp_path / "model.safetensors").exists()
    steps: list[int] = []
    train(
        tmp_path,
        *changes,
        validate=validate,
        resume=True,
        on_step=lambda done, total, metrics: steps.append(done),
    )
    assert steps == [7, 8, 9, 10, 11, 12]
    assert_same_run(uninterrupted, tmp_path)


@pytest.mark.slow
def test_epochs_that_were_not_the_best_are_not_repeated(tmp_path: Path, train: Train) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path, *LONG, on_step=kill_at(7))
    steps: list[int] = []
    detector = train(
        tmp_path, *LONG, resume=True, on_step=lambda done, total, metrics: steps.append(done)
    )
    # By `constant_validation`, no epoch is better than the first.
    assert steps[0] == 7
    assert detector.spec.provenance["best_epoch"] == 1


@pytest.mark.slow
def test_epochs_since_the_last_validation_are_not_repeated(tmp_path: Path, train: Train) -> None:
    changes, validate = (*LONG, "train.validate_every=3"), rising_validation()
    train(tmp_path / "whole", *changes, validate=rising_validation())
    # Step 9 is the first of epoch 5. Epochs 3 and 6 are validated.
    with pytest.raises(StoppedError):
        train(tmp_path / "killed", *changes, validate=validate, on_step=kill_at(9))
    steps: list[int] = []
    train(
        tmp_path / "killed",
        *changes,
        validate=validate,
        resume=True,
        on_step=lambda done, total, metrics: steps.append(done),
    )
    assert steps == [9, 10, 11, 12]
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_a_killed_process_can_be_resumed(
    tmp_path: Path, shelves: Shelves, tiny: tuple[str, ...]
) -> None:
    def command(run: Path, *more: str) -> list[str]:
        sets = [part for change in (*tiny, *LONG) for part in ("--set", change)]
        data = ["--data", str(shelves.train_json), "--val", str(shelves.val_json)]
        return [
            sys.executable,
            "-m",
            "shelfcount",
            "train",
            *data,
            "--out",
            str(run),
            *sets,
            *more,
        ]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(command(tmp_path / "killed"), env=environment, stderr=subprocess.PIPE)
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    _, errors = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, errors.decode()
    assert len(history(tmp_path / "killed")) < 6
    for run, more in (("killed", ["--resume"]), ("whole", [])):
        subprocess.run(
            command(tmp_path / run, *more), env=environment, check=True, capture_output=True
        )
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_resuming_a_finished_run_does_not_change_it(tmp_path: Path, train: Train) -> None:
    validate = rising_validation()
    train(tmp_path, "train.epochs=1", validate=validate)
    before = (
        (tmp_path / "model.safetensors").read_bytes(),
        (tmp_path / "history.csv").read_text(),
        what_was_learnt(tmp_path),
    )
    train(tmp_path, "train.epochs=1", validate=validate, resume=True)
    assert (
        (tmp_path / "model.safetensors").read_bytes(),
        (tmp_path / "history.csv").read_text(),
        what_was_learnt(tmp_path),
    ) == before


# ---------------------------------------------------------------- learning


@pytest.mark.slow
def test_a_detector_can_overfit_four_photos(overfit: Overfit) -> None:
    losses = [float(row["loss"]) for row in history(overfit.run)]
    assert losses[-1] < 0.6 * losses[0], f"loss from {losses[0]:.3f} to {losses[-1]:.3f}"
    assert evaluate_detector(load_run(overfit.run), overfit.photos).micro.f1 > 0.9


@pytest.mark.slow
def test_the_same_loop_trains_the_baseline(tmp_path: Path, shelves: Shelves) -> None:
    changes = (
        "model.height=128",
        "model.width=128",
        "train.epochs=2",
        "train.batch=2",
        "train.workers=0",
        "train.accelerator=cpu",
    )
    settings = config.load_config(None, changes, "resnet50")
    detector = fit(
        shelves.train.subset(range(4)),
        shelves.val.subset(range(1)),
        tmp_path / "run",
        settings,
    )
    first, last = history(tmp_path / "run")
    assert float(last["loss"]) < float(first["loss"])
    assert detector.spec.provenance["start"] == "random"
    image = np.zeros((128, 128, 3), np.uint8)
    # The network in memory is channels-last, the loaded one is not: sums are in another order.
    np.testing.assert_allclose(
        load_run(tmp_path / "run").heads(image)[1], detector.heads(image)[1], atol=1e-5
    )


@pytest.mark.slow
def test_two_processes_reach_the_loss_of_one(
    tmp_path: Path, shelves: Shelves, tiny: tuple[str, ...], train: Train
) -> None:
    """The tolerance is the range of the last epoch's loss over three seeds of one process."""
    changes = ("train.epochs=5",)
    alone = []
    for seed in range(3):
        train(tmp_path / f"alone-{seed}", *changes, f"train.seed={seed}")
        alone.append(float(history(tmp_path / f"alone-{seed}")[-1]["loss"]))
    sets = [part for change in (*tiny, *changes, "train.devices=2") for part in ("--set", change)]
    data = [
        "--data",
        str(shelves.train_json),
        "--val",
        str(shelves.val_json),
        "--out",
        str(tmp_path / "pair"),
    ]
    entry = Path(sys.executable).with_name("shelfcount")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(entry), "train", *data, *sets],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # Only one of the two processes prints and writes files.
    assert done.stdout.count("run: ") == 1
    pair = [float(row["loss"]) for row in history(tmp_path / "pair")]
    assert len(pair) == 5
    noise = max(alone) - min(alone)
    print(f"last epoch's loss: one process {alone}, two processes {pair[-1]}")
    assert min(alone) - noise < pair[-1] < max(alone) + noise
    assert load_run(tmp_path / "pair").spec.classes == shelves.train.classes


def test_training_through_a_window_makes_a_detector_of_whole_photos(
    tmp_path: Path, train: Train
) -> None:
    detector = train(
        tmp_path, "model.height=128", "model.width=160", "augment.window=64", "train.epochs=1"
    )
    location, logits = detector.heads(np.zeros((128, 160, 3), np.uint8))
    anchors = sum(
        128 // level.stride * (160 // level.stride) * len(level.sizes)
        for level in detector.spec.levels
    )
    assert location.shape == (anchors, 4)
    assert logits.shape[0] == anchors


def test_a_window_as_large_as_the_input_changes_nothing(
    tmp_path: Path, train: Train, uninterrupted: Path
) -> None:
    train(tmp_path, *LONG, "augment.window=96", validate=rising_validation())
    assert [row["loss"] for row in history(tmp_path)] == [
        row["loss"] for row in history(uninterrupted)
    ]


def test_no_better_epoch_stops_early(tmp_path: Path, train: Train) -> None:
    train(tmp_path, "train.epochs=20", "train.patience=2")
    # The first epoch is the best; training waits for two more.
    assert [row["epoch"] for row in history(tmp_path)] == ["1", "2", "3"]


def test_a_run_shorter_than_the_validation_interval_is_validated_at_its_end(
    tmp_path: Path, train: Train
) -> None:
    detector = train(tmp_path, "train.epochs=1", "train.validate_every=2")
    assert detector.spec.provenance["best_epoch"] == 1
    assert detector.spec.score_threshold == 0.25


def test_weights_are_averaged_over_all_steps(tmp_path: Path, train: Train) -> None:
    """The expected EMA is computed from the weights after each step: mean += (1 - d) (w - mean)."""
    after: list[dict[str, torch.Tensor]] = []

    def keep(done: int, total: int, metrics: Any) -> None:
        # There is one step per epoch: when a step ends, the checkpoint is that of the step before.
        if done > 1:
            after.append(checkpoint(tmp_path))

    train(tmp_path, "train.epochs=4", "train.batch=8", "train.ema=0.2", on_step=keep)
    after.append(checkpoint(tmp_path))
    for name in ("classify.predict.weight", "trunk.bn1.running_var"):
        weights = [state[f"net.{name}"] for state in after]
        mean = weights[0]
        for n, weight in enumerate(weights[1:], start=1):
            # The decay rises as (1 + n) / (10 + n): 2/11, 3/12, 4/13. `train.ema` limits the last
            # two to 0.2.
            mean = mean + (1 - min(0.2, (1 + n) / (10 + n))) * (weight - mean)
        assert len(weights) == 4
        torch.testing.assert_close(after[-1][f"averaged.module.{name}"], mean)
        assert not torch.equal(weights[0], weights[-1])


def test_frozen_stages_keep_weights_and_statistics(tmp_path: Path, train: Train) -> None:
    train(tmp_path / "start", "train.epochs=1")
    start = tmp_path / "start" / "model.safetensors"
    before = load_file(start)
    train(tmp_path / "run", "train.epochs=1", f'model.weights="{start}"', "train.freeze=2")
    after = load_file(tmp_path / "run" / "model.safetensors")
    frozen = [
        k
        for k in before
        if k.startswith(("trunk.conv_stem.", "trunk.bn1.", "trunk.blocks.0.", "trunk.blocks.1."))
    ]
    assert any(k.endswith("running_mean") for k in frozen)
    assert [k for k in frozen if not torch.equal(before[k], after[k])] == []
    moved = [
        k
        for k in before
        if k.startswith("trunk.blocks.2.") and not torch.equal(before[k], after[k])
    ]
    assert any(k.endswith("running_mean") for k in moved)
    assert any(k.endswith("conv_pw.weight") for k in moved)


# ---------------------------------------------------------------- model specification


def test_anchors_and_product_sizes_are_in_input_pixels(
    shelves: Shelves, tiny: tuple[str, ...]
) -> None:
    spec = make_spec(shelves.train, config.load_config(None, tiny))
    sizes = box_sizes(shelves.train, 96, 96)
    # 256 x 192 photos become 96 x 96: widths times 0.375, heights times 0.5.
    box = shelves.train.photos[0].truth.boxes[0]
    np.testing.assert_allclose(
        sizes[0], [(box[3] - box[1]) * 0.5, (box[2] - box[0]) * 0.375], rtol=1e-5
    )
    assert spec.product_px[1] == pytest.approx(np.median(np.sqrt(sizes.prod(axis=1))), abs=0.06)
    assert spec.classes == shelves.train.classes


# ---------------------------------------------------------------- errors


def test_data_that_do_not_fit_are_refused(
    tmp_path: Path, shelves: Shelves, tiny: tuple[str, ...]
) -> None:
    settings = config.load_config(None, tiny)
    bare = replace(
        shelves.val, photos=tuple(replace(p, truth=Detections.empty()) for p in shelves.val.photos)
    )
    with pytest.raises(
        ShelfcountError,
        match=rf"training data have {shelves.train.boxes} boxes and validation data 0 boxes",
    ):
        fit(shelves.train, bare, tmp_path, settings)
    renamed = replace(shelves.val, classes=(*shelves.val.classes[:-1], "chalk"))
    with pytest.raises(
        ShelfcountError,
        match=r"differ in the classes 'chalk', '.*'\. They must list the same classes in the same",
    ):
        fit(shelves.train, renamed, tmp_path, settings)
    turned = replace(shelves.val, classes=shelves.val.classes[::-1])
    with pytest.raises(ShelfcountError, match=r"differ in the order of their classes\. They must"):
        fit(shelves.train, turned, tmp_path, settings)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_resume_is_refused(tmp_path: Path, train: Train) -> None:
    with pytest.raises(
        ShelfcountError, match=r"nothing to resume: '.*nowhere' has no checkpoints/last\.ckpt"
    ):
        train(tmp_path / "nowhere", resume=True)


def test_resume_with_another_config_is_refused(tmp_path: Path, train: Train) -> None:
    train(tmp_path, "train.epochs=1")
    with pytest.raises(
        ShelfcountError, match=r"configuration differs from the one that '.*' was started with"
    ):
        train(tmp_path, "train.epochs=2", resume=True)


class _Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch", "pickle", "truncated", "empty"])
def test_a_checkpoint_with_code_is_refused_and_not_executed(
    tmp_path: Path, train: Train, form: str
) -> None:
    run, trace = tmp_path / "run", tmp_path / "trace"
    last = run / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    torch.save({"state_dict": {}, "epoch": _Evil(trace)}, last)
    if form == "pickle":
        last.write_bytes(pickle.dumps(_Evil(trace)))
    elif form == "truncated":
        last.write_bytes(last.read_bytes()[:-40])
    elif form == "empty":
        last.write_bytes(b"")
    with pytest.raises(
        ShelfcountError,
        match=r"cannot read checkpoint '.*last\.ckpt' as tensors and plain values: ",
    ):
        train(run, resume=True)
    assert not trace.exists()
    # Control: unpickling the object does execute its code.
    pickle.loads(pickle.dumps(_Evil(trace)))
    assert trace.exists()
