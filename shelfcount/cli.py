"""The verbs. The only file that says or ends anything: results on stdout, progress on stderr.

Exit codes: 0 good, 1 a negative verdict, 2 misuse or input that cannot be used.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from shelfcount import config as config_module
from shelfcount.console import bar, check_free, duration, err, leads, out, pair, plain, steps, write_json
from shelfcount.records import Dataset, Dropped, ShelfcountError
from shelfcount.vision.images import write_photo, write_whole

app = typer.Typer(
    help="Count products on shop shelves with a detector that fits a phone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result here as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Names = Annotated[Path | None, typer.Option("--class-names", help="CSV (number,name) or JSON for labels with numbered classes.")]
Corrections = Annotated[list[Path] | None, typer.Option("--corrections", help="Corrections to the labels they name; may be repeated.")]
Threads = Annotated[int, typer.Option(min=1, help="Of the LiteRT interpreter.")]


def main() -> None:
    """Entry point: turns errors meant for the user into one message and exit code 2."""
    out.quiet = err.quiet = not leads()
    try:
        app()
    except (ShelfcountError, OSError) as error:
        # OSError: no room, no permission; nothing that a traceback would explain better.
        err.quiet = False
        err.print(f"[red]error:[/red] {plain(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)


# ---------------------------------------------------------------- data


@app.command()
def synth(
    output: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    photos: Annotated[int, typer.Option(min=1, help="Shelves to photograph.")] = 100,
    classes: Annotated[int, typer.Option(min=1, help="Product classes.")] = 12,
    seed: int = 0,
    catalogue_seed: Annotated[int, typer.Option(help="Of the products; data sets of one catalogue share their classes.")] = 0,
    size: Annotated[str, typer.Option(help="Width x height of a photo.")] = "1024x768",
    facings: Annotated[str, typer.Option(help="Fewest-most products side by side.")] = "",
    views: Annotated[int, typer.Option(min=1, help="Overlapping photos of each shelf, with their homographies.")] = 1,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Render synthetic shelf photos with exact labels."""
    from shelfcount.data.shelf_plane import ShelfParams
    from shelfcount.data.synthetic import generate

    check_free(json_file, force)
    width, height = pair(size, "x", "--size")
    options: dict[str, Any] = {"width": width, "height": height}
    if facings:
        options["facings"] = pair(facings, "-", "--facings")
    with bar("rendering shelves") as advance:
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
        write_json(json_file, {"labels": str(labels), "photos": len(data), "boxes": data.boxes, "classes": list(data.classes)})
    out.print(f"{len(data)} photos, {data.boxes:,} boxes, {len(data.classes)} classes: {labels}")


