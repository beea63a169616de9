"""Is this photo fit to be counted? Light, sharpness and view, each measured, compared with a limit, and said in one sentence.

Nothing here needs the model's weights: all but the size of the products is measured on the pixels, before counting. Light
and view are seen on a small copy of the photo; sharpness on nine windows at the scale at which the network sees it, so that a
slight blur on 12 megapixels is none. export/web/photogate.js mirrors the formulas: sums are of whole numbers where they can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from shelfcount.records import ModelSpec
from shelfcount.runtime.tiling import tiles_per_side
from shelfcount.shelf.facings import FOCAL_LENGTH
from shelfcount.vision import boxes as box_math
from shelfcount.vision import images

# Where the released model has lost `F1_LOST` of benchmarks/photo_gate.py, over drinks validation photos under graded
# conditions: benchmarks/results/photo_gate.json. The last two are shares of the median product of training.
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
# The others are unfit above their limit, these below.
LEAST = ("dark", "product_size", "product_pixels")

# Pixels of the longer side of the small copy, about.
COPY_SIDE = 416
# A pixel is blown out where its brightest channel is at 250 or more of 255; JPEG leaves few at 255.
BLOWN = 250
# Glare is white and blank: blocks of so many pixels of the copy, the least channel in the mean at 250, with a standard
# deviation of grey levels below 15. White labels have print on them, white walls are at 220 to 245.
GLARE_BLOCK = 8
GLARE_LEVEL = 250
GLARE_DETAIL = 15
# Sharpness is measured on 3 x 3 windows of at most so many pixels of the network's input.
WINDOWS = 3
WINDOW_SIDE = 96
DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1))
FINE, COARSE = 1, 4
# Blur in the most blurred direction of nearly all photos as they are taken: the 99th percentile of 180 drinks training photos.
# What is sharper shows no motion.
USUAL_BLUR = 0.74
# One line of the shelf in each of 24 x 24 cells: the strongest edge, of 10 grey levels or more, within 35 degrees (tan = 0.7)
# of level or upright. A Sobel kernel of 5 pixels answers 48 to an edge of one level.
CELLS = 24
LEAST_EDGE = 10 * 48
FEWEST_EDGES = 40
# Degrees. A line agrees with a view within `AGREEMENT`, halved at each step of the search; of two equally good views the
# one nearer to level is taken.
MOST_TILT, TILT_STEP = 27.0, 3.0
MOST_TURN, TURN_STEP = 42.0, 7.0
AGREEMENT = 3.0
SEARCHES = 3
LEVELNESS = 0.015
# Agreement of the lines, 0 to 1, from which a view is believed: lines in all directions (20 photos of noise) reach 0.043, the
# median of the drinks photos 0.09 for level and 0.065 for upright lines.
LEAST_AGREEING = 0.045


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong with a photo.

    Attributes:
        name: Key of `LIMITS`.
        value: What was measured, in the unit `judge` says; None where the photo does not tell.
        limit: The most that is fit; of those in `LEAST`, the least.
        advice: What to do, one sentence; empty where the photo is fit.
    """

    name: str
    value: float | None
    limit: float
    advice: str = ""

    @property
    def fit(self) -> bool:
        """Whether the limit is kept."""
        if self.value is None:
            return True
        return self.value >= self.limit if self.name in LEAST else abs(self.value) <= self.limit


@dataclass(frozen=True)
class Quality:
    """What the gate says of one photo.

    Attributes:
        checks: In the order of `LIMITS`.
    """

    checks: tuple[Check, ...] = ()

    @property
    def fit(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.fit for check in self.checks)

    @property
    def advice(self) -> tuple[str, ...]:
        """A sentence for each thing that is wrong."""
        return tuple(check.advice for check in self.checks if not check.fit)

    def to_json(self) -> dict[str, Any]:
        """``quality`` of a photo in the JSON of `count`."""
        checks = {
            c.name: {
                "value": None if c.value is None else round(c.value, 4),
                "limit": round(c.limit, 4),
            }
            for c in self.checks
        }
        return {"fit": self.fit, "advice": list(self.advice), "checks": checks}


