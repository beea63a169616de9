"""Give a network the start it lacks: the features of a trained mobilenet_v2, without labels.

    python export/distill.py RUN TRAIN.json --to mobilenet_v2_fused --out runs/fused.safetensors

mobilenet_v2_fused takes stages from stride 16 on, pyramid and heads from the run; its plain convolutions
up to stride 8 are trained to give what the run's own stages give there, and then its whole backbone to feed
the pyramid as the run's does. Any other member of the family takes pyramid and heads, and learns to feed
them. The baseline, resnet50, has another pyramid: the first channels that it is fed with learn to be all
that the run's is fed with, and what lies behind stays random. All on augmented training photos.
`shelfcount train --model NAME --set model.weights=OUT` then trains the whole. With 'shipped' as RUN the
teacher is the mobilenet_v2 that comes with the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models.resnet import Bottleneck

from shelfcount.cli.console import progress_bar
from shelfcount.config import AugmentConfig, Config, ModelConfig
from shelfcount.data.formats import read_labels
from shelfcount.files import write_whole
from shelfcount.machine import multiplies_bfloat16
from shelfcount.records import Dataset, ModelSpec
from shelfcount.training.augmentation import TrainingPhotos
from shelfcount.training.backbones import FAMILY
from shelfcount.training.batches import EpochSampler, collate
from shelfcount.training.inputs import make_spec
from shelfcount.training.networks import BASELINE, RetinaNet, build, retinanet_levels
from shelfcount.training.runs import load_run, normalise
from shelfcount.training.starting_weights import start_weights

FUSED = "mobilenet_v2_fused"
SHIPPED = "shipped"
# What stands at stride 8 in both backbones: (stages of mobilenet_v2, stages of mobilenet_v2_fused) up to it.
UP_TO_STRIDE_8 = (3, 2)
# What comes behind, stage for stage.
SAME_STAGES = {3: 2, 4: 3, 5: 4}


class FirstStages(nn.Module):
    """(B, 3, H, W) in [-1, 1] to the (B, 32, H / 8, W / 8) features of stride 8, alone in a list."""

    def __init__(self, backbone: Any, stages: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(backbone.conv_stem, backbone.bn1, *list(backbone.blocks)[:stages])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.stages(x)]


class Fed(nn.Module):
    """(B, 3, H, W) in [-1, 1] to what the pyramid is fed with, (B, neck, H / s, W / s) for the strides s of the backbone."""

    def __init__(self, net: Any, neck: int) -> None:
        super().__init__()
        self.neck, self.trunk = neck, net.trunk
        self.laterals = net.fpn.inner_blocks if isinstance(net, RetinaNet) else net.laterals

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = self.trunk(x)
        # torchvision's backbone names its features.
        listed = list(features.values()) if isinstance(features, dict) else features
        return [
            lateral(f)[:, : self.neck] for lateral, f in zip(self.laterals, listed, strict=True)
        ]


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


def silence_branches(net: nn.Module) -> None:
    """Let every block of a ResNet pass on what it gets until it has learnt more: from random weights, 50 layers learn sooner so.

    The last normalisation of each branch starts at zero (arXiv:1706.02677, section 5.1).
    """
    for block in net.modules():
        if isinstance(block, Bottleneck):
            nn.init.zeros_(block.bn3.weight)


def missing(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """() share of the variance of (B, C, h, w) target features that is not found, mean over channels."""
    return ((found - target).square() / target.var(dim=(0, 2, 3), keepdim=True)).mean()


@dataclass(frozen=True)
class Lesson:
    """One round of teaching.

    Attributes:
        name: For the progress.
        wanted, learned: What the teacher gives and what the student shall give, for the same pixels.
        epochs: Over the photos.
        lr: Peak rate.
    """

    name: str
    wanted: nn.Module
    learned: nn.Module
    epochs: int
    lr: float


def lessons(
    teacher: nn.Module, student: nn.Module, fused: bool, neck: int, epochs: int, lr: float
) -> list[Lesson]:
    """The early stages first, where they alone are new; then all that feeds the pyramid, as what comes behind has to fit them."""
    whole = Lesson("pyramid", Fed(teacher, neck), Fed(student, neck), epochs, lr)
    if not fused:
        return [whole]
    first_stages = (
        FirstStages(net.trunk, stages)
        for net, stages in zip((teacher, student), UP_TO_STRIDE_8, strict=True)
    )
    # What was copied is nearly right already.
    return [Lesson("early stages", *first_stages, 3 * epochs, lr), replace(whole, lr=lr / 5)]


def teach(
    lesson: Lesson,
    photos: Callable[[int], TrainingPhotos],
    options: argparse.Namespace,
    console: Console,
) -> None:
    """Train `lesson.learned`; prints the share of the features' variance that it leaves unexplained, mean of the last epoch."""
    # Processors are quicker with channels last, and with bfloat16 where they have it.
    wanted, learned = (
        part.to(memory_format=torch.channels_last) for part in (lesson.wanted, lesson.learned)
    )  # type: ignore[call-overload]
    data, epoch = photos(lesson.epochs), 0
    sampler = EpochSampler(len(data), options.seed, lambda: epoch)
    loader = DataLoader(
        data, batch_size=options.batch, sampler=sampler, collate_fn=collate, drop_last=True
    )
    optimizer = torch.optim.AdamW(learned.parameters(), lr=lesson.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lesson.lr, total_steps=lesson.epochs * len(loader), pct_start=0.1
    )
    unexplained = 0.0
    with progress_bar(lesson.name) as advance:
        for epoch in range(lesson.epochs):
            unexplained = 0.0
            learned.train()
            for step, (images, _) in enumerate(loader):
                x = normalise(images).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
                    with torch.no_grad():
                        targets = wanted(x)
                    found = learned(x)
                loss = torch.stack(
                    [missing(f.float(), t.float()) for f, t in zip(found, targets, strict=True)]
                ).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                unexplained += loss.item() / len(loader)
                shown = f"{lesson.name}, unexplained {loss.item():.3f}"
                advance(epoch * len(loader) + step + 1, lesson.epochs * len(loader), shown)
    console.print(f"{lesson.name}: unexplained share of the features' variance {unexplained:.3f}")


