"""Proposed corrections as one page to decide on: each with its crop, and a button that saves the decisions.

The page opens offline and sends nothing anywhere; what it saves is the corrections file that was proposed, with
`accepted` or `refused` in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.data.corrections import Corrections
from shelfcount.evaluation.label_errors import Proposal
from shelfcount.records import Dataset
from shelfcount.report.crops import beside, crop, examples, photo_at
from shelfcount.report.page import embedded, template
from shelfcount.report.pictures import FALSE_ALARM, FOUND, MISSED, Mark
from shelfcount.vision.boxes import xywh_to_xyxy
from shelfcount.vision.images import write_whole

TITLES = {
    "add": "Not labelled",
    "rename": "Other name",
    "move": "Loose box",
    "remove": "No product",
    "ignore": "Can't be told",
}


@dataclass(frozen=True)
class _Item:
    """A proposal as the page shows it: pictures as data URLs, and the classes whose examples stand below."""

    proposal: Proposal
    title: str
    picture: str
    examples: Sequence[tuple[str, str]]


def write_page(
    dataset: Dataset, proposals: Sequence[Proposal], draft: Corrections, path: Path | str
) -> None:
    """Write the page whole or not at all.

    Args:
        dataset: The labels as they are; examples of each class come from it.
        proposals: In the order of ``draft.corrections``.
        draft: What the page's button saves, with the decisions made on it.
        path: Of the HTML file.
    """

    @cache
    def shown(name: str) -> str:
        crops = examples(dataset, dataset.classes.index(name))
        return embedded(beside(crops)) if crops else ""

    def item(proposal: Proposal) -> _Item:
        names = dict.fromkeys(
            name for name in (proposal.correction.to_class, proposal.correction.class_) if name
        )
        pictures = [(name, shown(name)) for name in names]
        return _Item(
            proposal,
            TITLES[proposal.correction.action],
            embedded(draw(proposal, dataset.classes)),
            [(n, p) for n, p in pictures if p],
        )

    page = template("proposals_page.html").render(
        name=draft.data,
        draft=_script_json(draft),
        items=[item(p) for p in proposals],
        file=f"{Path(draft.data).stem}_corrections.json",
    )
    write_whole(path, page)


def draw(proposal: Proposal, classes: Sequence[str]) -> np.ndarray:
    """The crop of a proposal, (H, W, 3) uint8 RGB: labels thin green, the one in doubt dashed red, what is proposed orange."""
    correction, truth = proposal.correction, proposal.photo.truth
    box = xywh_to_xyxy(np.array([correction.box]))[0]
    marks = [Mark(b, FOUND) for b in truth.boxes[~truth.ignore]]
    if correction.action == "rename":
        marks.append(Mark(box, MISSED, f"{correction.class_}, or {correction.to_class}?"))
    elif correction.action == "add":
        marks.append(Mark(box, FALSE_ALARM, f"{correction.class_}?"))
    else:
        marks.append(Mark(box, MISSED, correction.class_ or "", dashed=True))
        if correction.to_box is not None:
            marks.append(Mark(xywh_to_xyxy(np.array([correction.to_box]))[0], FALSE_ALARM))
    return crop(photo_at(proposal.photo.path), box, marks)


def _script_json(draft: Corrections) -> str:
    """The draft for a script element: no text in it can end the element."""
    whole: dict[str, Any] = {
        "data": draft.data,
        "fingerprint": draft.fingerprint,
        "reviewed": list(draft.reviewed),
    }
    whole["corrections"] = [c.to_json() for c in draft.corrections]
    return json.dumps(whole).replace("<", "\\u003c")
