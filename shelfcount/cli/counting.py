"""The verbs `count`, `merge` and `planogram`: products on photos of shelves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from shelfcount.cli.console import (
    BundleFolder,
    FacingsFile,
    Force,
    JsonFile,
    Threads,
    err,
    escape_markup,
    out,
    print_table,
    progress_bar,
)
from shelfcount.files import require_absent, write_json
from shelfcount.records import Dropped, ShelfcountError
from shelfcount.vision.images import write_photo
from shelfcount.words import plural


def _report_unread(dropped: Dropped) -> None:
    err.print(f"[red]not counted:[/red] {escape_markup(dropped.reason)}")


def count_verb(
    bundle: BundleFolder,
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photos to count.")],
    json_file: JsonFile = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write one line per product to this file.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Folder for annotated pictures.")] = None,
    facings_file: FacingsFile = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with status 1 if a photo fails the quality check (blurred, too dark, "
            "tilted).",
        ),
    ] = False,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Count the products on photos, with class, box, shelf row and position of each.

    Photos that fail the quality check are counted too, with a warning.
    """
    from shelfcount.drawing.pictures import annotate
    from shelfcount.runtime.bundle import LiteRTDetector, read_bundle
    from shelfcount.shelf import count as counting
    from shelfcount.shelf.facings import facings_json

    for file in (json_file, csv_file, facings_file):
        require_absent(file, force)
    opened = read_bundle(bundle)
    detector = LiteRTDetector.open(opened, threads)
    pictures = _picture_names(photos, picture) if picture else {}
    for target in pictures.values():
        require_absent(target, force)
    counted: list[counting.CountedPhoto] = []
    with progress_bar("counting") as advance:
        for photo, image in counting.count_each(detector, photos, _report_unread, advance):
            counted.append(photo)
            for advice in photo.quality.advice:
                err.print(f"[yellow]unfit:[/yellow] {escape_markup(f'{photo.path}: {advice}')}")
            if picture:
                rows = photo.placement.pairs()
                drawn = annotate(image, photo.detections, photo.classes, rows=rows)
                write_photo(pictures[Path(photo.path)], drawn)
    if json_file:
        write_json(json_file, counting.count_json(counted, opened.name, opened.sha256))
    if csv_file:
        counting.write_csv(csv_file, counted)
    if facings_file:
        shelves = [{"path": c.path, **facings_json(c.arrangement)} for c in counted]
        head = {"name": opened.name, "sha256": opened.sha256}
        write_json(facings_file, {"bundle": head, "photos": shelves})
    print_table(
        ("class", "products", "photos"),
        [(name, str(n), str(shown)) for name, n, shown in counting.summary_rows(counted)],
    )
    unfit = sum(not photo.quality.fit for photo in counted)
    failed = len(photos) - len(counted)
    out.print(
        f"{plural(sum(len(c.detections) for c in counted), 'product')} on "
        f"{plural(len(counted), 'photo')}"
        + (f"; {unfit} failed the quality check: do not rely on their counts" if unfit else "")
        + (f"; {failed} not counted" if failed else "")
    )
    if failed or (strict and unfit):
        raise typer.Exit(1 if counted else 2)


def _picture_names(photos: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return a picture file for each photo; photos of one name from several folders get numbers."""
    names: dict[Path, Path] = {}
    for path in photos:
        target = folder / f"{path.stem}.jpg"
        number = 2
        while target in names.values():
            target = target.with_name(f"{path.stem}-{number}.jpg")
            number += 1
        names[path] = target
    return names


def merge_verb(
    bundle: BundleFolder,
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO...",
            help="Photos of one shelf in any order. Neighbours overlap by at least a fifth.",
        ),
    ],
    json_file: JsonFile = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Write a picture of the whole shelf with its boxes to this file (.jpg)."),
    ] = None,
    facings_file: FacingsFile = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Merge overlapping photos of one shelf and count each product once."""
    from shelfcount.drawing.pictures import annotate
    from shelfcount.runtime.bundle import LiteRTDetector, read_bundle
    from shelfcount.shelf.facings import facings_json
    from shelfcount.shelf.merge import merge_json, merge_photos
    from shelfcount.shelf.panorama import arrange_merged, panorama

    for file in (json_file, picture, facings_file):
        require_absent(file, force)
    opened = read_bundle(bundle)
    detector = LiteRTDetector.open(opened, threads)
    with progress_bar("counting") as advance:
        merged = merge_photos(detector, photos, on_error=_report_unread, progress=advance)
    shelf, *others = merged.shelves
    if json_file:
        write_json(json_file, merge_json(merged, opened.name, opened.sha256))
    if facings_file:
        head = {"name": opened.name, "sha256": opened.sha256}
        write_json(facings_file, {"bundle": head, **facings_json(arrange_merged(shelf))})
    if picture:
        image, products = panorama(shelf)
        rows = shelf.placement.pairs()
        write_photo(picture, annotate(image, products, opened.spec.classes, rows=rows))
    print_table(("class", "products"), [(name, str(n)) for name, n in shelf.counts.items()])
    out.print(
        f"{plural(len(shelf.products), 'product')} in {plural(shelf.placement.n_rows, 'row')} on "
        f"{plural(len(shelf.photos), 'photo')} of one shelf"
    )
    for other in others:
        names = ", ".join(photo.path for photo in other.photos)
        out.print(
            f"counted separately: {names}, {plural(len(other.products), 'product')}. "
            f"{other.reason}",
            markup=False,
        )
    if others or merged.unread:
        raise typer.Exit(1)


def planogram_verb(
    bundle: BundleFolder,
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO...",
            help="Photos of one shelf. Several are merged first, so they must overlap by at least "
            "a fifth.",
        ),
    ],
    plan: Annotated[
        Path,
        typer.Option(
            help="Planogram (JSON): rows from the top, products from the left, facings of each."
        ),
    ],
    learn: Annotated[
        bool,
        typer.Option(
            "--learn", help="Write the planogram from photos of a correctly filled shelf."
        ),
    ] = False,
    json_file: JsonFile = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Write a picture of the shelf with the deviations to this file (.jpg)."),
    ] = None,
    threads: Threads = 2,
    force: Force = False,
) -> None:
    """Compare a shelf with its planogram: missing, extra and misplaced products."""
    from shelfcount.counting.count import count
    from shelfcount.runtime.bundle import LiteRTDetector
    from shelfcount.shelf.planogram import read_plan, write_plan

    for file in (json_file, picture, plan if learn else None):
        require_absent(file, force)
    detector = LiteRTDetector.open(bundle, threads)
    expected = None if learn else read_plan(plan, detector.spec.classes)
    with progress_bar("counting") as advance:
        counted = count(photos, detector, progress=advance)
    # A single photo is compared in its own pixels.
    shelf = counted.merge() if len(photos) > 1 else counted[0]
    for note in shelf.notes:
        err.print(f"[red]not on the shelf:[/red] {escape_markup(note)}")
    if expected is None:
        if shelf.notes:
            raise ShelfcountError(
                f"{plural(len(shelf.notes), 'photo')} cannot be merged with the others, see above. "
                "A planogram is derived only from photos that all fit together."
            )
        learnt = shelf.to_planogram(photos[0].stem)
        write_plan(plan, learnt)
        out.print(f"plan: {plan}, {plural(learnt.facings, 'facing')}", markup=False)
        return
    verdict = shelf.check_compliance(expected)
    out.print(str(verdict), markup=False)
    if json_file:
        write_json(json_file, verdict.to_json())
    if picture:
        write_photo(picture, verdict.picture())
    if verdict.deviations or shelf.notes:
        raise typer.Exit(1)
