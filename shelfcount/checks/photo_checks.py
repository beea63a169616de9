"""Image quality checks: blur, darkness, glare, low resolution, tilt, and outlier photos.

`vision.photo_quality` measures a photo, and `shelf.photo_gate.LABELLING_LIMITS` are the limits.
Sharpness is measured at the scale at which a detector sees its products, so that a slight blur of a
12-megapixel photo is not reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.checks import appearance, box_checks
from shelfcount.checks.appearance import Missing, ProductLook
from shelfcount.checks.findings import Finding
from shelfcount.files import sha256_of
from shelfcount.records import Photo, ShelfcountError
from shelfcount.shelf.photo_gate import LABELLING_LIMITS
from shelfcount.vision.images import decode_photo, photo_bytes
from shelfcount.vision.photo_quality import light, sharpness, small_copy, view, white_share

# Shorter side in pixels that the median product has at the scale at which sharpness is measured. It
# is the 95th percentile of the drinks photos, so that nearly all of them are measured at their own
# size. Photos without boxes are measured at a longer side of 640 pixels.
MEASURED_SIDE = 48.0
MEASURED_PHOTO = 640.0
# Maximum distance to the fifth nearest photo, relative to the median of these distances. Original
# photos: up to 1.7, except for one photo that is white with glare, at 2.5. Noise, text, walls,
# landscapes and close-ups: at least 2.7.
_NEAREST = 5
MAX_UNLIKE = 2.0
MIN_TO_COMPARE = 12


@dataclass(frozen=True, eq=False)
class PhotoMeasures:
    """Image measurements of one photo.

    Attributes:
        photo: Photo with its labels.
        digest: SHA-256 of the file, in hexadecimal digits.
        blur: Blur at the scale of `MEASURED_SIDE`, see `vision.photo_quality.sharpness`; None for a
            photo without any detail.
        dark: 90th percentile of the grey levels, 0 to 255.
        white: Share of the products' area, or of the photo if it has no boxes, that is overexposed
            in every channel.
        tilt: Degrees by which the shelves slope down to the right; None if too few lines agree.
        picture: (14,) float64, features of colour and edges, for comparison with other photos.
        sample: Colour grids of its products.
        missing: Likely unlabelled products. Their `beside` is an index into the boxes that are not
            marked `ignore`.
    """

    photo: Photo
    digest: str
    blur: float | None
    dark: float
    white: float
    tilt: float | None
    picture: NDArray[np.float64]
    sample: ProductLook
    missing: list[Missing]


def measure_photo(photo: Photo) -> PhotoMeasures:
    """Read a photo and return its measurements.

    Args:
        photo: Photo with its labels.

    Returns:
        Measurements of the photo.

    Raises:
        ShelfcountError: If the photo cannot be read or its size is not that of the labels.
    """
    data = photo_bytes(photo.path)
    image = decode_photo(data, photo.path)
    if image.shape[:2] != (photo.height, photo.width):
        size = f"{image.shape[1]} x {image.shape[0]}"
        raise ShelfcountError(
            f"photo '{photo.path}' has {size} pixels, but its labels were read for "
            f"{photo.width} x {photo.height}. Read the labels again."
        )
    boxes = photo.truth.boxes[~photo.truth.ignore]
    ignored = photo.truth.boxes[photo.truth.ignore]
    lab = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), np.uint8)
    copy = small_copy(image)
    products = _covered(boxes * (copy.shape[1] / photo.width), copy.shape)
    return PhotoMeasures(
        photo,
        sha256_of(data),
        sharpness(image, _shrink(image, boxes))[0],
        light(copy)[0],
        white_share(copy, products),
        view(copy)[0],
        _picture(image),
        appearance.product_look(lab, photo),
        appearance.likely_missing(
            lab, boxes, box_checks.find_label_gaps(boxes, ignored, photo.width, photo.height)
        ),
    )


def median_side(boxes: NDArray[np.floating]) -> float:
    """Return the median over boxes of their shorter side, in the unit of the boxes.

    Args:
        boxes: (n, 4) xyxy.

    Returns:
        Median shorter side; `MEASURED_SIDE` if there are no boxes.
    """
    return (
        float(np.median((boxes[:, 2:] - boxes[:, :2]).min(axis=1))) if len(boxes) else MEASURED_SIDE
    )


def _shrink(image: NDArray[np.uint8], boxes: NDArray[np.floating]) -> tuple[float, float]:
    """Return pixels of the photo per pixel of the scale at which sharpness is measured, x and y."""
    shrink = (
        median_side(boxes) / MEASURED_SIDE if len(boxes) else max(image.shape[:2]) / MEASURED_PHOTO
    )
    return shrink, shrink


def _covered(boxes: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return an (h, w) bool mask of the products, or of the whole photo if there are none."""
    mask = np.zeros(shape[:2], bool)
    for left, top, right, bottom in boxes.astype(int):
        mask[top : bottom + 1, left : right + 1] = True
    return mask if mask.any() else ~mask