def judge(image: np.ndarray, spec: ModelSpec, boxes: np.ndarray | None = None) -> Quality:
    """Whether a photo is fit to be counted by a model, and if not, what to do.

    Measured are

    * ``dark``: grey level, 0 to 255, that nine tenths of the pixels do not exceed;
    * ``bright``: share of the pixels that are blown out in a channel;
    * ``glare``: share of the photo that is white and blank;
    * ``blur``: below 0.5 for a sharp photo to 1, the exponent with which differences between grey levels grow with distance,
      the mean of four directions;
    * ``motion``: what the blur of the most blurred direction has above the usual, times how much weaker edges are in one direction
      than across it;
    * ``tilt``: degrees that the shelf slopes down to the right;
    * ``yaw``: degrees from which the shelf is seen from its right;
    * ``pitch``: degrees by which the camera looks down on it;
    * ``product_size``: pixels of the median product, square root of its area, in the network's input;
    * ``product_pixels``: the same on the photo itself.

    Args:
        image: (height, width, 3) uint8 RGB, upright.
        spec: Of the model that shall count; its input size and the products' size in training decide.
        boxes: (n, 4) xyxy pixels, what was found; None before counting.
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
        "dark": f"Add light or brighten the exposure: nine tenths of the photo are darker than {value:.0f} of 255.",
        "bright": f"Tap on a bright product so that the phone exposes less: {percent} of the photo is blown out.",
        "glare": f"Step aside or turn the flash off: glare hides {percent} of the photo.",
        "blur": "Tap on a product to focus, and wipe the lens: the photo is blurred.",
        "motion": f"Hold the phone still, and tap to focus: the photo is smeared {way}.",
        "tilt": f"Turn the phone {'clockwise' if value > 0 else 'counter-clockwise'}: "
        f"the shelf slopes down to the {'right' if value > 0 else 'left'} by {amount}.",
        "yaw": f"Step to the {'left' if value > 0 else 'right'}: "
        f"the shelf is seen from the {'right' if value > 0 else 'left'} by {amount}.",
        "pitch": f"{'Lower' if value > 0 else 'Raise'} the phone to the height of the shelf's middle: "
        f"it looks {'down' if value > 0 else 'up'} by {amount}.",
        "product_size": "Come closer, and take several photos if the shelf does not fit: "
        f"the model sees products {value:.0f} pixels large and needs {check.limit:.0f}.",
        "product_pixels": f"Use the photo in its original size: products are {value:.0f} pixels large on it, {check.limit:.0f} are needed.",
    }
    return sentences[check.name]


# ---------------------------------------------------------------- light


def small_copy(image: np.ndarray) -> np.ndarray:
    """A copy of about `COPY_SIDE` pixels on its longer side, each the mean of four that lie apart: quick on large photos.

    Args:
        image: (height, width, 3) uint8.

    Returns:
        (h, w, 3) uint8.
    """
    step = max(1, int(max(image.shape[:2]) / COPY_SIDE + 0.5))
    if step == 1:
        return image
    height, width = (side - side % step or 1 for side in image.shape[:2])
    down, right = (min(step // 2, side - 1) for side in image.shape[:2])
    four = [
        image[top : height + top : step, left : width + left : step].astype(np.uint16)
        for top in (0, down)
        for left in (0, right)
    ]
    return np.asarray((np.sum(four, axis=0, dtype=np.uint16) + 2) >> 2, np.uint8)


def light(copy: np.ndarray) -> tuple[float, float, float]:
    """``dark``, ``bright`` and ``glare`` of (h, w, 3) uint8 RGB; see `judge`."""
    grey = cv2.cvtColor(copy, cv2.COLOR_RGB2GRAY)
    up_to = np.cumsum(np.bincount(grey.ravel(), minlength=256))
    dark = int(np.searchsorted(up_to * 10, 9 * grey.size))
    # Not max(axis=2): numpy is slow along an axis of three.
    red, green, blue = cv2.split(copy)
    bright = float((cv2.max(cv2.max(red, green), blue) >= BLOWN).mean())
    n = GLARE_BLOCK**2
    least, levels = _blocks(cv2.min(cv2.min(red, green), blue)).sum(axis=2), _blocks(grey)
    blank = n * (levels**2).sum(axis=2) - levels.sum(axis=2) ** 2 < (GLARE_DETAIL * n) ** 2
    white = blank & (least >= GLARE_LEVEL * n)
    return float(dark), bright, float(white.mean()) if white.size else 0.0


def _blocks(levels: np.ndarray) -> np.ndarray:
    """(rows, columns, pixels) int64 blocks of (h, w); what is left over at the right and below is left out."""
    rows, columns = (side // GLARE_BLOCK for side in levels.shape)
    cut = levels[: rows * GLARE_BLOCK, : columns * GLARE_BLOCK].astype(np.int64)
    return (
        cut.reshape(rows, GLARE_BLOCK, columns, GLARE_BLOCK)
        .transpose(0, 2, 1, 3)
        .reshape(rows, columns, GLARE_BLOCK**2)
    )


# ---------------------------------------------------------------- sharpness


def sharpness(image: np.ndarray, spec: ModelSpec) -> tuple[float | None, float | None, float]:
    """``blur`` and ``motion``, see `judge`, and the direction of the motion.

    Across a sharp edge the grey level jumps within a pixel: as much between pixels one apart as four apart, but four times as
    many of these pairs lie across it, which makes an exponent of 0.5, and print makes it less. Where an edge is smeared over four
    pixels and more, differences grow with the distance itself. Motion takes the edges of one direction and leaves those
    across it.

    Args:
        image: (height, width, 3) uint8 RGB.
        spec: Of the model.

    Returns:
        Blur and motion, None for a photo without any detail; degrees from level, -90 to 90, in which edges are weakest.
    """
    near, far, tensor = np.zeros(4), np.zeros(4), np.zeros((2, 2))
    for grey in _windows(image, spec):
        if min(grey.shape) > COARSE:
            near += [_difference(grey, FINE * x, FINE * y) for x, y in DIRECTIONS]
            far += [_difference(grey, COARSE * x, COARSE * y) for x, y in DIRECTIONS]
            tensor += _tensor(grey)
    if not near.all():
        return None, None, 0.0
    blur = np.log(far / near) / np.log(COARSE / FINE) / 2
    spread = np.hypot(tensor[0, 0] - tensor[1, 1], 2 * tensor[0, 1])
    weakest = np.sqrt(max(tensor.trace() - spread, 0.0) / (tensor.trace() + spread))
    strong = np.degrees(np.arctan2(2 * tensor[0, 1], tensor[0, 0] - tensor[1, 1])) / 2
    return (
        float(blur.mean()),
        float(max(blur.max() - USUAL_BLUR, 0.0) * (1 - weakest)),
        float(strong - 90 if strong > 0 else strong + 90),
    )


def _windows(image: np.ndarray, spec: ModelSpec) -> Iterator[np.ndarray]:
    """(h, w) uint8 grey windows as the network sees them in the finest tiles, but never enlarged."""
    height, width = image.shape[:2]
    across, down = (max(1.0, shrink) for shrink in _shrink(spec, width, height))
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


def _shrink(spec: ModelSpec, width: int, height: int) -> tuple[float, float]:
    """Pixels of the photo for one of the network's input, across and down, in the finest tiles."""
    _, _, tile_width, tile_height = next(
        images.tiles(width, height, tiles_per_side(spec, width, height))
    )
    return tile_width / spec.width, tile_height / spec.height


