"""Report of confused classes: pairs with photos and crops, and the F1 that each class loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelfcount.drawing.crops import crop, example_crops, grid, photo_at
from shelfcount.drawing.marks import MISSED, Mark
from shelfcount.metrics.confusions import (
    MIN_SLOPE,
    MORE_EXAMPLES,
    Confusion,
    ErrorAnalysis,
    LearningCurve,
    Need,
)
from shelfcount.metrics.scoring import Evaluation
from shelfcount.records import Dataset
from shelfcount.report import accuracy_figures, page
from shelfcount.words import plural

# Maximum number of pairs with pictures, and of crops per pair. The tables list all pairs.
MAX_PAIRS = 10
MAX_CROPS = 4
# Maximum number of photos named in a row of the table of pairs.
MAX_NAMED = 3
# Side of a crop, relative to the longer side of its box.
_SURROUNDINGS = 2.4
# Side of one crop in the grid of four, in pixels.
_CELL = 300


def write_confusion_page(
    dataset: Dataset,
    evaluation: Evaluation,
    analysis: ErrorAnalysis,
    model: str,
    path: Path | str,
) -> None:
    """Write the report as one HTML file. It is replaced only when complete.

    Args:
        dataset: Labelled photos. Those with confused classes are read again for the pictures.
        evaluation: Metrics of the model, from `metrics.scoring.score`.
        analysis: Errors of the model, from `metrics.confusions.analyse_errors`.
        model: Name of the model.
        path: Path of the HTML file.

    Raises:
        ShelfcountError: If a photo cannot be read, or the file cannot be written.
    """
    pairs = analysis.pairs
    photos, products = plural(len(dataset), "photo"), plural(evaluation.micro.truth, "product")
    data = f"{photos} of {Path(dataset.name).name} with {products}"
    lead = f"{model} on {data}, with a score threshold of {evaluation.threshold:.2f}."
    sections = [
        page.Section("", [_cards(evaluation)]),
        page.Section("Confused classes", [*_pairs(pairs, dataset.classes), *_matrix(evaluation)]),
        page.Section(
            "Crops of confused classes",
            [block for pair in pairs[:MAX_PAIRS] for block in _pictures(pair, dataset)]
            or [page.Note("No classes are confused.")],
        ),
        page.Section(
            "F1 loss by class",
            _needs(analysis.needs, analysis.trained, analysis.curves),
        ),
    ]
    page.write_html(path, "Error analysis by class", sections, lead)


def _cards(evaluation: Evaluation) -> page.Cards:
    table, products = evaluation.confusion, max(evaluation.micro.truth, 1)
    misnamed = int(table[:-1, :-1].sum() - np.trace(table[:-1, :-1]))
    return page.Cards(
        [
            page.Card("F1", evaluation.micro.f1, "at IoU 0.5, with the correct class"),
            page.Card(
                "Wrong class",
                misnamed,
                f"{misnamed / products:.1%} of the labelled products: detected as another class",
            ),
            page.Card(
                "False negatives (missed)",
                int(table[:-1, -1].sum()),
                f"{table[:-1, -1].sum() / products:.1%} of the labelled products: not detected",
            ),
            page.Card(
                "False positives",
                int(table[-1, :-1].sum()),
                "detections without a labelled product",
            ),
        ]
    )


def _pairs(pairs: Sequence[Confusion], classes: Sequence[str]) -> list[page.Block]:
    caption = (
        "High confidence: the score is at least the mean score of the predicted class where label "
        "and model agree. In these cases the label may be wrong; shelfcount propose lists "
        "them. Two classes that are confused in both directions may be the same product."
    )
    often = [pair for pair in pairs if len(pair.mistakes) > 1]
    once = [pair for pair in pairs if len(pair.mistakes) == 1]
    folded: list[page.Block] = (
        [
            page.Details(
                f"{plural(len(once), 'more pair')}, confused once",
                [_table(once, classes, "")],
            )
        ]
        if once
        else []
    )
    return [_table(often, classes, caption), *folded]


def _table(pairs: Sequence[Confusion], classes: Sequence[str], caption: str) -> page.Table:
    columns = [
        page.Column("labelled"),
        page.Column("predicted"),
        page.Column("products"),
        page.Column("share of the class"),
    ]
    columns += [
        page.Column("high confidence"),
        page.Column("in the other direction"),
        page.Column("photos"),
    ]
    rows = []
    for pair in pairs:
        more = len(pair.photos) - MAX_NAMED
        photos = ", ".join(pair.photos[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        rows.append(
            [
                classes[pair.true],
                classes[pair.reported],
                len(pair.mistakes),
                pair.share,
                pair.confident,
                pair.reverse,
                photos,
            ]
        )
    return page.Table(columns, rows, caption)


def _matrix(evaluation: Evaluation) -> list[page.Block]:
    png = accuracy_figures.confusion_matrix(evaluation.confusion, evaluation.classes)
    return [
        page.Details(
            "Confusion matrix",
            [
                page.Figure(
                    png, "Rows: labelled class. Columns: predicted class.", "Confusion matrix"
                )
            ],
        )
    ]


def _pictures(pair: Confusion, dataset: Dataset) -> list[page.Block]:
    true, predicted = dataset.classes[pair.true], dataset.classes[pair.reported]
    crops = [
        crop(
            photo_at(m.photo.path),
            m.box,
            [Mark(m.box, MISSED, f"{predicted} {m.score:.2f}")],
            _SURROUNDINGS,
        )
        for m in pair.mistakes[:MAX_CROPS]
    ]
    photos = ", ".join(dict.fromkeys(m.photo.path.name for m in pair.mistakes[:MAX_CROPS]))
    pictures = [
        page.Picture(
            _square(crops),
            f"Labelled {true}, predicted {predicted}: {photos}.",
            f"Products labelled {true}, predicted {predicted}",
        )
    ]
    for class_, name in ((pair.true, true), (pair.reported, predicted)):
        if crops := example_crops(dataset, class_):
            pictures.append(
                page.Picture(_square(crops), f"Labelled {name}.", f"Products labelled {name}")
            )
    title = (
        f"{true} confused with {predicted}: {len(pair.mistakes)} of {pair.products}, "
        f"{pair.confident} of them with high confidence"
    )
    return [page.Note(title), page.Side(pictures)]


def _square(crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return grid(crops, columns=2, cell=_CELL)


def _needs(
    rows: Sequence[Need],
    trained: Mapping[str, int] | None,
    curves: Mapping[str, LearningCurve] | None,
) -> list[page.Block]:
    columns = [
        page.Column("class"),
        page.Column("products"),
        page.Column("missed"),
        page.Column("wrong class"),
    ]
    columns += [
        page.Column("other classes predicted as it"),
        page.Column("false positives"),
        page.Column("maximum F1 gain", "points", 2),
    ]
    columns += [page.Column("training examples")] * (trained is not None)
    if curves:
        columns += [
            page.Column("more examples to halve the errors"),
            page.Column(f"F1 gain with {MORE_EXAMPLES} more examples", "points", 2),
        ]
    cells = [
        [n.name, n.products, n.missed, n.misnamed, n.taken_for, n.nothing, 100 * n.bound]
        + [n.trained] * (trained is not None)
        + ([_scaled(n.halving), _scaled(n.gain, 100)] if curves else [])
        for n in rows
    ]
    caption = (
        "Maximum F1 gain: increase of the overall F1, in points, if every error of this class were "
        "corrected and nothing else changed. It shows which classes could profit from more or "
        "better examples, but not how many examples are needed. "
    )
    caption += (
        "The columns on more examples extrapolate the learning curve of the class with a power "
        f"law. They are undefined if its exponent is not below {MIN_SLOPE:g} or it has too few "
        "points. Classes are sorted by this gain: take photos of the first ones."
        if curves
        else "That number needs learning curves, from models trained on parts of the data."
    )
    return [page.Table(columns, cells, caption)]


def _scaled(value: float | None, times: int = 1) -> float:
    """Return `value` times a factor, or NaN for None.

    The page shows NaN as "undefined" instead of "not measured".
    """
    return float("nan") if value is None else value * times