def _picture(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the (14,) float64 features of a photo for comparison with others.

    They are the mean and the standard deviation of the three Lab channels, the mean edge strength
    on a log scale, the colourfulness, and the shares of six edge directions.
    """
    lab = cv2.cvtColor(
        cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB
    ).astype(np.float32)
    across, down = (cv2.Sobel(lab[..., 0], cv2.CV_32F, *step) for step in ((1, 0), (0, 1)))
    strength = np.hypot(across, down)
    direction = (np.mod(np.arctan2(down, across), np.pi) / np.pi * 6).astype(int).clip(0, 5)
    edges = np.bincount(direction.ravel(), strength.ravel(), 6) / max(float(strength.sum()), 1e-6)
    colourful = np.hypot(lab[..., 1] - 128, lab[..., 2] - 128).mean()
    flat = lab.reshape(-1, 3)
    return np.array(
        [*flat.mean(axis=0), *flat.std(axis=0), np.log1p(strength.mean()), colourful, *edges]
    )


def quality_findings(measures: PhotoMeasures) -> list[Finding]:
    """Return findings on one photo: blur, darkness, glare, resolution, tilt and missing labels."""
    photo = measures.photo
    boxes = photo.truth.boxes[~photo.truth.ignore]
    side, limits = median_side(boxes), LABELLING_LIMITS
    blur, slope = measures.blur or 0.0, measures.tilt or 0.0
    retake = (
        "Take the photo again if possible. Leave it out if a person cannot recognize its products."
    )
    # Measured value relative to its limit, message and advice.
    measured = {
        "blurred": (
            blur / limits.blur,
            f"blur is {blur:.2f}; the limit is {limits.blur}",
            retake,
        ),
        "dark": (
            limits.dark / max(measures.dark, 1),
            f"the 90th percentile of grey levels is {measures.dark:.0f} of 255; the minimum is "
            f"{limits.dark:.0f}",
            retake,
        ),
        "glare": (
            measures.white / limits.white,
            f"{measures.white:.1%} of the products are overexposed; the limit is "
            f"{limits.white:.1%}",
            retake,
        ),
        "low-resolution": (
            limits.product_side / max(side, 0.1),
            f"the median product has a shorter side of {side:.1f} pixels; the minimum is "
            f"{limits.product_side:.0f}",
            "Use the photo in its original size, or take it from a shorter distance.",
        ),
        "tilted": (
            abs(slope) / limits.tilt,
            f"the shelves slope by {slope:.1f} degrees; the limit is {limits.tilt:.0f}",
            "Rotate the photo level together with its boxes, or take it again.",
        ),
        "no-boxes": (
            2.0 if len(photo.truth) == 0 else 0.0,
            "the photo has no box",
            "Label the photo, or keep it only if it shows no product of any class.",
        ),
    }
    return [
        Finding("warning", kind, f"{photo.path.name}: {message}", fix, photo.path, degree=degree)
        for kind, (degree, message, fix) in measured.items()
        if degree > 1
    ]


def find_outliers(measures: Sequence[PhotoMeasures]) -> list[Finding]:
    """Return findings on photos that differ from all others in colour and structure.

    Args:
        measures: Measurements of all photos.

    Returns:
        Findings, or none if there are fewer than `MIN_TO_COMPARE` photos.
    """
    if len(measures) < MIN_TO_COMPARE:
        return []
    pictures = np.array([look.picture for look in measures])
    middle = np.median(pictures, axis=0)
    spread = np.median(np.abs(pictures - middle), axis=0)
    scores = np.clip((pictures - middle) / np.maximum(1.4826 * spread, 1e-6), -8, 8)
    distances = np.array(
        [
            np.partition(np.sqrt(((scores - score) ** 2).mean(axis=1)), _NEAREST)[_NEAREST]
            for score in scores
        ]
    )
    degrees = distances / max(float(np.median(distances)), 1e-6)
    findings = []
    for i in np.flatnonzero(degrees > MAX_UNLIKE).tolist():
        path = measures[i].photo.path
        message = (
            f"{path.name}: the distance to similar photos is {degrees[i]:.1f} times the median; "
            f"the limit is {MAX_UNLIKE:.0f} times"
        )
        fix = "Leave the photo out if it does not show a shelf. Otherwise, add similar photos."
        findings.append(
            Finding(
                "warning",
                "unlike-the-rest",
                message,
                fix,
                path,
                degree=float(degrees[i]) / MAX_UNLIKE,
            )
        )
    return findings
