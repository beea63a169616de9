"""The verbs `stress` and `bench`: robustness, and the comparison with the ResNet-50 baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shelfcount.cli.console import (
    BundleFolder,
    ClassNames,
    CorrectionsFiles,
    Force,
    HtmlFile,
    JsonFile,
    TestLabels,
    Threads,
    err,
    escape_markup,
    out,
    print_note,
    print_table,
    progress_bar,
)
from shelfcount.files import require_absent, write_json, write_whole
from shelfcount.records import Dataset
from shelfcount.words import plural

if TYPE_CHECKING:
    from shelfcount.config import Config
    from shelfcount.speed.comparison import BaselineComparison


def _read_labels(
    data: str, class_names: Path | None, corrections: Sequence[Path] | None
) -> Dataset:
    from shelfcount.labels.reading import read_corrected

    dataset, notes = read_corrected(data, class_names, corrections or ())
    for note in notes:
        print_note(note)
    return dataset


def stress_verb(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE_OR_RUN...",
            help="Bundles or runs. Conditions are ordered by the F1 loss of the first.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Labelled test photos. With --fix: validation photos, since settings must not be "
            "chosen on test photos."
        ),
    ],
    json_file: JsonFile = None,
    html: HtmlFile = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Write a plot of F1 under each condition to this file (.png)."),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(help="Write settings for `train` that cover the weakest conditions."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="With --fix: TOML file to start from. Default: the settings of the first run "
            "given."
        ),
    ] = None,
    photos: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of photos to use, evenly spaced over the data set. 0 (default): all.",
        ),
    ] = 0,
    conditions: Annotated[
        str, typer.Option(help="Conditions, such as motion,glare. Default: all.")
    ] = "",
    severities: Annotated[str, typer.Option(help="Severities, such as 2,4. Default: 1 to 5.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the random conditions.")] = 0,
    class_names: ClassNames = None,
    corrections: CorrectionsFiles = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Measure how light, blur, angle and other conditions change F1, counts and consistency."""
    from shelfcount.data.datasets import evenly_spaced, fingerprint
    from shelfcount.report import stress_page
    from shelfcount.stamp import stamp
    from shelfcount.studies import stress_conditions
    from shelfcount.studies.stress import StressedDetector, run_stress
    from shelfcount.studies.stress_examples import choose_examples
    from shelfcount.training.opening import open_model

    for file in (json_file, html, picture, fix):
        require_absent(file, force)
    chosen, levels = stress_conditions.choose_conditions(conditions, severities)
    base = _base_settings(models, config) if fix else None
    dataset = _read_labels(data, class_names, corrections)
    dataset = evenly_spaced(dataset, photos) if photos else dataset
    subjects = []
    for model in models:
        opened = open_model(model, threads)
        name = f"{opened.facts['name']} ({opened.facts['recipe']})"
        subjects.append(
            StressedDetector(name, opened.detector, opened.threshold, dict(opened.facts))
        )
    with progress_bar("photos under conditions") as advance:
        study = run_stress(subjects, dataset, chosen, levels, seed=seed, progress=advance)
    result = {
        "data": {"name": Path(data).name, "fingerprint": fingerprint(dataset)},
        "stamp": stamp(seed=seed, threads=threads),
        **study.to_json(),
    }
    if json_file:
        write_json(json_file, result)
    if html:
        stress_page.write_stress_page(result, choose_examples(study), html)
    if picture:
        write_whole(picture, stress_page.plot_stress(result))
    _print_stress(result)
    if fix and base:
        weak = study.weak_conditions()
        write_whole(fix, stress_conditions.add_conditions(base, weak).to_toml())
        names = ", ".join(condition.name for condition in weak) or "none: no F1 loss is large"
        out.print(f"config: {fix}, covering {names}", markup=False)


def _base_settings(models: Sequence[Path], config: Path | None) -> Config:
    """Read what --fix adds to: the given file, the settings of the first run, or the defaults."""
    from shelfcount.config import load_config

    runs = [model for model in models if (model / "config.toml").exists()]
    return load_config(config or (runs[0] / "config.toml" if runs else None))


