"""Distillation of a backbone: a student learns the features of a trained mobilenet_v2."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models.resnet import Bottleneck

from shelfcount.machine import multiplies_bfloat16
from shelfcount.records import Progress
from shelfcount.training.augmentation import TrainingPhotos
from shelfcount.training.batches import EpochSampler, collate
from shelfcount.training.networks import RetinaNet
from shelfcount.training.runs import normalise

FUSED = "mobilenet_v2_fused"
# Number of stages up to stride 8 of mobilenet_v2 and of mobilenet_v2_fused.
UP_TO_STRIDE_8 = (3, 2)
# Later stages of mobilenet_v2, and the same stages of mobilenet_v2_fused.
SAME_STAGES = {3: 2, 4: 3, 5: 4}


class FirstStages(nn.Module):
    """Backbone up to stride 8: (B, 3, H, W) in [-1, 1] to a list of one (B, 32, H / 8, W / 8)."""

    def __init__(self, backbone: Any, stages: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            backbone.conv_stem, backbone.bn1, *list(backbone.blocks)[:stages]
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.stages(x)]


class PyramidInputs(nn.Module):
    """Inputs of the pyramid: (B, 3, H, W) in [-1, 1] to (B, neck, H / s, W / s) per stride s."""

    def __init__(self, net: Any, neck: int) -> None:
        super().__init__()
        self.neck, self.trunk = neck, net.trunk
        self.laterals = net.fpn.inner_blocks if isinstance(net, RetinaNet) else net.laterals

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = self.trunk(x)
        # torchvision's backbone returns its features by name.
        listed = list(features.values()) if isinstance(features, dict) else features
        return [
            lateral(f)[:, : self.neck] for lateral, f in zip(self.laterals, listed, strict=True)
        ]


def transplant(teacher: nn.Module, student: nn.Module, fused: bool) -> int:
    """Copy all tensors that fit from the teacher, except those that the student learns.

    Args:
        teacher: Trained mobilenet_v2 detector.
        student: Detector of another architecture.
        fused: Whether the student is mobilenet_v2_fused, whose late stages are copied too.

    Returns:
        Number of copied tensors.
    """
    theirs, mine, copied = teacher.state_dict(), student.state_dict(), {}
    for key, tensor in theirs.items():
        parts = key.split(".")
        if fused and parts[:2] == ["trunk", "blocks"]:
            if int(parts[2]) not in SAME_STAGES:
                continue
            parts[2] = str(SAME_STAGES[int(parts[2])])
        elif parts[0] == "trunk":
            continue
        name = ".".join(parts)
        if name in mine and mine[name].shape == tensor.shape:
            copied[name] = tensor
    student.load_state_dict({**mine, **copied})
    return len(copied)


def silence_branches(net: nn.Module) -> None:
    """Set the last normalisation of each residual branch to zero (arXiv:1706.02677, section 5.1).

    Each block is the identity at first, which makes training from random weights faster.
    """
    for block in net.modules():
        if isinstance(block, Bottleneck):
            nn.init.zeros_(block.bn3.weight)


def unexplained_variance(features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the share of the variance of (B, C, h, w) targets that features do not explain.

    Returns:
        () mean over the channels.
    """
    return ((features - target).square() / target.var(dim=(0, 2, 3), keepdim=True)).mean()


@dataclass(frozen=True)
class Lesson:
    """One training of a student's features.

    Attributes:
        name: Description for the progress.
        teacher: Module that returns the features of the teacher.
        learned: Module that returns the features of the student.
        epochs: Epochs over the photos.
        lr: Maximum learning rate.
    """

    name: str
    teacher: nn.Module
    learned: nn.Module
    epochs: int
    lr: float


def lessons(
    teacher: nn.Module, student: nn.Module, fused: bool, neck: int, epochs: int, lr: float
) -> list[Lesson]:
    """Return the lessons of a student.

    The early stages of mobilenet_v2_fused are trained first, since only they are new. Then the
    whole backbone is trained to give the inputs of the feature pyramid.
    """
    whole = Lesson(
        "pyramid", PyramidInputs(teacher, neck), PyramidInputs(student, neck), epochs, lr
    )
    if not fused:
        return [whole]
    teacher_stages, student_stages = (
        FirstStages(net.trunk, stages)
        for net, stages in zip((teacher, student), UP_TO_STRIDE_8, strict=True)
    )
    # The copied stages need small changes only.
    return [
        Lesson("first stages", teacher_stages, student_stages, 3 * epochs, lr),
        replace(whole, lr=lr / 5),
    ]


def distill(
    lesson: Lesson,
    photos: TrainingPhotos,
    batch: int,
    seed: int,
    progress: Progress,
) -> float:
    """Train ``lesson.learned`` to return the features of ``lesson.teacher``.

    Args:
        lesson: Teacher and student.
        photos: Augmented photos for all epochs of the lesson.
        batch: Photos per step.
        seed: Random seed of the order of the photos.
        progress: Called after each step with steps done, all steps and a description.

    Returns:
        Share of the features' variance that the student does not explain, mean of the last epoch.
    """
    # Processors are faster with channels last, and with bfloat16 if they support it.
    teacher, learned = (
        part.to(memory_format=torch.channels_last) for part in (lesson.teacher, lesson.learned)
    )  # type: ignore[call-overload]
    epoch = 0
    sampler = EpochSampler(len(photos), seed, lambda: epoch)
    loader = DataLoader(
        photos, batch_size=batch, sampler=sampler, collate_fn=collate, drop_last=True
    )
    optimizer = torch.optim.AdamW(learned.parameters(), lr=lesson.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lesson.lr, total_steps=lesson.epochs * len(loader), pct_start=0.1
    )
    unexplained = 0.0
    for epoch in range(lesson.epochs):
        unexplained = 0.0
        learned.train()
        for step, (images, _) in enumerate(loader):
            x = normalise(images).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
                with torch.no_grad():
                    targets = teacher(x)
                found = learned(x)
            loss = torch.stack(
                [
                    unexplained_variance(f.float(), t.float())
                    for f, t in zip(found, targets, strict=True)
                ]
            ).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            unexplained += loss.item() / len(loader)
            shown = f"{lesson.name}, unexplained {loss.item():.3f}"
            progress(epoch * len(loader) + step + 1, lesson.epochs * len(loader), shown)
    return unexplained
