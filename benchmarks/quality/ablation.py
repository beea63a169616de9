"""One change at a time: what each part of the recipe is worth on validation photos.

    python benchmarks/quality/ablation.py DRINKS_FOLDER FUSED.safetensors [--distilled V4.safetensors] [--synthetic V4.safetensors]
        [--imagenet MOBILENET_V2.safetensors] [--jobs 2]

Every row is the recipe of configs/drinks_fused.toml in a fifth of its epochs (rows on length say theirs) with one
thing changed: through `shelfcount train`, then scored by `shelfcount evaluate` on the validation photos with corrected
labels; the test photos are not touched. FUSED, and V4 as `--distilled`, are starts from export/distill.py; with
'shipped' as FUSED, rows go on from the weights in the package, where all epochs are behind them. V4 as `--synthetic`
has learnt synthetic shelves with products as large as on the photos:

    shelfcount synth --out runs/shelves/train --photos 1200 --classes 60 --size 512x512 --facings 6-12 --seed 0
    shelfcount synth --out runs/shelves/val --photos 40 --classes 60 --size 512x512 --facings 6-12 --seed 1
    shelfcount train --model mobilenet_v4_s --data runs/shelves/train/labels.json \\
        --val runs/shelves/val/labels.json --config benchmarks/configs/drinks_fused.toml \\
        --set model.weights=none --set train.epochs=4 --set augment.mosaic=0 --out runs/v4-shelves

Rows that stand in the result already are not trained again.
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

from shelfcount.stamp import stamp
from shelfcount.vision.images import write_whole

BENCHMARKS = Path(__file__).parents[1]
RESULT = BENCHMARKS / "results" / "ablation.json"
RUNS = BENCHMARKS.parent / "runs" / "ablation"
SHELFCOUNT = Path(sys.executable).with_name("shelfcount")
# Of every row, unless it says otherwise. One process of one thread, so that two rows fill two cores.
COMMON = ("train.devices=1", "train.workers=0", "train.validate_every=4")
CONFIG = BENCHMARKS / "configs" / "drinks_fused.toml"
# Starts that an option of the same name gives, and whose they are.
TAUGHT = {"distilled": "mobilenet_v4_s", "synthetic": "mobilenet_v4_s", "imagenet": "mobilenet_v2"}
ROBUST = BENCHMARKS / "configs" / "drinks_robust.toml"


@dataclass(frozen=True)
class Step:
    """One row.

    Attributes:
        name: Of the row and its run.
        what: The change, in words.
        changes: `--set`s on top of benchmarks/configs/drinks_fused.toml.
        model: Of the family, where it is another.
        start: Its weights, where they are others than the fused ones: as `model.weights`, or the option that names their file.
        corrected: Whether training labels are the corrected ones.
        seeds: Three where the difference may be small.
        epochs: Other than the study's.
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
    """Those that the released network is trained under."""
    return (
        f"augment.conditions={json.dumps(tomllib.loads(ROBUST.read_text())['augment']['conditions'])}",
    )


def strong() -> tuple[str, ...]:
    """The package's default augmentation, as changes of the drinks recipe's milder one."""
    from shelfcount.config import AugmentConfig

    return tuple(
        f"augment.{key}={json.dumps(value)}"
        for key, value in AugmentConfig().model_dump(mode="json").items()
    )


