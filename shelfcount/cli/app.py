"""The verbs. The only file that says or ends anything: results on stdout, progress on stderr.

Exit codes: 0 good, 1 a negative verdict, 2 misuse or input that cannot be used.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from shelfcount import config as config_module
from shelfcount.cli.console import (
    err,
    escape_markup,
    out,
    parse_pair,
    progress_bar,
    progress_stages,
)
from shelfcount.files import require_absent, write_json, write_whole
from shelfcount.machine import is_main_process
from shelfcount.records import Dataset, Detections, Dropped, ShelfcountError
from shelfcount.vision.images import write_photo
from shelfcount.words import duration_words

if TYPE_CHECKING:
    from shelfcount.studies.folds import HeldOutDetections


app = typer.Typer(
    help="Count products on shop shelves with a detector that fits a phone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result here as JSON.")]
FacingsFile = Annotated[
    Path | None,
    typer.Option(
        "--facings",
        help="Write facings, stacks, neighbours, gaps and shares of the shelf here as JSON.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Names = Annotated[
    Path | None,
    typer.Option(
        "--class-names", help="CSV (number,name) or JSON for labels with numbered classes."
    ),
]
Corrections = Annotated[
    list[Path] | None,
    typer.Option("--corrections", help="Corrections to the labels they name; may be repeated."),
]
Threads = Annotated[int, typer.Option(min=1, help="Of the LiteRT interpreter.")]


def main() -> None:
    """Entry point: turns errors meant for the user into one message and exit code 2."""
    out.quiet = err.quiet = not is_main_process()
    try:
        app()
    except (ShelfcountError, OSError) as error:
        # OSError: no room, no permission; nothing that a traceback would explain better.
        err.quiet = False
        err.print(f"[red]error:[/red] {escape_markup(str(error))}")
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
    catalogue_seed: Annotated[
        int, typer.Option(help="Of the products; data sets of one catalogue share their classes.")
    ] = 0,
    size: Annotated[str, typer.Option(help="Width x height of a photo.")] = "1024x768",
    facings: Annotated[str, typer.Option(help="Fewest-most products side by side.")] = "",
    views: Annotated[
        int, typer.Option(min=1, help="Overlapping photos of each shelf, with their homographies.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1)] = 2,
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
        write_json(
            json_file,
            {
                "labels": str(labels),
                "photos": len(data),
                "boxes": data.boxes,
                "classes": list(data.classes),
            },
        )
    out.print(f"{len(data)} photos, {data.boxes:,} boxes, {len(data.classes)} classes: {labels}")


@app.command()
def check(
    data: Annotated[str, typer.Option(help="Labelled photos.")],
    against: Annotated[
        str | None,
        typer.Option(
            help="Other photos, such as the test photos: none may be among --data. The same photos with labels of their own: "
            "a second labelling, and how far the two agree is measured."
        ),
    ] = None,
    class_names: Names = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the pictures here.")] = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Look for what is wrong with labelled photos before training on them."""
    import numpy as np

    from shelfcount.checks.check import check_dataset
    from shelfcount.data.datasets import fingerprint
    from shelfcount.labels import agreement
    from shelfcount.report import agreement_page, check_page

    beside = html.with_name(f"{html.stem}-agreement.html") if html and against else None
    for file in (json_file, html, beside):
        require_absent(file, force)
    dataset = _read(data, class_names)
    other = _read(against, class_names) if against else None
    rng = np.random.default_rng(0)
    agreed = (
        agreement.compare_labellings(dataset, other, rng)
        if other and agreement.is_second_labelling(dataset, other)
        else None
    )
    with progress_bar("looking at photos") as advance:
        report = check_dataset(dataset, None if agreed else other, progress=advance)
    if json_file:
        versions = [fingerprint(labels) for labels in (dataset, other) if labels is not None]
        compared = {"agreement": {"fingerprints": versions, **agreed.to_json()}} if agreed else {}
        write_json(json_file, {"fingerprint": versions[0], **report.to_json(), **compared})
    if html:
        check_page.write_check_page(report, html)
    if agreed and beside:
        agreement_page.write_agreement_page(agreed, beside)
    table = Table("severity", "kind", "findings", "for example", box=None, header_style="bold")
    for kind in dict.fromkeys(finding.kind for finding in report.findings):
        of_kind = [finding for finding in report.findings if finding.kind == kind]
        table.add_row(
            of_kind[0].severity, kind, str(len(of_kind)), escape_markup(of_kind[0].message)
        )
    out.print(table)
    if agreed:
        _print_agreement(agreed)
    counts = ", ".join(
        f"{n} {severity}{'' if n == 1 else 's'}" for severity, n in report.counts().items()
    )
    out.print(
        f"{counts}. "
        + (
            "Training may go on."
            if report.passed
            else "Training should not go on before the errors are settled."
        )
    )
    if not report.passed:
        raise typer.Exit(1)


def _print_agreement(agreed: Any) -> None:
    from shelfcount.cli.labels import agreement_lines

    table = Table("class", "first", "second", "both", "agreement", box=None, header_style="bold")
    differing = [row for row in agreed.per_class if row.share is not None and row.share < 1]
    for row in sorted(differing, key=lambda r: (r.share, -r.first - r.second)):
        table.add_row(
            escape_markup(row.name),
            str(row.first),
            str(row.second),
            str(row.both),
            f"{row.share:.3f}",
        )
    out.print(table)
    out.print(f"{agreed.names[1]} labels {len(agreed.photos)} of these photos a second time:")
    for name, value in agreement_lines(agreed):
        out.print(f"  {name:42} {value}")


