"""The verbs `export`, `verify` and `serve`: bundles for phones."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from shelfcount.cli.console import (
    BundleFolder,
    Force,
    JsonFile,
    escape_markup,
    out,
    print_note,
    stage_bar,
)
from shelfcount.files import require_absent, write_json
from shelfcount.words import plural


def export_verb(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    output: Annotated[Path, typer.Option("--out", help="Bundle folder to write.")],
    recipe: Annotated[
        str, typer.Option(help="Quantization recipe: float32, float16, dynamic or int8.")
    ] = "int8",
    data: Annotated[
        str | None,
        typer.Option(
            help="Training photos for int8 calibration. Needed only if they were moved after "
            "training."
        ),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(
            help="Validation photos, for the drop in F1 and golden/. Needed only if they were "
            "moved after training."
        ),
    ] = None,
    corrections: Annotated[
        list[Path] | None,
        typer.Option(
            help="Corrections to their labels. Needed only if they were moved. May be repeated."
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(help="Labelled test photos, for the metrics of the model card."),
    ] = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Quantize a trained model and write the bundle that an app embeds."""
    from shelfcount.deploy.export import export_run

    require_absent(json_file, force)
    with stage_bar() as begin:
        exported = export_run(
            run,
            output,
            recipe,
            data=data,
            val=val,
            corrections=corrections,
            test=test,
            force=force,
            tell=print_note,
            progress=begin,
        )
    if json_file:
        write_json(json_file, exported.to_json())
    out.print(str(exported), markup=False)


def verify_verb(
    bundle: BundleFolder,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Check the files of a bundle, its contract with apps, and its golden photos."""
    from shelfcount.deploy.verify import verify_bundle

    require_absent(json_file, force)
    found, failures = verify_bundle(bundle)
    if json_file:
        write_json(json_file, {"bundle": str(bundle), "good": not failures, "failures": failures})
    for failure in failures:
        out.print(f"FAILED {escape_markup(failure)}")
    if failures or found is None:
        raise typer.Exit(1)
    out.print(
        f"good: {bundle}, {plural(len(found.files), 'file')}, {found.recipe}, "
        f"{plural(len(found.spec.classes), 'class', 'classes')}, sha256 {found.sha256[:12]}",
        markup=False,
    )


def serve_verb(
    bundle: BundleFolder,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on. 0 chooses a free one.")
    ] = 8000,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. 0.0.0.0 admits phones in the same network."),
    ] = "127.0.0.1",
) -> None:
    """Serve the web page that counts in the browser. Photos do not leave the phone."""
    from shelfcount.deploy.serve import open_server, page_folder

    with (
        open_server(bundle, page_folder(), host, port) as server,
        contextlib.suppress(KeyboardInterrupt),
    ):
        address = f"http://{host}:{server.server_port}/"
        out.print(f"{address} counts with {bundle}; stop it with Ctrl+C", markup=False)
        server.serve_forever()
