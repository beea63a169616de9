"""Image corruptions for robustness tests: conditions of photography at five severities each.

A condition changes a photo and returns the homography that moves its boxes. Random choices
(direction, place, grain) come from the generator that is passed in: the same state gives the
same photo, and the same direction and place at another severity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections
from shelfcount.vision import effects
from shelfcount.vision.effects import WHITE_KELVIN
from shelfcount.vision.homography import map_detections, view_homography, warp
from shelfcount.vision.images import FILL_GREY
from shelfcount.vision.phone_cameras import CAMERAS

SEVERITIES = (1, 2, 3, 4, 5)
Effect = Callable[[NDArray[np.uint8], float, np.random.Generator], "Changed"]


@dataclass(frozen=True, eq=False)
class Changed:
    """A photo after a condition was applied.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        homography: (3, 3) float64 from pixels (x, y, 1) of the original photo to those of `image`;
            pixel i covers [i, i + 1).
    """

    image: NDArray[np.uint8]
    homography: NDArray[np.float64]

    def move(self, detections: Detections) -> tuple[Detections, NDArray[np.int64]]:
        """Return the boxes of the original photo on this photo, see `map_detections`."""
        return map_detections(detections, self.homography, self.image.shape[1], self.image.shape[0])


@dataclass(frozen=True)
class Condition:
    """An image corruption at five severities.

    Attributes:
        name: Key in `CONDITIONS`.
        title: Title for people.
        group: 'light', 'lens', 'file', 'view' or 'phone'.
        unit: Unit of `values`, with the photo size it refers to.
        values: Parameter at each of `SEVERITIES`, mildest first. Severity 3 corresponds to a bad
            photo taken by a person; at severity 5 a person finds it hard to count.
        neutral: Parameter that leaves the photo unchanged. `values` lead away from it. None if the
            condition always changes the photo.
        effect: Function of (image, value, rng) that returns the changed photo.
    """

    name: str
    title: str
    group: str
    unit: str
    values: tuple[float, float, float, float, float]
    neutral: float | None
    effect: Effect

    def apply(self, image: NDArray[np.uint8], severity: int, rng: np.random.Generator) -> Changed:
        """Apply the condition and return the changed photo.

        Args:
            image: (h, w, 3) uint8 RGB.
            severity: Severity, one of `SEVERITIES`.
            rng: Generator for directions, positions and grain.

        Raises:
            ValueError: If `severity` is not one of `SEVERITIES`.
        """
        if severity not in SEVERITIES:
            raise ValueError(f"severity must be one of {SEVERITIES}, got {severity}")
        return self.effect(image, self.values[severity - 1], rng)


# ---------------------------------------------------------------- effects on pixels alone


def _pixels(change: Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]) -> Effect:
    return lambda image, value, rng: Changed(change(image, value), np.eye(3))


def _drawn(
    change: Callable[[NDArray[np.uint8], float, np.random.Generator], NDArray[np.uint8]],
) -> Effect:
    return lambda image, value, rng: Changed(change(image, value, rng), np.eye(3))


# ---------------------------------------------------------------- effects that move pixels


def _fewer_pixels(image: NDArray[np.uint8], side: float, rng: np.random.Generator) -> Changed:
    height, width = image.shape[:2]
    share = min(1.0, side / max(height, width))
    small = (max(1, round(width * share)), max(1, round(height * share)))
    if small == (width, height):
        return Changed(image, np.eye(3))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return Changed(
        np.asarray(shrunk, np.uint8), np.diag([small[0] / width, small[1] / height, 1.0])
    )


def _turned(axis: str) -> Effect:
    def effect(image: NDArray[np.uint8], degrees: float, rng: np.random.Generator) -> Changed:
        height, width = image.shape[:2]
        homography = view_homography(degrees * rng.choice([-1, 1]), axis, width, height)
        seen = warp(
            image, homography, (width, height), interpolation=cv2.INTER_CUBIC, fill=FILL_GREY
        )
        return Changed(seen, homography)

    return effect


_KELVIN = "kelvin, camera set to daylight"
_LISTED = (
    Condition(
        "dark",
        "Too dark",
        "light",
        "EV below correct exposure",
        (1, 2, 3, 4, 5),
        0,
        _pixels(lambda i, v: effects.exposed(i, -v)),
    ),
    Condition(
        "bright",
        "Too bright",
        "light",
        "EV above correct exposure",
        (0.5, 1, 1.5, 2, 2.5),
        0,
        _pixels(effects.exposed),
    ),
    Condition(
        "uneven",
        "Light from one side",
        "light",
        "EV difference between the sides",
        (1, 2, 3, 4, 5),
        0,
        _drawn(effects.lit_from_one_side),
    ),
    Condition(
        "shadow",
        "Shadow on half the shelf",
        "light",
        "EV darker",
        (1, 2, 3, 4, 5),
        0,
        _drawn(effects.shadowed),
    ),
    Condition(
        "glare",
        "Lamp reflections in glass",
        "light",
        "share of the photo in glare",
        (0.01, 0.02, 0.04, 0.08, 0.16),
        0,
        _drawn(effects.glared),
    ),
    Condition(
        "fog",
        "Fogged glass",
        "light",
        "share of scattered light",
        (0.1, 0.2, 0.35, 0.5, 0.65),
        0,
        _pixels(effects.fogged),
    ),
    Condition(
        "warm",
        "Warm cast",
        "light",
        _KELVIN,
        (5200, 4300, 3600, 3000, 2600),
        WHITE_KELVIN,
        _pixels(effects.lamp_colour),
    ),
    Condition(
        "cold",
        "Cold cast",
        "light",
        _KELVIN,
        (7500, 9000, 11000, 15000, 24000),
        WHITE_KELVIN,
        _pixels(effects.lamp_colour),
    ),
    Condition(
        "green",
        "Green cast",
        "light",
        "EV of green over red and blue",
        (0.15, 0.3, 0.5, 0.75, 1),
        0,
        _pixels(effects.green_cast),
    ),
    Condition(
        "defocus",
        "Out of focus",
        "lens",
        "px blur diameter at 416",
        (1.5, 2.5, 4, 6, 9),
        0,
        _pixels(effects.defocused),
    ),
    Condition(
        "motion",
        "Motion blur",
        "lens",
        "px of movement at 416",
        (2, 4, 7, 11, 16),
        0,
        _drawn(effects.moved_by_hand),
    ),
    Condition(
        "noise",
        "Noise",
        "file",
        "sRGB levels at 416",
        (5, 10, 17, 26, 38),
        0,
        _drawn(effects.noisy),
    ),
    Condition(
        "jpeg",
        "JPEG compression",
        "file",
        "quality",
        (50, 30, 18, 10, 5),
        95,
        _pixels(effects.compressed),
    ),
    Condition(
        "resolution",
        "Few pixels",
        "file",
        "px along the longer side",
        (320, 240, 180, 135, 100),
        416,
        _fewer_pixels,
    ),
    Condition("tilt", "Phone tilted", "view", "degrees", (3, 6, 10, 15, 22), 0, _turned("z")),
    Condition(
        "yaw", "Seen from the side", "view", "degrees", (10, 20, 30, 40, 50), 0, _turned("y")
    ),
    Condition(
        "pitch", "Seen from above or below", "view", "degrees", (8, 15, 22, 30, 38), 0, _turned("x")
    ),
    *(
        Condition(
            name,
            f"Phone, {name.replace('_', ' ')}",
            "phone",
            "lux on the shelf",
            (300, 100, 30, 10, 3),
            None,
            _drawn(camera.take),
        )
        for name, camera in CAMERAS.items()
    ),
)
CONDITIONS: Mapping[str, Condition] = {condition.name: condition for condition in _LISTED}
