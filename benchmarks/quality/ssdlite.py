"""Train torchvision's ssdlite320_mobilenet_v3_large on the drinks photos, as a row of the ablation.

    python benchmarks/quality/ssdlite.py DRINKS_FOLDER [--epochs 16]

Network, anchors, loss and decoding are torchvision's. It starts from random weights, since
torchvision's are not part of its package. The ablation's row "from nothing" does the same. Photos,
augmentation, optimizer, corrected labels and the choice of the threshold are those of the ablation.
Writes benchmarks/results/ssdlite.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from shelfcount import config as config_module
from shelfcount.cli.console import progress_bar
from shelfcount.data.datasets import align_classes
from shelfcount.data.formats import read_labels
from shelfcount.files import write_json
from shelfcount.labels.corrections import correct_labels, read_corrections
from shelfcount.metrics.evaluate import detect_dataset
from shelfcount.metrics.scoring import score
from shelfcount.metrics.threshold import choose_threshold
from shelfcount.records import Dataset, Detections, ModelSpec
from shelfcount.stamp import stamp
from shelfcount.training.augmentation import TrainingPhotos
from shelfcount.training.batches import EpochSampler, collate
from shelfcount.vision.postprocess import LOWEST_SCORE

BENCHMARKS = Path(__file__).parents[1]
RESULT = BENCHMARKS / "results" / "ssdlite.json"
CONFIG = BENCHMARKS / "configs" / "drinks_fused.toml"
# Input side of the network in pixels. torchvision's model resizes photos to it.
SIDE = 320
BATCH = 8


class TorchvisionDetector:
    """A torchvision detection model as a `Detector`. Class 0 of the model is the background."""

    def __init__(self, net: nn.Module, classes: tuple[str, ...]) -> None:
        self.net = net.eval()
        self.spec = ModelSpec("ssdlite", "ssdlite320_mobilenet_v3_large", classes, SIDE, SIDE, ())

    @torch.inference_mode()
    def detect(self, image: np.ndarray) -> Detections:
        found = self.net([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]
        boxes, classes, scores = (found[key].numpy() for key in ("boxes", "labels", "scores"))
        return Detections(boxes, classes - 1, scores)


def corrected(drinks: Path, part: str) -> Dataset:
    """Read the photos of 'train' or 'val' with corrected labels."""
    return correct_labels(
        read_labels(str(drinks / f"{part}.json")),
        read_corrections(BENCHMARKS / "data" / f"drinks_{part}_corrections.json"),
    )


def train(dataset: Dataset, epochs: int, seed: int) -> nn.Module:
    """Train the network with the photos, augmentation and optimizer of the ablation."""
    torch.manual_seed(seed)
    config = config_module.load_config(CONFIG)
    # At most 300 detections, as for all detectors here. Lower scores than LOWEST_SCORE never count.
    net = ssdlite320_mobilenet_v3_large(
        weights=None,
        weights_backbone=None,
        num_classes=len(dataset.classes) + 1,
        score_thresh=LOWEST_SCORE,
        detections_per_img=300,
    )
    net.train()
    photos = TrainingPhotos(dataset, SIDE, SIDE, config.augment, epochs, seed)
    epoch = 0
    loader = DataLoader(
        photos,
        batch_size=BATCH,
        sampler=EpochSampler(len(photos), seed, lambda: epoch),
        collate_fn=collate,
        drop_last=True,
    )
    optimizer = torch.optim.AdamW(
        net.parameters(), config.train.lr, weight_decay=config.train.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.train.lr, total_steps=epochs * len(loader), pct_start=0.1
    )
    with progress_bar("training ssdlite320_mobilenet_v3_large") as advance:
        for epoch in range(epochs):
            for step, (images, samples) in enumerate(loader):
                # The model has no ignored boxes.
                targets = [
                    {"boxes": s["boxes"][~s["ignore"]], "labels": s["classes"][~s["ignore"]] + 1}
                    for s in samples
                ]
                loss = torch.stack(list(net(list(images.float() / 255), targets).values())).sum()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), config.train.clip)
                optimizer.step()
                schedule.step()
                advance(
                    epoch * len(loader) + step + 1, epochs * len(loader), f"loss {loss.item():.2f}"
                )
    return net


def main() -> None:
    """Train and evaluate the network, and write the row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("drinks", type=Path, help="Folder of the drinks photos.")
    parser.add_argument("--epochs", type=int, default=16, help="Number of epochs. Default: 16.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed. Default: 0.")
    parser.add_argument("--out", type=Path, default=RESULT, help="Result to write.")
    options = parser.parse_args()
    training, validation = align_classes(
        corrected(options.drinks, "train"), corrected(options.drinks, "val")
    )
    begin = time.monotonic()
    net = train(training, options.epochs, options.seed)
    minutes = (time.monotonic() - begin) / 60
    found = detect_dataset(TorchvisionDetector(net, validation.classes), validation)
    result = score(validation, found, choose_threshold(validation, found, floor=LOWEST_SCORE)[0])
    row = {
        "name": "ssdlite320_mobilenet_v3_large",
        "what": "torchvision's network, from random weights, with an input of 320 pixels",
        "seed": options.seed,
        "epochs": options.epochs,
        "start": "random",
        "f1": result.micro.f1,
        "f1_class_ignored": result.class_agnostic.f1,
        "map": result.map,
        "count_error": result.count_by_class.relative,
        "minutes": round(minutes, 1),
        "stamp": stamp(seed=options.seed, threads=torch.get_num_threads()),
    }
    write_json(options.out, {"photos": "validation, corrected labels", "rows": [row]})
    print(f"F1 {row['f1']:.3f}, mAP {row['map']:.3f}, {row['minutes']} min")


if __name__ == "__main__":
    main()