@app.command()
def correct(
    data: Annotated[str, typer.Option(help="Labelled photos.")],
    output: Annotated[
        Path,
        typer.Option(
            "--out", help="New labels as COCO; with proposals, the corrections file to decide on."
        ),
    ],
    corrections: Corrections = None,
    propose: Annotated[
        Path | None,
        typer.Option(
            help="Bundle or run that did not learn from these photos: proposes corrections where it surely disagrees."
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Propose for photos that a model is to learn from: in so many parts, each judged by a model of the others.",
        ),
    ] = None,
    depth: Annotated[
        str,
        typer.Option(
            help="Of --folds: 'fast' trains heads on the frozen backbone's features, 'full' the network."
        ),
    ] = "fast",
    runs: Annotated[
        Path | None,
        typer.Option(
            help="With --folds: folder for its runs or features, used again where they are; beside --out else."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="With --folds: TOML file, as for `train`.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="With --folds: such as train.epochs=30; may be repeated."),
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="Propose so many at most, the surest.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="With proposals: page with the crops, on which to accept and refuse."),
    ] = None,
    class_names: Names = None,
    threads: Threads = 2,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Apply accepted corrections to labels, or propose some; the old labels stay as they are."""
    from shelfcount.data import coco, datasets
    from shelfcount.labels import corrections as correcting
    from shelfcount.labels import label_changes

    given_as = [
        name
        for name, value in (
            ("--corrections", corrections),
            ("--propose", propose),
            ("--folds", folds),
        )
        if value
    ]
    if len(given_as) != 1:
        raise ShelfcountError(
            "correct takes one of --corrections, which are applied, --propose with a bundle or run, and --folds; "
            f"got {' and '.join(given_as) or 'none'}"
        )
    if html and corrections:
        raise ShelfcountError(
            f"--html shows what is proposed, got --corrections with --html {html}"
        )
    if (runs or config or changes or depth != "fast") and not folds:
        raise ShelfcountError(
            f"--depth, --runs, --config and --set belong to --folds, got {given_as[0]}"
        )
    for file in (output, html, json_file):
        require_absent(file, force)
    if output.suffix.lower() != ".json":
        raise ShelfcountError(f"--out must be a .json file, got '{output}'")
    dataset = _read(data, class_names)
    if propose:
        _propose(dataset, [_judged(dataset, propose, threads)], output, most, html, json_file)
        return
    if folds:
        judged = _folds(
            dataset,
            folds,
            depth,
            runs or output.with_suffix(""),
            config_module.load_config(config, changes or ()),
            threads,
        )
        _propose(dataset, judged, output, most, html, json_file)
        return
    given = [correcting.read_corrections(path) for path in corrections or ()]
    datasets.require_reachable_photos(dataset, output)
    corrected = correcting.apply_corrections(dataset, given)
    difference = label_changes.difference(dataset, corrected, given)
    coco.write_coco(corrected, output)
    if json_file:
        write_json(json_file, {"labels": output.name, **difference.to_json()})
    for line in difference.lines():
        out.print(escape_markup(line))
    out.print(f"labels: {output}")


def _folds(
    dataset: Dataset,
    number: int,
    depth: str,
    folder: Path,
    settings: config_module.Config,
    threads: int,
) -> list[HeldOutDetections]:
    """Parts of the data, each as a model of the others sees it."""
    from shelfcount.studies import folds

    if depth not in ("fast", "full"):
        raise ShelfcountError(f"--depth must be fast or full, got '{depth}'")
    parts = folds.make_folds(dataset, number, settings.train.seed)
    with progress_bar("training") as advance:

        def step(
            part: int, whole: int, done: int, total: int, figures: Mapping[str, float]
        ) -> None:
            advance(part * total + done, whole * total, f"training part {part + 1} of {whole}")

        if depth == "fast":
            return folds.detect_folds_fast(dataset, parts, folder, settings, step)
        trained = folds.train_folds(parts, folder, settings, step)
    return [_judged(part.held, run, threads) for part, run in zip(parts, trained, strict=True)]


def _judged(photos: Dataset, model: Path, threads: int) -> HeldOutDetections:
    """Photos as a bundle or run sees them."""
    from shelfcount.data.datasets import fingerprint
    from shelfcount.metrics.evaluate import detect_dataset
    from shelfcount.studies import folds

    detector, threshold, facts = open_low(model, threads)
    if facts.get("data_fingerprint") == fingerprint(photos):
        err.print(
            "[yellow]warning:[/yellow] the model learnt from these very labels, and has learnt their errors too"
        )
    with progress_bar("looking for label errors") as advance:
        found = detect_dataset(detector, photos, progress=advance)
    return folds.HeldOutDetections(
        photos, found, threshold, {**facts, "name": model.resolve().name}
    )


def _propose(
    dataset: Dataset,
    judged: Sequence[HeldOutDetections],
    output: Path,
    most: int | None,
    html: Path | None,
    json_file: Path | None,
) -> None:
    """Proposals for photos as models see them, in one file."""
    from shelfcount.labels import proposals as proposals_module
    from shelfcount.labels.corrections import write_corrections
    from shelfcount.report import proposals_page

    proposals: list[proposals_module.Proposal] = []
    for one in judged:
        proposals += proposals_module.propose(
            one.photos, one.found, one.threshold, one.model["name"]
        )
    proposals = proposals_module.by_confidence(proposals)[:most]
    draft = proposals_module.draft_corrections(dataset, proposals)
    write_corrections(draft, output)
    if html:
        proposals_page.write_proposals_page(dataset, proposals, draft, html)
    if json_file:
        entries = [
            {
                "relative_confidence": round(p.relative_confidence, 3),
                "score": round(p.score, 4),
                **p.correction.to_json(),
            }
            for p in proposals
        ]
        models = [{**one.model, "held_out_photos": len(one.photos)} for one in judged]
        write_json(
            json_file, {"models": models, "fingerprint": draft.fingerprint, "proposals": entries}
        )
    adds = sum(p.correction.action == "add" for p in proposals)
    out.print(
        f"{len(proposals)} proposals, {adds} to add a label and {len(proposals) - adds} to rename one; decide on each: {html or output}"
    )


# ---------------------------------------------------------------- training and export


@app.command()
def train(
    data: Annotated[
        str,
        typer.Option(
            help="Labelled photos: COCO .json, YOLO data.yaml, VOC folder or SKU-110K .csv."
        ),
    ],
    output: Annotated[Path, typer.Option("--out", help="Run folder to write.")],
    val: Annotated[
        str | None,
        typer.Option(help="Validation photos; without it, a seventh of the groups in --data."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Such as train.epochs=30; may be repeated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Of the family, or resnet50 for the baseline.")
    ] = None,
    class_names: Names = None,
    corrections: Corrections = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed run stopped.")
    ] = False,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Train a detector on labelled photos."""
    settings = config_module.load_config(config, changes or (), model)
    speaks = is_main_process()
    if speaks and not resume and not force and (output / "config.toml").exists():
        raise ShelfcountError(
            f"'{output}' holds a run already. Go on with --resume, start over with --force, or choose another --out."
        )
    require_absent(json_file, force or resume)
    training, validation = _training_data(
        data, val, class_names, settings.train.seed, corrections or ()
    )
    from shelfcount.training import runs
    from shelfcount.training.fit import fit
    from shelfcount.training.optimization import training_precision

    sources = runs.Sources(data, val, class_names, tuple(corrections or ()))
    begin = time.monotonic()
    if speaks:
        err.print(
            f"training {settings.model.architecture} at {settings.model.width} x {settings.model.height} on {len(training)} photos "
            f"for up to {settings.train.epochs} epochs in {training_precision(settings.train)}; log in {output / 'history.csv'}"
        )
        if (
            settings.train.precision == "bf16-mixed"
            and training_precision(settings.train.model_copy(update={"precision": "auto"}))
            == "32-true"
        ):
            err.print(
                "[yellow]warning:[/yellow] this processor has no instructions for bfloat16, and takes many times as long in it as in "
                "float32. --set train.precision=auto takes what it is quick at."
            )
    with progress_bar("training") as advance:

        def step(done: int, total: int, figures: Mapping[str, float]) -> None:
            shown = [
                f"{key.replace('val_f1', 'val F1')} {figures[key]:.3f}"
                for key in ("loss", "val_f1")
                if key in figures
            ]
            advance(done, total, " ".join(["training", *shown]))

        detector = fit(training, validation, output, settings, resume=resume, on_step=step)
    if not speaks:
        return
    runs.write_sources(output, sources)
    facts = detector.spec.provenance
    if json_file:
        write_json(
            json_file,
            {"run": str(output), "score_threshold": detector.spec.score_threshold, **facts},
        )
    out.print(
        f"best epoch {facts['best_epoch']}: F1 {facts['val_f1']:.3f} on {len(validation)} validation photos at score "
        f"{detector.spec.score_threshold:.2f}; {duration_words(time.monotonic() - begin)}"
    )
    out.print(f"run: {output}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    output: Annotated[Path, typer.Option("--out", help="Bundle folder to make.")],
    recipe: Annotated[str, typer.Option(help="float32, float16, dynamic or int8.")] = "int8",
    data: Annotated[
        str | None, typer.Option(help="Training photos for int8 calibration, where they moved.")
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(help="Validation photos for the drop in F1 and golden/, where they moved."),
    ] = None,
    corrections: Annotated[
        list[Path] | None,
        typer.Option(help="Corrections to their labels, where those moved; may be repeated."),
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Test photos, for the figures of the model card.")
    ] = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Quantize a trained model and write the bundle that goes onto the phone."""
    from shelfcount.deploy import card, convert, golden
    from shelfcount.deploy.bundle import (
        main_artifact,
        raw_artifact,
        require_replaceable,
        write_bundle,
    )
    from shelfcount.metrics.evaluate import evaluate_detector
    from shelfcount.runtime.bundle import RAW_MODEL, LiteRTDetector
    from shelfcount.training import inputs, runs

    if recipe not in convert.RECIPES:
        raise ShelfcountError(
            f"unknown recipe '{recipe}'. Recipes are: {', '.join(convert.RECIPES)}"
        )
    require_replaceable(output, force)
    require_absent(json_file, force)
    detector, settings = runs.load_run(run), runs.read_config(run)
    # A run that was handed on has no data.json, as no path in it would hold elsewhere.
    sources = (
        runs.Sources(data, val)
        if data and val and not (run / runs.SOURCES).exists()
        else runs.read_sources(run)
    )
    training, validation = _training_data(
        data or sources.train,
        val or sources.val,
        sources.class_names,
        settings.train.seed,
        sources.corrections if corrections is None else corrections,
        sources_of=str(run),
    )
    tested = _read(test, sources.class_names) if test else None
    spec = detector.spec
    with progress_stages(
        "converting to LiteRT",
        f"quantizing ({recipe})",
        "measuring F1 before and after",
        "golden photos",
    ) as step:
        step()
        model = convert.to_litert(detector.net, spec)
        step()
        # A network trained with int8's rounding brings its ranges along.
        calibrates = recipe == "int8" and not settings.train.quantize
        photos = (
            inputs.calibration_photos(training, spec, settings.export.calibration_photos)
            if calibrates
            else []
        )
        main_model = main_artifact(model, spec, recipe, photos)
        files = {"model.tflite": main_model, RAW_MODEL: raw_artifact(model, spec)}
        step()
        before = evaluate_detector(detector, validation)
        exported = LiteRTDetector(main_model, spec)
        after = evaluate_detector(exported, validation)
        judged = [
            ("validation", after),
            *([("test", evaluate_detector(exported, tested))] if tested else []),
        ]
        step()
        files |= golden.make_golden(main_model, spec, validation)
    measured = {
        "validation_photos": len(validation),
        "f1_pytorch": round(before.micro.f1, 4),
        "f1": round(after.micro.f1, 4),
        "count_error": after.count_by_class.relative,
        "calibration_photos": len(photos),
        **(
            {"test_photos": len(tested), "test_f1": round(judged[-1][1].micro.f1, 4)}
            if tested
            else {}
        ),
    }
    files["MODEL_CARD.md"] = card.model_card(
        spec, files, recipe, measured, golden.tolerance(files), judged
    )
    bundle = write_bundle(output, spec, files, recipe, measured, force=force)
    if json_file:
        write_json(
            json_file,
            {
                "bundle": str(output),
                "sha256": bundle.sha256,
                "bytes": bundle.model_bytes,
                "recipe": recipe,
                **measured,
            },
        )
    drop = before.micro.f1 - after.micro.f1
    out.print(
        f"F1 on {len(validation)} validation photos: PyTorch {before.micro.f1:.4f}, "
        f"{recipe} {after.micro.f1:.4f} (drop {100 * drop:+.2f} points)"
    )
    out.print(f"bundle: {output} ({bundle.model_bytes / 1e6:.2f} MB, sha256 {bundle.sha256[:12]})")


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Check a bundle: every file against its sha256, what apps rely on, and the golden photos."""
    from shelfcount.deploy import golden
    from shelfcount.deploy.verify import contract_violations
    from shelfcount.runtime.bundle import read_bundle

    require_absent(json_file, force)
    failures = []
    try:
        found = read_bundle(bundle)
        failures = contract_violations(found)
        # A model that breaks the contract may not even run.
        failures = failures or [
            f"golden photo {failure}" for failure in golden.verify_golden(found).failures
        ]
    except ShelfcountError as error:
        failures = [str(error)]
    if json_file:
        write_json(json_file, {"bundle": str(bundle), "good": not failures, "failures": failures})
    for failure in failures:
        out.print(f"FAILED {escape_markup(failure)}")
    if failures:
        raise typer.Exit(1)
    out.print(
        f"good: {bundle}, {len(found.files)} files, {found.recipe}, {len(found.spec.classes)} classes, sha256 {found.sha256[:12]}"
    )


@app.command()
def serve(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets phones of the same network in.")
    ] = "127.0.0.1",
) -> None:
    """Serve the page that counts with a bundle in the browser; photos stay on the phone."""
    from shelfcount.deploy.serve import open_server, page_folder

    with (
        open_server(bundle, page_folder(), host, port) as server,
        contextlib.suppress(KeyboardInterrupt),
    ):
        out.print(f"http://{host}:{server.server_port}/ counts with {bundle}; Ctrl+C ends it")
        server.serve_forever()


# ---------------------------------------------------------------- counting and evaluation


@app.command()
def count(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    photos: Annotated[list[Path], typer.Argument(help="Photos to count.")],
    json_file: JsonFile = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write one line a product.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Folder for annotated pictures.")] = None,
    facings_file: FacingsFile = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 1 where a photo is unfit: blurred, dark, askew."),
    ] = False,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Count the products on photos: class, box, row and position of each. Photos that are unfit are counted, and said."""
    from shelfcount.drawing.pictures import annotate
    from shelfcount.runtime.bundle import LiteRTDetector, read_bundle
    from shelfcount.shelf import count as counting
    from shelfcount.shelf import facings
    from shelfcount.vision.images import read_photo

    for file in (json_file, csv_file, facings_file):
        require_absent(file, force)
    opened = read_bundle(bundle)
    detector = LiteRTDetector.open(opened, threads)
    pictures = _picture_names(photos, picture)
    for target in pictures.values():
        require_absent(target, force)
    counted: list[counting.CountedPhoto] = []
    failed: list[Dropped] = []
    with progress_bar("counting") as advance:
        for i, path in enumerate(photos, start=1):
            good, bad = counting.count_photos(
                detector,
                [path],
                on_error=lambda d: err.print(f"[red]not counted:[/red] {escape_markup(d.reason)}"),
            )
            counted, failed = counted + good, failed + bad
            for advice in good[0].quality.advice if good else ():
                err.print(f"[yellow]unfit:[/yellow] {escape_markup(f'{path}: {advice}')}")
            if good and picture:
                placement = list(
                    zip(
                        good[0].placement.row.tolist(),
                        good[0].placement.position.tolist(),
                        strict=True,
                    )
                )
                write_photo(
                    pictures[path],
                    annotate(read_photo(path), good[0].detections, good[0].classes, rows=placement),
                )
            advance(i, len(photos))
    if json_file:
        write_json(json_file, counting.count_json(counted, opened.name, opened.sha256))
    if csv_file:
        counting.write_csv(csv_file, counted)
    if facings_file:
        shelves = [
            {"path": photo.path, **facings.facings_json(photo.arrangement)} for photo in counted
        ]
        write_json(
            facings_file,
            {"bundle": {"name": opened.name, "sha256": opened.sha256}, "photos": shelves},
        )
    table = Table("class", "products", "photos", box=None, header_style="bold")
    for name, products, shown in counting.summary_rows(counted):
        table.add_row(escape_markup(name), str(products), str(shown))
    out.print(table)
    unfit = sum(not photo.quality.fit for photo in counted)
    out.print(
        f"{sum(len(c.detections) for c in counted)} products on {len(counted)} photos"
        + (f"; {unfit} unfit, their counts are not to be relied on" if unfit else "")
        + (f"; {len(failed)} not counted" if failed else "")
    )
    if failed or (strict and unfit):
        raise typer.Exit(1 if counted else 2)


@app.command()
def merge(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    photos: Annotated[
        list[Path],
        typer.Argument(help="Photos of one shelf that overlap by a fifth or more, in any order."),
    ],
    json_file: JsonFile = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write the whole shelf with its boxes here (.jpg).")
    ] = None,
    facings_file: FacingsFile = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Count several photos of one shelf as one: each product once."""
    from shelfcount.drawing.pictures import annotate
    from shelfcount.runtime.bundle import LiteRTDetector, read_bundle
    from shelfcount.shelf import facings
    from shelfcount.shelf.merge import merge_json, merge_photos
    from shelfcount.shelf.panorama import arrange_merged, panorama

    for file in (json_file, picture, facings_file):
        require_absent(file, force)
    opened = read_bundle(bundle)
    with progress_bar("counting") as advance:
        merged = merge_photos(
            LiteRTDetector.open(opened, threads),
            photos,
            on_error=lambda d: err.print(f"[red]not counted:[/red] {escape_markup(d.reason)}"),
            progress=advance,
        )
    shelf, *others = merged.shelves
    if json_file:
        write_json(json_file, merge_json(merged, opened.name, opened.sha256))
    if facings_file:
        write_json(
            facings_file,
            {
                "bundle": {"name": opened.name, "sha256": opened.sha256},
                **facings.facings_json(arrange_merged(shelf)),
            },
        )
    if picture:
        image, products = panorama(shelf)
        placement = list(
            zip(shelf.placement.row.tolist(), shelf.placement.position.tolist(), strict=True)
        )
        write_photo(picture, annotate(image, products, opened.spec.classes, rows=placement))
    table = Table("class", "products", box=None, header_style="bold")
    for name, products_of_class in shelf.counts.items():
        table.add_row(escape_markup(name), str(products_of_class))
    out.print(table)
    out.print(
        f"{len(shelf.products)} products in {shelf.placement.n_rows} rows on {len(shelf.photos)} photos of one shelf"
    )
    for other in others:
        names = ", ".join(photo.path for photo in other.photos)
        out.print(
            escape_markup(f"counted apart: {names}, {len(other.products)} products. {other.reason}")
        )
    if others or merged.unread:
        raise typer.Exit(1)


@app.command()
def planogram(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    photos: Annotated[
        list[Path],
        typer.Argument(
            help="Photos of one shelf; several are merged first, and overlap by a fifth or more."
        ),
    ],
    plan: Annotated[
        Path, typer.Option(help="JSON: rows from the top, products from the left, facings of each.")
    ],
    learn: Annotated[
        bool, typer.Option("--learn", help="Write the plan from photos of a shelf that is right.")
    ] = False,
    json_file: JsonFile = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write the shelf with the deviations here (.jpg).")
    ] = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Compare a shelf with its plan: what is missing, extra, misplaced."""
    from shelfcount.counting.count import count as count_photos
    from shelfcount.runtime.bundle import LiteRTDetector
    from shelfcount.shelf.planogram import read_plan, write_plan

    for file in (json_file, picture, plan if learn else None):
        require_absent(file, force)
    detector = LiteRTDetector.open(bundle, threads)
    wanted = None if learn else read_plan(plan, detector.spec.classes)
    with progress_bar("counting") as advance:
        counted = count_photos(photos, detector, progress=advance)
    # A photo alone is judged in its own pixels.
    shelf = counted.merge() if len(photos) > 1 else counted[0]
    for note in shelf.notes:
        err.print(f"[red]not on the shelf:[/red] {escape_markup(note)}")
    if wanted is None:
        if shelf.notes:
            raise ShelfcountError(
                f"a plan is learnt from photos that all fit together, got {len(shelf.notes)} that did not. See above."
            )
        learnt = shelf.learn(photos[0].stem)
        write_plan(plan, learnt)
        out.print(f"plan: {plan}, {learnt.facings} facings")
        return
    verdict = shelf.judge(wanted)
    out.print(escape_markup(str(verdict)))
    if json_file:
        write_json(json_file, verdict.to_json())
    if picture:
        write_photo(picture, verdict.picture())
    if verdict.deviations or shelf.notes:
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Bundle or run folder.")],
    data: Annotated[str, typer.Option(help="Labelled test photos.")],
    json_file: JsonFile = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write the confusion matrix here (.png).")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write a page here: what is taken for what, with crops, and what it costs."
        ),
    ] = None,
    trained_on: Annotated[
        str | None,
        typer.Option(help="Labels the model learnt from: the page counts each class's examples."),
    ] = None,
    class_names: Names = None,
    corrections: Corrections = None,
    threads: Threads = 2,
    force: Force = False,
    repeats: Annotated[
        int,
        typer.Option(
            min=0,
            help="Shuffle the run's photos and --data anew so many times, train and test on each, and say how figures vary.",
        ),
    ] = 0,
    depth: Annotated[
        str,
        typer.Option(
            help="Of repeats: 'fast' trains heads on the frozen backbone's features, 'full' the network."
        ),
    ] = "fast",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each repeat; 20, or with --depth full the run's.")
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(
            help="Stop repeating once the 95 % interval of the median F1 is narrower, such as 0.01."
        ),
    ] = None,
    shares: Annotated[
        str,
        typer.Option(
            help="Of the training photos, such as 0.25,0.5,1: learning curves; each seed is run for each."
        ),
    ] = "1",
    start: Annotated[
        Path | None,
        typer.Option(help="Weights that repeats start from; those that the run started from else."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="For repeats; as many as processors else.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster for repeats, or auto.")
    ] = None,
    repeats_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of finished repeats, which are not run again; in the run's folder else. With --html alone: its curves."
        ),
    ] = None,
) -> None:
    """Precision, recall, F1, mAP and count error on labelled photos; with --repeats, how much they owe to the split."""
    from shelfcount.data.datasets import fingerprint
    from shelfcount.metrics import scoring
    from shelfcount.metrics.evaluate import detect_dataset
    from shelfcount.metrics.threshold import threshold_curve
    from shelfcount.report import confusion_page
    from shelfcount.report.accuracy_figures import confusion_matrix
    from shelfcount.stamp import stamp

    for file in (json_file, picture, html):
        require_absent(file, force)
    if repeats:
        parts, settings = _repeated(model, data, trained_on, class_names, corrections or (), start)
        folder = repeats_dir or model / f"repeats-{depth}"
        results, summary = _repeat(
            parts, settings, folder, repeats, depth, epochs, until, shares, processes, ray
        )
        _tell_repeats(results, summary, json_file, picture, html)
        return
    dataset = _read(data, class_names, corrections or (), [trained_on] if trained_on else [])
    curves = _curves(repeats_dir) if repeats_dir else None
    learnt = _read(trained_on, class_names, corrections or (), [data]) if trained_on else None
    detector, threshold, facts = open_low(model, threads)
    with progress_bar("evaluating") as advance:
        found = detect_dataset(detector, dataset, progress=advance)
    # mAP wants the detections of low score, and has them: `open_low` sees to it.
    result, best = scoring.score(dataset, found, threshold), threshold_curve(dataset, found).best_f1
    if json_file:
        head = {
            "model": facts,
            "data": {"name": Path(data).name, "fingerprint": fingerprint(dataset)},
            "stamp": stamp(threads=threads),
        }
        write_json(
            json_file,
            {
                **head,
                **result.to_json(),
                "best_threshold": dict(zip(("threshold", "f1"), best, strict=True)),
            },
        )
    if picture:
        write_whole(picture, confusion_matrix(result.confusion, result.classes))
    if html:
        trained = (
            None
            if learnt is None
            else Detections.concat([photo.truth for photo in learnt.photos]).counts(learnt.classes)
        )
        confusion_page.write_confusion_page(
            dataset, found, result, facts["name"], html, trained, curves
        )
    _print_evaluation(result)
    out.print(
        f"{'F1 at the best score':26} {best[1]:.4f} at {best[0]:.4f}, which only these photos know"
    )


def _repeated(
    run: Path,
    data: str,
    trained_on: str | None,
    class_names: Path | None,
    corrections: Sequence[Path],
    start: Path | None,
) -> tuple[list[Dataset], config_module.Config]:
    """The photos that are shuffled, file by file, and the settings that each repeat is trained with."""
    from shelfcount.training import runs

    if not (run / "config.toml").exists():
        raise ShelfcountError(
            f"--repeats trains anew, and so takes a run folder, got '{run}', which has no config.toml"
        )
    settings = config_module.load_config(
        run / "config.toml", [f"model.weights={start}"] if start else ()
    )
    files, fixes = [data], list(corrections)
    if trained_on:
        files.insert(0, trained_on)
    else:
        sources = runs.read_sources(run)
        files = [sources.train, *([sources.val] if sources.val else []), data]
        class_names = class_names or sources.class_names
        fixes += [
            path
            for path in sources.corrections
            if path.resolve() not in {fix.resolve() for fix in fixes}
        ]
    return [_read(file, class_names, fixes, files) for file in files], settings


def _repeat(
    parts: Sequence[Dataset],
    settings: config_module.Config,
    folder: Path,
    number: int,
    depth: str,
    epochs: int | None,
    until: float | None,
    shares: str,
    processes: int | None,
    ray: str | None,
) -> tuple[list[Any], dict[str, Any]]:
    """Finished repeats in the order of their seeds, and what they say together."""
    import os

    import numpy as np

    from shelfcount.data import datasets
    from shelfcount.stamp import stamp
    from shelfcount.studies import repeat_folder, repeat_statistics, repeats, scheduling

    plan = repeats.make_repeat_settings(settings, depth, epochs, shares)
    if until is not None and not until > 0:
        raise ShelfcountError(f"--until must be above 0, got {until:g}")
    if warning := repeat_folder.leakage_warning(settings, parts):
        err.print(f"[yellow]warning:[/yellow] {escape_markup(warning)}")
    with progress_bar("features of the frozen backbone") as advance:
        study = repeat_folder.open_study(datasets.pool_datasets(parts), plan, folder, advance)
    err.print(
        f"{len(study.data)} photos in {study.groups.max() + 1} groups; finished repeats are kept in {escape_markup(str(folder))}"
    )

    def enough(first: Sequence[Any]) -> bool:
        f1 = [r.f1 for r in repeat_statistics.largest_share(first)]
        return until is not None and repeat_statistics.interval_is_narrow(
            f1, until, np.random.default_rng(0)
        )

    scheduler = (
        scheduling.on_ray(ray) if ray else scheduling.processes(processes or os.cpu_count() or 1)
    )
    with progress_bar("repeats") as advance:
        results = repeat_folder.run_repeats(
            study, folder, plan.tasks(number), scheduler, enough=enough, progress=advance
        )
    facts = {
        "plan": repeat_folder.study_facts(study.data, plan),
        "warning": warning,
        "stamp": stamp(threads=1),
    }
    return results, {
        **facts,
        **repeat_statistics.summarize_repeats(results, until or repeat_statistics.INTERVAL_WIDTH),
    }


def _tell_repeats(
    results: Sequence[Any],
    summary: Mapping[str, Any],
    json_file: Path | None,
    picture: Path | None,
    html: Path | None,
) -> None:
    from shelfcount.report import repeats_page
    from shelfcount.studies import repeat_statistics

    if json_file:
        write_json(json_file, {**summary, "results": [r.to_json() for r in results]})
    if picture:
        write_whole(picture, repeats_page.plot_repeats(results, summary))
    if html:
        repeats_page.write_repeats_page(
            results, summary, repeat_statistics.repeats_facts(summary), html
        )
    table = Table(
        "figure", "median", "from", "to", "SD", "quartiles", box=None, header_style="bold"
    )
    for key, name in repeats_page.NAMES.items():
        if of := summary.get(key):
            sd = "not measured" if of["sd"] is None else f"{of['sd']:.4f}"
            shown = [f"{v:.4f}" for v in (of["median"], *of["interval"])]
            table.add_row(name, *shown, sd, " to ".join(f"{v:.4f}" for v in of["quartiles"]))
    out.print(table)
    out.print(
        f"{summary['repeats']} repeats; from and to hold the median with 95 %; {repeat_statistics.repeats_needed_text(summary['enough'])}"
    )


def _curves(folder: Path) -> Mapping[str, Any]:
    """Learning curves of the classes from finished repeats."""
    from shelfcount.studies import repeat_folder, repeat_statistics

    curves = repeat_statistics.learning_curves(
        list(repeat_folder.finished_repeats(folder).values())
    )
    if not curves or len(next(iter(curves.values()))) < 2:
        raise ShelfcountError(
            f"learning curves take repeats at several shares of the training photos, '{folder}' has those of one: --shares 0.25,0.5,1"
        )
    return curves


def _print_evaluation(result: Any) -> None:
    table = Table(
        "class", "labelled", "found", "precision", "recall", "F1", box=None, header_style="bold"
    )
    for row in sorted(result.per_class, key=lambda r: -r.score.truth):
        table.add_row(
            escape_markup(row.name),
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
        ("F1, class ignored", result.class_agnostic.f1),
        ("mAP 0.5:0.95", result.map),
        ("mAP 0.5", result.map50),
        ("count error, relative", result.count_by_class.relative),
        ("count error, MAE a photo", result.count_by_class.mae),
        ("count error, RMSE a photo", result.count_by_class.rmse),
    ]
    for name, value in shown:
        out.print(f"{name:26} {'not measured' if value is None else f'{value:.4f}'}")
    out.print(
        f"{'at score':26} {result.threshold:.4f} on {len(result.photos)} photos, {result.micro.truth} products"
    )


@app.command()
def stress(
    models: Annotated[
        list[Path],
        typer.Argument(help="Bundles or run folders; conditions are ordered by the first."),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Labelled photos; for --fix validation photos, as test photos choose nothing."
        ),
    ],
    json_file: JsonFile = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with curves and examples here.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write a plot of F1 under each condition here (.png).")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(help="Write a config for `train` that covers the weakest conditions here."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file that --fix starts from; else that of the first run given."),
    ] = None,
    photos: Annotated[
        int, typer.Option(min=0, help="Use only so many, evenly drawn; 0 uses all.")
    ] = 0,
    conditions: Annotated[str, typer.Option(help="Such as motion,glare; all by default.")] = "",
    severities: Annotated[str, typer.Option(help="Such as 2,4; 1 to 5 by default.")] = "",
    seed: int = 0,
    class_names: Names = None,
    corrections: Corrections = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """What light, blur, angle and other conditions do to F1, counts and steadiness."""
    from shelfcount.data import datasets
    from shelfcount.data.datasets import fingerprint
    from shelfcount.report import stress_page
    from shelfcount.stamp import stamp
    from shelfcount.studies import stress_conditions
    from shelfcount.studies.stress import StressedDetector, run_stress

    for file in (json_file, html, picture, fix):
        require_absent(file, force)
    wanted, levels = stress_conditions.choose_conditions(conditions, severities)
    base = _fix_base(models, config) if fix else None
    dataset = _read(data, class_names, corrections or ())
    dataset = datasets.evenly_spaced(dataset, photos) if photos else dataset
    subjects = []
    for model in models:
        detector, threshold, facts = open_low(model, threads)
        subjects.append(
            StressedDetector(f"{facts['name']} ({facts['recipe']})", detector, threshold, facts)
        )
    with progress_bar("photos under conditions") as advance:
        study = run_stress(subjects, dataset, wanted, levels, seed=seed, progress=advance)
    head = {
        "data": {"name": Path(data).name, "fingerprint": fingerprint(dataset)},
        "stamp": stamp(seed=seed, threads=threads),
    }
    result = {**head, **study.to_json()}
    if json_file:
        write_json(json_file, result)
    if html:
        stress_page.write_stress_page(study, result, html)
    if picture:
        write_whole(picture, stress_page.plot_stress(result))
    _print_stress(result)
    if fix and base:
        weak = study.weak_conditions()
        write_whole(fix, stress_conditions.add_conditions(base, weak).to_toml())
        names = ", ".join(condition.name for condition in weak) or "none costs enough"
        out.print(f"config: {fix}, covering {names}")


def _print_stress(result: Mapping[str, Any]) -> None:
    from shelfcount.studies.stress_words import format_points, tolerance_text

    several = len(result["detectors"]) > 1
    names = [f", {detector['name']}" if several else "" for detector in result["detectors"]]
    table = Table(
        "condition",
        *(escape_markup(f"F1 points{name}") for name in names),
        "tolerated",
        "unit",
        box=None,
        header_style="bold",
    )
    for condition in result["conditions"]:
        lost = [format_points(-summary["lost"]) for summary in condition["detectors"]]
        table.add_row(
            condition["name"],
            *lost,
            tolerance_text(condition["detectors"][0], condition),
            condition["unit"],
        )
    out.print(table)
    for detector in result["detectors"]:
        out.print(
            escape_markup(
                f"{detector['name']}: F1 {detector['f1']:.4f} on the {result['photos']} photos as they are"
            )
        )


def _fix_base(models: Sequence[Path], config: Path | None) -> config_module.Config:
    """The settings that `stress --fix` adds to: the file's, else those of the first run, else the defaults."""
    runs = [model for model in models if (model / "config.toml").exists()]
    return config_module.load_config(config or (runs[0] / "config.toml" if runs else None))


@app.command()
def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    baseline: Annotated[
        str,
        typer.Option(
            help="Run or bundle; 'resnet50' takes an untrained one, for size and latency."
        ),
    ],
    data: Annotated[str, typer.Option(help="Labelled test photos.")],
    output: Annotated[Path, typer.Option("--out", help="Report folder.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run of the bundle, or that it was fine-tuned from, for its other forms."
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option(min=1, help="Counted runs of each form of the phone model.")
    ] = 100,
    baseline_runs: Annotated[
        int, typer.Option(min=1, help="Counted runs of each form of the baseline.")
    ] = 10,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Of the runtimes; may be repeated. 1 and 2 by default."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A few runs on one thread: shows that it works, not how fast."
        ),
    ] = False,
    photo: Annotated[
        Path | None,
        typer.Option(help="Photo to time on and to show counted; the first test photo by default."),
    ] = None,
    phone: Annotated[
        list[Path] | None,
        typer.Option(help="TOML file with a phone's budget (benchmarks/phones); may be repeated."),
    ] = None,
    adb_binary: Annotated[
        Path | None,
        typer.Option(help="LiteRT's benchmark_model, to measure on the attached phone."),
    ] = None,
    adb_serial: Annotated[
        str | None, typer.Option(help="Of the phone, where adb sees several.")
    ] = None,
    json_file: JsonFile = None,
    class_names: Names = None,
    corrections: Corrections = None,
    force: Force = False,
) -> None:
    """Measure a bundle against the ResNet-50 baseline and write a report."""
    from shelfcount.report import bench_page
    from shelfcount.runtime.bundle import read_bundle
    from shelfcount.speed import comparison, phone_budgets

    for file in (output / "report.html", json_file):
        require_absent(file, force)
    targets = phone_budgets.read_phones(phone or ())
    if adb_binary:
        err.print("measuring on the attached phone")
    on_phone = phone_budgets.measure_attached_phone(
        targets, read_bundle(bundle), adb_binary, adb_serial
    )
    dataset = _read(data, class_names, corrections or ())
    plan = (
        comparison.QUICK
        if quick
        else comparison.BenchmarkSettings(
            runs,
            baseline_runs,
            tuple(dict.fromkeys(threads or comparison.BenchmarkSettings.threads)),
        )
    )
    result = comparison.compare_with_baseline(
        bundle, baseline, dataset, output, run=run, plan=plan, photo=photo, bar=progress_bar
    )
    verdicts = phone_budgets.check_budgets(targets, _figures(result), on_phone)
    bench_page.write_bench_report(output, result, verdicts)
    if json_file:
        write_json(json_file, bench_page.bench_json(result, verdicts))
    for dropped in result.left_out:
        err.print(f"[yellow]not measured:[/yellow] {escape_markup(str(dropped))}")
    for line in result.verdict:
        out.print(line)
    for verdict in verdicts:
        out.print(escape_markup(verdict.phone))
        for judged in verdict.lines:
            out.print(escape_markup(f"  {judged}"))
    out.print(f"report: {(output / 'report.html').resolve()}")
    if any(verdict.missed for verdict in verdicts):
        raise typer.Exit(1)


