"""What the pixels of a photo say: blur, darkness, glare, products too small, and photos unlike the rest.

A photo is judged at the scale at which a detector sees its products, so that a slight blur on 12
megapixels is none. The limits were chosen on the training photos of the drinks data (180 photos)
and on the same photos blurred, darkened and lit; each constant says what was seen there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

from shelfcount.data import appearance, box_checks
from shelfcount.data.appearance import Missing, Sample
from shelfcount.data.findings import Finding
from shelfcount.records import Photo, ShelfcountError
from shelfcount.vision.images import decode_photo

# Shorter side in pixels to which the median product is shrunk before judging: the 95th percentile of the drinks photos,
# so that nearly all of them are judged as they are. Photos without boxes are shrunk to a longest side of 640.
JUDGED_SIDE = 48.0
JUDGED_PHOTO = 640.0
# Crete et al. 2007, "The blur effect": what a box blur of 11 pixels leaves of the differences between neighbouring
# pixels. As taken: 0.22 to 0.43, median 0.29; blurred by 1.5 pixels sigma, where small print goes: 0.44 to 0.60.
BLUR_WINDOW = 11
MOST_BLUR = 0.44
# 90th percentile of the grey levels on products. As taken: 107 to 251; at a quarter of the light: 30 to 62.
LEAST_BRIGHT = 90
# Share of the products' area that is blown out, or bright without any detail within half a product. As taken: up to
# 0.12, but for two overexposed photos at 0.23 and 0.71; with a reflection of 200 grey levels over a third of the
# photo: median 0.22.
BLOWN = 250
BRIGHT = 170
LEAST_DETAIL = 15.0
MOST_GLARE = 0.13
# Shorter side of the median product, pixels of the photo. As taken: 16.5 and more. The finest level of the network has
# one place in 8 pixels, so 12 pixels leave one and a half across a product.
LEAST_SIDE = 12.0
# Degrees. As taken: 0.9 in the median, 10 at most; finding rows and the augmentation of training were made for less.
MOST_TILT = 8.0
# Distance to the fifth nearest photo, in units of the median one. As taken: up to 1.7, but for one photo all white with
# glare at 2.5; noise, text, walls, landscapes and close-ups: 2.7 and more.
NEAREST = 5
MOST_UNLIKE = 2.0
FEWEST_TO_COMPARE = 12


@dataclass(frozen=True, eq=False)
class Look:
    """What is kept of a photo's pixels.

    Attributes:
        photo: With its labels.
        digest: SHA-256 of the file.
        blur: 0 sharp to 1, see `MOST_BLUR`.
        brightness: 90th percentile of the grey levels on products, or of all where there are no boxes.
        glare: Share of the same area.
        picture: (14,) float64, colours and edges of the whole, to be compared with other photos.
        sample: Appearance of its products.
        missing: Products that were probably left unlabelled, by index into the boxes that are not `ignore`.
    """

    photo: Photo
    digest: str
    blur: float
    brightness: float
    glare: float
    picture: np.ndarray
    sample: Sample
    missing: list[Missing]


def look_at(photo: Photo) -> Look:
    """Read a photo once and measure it.

    Raises:
        ShelfcountError: If it cannot be read.
    """
    try:
        data = photo.path.read_bytes()
    except OSError as error:
        raise ShelfcountError(
            f"cannot read photo '{photo.path}': {error.strerror or error}"
        ) from error
    image = decode_photo(data, photo.path)
    if image.shape[:2] != (photo.height, photo.width):
        got = f"{image.shape[1]} x {image.shape[0]}"
        raise ShelfcountError(
            f"photo '{photo.path}' must be of the size {photo.width} x {photo.height} that its labels were read with, got {got}"
        )
    boxes = photo.truth.boxes[~photo.truth.ignore]
    ignored = photo.truth.boxes[photo.truth.ignore]
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    judged, scale = _judged(image, boxes)
    grey = cv2.cvtColor(judged, cv2.COLOR_RGB2GRAY)
    products = _covered(boxes * scale, grey.shape)
    return Look(
        photo,
        hashlib.sha256(data).hexdigest(),
        _blur(grey),
        float(np.percentile(grey[products], 90)),
        _glare(judged, grey, products, median_side(boxes) * scale),
        _picture(image),
        appearance.sample(lab, photo),
        appearance.likely_missing(
            lab, boxes, box_checks.gaps(boxes, ignored, photo.width, photo.height)
        ),
    )


def median_side(boxes: np.ndarray) -> float:
    """Shorter side of the median box, in the unit of the (n, 4) xyxy boxes; `JUDGED_SIDE` where there are none."""
    return (
        float(np.median((boxes[:, 2:] - boxes[:, :2]).min(axis=1))) if len(boxes) else JUDGED_SIDE
    )


def _judged(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, float]:
    """The photo at the scale at which it is judged, and that scale, at most 1."""
    wanted = (
        JUDGED_SIDE / max(median_side(boxes), 1)
        if len(boxes)
        else JUDGED_PHOTO / max(image.shape[:2])
    )
    scale = min(1.0, wanted)
    if scale == 1:
        return image, scale
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _covered(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w) bool: on a product, or everywhere where there are none."""
    mask = np.zeros(shape[:2], bool)
    for left, top, right, bottom in boxes.astype(int):
        mask[top : bottom + 1, left : right + 1] = True
    return mask if mask.any() else ~mask


