"""Comparison of a bundle with the ResNet-50 baseline: each model in each form, measured once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.deploy import inspection
from shelfcount.metrics import disagreement, evaluate, scoring, uncertainty
from shelfcount.metrics.disagreement import Disagreement
from shelfcount.metrics.scoring import Evaluation
from shelfcount.metrics.threshold import ThresholdCurve, threshold_curve
from shelfcount.records import Dataset, Detections, Dropped, Progress, ShelfcountError
from shelfcount.runtime.bundle import Bundle, LiteRTDetector, read_bundle
from shelfcount.shelf.count import CountedPhoto, count_photo
from shelfcount.speed import latency, model_rows, operator_profile, variants
from shelfcount.speed.model_rows import Ratio, Row
from shelfcount.speed.operator_profile import Operator, Profile
from shelfcount.speed.variants import Variant
from shelfcount.stamp import stamp
from shelfcount.vision.images import read_photo
from shelfcount.words import plural

# Profiled runs. The share of each operator is stable after few runs; the baseline takes seconds
# per run and gets fewer.
PROFILE_RUNS = {"phone": 20, "baseline": 3}
PHOTOS_SHOWN = 3
# Format of the baseline that the summary compares with: float32, as it is before quantization.
REFERENCE_FORM = "LiteRT float32"


@dataclass(frozen=True)
class BenchmarkSettings:
    """Numbers of runs and threads of a benchmark.

    Attributes:
        runs, baseline_runs: Number of timed runs of each format of the phone model, and of each
            format of the baseline.
        threads: Thread counts to measure. Formats are compared at the first.
        quick: Whether this is a quick benchmark, with too few runs for meaningful percentiles.
    """

    runs: int = 100
    baseline_runs: int = 10
    threads: tuple[int, ...] = (1, 2)
    quick: bool = False


QUICK = BenchmarkSettings(runs=5, baseline_runs=3, threads=(1,), quick=True)


@dataclass(frozen=True, eq=False)
class BaselineComparison:
    """Measurements of a bundle and the baseline.

    Attributes:
        bundle: The phone model.
        rows: Row of the bundle, rows of the other formats of the same model, then those of the
            baseline.
        reference: Index of the baseline's row that the summary compares with.
        evaluation: Metrics of the bundle on the test photos.
        baseline_evaluation: Metrics of the reference, or None if the baseline is not trained.
        curves: F1 over the score threshold, for the bundle and, if it is trained, the reference.
        operators: Operators of the bundle in execution order, or None if profiling failed.
        disagreements: Photos on which bundle and reference differ most.
        left_out: Measurements that failed, with the reason.
        photo: One counted photo and its pixels, (h, w, 3) uint8 RGB.
        plan: Numbers of runs and threads.
        stamp: Commit, versions and device.
    """

    bundle: Bundle
    rows: tuple[Row, ...]
    reference: int
    evaluation: Evaluation
    baseline_evaluation: Evaluation | None
    curves: Sequence[ThresholdCurve]
    operators: Sequence[Operator] | None
    disagreements: Sequence[Disagreement]
    left_out: Sequence[Dropped]
    photo: tuple[CountedPhoto, NDArray[np.uint8]]
    plan: BenchmarkSettings
    stamp: dict[str, Any]

    @property
    def speed(self) -> Ratio:
        """Latency of the reference divided by the latency of the bundle.

        Raises:
            ValueError: If the reference is the bundle itself.
        """
        speed = self.rows[self.reference].times_bundle
        if speed is None:
            raise ValueError(
                f"reference {self.reference} is the row of the bundle itself. "
                "It must be a row of the baseline."
            )
        return speed

    @property
    def f1_gain(self) -> tuple[float, float] | None:
        """Interval of the F1 difference, bundle minus reference; None without a trained baseline.

        See `metrics.uncertainty.f1_difference_interval`.
        """
        if self.baseline_evaluation is None:
            return None
        ours, theirs = (
            uncertainty.photo_counts(evaluation)
            for evaluation in (self.evaluation, self.baseline_evaluation)
        )
        return uncertainty.f1_difference_interval(ours, theirs, np.random.default_rng(0))

    @property
    def verdict(self) -> list[str]:
        """Summary of the comparison, one sentence per metric.

        Each further .tflite file of the baseline adds one sentence.
        """
        lines = list(
            model_rows.comparison_sentences(
                self.rows[0], self.rows[self.reference], self.speed, self.f1_gain
            )
        )
        for row in self.rows[self.reference + 1 :]:
            if row.times_bundle is not None and row.variant != variants.PYTORCH:
                lines.append(
                    f"against the baseline as {row.variant}: "
                    + ", ".join(
                        model_rows.comparison_sentences(self.rows[0], row, row.times_bundle)
                    )
                )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON data."""
        return {
            "bundle": {"name": self.bundle.name, "sha256": self.bundle.sha256},
            "rows": [row.to_json() for row in self.rows],
            "reference": self.reference,
            "times_faster": asdict(self.speed),
            "f1_gain": self.f1_gain,
            "verdict": self.verdict,
            "quick": self.plan.quick,
            "energy": None,
            "left_out": [asdict(dropped) for dropped in self.left_out],
            "disagreements": [
                {
                    "photo": d.photo.path.name,
                    "products": d.products,
                    "bundle_alone": d.gained[0],
                    "baseline_alone": d.gained[1],
                }
                for d in self.disagreements
            ],
            "operators": self.operators and [asdict(operator) for operator in self.operators],
            "evaluation": self.evaluation.to_json(),
            "baseline_evaluation": self.baseline_evaluation and self.baseline_evaluation.to_json(),
            "stamp": self.stamp,
        }


