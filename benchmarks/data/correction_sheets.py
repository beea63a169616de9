"""Draw pictures for a person who checks the labels of a data set.

A sheet shows one strip of a photo twice: above with the number and class of every label, below
without any drawing, since a correction is based on what the product shows. With ``--run``, boxes
that contradict the labels are drawn too, marked with "m". They only say where to look.
``--classes`` draws products of every class side by side, to learn what each class looks like.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shelfcount.data.formats import read_labels
from shelfcount.labels.corrections import correct_labels, read_corrections
from shelfcount.metrics.evaluate import detect_dataset as detect_all
from shelfcount.records import Dataset, Detections, Photo
from shelfcount.training.runs import load_run
from shelfcount.vision.boxes import iou
from shelfcount.vision.images import read_photo, write_photo

# Width of a sheet in pixels. Most viewers scale wider pictures down.
SHEET_WIDTH = 1600
# Score from which detections are drawn, lower than any score threshold.
HINT_SCORE = 0.2
# A detection that overlaps a label of its class with a higher IoU is not drawn. With a lower IoU,
# the label may be shifted.
AGREES = 0.7
LABELLED, IGNORED, HINT, INK, PAPER = (
    (0, 220, 90),
    (150, 155, 160),
    (255, 120, 0),
    (20, 20, 20),
    (255, 255, 255),
)
# Maximum height of a product on the sheet of classes, in pixels.
CROP_HEIGHT = 150

Colour = tuple[int, int, int]


def sheets(
    photo: Photo, classes: Sequence[str], hints: Detections, strips: int
) -> list[np.ndarray]:
    """Draw one photo as sheets, from the top strip to the bottom one.

    Args:
        photo: Photo with the labels to check.
        classes: Names of the class indices of labels and detections.
        hints: Detections of a model on the photo.
        strips: Number of strips that the photo is cut into.

    Returns:
        One (H, W, 3) uint8 RGB array per strip. Neighbours share a quarter of a strip.
    """
    scale = SHEET_WIDTH / photo.width
    plain = Image.fromarray(read_photo(photo.path))
    plain = plain.resize((SHEET_WIDTH, round(photo.height * scale)), Image.Resampling.LANCZOS)
    marked = plain.copy()
    _draw_labels(marked, photo.truth, classes, scale)
    _draw_hints(marked, hints, photo.truth, classes, scale)
    height = plain.height / (strips - (strips - 1) * 0.25)
    cut = []
    for top in np.linspace(0, plain.height - height, strips):
        window = (0, round(top), SHEET_WIDTH, round(top + height))
        cut.append(
            np.concatenate([np.asarray(picture.crop(window)) for picture in (marked, plain)])
        )
    return cut


def class_sheet(dataset: Dataset, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Draw products of every class, one row per class, from different photos.

    Args:
        dataset: Labelled photos.
        per_class: Maximum number of products per class.
        rng: Random generator that chooses them.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows = []
    for index, name in enumerate(dataset.classes):
        crops: list[Image.Image] = []
        for p in rng.permutation(len(dataset)):
            photo = dataset.photos[p]
            which = np.flatnonzero((photo.truth.classes == index) & ~photo.truth.ignore)
            if len(which) and len(crops) < per_class:
                crops.append(_crop(photo, photo.truth.boxes[rng.choice(which)]))
        rows.append(_class_row(name, crops))
    return np.concatenate(rows)


def _crop(photo: Photo, box: np.ndarray) -> Image.Image:
    crop = Image.fromarray(read_photo(photo.path)).crop(tuple(box.round().astype(int).tolist()))
    share = CROP_HEIGHT / crop.height
    return crop.resize(
        (max(1, min(round(crop.width * share), CROP_HEIGHT)), CROP_HEIGHT), Image.Resampling.LANCZOS
    )


def _class_row(name: str, crops: Sequence[Image.Image]) -> np.ndarray:
    row = Image.new("RGB", (SHEET_WIDTH, CROP_HEIGHT + 4), PAPER)
    ImageDraw.Draw(row).text((6, CROP_HEIGHT / 2), name, INK, _font(18), anchor="lm")
    left = 220
    for crop in crops:
        row.paste(crop, (left, 2))
        left += crop.width + 6
    return np.asarray(row)


def _draw_labels(
    picture: Image.Image, truth: Detections, classes: Sequence[str], scale: float
) -> None:
    # An area that is ignored for all classes has one box per class, which is drawn only once.
    drawn: set[tuple[float, ...]] = set()
    for number, (box, class_, ignore) in enumerate(
        zip(truth.boxes, truth.classes, truth.ignore, strict=True)
    ):
        corners = tuple(box.tolist())
        if not ignore:
            _draw(picture, box * scale, f"{number} {classes[class_]}", LABELLED)
        elif corners not in drawn:
            _draw(picture, box * scale, "ignore", IGNORED)
            drawn.add(corners)


def _draw_hints(
    picture: Image.Image, hints: Detections, truth: Detections, classes: Sequence[str], scale: float
) -> None:
    for number, (box, class_, score) in enumerate(
        zip(hints.boxes, hints.classes, hints.scores, strict=True)
    ):
        same = truth.boxes[truth.classes == class_]
        if (iou(box[None], same) < AGREES).all():
            _draw(
                picture, box * scale, f"m{number} {classes[class_]} {score:.2f}", HINT, below=True
            )


def _draw(
    picture: Image.Image, box: np.ndarray, text: str, colour: Colour, *, below: bool = False
) -> None:
    """Draw a box with its text in the top or bottom left corner."""
    draw, font = ImageDraw.Draw(picture, "RGBA"), _font(13)
    draw.rectangle(box.tolist(), outline=colour, width=2)
    corner = (box[0] + 2, box[3] - 17 if below else box[1] + 2)
    draw.rectangle(draw.textbbox(corner, text, font), fill=(0, 0, 0, 170))
    draw.text(corner, text, colour, font)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Labelled photos to check.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for the pictures.")
    parser.add_argument(
        "--corrections", type=Path, help="Draw the labels as corrected by this file."
    )
    parser.add_argument("--run", type=Path, help="Trained run whose detections are drawn.")
    parser.add_argument("--strips", type=int, default=2, help="Sheets per photo. Default: 2.")
    parser.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="Draw N products of each class instead of the photos.",
    )
    arguments = parser.parse_args()
    dataset = read_labels(arguments.data)
    if arguments.corrections:
        dataset = correct_labels(dataset, read_corrections(arguments.corrections))
    if arguments.classes:
        write_photo(
            arguments.out / "classes.png",
            class_sheet(dataset, arguments.classes, np.random.default_rng(0)),
        )
        return
    empty = [Detections.empty()] * len(dataset)
    hints = detect_all(load_run(arguments.run, HINT_SCORE), dataset) if arguments.run else empty
    for photo, found in zip(dataset.photos, hints, strict=True):
        for strip, sheet in enumerate(
            sheets(photo, dataset.classes, found, arguments.strips), start=1
        ):
            write_photo(arguments.out / f"{photo.path.stem}-{strip}.png", sheet)


if __name__ == "__main__":
    main()