def teacher_of(source: str, dataset: Dataset) -> tuple[Any, ModelSpec]:
    """The network of a run, or the one that comes with the package, and its spec.

    Args:
        source: A run of mobilenet_v2, or 'shipped'.
        dataset: What is taught on; it gives the shipped one its classes and anchors, of which features know nothing.
    """
    if source != SHIPPED:
        run = load_run(Path(source))
        return run.net, run.spec
    spec = make_spec(dataset, Config(model=ModelConfig(architecture="mobilenet_v2")))
    net: Any = build(spec.architecture, len(spec.classes), spec.levels, ModelConfig().neck)
    start_weights(net, spec.architecture, SHIPPED)
    return net, spec


def main() -> None:
    """Teach the student's part and write the weights of its whole detector."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help=f"of mobilenet_v2, or '{SHIPPED}'")
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--to",
        choices=[name for name in [*FAMILY, BASELINE] if name != "mobilenet_v2"],
        default=FUSED,
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=224, help="pixels, a multiple of 32")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    console = Console(stderr=True)

    dataset = read_labels(options.data)
    teacher, spec = teacher_of(options.run, dataset)
    teacher.eval()
    neck = teacher.state_dict()["smooth.0.1.0.weight"].shape[0]
    levels = retinanet_levels() if options.to == BASELINE else spec.levels
    student = build(options.to, len(spec.classes), levels, neck)
    if options.to == BASELINE:
        silence_branches(student)
    fused = options.to == FUSED
    count = transplant(teacher, student, fused)
    console.print(f"{count} of {len(student.state_dict())} tensors copied from {options.run}")

    def photos(epochs: int) -> TrainingPhotos:
        # Features are local, and more small steps teach more than few large ones.
        return TrainingPhotos(
            dataset,
            spec.height,
            spec.width,
            AugmentConfig(window=options.crop),
            epochs,
            options.seed,
        )

    for lesson in lessons(teacher, student, fused, neck, options.epochs, options.lr):
        teach(lesson, photos, options, console)
        write_whole(options.out, save({k: v.contiguous() for k, v in student.state_dict().items()}))
    console.print(str(options.out))


if __name__ == "__main__":
    main()