def compare_with_baseline(
    bundle_path: Path,
    baseline: str,
    dataset: Dataset,
    folder: Path,
    *,
    run: Path | None = None,
    plan: BenchmarkSettings | None = None,
    photo: Path | None = None,
    progress: Progress | None = None,
) -> BaselineComparison:
    """Measure a bundle and the baseline in all their formats.

    Measured are file size, multiply-accumulates, memory, latency, operators, F1 and counts.

    Args:
        bundle_path: Folder of the phone model.
        baseline: Path of a run or a bundle, or 'resnet50' for an untrained network. The untrained
            network has the size and latency of a trained one; its F1 is not measured.
        dataset: Labelled test photos.
        folder: Output folder. Exported files are kept in its subfolder ``models``.
        run: Run of the bundle, for its other formats. Default: only the bundle is measured.
        plan: Numbers of runs and threads. Default: `BenchmarkSettings()`.
        photo: Photo that is counted for the report and used for timing. Default: the first test
            photo.
        progress: Called with the steps done, the number of steps and a description, which begins
            with the stage. Each stage counts its own steps.

    Returns:
        The comparison.

    Raises:
        ShelfcountError: If bundle, run, baseline and data do not match, or a file cannot be read.
    """
    plan = plan or BenchmarkSettings()
    bundle = read_bundle(bundle_path)
    timed_photo = photo or dataset.photos[0].path
    image = read_photo(timed_photo)
    exporting = _stage(progress, "exporting")
    phone, dropped = variants.of_bundle(bundle, run, folder / "models", exporting)
    rivals, more = variants.of_baseline(baseline, bundle.spec.classes, folder / "models", exporting)
    models = [*phone, *rivals]
    detections = _find(models, dataset, max(plan.threads), _stage(progress, "measuring F1"))
    evaluations = {
        key: scoring.score(dataset, boxes, _threshold(models, key))
        for key, boxes in detections.items()
    }
    curves = {key: threshold_curve(dataset, boxes) for key, boxes in detections.items()}
    timings = {t: _time(models, timed_photo, plan, t, progress) for t in plan.threads}
    profiles, unprofiled = _profile(
        models, timed_photo, plan, _stage(progress, "profiling operators")
    )
    rows = tuple(
        _row(model, models, evaluations, curves, timings, profiles, plan) for model in models
    )
    reference = next(
        (i for i, m in enumerate(models) if m.role == "baseline" and m.form == REFERENCE_FORM),
        len(phone),
    )
    bundle_key, baseline_key = models[0].key, models[reference].key
    differing: list[Disagreement] = []
    if baseline_key in detections:
        differing = disagreement.largest_disagreements(
            dataset,
            _kept(models, bundle_key, detections),
            _kept(models, baseline_key, detections),
            PHOTOS_SHOWN,
        )
    counted = count_photo(LiteRTDetector.open(bundle, plan.threads[0]), image, timed_photo.name)
    return BaselineComparison(
        bundle,
        rows,
        reference,
        evaluations[bundle_key],
        evaluations.get(baseline_key),
        [curves[key] for key in (bundle_key, baseline_key) if key in curves],
        profiles[bundle_key].operators if bundle_key in profiles else None,
        differing,
        [*dropped, *more, *unprofiled],
        (counted, image),
        plan,
        stamp(threads=plan.threads[0]),
    )


def _stage(progress: Progress | None, title: str) -> Progress:
    """Return a callback that puts the title of a stage before each description."""

    def step(done: int, total: int, description: str = "", /) -> None:
        if progress is not None:
            progress(done, total, f"{title}: {description}" if description else title)

    return step