SMALL_STEPS = ("train.batch=4", "train.lr=8e-3")
STEPS = (
    Step("base", "the recipe of drinks_fused.toml", seeds=(0, 1, 2)),
    Step("conditions", "light, colour casts, fog, blur and phones, as released", conditions()),
    Step("labels as published", "training labels not corrected", corrected=False, seeds=(0, 1, 2)),
    Step("paste", "products of other photos pasted in", ("augment.paste=0.5",), seeds=(0, 1, 2)),
    Step(
        "smoothing",
        "a tenth of a target spread over all classes",
        ("train.smoothing=0.1",),
        seeds=(0, 1, 2),
    ),
    Step("512 pixels", "a larger input", ("model.height=512", "model.width=512"), seeds=(0, 1, 2)),
    Step(
        "512 pixels and paste",
        "both",
        ("model.height=512", "model.width=512", "augment.paste=0.5"),
        seeds=(0, 1, 2),
    ),
    Step("320 pixels", "a smaller input", ("model.height=320", "model.width=320")),
    Step("forgiving", "unlabelled places forgiven", ("train.forgive=0.5",)),
    Step(
        "as published, forgiving",
        "labels not corrected, unlabelled places forgiven",
        ("train.forgive=0.5",),
        corrected=False,
    ),
    Step("focal", "focal loss, anchors matched by overlap", ('train.loss="focal"',)),
    Step("multibox", "SSD's softmax with hard negatives", ('train.loss="multibox"',)),
    Step("no mosaic", "whole photos alone", ("augment.mosaic=0",)),
    Step("strong augmentation", "the package's default augmentation", strong(), seeds=(0, 1, 2)),
    Step(
        "no averaging",
        "the last weights instead of their running mean",
        ("train.ema=0",),
        seeds=(0, 1, 2),
    ),
    Step("half as long", "8 epochs", epochs=8),
    Step("twice as long", "32 epochs", epochs=32),
    Step("three anchors", "three anchors a place instead of one", ("model.anchors_per_place=3",)),
    Step("from nothing", "random weights", start="none"),
    Step(
        "mobilenet_v2",
        "the trunk that the fused one is made of",
        model="mobilenet_v2",
        start="shipped",
    ),
    Step("small steps", "four photos a step at four times the rate", SMALL_STEPS),
    Step(
        "mobilenet_v2, small steps",
        "from ImageNet's trunk alone, its first stages frozen",
        (*SMALL_STEPS, "train.trunk_lr=0.25", "train.freeze=2"),
        model="mobilenet_v2",
        start="imagenet",
    ),
    Step(
        "mobilenet_v4_s",
        "from nothing, as there are no weights offline",
        model="mobilenet_v4_s",
        start="none",
    ),
    Step(
        "mobilenet_v4_s, synthetic",
        "from 1,200 synthetic shelves",
        model="mobilenet_v4_s",
        start="synthetic",
    ),
    Step(
        "mobilenet_v4_s, distilled",
        "from the features of a mobilenet_v2",
        model="mobilenet_v4_s",
        start="distilled",
    ),
)


def train(step: Step, seed: int, epochs: int, drinks: Path, start: str) -> dict[str, Any]:
    """Train and score one row."""
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
    """Train what is missing, so many at a time as asked for; each row is written when it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("drinks", type=Path)
    parser.add_argument("fused", help="start of mobilenet_v2_fused, or 'shipped'")
    for taught, member in TAUGHT.items():
        parser.add_argument(
            f"--{taught}", help=f"start of {member}; without it, its row is left out"
        )
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = (
        json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    )
    words = {step.name: step.what for step in STEPS}
    for row in rows:
        row["what"] = words[row["name"]]
    stands = {(row["name"], row["seed"], row["epochs"]) for row in rows}
    jobs = [
        (step, seed)
        for step in STEPS
        for seed in step.seeds
        if (step.name, seed, step.epochs or options.epochs) not in stands
        and (step.start not in TAUGHT or vars(options)[step.start])
    ]
    # First seeds first, so that an interrupted study has every row once.
    jobs = sorted(
        (job for job in jobs if not options.only or job[0].name in options.only),
        key=lambda job: job[1],
    )
    lock = Lock()

    def work(job: tuple[Step, int]) -> None:
        starts = {None: options.fused, **{taught: vars(options)[taught] for taught in TAUGHT}}
        start = starts.get(job[0].start, job[0].start)
        row = train(*job, job[0].epochs or options.epochs, options.drinks, start)
        with lock:
            rows.append(row)
            order = [step.name for step in STEPS]
            rows.sort(key=lambda r: (order.index(r["name"]), r["seed"]))
            write_whole(
                options.out,
                json.dumps({"photos": "validation, corrected labels", "rows": rows}, indent=1),
            )
            print(
                f"{row['name']}, seed {row['seed']}: F1 {row['f1']:.3f}, mAP {row['map']:.3f}, {row['minutes']} min",
                flush=True,
            )

    with ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(work, job) for job in jobs]:
            future.result()


if __name__ == "__main__":
    main()
