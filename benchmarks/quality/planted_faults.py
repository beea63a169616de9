"""Faults that check_faults.py plants: those of photos, and the list of all kinds."""

from __future__ import annotations

import copy
from collections.abc import Callable

import cv2
import faulty_labels as labels
import numpy as np
from faulty_labels import LabelledPhoto, Trial

from shelfcount.files import write_whole
from shelfcount.vision import boxes as box_math
from shelfcount.vision import effects
from shelfcount.vision.homography import map_boxes, view_homography, warp
from shelfcount.vision.images import encode_photo, read_photo, write_photo


def _side(photo: LabelledPhoto) -> float:
    boxes = np.array(photo.boxes)
    return float(np.median((boxes[:, 2:] - boxes[:, :2]).min(axis=1)))


def _blurred(trial: Trial) -> None:
    for photo in trial.chosen:
        # Diameter of the disc. A Gaussian blur with a quarter of it as sigma looks alike.
        diameter = trial.rng.uniform(0.2, 0.32) * _side(photo)
        trial.write(photo, effects.blurred(read_photo(photo.path), effects.disc(diameter)))


def _dark(trial: Trial) -> None:
    for photo in trial.chosen:
        # In sRGB levels, 4 to 6 EV leave 0.15 to 0.28 of the brightness.
        trial.write(photo, effects.exposed(read_photo(photo.path), -trial.rng.uniform(4, 6)))


def _glare(trial: Trial) -> None:
    for photo in trial.chosen:
        share = trial.rng.uniform(0.25, 0.4)
        trial.write(photo, effects.glared(read_photo(photo.path), share, trial.rng))


def _tilted(trial: Trial) -> None:
    for photo in trial.chosen:
        angle = trial.rng.uniform(12, 18) * trial.rng.choice([-1, 1])
        size = (photo.width, photo.height)
        turn = view_homography(angle, "z", *size)
        image = warp(read_photo(photo.path), turn, size, cv2.BORDER_REPLICATE)
        # A person draws around the product, which touches the box in the middle of each side.
        boxes = box_math.clip(map_boxes(np.array(photo.boxes), turn, "edges"), *size)
        kept = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] > 4).all(axis=1)).tolist()
        photo.boxes = boxes[kept].tolist()
        photo.classes = [photo.classes[i] for i in kept]
        photo.ignore = [photo.ignore[i] for i in kept]
        trial.write(photo, image)


