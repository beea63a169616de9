"""Where two labellings of the same photos differ, as one HTML page: the figures, the classes, and the photos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shelfcount.data.agreement import LOOSE_IOU, Agreement, Figures, PhotoAgreement
from shelfcount.report import page
from shelfcount.report.crops import drawn, photo_at
from shelfcount.report.pictures import FALSE_ALARM, MISSED, NOT_JUDGED, Colour, Mark

# Those on which the two differ most; the tables have all.
MOST_PHOTOS = 24
PICTURE_SIDE = 760
OTHER_NAME = (0, 114, 178)  # Okabe and Ito's blue
LEGEND = (
    "Orange: labelled here only. Blue: both labelled it, under different names. Dashed red: boxes that overlap by an IoU "
    f"below {LOOSE_IOU}. Grey: both agree. The numbers stand for the names below each photo."
)
NOTES = {
    "quality": "presence x naming x tightness; the figure to follow from one version of the labels to the next",
    "presence": "share of the labelled products that both labelled",
    "naming": "share of these under one name",
    "tightness": "mean IoU of their boxes",
}


def write_page(agreement: Agreement, path: Path | str) -> None:
    """Write the page whole or not at all.

    Args:
        agreement: From `data.agreement.compare`; photos on which the two differ are read again.
        path: Of the HTML file.
    """
    first, second = agreement.names
    lead = f"{len(agreement.photos)} photos labelled twice: {first} (first) and {second} (second)."
    if left := [
        f"{len(names)} only in {name}"
        for name, names in zip(agreement.names, agreement.unshared, strict=True)
        if names
    ]:
        lead += f" Not compared: {', '.join(left)}."
    sections = [
        page.Section("", [_cards(agreement), _errors(agreement)]),
        page.Section("By class", [_classes(agreement)]),
        page.Section("By photo", [_photos(agreement)]),
        page.Section("Where they differ", _pictures(agreement)),
    ]
    page.write(path, "Agreement of two labellings", sections, lead)


def _cards(agreement: Agreement) -> page.Cards:
    def note(name: str) -> str:
        return NOTES[name] + (
            "; 95 %: {:.3f} to {:.3f}".format(*agreement.interval[name])
            if name in agreement.interval
            else ""
        )

    cards = [
        page.Card(name.capitalize(), getattr(agreement.figures, name), note(name)) for name in NOTES
    ]
    cards.append(
        page.Card("Cohen's kappa", agreement.kappa, "of the names where both labelled; 0 is chance")
    )
    cards.append(
        page.Card(
            "Krippendorff's alpha",
            agreement.alpha,
            "of all products, nothing being a name; 0 is chance",
        )
    )
    return page.Cards(cards)


def _errors(agreement: Agreement) -> page.Table:
    errors = agreement.errors()
    columns = [
        page.Column("Error"),
        page.Column("If the first is right: of the second"),
        page.Column("If both err alike: of each"),
    ]
    words = {
        "missed": "products missed",
        "added": "labels too many",
        "misnamed": "products misnamed",
        "edge": "spread of an edge, shares of the box's side",
    }
    rows = [
        [text, _value(errors["second"][name]), _value(errors["each"][name])]
        for name, text in words.items()
    ]
    caption = "What the disagreement says of the labellers, as shares; it can't say which of the two columns holds."
    return page.Table(columns, rows, caption)


def _classes(agreement: Agreement) -> page.Table:
    columns = [
        page.Column("Class"),
        page.Column("first"),
        page.Column("second"),
        page.Column("both"),
        page.Column("first alone"),
        page.Column("second alone"),
        page.Column("first, other name"),
        page.Column("second, other name"),
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
    caption = "Least agreement first: 2 both / (first + second). Kappa: this name against all others, where both labelled a product."
    return page.Table(columns, rows, caption)


def _value(value: float | None) -> float:
    """What can't be told prints as undefined: it is not for lack of a measurement."""
    return float("nan") if value is None else value


def _photos(agreement: Agreement) -> page.Table:
    columns = [
        page.Column(name)
        for name in ("Photo", "disagreements", "first alone", "second alone", "other name", "loose")
    ]
    columns += [page.Column(name) for name in NOTES]
    rows = []
    for photo in _worst(agreement):
        figures: Figures = photo.figures
        counts = [
            photo.disagreements,
            *(int(a.sum()) for a in photo.alone),
            int((~photo.same_class).sum()),
            int(photo.loose.sum()),
        ]
        rows.append(
            [photo.photo.path.name, *counts, *(_value(getattr(figures, name)) for name in NOTES)]
        )
    agreed = len(agreement.photos) - len(rows)
    return page.Table(
        columns, rows, f"Most disagreements first. On {agreed} more photos the two agree."
    )


def _worst(agreement: Agreement) -> list[PhotoAgreement]:
    return sorted(
        (p for p in agreement.photos if p.disagreements),
        key=lambda p: (-p.disagreements, p.photo.path.name),
    )


def _pictures(agreement: Agreement) -> list[page.Block]:
    worst = _worst(agreement)
    if not worst:
        return [page.Note("Nowhere.")]
    blocks: list[page.Block] = [page.Note(LEGEND)]
    for photo in worst[:MOST_PHOTOS]:
        image, name = photo_at(photo.photo.path), photo.photo.path.name
        keys = _keys(photo)
        sides = [
            page.Picture(
                drawn(image, _marks(photo, side, keys), side=PICTURE_SIDE),
                f"{which}: {of}.",
                f"{name} as labelled in {of}",
            )
            for side, (which, of) in enumerate(
                zip(("First", "Second"), agreement.names, strict=True)
            )
        ]
        named = ", ".join(f"{key} {agreement.classes[c]}" for c, key in keys.items())
        blocks.append(
            page.Side(
                sides,
                f"{name}: {photo.disagreements} disagreements{f'. {named}' if named else ''}.",
            )
        )
    if len(worst) > MOST_PHOTOS:
        blocks.append(
            page.Note(f"And {len(worst) - MOST_PHOTOS} more photos, which the table lists.")
        )
    return blocks


def _keys(photo: PhotoAgreement) -> dict[int, str]:
    """A number for each class that is named on a photo: on a dense shelf there is no room for names."""
    renamed = photo.pairs[~photo.same_class]
    named = [photo.first.classes[renamed[:, 0]], photo.second.classes[renamed[:, 1]]]
    named += [photo.first.classes[photo.alone[0]], photo.second.classes[photo.alone[1]]]
    return {
        class_: str(number)
        for number, class_ in enumerate(dict.fromkeys(np.concatenate(named).tolist()), start=1)
    }


def _marks(photo: PhotoAgreement, side: int, keys: Mapping[int, str]) -> list[Mark]:
    """Boxes of the first (0) or second (1) labelling, those on which the two differ last."""
    labels, own = (photo.first, photo.second)[side], photo.pairs[:, side]

    def marks(
        which: np.ndarray, colour: Colour, *, named: bool = True, dashed: bool = False
    ) -> list[Mark]:
        return [
            Mark(
                labels.boxes[i],
                colour,
                keys[int(labels.classes[i])] if named else "",
                dashed=dashed,
            )
            for i in which
        ]

    return [
        *marks(own[photo.same_class & ~photo.loose], NOT_JUDGED, named=False),
        *marks(own[photo.loose], MISSED, named=False, dashed=True),
        *marks(own[~photo.same_class], OTHER_NAME),
        *marks(np.flatnonzero(photo.alone[side]), FALSE_ALARM),
    ]
