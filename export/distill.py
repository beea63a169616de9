"""Make starting weights for a network by distillation from a trained mobilenet_v2.

    python export/distill.py RUN TRAIN.json --to mobilenet_v2_fused --out runs/fused.safetensors

The training needs photos and no labels. mobilenet_v2_fused gets the stages from stride 16 on, the
feature pyramid and the heads of the run. Its full convolutions up to stride 8 learn the features of
the run's stages there, and then its whole backbone learns to feed the pyramid like the run's. Other
MobileNets get the pyramid and the heads and learn to feed them. The baseline, resnet50, has another
pyramid: the first channels of its inputs learn the inputs of the run's pyramid, and the layers
after them stay random. `shelfcount train --model NAME --set model.weights=OUT` then trains the
whole network. With 'shipped' as RUN, the teacher is the mobilenet_v2 in the package.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save

from shelfcount.cli.console import progress_bar
from shelfcount.config import AugmentConfig, Config, ModelConfig
from shelfcount.data.formats import read_labels
from shelfcount.files import write_whole
from shelfcount.records import Dataset, ModelSpec
from shelfcount.training.augmentation import TrainingPhotos
from shelfcount.training.backbones import FAMILY
from shelfcount.training.distillation import FUSED, distill, lessons, silence_branches, transplant
from shelfcount.training.inputs import make_spec
from shelfcount.training.networks import BASELINE, build, retinanet_levels
from shelfcount.training.runs import load_run
from shelfcount.training.starting_weights import start_weights

SHIPPED = "shipped"


def teacher_of(source: str, dataset: Dataset) -> tuple[Any, ModelSpec]:
    """Return the network of a run, or of the package, and its spec.

    Args:
        source: Run of mobilenet_v2, or 'shipped'.
        dataset: Photos to train on. They give the network of the package classes and anchors, which
            do not change its features.
    """
    if source != SHIPPED:
        run = load_run(Path(source))
        return run.net, run.spec
    spec = make_spec(dataset, Config(model=ModelConfig(architecture="mobilenet_v2")))
    net: Any = build(spec.architecture, len(spec.classes), spec.levels, ModelConfig().neck)
    start_weights(net, spec.architecture, SHIPPED)
    return net, spec


def main() -> None:
    """Train the student's features and write the weights of its whole detector."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help=f"Run of mobilenet_v2, or '{SHIPPED}'.")
    parser.add_argument("data", type=Path, help="Training photos. Their labels are not used.")
    parser.add_argument(
        "--to",
        choices=[name for name in [*FAMILY, BASELINE] if name != "mobilenet_v2"],
        default=FUSED,
        help=f"Architecture of the student. Default: {FUSED}.",
    )
    parser.add_argument("--out", type=Path, required=True, help="Weights to write, .safetensors.")
    parser.add_argument("--epochs", type=int, default=40, help="Number of epochs. Default: 40.")
    parser.add_argument("--batch", type=int, default=8, help="Photos per step. Default: 8.")
    parser.add_argument(
        "--crop",
        type=int,
        default=224,
        help="Side of a crop in pixels, a multiple of 32. Default: 224.",
    )
    parser.add_argument(
        "--lr", type=float, default=3e-3, help="Maximum learning rate. Default: 0.003."
    )
    parser.add_argument("--seed", type=int, default=0, help="Random seed. Default: 0.")
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
        # Features are local, so crops suffice. Many small steps train better than few large ones.
        return TrainingPhotos(
            dataset,
            spec.height,
            spec.width,
            AugmentConfig(window=options.crop),
            epochs,
            options.seed,
        )

    for lesson in lessons(teacher, student, fused, neck, options.epochs, options.lr):
        with progress_bar(lesson.name) as advance:
            unexplained = distill(
                lesson, photos(lesson.epochs), options.batch, options.seed, advance
            )
        console.print(
            f"{lesson.name}: unexplained share of the features' variance {unexplained:.3f}"
        )
        write_whole(options.out, save({k: v.contiguous() for k, v in student.state_dict().items()}))
    console.print(str(options.out))


if __name__ == "__main__":
    main()
