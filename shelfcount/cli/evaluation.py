"""The verbs `evaluate` and `repeat`: metrics on test photos, and their variance over splits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shelfcount.cli.console import (
    ClassNames,
    CorrectionsFiles,
    Depth,
    Force,
    HtmlFile,
    JsonFile,
    TestLabels,
    Threads,
    out,
    print_note,
    print_table,
    progress_bar,
    require_extra,
)
from shelfcount.files import require_absent, write_json, write_whole
from shelfcount.records import Detections
from shelfcount.words import NOT_MEASURED, plural

if TYPE_CHECKING:
    from shelfcount.metrics.scoring import Evaluation


def evaluate_verb(
    model: Annotated[
        Path, typer.Argument(metavar="BUNDLE_OR_RUN", help="Folder of a bundle or of a run.")
    ],
    data: TestLabels,
    json_file: JsonFile = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Write the confusion matrix to this file (.png)."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML report of confused classes, with crops, and the F1 that each class "
            "loses."
        ),
    ] = None,
    trained_on: Annotated[
        str | None,
        typer.Option(
            help="Labels that the model was trained on. The HTML report then contains the number "
            "of training examples per class."
        ),
    ] = None,
    repeats_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of finished repeats at several --shares, from `shelfcount repeat`. The "
            "HTML report then contains a learning curve for each class."
        ),
    ] = None,
    class_names: ClassNames = None,
    corrections: CorrectionsFiles = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Measure precision, recall, F1, mAP and count error on labelled photos."""
    from shelfcount.labels.reading import read_corrected
    from shelfcount.metrics.confusions import analyse_errors
    from shelfcount.report.accuracy_figures import confusion_matrix
    from shelfcount.report.confusion_page import write_confusion_page
    from shelfcount.studies.model_evaluation import evaluate_model

    for file in (json_file, picture, html):
        require_absent(file, force)
    curves = None
    if repeats_dir:
        require_extra("train", "evaluate --repeats-dir")
        from shelfcount.studies.repeat_run import read_learning_curves

        curves = read_learning_curves(repeats_dir)
    examples = None
    if trained_on:
        learnt, notes = read_corrected(trained_on, class_names, corrections or (), [data])
        for note in notes:
            print_note(note)
        boxes = Detections.concat([photo.truth for photo in learnt.photos])
        examples = boxes.counts(learnt.classes)
    with progress_bar("evaluating") as advance:
        result = evaluate_model(
            model,
            data,
            class_names=class_names,
            corrections=corrections or (),
            others=[trained_on] if trained_on else [],
            threads=threads,
            tell=print_note,
            progress=advance,
        )
    metrics = result.metrics
    if json_file:
        write_json(json_file, result.to_json())
    if picture:
        write_whole(picture, confusion_matrix(metrics.confusion, metrics.classes))
    if html:
        analysis = analyse_errors(result.dataset, result.detections, metrics, examples, curves)
        write_confusion_page(result.dataset, metrics, analysis, result.model["name"], html)
    _print_evaluation(metrics)
    threshold, f1 = result.best
    out.print(
        f"{'best F1 over thresholds':26} {f1:.4f} at {threshold:.4f} "
        "(chosen on these photos, therefore optimistic)"
    )


def _print_evaluation(result: Evaluation) -> None:
    rows = []
    for row in sorted(result.per_class, key=lambda r: -r.score.truth):
        shares = (row.score.precision, row.score.recall, row.score.f1)
        counts = (str(row.score.truth), str(row.score.predicted))
        rows.append((row.name, *counts, *(f"{share:.3f}" for share in shares)))
    print_table(("class", "labelled", "detected", "precision", "recall", "F1"), rows)
    shown = [
        ("F1 at IoU 0.5", result.micro.f1),
        ("precision", result.micro.precision),
        ("recall", result.micro.recall),
        ("macro F1", result.macro_f1),
        ("class-agnostic F1", result.class_agnostic.f1),
        ("mAP 0.5:0.95", result.map),
        ("mAP 0.5", result.map50),
        ("count error, relative", result.count_by_class.relative),
        ("count error, MAE/photo", result.count_by_class.mae),
        ("count error, RMSE/photo", result.count_by_class.rmse),
    ]
    for name, value in shown:
        out.print(f"{name:26} {NOT_MEASURED if value is None else f'{value:.4f}'}")
    out.print(
        f"{'at score threshold':26} {result.threshold:.4f} on "
        f"{plural(len(result.photos), 'photo')}, {plural(result.micro.truth, 'product')}"
    )