def _difference(grey: np.ndarray, right: int, down: int) -> float:
    """Mean squared difference of grey levels so many pixels apart."""
    height, width = grey.shape
    here = grey[max(0, -down) : height - max(0, down), : width - right]
    there = grey[max(0, down) : height - max(0, -down), right:]
    return float(cv2.norm(here, there, cv2.NORM_L2SQR) / here.size)


def _tensor(grey: np.ndarray) -> np.ndarray:
    """(2, 2) float64 sums of products of the steps across and down."""
    levels = grey.astype(np.int64)
    across, down = levels[1:-1, 2:] - levels[1:-1, :-2], levels[2:, 1:-1] - levels[:-2, 1:-1]
    mixed = (across * down).sum()
    return np.array([[(across**2).sum(), mixed], [mixed, (down**2).sum()]], np.float64)


# ---------------------------------------------------------------- view


def view(copy: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """``tilt``, ``yaw`` and ``pitch`` of (h, w, 3) uint8 RGB in degrees, see `judge`; None where too few lines tell.

    Boards and the edges of products are level or upright on the shelf. Seen askew, the level ones meet in one point far
    outside the photo, and so do the upright ones; each point gives two angles of the camera.
    """
    grey = cv2.cvtColor(copy, cv2.COLOR_RGB2GRAY)
    across, down = (
        cv2.Sobel(grey, cv2.CV_32F, *step, ksize=5).astype(np.int64) for step in ((1, 0), (0, 1))
    )
    focal, (height, width) = FOCAL_LENGTH * max(grey.shape), grey.shape
    level = _lines(across, down, width, height, focal)
    # Turned about the diagonal, what is upright is level.
    upright = _lines(down.T, across.T, height, width, focal)
    tilt, turn = _meeting_point(*level) if level else (None, None)
    _, nod = _meeting_point(*upright) if upright else (None, None)
    return tilt, None if turn is None else -turn, nod


def _lines(
    across: np.ndarray, down: np.ndarray, width: int, height: int, focal: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """The strongest nearly level edge of each cell: (n, 2) places in focal lengths from the middle, (n, 2) unit gradients."""
    # The kernel is 5 wide, so that the outermost two pixels saw what lies beyond.
    step_x, step_y = (width - 4) // CELLS, (height - 4) // CELLS
    if min(step_x, step_y) < 1:
        return None
    inner = slice(2, 2 + CELLS * step_y), slice(2, 2 + CELLS * step_x)
    gx, gy = across[inner], down[inner]
    strength = np.where(10 * np.abs(gx) <= 7 * np.abs(gy), gx**2 + gy**2, 0)
    cells = (
        strength.reshape(CELLS, step_y, CELLS, step_x)
        .transpose(0, 2, 1, 3)
        .reshape(CELLS, CELLS, -1)
    )
    found = cells.argmax(axis=2)
    row, column = np.nonzero(cells.max(axis=2) >= LEAST_EDGE**2)
    if len(row) < FEWEST_EDGES:
        return None
    within = found[row, column]
    y, x = row * step_y + within // step_x, column * step_x + within % step_x
    gradient = np.stack([gx[y, x], gy[y, x]], axis=1) / np.sqrt(strength[y, x])[:, None]
    return (np.stack([x, y], axis=1) + 2.5 - [width / 2, height / 2]) / focal, gradient


def _meeting_point(
    places: np.ndarray, gradients: np.ndarray
) -> tuple[float, float] | tuple[None, None]:
    """Tilt and turn in degrees of the direction that most lines share: a search from coarse to fine."""
    tilts, turns = (
        np.arange(-MOST_TILT, MOST_TILT + 1, TILT_STEP),
        np.arange(-MOST_TURN, MOST_TURN + 1, TURN_STEP),
    )
    tilt_step, turn_step, within = TILT_STEP, TURN_STEP, AGREEMENT
    for _ in range(SEARCHES):
        candidates = np.stack(np.meshgrid(tilts, turns, indexing="ij"), axis=2).reshape(-1, 2)
        agreeing = _agreeing(places, gradients, np.radians(candidates), np.sin(np.radians(within)))
        odd = LEVELNESS * ((candidates / [MOST_TILT, MOST_TURN]) ** 2).sum(axis=1)
        best = int(np.argmax(agreeing - odd))
        tilt, turn = candidates[best].tolist()
        tilt_step, turn_step, within = tilt_step / 2, turn_step / 2, within / 1.5
        tilts, turns = tilt + tilt_step * np.arange(-2, 3), turn + turn_step * np.arange(-2, 3)
    return (tilt, turn) if agreeing[best] >= LEAST_AGREEING else (None, None)


def _agreeing(
    places: np.ndarray, gradients: np.ndarray, angles: np.ndarray, within: float
) -> np.ndarray:
    """(k,) share of the lines that run to the meeting point of each view, (k, 2) tilt and turn in radians, weighted by nearness."""
    (tilt, turn), (x, y), (gx, gy) = angles.T[:, :, None], places.T, gradients.T
    right, down = (
        np.cos(turn) * np.cos(tilt) - np.sin(turn) * x,
        np.cos(turn) * np.sin(tilt) - np.sin(turn) * y,
    )
    off = np.abs(right * gx + down * gy) / np.sqrt(right**2 + down**2)
    return np.asarray(np.maximum(1 - off / within, 0).mean(axis=1))


# ---------------------------------------------------------------- products


def product_sizes(
    boxes: np.ndarray, spec: ModelSpec, width: int, height: int
) -> tuple[float, float] | tuple[None, None]:
    """``product_size`` and ``product_pixels``, see `judge`, from (n, 4) xyxy boxes on a photo of this size; None for no boxes."""
    if not len(boxes):
        return None, None
    across, down = _shrink(spec, width, height)
    pixels = float(np.median(np.sqrt(box_math.area(np.asarray(boxes, np.float64)))))
    return pixels / float(np.sqrt(across * down)), pixels
