"""The verbs `correct` and `propose`: corrections to labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shelfcount.cli.console import (
    Changes,
    ClassNames,
    ConfigFile,
    CorrectionsFiles,
    Depth,
    Force,
    HtmlFile,
    JsonFile,
    Threads,
    escape_markup,
    out,
    print_note,
    progress_bar,
    require_extra,
)
from shelfcount.files import require_absent, write_json
from shelfcount.records import ShelfcountError
from shelfcount.words import plural

if TYPE_CHECKING:
    from shelfcount.labels.corrections import Corrections
    from shelfcount.labels.proposals import HeldOutDetections, Proposal

LabelsToCorrect = Annotated[str, typer.Option("--data", help="Labelled photos.")]


def correct_verb(
    data: LabelsToCorrect,
    output: Annotated[
        Path, typer.Option("--out", help="COCO .json file for the corrected labels.")
    ],
    corrections: CorrectionsFiles = None,
    class_names: ClassNames = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Apply accepted corrections to labels and write new ones. The old labels stay unchanged."""
    from shelfcount.data.coco import write_coco
    from shelfcount.data.datasets import require_reachable_photos
    from shelfcount.labels.corrections import apply_corrections, read_corrections
    from shelfcount.labels.label_changes import difference
    from shelfcount.labels.reading import read_corrected

    if not corrections:
        raise ShelfcountError(
            "no corrections were given. Give at least one file with --corrections; "
            "`shelfcount propose` writes one."
        )
    _require_json(output)
    for file in (output, json_file):
        require_absent(file, force)
    dataset, notes = read_corrected(data, class_names)
    for note in notes:
        print_note(note)
    given = [read_corrections(path) for path in corrections]
    require_reachable_photos(dataset, output)
    corrected = apply_corrections(dataset, given)
    changes = difference(dataset, corrected, given)
    write_coco(corrected, output)
    if json_file:
        write_json(json_file, {"labels": output.name, **changes.to_json()})
    for line in changes.lines():
        out.print(escape_markup(line))
    out.print(f"labels: {output}", markup=False)


def propose_verb(
    data: LabelsToCorrect,
    output: Annotated[
        Path, typer.Option("--out", help="Corrections file (.json) to decide on, entry by entry.")
    ],
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN_OR_BUNDLE",
            help="Model that was not trained on these photos. Not given with --folds.",
        ),
    ] = None,
    html: HtmlFile = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="For training photos: split --data into this many folds and check each with a "
            "model trained on the others (cross-validation).",
        ),
    ] = None,
    depth: Depth = "fast",
    runs: Annotated[
        Path | None,
        typer.Option(
            help="With --folds: folder for the runs or cached features of the folds. Existing "
            "ones are reused. Default: next to --out."
        ),
    ] = None,
    config: ConfigFile = None,
    changes: Changes = None,
    max_proposals: Annotated[
        int | None,
        typer.Option(
            min=1, help="Maximum number of proposals, most confident first. Default: all."
        ),
    ] = None,
    class_names: ClassNames = None,
    threads: Threads = 2,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Propose corrections where a model contradicts labels with high confidence."""
    from shelfcount.labels.corrections import write_corrections
    from shelfcount.labels.proposals import draft_corrections
    from shelfcount.labels.reading import read_corrected
    from shelfcount.report.proposals_page import write_proposals_page
    from shelfcount.studies.held_out import detect_held_out, propose_corrections

    if (model is None) == (folds is None):
        raise ShelfcountError(
            "`propose` needs either a bundle or run that was not trained on these photos, or "
            f"--folds, got {'both' if model else 'neither'}"
        )
    if (runs or config or changes or depth != "fast") and not folds:
        raise ShelfcountError(
            f"--depth, --runs, --config and --set belong to --folds, got the model '{model}'"
        )
    if folds:
        require_extra("train", "propose --folds")
    _require_json(output)
    for file in (output, html, json_file):
        require_absent(file, force)
    dataset, notes = read_corrected(data, class_names)
    for note in notes:
        print_note(note)
    with progress_bar("looking for label errors") as advance:
        if folds:
            from shelfcount.config import load_config
            from shelfcount.studies.folds import detect_folds

            settings, folder = load_config(config, changes or ()), runs or output.with_suffix("")
            parts = detect_folds(dataset, folds, depth, folder, settings, threads, progress=advance)
        else:
            assert model
            parts = [detect_held_out(dataset, model, threads, tell=print_note, progress=advance)]
    proposals = propose_corrections(parts, max_proposals)
    draft = draft_corrections(dataset, proposals)
    write_corrections(draft, output)
    if html:
        write_proposals_page(dataset, proposals, draft, html)
    if json_file:
        write_json(json_file, _proposals_json(parts, proposals, draft))
    adds = sum(p.correction.action == "add" for p in proposals)
    out.print(
        f"{plural(len(proposals), 'proposal')}, {adds} to add a label and "
        f"{len(proposals) - adds} to rename one; decide on each: {html or output}",
        markup=False,
    )


def _proposals_json(
    parts: Sequence[HeldOutDetections], proposals: Sequence[Proposal], draft: Corrections
) -> dict[str, object]:
    return {
        "models": [{**part.model, "held_out_photos": len(part.photos)} for part in parts],
        "fingerprint": draft.fingerprint,
        "proposals": [
            {
                "relative_confidence": round(p.relative_confidence, 3),
                "score": round(p.score, 4),
                **p.correction.to_json(),
            }
            for p in proposals
        ],
    }


def _require_json(output: Path) -> None:
    if output.suffix.lower() != ".json":
        raise ShelfcountError(f"--out must be a .json file, got '{output}'")
