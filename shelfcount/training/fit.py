"""Training of a detector with PyTorch Lightning: data loading, checkpoints and early stopping.

The loop is the same for the phone model and the baseline.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader

from shelfcount.config import Config
from shelfcount.data.datasets import fingerprint
from shelfcount.records import Dataset, ModelSpec, ShelfcountError
from shelfcount.stamp import stamp
from shelfcount.training.augmentation import TrainingPhotos, TrainingSample
from shelfcount.training.batches import EpochSampler, collate
from shelfcount.training.inputs import calibration_photos, make_spec
from shelfcount.training.lightning_module import DetectorModule, HistoryWriter, OnStep
from shelfcount.training.networks import RANDOM, build
from shelfcount.training.optimization import training_precision
from shelfcount.training.quantization_aware import FakeQuantized
from shelfcount.training.runs import TorchDetector, normalise, read_config, save_run
from shelfcount.training.starting_weights import start_weights
from shelfcount.words import plural


def fit(
    train: Dataset,
    val: Dataset,
    run: Path,
    config: Config,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> TorchDetector:
    """Train a detector and write its run folder.

    Each validation chooses the score threshold with the highest F1 and computes mAP
    (`metrics.threshold.validate`). The epoch with the highest mAP is the best one, and training
    stops early if mAP has not increased for `train.patience` epochs. Epochs are not compared by
    F1, which changes little from epoch to epoch once most products are detected, while mAP
    considers all scores.

    Args:
        train: Training photos.
        val: Validation photos, with the same classes in the same order.
        run: Run folder to write; `training.runs` describes its files.
        config: Configuration of the run. It is written to the run folder with all its defaults.
        resume: Continue from the last checkpoint in `run`.
        on_step: Called after each training step with (steps done, total steps, latest metrics).

    Returns:
        Detector with the EMA weights of the best validation epoch and that epoch's threshold.

    Raises:
        ShelfcountError: If training and validation data have no boxes or different classes, the
            starting weights cannot be used, or `resume` is set and `run` has no checkpoint that
            fits `config`.
    """
    _check(train, val, run, config, resume)
    pl.seed_everything(config.train.seed, workers=True, verbose=False)
    if config.train.accelerator == "cpu" and config.train.devices > 1:
        # Divide the cores between the processes: more threads than cores slow each other down.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.train.devices))
    spec = make_spec(train, config)
    net = build(spec.architecture, len(spec.classes), spec.levels, config.model.neck)
    start = start_weights(net, spec.architecture, config.model.weights)
    if config.train.quantize:
        net = _quantization_aware(net, train, spec, config)
    provenance = {
        "start": start,
        "data": Path(train.name).name,
        "data_fingerprint": fingerprint(train),
        "validation_fingerprint": fingerprint(val),
        "photos": len(train),
        "boxes": train.boxes,
        "licence": train.licence,
        "attribution": train.attribution,
        "seed": config.train.seed,
        "precision": training_precision(config.train),
        "trained": stamp(seed=config.train.seed, threads=torch.get_num_threads()),
    }
    spec = replace(spec, provenance=provenance)
    frozen = net.first_stages(config.train.freeze) if start != RANDOM else []  # type: ignore[operator]
    reporter = HistoryWriter(run, on_step)
    trainer, best = _trainer(run, config, reporter)
    if trainer.is_global_zero:
        config.write(run / "config.toml")
    loader = _loader(train, config, trainer)
    module = DetectorModule(net, spec, config, val, frozen, config.train.epochs * len(loader))
    checkpoint = str(run / "checkpoints" / "last.ckpt") if resume else None
    with warnings.catch_warnings(), _opencv_without_threads():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    return _finish(module, best, run, config, reporter.seconds / 60)


def _check(train: Dataset, val: Dataset, run: Path, config: Config, resume: bool) -> None:
    if not train.boxes or not val.boxes:
        raise ShelfcountError(
            f"training data have {plural(train.boxes, 'box', 'boxes')} and validation data "
            f"{plural(val.boxes, 'box', 'boxes')}. Each must have at least one."
        )
    if train.classes != val.classes:
        differing = ", ".join(
            f"'{name}'" for name in sorted({*train.classes} ^ {*val.classes})[:10]
        )
        raise ShelfcountError(
            "training and validation data differ in "
            f"{f'the classes {differing}' if differing else 'the order of their classes'}. "
            "They must list the same classes in the same order."
        )
    if resume:
        last = run / "checkpoints" / "last.ckpt"
        if not last.exists():
            raise ShelfcountError(
                f"nothing to resume: '{run}' has no checkpoints/last.ckpt. "
                "Start the run without --resume."
            )
        _read_checkpoint(last)
        if read_config(run) != config:
            raise ShelfcountError(
                f"the configuration differs from the one that '{run}' was started with "
                f"('{run / 'config.toml'}'). A run can only be resumed with its own configuration."
            )


def _quantization_aware(
    net: nn.Module, train: Dataset, spec: ModelSpec, config: Config
) -> FakeQuantized:
    if config.model.weights in ("shipped", "network", "none"):
        raise ShelfcountError(
            f"model.weights is '{config.model.weights}', but train.quantize fine-tunes a trained "
            "detector. Set model.weights to the path of its .safetensors file."
        )
    photos = calibration_photos(
        train, spec, config.export.calibration_photos, seed=config.train.seed
    )
    quantized = FakeQuantized(net)
    quantized.calibrate(
        normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None]) for pixels in photos
    )
    return quantized


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ShelfcountError(
            f"cannot read checkpoint '{path}' as tensors and plain values: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}. "
            "It is damaged or was not written by shelfcount; start over with --force."
        ) from error


def _trainer(run: Path, config: Config, reporter: Callback) -> tuple[pl.Trainer, ModelCheckpoint]:
    options = config.train
    # A run that is shorter than the interval is validated at its end.
    interval = min(options.validate_every, options.epochs)
    # Checkpoints are saved after the epoch's row of the history is written. Lightning's save_last
    # would save the best epochs only, so that a resumed run would repeat the epochs after them.
    saving: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(
        run / "checkpoints",
        filename="best",
        monitor="val_map",
        mode="max",
        every_n_epochs=interval,
        **saving,
    )
    last = ModelCheckpoint(run / "checkpoints", filename="last", every_n_epochs=1, **saving)
    stop = EarlyStopping("val_map", mode="max", patience=max(1, options.patience // interval))
    parallel = options.devices * options.nodes > 1
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.nodes,
        strategy="ddp" if parallel else "auto",
        precision=training_precision(options),
        gradient_clip_val=options.clip,
        check_val_every_n_epoch=interval,
        num_sanity_val_steps=0,
        callbacks=[best, last, stop, reporter],
        logger=TensorBoardLogger(run, name="tensorboard", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=10,
        deterministic="warn",
    )
    return trainer, best


def _loader(train: Dataset, config: Config, trainer: pl.Trainer) -> DataLoader[TrainingSample]:
    photos = TrainingPhotos(
        train,
        config.model.height,
        config.model.width,
        config.augment,
        config.train.epochs,
        config.train.seed,
    )
    # Not current_epoch: in a resumed run, the workers start before Lightning has increased it.
    progress: Any = trainer.fit_loop.epoch_progress.current
    sampler = EpochSampler(
        len(photos),
        config.train.seed,
        lambda: progress.processed,
        trainer.global_rank,
        trainer.world_size,
    )
    return DataLoader(
        photos,
        batch_size=max(1, config.train.batch // trainer.world_size),
        sampler=sampler,
        num_workers=config.train.workers,
        collate_fn=collate,
        persistent_workers=config.train.workers > 0,
        worker_init_fn=_one_thread,
    )


def _one_thread(_: int) -> None:
    # More threads per worker would compete with those of the network.
    torch.set_num_threads(1)


@contextlib.contextmanager
def _opencv_without_threads() -> Iterator[None]:
    # Workers are forked, and a fork does not contain OpenCV's threads: a worker that uses or stops
    # them waits forever. So they are stopped before the fork, and workers inherit this setting.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _finish(
    module: DetectorModule, best: ModelCheckpoint, run: Path, config: Config, minutes: float
) -> TorchDetector:
    state = _read_checkpoint(Path(best.best_model_path))
    module.load_state_dict(state["state_dict"])
    epoch, validation = int(state["epoch"]), state["validation"]
    result = {
        "best_epoch": epoch + 1,
        "val_f1": round(validation["f1"], 4),
        "minutes": round(minutes, 1),
    }
    provenance = {**module.spec.provenance, **result}
    spec = replace(
        module.spec, score_threshold=round(validation["threshold"], 4), provenance=provenance
    )
    net = module.averaged.module.cpu()
    if module.trainer.is_global_zero:
        save_run(run, config, spec, net)
    return TorchDetector(net, spec)
