"""Effects of light, lens and file format on the pixels of a photo.

Light is added, mixed and dimmed in linear light, where it is additive, and not in sRGB values.
Lengths of blur and grain are in pixels of a photo of `REFERENCE_SIDE` pixels along its longer side
and grow with the photo, so that the effect on a product does not depend on the size of the photo.
Images are (h, w, 3) uint8 RGB unless a function says otherwise.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.vision.images import decode_photo, encode_photo

# Default input size of the network in pixels.
REFERENCE_SIDE = 416
# Colour temperature of sRGB's white in kelvin (IEC 61966-2-1, D65).
WHITE_KELVIN = 6504.0
# XYZ to linear sRGB (IEC 61966-2-1), and the luminance of its primaries.
XYZ_TO_RGB = np.array(
    [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
)
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
# Reflections of lamps behind the photographer in glass: their number, their peak in linear light,
# their length over their width, and the light that counts as glare.
LAMPS, LAMP_PEAK, LAMP_ASPECT, WASHED_OUT = 3, 1.5, 4.0, 0.5
# Width of a shadow's edge as a share of the photo.
PENUMBRA = 0.04
# Light that a fogged or dirty pane scatters, as a share of white.
FOG_LIGHT = 0.7

_VALUES = np.arange(256) / 255
# Tables from sRGB to linear light and back (IEC 61966-2-1). The steps of the second table are
# far finer than a grey level, even in the shadows.
_TO_LIGHT = np.where(
    _VALUES <= 0.04045, _VALUES / 12.92, ((_VALUES + 0.055) / 1.055) ** 2.4
).astype(np.float32)
_STEPS = np.arange(65536) / 65535
_SRGB = np.where(_STEPS <= 0.0031308, 12.92 * _STEPS, 1.055 * _STEPS ** (1 / 2.4) - 0.055)
_FROM_LIGHT = (255 * _SRGB + 0.5).astype(np.uint8)


def to_light(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert uint8 sRGB to float32 linear light, 1 for white."""
    return _TO_LIGHT[image]


