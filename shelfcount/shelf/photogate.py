"""Quality check of photos before counting: light, sharpness and camera angle.

Each property is measured and compared with a limit; a failed check has one sentence of advice. The
check does not need the weights of the model: everything except the size of the products is measured
on the pixels. Light and camera angle are measured on a small copy of the photo, sharpness on nine
windows at the scale of the network's input, so that a slight blur on 12 megapixels passes.
export/web/photogate.js mirrors the formulas, so sums are over whole numbers if possible.
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

# Approximate length of the longer side of the small copy in pixels.
COPY_SIDE = 416
# A pixel is overexposed if its brightest channel is at least 250 of 255; JPEG leaves few at 255.
BLOWN = 250
# Glare is white and without detail: blocks of this many pixels per side of the copy, with a mean of
# the darkest channel of at least 250 and a standard deviation of grey levels below 15. White labels
# have print on them, and white walls are at 220 to 245.
GLARE_BLOCK = 8
GLARE_LEVEL = 250
GLARE_DETAIL = 15
# Sharpness is measured on 3 x 3 windows of at most this many pixels per side of the network's
# input.
WINDOWS = 3
WINDOW_SIDE = 96
DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1))
FINE, COARSE = 1, 4
# 99th percentile of the blur in the most blurred direction, over 180 drinks training photos.
# Sharper
# photos have no motion blur.
USUAL_BLUR = 0.74
# The strongest edge in each of 24 x 24 cells, of at least 10 grey levels and within 35 degrees
# (tan = 0.7) of horizontal or vertical. The response of a Sobel kernel of 5 pixels to an edge of
# one
# level is 48.
CELLS = 24
LEAST_EDGE = 10 * 48
FEWEST_EDGES = 40
# Angles in degrees. A line agrees with a camera angle within `AGREEMENT`, which becomes smaller at
# each step of the search. Of two equally good angles the one closer to level is chosen.
MOST_TILT, TILT_STEP = 27.0, 3.0
MOST_TURN, TURN_STEP = 42.0, 7.0
AGREEMENT = 3.0
SEARCHES = 3
LEVELNESS = 0.015
# Minimum agreement of the lines, 0 to 1, for a valid camera angle. Lines in all directions (20
# photos
# of noise) reach 0.043; the median of the drinks photos is 0.09 for horizontal and 0.065 for
# vertical
# lines.
LEAST_AGREEING = 0.045


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


def judge(image: np.ndarray, spec: ModelSpec, boxes: np.ndarray | None = None) -> Quality:
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


# ---------------------------------------------------------------- light


def small_copy(image: np.ndarray) -> np.ndarray:
    """Return a copy of about `COPY_SIDE` pixels on its longer side.

    Each pixel is the mean of four pixels of the photo, which is fast for large photos.

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
    """Return ``dark``, ``bright`` and ``glare`` of (h, w, 3) uint8 RGB, see `judge`."""
    grey = cv2.cvtColor(copy, cv2.COLOR_RGB2GRAY)
    up_to = np.cumsum(np.bincount(grey.ravel(), minlength=256))
    dark = int(np.searchsorted(up_to * 10, 9 * grey.size))
    # cv2.max instead of max(axis=2), as numpy is slow along an axis of length three.
    red, green, blue = cv2.split(copy)
    bright = float((cv2.max(cv2.max(red, green), blue) >= BLOWN).mean())
    n = GLARE_BLOCK**2
    least, levels = _blocks(cv2.min(cv2.min(red, green), blue)).sum(axis=2), _blocks(grey)
    blank = n * (levels**2).sum(axis=2) - levels.sum(axis=2) ** 2 < (GLARE_DETAIL * n) ** 2
    white = blank & (least >= GLARE_LEVEL * n)
    return float(dark), bright, float(white.mean()) if white.size else 0.0


