"""What `bench` writes: one HTML file that opens offline, the same in Markdown, and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shelfcount.evaluation import variants
from shelfcount.evaluation.benchmark import Row, factor, times_words
from shelfcount.evaluation.phones import Verdict
from shelfcount.report import disagreement, figures, page, phone_section
from shelfcount.report.bench import Comparison
from shelfcount.report.pictures import annotate
from shelfcount.shelf.count import summary_rows
from shelfcount.vision.images import write_photo, write_whole

TITLE = "May it go onto the phone?"
SLOWEST = 12


def to_json(result: Comparison, verdicts: Sequence[Verdict] = ()) -> dict[str, Any]:
    """All that the report says, as plain lists, numbers and strings."""
    return {**result.to_json(), "phones": [verdict.to_json() for verdict in verdicts]}


def write(folder: Path, result: Comparison, verdicts: Sequence[Verdict] = ()) -> None:
    """Write report.html, report.md, result.json and counted.jpg; `verdicts` are those on the budgets of phones."""
    counted, image = result.photo
    placement = list(
        zip(counted.placement.row.tolist(), counted.placement.position.tolist(), strict=True)
    )
    picture = annotate(image, counted.detections, counted.classes, rows=placement)
    write_photo(folder / "counted.jpg", picture)
    write_whole(folder / "result.json", json.dumps(to_json(result, verdicts), indent=1))
    head = result.rows[0]
    shown = page.Picture(
        picture,
        f"{counted.path}: {len(counted.detections)} products in {counted.placement.n_rows} rows. Each box carries its row and position.",
        "The photo with a box around each product",
    )
    products = page.Table(
        [page.Column("class"), page.Column("products")],
        [(name, n) for name, n, _ in summary_rows([counted])],
        "Products by class on this photo.",
    )
    sections = [
        page.Section(
            "",
            [page.Cards(_cards(result)), *_warnings(result, verdicts), page.Note(_verdict(result))],
        ),
        phone_section.section(verdicts),
        page.Section("A counted photo", [shown, page.Details("Products by class", [products])]),
        page.Section("All forms side by side", _table_blocks(result)),
        page.Section("Latency", _latency_blocks(result)),
        page.Section("Where the time goes", _operator_blocks(result)),
        page.Section("How good it is", _quality_blocks(result)),
        page.Section("Where the two disagree", _disagreement_blocks(result)),
        page.Section("Where these figures come from", [page.Facts(_facts(result))]),
    ]
    sections = [section for section in sections if section.blocks]
    lead = f"{result.bundle.name}: {head.variant}, {len(result.evaluation.classes)} classes, on {len(result.evaluation.photos)} test photos."
    page.write(folder / "report.html", TITLE, sections, lead)
    write_whole(folder / "report.md", page.markdown(TITLE, sections, lead))


def label(row: Row) -> str:
    """How tables and plots call a row, short enough for a phone: the phone model by its form alone, LiteRT unsaid."""
    form = row.variant.removeprefix("LiteRT ")
    return form if row.role == "phone" else f"baseline {form}"


def _verdict(result: Comparison) -> str:
    return "\n".join(f"{line[0].upper()}{line[1:]}." for line in result.verdict)


def _cards(result: Comparison) -> list[page.Card]:
    phone, baseline, speed = result.rows[0], result.rows[result.reference], result.speed
    against = f"baseline {baseline.f1:.3f}" if baseline.f1 is not None else "baseline not trained"
    size = f"{factor(baseline.size / phone.size)}×" if phone.size and baseline.size else None
    return [
        page.Card("F1 at IoU 0.5", phone.f1, against),
        page.Card(
            "Times faster",
            "no difference" if speed.within_noise else f"{factor(speed.median)}×",
            f"{factor(speed.low)} to {factor(speed.high)} over paired runs, against {baseline.variant}",
        ),
        page.Card(
            "Times smaller",
            size,
            f"{(phone.size or 0) / 1e6:.2f} MB against {(baseline.size or 0) / 1e6:.1f} MB",
        ),
        page.Card(
            "Latency, ms",
            phone.latency.p50,
            f"median of {phone.latency.runs}, {_threads(phone.latency.threads)}",
            1,
        ),
    ]


def _threads(n: int) -> str:
    return f"{n} thread{'' if n == 1 else 's'}"


def _warnings(result: Comparison, verdicts: Sequence[Verdict]) -> list[page.Block]:
    notes = [
        f"{verdict.phone}: its budget is missed. {phone_section.summary(verdict)}"
        for verdict in verdicts
        if verdict.missed
    ]
    if result.plan.quick:
        notes.append(
            "This is the short form: too few runs for percentiles. It shows that everything can be measured, and no more."
        )
    if result.baseline_evaluation is None:
        notes.append(
            "The baseline was not trained here, so its F1 was not measured. Its size and latency do not depend on its weights."
        )
    return [page.Note(note, warning=True) for note in notes]


def _table_blocks(result: Comparison) -> list[page.Block]:
    found = [
        page.Column("form"),
        page.Column("F1"),
        page.Column("lost", "points", 2),
        page.Column("mAP"),
        page.Column("count error"),
    ]
    found += [page.Column("p50", "ms", 1), page.Column("times the bundle's time")]
    rows = [
        [
            label(r),
            r.f1,
            r.lost_points,
            r.map,
            r.count_error,
            r.latency.p50,
            times_words(r.times_bundle) or "the bundle",
        ]
        for r in result.rows
    ]
    caption = (
        "The files run in LiteRT; PyTorch stands beside them where there is a run. Lost: points of F1 against the same weights in float32. "
        "Count error: products missed, added or misnamed, over products there. Latency is that of network and suppression on one photo, "
        f"{_threads(result.plan.threads[0])}. Each form ran in a process of its own, all in turn, and is compared with the bundle run by "
        'run: the median of the ratios, and their 10th and 90th percentile. "Within noise": they do not agree on which is faster.'
    )
    weighs = [
        page.Column("form"),
        page.Column("size", "MB", 2),
        page.Column("parameters", "million", 2),
        page.Column("work", "GMAC", 2),
    ]
    weighs += [page.Column("memory", "MB", 1), page.Column("weights from")]
    weights = [[label(r), *_weights(r), r.start or None] for r in result.rows]
    note = (
        "Memory is what loading and running add to a process, at the peak. A file counts weights that pyramid levels share once for each "
        "level, where it stores them so."
    )
    blocks: list[page.Block] = [
        page.Table(found, rows, caption, strong_row=0),
        page.Table(weighs, weights, note, strong_row=0),
    ]
    if result.left_out:
        blocks.append(
            page.Note(
                "Not measured:\n" + "\n".join(str(dropped) for dropped in result.left_out),
                warning=True,
            )
        )
    if sum(row.f1 is not None for row in result.rows) > 1:
        for cost, what, alt in (
            (
                [row.latency.p50 for row in result.rows],
                "median time of one photo in ms",
                "F1 against latency",
            ),
            ([row.size and row.size / 1e6 for row in result.rows], "file in MB", "F1 against size"),
        ):
            points = [
                (label(row), value, row.f1) for row, value in zip(result.rows, cost, strict=True)
            ]
            blocks.append(
                page.Figure(
                    figures.f1_against(points, what), f"{alt}; up and to the left is better.", alt
                )
            )
    return blocks


def _weights(row: Row) -> list[float | None]:
    values = ((row.size, 1e6), (row.parameters, 1e6), (row.macs, 1e9), (row.memory, 1e6))
    return [None if value is None else value / unit for value, unit in values]


def _latency_blocks(result: Comparison) -> list[page.Block]:
    bars = [
        (label(row), [(t.threads, t.p50, t.p90) for t in row.by_threads]) for row in result.rows
    ]
    columns = [page.Column("form"), page.Column("threads")]
    columns += [page.Column(name, "ms", 1) for name in ("p50", "p90", "p99")] + [
        page.Column("runs"),
        page.Column("warm-up"),
    ]
    rows = [
        [label(row), t.threads, t.p50, t.p90, t.p99, t.runs, t.warmup]
        for row in result.rows
        for t in row.by_threads
    ]
    parts = [
        page.Column("form"),
        *(
            page.Column(name, "ms", 2)
            for name in ("photo preparation", "network", "post-processing")
        ),
    ]
    steps = [
        [
            label(r),
            r.preparation and r.preparation.p50,
            r.network,
            r.postprocessing and r.postprocessing.p50,
        ]
        for r in result.rows
    ]
    width, height = result.photo[0].width, result.photo[0].height
    return [
        page.Figure(
            figures.latency_by_threads(bars),
            "Network and suppression on one photo, by threads.",
            "Dots of latency",
        ),
        page.Table(
            parts,
            steps,
            f"Medians of the steps, {_threads(result.plan.threads[0])}. Preparation reads, decodes and resizes a photo of "
            f"{width} x {height} pixels. Post-processing decodes boxes and suppresses doubles; in a file it is an operator, timed by "
            "LiteRT's profiler.",
            strong_row=0,
        ),
        page.Details(
            "All percentiles",
            [
                page.Table(
                    columns, rows, "Runs that were counted, after warm-up runs that were not."
                )
            ],
        ),
    ]


def _operator_blocks(result: Comparison) -> list[page.Block]:
    files = [row for row in result.rows if row.outside is not None]
    columns = [
        page.Column("file"),
        page.Column("pieces of XNNPACK"),
        page.Column("time outside", "%", 1),
        page.Column("operators outside"),
    ]
    rows = [
        [
            label(r),
            r.partitions,
            _outside_share(r),
            ", ".join(variants.counted_names(r.outside or ())),
        ]
        for r in files
    ]
    caption = "What fell out of XNNPACK runs one by one in LiteRT's own kernels; each border between pieces copies and waits."
    blocks: list[page.Block] = []
    if result.operators:
        whole = sum(operator.ms for operator in result.operators)
        slowest = sorted(result.operators, key=lambda operator: -operator.ms)[:SLOWEST]
        heads = [
            page.Column("operator"),
            page.Column("time", "ms", 2),
            page.Column("share", "%", 1),
            page.Column("run as"),
        ]
        table = [
            [
                o.layer or o.name,
                o.ms,
                100 * o.ms / whole,
                o.name if o.inside else "LiteRT's own kernel",
            ]
            for o in slowest
        ]
        note = (
            f"The {len(slowest)} costliest of the bundle's {len(result.operators)} operators, medians under LiteRT's profiler, which "
            "slows a pass down a little."
        )
        blocks.append(page.Table(heads, table, note))
    blocks.append(page.Table(columns, rows, caption))
    return blocks + [
        page.Details(f"Operators by kind: {label(r)}", [_kinds(r)]) for r in files if r.operators
    ]


def _outside_share(row: Row) -> float | None:
    if not row.operators:
        return None
    return (
        100
        * sum(kind["ms"] for kind in row.operators if not kind["inside"])
        / sum(kind["ms"] for kind in row.operators)
    )


def _kinds(row: Row) -> page.Table:
    kinds: Sequence[Any] = row.operators or ()
    whole = sum(kind["ms"] for kind in kinds)
    heads = [
        page.Column("operator"),
        page.Column("run by"),
        page.Column("number"),
        page.Column("time", "ms", 2),
        page.Column("share", "%", 1),
    ]
    cells = [
        [
            k["name"],
            "XNNPACK" if k["inside"] else "LiteRT",
            k["count"],
            k["ms"],
            100 * k["ms"] / whole,
        ]
        for k in kinds
    ]
    return page.Table(heads, cells)


def _quality_blocks(result: Comparison) -> list[page.Block]:
    evaluation, baseline = result.evaluation, result.baseline_evaluation
    count = evaluation.count_by_class
    cards = [
        page.Card("Precision", evaluation.micro.precision),
        page.Card("Recall", evaluation.micro.recall),
        page.Card("F1, class ignored", evaluation.any_class.f1, "is a product there at all?"),
        page.Card("Count error", count.relative, f"{count.mae:.1f} products a photo"),
    ]
    classes = page.Figure(
        figures.per_class_f1(evaluation.per_class, baseline.per_class if baseline else None),
        "F1 of each class" + (", the baseline's as a mark." if baseline else "."),
        "Bars of F1 by class",
    )
    confusion = page.Figure(
        figures.confusion_matrix(evaluation.confusion, evaluation.classes),
        "Rows are what stands there, columns what was reported.",
        "Confusion matrix",
    )
    return [page.Cards(cards), classes, _threshold_figure(result), confusion]


def _threshold_figure(result: Comparison) -> page.Figure:
    names = ("this model", "baseline")
    # What each was measured at is its own threshold.
    chosen = [of.threshold for of in (result.evaluation, result.baseline_evaluation) if of]
    lines = [
        (name, c.thresholds, c.f1, at)
        for name, c, at in zip(names, result.curves, chosen, strict=False)
    ]
    bounds = [
        f"{name} {c.best_f1[1]:.3f} at {c.best_f1[0]:.2f}"
        for name, c in zip(names, result.curves, strict=False)
    ]
    caption = (
        "F1 over the score threshold; dots are the models' own, chosen on validation photos. Highest on these photos, which nobody could "
        f"have known: {', '.join(bounds)}."
    )
    return page.Figure(figures.f1_over_threshold(lines), caption, "F1 over the score threshold")


def _disagreement_blocks(result: Comparison) -> list[page.Block]:
    blocks: list[page.Block] = []
    for found in result.disagreements:
        panels = disagreement.draw(found, result.evaluation.classes)
        labels = ("as labelled", "this model", "baseline")
        pictures = [
            page.Picture(panel, f"{name}.", f"The photo, {name}")
            for panel, name in zip(panels, labels, strict=True)
        ]
        ours, theirs = found.gained
        blocks.append(
            page.Side(
                pictures,
                f"{found.photo.path.name}: {found.products} differences. This model alone found {ours} of the labelled products, "
                f"the baseline alone {theirs}.",
            )
        )
    return [page.Note(disagreement.LEGEND), *blocks] if blocks else []


def _facts(result: Comparison) -> dict[str, Any]:
    provenance, made = result.bundle.spec.provenance, result.stamp
    facts = {
        "bundle": f"{result.bundle.name}, sha256 {result.bundle.sha256}",
        "trained on": f"{provenance.get('data', '')} (fingerprint {str(provenance.get('data_fingerprint', ''))[:12]})",
        "licence of the photos": provenance.get("licence") or "not stated",
        "weights start from": result.rows[0].start,
        "baseline's weights start from": result.rows[result.reference].start or "not stated",
        "seed": provenance.get("seed"),
        "score threshold": result.bundle.spec.score_threshold,
        "energy": None,
        "measured": made["date"],
        "commit": made["commit"],
        "device": made["device"],
        "versions": ", ".join(f"{k} {v}" for k, v in made["versions"].items()),
    }
    measured = result.bundle.measured
    if "f1" in measured and "f1_pytorch" in measured:
        drop = 100 * (measured["f1_pytorch"] - measured["f1"])
        facts["lost in quantization"] = (
            f"{drop:+.2f} points of F1 on {measured.get('validation_photos')} validation photos"
        )
    return facts