def _blur(grey: np.ndarray) -> float:
    measures = []
    for axis, window in ((0, (1, BLUR_WINDOW)), (1, (BLUR_WINDOW, 1))):
        sharp = np.abs(np.diff(grey.astype(np.float32), axis=axis))
        again = np.abs(np.diff(cv2.blur(grey.astype(np.float32), window), axis=axis))
        lost = np.maximum(sharp - again, 0).sum()
        measures.append(1 - lost / max(float(sharp.sum()), 1e-6))
    return float(max(measures))


def _glare(image: np.ndarray, grey: np.ndarray, products: np.ndarray, side: float) -> float:
    window = (max(3, round(side / 2)),) * 2
    level = grey.astype(np.float32)
    mean = cv2.blur(level, window)
    detail = np.sqrt(np.maximum(cv2.blur(level**2, window) - mean**2, 0))
    blank = (mean > BRIGHT) & (detail < LEAST_DETAIL)
    return float(((image.min(axis=2) >= BLOWN) | blank)[products].mean())


def _picture(image: np.ndarray) -> np.ndarray:
    """(14,) Colour, its spread, strength of edges, colourfulness, and how the edges run."""
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


def quality(look: Look) -> list[Finding]:
    """Findings on one photo by itself: blur, light, resolution, tilt, no boxes."""
    photo = look.photo
    boxes = photo.truth.boxes[~photo.truth.ignore]
    side, slope = median_side(boxes), box_checks.tilt(boxes) or 0.0
    again = (
        "Take the photo again if you can; leave it out if a person cannot tell the products on it."
    )
    # How many times the limit, what to say, what to do.
    measured = {
        "blurred": (
            look.blur / MOST_BLUR,
            f"blur {look.blur:.2f}; {MOST_BLUR} is the limit",
            again,
        ),
        "dark": (
            LEAST_BRIGHT / max(look.brightness, 1),
            f"nine tenths of the products' pixels are below {look.brightness:.0f} of 255; {LEAST_BRIGHT} is the least",
            again,
        ),
        "glare": (
            look.glare / MOST_GLARE,
            f"{look.glare:.1%} of the products is blank white; {MOST_GLARE:.0%} is the limit",
            again,
        ),
        "low-resolution": (
            LEAST_SIDE / max(side, 0.1),
            f"half of the products are narrower than {side:.1f} pixels; {LEAST_SIDE:.0f} is the least",
            "Use the photo in its original size, or come closer.",
        ),
        "tilted": (
            abs(slope) / MOST_TILT,
            f"the shelves slope by {slope:.1f} degrees; {MOST_TILT:.0f} is the limit",
            "Turn the photo level together with its boxes, or take it again.",
        ),
        "no-boxes": (
            2.0 if len(photo.truth) == 0 else 0.0,
            "there is no box on it",
            "Label it, or keep it only if it shows no product of any class.",
        ),
    }
    return [
        Finding("warning", kind, f"{photo.path.name}: {message}", fix, photo.path, degree=degree)
        for kind, (degree, message, fix) in measured.items()
        if degree > 1
    ]


def unlike_the_rest(looks: list[Look]) -> list[Finding]:
    """Photos far from all others in colour and structure; nothing where there are too few to compare with."""
    if len(looks) < FEWEST_TO_COMPARE:
        return []
    pictures = np.array([look.picture for look in looks])
    middle = np.median(pictures, axis=0)
    spread = np.median(np.abs(pictures - middle), axis=0)
    places = np.clip((pictures - middle) / np.maximum(1.4826 * spread, 1e-6), -8, 8)
    distances = np.array(
        [
            np.partition(np.sqrt(((places - place) ** 2).mean(axis=1)), NEAREST)[NEAREST]
            for place in places
        ]
    )
    degrees = distances / max(float(np.median(distances)), 1e-6)
    found = []
    for i in np.flatnonzero(degrees > MOST_UNLIKE):
        path = looks[i].photo.path
        message = f"{path.name}: {degrees[i]:.1f} times the usual distance to the photos most like it; {MOST_UNLIKE:.0f} is the limit"
        fix = "Leave it out if it is no photo of a shelf; otherwise take more photos like it."
        found.append(
            Finding(
                "warning",
                "unlike-the-rest",
                message,
                fix,
                path,
                degree=float(degrees[i]) / MOST_UNLIKE,
            )
        )
    return found