def _blocks(levels: np.ndarray) -> np.ndarray:
    """Split (h, w) levels into (rows, columns, pixels) int64 blocks; the remainder is left out."""
    rows, columns = (side // GLARE_BLOCK for side in levels.shape)
    cut = levels[: rows * GLARE_BLOCK, : columns * GLARE_BLOCK].astype(np.int64)
    return (
        cut.reshape(rows, GLARE_BLOCK, columns, GLARE_BLOCK)
        .transpose(0, 2, 1, 3)
        .reshape(rows, columns, GLARE_BLOCK**2)
    )


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
    """Yield (h, w) uint8 grey windows at the scale of the finest tiles, but never enlarged."""
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
    """Return pixels of the photo per pixel of the network's input, x and y, in the finest tiles."""
    _, _, tile_width, tile_height = next(
        images.tiles(width, height, tiles_per_side(spec, width, height))
    )
    return tile_width / spec.width, tile_height / spec.height


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


# ---------------------------------------------------------------- view


def view(copy: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Return ``tilt``, ``yaw`` and ``pitch`` of (h, w, 3) uint8 RGB in degrees, see `judge`.

    Boards and the edges of products are horizontal or vertical on the shelf. In an oblique photo,
    the
    horizontal ones meet in one vanishing point far outside the photo, and so do the vertical ones.
    Each
    vanishing point gives two angles of the camera. An angle is None if too few lines agree.
    """
    grey = cv2.cvtColor(copy, cv2.COLOR_RGB2GRAY)
    across, down = (
        cv2.Sobel(grey, cv2.CV_32F, *step, ksize=5).astype(np.int64) for step in ((1, 0), (0, 1))
    )
    focal, (height, width) = FOCAL_LENGTH * max(grey.shape), grey.shape
    level = _lines(across, down, width, height, focal)
    # Mirrored at the diagonal, vertical lines are horizontal.
    upright = _lines(down.T, across.T, height, width, focal)
    tilt, turn = _meeting_point(*level) if level else (None, None)
    _, nod = _meeting_point(*upright) if upright else (None, None)
    return tilt, None if turn is None else -turn, nod


def _lines(
    across: np.ndarray, down: np.ndarray, width: int, height: int, focal: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the strongest nearly horizontal edge of each cell; None if there are too few.

    Returns:
        (n, 2) positions x, y from the middle in focal lengths; (n, 2) unit gradients x, y.
    """
    # The kernel is 5 pixels wide, so the outermost two pixels depend on pixels outside the photo.
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
    strongest = cells.argmax(axis=2)
    row, column = np.nonzero(cells.max(axis=2) >= LEAST_EDGE**2)
    if len(row) < FEWEST_EDGES:
        return None
    within = strongest[row, column]
    y, x = row * step_y + within // step_x, column * step_x + within % step_x
    gradient = np.stack([gx[y, x], gy[y, x]], axis=1) / np.sqrt(strength[y, x])[:, None]
    return (np.stack([x, y], axis=1) + 2.5 - [width / 2, height / 2]) / focal, gradient


def _meeting_point(
    places: np.ndarray, gradients: np.ndarray
) -> tuple[float, float] | tuple[None, None]:
    """Return tilt and turn in degrees of the direction that most lines share.

    The search is coarse to fine. Both angles are None if too few lines agree.
    """
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
    """Return the share of lines that point to the vanishing point of each camera angle.

    Args:
        places: (n, 2) positions of the lines.
        gradients: (n, 2) unit gradients of the lines.
        angles: (k, 2) tilt and turn in radians.
        within: Sine of the maximum deviation. Lines count less, the larger their deviation is.

    Returns:
        (k,) float64 in [0, 1].
    """
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
    """Return ``product_size`` and ``product_pixels``, see `judge`; None if there are no boxes.

    Args:
        boxes: (n, 4) xyxy pixels of the photo.
        spec: Metadata of the model.
        width, height: Size of the photo in pixels.
    """
    if not len(boxes):
        return None, None
    across, down = _shrink(spec, width, height)
    pixels = float(np.median(np.sqrt(box_math.area(np.asarray(boxes, np.float64)))))
    return pixels / float(np.sqrt(across * down)), pixels
