"""Reading of labels together with the corrections files that were made for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shelfcount.data.datasets import describe_dropped
from shelfcount.data.formats import read_labels
from shelfcount.labels.corrections import apply_corrections, read_corrections
from shelfcount.records import Dataset, ShelfcountError
from shelfcount.words import WARNING, plural


def read_corrected(
    source: str | Path,
    class_names: Path | None = None,
    corrections: Sequence[Path] = (),
    others: Sequence[str | Path] = (),
) -> tuple[Dataset, list[str]]:
    """Read labelled photos and apply the corrections that were made for them.

    Corrections files that name the same labels are merged, as by
    `labels.corrections.apply_corrections`.

    Args:
        source: Labels in any format of `data.formats.read_labels`.
        class_names: File with the names of numbered classes.
        corrections: Corrections files. Those that name another file than `source` are skipped.
        others: Labels that the caller reads besides `source`. Corrections may name them.

    Returns:
        The data set with corrected labels, and notes for the user: what was read, left out and
        corrected, one line each. A note that starts with `WARNING` needs attention.

    Raises:
        ShelfcountError: If labels or corrections cannot be read, a corrections file names neither
            `source` nor one of `others`, or its corrections do not fit the labels.
    """
    dataset = read_labels(source, class_names=class_names)
    summary, *dropped = describe_dropped(dataset)
    notes = [f"{WARNING if dropped else ''}{source}: {summary}", *dropped]
    fitting = []
    for path in corrections:
        entries = read_corrections(path)
        if entries.data == Path(source).name:
            fitting.append(entries)
            accepted = len(entries.decided("accepted"))
            left = len(entries.corrections) - accepted
            notes.append(
                f"{path}: {plural(accepted, 'correction')} applied"
                + (f", {left} refused or undecided" if left else "")
            )
        elif entries.data not in [Path(other).name for other in others]:
            given = ", ".join(Path(name).name for name in (source, *others))
            raise ShelfcountError(
                f"'{path}' corrects the labels of '{entries.data}', but the labels given are "
                f"{given}. Leave the file out, or give the labels that it names."
            )
    return (apply_corrections(dataset, fitting) if fitting else dataset), notes
