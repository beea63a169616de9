"""Annotated photos of planogram deviations, with a list of them beside the photo."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shelfcount.drawing import marks
from shelfcount.drawing.marks import DRAWING_SIDE, FALSE_ALARM, FOUND, MISSED, OKABE_ITO, Colour
from shelfcount.shelf.compliance import ComplianceResult, Deviation
from shelfcount.shelf.facings import Arrangement

# Colours by kind of deviation: those of `marks` for missing and extra products, Okabe and Ito's
# blue and reddish purple, and a dark yellow.
COLOURS: dict[str, Colour] = {
    "missing": MISSED,
    "extra": FALSE_ALARM,
    "misplaced": OKABE_ITO["blue"],
    "wrong_facings": OKABE_ITO["purple"],
    "wrong_product": (150, 120, 0),
}


def draw_verdict(
    image: NDArray[np.uint8], arrangement: Arrangement, verdict: ComplianceResult
) -> NDArray[np.uint8]:
    """Draw the result of a planogram comparison on a photo, with a list of the deviations.

    Products as planned have thin green boxes. The boxes of a deviation are tagged with its number
    in the list. Dashed boxes show where a product is missing, solid boxes show products that are
    not planned at their position.

    Args:
        image: (h, w, 3) uint8 RGB.
        arrangement: Arrangement of the products on `image`.
        verdict: Result of `compliance.check_compliance` for the arrangement.

    Returns:
        (H, W, 3) uint8 RGB: the photo in the top left corner, enlarged to a longest side of at
        least `marks.DRAWING_SIDE` pixels, and the list to its right, or below a wide photo.
    """
    scale = max(1.0, DRAWING_SIDE / max(image.shape[:2]))
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    photo = Image.fromarray(
        cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else image
    )
    unit = marks.drawing_unit(size)
    font = marks.make_font(unit * marks.text_size(arrangement.boxes * scale / unit))

    wrong = {box for deviation in verdict.deviations for box in deviation.boxes}
    drawn = [
        marks.Mark(box * scale, FOUND)
        for box in arrangement.boxes
        if tuple(box.tolist()) not in wrong
    ]
    entries = [marks.Entry(FOUND, "", "as planned", len(verdict.right))]
    for number, deviation in enumerate(verdict.deviations, start=1):
        colour = COLOURS[deviation.kind]
        for boxes, dashed in ((deviation.places, True), (deviation.boxes, False)):
            drawn += [
                marks.Mark(np.array(box) * scale, colour, str(number), dashed) for box in boxes
            ]
        entries.append(marks.Entry(colour, str(number), _in_short(deviation), deviation.facings))

    draw = ImageDraw.Draw(photo, "RGBA")
    for mark in drawn:
        marks.draw_box(draw, mark, line=max(2, round(font.size / (6 if mark.tag else 9))))
    for mark in drawn:
        marks.draw_tag(draw, (mark.box[0], mark.box[1]), mark.tag, font, mark.colour, size)
    title = f"{verdict.plan or 'Plan'}: {100 * verdict.score:.0f} % as planned\nFacings"
    return marks.with_legend(photo, title, entries, marks.make_font(17 * unit))


def _in_short(deviation: Deviation) -> str:
    if deviation.kind == "wrong_facings":
        return f"{deviation.seen} of {deviation.planned}: {deviation.name}"
    if deviation.kind == "wrong_product":
        return f"{deviation.instead} for {deviation.name}"
    return f"{deviation.kind}: {deviation.name}"
