"""Review page for proposed corrections: a crop and a decision for each, and a button to save.

The page works offline and sends no data. It saves the proposed corrections file with the decisions
'accepted' or 'refused' filled in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.drawing.crops import crop, example_crops, photo_at, side_by_side
from shelfcount.drawing.marks import FALSE_ALARM, FOUND, MISSED, Mark
from shelfcount.files import write_whole
from shelfcount.labels.corrections import Corrections
from shelfcount.labels.proposals import Proposal
from shelfcount.records import Dataset
from shelfcount.report.page import embedded, template
from shelfcount.vision.boxes import xywh_to_xyxy
from shelfcount.words import plural

_TITLES = {
    "add": "Not labelled",
    "rename": "Wrong class",
    "move": "Loose box",
    "remove": "No product",
    "ignore": "Not recognisable",
}


@dataclass(frozen=True)
class _Item:
    """A proposal as the page shows it.

    Attributes:
        proposal: The proposed correction and its photo.
        title: Heading of the proposal.
        picture: Crop of the photo as a data URL.
        examples: (class name, data URL of example products) of the classes in question.
    """

    proposal: Proposal
    title: str
    picture: str
    examples: Sequence[tuple[str, str]]


def write_proposals_page(
    dataset: Dataset, proposals: Sequence[Proposal], draft: Corrections, path: Path | str
) -> None:
    """Write the review page as one HTML file. It is replaced only when complete.

    Args:
        dataset: Current labels. The examples of each class are taken from it.
        proposals: Proposed corrections, in the order of ``draft.corrections``.
        draft: Corrections file that the page saves, with the decisions filled in.
        path: Path of the HTML file.

    Raises:
        ShelfcountError: If a photo cannot be read or the file cannot be written.
    """

    @cache
    def example_picture(name: str) -> str:
        crops = example_crops(dataset, dataset.classes.index(name))
        return embedded(side_by_side(crops)) if crops else ""

    def item(proposal: Proposal) -> _Item:
        names = dict.fromkeys(
            name for name in (proposal.correction.to_class, proposal.correction.class_) if name
        )
        pictures = [(name, example_picture(name)) for name in names]
        return _Item(
            proposal,
            _TITLES[proposal.correction.action],
            embedded(draw_proposal(proposal, dataset.classes)),
            [(n, p) for n, p in pictures if p],
        )

    page = template("proposals_page.html", plural=plural).render(
        name=draft.data,
        draft=_script_json(draft),
        items=[item(p) for p in proposals],
        file=f"{Path(draft.data).stem}_corrections.json",
    )
    write_whole(path, page)


def draw_proposal(proposal: Proposal, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draw the crop of a proposal.

    Labels are green, the label in question is red (dashed, unless only its class is in question),
    and the proposed box is orange.

    Args:
        proposal: Proposed correction and its photo, which is read again.
        classes: Class names.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ShelfcountError: If the photo cannot be read.
    """
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
    """Return the draft as JSON for a script element, which no text in it can end."""
    content: dict[str, Any] = {
        "data": draft.data,
        "fingerprint": draft.fingerprint,
        "reviewed": list(draft.reviewed),
    }
    content["corrections"] = [c.to_json() for c in draft.corrections]
    return json.dumps(content).replace("<", "\\u003c")
