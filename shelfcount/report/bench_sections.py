"""Sections of the report on the baseline comparison, from tables of models to phone budgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shelfcount.deploy import inspection
from shelfcount.drawing import disagreement_picture
from shelfcount.report import accuracy_figures, figures, page
from shelfcount.speed.comparison import BaselineComparison
from shelfcount.speed.model_rows import Row, format_ratio, row_label
from shelfcount.speed.phone_budgets import BudgetLine, BudgetResult
from shelfcount.words import plural

# Number of operators in the table of the slowest ones.
SLOWEST = 12


def threads_text(n: int) -> str:
    """Return a number of threads in words, such as "2 threads"."""
    return plural(n, "thread")


def table_blocks(result: BaselineComparison) -> list[page.Block]:
    """Return the tables of all formats, and plots of F1 against latency and size."""
    blocks: list[page.Block] = [_quality_table(result), _size_table(result)]
    if result.left_out:
        blocks.append(
            page.Note(
                "Not measured:\n" + "\n".join(str(dropped) for dropped in result.left_out),
                warning=True,
            )
        )
    if sum(row.f1 is not None for row in result.rows) > 1:
        latencies = [row.latency.p50 for row in result.rows]
        sizes = [row.size and row.size / 1e6 for row in result.rows]
        blocks += [
            _f1_plot(result, latencies, "median latency per photo in ms", "F1 against latency"),
            _f1_plot(result, sizes, "file size in MB", "F1 against size"),
        ]
    return blocks


def _quality_table(result: BaselineComparison) -> page.Table:
    columns = [
        page.Column("format"),
        page.Column("F1"),
        page.Column("F1 loss", "points", 2),
        page.Column("mAP"),
        page.Column("count error"),
        page.Column("p50", "ms", 1),
        page.Column("relative latency"),
    ]
    rows = [
        [
            row_label(r),
            r.f1,
            r.lost_points,
            r.map,
            r.count_error,
            r.latency.p50,
            format_ratio(r.times_bundle) or "1 (the bundle)",
        ]
        for r in result.rows
    ]
    caption = (
        "The .tflite files run in LiteRT. PyTorch is included if a run is available. F1 loss: F1 "
        "of the same weights in float32, minus the F1 of this format. Count error: sum over photos "
        "and classes of |counted - labelled|, divided by the number of labelled products. Latency: "
        "network and non-maximum suppression on one photo, "
        f"{threads_text(result.plan.threads[0])}. Each format ran in its own process, and the "
        "formats took turns. Relative latency: median of the ratios of paired runs, with their "
        "10th and 90th percentile. “Within noise”: the paired runs do not agree on which one is "
        "faster."
    )
    return page.Table(columns, rows, caption, strong_row=0)


def _size_table(result: BaselineComparison) -> page.Table:
    columns = [
        page.Column("format"),
        page.Column("size", "MB", 2),
        page.Column("parameters", "million", 2),
        page.Column("compute", "GMAC", 2),
        page.Column("memory", "MB", 1),
        page.Column("weights from"),
    ]
    rows = [[row_label(r), *_weights(r), r.start or None] for r in result.rows]
    caption = (
        "Memory: increase of the peak memory of a process by loading and running the model. "
        "Parameters: a .tflite file can contain a copy of the shared head for each pyramid level; "
        "every stored copy is counted."
    )
    return page.Table(columns, rows, caption, strong_row=0)


def _f1_plot(
    result: BaselineComparison, costs: Sequence[float | None], what: str, alt: str
) -> page.Figure:
    points = [(row_label(row), x, row.f1) for row, x in zip(result.rows, costs, strict=True)]
    plot = accuracy_figures.f1_against(points, what)
    return page.Figure(plot, f"{alt}. The best models are at the top left.", alt)


def _weights(row: Row) -> list[float | None]:
    values = ((row.size, 1e6), (row.parameters, 1e6), (row.macs, 1e9), (row.memory, 1e6))
    return [None if value is None else value / unit for value, unit in values]


def latency_blocks(result: BaselineComparison) -> list[page.Block]:
    """Return the plot and the tables of latency by number of threads and by step."""
    bars = [
        (row_label(row), [(t.threads, t.p50, t.p90) for t in row.by_threads]) for row in result.rows
    ]
    columns = [page.Column("format"), page.Column("threads")]
    columns += [page.Column(name, "ms", 1) for name in ("p50", "p90", "p99")] + [
        page.Column("runs"),
        page.Column("warm-up runs"),
    ]
    rows = [
        [row_label(row), t.threads, t.p50, t.p90, t.p99, t.runs, t.warmup]
        for row in result.rows
        for t in row.by_threads
    ]
    parts = [
        page.Column("format"),
        *(
            page.Column(name, "ms", 2)
            for name in ("photo preparation", "network", "post-processing")
        ),
    ]
    steps = [
        [
            row_label(r),
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
            "Latency of network and non-maximum suppression on one photo, by number of threads.",
            "Latency of each format by number of threads",
        ),
        page.Table(
            parts,
            steps,
            f"Median time of each step, {threads_text(result.plan.threads[0])}. Preparation reads, "
            f"decodes and resizes a photo of {width} x {height} pixels. Post-processing decodes "
            "boxes and runs non-maximum suppression. In a .tflite file, post-processing is an "
            "operator, measured with LiteRT's profiler.",
            strong_row=0,
        ),
        page.Details(
            "All percentiles",
            [
                page.Table(
                    columns, rows, "Percentiles over the timed runs, without the warm-up runs."
                )
            ],
        ),
    ]


def operator_blocks(result: BaselineComparison) -> list[page.Block]:
    """Return the tables of operators: those not delegated to XNNPACK, and the slowest ones."""
    files = [row for row in result.rows if row.outside is not None]
    columns = [
        page.Column("file"),
        page.Column("XNNPACK partitions"),
        page.Column("time not delegated", "%", 1),
        page.Column("operators not delegated"),
    ]
    rows = [
        [
            row_label(r),
            r.partitions,
            _outside_share(r),
            ", ".join(inspection.counted_names(r.outside or ())),
        ]
        for r in files
    ]
    caption = (
        "Operators that are not delegated to XNNPACK run one by one in LiteRT's own kernels. "
        "Each boundary between partitions costs a copy and a wait."
    )
    blocks: list[page.Block] = []
    if result.operators:
        whole = sum(operator.ms for operator in result.operators)
        slowest = sorted(result.operators, key=lambda operator: -operator.ms)[:SLOWEST]
        heads = [
            page.Column("operator"),
            page.Column("time", "ms", 2),
            page.Column("share", "%", 1),
            page.Column("executed as"),
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
            f"Slowest {len(slowest)} of the {plural(len(result.operators), 'operator')} of the "
            "bundle: median times with LiteRT's profiler, which slows inference down slightly."
        )
        blocks.append(page.Table(heads, table, note))
    blocks.append(page.Table(columns, rows, caption))
    return blocks + [
        page.Details(f"Operators by kind: {row_label(r)}", [_kinds(r)])
        for r in files
        if r.operators
    ]


def _outside_share(row: Row) -> float | None:
    if not row.operators:
        return None
    outside = sum(kind["ms"] for kind in row.operators if not kind["inside"])
    return float(100 * outside / sum(kind["ms"] for kind in row.operators))


def _kinds(row: Row) -> page.Table:
    kinds: Sequence[Any] = row.operators or ()
    whole = sum(kind["ms"] for kind in kinds)
    heads = [
        page.Column("operator"),
        page.Column("executed by"),
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


def quality_blocks(result: BaselineComparison) -> list[page.Block]:
    """Return the figures of accuracy: cards, F1 by class and by threshold, and confusions."""
    evaluation, baseline = result.evaluation, result.baseline_evaluation
    count = evaluation.count_by_class
    cards = [
        page.Card("Precision", evaluation.micro.precision),
        page.Card("Recall", evaluation.micro.recall),
        page.Card("Class-agnostic F1", evaluation.class_agnostic.f1, "the class may be wrong"),
        page.Card("Count error", count.relative, f"{count.mae:.1f} products per photo"),
    ]
    classes = page.Figure(
        accuracy_figures.per_class_f1(
            evaluation.per_class, baseline.per_class if baseline else None
        ),
        "F1 of each class" + (". Marks: F1 of the baseline." if baseline else "."),
        "Bars of F1 by class",
    )
    confusion = page.Figure(
        accuracy_figures.confusion_matrix(evaluation.confusion, evaluation.classes),
        "Rows: labelled class. Columns: predicted class.",
        "Confusion matrix",
    )
    return [page.Cards(cards), classes, _threshold_figure(result), confusion]


def _threshold_figure(result: BaselineComparison) -> page.Figure:
    names = ("this model", "baseline")
    # Each model was evaluated at its own score threshold.
    evaluations = [e for e in (result.evaluation, result.baseline_evaluation) if e]
    chosen = [evaluation.threshold for evaluation in evaluations]
    lines = [
        (name, c.thresholds, c.f1, at)
        for name, c, at in zip(names, result.curves, chosen, strict=False)
    ]
    bounds = [
        f"{name} {c.best_f1[1]:.3f} at {c.best_f1[0]:.2f}"
        for name, c in zip(names, result.curves, strict=False)
    ]
    caption = (
        "F1 over the score threshold. Dots: each model's own threshold, chosen on validation "
        f"photos. Best F1 over all thresholds, chosen on these photos and therefore optimistic: "
        f"{', '.join(bounds)}."
    )
    return page.Figure(
        accuracy_figures.f1_over_threshold(lines), caption, "F1 over the score threshold"
    )


def disagreement_blocks(result: BaselineComparison) -> list[page.Block]:
    """Return pictures of the photos on which bundle and baseline differ most."""
    blocks: list[page.Block] = []
    for differing in result.disagreements:
        panels = disagreement_picture.draw_disagreement(differing, result.evaluation.classes)
        labels = ("as labelled", "this model", "baseline")
        pictures = [
            page.Picture(panel, f"{name}.", f"The photo, {name}")
            for panel, name in zip(panels, labels, strict=True)
        ]
        ours, theirs = differing.gained
        blocks.append(
            page.Side(
                pictures,
                f"{differing.photo.path.name}: {plural(differing.products, 'difference')}. "
                f"Labelled products detected only by this model: {ours}; "
                f"only by the baseline: {theirs}.",
            )
        )
    return [page.Note(disagreement_picture.DISAGREEMENT_LEGEND), *blocks] if blocks else []


def budget_section(verdicts: Sequence[BudgetResult]) -> page.Section:
    """Return a section with one table per phone. Without phones it has no blocks.

    Args:
        verdicts: Results against the budget of each phone.
    """
    return page.Section(
        "Phone budgets", [block for verdict in verdicts for block in _budget_blocks(verdict)]
    )


def _budget_blocks(verdict: BudgetResult) -> list[page.Block]:
    heads = (verdict.phone, "result", "value", "budget", "source")
    columns = [page.Column(name) for name in heads]
    rows = [[line.name, line.state, line.value, line.budget, line.basis] for line in verdict.lines]
    blocks: list[page.Block] = [page.Table(columns, rows, budget_sentence(verdict))]
    if verdict.sources:
        blocks.append(
            page.Details("Sources of the estimate", [page.Note("\n".join(verdict.sources))])
        )
    return blocks


def budget_sentence(verdict: BudgetResult) -> str:
    """Return a sentence with the limits that are exceeded and those that remain open.

    Args:
        verdict: Result against the budget of one phone.
    """
    missed, undecided = (_limits(verdict.lines, state) for state in ("missed", "open"))
    text = f"Missed: {missed}." if missed else "No limit of the budget is missed."
    if undecided:
        text += f" Open, since not measured or not decided by an estimate: {undecided}."
    return text


def _limits(lines: Sequence[BudgetLine], state: str) -> str:
    return ", ".join(line.name for line in lines if line.state == state)
