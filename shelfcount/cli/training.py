"""The verbs `synth` and `train`: synthetic photos, and the training of a detector."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from shelfcount.cli.console import (
    Changes,
    ClassNames,
    ConfigFile,
    CorrectionsFiles,
    Force,
    JsonFile,
    out,
    parse_pair,
    print_note,
    progress_bar,
)
from shelfcount.files import require_absent, write_json
from shelfcount.machine import is_main_process
from shelfcount.words import duration_words, plural


def synth_verb(
    output: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    photos: Annotated[int, typer.Option(min=1, help="Number of shelves to photograph.")] = 100,
    classes: Annotated[int, typer.Option(min=1, help="Number of product classes.")] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the shelves.")] = 0,
    catalogue_seed: Annotated[
        int,
        typer.Option(help="Seed of the products. Data sets with the same one share their classes."),
    ] = 0,
    size: Annotated[str, typer.Option(help="Width x height of a photo in pixels.")] = "1024x768",
    facings: Annotated[
        str,
        typer.Option(help="Minimum-maximum number of equal products side by side, such as 1-4."),
    ] = "",
    views: Annotated[
        int,
        typer.Option(
            min=1, help="Number of overlapping photos per shelf, with their homographies."
        ),
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Number of worker processes.")] = 2,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Render synthetic shelf photos with exact labels."""
    from shelfcount.synthetic.generation import generate
    from shelfcount.synthetic.layout import ShelfParams

    require_absent(json_file, force)
    width, height = parse_pair(size, "x", "--size")
    options: dict[str, Any] = {"width": width, "height": height}
    if facings:
        options["facings"] = parse_pair(facings, "-", "--facings")
    with progress_bar("rendering shelves") as advance:
        data = generate(
            output,
            photos=photos,
            classes=classes,
            seed=seed,
            catalogue_seed=catalogue_seed,
            params=ShelfParams(**options),
            views=views,
            workers=workers,
            force=force,
            progress=advance,
        )
    labels = output / "labels.json"
    if json_file:
        facts = {"photos": len(data), "boxes": data.boxes, "classes": list(data.classes)}
        write_json(json_file, {"labels": str(labels), **facts})
    out.print(
        f"{plural(len(data), 'photo')}, {plural(data.boxes, 'box', 'boxes')}, "
        f"{plural(len(data.classes), 'class', 'classes')}: {labels}",
        markup=False,
    )


def train_verb(
    data: Annotated[
        str,
        typer.Option(
            help="Labelled photos: COCO .json, YOLO data.yaml, VOC folder or SKU-110K .csv."
        ),
    ],
    output: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    val: Annotated[
        str | None,
        typer.Option(
            help="Labelled validation photos. Default: one seventh of --data is held out, without "
            "dividing a group of photos."
        ),
    ] = None,
    config: ConfigFile = None,
    changes: Changes = None,
    model: Annotated[
        str | None,
        typer.Option(help="Architecture of the MobileNet-SSD family, or resnet50 (the baseline)."),
    ] = None,
    class_names: ClassNames = None,
    corrections: CorrectionsFiles = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run in --out.")
    ] = False,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Train a detector on labelled photos."""
    from shelfcount.config import load_config

    settings = load_config(config, changes or (), model)
    require_absent(json_file, force or resume)
    from shelfcount.training.train import train_run

    # Lightning repeats the command in a process for each further device.
    main_process = is_main_process()
    begin = time.monotonic()
    with progress_bar("training") as advance:

        def step(done: int, total: int, metrics: Mapping[str, float]) -> None:
            names = {"loss": "loss", "val_f1": "val F1"}
            shown = [f"{name} {metrics[key]:.3f}" for key, name in names.items() if key in metrics]
            advance(done, total, " ".join(["training", *shown]))

        detector = train_run(
            data,
            output,
            val,
            config=settings,
            class_names=class_names,
            corrections=corrections or (),
            resume=resume,
            force=force,
            tell=print_note,
            on_step=step,
        )
    if not main_process:
        return
    threshold, facts = detector.spec.score_threshold, detector.spec.provenance
    if json_file:
        write_json(json_file, {"run": str(output), "score_threshold": threshold, **facts})
    out.print(
        f"best epoch {facts['best_epoch']}: F1 {facts['val_f1']:.3f} on the validation photos at "
        f"score threshold {threshold:.2f}; {duration_words(time.monotonic() - begin)}"
    )
    out.print(f"run: {output}", markup=False)
