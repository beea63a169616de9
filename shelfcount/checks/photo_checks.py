"""Image quality checks: blur, darkness, glare, low resolution, tilt, and outlier photos.

A photo is measured at the scale at which a detector sees its products, so that a slight blur of a
12-megapixel photo is not reported. The limits were chosen on the training photos of the drinks data
(180 photos) and on the same photos with artificial blur, darkness and glare. The comment on each
constant gives the measured values.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.checks import appearance, box_checks
from shelfcount.checks.appearance import Missing, ProductLook
from shelfcount.checks.findings import Finding
from shelfcount.files import sha256_of
from shelfcount.records import Photo, ShelfcountError
from shelfcount.vision.images import decode_photo, photo_bytes

# Shorter side in pixels to which the median product is reduced before measuring. It is the 95th
# percentile of the drinks photos, so that nearly all of them are measured at their own size. Photos
# without boxes are reduced to a longer side of 640 pixels.
JUDGED_SIDE = 48.0
JUDGED_PHOTO = 640.0
# Blur measure of Crete et al. 2007, "The blur effect", from the change of the differences between
# neighbouring pixels under a box blur of 11 pixels. Original photos: 0.22 to 0.43, median 0.29.
# Photos blurred with a sigma of 1.5 pixels, which makes small print illegible: 0.44 to 0.60.
BLUR_WINDOW = 11
MOST_BLUR = 0.44
# Minimum 90th percentile of the grey levels on products. Original photos: 107 to 251. Photos at a
# quarter of the brightness: 30 to 62.
LEAST_BRIGHT = 90
# Maximum share of the products' area that is overexposed, or bright without detail within half a
# product. Original photos: up to 0.12, except for two overexposed photos with 0.23 and 0.71. Photos
# with a reflection of 200 grey levels over a third of the photo: median 0.22.
_BLOWN = 250
BRIGHT = 170
LEAST_DETAIL = 15.0
MOST_GLARE = 0.13
# Minimum shorter side of the median product, in pixels of the photo. Original photos: at least
# 16.5. The finest feature map of the network has a stride of 8 pixels, so 12 pixels are 1.5 cells.
LEAST_SIDE = 12.0
# Maximum slope of the shelves in degrees. Original photos: 0.9 in the median, 10 at most. Row
# detection and the training augmentation are made for smaller slopes.
MAX_LABEL_TILT = 8.0
# Maximum distance to the fifth nearest photo, relative to the median of these distances. Original
# photos: up to 1.7, except for one photo that is white with glare, at 2.5. Noise, text, walls,
# landscapes and close-ups: at least 2.7.
_NEAREST = 5
MOST_UNLIKE = 2.0
FEWEST_TO_COMPARE = 12


@dataclass(frozen=True, eq=False)
class PhotoMeasures:
    """Image measurements of one photo.

    Attributes:
        photo: Photo with its labels.
        digest: SHA-256 of the file, in hexadecimal digits.
        blur: Blur measure from 0 (sharp) to 1, see `MOST_BLUR`.
        brightness: 90th percentile of the grey levels on products, or on the whole photo if it has
            no boxes.
        glare: Share of the same area that is covered by glare.
        picture: (14,) float64, features of colour and edges, for comparison with other photos.
        sample: Colour grids of its products.
        missing: Likely unlabelled products. Their `beside` is an index into the boxes that are not
            marked `ignore`.
    """

    photo: Photo
    digest: str
    blur: float
    brightness: float
    glare: float
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
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    scaled, scale = _judged(image, boxes)
    grey = cv2.cvtColor(scaled, cv2.COLOR_RGB2GRAY)
    products = _covered(boxes * scale, grey.shape)
    return PhotoMeasures(
        photo,
        sha256_of(data),
        _blur(grey),
        float(np.percentile(grey[products], 90)),
        _glare(scaled, grey, products, median_side(boxes) * scale),
        _picture(image),
        appearance.product_look(lab, photo),
        appearance.likely_missing(
            lab, boxes, box_checks.find_label_gaps(boxes, ignored, photo.width, photo.height)
        ),
    )


def median_side(boxes: np.ndarray) -> float:
    """Return the median over boxes of their shorter side, in the unit of the boxes.

    Args:
        boxes: (n, 4) xyxy.

    Returns:
        Median shorter side, or `JUDGED_SIDE` without boxes.
    """
    return (
        float(np.median((boxes[:, 2:] - boxes[:, :2]).min(axis=1))) if len(boxes) else JUDGED_SIDE
    )


def _judged(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the photo at the scale at which it is measured, and this scale, at most 1."""
    target = (
        JUDGED_SIDE / max(median_side(boxes), 1)
        if len(boxes)
        else JUDGED_PHOTO / max(image.shape[:2])
    )
    scale = min(1.0, target)
    if scale == 1:
        return image, scale
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _covered(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an (h, w) bool mask of the products, or of the whole photo if there are none."""
    mask = np.zeros(shape[:2], bool)
    for left, top, right, bottom in boxes.astype(int):
        mask[top : bottom + 1, left : right + 1] = True
    return mask if mask.any() else ~mask


def _blur(grey: np.ndarray) -> float:
    """Return the blur measure of an (h, w) uint8 photo, from 0 (sharp) to 1; see `BLUR_WINDOW`."""
    measures = []
    for axis, window in ((0, (1, BLUR_WINDOW)), (1, (BLUR_WINDOW, 1))):
        sharp = np.abs(np.diff(grey.astype(np.float32), axis=axis))
        blurred = np.abs(np.diff(cv2.blur(grey.astype(np.float32), window), axis=axis))
        lost = np.maximum(sharp - blurred, 0).sum()
        measures.append(1 - lost / max(float(sharp.sum()), 1e-6))
    return float(max(measures))


def _glare(image: np.ndarray, grey: np.ndarray, products: np.ndarray, side: float) -> float:
    """Return the share of an area that is overexposed, or bright without detail.

    Args:
        image: (h, w, 3) uint8 RGB photo.
        grey: (h, w) uint8, the photo in grey levels.
        products: (h, w) bool mask of the area.
        side: Shorter side of the median product in pixels of the photo.
    """
    window = (max(3, round(side / 2)),) * 2
    level = grey.astype(np.float32)
    mean = cv2.blur(level, window)
    detail = np.sqrt(np.maximum(cv2.blur(level**2, window) - mean**2, 0))
    blank = (mean > BRIGHT) & (detail < LEAST_DETAIL)
    return float(((image.min(axis=2) >= _BLOWN) | blank)[products].mean())


def _picture(image: np.ndarray) -> np.ndarray:
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


def quality_findings(look: PhotoMeasures) -> list[Finding]:
    """Return findings on one photo: blur, darkness, glare, resolution, tilt and missing labels."""
    photo = look.photo
    boxes = photo.truth.boxes[~photo.truth.ignore]
    side, slope = median_side(boxes), box_checks.tilt(boxes) or 0.0
    retake = (
        "Take the photo again if possible. Leave it out if a person cannot recognize its products."
    )
    # Measured value relative to its limit, message and advice.
    measured = {
        "blurred": (
            look.blur / MOST_BLUR,
            f"blur is {look.blur:.2f}; the limit is {MOST_BLUR}",
            retake,
        ),
        "dark": (
            LEAST_BRIGHT / max(look.brightness, 1),
            f"the 90th percentile of grey levels on products is {look.brightness:.0f} of 255; the "
            f"minimum is {LEAST_BRIGHT}",
            retake,
        ),
        "glare": (
            look.glare / MOST_GLARE,
            f"glare covers {look.glare:.1%} of the products; the limit is {MOST_GLARE:.0%}",
            retake,
        ),
        "low-resolution": (
            LEAST_SIDE / max(side, 0.1),
            f"the median product has a shorter side of {side:.1f} pixels; the minimum is "
            f"{LEAST_SIDE:.0f}",
            "Use the photo in its original size, or take it from a shorter distance.",
        ),
        "tilted": (
            abs(slope) / MAX_LABEL_TILT,
            f"the shelves slope by {slope:.1f} degrees; the limit is {MAX_LABEL_TILT:.0f}",
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


def find_outliers(looks: list[PhotoMeasures]) -> list[Finding]:
    """Return findings on photos that differ from all others in colour and structure.

    Args:
        looks: Measurements of all photos.

    Returns:
        Findings, or none if there are fewer than `FEWEST_TO_COMPARE` photos.
    """
    if len(looks) < FEWEST_TO_COMPARE:
        return []
    pictures = np.array([look.picture for look in looks])
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
    for i in np.flatnonzero(degrees > MOST_UNLIKE):
        path = looks[i].photo.path
        message = (
            f"{path.name}: the distance to similar photos is {degrees[i]:.1f} times the median; "
            f"the limit is {MOST_UNLIKE:.0f} times"
        )
        fix = "Leave the photo out if it does not show a shelf. Otherwise, add similar photos."
        findings.append(
            Finding(
                "warning",
                "unlike-the-rest",
                message,
                fix,
                path,
                degree=float(degrees[i]) / MOST_UNLIKE,
            )
        )
    return findings
