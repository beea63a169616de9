"""Give a network the start it lacks: the features of a trained mobilenet_v2, without labels.

    python export/distill.py RUN TRAIN.json --to mobilenet_v2_fused --out runs/fused.safetensors

mobilenet_v2_fused takes stages from stride 16 on, pyramid and heads from the run, and its plain
convolutions up to stride 8 are trained to give what the run's own stages give there. Any other member
of the family takes pyramid and heads, and the whole of its trunk is trained to feed that pyramid as
the run's does. Both on augmented training photos. `shelfcount train --model NAME --set
model.weights=OUT` then trains the whole.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save
from torch import nn
from torch.utils.data import DataLoader

from shelfcount.config import AugmentConfig
from shelfcount.data.augment import EpochSampler, TrainingPhotos, collate
from shelfcount.data.formats import read
from shelfcount.training.backbones import FAMILY
from shelfcount.training.detector import build
from shelfcount.training.runs import load_run, normalise
from shelfcount.vision.images import write_whole

FUSED = "mobilenet_v2_fused"
# What stands at stride 8 in both trunks: (stages of mobilenet_v2, stages of mobilenet_v2_fused) up to it.
UP_TO_STRIDE_8 = (3, 2)
# What comes behind, stage for stage.
SAME_STAGES = {3: 2, 4: 3, 5: 4}


class Early(nn.Module):
    """(B, 3, H, W) in [-1, 1] to the (B, 32, H / 8, W / 8) features of stride 8, alone in a list."""

    def __init__(self, trunk: Any, stages: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(trunk.conv_stem, trunk.bn1, *list(trunk.blocks)[:stages])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.stages(x)]


class Fed(nn.Module):
    """(B, 3, H, W) in [-1, 1] to what the pyramid is fed with, (B, neck, H / s, W / s) for the strides s of the trunk."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.trunk, self.laterals = net.trunk, net.laterals

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [lateral(f) for lateral, f in zip(self.laterals, self.trunk(x), strict=True)]


def halves(teacher: nn.Module, student: nn.Module, fused: bool) -> tuple[nn.Module, nn.Module]:
    """The parts that shall give the same: the teacher's and the student's."""
    if not fused:
        return Fed(teacher), Fed(student)
    return Early(teacher.trunk, UP_TO_STRIDE_8[0]), Early(student.trunk, UP_TO_STRIDE_8[1])


def transplant(teacher: nn.Module, student: nn.Module, fused: bool) -> int:
    """Copy what the student shall not learn from its teacher, every tensor that fits; returns how many."""
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


def missing(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """() share of the variance of (B, C, h, w) target features that is not found, mean over channels."""
    return ((found - target).square() / target.var(dim=(0, 2, 3), keepdim=True)).mean()


def main() -> None:
    """Train the student's part and write the weights of its whole detector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="of mobilenet_v2")
    parser.add_argument("data", type=Path)
    parser.add_argument("--to", choices=[name for name in FAMILY if name != "mobilenet_v2"], default=FUSED)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    console = Console(stderr=True)

    run = load_run(options.run)
    spec, teacher = run.spec, run.net.eval()
    student = build(options.to, len(spec.classes), spec.levels, teacher.state_dict()["smooth.0.1.0.weight"].shape[0])
    count = transplant(teacher, student, options.to == FUSED)
    console.print(f"{count} of {len(student.state_dict())} tensors copied from {options.run}")

    # Channels last and bfloat16: a quarter of the time on processors that have it.
    wanted, learned = (
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for part in halves(teacher, student, options.to == FUSED)
    )
    photos = TrainingPhotos(read(options.data), spec.height, spec.width, AugmentConfig(), options.epochs, options.seed)
    epoch = 0
    sampler = EpochSampler(len(photos), options.seed, lambda: epoch)
    loader = DataLoader(photos, batch_size=options.batch, sampler=sampler, collate_fn=collate, drop_last=True)
    optimizer = torch.optim.AdamW(learned.parameters(), lr=options.lr, weight_decay=0.01)
    steps = options.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=steps, pct_start=0.1)
    columns = (TextColumn("unexplained {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    begin = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=steps)
        for epoch in range(options.epochs):
            unexplained = 0.0
            learned.train()
            for images, _ in loader:
                x = normalise(images).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16):
                    with torch.no_grad():
                        targets = wanted(x)
                    found = learned(x)
                loss = torch.stack([missing(f.float(), t.float()) for f, t in zip(found, targets, strict=True)]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                unexplained += loss.item() / len(loader)
                progress.advance(task)
            progress.update(task, description=f"{unexplained:.3f}")
            if not console.is_terminal and epoch % 5 == 4:
                console.print(f"epoch {epoch + 1}: unexplained variance {unexplained:.4f}, {(time.monotonic() - begin) / 60:.1f} min")
    write_whole(options.out, save({k: v.contiguous() for k, v in student.state_dict().items()}))
    console.print(f"unexplained share of the features' variance {unexplained:.3f}; {options.out}")


if __name__ == "__main__":
    main()
