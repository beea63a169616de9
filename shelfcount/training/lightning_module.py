"""Lightning module with the training and validation steps, EMA weights and the history file."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from shelfcount.config import Config
from shelfcount.files import write_whole
from shelfcount.metrics.threshold import Validation, validate
from shelfcount.records import Dataset, ModelSpec
from shelfcount.training.augmentation import TrainingSample
from shelfcount.training.losses import Truth
from shelfcount.training.optimization import (
    cosine_schedule,
    ema_update,
    make_loss,
    weight_decay_groups,
)
from shelfcount.training.runs import TorchDetector, normalise
from shelfcount.vision import anchors
from shelfcount.vision.images import read_input
from shelfcount.vision.postprocess import LOWEST_SCORE

# Called after each training step with (steps done, total steps, latest metrics).
OnStep = Callable[[int, int, Mapping[str, float]], None]


class DetectorModule(pl.LightningModule):
    """Lightning module: the network, the EMA of its weights, the loss and the validation.

    Args:
        net: Network to train.
        spec: Specification of the model.
        config: Configuration of the run.
        val: Validation photos.
        frozen: Parts of `net` whose weights and statistics are not changed.
        steps: Total number of training steps, for the learning rate schedule.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: ModelSpec,
        config: Config,
        val: Dataset,
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
            self.net, multi_avg_fn=ema_update(config.train.ema), use_buffers=True
        )
        self.averaged.requires_grad_(False)
        self.spec, self.config, self.val = spec, config, val
        self.loss = make_loss(config.train)
        # Anchors for the training input, which may be a window. Validation uses the whole input,
        # for which the detector computes its own anchors.
        window = config.augment.window
        height, width = (window, window) if window else (spec.height, spec.width)
        pixels = anchors.anchor_grid(spec.levels, height, width) * np.array(
            [height, width] * 2, np.float32
        )
        self.register_buffer("anchors", torch.from_numpy(pixels), persistent=False)
        self.validation = Validation(0.0, spec.score_threshold, 0.0)
        self.latest: dict[str, float] = {}
        self.val_pixels: list[NDArray[np.uint8]] = []

    def on_train_epoch_start(self) -> None:
        # Lightning sets training mode, in which frozen parts would update their statistics.
        for part in self.frozen:
            part.eval()

    def training_step(
        self, batch: tuple[torch.Tensor, list[TrainingSample]], _: int
    ) -> torch.Tensor:
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
        # Lightning requires a loader. Its one item triggers a pass over all validation photos.
        return DataLoader([0])  # type: ignore[arg-type]

    def validation_step(self, *_: Any) -> None:
        if not self.val_pixels:
            self.val_pixels = [
                read_input(photo.path, self.spec.height, self.spec.width)
                for photo in self.val.photos
            ]
        detector = TorchDetector(self.averaged.module, self.spec, LOWEST_SCORE)
        detections = []
        for photo, pixels in zip(self.val.photos, self.val_pixels, strict=True):
            boxes = detector.detect(pixels)
            scale = np.array(
                [photo.width / self.spec.width, photo.height / self.spec.height] * 2, np.float32
            )
            detections.append(boxes.replace(boxes=boxes.boxes * scale))
        self.validation = validate(self.val, detections)
        self.log_dict(
            {
                "val_f1": self.validation.f1,
                "val_threshold": self.validation.threshold,
                "val_map": self.validation.mean_ap,
            },
            sync_dist=True,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["validation"] = {
            "f1": float(self.validation.f1),
            "threshold": float(self.validation.threshold),
        }

    def configure_optimizers(self) -> Any:
        options = self.config.train
        groups = []
        for backbone in (True, False):
            named = [
                (n, p)
                for n, p in self.net.named_parameters()
                if n.startswith("trunk.") == backbone and p.requires_grad
            ]
            rate = options.lr * (options.backbone_lr if backbone else 1.0)
            if rate == 0:
                for _, p in named:
                    p.requires_grad_(False)
                continue
            groups += weight_decay_groups([p for _, p in named], rate, options.weight_decay)
        optimizer = torch.optim.AdamW(groups)
        # Not Lightning's estimated_stepping_batches, which starts the workers before the epoch of
        # a checkpoint is known.
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, cosine_schedule(self.steps, options.warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class HistoryWriter(Callback):
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
        every = trainer.check_val_every_n_epoch or 1
        if trainer.current_epoch % every != every - 1:
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