def from_light(light: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Convert float32 linear light to uint8 sRGB; values above white are clipped."""
    steps: NDArray[np.uint16] = (np.clip(light, 0, 1) * 65535 + 0.5).astype(np.uint16)
    return _FROM_LIGHT[steps]


def pixel(image: NDArray[np.uint8]) -> float:
    """Return the length of a reference pixel in pixels of this photo."""
    return float(max(image.shape[:2]) / REFERENCE_SIDE)


# ---------------------------------------------------------------- light


def with_gains(image: NDArray[np.uint8], gains: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Multiply the linear light of each channel by its entry of (3,) `gains`."""
    table = from_light(_TO_LIGHT[:, None] * np.asarray(gains, np.float32))
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def exposed(image: NDArray[np.uint8], stops: float) -> NDArray[np.uint8]:
    """Increase the exposure by `stops` EV; values above white are clipped."""
    return with_gains(image, np.full(3, 2.0**stops))


def kelvin_gains(kelvin: float) -> NDArray[np.float64]:
    """Return the gains of red, green and blue under a lamp of this colour temperature.

    The camera is set to daylight, and the luminance of white does not change.

    Args:
        kelvin: 2,222 to 25,000, the range of the fit of the Planckian locus by Kim et al. (US
            patent 7,024,034).

    Returns:
        (3,) gains in linear light.
    """

    def locus(t: float) -> NDArray[np.float64]:
        if t <= 4000:
            x = -0.2661239e9 / t**3 - 0.2343589e6 / t**2 + 0.8776956e3 / t + 0.179910
            y = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
        else:
            x = -3.0258469e9 / t**3 + 2.1070379e6 / t**2 + 0.2226347e3 / t + 0.240390
            y = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
        return np.asarray(XYZ_TO_RGB @ np.array([x / y, 1.0, (1 - x - y) / y]))

    return _as_bright(locus(kelvin) / locus(WHITE_KELVIN))


def lamp_colour(image: NDArray[np.uint8], kelvin: float) -> NDArray[np.uint8]:
    """Simulate a lamp of this colour temperature with the white balance set to daylight."""
    return with_gains(image, kelvin_gains(kelvin))


def green_cast(image: NDArray[np.uint8], stops: float) -> NDArray[np.uint8]:
    """Increase green against red and blue by `stops` EV, as under old fluorescent tubes."""
    return with_gains(image, _as_bright(np.array([1.0, 2.0**stops, 1.0])))


def _as_bright(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(gains / (LUMINANCE @ gains))


def across(image: NDArray[np.uint8], angle: float) -> NDArray[np.float32]:
    """Return a ramp along a direction.

    Args:
        image: Photo of the size of the ramp.
        angle: Direction in radians.

    Returns:
        (h, w) float32 from -0.5 to 0.5, which the ramp reaches in corners of the photo.
    """
    height, width = image.shape[:2]
    x, y = (
        np.arange(width, dtype=np.float32) - (width - 1) / 2,
        np.arange(height, dtype=np.float32) - (height - 1) / 2,
    )
    along = np.float32(np.cos(angle)) * x[None] + np.float32(np.sin(angle)) * y[:, None]
    return np.asarray(along / (2 * np.abs(along).max()))


def lit_from_one_side(
    image: NDArray[np.uint8], stops: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Simulate light from one side: it falls off by `stops` EV across the photo.

    The direction is random, and the brightness in the middle does not change.
    """
    gain = np.exp2(stops * across(image, rng.uniform(0, 2 * np.pi)))
    return from_light(to_light(image) * gain[:, :, None])


def shadowed(image: NDArray[np.uint8], stops: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Darken about half the photo by `stops` EV, in a random direction."""
    angle, edge = rng.uniform(0, 2 * np.pi), rng.uniform(-0.1, 0.1)
    shade = 1 / (1 + np.exp((across(image, angle) - edge) / (PENUMBRA / 4)))
    return from_light(to_light(image) * np.exp2(-stops * shade)[:, :, None])


def glared(image: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add reflections of lamps in glass.

    They add `WASHED_OUT` of white or more on `share` of the photo if they do not overlap and are
    completely in the photo.
    """
    height, width = image.shape[:2]
    # A Gaussian lamp exceeds WASHED_OUT on an ellipse of area 2 pi ln(peak / washed out) times both
    # sigmas.
    sigma = np.sqrt(
        share * height * width / (LAMPS * 2 * np.pi * np.log(LAMP_PEAK / WASHED_OUT) * LAMP_ASPECT)
    )
    x, y = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    light = np.zeros((height, width), np.float32)
    for _ in range(LAMPS):
        center_x, center_y, angle = (
            rng.uniform(0, width),
            rng.uniform(0, height),
            rng.normal(0, 0.3),
        )
        u = np.cos(angle) * (x - center_x) + np.sin(angle) * (y - center_y)
        v = np.cos(angle) * (y - center_y) - np.sin(angle) * (x - center_x)
        light += LAMP_PEAK * np.exp(-((u / (LAMP_ASPECT * sigma)) ** 2 + (v / sigma) ** 2) / 2)
    return from_light(to_light(image) + light[:, :, None])


def fogged(image: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Simulate fogged glass, which replaces `share` of the light by grey."""
    return from_light((1 - share) * to_light(image) + np.float32(share * FOG_LIGHT))


# ---------------------------------------------------------------- lens and file


def disc(diameter: float) -> NDArray[np.float32]:
    """Return the (k, k) float32 kernel of defocus blur, with a sum of 1.

    Args:
        diameter: Diameter of the disc in pixels. Its edge is anti-aliased in steps of 0.1 pixels.
    """
    size, fine = 2 * int(np.ceil(diameter / 2)) + 1, 10
    grid = (np.arange(size * fine) + 0.5) / fine - size / 2
    inside = (grid[None] ** 2 + grid[:, None] ** 2 <= (diameter / 2) ** 2).astype(np.float32)
    kernel = inside.reshape(size, fine, size, fine).mean(axis=(1, 3))
    return np.asarray(kernel / kernel.sum())


def streak(length: float, angle: float) -> NDArray[np.float32]:
    """Return the (k, k) float32 kernel of linear motion blur, with a sum of 1.

    Args:
        length: Length of the movement in pixels.
        angle: Direction of the movement in radians.
    """
    half = int(np.ceil(length / 2)) + 1
    steps = np.linspace(-length / 2, length / 2, 8 * (2 * half + 1))
    x, y = steps * np.cos(angle) + half, steps * np.sin(angle) + half
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx in (0, 1):
        for dy in (0, 1):
            np.add.at(
                kernel,
                (top + dy, left + dx),
                np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - top)),
            )
    return np.asarray(kernel / kernel.sum())


def blurred(image: NDArray[np.uint8], kernel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Filter a photo with a kernel in linear light; the photo is mirrored at its border."""
    light = cv2.filter2D(to_light(image), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return from_light(np.asarray(light, np.float32))


def defocused(image: NDArray[np.uint8], diameter: float) -> NDArray[np.uint8]:
    """Apply defocus blur: each point becomes a disc of `diameter` reference pixels."""
    return blurred(image, disc(diameter * pixel(image)))


def moved_by_hand(
    image: NDArray[np.uint8], length: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Apply motion blur of `length` reference pixels in a random direction."""
    return blurred(image, streak(length * pixel(image), rng.uniform(0, np.pi)))


def grain(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return (h, w, 3) float32 Gaussian noise with a standard deviation of 1.

    A grain is as large as a reference pixel, so that the noise remains when the photo is shrunk.
    """
    height, width = image.shape[:2]
    small = (max(1, round(height / pixel(image))), max(1, round(width / pixel(image))))
    noise = rng.standard_normal((*small, 3), dtype=np.float32)
    if small == (height, width):
        return noise
    enlarged = cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged, np.float32)


def noisy(image: NDArray[np.uint8], levels: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add noise with a standard deviation of `levels` sRGB levels.

    Photon noise grows with the square root of the light, which sRGB levels approximate; in sRGB
    levels it is therefore about the same at every brightness.
    """
    return np.clip(image + np.float32(levels) * grain(image, rng) + 0.5, 0, 255).astype(np.uint8)


def compressed(image: NDArray[np.uint8], quality: float) -> NDArray[np.uint8]:
    """Compress a photo as JPEG with this quality, 1 to 100, and decode it again."""
    return decode_photo(encode_photo(image, ".jpg", round(quality)), "recompressed photo")