def _figures(result: Any) -> Any:
    """Of a comparison, what a phone's budget is held against."""
    from shelfcount.speed import phone_budgets

    row, baseline = result.rows[0], result.rows[result.reference]
    memory = None if row.memory is None else row.memory / 1e6
    return phone_budgets.model_facts(
        result.bundle, f1=row.f1, baseline_f1=baseline.f1, memory_mb=memory
    )


# ---------------------------------------------------------------- shared by the verbs


def _read(
    source: str,
    class_names: Path | None,
    corrections: Sequence[Path] = (),
    others: Sequence[str] = (),
) -> Dataset:
    """Labelled photos with those corrections applied that name this file; each must name it or one of `others`."""
    from shelfcount.data.datasets import describe_dropped
    from shelfcount.data.formats import read_labels
    from shelfcount.labels.corrections import correct_labels, read_corrections

    dataset = read_labels(source, class_names=class_names)
    summary, *dropped = describe_dropped(dataset)
    err.print(
        ("[yellow]warning:[/yellow] " if dropped else "") + escape_markup(f"{source}: {summary}")
    )
    for line in dropped:
        err.print(escape_markup(line))
    for path in corrections:
        entries = read_corrections(path)
        if entries.data == Path(source).name:
            dataset = correct_labels(dataset, entries)
            accepted = len(entries.decided("accepted"))
            left = len(entries.corrections) - accepted
            err.print(
                escape_markup(
                    f"{path}: {accepted} corrections applied"
                    + (f", {left} refused or undecided" if left else "")
                )
            )
        elif entries.data not in [Path(other).name for other in others]:
            given = ", ".join(Path(name).name for name in (source, *others))
            raise ShelfcountError(
                f"'{path}' corrects the labels of '{entries.data}', got {given}. Leave it out, or give those labels."
            )
    return dataset