@app.command()
def check(
    data: Annotated[str, typer.Option(help="Labelled photos.")],
    against: Annotated[str | None, typer.Option(help="Photos that must not be among them, such as the test photos.")] = None,
    class_names: Names = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the pictures here.")] = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Look for what is wrong with labelled photos before training on them."""
    from shelfcount.data import checks
    from shelfcount.report import check_page

    for file in (json_file, html):
        check_free(file, force)
    dataset = _read(data, class_names)
    other = _read(against, class_names) if against else None
    with bar("looking at photos") as advance:
        report = checks.check(dataset, other, progress=advance)
    if json_file:
        write_json(json_file, report.to_json())
    if html:
        check_page.write_page(report, html)
    table = Table("severity", "kind", "findings", "for example", box=None, header_style="bold")
    for kind in dict.fromkeys(finding.kind for finding in report.findings):
        of_kind = [finding for finding in report.findings if finding.kind == kind]
        table.add_row(of_kind[0].severity, kind, str(len(of_kind)), plain(of_kind[0].message))
    out.print(table)
    counts = ", ".join(f"{n} {severity}{'' if n == 1 else 's'}" for severity, n in report.counts().items())
    out.print(f"{counts}. " + ("Training may go on." if report.passed else "Training should not go on before the errors are settled."))
    if not report.passed:
        raise typer.Exit(1)


# ---------------------------------------------------------------- training and export


@app.command()
def train(
    data: Annotated[str, typer.Option(help="Labelled photos: COCO .json, YOLO data.yaml, VOC folder or SKU-110K .csv.")],
    output: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    val: Annotated[str | None, typer.Option(help="Validation photos; without it, a seventh of the groups in --data.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Such as train.epochs=30; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="Of the family, or resnet50 for the baseline.")] = None,
    class_names: Names = None,
    corrections: Corrections = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed run stopped.")] = False,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Train a detector on labelled photos."""
    settings = config_module.load(config, changes or (), model)
    speaks = leads()
    if speaks and not resume and not force and (output / "config.toml").exists():
        raise ShelfcountError(f"'{output}' holds a run already. Go on with --resume, start over with --force, or choose another --out.")
    check_free(json_file, force or resume)
    training, validation = _training_data(data, val, class_names, settings.train.seed, corrections or ())
    from shelfcount.training import runs
    from shelfcount.training.fit import fit

    sources = runs.Sources(data, val, class_names, tuple(corrections or ()))
    begin = time.monotonic()
    if speaks:
        err.print(
            f"training {settings.model.architecture} at {settings.model.width} x {settings.model.height} on {len(training)} photos "
            f"for up to {settings.train.epochs} epochs; log in {output / 'history.csv'}"
        )
    with bar("training") as advance:

        def step(done: int, total: int, figures: Mapping[str, float]) -> None:
            shown = [f"{key.replace('val_f1', 'val F1')} {figures[key]:.3f}" for key in ("loss", "val_f1") if key in figures]
            advance(done, total, " ".join(["training", *shown]))

        detector = fit(training, validation, output, settings, _judge, resume=resume, on_step=step)
    if not speaks:
        return
    runs.write_sources(output, sources)
    facts = detector.spec.provenance
    if json_file:
        write_json(json_file, {"run": str(output), "score_threshold": detector.spec.score_threshold, **facts})
    out.print(
        f"best epoch {facts['best_epoch']}: F1 {facts['val_f1']:.3f} on {len(validation)} validation photos at score "
        f"{detector.spec.score_threshold:.2f}; {duration(time.monotonic() - begin)}"
    )
    out.print(f"run: {output}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    output: Annotated[Path, typer.Option("--out", help="Bundle folder to make.")],
    recipe: Annotated[str, typer.Option(help="float32, float16, dynamic or int8.")] = "int8",
    data: Annotated[str | None, typer.Option(help="Training photos for int8 calibration, where they moved.")] = None,
    val: Annotated[str | None, typer.Option(help="Validation photos for the drop in F1 and golden/, where they moved.")] = None,
    test: Annotated[str | None, typer.Option(help="Test photos, for the figures of the model card.")] = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Quantize a trained model and write the bundle that goes onto the phone."""
    from shelfcount.deploy import bundle as bundles
    from shelfcount.deploy import convert
    from shelfcount.evaluation import golden
    from shelfcount.evaluation.metrics import evaluate
    from shelfcount.report import card
    from shelfcount.runtime.bundle import RAW_MODEL, LiteRTDetector
    from shelfcount.training import runs

    if recipe not in convert.RECIPES:
        raise ShelfcountError(f"unknown recipe '{recipe}'. Recipes are: {', '.join(convert.RECIPES)}")
    bundles.check_free(output, force)
    check_free(json_file, force)
    detector, settings = runs.load_run(run), runs.read_config(run)
    sources = runs.read_sources(run)
    training, validation = _training_data(
        data or sources.train, val or sources.val, sources.class_names, settings.train.seed, sources.corrections, sources_of=str(run)
    )
    tested = _read(test, sources.class_names) if test else None
    spec = detector.spec
    with steps("converting to LiteRT", f"quantizing ({recipe})", "measuring F1 before and after", "golden photos") as step:
        step()
        model = convert.to_litert(detector.net, spec)
        step()
        photos = bundles.calibration_photos(training, spec, settings.export.calibration_photos) if recipe == "int8" else []
        main_model = bundles.artifact(model, spec, recipe, photos)
        files = {"model.tflite": main_model, RAW_MODEL: bundles.raw_artifact(model, spec)}
        step()
        before = evaluate(detector, validation)
        exported = LiteRTDetector(main_model, spec)
        after = evaluate(exported, validation)
        judged = [("validation", after), *([("test", evaluate(exported, tested))] if tested else [])]
        step()
        files |= golden.make(main_model, spec, validation)
    measured = {
        "validation_photos": len(validation),
        "f1_pytorch": round(before.micro.f1, 4),
        "f1": round(after.micro.f1, 4),
        "count_error": after.count_by_class.relative,
        "calibration_photos": len(photos),
        **({"test_photos": len(tested), "test_f1": round(judged[-1][1].micro.f1, 4)} if tested else {}),
    }
    files["MODEL_CARD.md"] = card.write(spec, files, recipe, measured, golden.tolerance(files), judged)
    bundle = bundles.write_bundle(output, spec, files, recipe, measured, force=force)
    if json_file:
        write_json(json_file, {"bundle": str(output), "sha256": bundle.sha256, "bytes": bundle.model_bytes, "recipe": recipe, **measured})
    drop = before.micro.f1 - after.micro.f1
    out.print(
        f"F1 on {len(validation)} validation photos: PyTorch {before.micro.f1:.4f}, "
        f"{recipe} {after.micro.f1:.4f} (drop {100 * drop:+.2f} points)"
    )
    out.print(f"bundle: {output} ({bundle.model_bytes / 1e6:.2f} MB, sha256 {bundle.sha256[:12]})")


@app.command()
def verify(bundle: Annotated[Path, typer.Argument(help="Bundle folder.")], json_file: JsonFile = None, force: Force = False) -> None:
    """Check a bundle: every file against its sha256, what apps rely on, and the golden photos."""
    from shelfcount.deploy import contract
    from shelfcount.evaluation import golden
    from shelfcount.runtime.bundle import read_bundle

    check_free(json_file, force)
    failures = []
    try:
        found = read_bundle(bundle)
        failures = contract.breaches(found)
        # A model that breaks the contract may not even run.
        failures = failures or [f"golden photo {failure}" for failure in golden.check(found).failures]
    except ShelfcountError as error:
        failures = [str(error)]
    if json_file:
        write_json(json_file, {"bundle": str(bundle), "good": not failures, "failures": failures})
    for failure in failures:
        out.print(f"FAILED {plain(failure)}")
    if failures:
        raise typer.Exit(1)
    out.print(f"good: {bundle}, {len(found.files)} files, {found.recipe}, {len(found.spec.classes)} classes, sha256 {found.sha256[:12]}")


@app.command()
def serve(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets phones of the same network in.")] = "127.0.0.1",
) -> None:
    """Serve the page that counts with a bundle in the browser; photos stay on the phone."""
    from shelfcount.deploy.serve import open_server, page_folder

    with open_server(bundle, page_folder(), host, port) as server, contextlib.suppress(KeyboardInterrupt):
        out.print(f"http://{host}:{server.server_port}/ counts with {bundle}; Ctrl+C ends it")
        server.serve_forever()


# ---------------------------------------------------------------- counting and evaluation


@app.command()
def count(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    photos: Annotated[list[Path], typer.Argument(help="Photos to count.")],
    json_file: JsonFile = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write one line a product.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Folder for annotated pictures.")] = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Count the products on photos: class, box, row and position of each."""
    from shelfcount.report.pictures import annotate
    from shelfcount.runtime.bundle import LiteRTDetector, read_bundle
    from shelfcount.shelf import count as counting
    from shelfcount.vision.images import read_photo

    for file in (json_file, csv_file):
        check_free(file, force)
    opened = read_bundle(bundle)
    detector = LiteRTDetector.open(opened, threads)
    pictures = _picture_names(photos, picture)
    for target in pictures.values():
        check_free(target, force)
    counted: list[counting.CountedPhoto] = []
    failed: list[Dropped] = []
    with bar("counting") as advance:
        for i, path in enumerate(photos, start=1):
            good, bad = counting.count(detector, [path], on_error=lambda d: err.print(f"[red]not counted:[/red] {plain(d.reason)}"))
            counted, failed = counted + good, failed + bad
            if good and picture:
                placement = list(zip(good[0].placement.row.tolist(), good[0].placement.position.tolist(), strict=True))
                write_photo(pictures[path], annotate(read_photo(path), good[0].detections, good[0].classes, rows=placement))
            advance(i, len(photos))
    if json_file:
        write_json(json_file, counting.report(counted, opened.name, opened.sha256))
    if csv_file:
        counting.write_csv(csv_file, counted)
    table = Table("class", "products", "photos", box=None, header_style="bold")
    for name, products, shown in counting.summary_rows(counted):
        table.add_row(plain(name), str(products), str(shown))
    out.print(table)
    out.print(
        f"{sum(len(c.detections) for c in counted)} products on {len(counted)} photos" + (f"; {len(failed)} not counted" if failed else "")
    )
    if failed:
        raise typer.Exit(1 if counted else 2)


@app.command()
def merge(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    photos: Annotated[list[Path], typer.Argument(help="Photos of one shelf that overlap by a fifth or more, in any order.")],
    json_file: JsonFile = None,
    picture: Annotated[Path | None, typer.Option(help="Write the whole shelf with its boxes here (.jpg).")] = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Count several photos of one shelf as one: each product once."""
    from shelfcount.report.pictures import annotate
    from shelfcount.runtime.bundle import LiteRTDetector, read_bundle
    from shelfcount.shelf import merge as merging
    from shelfcount.shelf.panorama import panorama

    for file in (json_file, picture):
        check_free(file, force)
    opened = read_bundle(bundle)
    with bar("counting") as advance:
        merged = merging.merge_photos(
            LiteRTDetector.open(opened, threads),
            photos,
            on_error=lambda d: err.print(f"[red]not counted:[/red] {plain(d.reason)}"),
            progress=advance,
        )
    shelf, *others = merged.shelves
    if json_file:
        write_json(json_file, merging.report(merged, opened.name, opened.sha256))
    if picture:
        image, products = panorama(shelf)
        placement = list(zip(shelf.placement.row.tolist(), shelf.placement.position.tolist(), strict=True))
        write_photo(picture, annotate(image, products, opened.spec.classes, rows=placement))
    table = Table("class", "products", box=None, header_style="bold")
    for name, products_of_class in shelf.counts.items():
        table.add_row(plain(name), str(products_of_class))
    out.print(table)
    out.print(f"{len(shelf.products)} products in {shelf.placement.n_rows} rows on {len(shelf.photos)} photos of one shelf")
    for other in others:
        names = ", ".join(photo.path for photo in other.photos)
        out.print(plain(f"counted apart: {names}, {len(other.products)} products. {other.reason}"))
    if others or merged.unread:
        raise typer.Exit(1)


@app.command()
def planogram(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    photos: Annotated[list[Path], typer.Argument(help="Photos, each of the whole shelf.")],
    plan: Annotated[Path, typer.Option(help="JSON: rows from the top, products from the left, facings of each.")],
    learn: Annotated[bool, typer.Option("--learn", help="Write the plan from one photo of a shelf that is right.")] = False,
    json_file: JsonFile = None,
    picture: Annotated[Path | None, typer.Option(help="Folder for pictures with the deviations.")] = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Compare shelves with their plan: what is missing, extra, misplaced."""
    from shelfcount.data import plans
    from shelfcount.report.plan_picture import draw_verdict
    from shelfcount.runtime.bundle import LiteRTDetector
    from shelfcount.shelf import planogram as compliance
    from shelfcount.shelf.count import count_photo
    from shelfcount.shelf.facings import arrange
    from shelfcount.vision.images import read_photo

    pictures = _picture_names(photos, picture)
    for file in (json_file, plan if learn else None, *pictures.values()):
        check_free(file, force)
    if learn and len(photos) > 1:
        raise ShelfcountError(f"--learn takes one photo of a shelf that is right, got {len(photos)}")
    detector = LiteRTDetector.open(bundle, threads)
    wanted = None if learn else plans.read_plan(plan, detector.spec.classes)
    verdicts = []
    for path in photos:
        image = read_photo(path)
        counted = count_photo(detector, image, str(path))
        names = [counted.classes[i] for i in counted.detections.classes]
        arrangement = arrange(counted.detections.boxes, names, counted.placement, (counted.width, counted.height))
        if wanted is None:
            plans.write_plan(plan, compliance.learn(arrangement, path.stem))
            out.print(f"plan: {plan}, {plans.read_plan(plan, detector.spec.classes).facings} facings")
            return
        verdict = compliance.judge(wanted, arrangement)
        verdicts.append(verdict)
        out.print(f"{plain(str(path))}: {100 * verdict.score:.0f} % as planned")
        for deviation in verdict.deviations:
            out.print(f"  {plain(str(deviation))}")
        if picture:
            write_photo(pictures[path], draw_verdict(image, arrangement, verdict))
    if json_file:
        write_json(json_file, {"photos": [{"path": str(path), **v.to_json()} for path, v in zip(photos, verdicts, strict=True)]})
    if any(verdict.deviations for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Bundle or run folder.")],
    data: Annotated[str, typer.Option(help="Labelled test photos.")],
    json_file: JsonFile = None,
    picture: Annotated[Path | None, typer.Option(help="Write the confusion matrix here (.png).")] = None,
    class_names: Names = None,
    corrections: Corrections = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Precision, recall, F1, mAP and count error on labelled photos."""
    from shelfcount.data.formats import fingerprint
    from shelfcount.evaluation import metrics
    from shelfcount.report.figures import confusion_matrix
    from shelfcount.stamp import stamp

    for file in (json_file, picture):
        check_free(file, force)
    dataset = _read(data, class_names, corrections or ())
    detector, threshold, facts = _open_low(model, threads)
    with bar("evaluating") as advance:
        result = metrics.evaluate(detector, dataset, threshold=threshold, progress=advance)
    if json_file:
        head = {"model": facts, "data": {"name": Path(data).name, "fingerprint": fingerprint(dataset)}, "stamp": stamp(threads=threads)}
        write_json(json_file, {**head, **result.to_json()})
    if picture:
        write_whole(picture, confusion_matrix(result.confusion, result.classes))
    _print_evaluation(result)


def _print_evaluation(result: Any) -> None:
    table = Table("class", "labelled", "found", "precision", "recall", "F1", box=None, header_style="bold")
    for row in sorted(result.per_class, key=lambda r: -r.score.truth):
        table.add_row(
            plain(row.name),
            str(row.score.truth),
            str(row.score.found),
            *(f"{v:.3f}" for v in (row.score.precision, row.score.recall, row.score.f1)),
        )
    out.print(table)
    shown = [
        ("F1 at IoU 0.5", result.micro.f1),
        ("precision", result.micro.precision),
        ("recall", result.micro.recall),
        ("macro F1", result.macro_f1),
        ("F1, class ignored", result.any_class.f1),
        ("mAP 0.5:0.95", result.map),
        ("mAP 0.5", result.map50),
        ("count error, relative", result.count_by_class.relative),
        ("count error, MAE a photo", result.count_by_class.mae),
        ("count error, RMSE a photo", result.count_by_class.rmse),
    ]
    for name, value in shown:
        out.print(f"{name:26} {'not measured' if value is None else f'{value:.4f}'}")
    out.print(f"{'at score':26} {result.threshold:.4f} on {len(result.photos)} photos, {result.micro.truth} products")


@app.command()
def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    baseline: Annotated[str, typer.Option(help="Run or bundle; 'resnet50' takes an untrained one, for size and latency.")],
    data: Annotated[str, typer.Option(help="Labelled test photos.")],
    output: Annotated[Path, typer.Option("--out", help="Report folder.")],
    runs: Annotated[int, typer.Option(min=1, help="Counted runs of the phone model.")] = 50,
    baseline_runs: Annotated[int, typer.Option(min=1, help="Counted runs of the baseline.")] = 5,
    photo: Annotated[Path | None, typer.Option(help="Photo to show counted; the first test photo by default.")] = None,
    json_file: JsonFile = None,
    class_names: Names = None,
    threads: Threads = 1,
    force: Force = False,
) -> None:
    """Measure a bundle against the ResNet-50 baseline and write a report."""
    from shelfcount.report import bench as bench_report

    for file in (output / "report.html", json_file):
        check_free(file, force)
    dataset = _read(data, class_names)
    with steps("preparing the baseline", "measuring F1", "measuring latency, both models in turn", "writing the report") as step:
        result = bench_report.measure(
            bundle, baseline, dataset, runs=runs, baseline_runs=baseline_runs, photo=photo, threads=threads, on_stage=step
        )
        bench_report.write(output, result)
    if json_file:
        write_json(json_file, result.to_json())
    for line in result.verdict:
        out.print(line)
    out.print(f"report: {(output / 'report.html').resolve()}")


# ---------------------------------------------------------------- shared by the verbs


def _read(source: str, class_names: Path | None, corrections: Sequence[Path] = (), others: Sequence[str] = ()) -> Dataset:
    """Labelled photos with those corrections applied that name this file; each must name it or one of `others`."""
    from shelfcount.data.corrections import apply, read_corrections
    from shelfcount.data.formats import describe_dropped, read

    dataset = read(source, class_names=class_names)
    summary, *dropped = describe_dropped(dataset)
    err.print(("[yellow]warning:[/yellow] " if dropped else "") + plain(f"{source}: {summary}"))
    for line in dropped:
        err.print(plain(line))
    for path in corrections:
        entries = read_corrections(path)
        if entries.data == Path(source).name:
            dataset = apply(dataset, entries)
            err.print(plain(f"{path}: {len(entries.corrections)} corrections applied"))
        elif entries.data not in [Path(other).name for other in others]:
            given = ", ".join(Path(name).name for name in (source, *others))
            raise ShelfcountError(f"'{path}' corrects the labels of '{entries.data}', got {given}. Leave it out, or give those labels.")
    return dataset


def _training_data(
    data: str, val: str | None, class_names: Path | None, seed: int, corrections: Sequence[Path], sources_of: str = ""
) -> tuple[Dataset, Dataset]:
    from shelfcount.data.formats import aligned

    try:
        training = _read(data, class_names, corrections, [val] if val else [])
        if val:
            return aligned(training, _read(val, class_names, corrections, [data]))
    except ShelfcountError as error:
        if sources_of:
            raise ShelfcountError(
                f"the data of '{sources_of}' cannot be read: {error} Give their new place with --data and --val."
            ) from error
        raise
    from shelfcount.data.splits import split

    parts = split(training, {"train": 6 / 7, "val": 1 / 7}, seed)
    err.print(f"no --val: {len(parts['val'])} of {len(training)} photos, by groups, are held back for validation")
    return parts["train"], parts["val"]


def _judge(dataset: Dataset, found: Any) -> Any:
    from shelfcount.evaluation.metrics import score
    from shelfcount.evaluation.threshold import best_threshold
    from shelfcount.training.fit import LOW_SCORE, Judgement

    threshold, _ = best_threshold(dataset, found, floor=LOW_SCORE)
    scored = score(dataset, found, threshold)
    return Judgement(scored.micro.f1, threshold, scored.map)


def _open_low(model: Path, threads: int) -> tuple[Any, float, dict[str, Any]]:
    """A detector that reports low scores too, for mAP; the threshold to judge it at; and what it is."""
    from shelfcount.runtime.bundle import LOWEST_SCORE

    if (model / "model.json").exists():
        from shelfcount.runtime.bundle import LiteRTDetector, read_bundle

        bundle = read_bundle(model)
        facts = {"name": bundle.name, "sha256": bundle.sha256, "recipe": bundle.recipe, **dict(bundle.spec.provenance)}
        return LiteRTDetector.open(bundle, threads, LOWEST_SCORE), bundle.spec.score_threshold, facts
    from shelfcount.training.runs import load_run, read_spec

    detector = load_run(model, LOWEST_SCORE)
    facts = {"name": model.name, "recipe": "PyTorch float32", **dict(detector.spec.provenance)}
    return detector, read_spec(model).score_threshold, facts


def _picture_names(photos: list[Path], folder: Path | None) -> dict[Path, Path]:
    """One picture a photo; photos of one name from several folders get numbers."""
    names: dict[Path, Path] = {}
    for path in photos:
        target = (folder or Path()) / f"{path.stem}.jpg"
        number = 2
        while target in names.values():
            target = target.with_name(f"{path.stem}-{number}.jpg")
            number += 1
        names[path] = target
    return names if folder else {}


if __name__ == "__main__":
    main()
