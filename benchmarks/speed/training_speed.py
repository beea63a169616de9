"""Photos a second of `shelfcount train` against a loop in the manner of torchvision's reference, on one network.

    python benchmarks/speed/training_speed.py TRAIN.json [--rounds 3]

The reference (pytorch/vision, references/detection, its ssdlite recipe) decodes every photo anew, crops by
overlap, mirrors, trains all layers in float32 with SGD, and spreads one process over all cores. Here it
trains this package's network with this package's loss, so that only the loop differs. Each way runs in a
process of its own, in turn. Writes benchmarks/results/training_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from shelfcount import config as config_module
from shelfcount.data.formats import read
from shelfcount.records import Dataset
from shelfcount.stamp import stamp
from shelfcount.training.detector import build
from shelfcount.training.fit import Judgement, fit, make_spec
from shelfcount.training.losses import Truth, task_aligned
from shelfcount.vision import anchors
from shelfcount.vision.images import write_whole

RESULT = Path(__file__).parents[1] / "results" / "training_speed.json"
CONFIG = Path(__file__).parents[1] / "configs" / "drinks.toml"
EPOCHS = 4
WAYS = {
    "torchvision's loop": "one process, float32, every layer, photos decoded each time",
    "shelfcount, every layer": "as benchmarks/configs/drinks.toml, but nothing frozen",
    "shelfcount": "as benchmarks/configs/drinks.toml: two processes, bfloat16 where the processor has it, photos kept decoded, "
    "stem and first stages frozen",
}


class ReferencePhotos(TorchDataset[tuple[torch.Tensor, dict[str, Any]]]):
    """Photos from the disk with the transforms of torchvision's ssdlite recipe, at the network's size."""

    def __init__(self, dataset: Dataset, height: int, width: int) -> None:
        self.dataset = dataset
        self.transform = v2.Compose(
            [
                v2.RandomIoUCrop(),
                v2.RandomHorizontalFlip(0.5),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Resize((height, width), antialias=True),
                v2.SanitizeBoundingBoxes(),
            ]
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        photo = self.dataset.photos[index]
        image = Image.open(photo.path).convert("RGB")
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(photo.truth.boxes.copy()),
            format="XYXY",
            canvas_size=(image.height, image.width),
        )  # type: ignore[call-arg]
        image, target = self.transform(
            image, {"boxes": boxes, "labels": torch.from_numpy(photo.truth.classes.copy())}
        )
        return image, target


def reference(dataset: Dataset) -> float:
    """Photos a second of the loop in torchvision's manner, after the first epoch."""
    config = config_module.load(CONFIG)
    spec = make_spec(dataset, config)
    net = build(spec.architecture, len(spec.classes), spec.levels, config.model.neck).train()
    places = torch.from_numpy(
        anchors.layout(spec.levels, spec.height, spec.width)
        * np.array([spec.height, spec.width] * 2, np.float32)
    )
    loader = DataLoader(
        ReferencePhotos(dataset, spec.height, spec.width),
        batch_size=config.train.batch,
        shuffle=True,
        num_workers=os.cpu_count() or 1,
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
        drop_last=True,
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=4e-5)
    begin, done = 0.0, 0
    for epoch in range(EPOCHS):
        if epoch == 1:
            begin = time.perf_counter()
        for images, targets in loader:
            location, logits = net(torch.stack(images) * 2 - 1)
            truths = [
                Truth(
                    t["boxes"].as_subclass(torch.Tensor),
                    t["labels"],
                    torch.zeros(len(t["labels"]), dtype=torch.bool),
                )
                for t in targets
            ]
            loss = torch.stack(list(task_aligned(location, logits, truths, places).values())).sum()
            if not torch.isfinite(loss):
                raise RuntimeError(f"the loss must be finite, got {loss.item()}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += len(images) if epoch else 0
    return done / (time.perf_counter() - begin)


def ours(dataset: Dataset, freeze: int) -> float | None:
    """Photos a second of `training.fit` after the first epoch; None in all processes but the first."""
    # Random weights are never frozen; the package's own stand for any start.
    config = config_module.load(
        CONFIG,
        (
            f"train.epochs={EPOCHS}",
            "train.validate_every=999",
            f"train.freeze={freeze}",
            "model.weights=shipped",
        ),
    )
    times: list[float] = []
    few = replace(dataset, photos=dataset.photos[:1])
    with tempfile.TemporaryDirectory() as folder:
        fit(
            dataset,
            few,
            Path(folder) / "run",
            config,
            lambda _, __: Judgement(0.0, 0.5),
            on_step=lambda *_: times.append(time.perf_counter()),
        )
    if not times:
        return None
    first = len(times) // EPOCHS
    return (len(times) - first) * config.train.batch / (times[-1] - times[first - 1])


def rows(speeds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Photos a second of each way, and how many times the reference's they are: median, least and most over the rounds."""
    slow = np.array(speeds["torchvision's loop"])
    return [
        {
            "way": way,
            "what": WAYS[way],
            "photos_per_second": values,
            "times_torchvision": [
                round(float(f(np.array(values) / slow)), 2) for f in (np.median, np.min, np.max)
            ],
        }
        for way, values in speeds.items()
    ]


def main() -> None:
    """Each way in turn, as often as asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, default=96)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.way:
        dataset = read(options.data)
        dataset = replace(dataset, photos=dataset.photos[: options.photos])
        speed = (
            reference(dataset)
            if options.way == "torchvision's loop"
            else ours(dataset, 0 if "every" in options.way else 2)
        )
        if speed is not None:
            print(json.dumps(speed))
        return
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(options.rounds):
        for way in WAYS:
            command = [
                sys.executable,
                __file__,
                options.data,
                "--way",
                way,
                "--photos",
                str(options.photos),
            ]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            speeds[way].append(round(float(said.strip().splitlines()[-1]), 2))
            print(f"round {turn + 1}, {way}: {speeds[way][-1]:.2f} photos a second", flush=True)
        # Each round is written: what was measured is not lost with a run that is stopped.
        result = {
            "stamp": stamp(threads=os.cpu_count()),
            "photos": options.photos,
            "epochs_counted": EPOCHS - 1,
            "rows": rows(speeds),
        }
        write_whole(options.out, json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
