"""Training loop on PyTorch Lightning, for the phone models and the baseline."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import math
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from shelfcount.config import Config, TrainConfig
from shelfcount.data.augment import EpochSampler, Sample, TrainingPhotos, collate
from shelfcount.data.formats import fingerprint
from shelfcount.machine import multiplies_bfloat16
from shelfcount.records import Dataset, Detections, ModelSpec, ShelfcountError
from shelfcount.stamp import stamp
from shelfcount.training.detector import BASELINE, RANDOM, build, retinanet_levels
from shelfcount.training.fake_quant import FakeQuantized
from shelfcount.training.losses import LOSSES, Truth
from shelfcount.training.runs import TorchDetector, normalise, read_config, save_run
from shelfcount.vision import anchors
from shelfcount.vision.images import read_photo, stretch, write_whole
from shelfcount.words import plural

# Score threshold of the validation passes, far below any operating threshold.
LOW_SCORE = 0.05


@dataclass(frozen=True)
class Judgement:
    """Validation metrics of one epoch.

    Attributes:
        f1: F1 at `threshold`.
        threshold: Score threshold that maximises F1 on the validation photos.
        fitness: Value for choosing the best epoch; F1 if None. mAP is the better choice: it
            considers all scores, while F1 at its best threshold changes little from epoch to epoch
            once most products are detected.
    """

    f1: float
    threshold: float
    fitness: float | None = None


# Evaluates the detections on each photo of the validation data.
Judge = Callable[[Dataset, Sequence[Detections]], Judgement]
# Called after each training step with (steps done, total steps, latest metrics).
OnStep = Callable[[int, int, Mapping[str, float]], None]


def fit(
    train: Dataset,
    val: Dataset,
    run: Path,
    config: Config,
    judge: Judge,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> TorchDetector:
    """Train a detector and write its run folder.

    Args:
        train: Training photos.
        val: Validation photos, with the same classes in the same order.
        run: Run folder to write; `training.runs` describes its files.
        config: Configuration of the run. It is written to the run folder with all its defaults.
        judge: Computes the validation metrics from the detections on each photo.
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
    start = net.load_start(spec.architecture, config.model.weights)  # type: ignore[operator]
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
        "precision": precision(config.train),
        "trained": stamp(seed=config.train.seed, threads=torch.get_num_threads()),
    }
    spec = replace(spec, provenance=provenance)
    frozen = net.early(config.train.freeze) if start != RANDOM else []  # type: ignore[operator]
    reporter = _Reporter(run, on_step)
    trainer, best = _trainer(run, config, reporter)
    if trainer.is_global_zero:
        config.write(run / "config.toml")
    loader = _loader(train, config, trainer)
    module = _Module(net, spec, config, val, judge, frozen, config.train.epochs * len(loader))
    checkpoint = str(run / "checkpoints" / "last.ckpt") if resume else None
    with warnings.catch_warnings(), _opencv_without_threads():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    return _finish(module, best, run, config, reporter.seconds / 60)


