"""Optimization settings of training: loss, precision, weight decay, learning rate and EMA."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from shelfcount.config import TrainConfig
from shelfcount.machine import multiplies_bfloat16
from shelfcount.training.losses import LOSSES


def training_precision(options: TrainConfig) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
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


def make_loss(options: TrainConfig) -> Callable[..., dict[str, torch.Tensor]]:
    """Return the loss function of a configuration, with its settings bound.

    Args:
        options: Training section of the configuration.

    Returns:
        One of `losses.LOSSES`.
    """
    if options.loss == "task_aligned":
        return partial(LOSSES[options.loss], forgive=options.forgive)
    return LOSSES[options.loss]


def weight_decay_groups(
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


def cosine_schedule(steps: int, warmup: float) -> Callable[[int], float]:
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


def ema_update(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return an update function for an exponential moving average (EMA) with a decay warm-up.

    The decay rises as (1 + n) / (10 + n) with the number n of updates, up to `decay`, so that the
    initial weights lose their influence early. Integer buffers are copied.

    Args:
        decay: Maximum decay per step.

    Returns:
        Function for the argument ``multi_avg_fn`` of ``torch.optim.swa_utils.AveragedModel``.
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
