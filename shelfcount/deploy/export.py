"""Export of a run as a bundle: conversion, quantization, measurement, golden photos, model card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelfcount.config import Config
from shelfcount.deploy import card, convert, golden
from shelfcount.deploy.bundle import (
    main_artifact,
    raw_artifact,
    require_replaceable,
    write_bundle,
)
from shelfcount.labels.reading import read_corrected
from shelfcount.metrics.evaluate import evaluate_detector
from shelfcount.metrics.scoring import Evaluation
from shelfcount.records import Dataset, Progress, ShelfcountError
from shelfcount.runtime.bundle import RAW_MODEL, Bundle, LiteRTDetector
from shelfcount.training import inputs, runs
from shelfcount.words import plural

PathLike = Path | str


@dataclass(frozen=True, eq=False)
class ExportedBundle:
    """A bundle with the metrics that were measured while it was written.

    Attributes:
        bundle: The bundle, read again and checked.
        before: Metrics of the PyTorch network on the validation photos.
        after: Metrics of the bundle on the same photos.
        validation_photos: Number of validation photos.
    """

    bundle: Bundle
    before: Evaluation
    after: Evaluation
    validation_photos: int

    def to_json(self) -> dict[str, Any]:
        """Return path, sha256, size, recipe and metrics of the bundle."""
        return {
            "bundle": str(self.bundle.path),
            "sha256": self.bundle.sha256,
            "bytes": self.bundle.model_bytes,
            "recipe": self.bundle.recipe,
            **self.bundle.measured,
        }

    def __str__(self) -> str:
        before, after = self.before.micro.f1, self.after.micro.f1
        megabytes = self.bundle.model_bytes / 1e6
        return (
            f"F1 on {plural(self.validation_photos, 'validation photo')}: PyTorch {before:.4f}, "
            f"{self.bundle.recipe} {after:.4f} (drop {100 * (before - after):+.2f} points)\n"
            f"bundle: {self.bundle.path} ({megabytes:.2f} MB, sha256 {self.bundle.sha256[:12]})"
        )


def export_run(
    run: PathLike,
    out: PathLike,
    recipe: str = "int8",
    *,
    data: PathLike | None = None,
    val: PathLike | None = None,
    corrections: Sequence[Path] | None = None,
    test: PathLike | None = None,
    force: bool = False,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> ExportedBundle:
    """Quantize the model of a run and write the bundle that an app embeds.

    Args:
        run: Folder of a finished run.
        out: Folder of the bundle; it is created.
        recipe: Quantization recipe, one of `deploy.convert.RECIPES`.
        data: Training photos, for int8 calibration. Default: those that the run names.
        val: Validation photos, for the drop in F1 and the golden photos. Default: those of the run.
        corrections: Corrections to both. Default: those of the run.
        test: Labelled test photos, for the metrics of the model card.
        force: Replace an existing bundle.
        tell: Called with each note about the labels that were read.
        progress: Called with the number of finished stages, the number of all stages, and the name
            of the stage that begins.

    Returns:
        The bundle and its metrics. Its text shows them.

    Raises:
        ShelfcountError: If the recipe is unknown, `out` exists and may not be replaced, the run is
            not finished, or its photos cannot be read.
    """
    run, out = Path(run), Path(out)
    if recipe not in convert.RECIPES:
        raise ShelfcountError(
            f"unknown recipe '{recipe}'. Allowed recipes: {', '.join(convert.RECIPES)}"
        )
    require_replaceable(out, force)
    detector, settings = runs.load_run(run), runs.read_config(run)
    spec = detector.spec
    sources = _sources(run, data, val, corrections)
    training, validation, notes = _read_photos(run, sources, settings)
    tested = None
    if test is not None:
        tested, more = read_corrected(test, sources.class_names)
        notes += more
    if tell is not None:
        for note in notes:
            tell(note)
    stages = ("converting to LiteRT", f"quantizing ({recipe})", "measuring F1", "golden photos")

    def begin(stage: int) -> None:
        if progress:
            progress(stage, len(stages), stages[min(stage, len(stages) - 1)])

    begin(0)
    model = convert.to_litert(detector.net, spec)
    begin(1)
    # A network from quantization-aware training contains its ranges.
    calibrates = recipe == "int8" and not settings.train.quantize
    limit = settings.export.calibration_photos
    photos = inputs.calibration_photos(training, spec, limit) if calibrates else []
    main_model = main_artifact(model, spec, recipe, photos)
    files = {"model.tflite": main_model, RAW_MODEL: raw_artifact(model, spec)}
    begin(2)
    exported = LiteRTDetector(main_model, spec)
    before, after = (evaluate_detector(each, validation) for each in (detector, exported))
    evaluated = [("validation", after)]
    measured: dict[str, Any] = {
        "validation_photos": len(validation),
        "f1_pytorch": round(before.micro.f1, 4),
        "f1": round(after.micro.f1, 4),
        "count_error": after.count_by_class.relative,
        "calibration_photos": len(photos),
    }
    if tested is not None:
        evaluated.append(("test", evaluate_detector(exported, tested)))
        measured["test_photos"] = len(tested)
        measured["test_f1"] = round(evaluated[-1][1].micro.f1, 4)
    begin(3)
    files |= golden.make_golden(main_model, spec, validation)
    files["MODEL_CARD.md"] = card.model_card(
        spec, files, recipe, measured, golden.tolerance(files), evaluated
    )
    bundle = write_bundle(out, spec, files, recipe, measured, force=force)
    begin(len(stages))
    return ExportedBundle(bundle, before, after, len(validation))


def _sources(
    run: Path, data: PathLike | None, val: PathLike | None, corrections: Sequence[Path] | None
) -> runs.Sources:
    # A run that was passed on has no data.json, since its paths are of no use elsewhere.
    passed_on = data is not None and val is not None and not (run / runs.SOURCES).exists()
    own = runs.Sources(str(data), str(val)) if passed_on else runs.read_sources(run)
    return runs.Sources(
        str(data) if data is not None else own.train,
        str(val) if val is not None else own.val,
        own.class_names,
        own.corrections if corrections is None else tuple(corrections),
    )


def _read_photos(
    run: Path, sources: runs.Sources, settings: Config
) -> tuple[Dataset, Dataset, list[str]]:
    try:
        return inputs.training_data(sources, settings.train.seed)
    except ShelfcountError as error:
        raise ShelfcountError(
            f"cannot read the photos of run '{run}': {error} If they were moved, give their "
            "location with --data, --val and --corrections."
        ) from error
