"""Report of inter-annotator agreement: one HTML page with metrics, classes and photos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelfcount.drawing.crops import draw_marks, photo_at
from shelfcount.drawing.marks import FALSE_ALARM, MISSED, NOT_EVALUATED, OKABE_ITO, Colour, Mark
from shelfcount.labels.agreement_scores import LOOSE_IOU, Agreement, AgreementScores, PhotoAgreement
from shelfcount.report import page
from shelfcount.words import plural

# Maximum number of photos with pictures, most disagreements first. The tables list all photos.
MAX_PAGE_PHOTOS = 24
_PICTURE_SIDE = 760
OTHER_NAME = OKABE_ITO["blue"]
_LEGEND = (
    "Orange: labelled only in this annotation. Blue: labelled in both, with different classes. "
    f"Dashed red: same class, but the IoU of the two boxes is below {LOOSE_IOU}. Grey: both agree. "
    "The numbers are explained below each photo."
)
NOTES = {
    "quality": "presence x naming x tightness, for comparing versions of the labels",
    "presence": "share of the labelled products that are in both annotations",
    "naming": "share of these products with the same class in both",
    "tightness": "mean IoU of the two boxes of these products",
}


def write_agreement_page(agreement: Agreement, path: Path | str) -> None:
    """Write the report of two annotations as one HTML file. It is replaced only when complete.

    Args:
        agreement: Result of `compare_labellings`. Photos with disagreements are read again
            for the pictures.
        path: Path of the HTML file.

    Raises:
        ShelfcountError: If a photo cannot be read or the file cannot be written.
    """
    first, second = agreement.names
    photos = plural(len(agreement.photos), "photo")
    lead = f"{photos} with two annotations: {first} (first) and {second} (second)."
    if unshared := [
        f"{plural(len(names), 'photo')} only in {name}"
        for name, names in zip(agreement.names, agreement.unshared, strict=True)
        if names
    ]:
        lead += f" Not compared: {', '.join(unshared)}."
    sections = [
        page.Section("", [_cards(agreement), _errors(agreement)]),
        page.Section("Agreement by class", [_classes(agreement)]),
        page.Section("Agreement by photo", [_photos(agreement)]),
        page.Section("Photos with disagreements", _pictures(agreement)),
    ]
    page.write_html(path, "Inter-annotator agreement", sections, lead)


def _cards(agreement: Agreement) -> page.Cards:
    def note(name: str) -> str:
        return NOTES[name] + (
            "; 95 % confidence interval {:.3f} to {:.3f}".format(*agreement.interval[name])
            if name in agreement.interval
            else ""
        )

    cards = [
        page.Card(name.capitalize(), getattr(agreement.figures, name), note(name)) for name in NOTES
    ]
    cards.append(
        page.Card(
            "Cohen's kappa",
            agreement.kappa,
            "classes of the products that both labelled; 0 is chance agreement",
        )
    )
    cards.append(
        page.Card(
            "Krippendorff's alpha",
            agreement.alpha,
            "all products, with “not labelled” as one more class; 0 is chance agreement",
        )
    )
    return page.Cards(cards)


def _errors(agreement: Agreement) -> page.Table:
    errors = agreement.errors()
    columns = [
        page.Column("Error"),
        page.Column("Error rate of the second, if the first is correct"),
        page.Column("Error rate of each, if both err equally often"),
    ]
    words = {
        "missed": "products without a label",
        "added": "labels without a product",
        "misnamed": "products with the wrong class",
        "edge": "standard deviation of a box edge, as a share of the box's side",
    }
    rows = [
        [text, _value(errors["second"][name]), _value(errors["each"][name])]
        for name, text in words.items()
    ]
    caption = (
        "Error rates of the annotators, estimated from their disagreements under two assumptions. "
        "The data cannot show which assumption is true."
    )
    return page.Table(columns, rows, caption)


def _classes(agreement: Agreement) -> page.Table:
    columns = [
        page.Column("Class"),
        page.Column("first"),
        page.Column("second"),
        page.Column("both"),
        page.Column("only first"),
        page.Column("only second"),
        page.Column("first, other class in second"),
        page.Column("second, other class in first"),
        page.Column("agreement"),
        page.Column("kappa"),
        page.Column("tightness"),
    ]
    used = [row for row in agreement.per_class if row.share is not None]
    rows = [
        [
            r.name,
            r.first,
            r.second,
            r.both,
            *r.alone,
            *r.otherwise,
            r.share,
            _value(r.kappa),
            _value(r.tightness),
        ]
        for r in sorted(used, key=lambda r: (r.share or 0, -r.first - r.second))
    ]
    caption = (
        "Lowest agreement first; agreement is 2 both / (first + second). Kappa: this class against "
        "all others, for the products that both labelled."
    )
    return page.Table(columns, rows, caption)


def _value(value: float | None) -> float:
    """Return NaN for None, so that the page shows "undefined" instead of "not measured"."""
    return float("nan") if value is None else value


def _photos(agreement: Agreement) -> page.Table:
    columns = [
        page.Column(name)
        for name in (
            "Photo",
            "disagreements",
            "only first",
            "only second",
            "other class",
            f"IoU below {LOOSE_IOU}",
        )
    ]
    columns += [page.Column(name) for name in NOTES]
    rows = []
    for photo in _worst(agreement):
        figures: AgreementScores = photo.figures
        counts = [
            photo.disagreements,
            *(int(a.sum()) for a in photo.alone),
            int((~photo.same_class).sum()),
            int(photo.loose.sum()),
        ]
        rows.append(
            [photo.photo.path.name, *counts, *(_value(getattr(figures, name)) for name in NOTES)]
        )
    agreed = plural(len(agreement.photos) - len(rows), "other photo")
    return page.Table(
        columns, rows, f"Most disagreements first. On {agreed} the two annotations agree."
    )


def _worst(agreement: Agreement) -> list[PhotoAgreement]:
    return sorted(
        (p for p in agreement.photos if p.disagreements),
        key=lambda p: (-p.disagreements, p.photo.path.name),
    )


def _pictures(agreement: Agreement) -> list[page.Block]:
    worst = _worst(agreement)
    if not worst:
        return [page.Note("The two annotations agree on every product.")]
    blocks: list[page.Block] = [page.Note(_LEGEND)]
    for photo in worst[:MAX_PAGE_PHOTOS]:
        image, name = photo_at(photo.photo.path), photo.photo.path.name
        keys = _keys(photo)
        sides = [
            page.Picture(
                draw_marks(image, _marks(photo, side, keys), side=_PICTURE_SIDE),
                f"{which}: {source}.",
                f"{name} as labelled in {source}",
            )
            for side, (which, source) in enumerate(
                zip(("First", "Second"), agreement.names, strict=True)
            )
        ]
        named = ", ".join(f"{key} {agreement.classes[c]}" for c, key in keys.items())
        blocks.append(
            page.Side(
                sides,
                f"{name}: {plural(photo.disagreements, 'disagreement')}"
                f"{f'. {named}' if named else ''}.",
            )
        )
    if len(worst) > MAX_PAGE_PHOTOS:
        blocks.append(
            page.Note(
                f"{plural(len(worst) - MAX_PAGE_PHOTOS, 'more photo')} with disagreements: "
                "see the table above."
            )
        )
    return blocks


def _keys(photo: PhotoAgreement) -> dict[int, str]:
    """Number the classes that are tagged on a photo.

    The tags are numbers, since a dense shelf has no room for class names.

    Returns:
        Tag of each class index, "1", "2" and so on.
    """
    renamed = photo.pairs[~photo.same_class]
    named = [photo.first.classes[renamed[:, 0]], photo.second.classes[renamed[:, 1]]]
    named += [photo.first.classes[photo.alone[0]], photo.second.classes[photo.alone[1]]]
    return {
        class_: str(number)
        for number, class_ in enumerate(dict.fromkeys(np.concatenate(named).tolist()), start=1)
    }


def _marks(photo: PhotoAgreement, side: int, keys: Mapping[int, str]) -> list[Mark]:
    """Return the boxes of the first (0) or second (1) annotation to draw, disagreements last.

    The last marks are drawn on top.
    """
    labels, paired = (photo.first, photo.second)[side], photo.pairs[:, side]

    def marks(
        mask: NDArray[np.int64], colour: Colour, *, named: bool = True, dashed: bool = False
    ) -> list[Mark]:
        return [
            Mark(
                labels.boxes[i],
                colour,
                keys[int(labels.classes[i])] if named else "",
                dashed=dashed,
            )
            for i in mask
        ]

    return [
        *marks(paired[photo.same_class & ~photo.loose], NOT_EVALUATED, named=False),
        *marks(paired[photo.loose], MISSED, named=False, dashed=True),
        *marks(paired[~photo.same_class], OTHER_NAME),
        *marks(np.flatnonzero(photo.alone[side]), FALSE_ALARM),
    ]
