"""Which products a model takes for which, on which photos, with crops side by side, and what each class costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from shelfcount.evaluation.confusions import (
    MORE_EXAMPLES,
    Confusion,
    Curve,
    Need,
    confusions,
    needs,
)
from shelfcount.evaluation.metrics import Evaluation
from shelfcount.records import Dataset, Detections
from shelfcount.report import figures, page
from shelfcount.report.crops import crop, examples, grid, photo_at
from shelfcount.report.pictures import MISSED, Mark

# Pairs with pictures, and crops of each; the table has all.
MOST_PAIRS = 10
MOST_CROPS = 4
MOST_NAMED = 3
SURROUNDINGS = 2.4
# Of a crop in its square of four, pixels.
CELL = 300


def write_page(
    dataset: Dataset,
    found: Sequence[Detections],
    evaluation: Evaluation,
    model: str,
    path: Path | str,
    trained: Mapping[str, int] | None = None,
    curves: Mapping[str, Curve] | None = None,
) -> None:
    """Write the page whole or not at all.

    Args:
        dataset: Labelled photos; those with mistakes are read again.
        found: What the model finds on each.
        evaluation: What `metrics.score` made of them.
        model: Its name.
        path: Of the HTML file.
        trained, curves: As for `confusions.needs`.
    """
    pairs = confusions(dataset, found, evaluation.threshold)
    data = f"{len(dataset)} photos of {Path(dataset.name).name} with {evaluation.micro.truth:,} products"
    lead = f"{model} on {data}, at score {evaluation.threshold:.2f}."
    sections = [
        page.Section("", [_cards(evaluation)]),
        page.Section(
            "What is taken for what", [*_pairs(pairs, dataset.classes), *_matrix(evaluation)]
        ),
        page.Section(
            "Side by side",
            [block for pair in pairs[:MOST_PAIRS] for block in _pictures(pair, dataset)]
            or [page.Note("Nothing.")],
        ),
        page.Section(
            "What each class costs",
            _needs(needs(dataset.classes, evaluation.confusion, trained, curves), trained, curves),
        ),
    ]
    page.write(path, "Confusions, and what to do about them", sections, lead)


def _cards(evaluation: Evaluation) -> page.Cards:
    table, products = evaluation.confusion, max(evaluation.micro.truth, 1)
    misnamed = int(table[:-1, :-1].sum() - np.trace(table[:-1, :-1]))
    return page.Cards(
        [
            page.Card("F1", evaluation.micro.f1, "at IoU 0.5, the name must be right"),
            page.Card(
                "Misnamed",
                misnamed,
                f"{misnamed / products:.1%} of the products: found, under another name",
            ),
            page.Card(
                "Missed",
                int(table[:-1, -1].sum()),
                f"{table[:-1, -1].sum() / products:.1%} of the products: nothing reported",
            ),
            page.Card(
                "Reported where nothing stands",
                int(table[-1, :-1].sum()),
                "or where nothing is labelled",
            ),
        ]
    )


def _pairs(pairs: Sequence[Confusion], classes: Sequence[str]) -> list[page.Block]:
    caption = (
        "Surely: scored as high as where label and model agree on the reported class. There the label may be the mistake: let "
        "shelfcount correct --propose list it. Two names that are taken for each other both ways may be one product."
    )
    often = [pair for pair in pairs if len(pair.mistakes) > 1]
    once = [pair for pair in pairs if len(pair.mistakes) == 1]
    folded: list[page.Block] = (
        [page.Details(f"{len(once)} more pairs, once each", [_table(once, classes, "")])]
        if once
        else []
    )
    return [_table(often, classes, caption), *folded]


def _table(pairs: Sequence[Confusion], classes: Sequence[str], caption: str) -> page.Table:
    columns = [
        page.Column("stands there"),
        page.Column("reported"),
        page.Column("products"),
        page.Column("of its products", "share"),
    ]
    columns += [page.Column("surely"), page.Column("the other way round"), page.Column("photos")]
    rows = []
    for pair in pairs:
        more = len(pair.photos) - MOST_NAMED
        photos = ", ".join(pair.photos[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        rows.append(
            [
                classes[pair.true],
                classes[pair.reported],
                len(pair.mistakes),
                pair.share,
                pair.sure,
                pair.reverse,
                photos,
            ]
        )
    return page.Table(columns, rows, caption)


def _matrix(evaluation: Evaluation) -> list[page.Block]:
    png = figures.confusion_matrix(evaluation.confusion, evaluation.classes)
    return [
        page.Details(
            "The whole confusion matrix",
            [
                page.Figure(
                    png, "Row: what stands there. Column: what is reported.", "confusion matrix"
                )
            ],
        )
    ]


def _pictures(pair: Confusion, dataset: Dataset) -> list[page.Block]:
    true, reported = dataset.classes[pair.true], dataset.classes[pair.reported]
    crops = [
        crop(
            photo_at(m.photo.path),
            m.box,
            [Mark(m.box, MISSED, f"{reported} {m.score:.2f}")],
            SURROUNDINGS,
        )
        for m in pair.mistakes[:MOST_CROPS]
    ]
    photos = ", ".join(dict.fromkeys(m.photo.path.name for m in pair.mistakes[:MOST_CROPS]))
    shown = [
        page.Picture(
            _square(crops),
            f"Labelled {true}, reported as {reported}: {photos}.",
            f"{true} taken for {reported}",
        )
    ]
    for class_, name in ((pair.true, true), (pair.reported, reported)):
        if crops := examples(dataset, class_):
            shown.append(
                page.Picture(_square(crops), f"Labelled {name}.", f"products labelled {name}")
            )
    title = f"{true} taken for {reported}: {len(pair.mistakes)} of {pair.products}, {pair.sure} of them surely"
    return [page.Note(title), page.Side(shown)]


def _square(crops: Sequence[np.ndarray]) -> np.ndarray:
    return grid(crops, columns=2, cell=CELL)


def _needs(
    rows: Sequence[Need], trained: Mapping[str, int] | None, curves: Mapping[str, Curve] | None
) -> list[page.Block]:
    columns = [
        page.Column("class"),
        page.Column("products"),
        page.Column("missed"),
        page.Column("misnamed"),
    ]
    columns += [
        page.Column("others taken for it"),
        page.Column("reported where nothing stands"),
        page.Column("F1 to win at most", "points", 2),
    ]
    columns += [page.Column("examples in training")] * (trained is not None)
    if curves:
        columns += [
            page.Column("more to halve what is lost"),
            page.Column(f"F1 to win with {MORE_EXAMPLES} more", "points", 2),
        ]
    cells = [
        [n.name, n.products, n.missed, n.misnamed, n.taken_for, n.nothing, 100 * n.bound]
        + [n.trained] * (trained is not None)
        + ([_told(n.halving), _told(n.gain, 100)] if curves else [])
        for n in rows
    ]
    caption = (
        "F1 to win at most: how many points F1 would rise if all errors of the class were mended and nothing else changed. "
        "It is a bound from this evaluation alone and says where more or better examples can pay, not how many it takes"
    )
    caption += (
        ". With more examples: by a power law through the class's learning curve, undefined where that hardly falls; it says which "
        "class to photograph next, first the one that gives most."
        if curves
        else ": that takes learning curves, from trainings on parts of the data, which were not given."
    )
    return [page.Table(columns, cells, caption)]


def _told(value: float | None, times: int = 1) -> float:
    """What a curve can't tell prints as undefined: it is not for lack of a measurement."""
    return float("nan") if value is None else value * times
