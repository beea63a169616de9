"""Compare the speed of `shelfcount train` with a loop like torchvision's reference, on one network.

    python benchmarks/speed/training_speed.py TRAIN.json [--rounds 3]

The reference is the ssdlite recipe of torchvision (references/detection). It decodes every photo in
each epoch, crops by IoU, mirrors, and trains all layers in float32 with SGD, in one process on all
cores. Here it trains the network of this package with the loss of this package, so that only the
loop differs. The loops run alternately, each in a process of its own. Writes
benchmarks/results/training_speed.json.
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
from shelfcount.data.formats import read_labels
from shelfcount.files import write_json
from shelfcount.records import Dataset
from shelfcount.stamp import stamp
from shelfcount.training.fit import fit
from shelfcount.training.inputs import make_spec
from shelfcount.training.losses import Truth, task_aligned
from shelfcount.training.networks import build
from shelfcount.vision import anchors

RESULT = Path(__file__).parents[1] / "results" / "training_speed.json"
CONFIG = Path(__file__).parents[1] / "configs" / "drinks.toml"
EPOCHS = 4
WAYS = {
    "torchvision's loop": "one process, float32, all layers, photos decoded in each epoch",
    "shelfcount, every layer": "settings of benchmarks/configs/drinks.toml, without frozen layers",
    "shelfcount": "settings of benchmarks/configs/drinks.toml: two processes, bfloat16 if the "
    "processor supports it, decoded photos kept in memory, stem and first stages frozen",
}


class ReferencePhotos(TorchDataset[tuple[torch.Tensor, dict[str, Any]]]):
    """Photos from disk with the transforms of torchvision's ssdlite recipe, at the input size."""

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
    """Return photos per second of the reference loop, after the first epoch."""
    config = config_module.load_config(CONFIG)
    spec = make_spec(dataset, config)
    net = build(spec.architecture, len(spec.classes), spec.levels, config.model.neck).train()
    places = torch.from_numpy(
        anchors.anchor_grid(spec.levels, spec.height, spec.width)
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
                raise RuntimeError(f"the loss is {loss.item()}, which is not finite")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += len(images) if epoch else 0
    return done / (time.perf_counter() - begin)


def ours(dataset: Dataset, freeze: int) -> float | None:
    """Return photos per second of `training.fit` after the first epoch.

    Returns:
        None in all processes but the first.
    """
    # Random weights are never frozen, so the training starts from those of the package.
    config = config_module.load_config(
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
            on_step=lambda *_: times.append(time.perf_counter()),
        )
    if not times:
        return None
    first = len(times) // EPOCHS
    return (len(times) - first) * config.train.batch / (times[-1] - times[first - 1])


def rows(speeds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return photos per second of each loop, and their ratio to the reference's.

    The ratio has median, minimum and maximum over the rounds.
    """
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
    """Run the loops alternately and write the result after each round."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="Labelled training photos.")
    parser.add_argument("--rounds", type=int, default=3, help="Runs of each loop. Default: 3.")
    parser.add_argument("--photos", type=int, default=96, help="Photos to train on. Default: 96.")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULT, help="Result to write.")
    options = parser.parse_args()
    if options.way:
        dataset = read_labels(options.data)
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
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            speeds[way].append(round(float(output.strip().splitlines()[-1]), 2))
            print(f"round {turn + 1}, {way}: {speeds[way][-1]:.2f} photos per second", flush=True)
        # The result is written after each round, so that a stopped run keeps its measurements.
        result = {
            "stamp": stamp(threads=os.cpu_count()),
            "photos": options.photos,
            "epochs_counted": EPOCHS - 1,
            "rows": rows(speeds),
        }
        write_json(options.out, result)


if __name__ == "__main__":
    main()
