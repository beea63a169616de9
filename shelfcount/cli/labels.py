"""The verb `check`: errors in labelled photos, leaks, and inter-annotator agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shelfcount.cli.console import (
    ClassNames,
    Force,
    HtmlFile,
    JsonFile,
    out,
    print_note,
    print_table,
    progress_bar,
)
from shelfcount.files import require_absent, write_json
from shelfcount.words import plural

if TYPE_CHECKING:
    from shelfcount.checks.findings import Report
    from shelfcount.labels.agreement_scores import Agreement


def check_verb(
    data: Annotated[
        str,
        typer.Option(
            help="Labelled photos: COCO .json, YOLO data.yaml, VOC folder or SKU-110K .csv."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            help="Second data set. If its photos differ from --data (a test set), photos that are "
            "in both are reported as leaks. If they are the same photos labelled by someone else, "
            "inter-annotator agreement is measured."
        ),
    ] = None,
    class_names: ClassNames = None,
    html: HtmlFile = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Check labelled photos for errors before training on them."""
    from shelfcount.report.agreement_page import write_agreement_page
    from shelfcount.report.check_page import write_check_page
    from shelfcount.studies.label_check import check_labels

    agreement_html = html.with_name(f"{html.stem}-agreement.html") if html and against else None
    for file in (json_file, html, agreement_html):
        require_absent(file, force)
    with progress_bar("checking photos") as advance:
        result = check_labels(
            data, against, class_names=class_names, tell=print_note, progress=advance
        )
    if json_file:
        write_json(json_file, result.to_json())
    if html:
        write_check_page(result.report, html)
    if result.agreement and agreement_html:
        write_agreement_page(result.agreement, agreement_html)
    _print_findings(result.report)
    if result.agreement:
        _print_agreement(result.agreement)
    counts = ", ".join(plural(n, severity) for severity, n in result.report.counts().items())
    advice = "Training can start." if result.passed else "Fix the errors before training."
    out.print(f"{counts}. {advice}")
    if not result.passed:
        raise typer.Exit(1)


def _print_findings(report: Report) -> None:
    rows = []
    for kind in dict.fromkeys(finding.kind for finding in report.findings):
        findings = [finding for finding in report.findings if finding.kind == kind]
        rows.append((findings[0].severity, kind, str(len(findings)), findings[0].message))
    print_table(("severity", "kind", "findings", "for example"), rows)


def _print_agreement(agreement: Agreement) -> None:
    differing = [row for row in agreement.per_class if row.share is not None and row.share < 1]
    print_table(
        ("class", "first", "second", "both", "agreement"),
        [
            (row.name, str(row.first), str(row.second), str(row.both), f"{row.share:.3f}")
            for row in sorted(differing, key=lambda r: (r.share, -r.first - r.second))
        ],
    )
    out.print(
        f"{agreement.names[1]} labels {len(agreement.photos)} of these photos a second time:",
        markup=False,
    )
    for name, value in agreement_lines(agreement):
        out.print(f"  {name:42} {value}")


def agreement_lines(agreement: Agreement) -> list[tuple[str, str]]:
    """Return the agreement as (title, value with its 95 % interval) for a terminal."""

    def format_score(value: float | None, name: str = "") -> str:
        ends = (
            " ({:.3f} to {:.3f})".format(*agreement.interval[name])
            if name in agreement.interval
            else ""
        )
        return "not measured" if value is None else f"{value:.3f}{ends}"

    parts = {
        "quality": "quality",
        "= presence": "presence",
        "x naming": "naming",
        "x tightness": "tightness",
    }
    return [
        *(
            (title, format_score(getattr(agreement.figures, name), name))
            for title, name in parts.items()
        ),
        ("Cohen's kappa of the classes", format_score(agreement.kappa)),
        ("Krippendorff's alpha of presence and class", format_score(agreement.alpha)),
    ]
