"""Training of a run from labels to a finished run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shelfcount.config import Config
from shelfcount.machine import is_main_process
from shelfcount.records import ShelfcountError
from shelfcount.training.fit import fit
from shelfcount.training.inputs import training_data
from shelfcount.training.optimization import training_precision
from shelfcount.training.runs import Sources, TorchDetector, write_sources
from shelfcount.words import WARNING, plural


def train_run(
    data: Path | str,
    out: Path | str,
    val: Path | str | None = None,
    *,
    config: Config | None = None,
    class_names: Path | None = None,
    corrections: Sequence[Path] = (),
    resume: bool = False,
    force: bool = False,
    tell: Callable[[str], None] | None = None,
    on_step: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> TorchDetector:
    """Train a detector on labelled photos and write the run folder.

    Args:
        data: Labels of the training photos, in any format of `data.formats.read_labels`.
        out: Folder of the run.
        val: Labels of the validation photos. Default: a share of the training photos is held out.
        config: Configuration of the run, from `config.load_config`. Default: the default settings.
        class_names: File with the names of numbered classes.
        corrections: Corrections to the labels.
        resume: Continue an interrupted run in `out`.
        force: Start over if `out` contains a run.
        tell: Called with each note about the labels, and with what is trained.
        on_step: Called with the number of training steps done, the number of all steps, and the
            current losses and validation metrics.

    Returns:
        The trained detector. Provenance and score threshold are in its ``spec``.

    Raises:
        ShelfcountError: If the folder contains a run already, the photos cannot be read, or for the
            reasons given at `training.fit.fit`.
    """
    out, settings = Path(out), config or Config()
    tell = tell or (lambda _: None)
    # Lightning repeats the command in a process for each further device.
    main_process = is_main_process()
    if main_process and not (resume or force):
        _require_new_run(out)
    sources = Sources(str(data), None if val is None else str(val), class_names, tuple(corrections))
    training, validation, notes = training_data(sources, settings.train.seed)
    precision = training_precision(settings.train)
    for note in notes:
        tell(note)
    tell(
        f"training {settings.model.architecture} at {settings.model.width} x "
        f"{settings.model.height} on {plural(len(training), 'photo')}, validating on "
        f"{len(validation)}, for up to {plural(settings.train.epochs, 'epoch')} in {precision}; "
        f"log in {out / 'history.csv'}"
    )
    automatic = settings.train.model_copy(update={"precision": "auto"})
    if precision == "bf16-mixed" and training_precision(automatic) == "32-true":
        tell(
            f"{WARNING}this processor has no instructions for bfloat16, so training takes several "
            "times as long as in float32. Use --set train.precision=auto."
        )
    detector = fit(training, validation, out, settings, resume=resume, on_step=on_step)
    if main_process:
        write_sources(out, sources)
    return detector


def _require_new_run(out: Path) -> None:
    if (out / "config.toml").exists():
        raise ShelfcountError(
            f"'{out}' contains a run already. Continue it with --resume, start over with --force, "
            "or choose another --out."
        )
