"""The comparison with the baseline: measured once, written as a page, a table in Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.evaluation import benchmark
from shelfcount.evaluation.benchmark import Candidate, Ratio, Row
from shelfcount.evaluation.metrics import Evaluation, evaluate
from shelfcount.records import Dataset, ModelSpec, ShelfcountError
from shelfcount.report import figures, page
from shelfcount.report.pictures import annotate
from shelfcount.runtime.bundle import LOWEST_SCORE, Bundle, LiteRTDetector, read_bundle
from shelfcount.shelf.count import CountedPhoto, count_photo, summary_rows
from shelfcount.stamp import stamp
from shelfcount.vision.images import read_photo, stretch, write_photo, write_whole

UNTRAINED = "resnet50"
WARMUP = 3
UNTRAINED_NOTE = "The baseline was not trained here, so its F1 was not measured. Its size and latency do not depend on its weights."


@dataclass(frozen=True, eq=False)
class Comparison:
    """A bundle beside the baseline.

    Attributes:
        bundle: The phone model.
        rows: The bundle's row, then the baseline's.
        speed: How many times faster the bundle is.
        evaluation: Of the bundle on the test photos.
        baseline_evaluation: Of the baseline, or None where it was not trained.
        photo: The counted photo and its pixels.
        stamp: Commit, versions, device.
    """

    bundle: Bundle
    rows: tuple[Row, Row]
    speed: Ratio
    evaluation: Evaluation
    baseline_evaluation: Evaluation | None
    photo: tuple[CountedPhoto, np.ndarray]
    stamp: dict[str, Any]

    @property
    def verdict(self) -> list[str]:
        return list(benchmark.verdict(*self.rows, self.speed))

    def to_json(self) -> dict[str, Any]:
        """As plain lists, numbers and strings."""
        return {
            "bundle": {"name": self.bundle.name, "sha256": self.bundle.sha256},
            "rows": [row.to_json() for row in self.rows],
            "times_faster": dataclasses.asdict(self.speed),
            "verdict": self.verdict,
            "evaluation": self.evaluation.to_json(),
            "baseline_evaluation": self.baseline_evaluation and self.baseline_evaluation.to_json(),
            "stamp": self.stamp,
        }


def measure(
    bundle_path: Path,
    baseline: str,
    dataset: Dataset,
    *,
    runs: int,
    baseline_runs: int,
    photo: Path | None = None,
    threads: int = 1,
    on_stage: Callable[[], None] = lambda: None,
) -> Comparison:
    """Size, latency, F1 and counts of a bundle and the baseline.

    Args:
        bundle_path: Of the phone model.
        baseline: A run, a bundle, or 'resnet50' for an untrained network: its size and latency are
            those of a trained one, its F1 stays unmeasured.
        dataset: Test photos.
        runs, baseline_runs: Counted runs of each.
        photo: To show counted; by default the first test photo.
        threads: Of LiteRT, for both.
        on_stage: Called as each of four stages begins: baseline, F1, latency, report.
    """
    on_stage()
    bundle = read_bundle(bundle_path)
    slow, slow_model, slow_start, slow_threshold = _baseline(baseline, bundle.spec, threads)
    on_stage()
    low = LiteRTDetector.open(bundle, threads, LOWEST_SCORE)
    evaluation = evaluate(low, dataset, threshold=bundle.spec.score_threshold)
    baseline_evaluation = evaluate(slow, dataset, threshold=slow_threshold) if slow_threshold is not None else None
    on_stage()
    fast = LiteRTDetector.open(bundle, threads)
    image = read_photo(photo or dataset.photos[0].path)
    candidates = {
        "phone": _candidate(
            fast, image, (bundle.path / "model.tflite").read_bytes(), bundle.recipe, bundle.spec.provenance.get("start", "")
        ),
        "baseline": _candidate(slow, image, slow_model, "float32", slow_start),
    }
    latencies, times = benchmark.time_alternately(
        {name: c.call for name, c in candidates.items()}, {"phone": runs, "baseline": baseline_runs}, warmup=WARMUP, threads=threads
    )
    rows = (
        benchmark.row(candidates["phone"], latencies["phone"], evaluation),
        benchmark.row(candidates["baseline"], latencies["baseline"], baseline_evaluation),
    )
    on_stage()
    counted = count_photo(fast, image, Path(photo or dataset.photos[0].path).name)
    speed = benchmark.ratio(times["baseline"], times["phone"])
    return Comparison(bundle, rows, speed, evaluation, baseline_evaluation, (counted, image), stamp(threads=threads))


def _candidate(detector: LiteRTDetector, image: np.ndarray, model: bytes, recipe: str, start: str) -> Candidate:
    spec = detector.spec
    pixels = stretch(image, spec.height, spec.width)
    name = f"{spec.architecture} {spec.width} x {spec.height}"
    return benchmark.litert_candidate(name, f"LiteRT {recipe}", start, model, benchmark.call_for(detector, pixels), None)


def _start(spec: ModelSpec) -> str:
    return str(spec.provenance.get("start", ""))


def _baseline(source: str, phone: ModelSpec, threads: int) -> tuple[LiteRTDetector, bytes, str, float | None]:
    """The baseline as a LiteRT float32 file, how it was initialised, and its threshold or None where it is untrained."""
    path = Path(source)
    if (path / "model.json").exists():
        bundle = read_bundle(path)
        model = (path / "model.tflite").read_bytes()
        return (
            LiteRTDetector.open(bundle, threads, LOWEST_SCORE),
            model,
            str(bundle.spec.provenance.get("start", "")),
            bundle.spec.score_threshold,
        )
    # Converting needs torch; a comparison of two bundles does not.
    from shelfcount.deploy import convert
    from shelfcount.deploy.bundle import artifact
    from shelfcount.training import runs
    from shelfcount.training.detector import BASELINE, RANDOM, build, retinanet_levels

    if source == UNTRAINED:
        spec = ModelSpec(BASELINE, BASELINE, phone.classes, 640, 640, retinanet_levels())
        net, start, threshold = build(BASELINE, len(phone.classes), spec.levels, 256), f"{RANDOM}, untrained", None
    elif path.is_dir():
        trained = runs.load_run(path)
        spec, net, threshold = trained.spec, trained.net, trained.spec.score_threshold
        start = _start(spec)
    else:
        raise ShelfcountError(f"--baseline must be a run or bundle folder, or '{UNTRAINED}' for an untrained one, got '{source}'")
    model = artifact(convert.to_litert(net, spec), spec, "float32", [])
    return LiteRTDetector(model, spec, threads, LOWEST_SCORE), model, start, threshold


def write(folder: Path, result: Comparison) -> None:
    """Write report.html, report.md, result.json and counted.jpg."""
    counted, image = result.photo
    placement = list(zip(counted.placement.row.tolist(), counted.placement.position.tolist(), strict=True))
    picture = annotate(image, counted.detections, counted.classes, rows=placement)
    write_photo(folder / "counted.jpg", picture)
    write_whole(folder / "result.json", json.dumps(result.to_json(), indent=1))
    write_whole(folder / "report.md", markdown(result.rows))
    sections = [
        page.Section("", [page.Cards(_cards(result))]),
        page.Section("A counted photo", _counted_blocks(counted, picture)),
        page.Section("Against the baseline", _comparison_blocks(result)),
        page.Section("How good it is", _quality_blocks(result.evaluation, result.baseline_evaluation)),
        page.Section("Where these figures come from", [page.Facts(_facts(result))]),
    ]
    lead = f"{result.bundle.name}: {len(result.bundle.spec.classes)} classes, measured on {len(result.evaluation.photos)} test photos."
    page.write(folder / "report.html", "May it go onto the phone?", sections, lead)


def markdown(rows: tuple[Row, ...]) -> str:
    """The comparison as a Markdown table."""
    heads = ("model", "form", "MB", "GMAC", "p50 ms", "p90 ms", "threads", "F1", "mAP", "count error", "weights from")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [page.show(v, d) for v, d in zip(_cells(row), (0, 0, 2, 2, 1, 1, 0, 3, 3, 3, 0), strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[Any]:
    size, macs = row.size and row.size / 1e6, row.macs and row.macs / 1e9
    timing = row.latency
    measured = [size, macs, timing.p50, timing.p90, timing.threads, row.f1, row.map, row.count_error]
    return [row.name, row.variant, *measured, row.start]


def _cards(result: Comparison) -> list[page.Card]:
    phone, baseline = result.rows
    smaller = f"{baseline.size / phone.size:.0f}×" if phone.size and baseline.size else None
    speed = result.speed
    within_noise = speed.low <= 1 <= speed.high
    against = f"baseline {baseline.f1:.3f}" if baseline.f1 is not None else "baseline not trained"
    return [
        page.Card("F1 at IoU 0.5", phone.f1, against),
        page.Card(
            "Times faster",
            "no difference" if within_noise else f"{speed.median:.0f}×",
            f"{speed.low:.0f} to {speed.high:.0f} over paired runs",
        ),
        page.Card("Times smaller", smaller, f"{(phone.size or 0) / 1e6:.2f} MB against {(baseline.size or 0) / 1e6:.1f} MB"),
        page.Card("Latency, ms", phone.latency.p50, f"median of {phone.latency.runs}, {phone.latency.threads} thread", 1),
    ]


def _counted_blocks(counted: CountedPhoto, picture: np.ndarray) -> list[page.Block]:
    total = len(counted.detections)
    caption = f"{counted.path}: {total} products in {counted.placement.n_rows} rows. Each box carries its row and position."
    columns = [page.Column("class"), page.Column("products")]
    rows = [(name, products) for name, products, _ in summary_rows([counted])]
    return [
        page.Picture(picture, caption, "The photo with a box around each product"),
        page.Table(columns, rows, "Products by class on this photo."),
    ]


def _comparison_blocks(result: Comparison) -> list[page.Block]:
    phone, baseline = result.rows
    columns = [
        page.Column("model"),
        page.Column("form"),
        page.Column("size", "MB", 2),
        page.Column("work", "GMAC", 2),
        page.Column("p50", "ms", 1),
        page.Column("p90", "ms", 1),
        page.Column("threads"),
        page.Column("F1"),
        page.Column("mAP"),
        page.Column("count error"),
        page.Column("weights from"),
    ]
    caption = (
        f"Network and suppression on one photo, in turn on one machine: {phone.latency.runs} and {baseline.latency.runs} runs "
        f"after {WARMUP} not counted. Count error: products missed, added or misnamed, over products there."
    )
    blocks: list[page.Block] = [page.Table(columns, [_cells(row) for row in result.rows], caption, strong_row=0)]
    if result.baseline_evaluation is None:
        blocks.append(
            page.Note(
                "The baseline was not trained here, so its F1 was not measured. Its size and latency do not depend on its weights.",
                warning=True,
            )
        )
    bars = [(f"{r.name} {r.variant}", r.latency.p50, r.latency.p90) for r in result.rows]
    blocks.append(page.Figure(figures.latency_bars(bars), "Latency of one photo, median and 90th percentile.", "Bars of latency"))
    return blocks


def _quality_blocks(evaluation: Evaluation, baseline: Evaluation | None) -> list[page.Block]:
    count = evaluation.count_by_class
    cards = [
        page.Card("Precision", evaluation.micro.precision),
        page.Card("Recall", evaluation.micro.recall),
        page.Card("F1, class ignored", evaluation.any_class.f1, "is a product there at all?"),
        page.Card("Count error", count.relative, f"{count.mae:.1f} products a photo"),
    ]
    classes = page.Figure(
        figures.per_class_f1(evaluation.per_class, baseline.per_class if baseline else None), "F1 of each class.", "Bars of F1 by class"
    )
    confusion = page.Figure(
        figures.confusion_matrix(evaluation.confusion, evaluation.classes),
        "Rows are what stands there, columns what was reported.",
        "Confusion matrix",
    )
    return [page.Cards(cards), classes, confusion]


def _facts(result: Comparison) -> dict[str, Any]:
    provenance, made = result.bundle.spec.provenance, result.stamp
    facts = {
        "bundle": f"{result.bundle.name}, sha256 {result.bundle.sha256}",
        "trained on": f"{provenance.get('data', '')} (fingerprint {str(provenance.get('data_fingerprint', ''))[:12]})",
        "licence of the photos": provenance.get("licence") or "not stated",
        "weights start from": provenance.get("start", ""),
        "seed": provenance.get("seed"),
        "score threshold": result.bundle.spec.score_threshold,
        "measured": made["date"],
        "commit": made["commit"],
        "device": made["device"],
        "versions": ", ".join(f"{k} {v}" for k, v in made["versions"].items()),
    }
    measured = result.bundle.measured
    if "f1" in measured and "f1_pytorch" in measured:
        drop = 100 * (measured["f1_pytorch"] - measured["f1"])
        facts["lost in quantization"] = f"{drop:+.2f} points of F1 on {measured.get('validation_photos')} validation photos"
    return facts