def repeat_verb(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run that gives settings and training photos.")
    ],
    data: TestLabels,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of finished repeats, which are not run again. "
            "Default: repeats-DEPTH in the folder of the run.",
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of random splits to train and test on.")
    ] = 20,
    depth: Depth = "fast",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Epochs per repeat. Default: 20, or the run's own number with --depth full."
        ),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(
            help="Stop once the 95 % confidence interval of the median F1 is narrower than this, "
            "such as 0.01."
        ),
    ] = None,
    shares: Annotated[
        str,
        typer.Option(
            help="Shares of the training photos, such as 0.25,0.5,1, for learning curves. Each "
            "split is run at each share."
        ),
    ] = "1",
    start: Annotated[
        Path | None,
        typer.Option(help="Start weights of each repeat. Default: those of the run."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Number of worker processes. Default: one per CPU.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster that runs the repeats, or auto.")
    ] = None,
    trained_on: Annotated[
        str | None,
        typer.Option(help="Labelled photos to pool with --data. Default: those of the run."),
    ] = None,
    json_file: JsonFile = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Write a plot of the running median F1 to this file (.png)."),
    ] = None,
    html: HtmlFile = None,
    class_names: ClassNames = None,
    corrections: CorrectionsFiles = None,
    force: Force = False,
) -> None:
    """Train and test on random splits and measure how much the metrics vary.

    The photos of the run and those of --data are pooled and split anew for each repeat.
    """
    from shelfcount.report import repeats_page
    from shelfcount.studies import repeat_run, repeat_statistics, scheduling

    for file in (json_file, picture, html):
        require_absent(file, force)
    if ray:
        require_extra("ray", "repeat --ray")
        scheduler = scheduling.on_ray(ray)
    else:
        scheduler = scheduling.processes(processes or os.cpu_count() or 1)
    with progress_bar("repeats") as advance:
        results, summary = repeat_run.repeat_run(
            run,
            data,
            output or run / f"repeats-{depth}",
            repeats,
            scheduler,
            depth=depth,
            epochs=epochs,
            until=until,
            shares=shares,
            start=start,
            trained_on=trained_on,
            class_names=class_names,
            corrections=corrections or (),
            tell=print_note,
            progress=advance,
        )
    if json_file:
        write_json(json_file, {**summary, "results": [r.to_json() for r in results]})
    if picture:
        write_whole(picture, repeats_page.plot_repeats(results, summary))
    if html:
        facts = repeat_statistics.repeats_facts(summary)
        repeats_page.write_repeats_page(results, summary, facts, html)
    _print_repeats(summary, repeats_page.NAMES)
    out.print(
        f"{plural(summary['repeats'], 'repeat')}; with a probability of 95 % the median is between "
        f"from and to; {repeat_statistics.repeats_needed_text(summary['repeats_needed'])}"
    )


def _print_repeats(summary: Mapping[str, Any], names: Mapping[str, str]) -> None:
    rows = []
    for key, name in names.items():
        if of := summary.get(key):
            sd = NOT_MEASURED if of["sd"] is None else f"{of['sd']:.4f}"
            median, low, high = (f"{v:.4f}" for v in (of["median"], *of["interval"]))
            quartiles = " to ".join(f"{v:.4f}" for v in of["quartiles"])
            rows.append((name, median, low, high, sd, quartiles))
    print_table(("metric", "median", "from", "to", "SD", "quartiles"), rows)