def _training_data(
    data: str,
    val: str | None,
    class_names: Path | None,
    seed: int,
    corrections: Sequence[Path],
    sources_of: str = "",
) -> tuple[Dataset, Dataset]:
    from shelfcount.data.datasets import align_classes

    try:
        training = _read(data, class_names, corrections, [val] if val else [])
        if val:
            return align_classes(training, _read(val, class_names, corrections, [data]))
    except ShelfcountError as error:
        if sources_of:
            raise ShelfcountError(
                f"the data of '{sources_of}' cannot be read: {error} Give their new place with --data, --val and --corrections."
            ) from error
        raise
    from shelfcount.data.splits import split

    parts = split(training, {"train": 6 / 7, "val": 1 / 7}, seed)
    err.print(
        f"no --val: {len(parts['val'])} of {len(training)} photos, by groups, are held back for validation"
    )
    return parts["train"], parts["val"]


def open_low(model: Path, threads: int) -> tuple[Any, float, dict[str, Any]]:
    """A detector that reports low scores too, for mAP; the threshold to judge it at; and what it is."""
    from shelfcount.vision.postprocess import LOWEST_SCORE

    if (model / "model.json").exists():
        from shelfcount.runtime.bundle import LiteRTDetector, read_bundle

        bundle = read_bundle(model)
        facts = {
            "name": bundle.name,
            "sha256": bundle.sha256,
            "recipe": bundle.recipe,
            **dict(bundle.spec.provenance),
        }
        return (
            LiteRTDetector.open(bundle, threads, LOWEST_SCORE),
            bundle.spec.score_threshold,
            facts,
        )
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