def _print_stress(result: Mapping[str, Any]) -> None:
    from shelfcount.studies.stress_words import format_points, tolerance_text

    detectors = result["detectors"]
    names = [f", {detector['name']}" if len(detectors) > 1 else "" for detector in detectors]
    rows = []
    for condition in result["conditions"]:
        lost = [format_points(-summary["lost"]) for summary in condition["detectors"]]
        tolerated = tolerance_text(condition["detectors"][0], condition)
        rows.append((condition["name"], *lost, tolerated, condition["unit"]))
    points = [f"F1 points{name}" for name in names]
    print_table(("condition", *points, "tolerated", "unit"), rows)
    for detector in detectors:
        out.print(
            f"{detector['name']}: F1 {detector['f1']:.4f} on the "
            f"{plural(result['photos'], 'unchanged photo')}",
            markup=False,
        )


def bench_verb(
    bundle: BundleFolder,
    baseline: Annotated[
        str,
        typer.Option(
            help="Run or bundle of the baseline, or resnet50 for an untrained one, which gives "
            "size and latency only."
        ),
    ],
    data: TestLabels,
    output: Annotated[Path, typer.Option("--out", help="Report folder to write.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run that the bundle was exported or fine-tuned from, to measure its other "
            "formats."
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option(min=1, help="Timed runs of each format of the phone model.")
    ] = 100,
    baseline_runs: Annotated[
        int, typer.Option(min=1, help="Timed runs of each format of the baseline.")
    ] = 10,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Number of threads. May be repeated. Default: 1 and 2."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Measure a few runs on one thread: too few for reliable latencies."
        ),
    ] = False,
    photo: Annotated[
        Path | None,
        typer.Option(help="Photo to time on and to show counted. Default: the first test photo."),
    ] = None,
    phone: Annotated[
        list[Path] | None,
        typer.Option(
            help="TOML file with the budget of a phone, or the name of one that comes with "
            "shelfcount, such as pixel4. May be repeated."
        ),
    ] = None,
    adb_binary: Annotated[
        Path | None,
        typer.Option(help="LiteRT's benchmark_model, to measure on the attached phone."),
    ] = None,
    adb_serial: Annotated[
        str | None, typer.Option(help="Serial number of the phone if adb lists several.")
    ] = None,
    json_file: JsonFile = None,
    class_names: ClassNames = None,
    corrections: CorrectionsFiles = None,
    force: Force = False,
) -> None:
    """Measure a bundle against the ResNet-50 baseline and write a report."""
    from shelfcount.report import bench_page
    from shelfcount.runtime.bundle import find_bundle, read_bundle
    from shelfcount.speed import comparison, phone_budgets

    for file in (output / "report.html", json_file):
        require_absent(file, force)
    targets = phone_budgets.read_phones(phone or ())
    if adb_binary:
        err.print("measuring on the attached phone")
    bundle = find_bundle(bundle)
    on_phone = phone_budgets.measure_attached_phone(
        targets, read_bundle(bundle), adb_binary, adb_serial
    )
    dataset = _read_labels(data, class_names, corrections)
    counts = tuple(dict.fromkeys(threads or comparison.BenchmarkSettings.threads))
    plan = comparison.BenchmarkSettings(runs, baseline_runs, counts)
    with progress_bar("measuring") as progress:
        result = comparison.compare_with_baseline(
            bundle,
            baseline,
            dataset,
            output,
            run=run,
            plan=comparison.QUICK if quick else plan,
            photo=photo,
            progress=progress,
        )
    verdicts = phone_budgets.check_budgets(targets, _model_facts(result), on_phone)
    bench_page.write_bench_report(output, result, verdicts)
    if json_file:
        write_json(json_file, bench_page.bench_json(result, verdicts))
    for dropped in result.left_out:
        err.print(f"[yellow]not measured:[/yellow] {escape_markup(str(dropped))}")
    for line in result.verdict:
        out.print(line)
    for verdict in verdicts:
        for line in (verdict.phone, *(f"  {line}" for line in verdict.lines)):
            out.print(line, markup=False)
    out.print(f"report: {(output / 'report.html').resolve()}", markup=False)
    if any(verdict.missed for verdict in verdicts):
        raise typer.Exit(1)


def _model_facts(result: BaselineComparison) -> Any:
    """Return the measurements of a comparison that a phone's budget limits."""
    from shelfcount.speed.phone_budgets import model_facts

    row, baseline = result.rows[0], result.rows[result.reference]
    memory = None if row.memory is None else row.memory / 1e6
    return model_facts(result.bundle, f1=row.f1, baseline_f1=baseline.f1, memory_mb=memory)
