"""Photo gate: light, sharpness and view of a photo against limits, with advice for a better photo.

Everything but the size of the products is measured on pixels, before counting and without the
model's weights. Sharpness is measured at the scale of the network input, so that a slight blur
on 12 megapixels does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from shelfcount.records import ModelSpec
from shelfcount.runtime.inference import input_shrink
from shelfcount.vision import boxes as box_math
from shelfcount.vision import images
from shelfcount.vision.photo_quality import light, small_copy, view

# Values at which the released model loses `F1_LOST` of benchmarks/photo_gate.py, measured on drinks
# validation photos under graded conditions: benchmarks/results/photo_gate.json. The last two are
# shares of the median product size in training.
LIMITS = {
    "dark": 51.0,
    "bright": 0.51,
    "glare": 0.082,
    "blur": 0.91,
    "motion": 0.06,
    "tilt": 14.0,
    "yaw": 34.0,
    "pitch": 35.0,
    "product_size": 0.63,
    "product_pixels": 0.2,
}
# Checks that fail below their limit; the others fail above it.
LEAST = ("dark", "product_size", "product_pixels")
# Sharpness is measured on 3 x 3 windows of at most this many pixels per side of the network's
# input.
WINDOWS = 3
WINDOW_SIDE = 96
DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1))
_FINE, _COARSE = 1, 4
# 99th percentile of the blur in the most blurred direction, over 180 drinks training photos.
# Sharper
# photos have no motion blur.
USUAL_BLUR = 0.74


@dataclass(frozen=True)
class Check:
    """Result of one check of a photo.

    Attributes:
        name: Key in `LIMITS`.
        value: Measured value in the unit that `judge` names; None if it cannot be measured on the
            photo.
        limit: Maximum that passes; for the checks in `LEAST`, the minimum.
        advice: One sentence of advice; empty if the check passes.
    """

    name: str
    value: float | None
    limit: float
    advice: str = ""

    @property
    def fit(self) -> bool:
        """Whether the check passes."""
        if self.value is None:
            return True
        return self.value >= self.limit if self.name in LEAST else abs(self.value) <= self.limit


@dataclass(frozen=True)
class Quality:
    """Results of all checks of one photo.

    Attributes:
        checks: Checks in the order of `LIMITS`.
    """

    checks: tuple[Check, ...] = ()

    @property
    def fit(self) -> bool:
        """Whether all checks pass."""
        return all(check.fit for check in self.checks)

    @property
    def advice(self) -> tuple[str, ...]:
        """One sentence of advice for each failed check."""
        return tuple(check.advice for check in self.checks if not check.fit)

    def to_json(self) -> dict[str, Any]:
        """Return ``quality`` of a photo in the JSON of `count`."""
        checks = {
            c.name: {
                "value": None if c.value is None else round(c.value, 4),
                "limit": round(c.limit, 4),
            }
            for c in self.checks
        }
        return {"fit": self.fit, "advice": list(self.advice), "checks": checks}


def check_photo(image: np.ndarray, spec: ModelSpec, boxes: np.ndarray | None = None) -> Quality:
    """Check the quality of a photo for counting with a model.

    The checks measure

    * ``dark``: 90th percentile of the grey levels, 0 to 255;
    * ``bright``: share of the pixels that are overexposed in a channel;
    * ``glare``: share of the photo that is white and without detail;
    * ``blur``: exponent of the growth of grey-level differences with distance, mean of four
      directions: below 0.5 for a sharp photo, up to 1;
    * ``motion``: excess of the blur in the most blurred direction over `USUAL_BLUR`, times one
      minus the ratio of edge strengths along the weakest and the strongest direction;
    * ``tilt``: degrees by which the shelf slopes down to the right;
    * ``yaw``: degrees by which the shelf is seen from its right;
    * ``pitch``: degrees by which the camera looks down;
    * ``product_size``: median of sqrt(box area) in pixels of the network's input;
    * ``product_pixels``: the same in pixels of the photo.

    Args:
        image: (height, width, 3) uint8 RGB, upright.
        spec: Metadata of the model: its input size and the product size in training.
        boxes: (n, 4) xyxy pixels, the detections; None before counting.
    """
    copy = small_copy(image)
    tilt, yaw, pitch = view(copy)
    blur, motion, angle = sharpness(image, spec)
    size, pixels = (
        (None, None)
        if boxes is None
        else product_sizes(boxes, spec, image.shape[1], image.shape[0])
    )
    dark, bright, glare = light(copy)
    values = {"dark": dark, "bright": bright, "glare": glare, "blur": blur, "motion": motion}
    values |= {
        "tilt": tilt,
        "yaw": yaw,
        "pitch": pitch,
        "product_size": size,
        "product_pixels": pixels,
    }
    limits = {
        name: limit * spec.product_px[1] if name.startswith("product") else limit
        for name, limit in LIMITS.items()
    }
    checks = (Check(name, values[name], limits[name]) for name in LIMITS)
    return Quality(
        tuple(c if c.fit else Check(c.name, c.value, c.limit, _advice(c, angle)) for c in checks)
    )


def _advice(check: Check, angle: float) -> str:
    value = check.value or 0.0
    amount, percent = f"{abs(value):.0f} degrees", f"{value:.0%}".replace("%", " %")
    way = "sideways" if abs(angle) < 30 else "up and down" if abs(angle) > 60 else "aslant"
    sentences = {
        "dark": "Add light or brighten the exposure: "
        f"nine tenths of the photo are darker than {value:.0f} of 255.",
        "bright": "Tap on a bright product so that the phone exposes less: "
        f"{percent} of the photo is blown out.",
        "glare": f"Step aside or turn the flash off: glare hides {percent} of the photo.",
        "blur": "Tap on a product to focus, and wipe the lens: the photo is blurred.",
        "motion": f"Hold the phone still, and tap to focus: the photo is smeared {way}.",
        "tilt": f"Turn the phone {'clockwise' if value > 0 else 'counter-clockwise'}: "
        f"the shelf slopes down to the {'right' if value > 0 else 'left'} by {amount}.",
        "yaw": f"Step to the {'left' if value > 0 else 'right'}: "
        f"the shelf is seen from the {'right' if value > 0 else 'left'} by {amount}.",
        "pitch": f"{'Lower' if value > 0 else 'Raise'} the phone "
        "to the height of the shelf's middle: "
        f"it looks {'down' if value > 0 else 'up'} by {amount}.",
        "product_size": "Come closer, and take several photos if the shelf does not fit: "
        f"the model sees products {value:.0f} pixels large and needs {check.limit:.0f}.",
        "product_pixels": "Use the photo in its original size: "
        f"products are {value:.0f} pixels large on it, {check.limit:.0f} are needed.",
    }
    return sentences[check.name]


# ---------------------------------------------------------------- sharpness


def sharpness(image: np.ndarray, spec: ModelSpec) -> tuple[float | None, float | None, float]:
    """Return ``blur`` and ``motion``, see `judge`, and the direction of the motion.

    At a sharp edge, the grey level changes within a pixel: by as much between pixels one apart as
    between pixels four apart, but four times as many pairs four apart cross the edge. The exponent
    is
    then 0.5, and print reduces it. If an edge is blurred over four pixels or more, differences grow
    in
    proportion to the distance, and the exponent is 1. Motion blurs the edges of one direction only.

    Args:
        image: (height, width, 3) uint8 RGB.
        spec: Metadata of the model.

    Returns:
        Blur and motion, None for a photo without any detail; direction in degrees from horizontal,
        -90 to 90, in which edges are weakest.
    """
    near, far, tensor = np.zeros(4), np.zeros(4), np.zeros((2, 2))
    for grey in _windows(image, spec):
        if min(grey.shape) > _COARSE:
            near += [_difference(grey, _FINE * x, _FINE * y) for x, y in DIRECTIONS]
            far += [_difference(grey, _COARSE * x, _COARSE * y) for x, y in DIRECTIONS]
            tensor += _tensor(grey)
    if not near.all():
        return None, None, 0.0
    blur = np.log(far / near) / np.log(_COARSE / _FINE) / 2
    spread = np.hypot(tensor[0, 0] - tensor[1, 1], 2 * tensor[0, 1])
    weakest = np.sqrt(max(tensor.trace() - spread, 0.0) / (tensor.trace() + spread))
    strong = np.degrees(np.arctan2(2 * tensor[0, 1], tensor[0, 0] - tensor[1, 1])) / 2
    return (
        float(blur.mean()),
        float(max(blur.max() - USUAL_BLUR, 0.0) * (1 - weakest)),
        float(strong - 90 if strong > 0 else strong + 90),
    )


def _windows(image: np.ndarray, spec: ModelSpec) -> Iterator[np.ndarray]:
    """Yield (h, w) uint8 grey windows at the scale of the finest tiles, but never enlarged."""
    height, width = image.shape[:2]
    across, down = (max(1.0, shrink) for shrink in input_shrink(spec, width, height))
    sides = min(width, int(WINDOW_SIDE * across + 0.5)), min(height, int(WINDOW_SIDE * down + 0.5))
    places = [
        [int((i + 1) * (whole - side) / (WINDOWS + 1)) for i in range(WINDOWS)]
        for whole, side in zip((width, height), sides, strict=True)
    ]
    for top in places[1]:
        for left in places[0]:
            cut = np.ascontiguousarray(image[top : top + sides[1], left : left + sides[0]])
            yield cv2.cvtColor(
                images.stretch(cut, min(sides[1], WINDOW_SIDE), min(sides[0], WINDOW_SIDE)),
                cv2.COLOR_RGB2GRAY,
            )


def _difference(grey: np.ndarray, right: int, down: int) -> float:
    """Return the mean squared difference of pixels that are `right` and `down` pixels apart."""
    height, width = grey.shape
    first = grey[max(0, -down) : height - max(0, down), : width - right]
    second = grey[max(0, down) : height - max(0, -down), right:]
    return float(cv2.norm(first, second, cv2.NORM_L2SQR) / first.size)


def _tensor(grey: np.ndarray) -> np.ndarray:
    """Return the (2, 2) float64 structure tensor: sums of products of the x and y gradients."""
    levels = grey.astype(np.int64)
    across, down = levels[1:-1, 2:] - levels[1:-1, :-2], levels[2:, 1:-1] - levels[:-2, 1:-1]
    mixed = (across * down).sum()
    return np.array([[(across**2).sum(), mixed], [mixed, (down**2).sum()]], np.float64)


# ---------------------------------------------------------------- products


def product_sizes(
    boxes: np.ndarray, spec: ModelSpec, width: int, height: int
) -> tuple[float, float] | tuple[None, None]:
    """Return ``product_size`` and ``product_pixels``, see `judge`; None if there are no boxes.

    Args:
        boxes: (n, 4) xyxy pixels of the photo.
        spec: Metadata of the model.
        width, height: Size of the photo in pixels.
    """
    if not len(boxes):
        return None, None
    across, down = input_shrink(spec, width, height)
    pixels = float(np.median(np.sqrt(box_math.area(np.asarray(boxes, np.float64)))))
    return pixels / float(np.sqrt(across * down)), pixels