def precision(options: TrainConfig) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Choose the floating-point precision of training.

    Args:
        options: Training section of the configuration.

    Returns:
        ``options.precision``, or, for "auto", mixed precision if the device multiplies in bfloat16
        or float16, otherwise float32.
    """
    if options.precision != "auto":
        return options.precision
    if options.accelerator == "cpu" or not (
        torch.cuda.is_available() or torch.backends.mps.is_available()
    ):
        return "bf16-mixed" if multiplies_bfloat16() else "32-true"
    return (
        "bf16-mixed"
        if not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
        else "16-mixed"
    )


def make_spec(train: Dataset, config: Config) -> ModelSpec:
    """Create the specification of an untrained model for a data set.

    Args:
        train: Training photos; the anchors of a phone model are fitted to their boxes.
        config: Configuration of the run.

    Returns:
        Model specification with classes, input size, anchors, NMS settings and product sizes.
    """
    sizes = input_sizes(train, config.model.height, config.model.width)
    baseline = config.model.architecture == BASELINE
    levels = (
        retinanet_levels()
        if baseline
        else anchors.fit(
            sizes, config.model.strides, config.model.anchors_per_place, config.train.seed
        )
    )
    reach = np.percentile(np.sqrt(sizes.prod(axis=1)), (10, 50, 90))
    return ModelSpec(
        name=f"{config.model.architecture}-{config.model.height}x{config.model.width}",
        architecture=config.model.architecture,
        classes=train.classes,
        height=config.model.height,
        width=config.model.width,
        levels=levels,
        nms_iou=config.export.nms_iou,
        max_detections=config.export.max_detections,
        product_px=tuple(round(float(v), 1) for v in reach),  # type: ignore[arg-type]
    )


def input_sizes(data: Dataset, height: int, width: int) -> np.ndarray:
    """Return the sizes of all boxes in pixels of the network input.

    Args:
        data: Labelled photos.
        height: Height of the network input in pixels.
        width: Width of the network input in pixels.

    Returns:
        (n, 2) float64 (height, width), ignored areas included.
    """
    parts = [
        (p.truth.boxes[:, 2:] - p.truth.boxes[:, :2])[:, ::-1].astype(np.float64)
        * (height / p.height, width / p.width)
        for p in data.photos
        if len(p.truth)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 2))


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
    chosen = np.random.default_rng(config.train.seed).permutation(len(train))[
        : config.export.calibration_photos
    ]
    photos = (stretch(read_photo(train.photos[i].path), spec.height, spec.width) for i in chosen)
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
    # Checkpoints are saved after the epoch's row of the history is written. Lightning's `save_last`
    # would save the best epochs only, so that a resumed run would repeat the epochs after them.
    saving: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(
        run / "checkpoints",
        filename="best",
        monitor="val_fitness",
        mode="max",
        every_n_epochs=interval,
        **saving,
    )
    last = ModelCheckpoint(run / "checkpoints", filename="last", every_n_epochs=1, **saving)
    stop = EarlyStopping("val_fitness", mode="max", patience=max(1, options.patience // interval))
    parallel = options.devices * options.nodes > 1
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.nodes,
        strategy="ddp" if parallel else "auto",
        precision=precision(options),
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


def _loader(train: Dataset, config: Config, trainer: pl.Trainer) -> DataLoader[Sample]:
    photos = TrainingPhotos(
        train,
        config.model.height,
        config.model.width,
        config.augment,
        config.train.epochs,
        config.train.seed,
    )
    # Not `current_epoch`: in a resumed run, the workers start before Lightning has increased it.
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
    module: _Module, best: ModelCheckpoint, run: Path, config: Config, minutes: float
) -> TorchDetector:
    state = _read_checkpoint(Path(best.best_model_path))
    module.load_state_dict(state["state_dict"])
    epoch, judgement = int(state["epoch"]), state["judgement"]
    result = {
        "best_epoch": epoch + 1,
        "val_f1": round(judgement["f1"], 4),
        "minutes": round(minutes, 1),
    }
    provenance = {**module.spec.provenance, **result}
    spec = replace(
        module.spec, score_threshold=round(judgement["threshold"], 4), provenance=provenance
    )
    net = module.averaged.module.cpu()
    if module.trainer.is_global_zero:
        save_run(run, config, spec, net)
    return TorchDetector(net, spec)


class _Module(pl.LightningModule):
    """Lightning module: the network, the EMA of its weights, the loss and the validation.

    Args:
        net: Network to train.
        spec: Specification of the model.
        config: Configuration of the run.
        val: Validation photos.
        judge: Computes the validation metrics.
        frozen: Parts of `net` whose weights and statistics are not changed.
        steps: Total number of training steps, for the learning rate schedule.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: ModelSpec,
        config: Config,
        val: Dataset,
        judge: Judge,
        frozen: Sequence[nn.Module],
        steps: int,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.frozen = tuple(frozen)  # a tuple, since a list of modules would be registered again
        for part in self.frozen:
            part.requires_grad_(False)
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self.net = net.to(memory_format=layout)  # type: ignore[call-overload]
        self.averaged = AveragedModel(
            self.net, multi_avg_fn=ramped_average(config.train.ema), use_buffers=True
        )
        self.averaged.requires_grad_(False)
        self.spec, self.config, self.val, self.judge = spec, config, val, judge
        self.loss = chosen_loss(config.train)
        # Anchors for the training input, which may be a window. Validation uses the whole input,
        # for which the detector computes its own anchors.
        window = config.augment.window
        height, width = (window, window) if window else (spec.height, spec.width)
        pixels = anchors.layout(spec.levels, height, width) * np.array(
            [height, width] * 2, np.float32
        )
        self.register_buffer("anchors", torch.from_numpy(pixels), persistent=False)
        self.judgement = Judgement(0.0, spec.score_threshold)
        self.latest: dict[str, float] = {}
        self.val_pixels: list[np.ndarray] = []

    def on_train_epoch_start(self) -> None:
        # Lightning sets training mode, in which frozen parts would update their statistics.
        for part in self.frozen:
            part.eval()

    def training_step(self, batch: tuple[torch.Tensor, list[Sample]], _: int) -> torch.Tensor:
        images, labels = batch
        x = normalise(images)
        if self.config.train.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        location, logits = self.net(x)
        truths = [Truth(s["boxes"], s["classes"], s["ignore"]) for s in labels]
        parts = self.loss(location, logits, truths, self.anchors)
        total = torch.stack(list(parts.values())).sum()
        losses = {f"{name}_loss": value.detach() for name, value in parts.items()} | {
            "loss": total.detach()
        }
        self.log_dict(losses, on_step=False, on_epoch=True, batch_size=len(images), sync_dist=True)
        return total

    def on_train_batch_end(self, *_: Any) -> None:
        self.averaged.update_parameters(self.net)

    def val_dataloader(self) -> DataLoader[Any]:
        # Lightning requires a loader. Its one item stands for a pass over all validation photos.
        return DataLoader([0])  # type: ignore[arg-type]

    def validation_step(self, *_: Any) -> None:
        if not self.val_pixels:
            self.val_pixels = [
                stretch(read_photo(p.path), self.spec.height, self.spec.width)
                for p in self.val.photos
            ]
        detector = TorchDetector(self.averaged.module, self.spec, LOW_SCORE)
        detections = []
        for photo, pixels in zip(self.val.photos, self.val_pixels, strict=True):
            boxes = detector.detect(pixels)
            scale = np.array(
                [photo.width / self.spec.width, photo.height / self.spec.height] * 2, np.float32
            )
            detections.append(boxes.replace(boxes=boxes.boxes * scale))
        self.judgement = self.judge(self.val, detections)
        result = self.judgement
        fitness = result.f1 if result.fitness is None else result.fitness
        self.log_dict(
            {"val_f1": result.f1, "val_threshold": result.threshold, "val_fitness": fitness},
            sync_dist=True,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["judgement"] = {
            "f1": float(self.judgement.f1),
            "threshold": float(self.judgement.threshold),
        }

    def configure_optimizers(self) -> Any:
        options = self.config.train
        groups = []
        for trunk in (True, False):
            named = [
                (n, p)
                for n, p in self.net.named_parameters()
                if n.startswith("trunk.") == trunk and p.requires_grad
            ]
            rate = options.lr * (options.trunk_lr if trunk else 1.0)
            if rate == 0:
                for _, p in named:
                    p.requires_grad_(False)
                continue
            groups += decayed([p for _, p in named], rate, options.weight_decay)
        optimizer = torch.optim.AdamW(groups)
        # Not Lightning's `estimated_stepping_batches`, which starts the workers before the epoch of
        # a checkpoint is known.
        schedule: torch.optim.lr_scheduler.LRScheduler
        if options.schedule == "one_cycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, [g["lr"] for g in groups], total_steps=self.steps
            )  # type: ignore[misc]
        else:
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer, cosine(self.steps, options.warmup)
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def chosen_loss(options: TrainConfig) -> Callable[..., dict[str, torch.Tensor]]:
    """Return the loss function of a configuration, with its settings bound.

    Args:
        options: Training section of the configuration.

    Returns:
        One of `losses.LOSSES`.
    """
    if options.loss == "task_aligned":
        return partial(LOSSES[options.loss], smoothing=options.smoothing, forgive=options.forgive)
    return LOSSES[options.loss]


