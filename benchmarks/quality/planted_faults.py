"""Faults that check_faults.py plants: those of photos, and the list of all kinds."""

from __future__ import annotations

import copy
from collections.abc import Callable

import cv2
import faulty_labels as labels
import numpy as np
from faulty_labels import LabelledPhoto, Trial

from shelfcount.files import write_whole
from shelfcount.vision.images import encode_photo, read_photo, write_photo


def _side(photo: LabelledPhoto) -> float:
    boxes = np.array(photo.boxes)
    return float(np.median((boxes[:, 2:] - boxes[:, :2]).min(axis=1)))


def _blurred(trial: Trial) -> None:
    for photo in trial.chosen:
        sigma = trial.rng.uniform(0.05, 0.08) * _side(photo)
        trial.write(photo, cv2.GaussianBlur(read_photo(photo.path), (0, 0), sigma))


def _dark(trial: Trial) -> None:
    for photo in trial.chosen:
        trial.write(photo, (read_photo(photo.path) * trial.rng.uniform(0.15, 0.3)).astype(np.uint8))


def _glare(trial: Trial) -> None:
    for photo in trial.chosen:
        image = read_photo(photo.path)
        y, x = np.mgrid[0 : 1 : photo.height * 1j, 0 : 1 : photo.width * 1j]
        (cx, cy), (sx, sy) = trial.rng.uniform(0.35, 0.65, 2), trial.rng.uniform(0.25, 0.4, 2)
        light = trial.rng.uniform(200, 255) * np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)
        trial.write(photo, np.clip(image + light[..., None], 0, 255).astype(np.uint8))


def _tilted(trial: Trial) -> None:
    for photo in trial.chosen:
        angle = trial.rng.uniform(12, 18) * trial.rng.choice([-1, 1])
        turn = cv2.getRotationMatrix2D((photo.width / 2, photo.height / 2), angle, 1.0)
        image = cv2.warpAffine(
            read_photo(photo.path),
            turn,
            (photo.width, photo.height),
            borderMode=cv2.BORDER_REPLICATE,
        )
        for box in photo.boxes:
            # A person draws around the product, which touches the box in the middle of each side.
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            sides = (
                np.array([[box[0], y, 1], [box[2], y, 1], [x, box[1], 1], [x, box[3], 1]]) @ turn.T
            )
            box[:] = np.clip(
                [*sides.min(axis=0), *sides.max(axis=0)], 0, [photo.width, photo.height] * 2
            ).tolist()
        kept = [i for i, b in enumerate(photo.boxes) if b[2] - b[0] > 4 and b[3] - b[1] > 4]
        photo.boxes, photo.classes = (
            [photo.boxes[i] for i in kept],
            [photo.classes[i] for i in kept],
        )
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
