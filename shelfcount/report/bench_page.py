"""Report on the comparison with the baseline, as HTML, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shelfcount.drawing.pictures import annotate
from shelfcount.files import write_json, write_whole
from shelfcount.report import page
from shelfcount.report.bench_sections import (
    budget_section,
    budget_sentence,
    disagreement_blocks,
    latency_blocks,
    operator_blocks,
    quality_blocks,
    table_blocks,
    threads_text,
)
from shelfcount.shelf.count import summary_rows
from shelfcount.speed.comparison import BaselineComparison
from shelfcount.speed.phone_budgets import BudgetResult
from shelfcount.vision.images import write_photo
from shelfcount.words import format_factor, plural

_TITLE = "Deployment report: phone model against baseline"


def bench_json(result: BaselineComparison, verdicts: Sequence[BudgetResult] = ()) -> dict[str, Any]:
    """Return the content of the report as JSON data.

    Args:
        result: Measurements of bundle and baseline.
        verdicts: Results against the budgets of phones.
    """
    return {**result.to_json(), "phones": [verdict.to_json() for verdict in verdicts]}


def write_bench_report(
    folder: Path, result: BaselineComparison, verdicts: Sequence[BudgetResult] = ()
) -> None:
    """Write report.html, report.md, result.json and counted.jpg.

    Args:
        folder: Output folder.
        result: Measurements of bundle and baseline.
        verdicts: Results against the budgets of phones.

    Raises:
        ShelfcountError: If a file cannot be written.
    """
    counted, image = result.photo
    places = counted.placement.pairs()
    picture = annotate(image, counted.detections, counted.classes, rows=places)
    write_photo(folder / "counted.jpg", picture)
    write_json(folder / "result.json", bench_json(result, verdicts))
    head = result.rows[0]
    products_in_rows = (
        f"{plural(len(counted.detections), 'product')} in {plural(counted.placement.n_rows, 'row')}"
    )
    counted_picture = page.Picture(
        picture,
        f"{counted.path}: {products_in_rows}. "
        "The tag at the bottom of each box is its row/position.",
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
        budget_section(verdicts),
        page.Section(
            "Example of a counted photo",
            [counted_picture, page.Details("Products by class", [products])],
        ),
        page.Section("Comparison of all formats", table_blocks(result)),
        page.Section("Latency", latency_blocks(result)),
        page.Section("Time by operator", operator_blocks(result)),
        page.Section("Detection quality", quality_blocks(result)),
        page.Section("Photos with most disagreements", disagreement_blocks(result)),
        page.Section("Provenance", [page.Facts(_facts(result))]),
    ]
    sections = [section for section in sections if section.blocks]
    classes = plural(len(result.evaluation.classes), "class", "classes")
    photos = plural(len(result.evaluation.photos), "test photo")
    lead = f"{result.bundle.name}: {head.variant}, {classes}, evaluated on {photos}."
    page.write_html(folder / "report.html", _TITLE, sections, lead)
    write_whole(folder / "report.md", page.page_markdown(_TITLE, sections, lead))


def _verdict(result: BaselineComparison) -> str:
    return "\n".join(f"{line[0].upper()}{line[1:]}." for line in result.verdict)


def _cards(result: BaselineComparison) -> list[page.Card]:
    phone, baseline, speed = result.rows[0], result.rows[result.reference], result.speed
    against = f"baseline {baseline.f1:.3f}" if baseline.f1 is not None else "baseline not trained"
    size = f"{format_factor(baseline.size / phone.size)}×" if phone.size and baseline.size else None
    return [
        page.Card("F1 at IoU 0.5", phone.f1, against),
        page.Card(
            "Speed-up",
            "no difference" if speed.within_noise else f"{format_factor(speed.median)}×",
            f"{format_factor(speed.low)} to {format_factor(speed.high)} over paired runs, "
            f"against {baseline.variant}",
        ),
        page.Card(
            "Size reduction",
            size,
            f"{(phone.size or 0) / 1e6:.2f} MB against {(baseline.size or 0) / 1e6:.1f} MB",
        ),
        page.Card(
            "Latency, ms",
            phone.latency.p50,
            f"median of {plural(phone.latency.runs, 'run')}, {threads_text(phone.latency.threads)}",
            1,
        ),
    ]


def _warnings(result: BaselineComparison, verdicts: Sequence[BudgetResult]) -> list[page.Block]:
    notes = [
        f"{verdict.phone}: the model exceeds the budget. {budget_sentence(verdict)}"
        for verdict in verdicts
        if verdict.missed
    ]
    if result.plan.quick:
        notes.append(
            "This is a quick benchmark with too few runs for reliable percentiles. "
            "It only shows that everything can be measured."
        )
    if result.baseline_evaluation is None:
        notes.append(
            "The baseline is an untrained network, so its F1 was not measured. "
            "Its size and latency do not depend on its weights."
        )
    return [page.Note(note, warning=True) for note in notes]


def _facts(result: BaselineComparison) -> dict[str, Any]:
    provenance, made = result.bundle.spec.provenance, result.stamp
    facts = {
        "bundle": f"{result.bundle.name}, sha256 {result.bundle.sha256}",
        "trained on": f"{provenance.get('data', '')} (fingerprint "
        f"{str(provenance.get('data_fingerprint', ''))[:12]})",
        "licence of the photos": provenance.get("licence") or "not stated",
        "initial weights": result.rows[0].start,
        "initial weights of the baseline": result.rows[result.reference].start or "not stated",
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
        photos = plural(measured["validation_photos"], "validation photo")
        facts["F1 loss by quantization"] = f"{drop:+.2f} points ({photos})"
    return facts