def _low_resolution(trial: Trial) -> None:
    for photo in trial.chosen:
        scale = trial.rng.uniform(6, 10) / _side(photo)
        small = cv2.resize(
            read_photo(photo.path), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        photo.boxes = (np.array(photo.boxes) * scale).tolist()
        trial.write(photo, small)


def _orientation(trial: Trial) -> None:
    for number, photo in enumerate(trial.chosen):
        quarters, image = 1 + number % 3, read_photo(photo.path)
        size = np.array([photo.width, photo.height] * 2)
        ratios = np.array(photo.boxes) / size
        for _ in range(quarters):
            ratios = np.stack(
                [1 - ratios[:, 3], ratios[:, 0], 1 - ratios[:, 1], ratios[:, 2]], axis=1
            )
        # Photo and labels are rotated in one half, only the labels in the other.
        turned = np.rot90(image, -quarters) if number % 2 else image
        photo.boxes = (ratios * ([turned.shape[1], turned.shape[0]] * 2)).tolist()
        trial.write(photo, np.ascontiguousarray(turned))


def _no_boxes(trial: Trial) -> None:
    for photo in trial.chosen:
        photo.boxes, photo.classes, photo.ignore = [], [], []
        trial.planted.append((photo.path.name, None))


def _unlike(trial: Trial) -> None:
    """Plant two of each kind of picture. With more of one kind, it is no outlier any more."""
    for number, photo in enumerate(trial.chosen[:12]):
        trial.write(photo, _other_picture(number % 6, photo, trial.rng))


def _other_picture(which: int, photo: LabelledPhoto, rng: np.random.Generator) -> np.ndarray:
    """Return a picture without a shelf: noise, landscape, text, wall, floor or close-up."""
    height, width = photo.height, photo.width
    image: np.ndarray = np.full((height, width, 3), 250, np.uint8)
    if which == 0:
        image = rng.integers(0, 256, image.shape, np.uint8)
    elif which == 1:
        image[:], image[height // 2 :] = (120, 170, 240), (60, 140, 50)
    elif which == 2:
        for y in range(20, height - 10, 18):
            cv2.putText(
                image,
                "the quick brown fox jumps over the lazy dog",
                (8, y),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.5,
                (0, 0, 0),
                1,
            )
    elif which == 3:
        image = cv2.GaussianBlur(rng.integers(150, 190, image.shape, np.uint8), (0, 0), 9)
    elif which == 4:
        squares = np.indices((height // 32 + 1, width // 32 + 1)).sum(axis=0) % 2
        image = (
            np.kron(squares, np.ones((32, 32)))[:height, :width, None].repeat(3, 2).astype(np.uint8)
            * 180
            + 40
        )
    else:
        left, top, right, bottom = np.array(photo.boxes[0]).round().astype(int)
        image = cv2.resize(read_photo(photo.path)[top:bottom, left:right], (width, height))
    return image


def _missing_photo(trial: Trial) -> None:
    for photo in trial.chosen:
        photo.path = photo.path.with_name(f"gone-{photo.path.name}")
        trial.planted.append((photo.path.name, None))


def _broken_photo(trial: Trial) -> None:
    for number, photo in enumerate(trial.chosen):
        data = encode_photo(read_photo(photo.path))
        photo.path = trial.folder / f"broken-{photo.path.stem}.jpg"
        if number % 2:
            photo.width += 20
        write_whole(
            photo.path,
            data if number % 2 else data[: int(len(data) * trial.rng.uniform(0.3, 0.95))],
        )
        trial.planted.append((photo.path.name, None))


def _copies(trial: Trial) -> list[LabelledPhoto]:
    """Return copies of the chosen photos with slightly different pixels."""
    copies = copy.deepcopy(trial.chosen)
    for photo in copies:
        image = read_photo(photo.path)
        scale = trial.rng.uniform(0.6, 0.95)
        lighter = np.clip(image * trial.rng.uniform(0.8, 1.2) + 5, 0, 255).astype(np.uint8)
        photo.boxes = (np.array(photo.boxes) * scale).tolist()
        photo.path = trial.folder / f"copy-{photo.path.stem}.jpg"
        small = cv2.resize(lighter, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        write_photo(photo.path, small, 70)
        photo.height, photo.width = small.shape[:2]
    return copies


def _duplicate(trial: Trial) -> None:
    for photo in copy.deepcopy(trial.chosen):
        trial.planted.append((photo.path.name, None))
        copied = photo.path.with_name(f"same-{photo.path.name}")
        write_whole(copied, photo.path.read_bytes())
        photo.path = copied
        trial.photos.append(photo)


def _near_duplicate(trial: Trial) -> None:
    trial.planted += [(photo.path.name, None) for photo in trial.chosen]
    trial.photos += _copies(trial)


def _leak(trial: Trial) -> None:
    trial.planted += [(photo.path.name, None) for photo in trial.chosen]
    trial.against += _copies(trial)


FAULTS: dict[str, Callable[[Trial], None]] = {
    "missing-photo": _missing_photo,
    "broken-photo": _broken_photo,
    "orientation": _orientation,
    "leak": _leak,
    "duplicate": _duplicate,
    "near-duplicate": _near_duplicate,
    "misspelt-class": labels.misspelt,
    "junk-class": labels.junk,
    "few-examples": labels.few_examples,
    "imbalance": labels.imbalance,
    "anchor-recall": labels.anchors,
    "unlike-the-rest": _unlike,
    "no-boxes": _no_boxes,
    "blurred": _blurred,
    "dark": _dark,
    "glare": _glare,
    "tilted": _tilted,
    "low-resolution": _low_resolution,
    "box-outside": labels.reported_by_number(labels.outside),
    "box-without-size": labels.reported_by_number(labels.without_size),
    "box-cut": labels.reported_by_number(labels.over_border),
    "doubled-box": labels.doubled,
    "oversized-box": labels.oversized,
    "missing-box": labels.missing_box,
}
