"""Measure the effect of one change each to the training recipe, on the validation photos.

    python benchmarks/quality/ablation.py DRINKS_FOLDER FUSED.safetensors
        [--distilled V4.safetensors] [--synthetic V4.safetensors]
        [--imagenet MOBILENET_V2.safetensors] [--jobs 2]

Every row is the recipe of configs/drinks_fused.toml with one change and a fifth of its epochs,
unless the change is the number of epochs. `shelfcount train` trains it, and `shelfcount evaluate`
evaluates it on the validation photos with corrected labels. The test photos are not used. FUSED,
and V4 of `--distilled`, are starting weights that export/distill.py makes. With 'shipped' as FUSED,
rows start from the weights in the package, which were trained for all epochs. V4 of `--synthetic`
was trained on synthetic shelves with products as large as those on the photos:

    shelfcount synth --out runs/shelves/train --photos 1200 --classes 60 --size 512x512 \\
        --facings 6-12 --seed 0
    shelfcount synth --out runs/shelves/val --photos 40 --classes 60 --size 512x512 \\
        --facings 6-12 --seed 1
    shelfcount train --model mobilenet_v4_s --data runs/shelves/train/labels.json \\
        --val runs/shelves/val/labels.json --config benchmarks/configs/drinks_fused.toml \\
        --set model.weights=none --set train.epochs=4 --set augment.mosaic=0 --out runs/v4-shelves

Rows that are in the result already are not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from shelfcount.files import write_json
from shelfcount.stamp import stamp

BENCHMARKS = Path(__file__).parents[1]
RESULT = BENCHMARKS / "results" / "ablation.json"
RUNS = BENCHMARKS.parent / "runs" / "ablation"
SHELFCOUNT = Path(sys.executable).with_name("shelfcount")
# Settings of every row. One process with one thread, so that two rows use two cores.
COMMON = ("train.devices=1", "train.workers=0", "train.validate_every=4")
CONFIG = BENCHMARKS / "configs" / "drinks_fused.toml"
# Starting weights that an option of the same name gives, and their architecture.
STARTS = {"distilled": "mobilenet_v4_s", "synthetic": "mobilenet_v4_s", "imagenet": "mobilenet_v2"}
ROBUST = BENCHMARKS / "configs" / "drinks_robust.toml"


@dataclass(frozen=True)
class AblationRow:
    """One row of the ablation.

    Attributes:
        name: Name of the row and of its run.
        what: The change, in words.
        changes: Values of `--set`, added to benchmarks/configs/drinks_fused.toml.
        model: Architecture.
        start: Starting weights, as a value of `model.weights` or a key of `STARTS`. None: FUSED.
        corrected: Whether the training labels are the corrected ones.
        seeds: Three seeds if the difference may be small.
        epochs: Number of epochs. None: that of the study.
    """

    name: str
    what: str
    changes: tuple[str, ...] = ()
    model: str = "mobilenet_v2_fused"
    start: str | None = None
    corrected: bool = True
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None


def conditions() -> tuple[str, ...]:
    """Return the conditions of the released network's training, as values of `--set`."""
    names = tomllib.loads(ROBUST.read_text())["augment"]["conditions"]
    return (f"augment.conditions={json.dumps(names)}",)


def strong() -> tuple[str, ...]:
    """Return the package's default augmentation, which is stronger than the recipe's."""
    from shelfcount.config import AugmentConfig

    return tuple(
        f"augment.{key}={json.dumps(value)}"
        for key, value in AugmentConfig().model_dump(mode="json").items()
    )


SMALL_STEPS = ("train.batch=4", "train.lr=8e-3")
STEPS = (
    AblationRow("base", "the recipe of drinks_fused.toml", seeds=(0, 1, 2)),
    AblationRow(
        "conditions",
        "trained under light, colour cast, fog, blur and phone cameras, as released",
        conditions(),
    ),
    AblationRow(
        "labels as published", "published training labels", corrected=False, seeds=(0, 1, 2)
    ),
    AblationRow(
        "paste", "copy-paste of products from other photos", ("augment.paste=0.5",), seeds=(0, 1, 2)
    ),
    AblationRow(
        "512 pixels", "a larger input", ("model.height=512", "model.width=512"), seeds=(0, 1, 2)
    ),
    AblationRow(
        "512 pixels and paste",
        "both",
        ("model.height=512", "model.width=512", "augment.paste=0.5"),
        seeds=(0, 1, 2),
    ),
    AblationRow("320 pixels", "a smaller input", ("model.height=320", "model.width=320")),
    AblationRow("forgiving", "unlabelled products left out of the loss", ("train.forgive=0.5",)),
    AblationRow(
        "as published, forgiving",
        "published labels, unlabelled products left out of the loss",
        ("train.forgive=0.5",),
        corrected=False,
    ),
    AblationRow("focal", "focal loss, anchors assigned by IoU", ('train.loss="focal"',)),
    AblationRow("no mosaic", "whole photos only", ("augment.mosaic=0",)),
    AblationRow(
        "strong augmentation", "the package's default augmentation", strong(), seeds=(0, 1, 2)
    ),
    AblationRow(
        "no averaging",
        "last weights instead of their exponential moving average",
        ("train.ema=0",),
        seeds=(0, 1, 2),
    ),
    AblationRow("half as long", "8 epochs", epochs=8),
    AblationRow("twice as long", "32 epochs", epochs=32),
    AblationRow(
        "three anchors", "three anchors per location instead of one", ("model.anchors_per_place=3",)
    ),
    AblationRow("from nothing", "random weights", start="none"),
    AblationRow(
        "mobilenet_v2",
        "the backbone that the fused one was made from",
        model="mobilenet_v2",
        start="shipped",
    ),
    AblationRow(
        "small steps", "batches of four photos with four times the learning rate", SMALL_STEPS
    ),
    AblationRow(
        "mobilenet_v2, small steps",
        "from an ImageNet backbone, with its first stages frozen",
        (*SMALL_STEPS, "train.backbone_lr=0.25", "train.freeze=2"),
        model="mobilenet_v2",
        start="imagenet",
    ),
    AblationRow(
        "mobilenet_v4_s",
        "from random weights, as no pretrained ones were available",
        model="mobilenet_v4_s",
        start="none",
    ),
    AblationRow(
        "mobilenet_v4_s, synthetic",
        "trained on 1,200 synthetic shelves first",
        model="mobilenet_v4_s",
        start="synthetic",
    ),
    AblationRow(
        "mobilenet_v4_s, distilled",
        "distilled from the features of a mobilenet_v2 first",
        model="mobilenet_v4_s",
        start="distilled",
    ),
)