def _find(
    models: Sequence[Variant], dataset: Dataset, threads: int, progress: Progress
) -> dict[str, list[Detections]]:
    trained = [model for model in models if model.trained]
    detections = {}
    for i, model in enumerate(trained):
        before, total = i * len(dataset), len(trained) * len(dataset)

        def step(
            done: int,
            _: int,
            description: str = "",
            *,
            before: int = before,
            total: int = total,
            key: str = model.key,
        ) -> None:
            progress(before + done, total, key)

        detections[model.key] = evaluate.detect_dataset(
            model.detector(threads), dataset, progress=step
        )
    return detections


def _threshold(models: Sequence[Variant], key: str) -> float:
    return next(model for model in models if model.key == key).spec.score_threshold


def _kept(
    models: Sequence[Variant], key: str, detections: Mapping[str, Sequence[Detections]]
) -> list[Detections]:
    return [boxes[boxes.scores >= _threshold(models, key)] for boxes in detections[key]]


def _time(
    models: Sequence[Variant],
    photo: Path,
    plan: BenchmarkSettings,
    threads: int,
    progress: Progress | None,
) -> dict[str, latency.Timing]:
    subjects = {
        model.key: latency.TimedModel(model.path, model.spec.height, model.spec.width)
        for model in models
    }
    runs = {
        model.key: plan.runs if model.role == "phone" else plan.baseline_runs for model in models
    }
    stage = _stage(progress, f"measuring latency, {plural(threads, 'thread')}")
    return latency.time_models(subjects, photo, runs, threads=threads, progress=stage)


def _profile(
    models: Sequence[Variant], photo: Path, plan: BenchmarkSettings, progress: Progress
) -> tuple[dict[str, Profile], list[Dropped]]:
    files, profiles, dropped = [model for model in models if model.is_file], {}, []
    for done, model in enumerate(files, start=1):
        runs = min(PROFILE_RUNS[model.role], plan.runs)
        try:
            size = (model.spec.height, model.spec.width)
            profiles[model.key] = operator_profile.profile(
                model.path, photo, size, runs=runs, threads=plan.threads[0]
            )
        except ShelfcountError as error:
            dropped.append(Dropped(f"operators of {model.key}", str(error)))
        progress(done, len(files))
    return profiles, dropped


def _row(
    model: Variant,
    models: Sequence[Variant],
    evaluations: Mapping[str, Evaluation],
    curves: Mapping[str, ThresholdCurve],
    timings: Mapping[int, Mapping[str, latency.Timing]],
    profiles: Mapping[str, Profile],
    plan: BenchmarkSettings,
) -> Row:
    key, bundle_key = model.key, models[0].key
    timing, evaluation, profiled = (
        timings[plan.threads[0]][key],
        evaluations.get(key),
        profiles.get(key),
    )
    row = Row(
        model.name,
        model.form,
        model.start,
        model.bytes,
        None,
        model.parameters(),
        timing.latency,
        evaluation.micro.f1 if evaluation else None,
        evaluation.map if evaluation else None,
        evaluation.count_by_class.relative if evaluation else None,
        role=model.role,
        by_threads=[timings[t][key].latency for t in plan.threads],
        times_bundle=None
        if key == bundle_key
        else model_rows.speed_ratio(timing.times, timings[plan.threads[0]][bundle_key].times),
        preparation=timing.preparation,
        postprocessing=timing.postprocessing,
        memory=timing.memory,
        lost_points=_lost(model, models, evaluations),
        threshold=evaluation.threshold if evaluation else None,
        best_f1=curves[key].best_f1 if key in curves else None,
    )
    if not model.is_file:
        # The multiply-accumulates of a PyTorch model are counted in its converted file.
        twin = next((m for m in models if m.role == model.role and m.is_file), None)
        return (
            row
            if twin is None
            else replace(row, macs=inspection.count_macs(twin.path.read_bytes()))
        )
    data = model.path.read_bytes()
    if profiled and profiled.postprocessing is not None:
        row = replace(
            row,
            postprocessing=model_rows.summarize_latency(
                profiled.postprocessing, operator_profile.PROFILE_WARMUP, plan.threads[0]
            ),
        )
    return replace(
        row,
        macs=inspection.count_macs(data),
        outside=inspection.undelegated_operators(data),
        partitions=inspection.partitions(data),
        operators=operator_profile.by_kind(profiled.operators) if profiled else None,
    )


def _lost(
    model: Variant, models: Sequence[Variant], evaluations: Mapping[str, Evaluation]
) -> float | None:
    """Return the F1 points lost against the same weights in float32.

    The reference is the PyTorch model or, if that was not measured, the float32 file. None if
    neither or `model` itself was not evaluated.
    """
    forms = (variants.PYTORCH, REFERENCE_FORM)
    floats = [
        m.key
        for form in forms
        for m in models
        if m.role == model.role and m.form == form and m.key in evaluations
    ]
    if not floats or model.key not in evaluations:
        return None
    return round(100 * (evaluations[floats[0]].micro.f1 - evaluations[model.key].micro.f1), 2)