def decayed(
    parameters: Sequence[nn.Parameter], rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return parameter groups for AdamW, without weight decay for normalisation layers and biases.

    Shrinking the parameters of normalisation layers and the biases would not regularise.

    Args:
        parameters: Parameters to optimise.
        rate: Learning rate of both groups.
        weight_decay: Weight decay of the parameters with more than one dimension.

    Returns:
        Two groups: parameters with weight decay, and parameters without.
    """
    return [
        {"params": [p for p in parameters if p.ndim > 1], "lr": rate, "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
    ]


def cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Return a learning rate schedule with linear warm-up and cosine decay to 0.

    Args:
        steps: Total number of training steps.
        warmup: Share of `steps` in which the learning rate rises, in [0, 1).

    Returns:
        Function from the step, counted from 0, to the share of the peak learning rate.
    """
    rise = max(1, round(steps * warmup))

    def share(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))

    return share


def ramped_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return an update function for an exponential moving average (EMA) with a decay warm-up.

    The decay rises as (1 + n) / (10 + n) with the number n of updates, up to `decay`, so that the
    initial weights lose their influence early. Integer buffers are copied.

    Args:
        decay: Maximum decay per step.

    Returns:
        Function for the argument ``multi_avg_fn`` of `torch.optim.swa_utils.AveragedModel`.
    """

    @torch.no_grad()
    def update(
        averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], n: torch.Tensor | int
    ) -> None:
        now = min(decay, (1 + int(n)) / (10 + int(n)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - now)
            else:
                mean.copy_(value)

    return update


class _Reporter(Callback):
    """Callback that writes the metrics of every epoch to history.csv, and reports every step.

    Args:
        run: Run folder.
        on_step: Called after each training step; may be None.
    """

    def __init__(self, run: Path, on_step: OnStep | None) -> None:
        self.path, self.on_step = run / "history.csv", on_step
        self.rows: list[dict[str, Any]] = []
        self.begin = time.monotonic()

    @property
    def seconds(self) -> float:
        """Training time in seconds, without the time between an interruption and its resumption."""
        return time.monotonic() - self.begin

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self.begin -= float(state_dict["seconds"])

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.on_step and trainer.is_global_zero:
            self.on_step(
                trainer.global_step,
                int(trainer.estimated_stepping_batches),
                _plain(trainer.callback_metrics),
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = _plain(trainer.callback_metrics)
        if (
            trainer.current_epoch % trainer.check_val_every_n_epoch
            != trainer.check_val_every_n_epoch - 1
        ):  # type: ignore[operator]
            metrics = {k: v for k, v in metrics.items() if not k.startswith("val_")}
        self.rows.append(
            {"epoch": trainer.current_epoch + 1, **{k: round(v, 6) for k, v in metrics.items()}}
        )
        if trainer.is_global_zero:
            text = io.StringIO()
            writer = csv.DictWriter(
                text, sorted({k for row in self.rows for k in row}, key=lambda k: (k != "epoch", k))
            )
            writer.writeheader()
            writer.writerows(self.rows)
            write_whole(self.path, text.getvalue())


def _plain(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in metrics.items()}