def train(step: AblationRow, seed: int, epochs: int, drinks: Path, start: str) -> dict[str, Any]:
    """Train and evaluate one row, and return its entry of the result."""
    run = RUNS / f"{step.name.replace(' ', '-').replace(',', '')}-{seed}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    fixes = [
        f"--corrections={BENCHMARKS / 'data' / f'drinks_{part}_corrections.json'}"
        for part in ("train", "val")
    ]
    changes = (
        *COMMON,
        f"train.epochs={epochs}",
        f"train.seed={seed}",
        *step.changes,
        f"model.weights={start}",
    )
    begin = time.monotonic()
    subprocess.run(
        [
            SHELFCOUNT,
            "train",
            "--data",
            drinks / "train.json",
            "--val",
            drinks / "val.json",
            "--out",
            run,
            "--force",
            "--model",
            step.model,
        ]
        + ["--config", CONFIG, *(f"--set={change}" for change in changes)]
        + (fixes if step.corrected else fixes[1:]),
        check=True,
        env=environment,
        capture_output=True,
    )
    minutes = (time.monotonic() - begin) / 60
    scored = run / "val.json"
    subprocess.run(
        [
            SHELFCOUNT,
            "evaluate",
            run,
            "--data",
            drinks / "val.json",
            fixes[1],
            "--json",
            scored,
            "--force",
        ],
        check=True,
        env=environment,
        capture_output=True,
    )
    found = json.loads(scored.read_text())
    spec = json.loads((run / "spec.json").read_text())
    return {
        "name": step.name,
        "what": step.what,
        "seed": seed,
        "epochs": epochs,
        "start": spec["provenance"]["start"],
        "f1": found["f1"],
        "f1_class_ignored": found["any_class"]["f1"],
        "map": found["map"],
        "count_error": found["count_error"]["by_class"]["relative"],
        "minutes": round(minutes, 1),
        "stamp": stamp(seed=seed, threads=1),
    }


def main() -> None:
    """Train the rows that are missing, several at a time, and write each when it is finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("drinks", type=Path, help="Folder of the drinks photos.")
    parser.add_argument("fused", help="Starting weights of mobilenet_v2_fused, or 'shipped'.")
    for taught, member in STARTS.items():
        parser.add_argument(
            f"--{taught}", help=f"Starting weights of {member}. Default: its row is left out."
        )
    parser.add_argument("--epochs", type=int, default=16, help="Epochs of a row. Default: 16.")
    parser.add_argument("--jobs", type=int, default=2, help="Trainings at a time. Default: 2.")
    parser.add_argument("--only", nargs="*", help="Names of the rows to train.")
    parser.add_argument("--out", type=Path, default=RESULT, help="Result to write or extend.")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = (
        json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    )
    descriptions = {step.name: step.what for step in STEPS}
    for row in rows:
        # Rows of changes that the package no longer has keep their description.
        row["what"] = descriptions.get(row["name"], row["what"])
    trained = {(row["name"], row["seed"], row["epochs"]) for row in rows}
    jobs = [
        (step, seed)
        for step in STEPS
        for seed in step.seeds
        if (step.name, seed, step.epochs or options.epochs) not in trained
        and (step.start not in STARTS or vars(options)[step.start])
    ]
    # First seeds first, so that an interrupted study has every row once.
    jobs = sorted(
        (job for job in jobs if not options.only or job[0].name in options.only),
        key=lambda job: job[1],
    )
    lock = Lock()

    def work(job: tuple[AblationRow, int]) -> None:
        starts = {None: options.fused, **{taught: vars(options)[taught] for taught in STARTS}}
        start = starts.get(job[0].start, job[0].start)
        row = train(*job, job[0].epochs or options.epochs, options.drinks, start)
        with lock:
            rows.append(row)
            order = {step.name: number for number, step in enumerate(STEPS)}
            rows.sort(key=lambda r: (order.get(r["name"], len(order)), r["seed"]))
            write_json(options.out, {"photos": "validation, corrected labels", "rows": rows})
            print(
                f"{row['name']}, seed {row['seed']}: F1 {row['f1']:.3f}, mAP {row['map']:.3f}, "
                f"{row['minutes']} min",
                flush=True,
            )

    with ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(work, job) for job in jobs]:
            future.result()


if __name__ == "__main__":
    main()
