"""Simulated phone cameras: lens, sensor and image processing at a given illuminance.

The cameras are three classes of hardware, not particular phones. Their values are typical of data
sheets of such parts. Noise and blur follow from aperture, sensor and exposure by the laws of
optics; the image processing is a simple approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.vision.effects import (
    REFERENCE_SIDE,
    blurred,
    compressed,
    from_light,
    grain,
    kelvin_gains,
    pixel,
    streak,
    to_light,
)

# Electrons per lux second and square micrometre: photons of 555 nm (683 lumen per watt), half of
# which a pixel behind its colour filter detects.
ELECTRONS = 4090 / 2
# Exposure in lux seconds that saturates the sensor at ISO 100 (ISO 12232, saturation based).
FULL_SCALE = 0.78
# Reflectance of a white label, and transmittance of a lens.
WHITE, TRANSMISSION = 0.9, 0.9
# Angular speed of a phone in the hand of a person who walks along the shelf, and the angle of
# view in degrees, that of a lens of 26 mm.
DEGREES_PER_SECOND, FIELD_OF_VIEW = 6.0, 69.0
# Light, as a share of white, below which the noise no longer decreases; otherwise the image
# processing would produce black spots.
DARK = 1e-3
# Linear light of mid-grey, and the slope of the sRGB levels there: the derivative of
# 255 light^(1 / 2.2).
MID_GREY = 0.18
LEVELS_A_LIGHT = 255 / 2.2 * MID_GREY ** (1 / 2.2 - 1)


@dataclass(frozen=True)
class Camera:
    """Lens, sensor and image processing of a phone. Pixels are reference pixels, see `effects`.

    Attributes:
        aperture: f-number of the lens.
        sensor: Width of the sensor in micrometres.
        pitch: Size of a sensor pixel in micrometres.
        read_noise: Read noise in electrons per pixel.
        longest: Maximum exposure time in seconds.
        steadied: Share of the hand's movement that remains after stabilization.
        most_gain: Maximum amplification, relative to ISO 100. Photos in less light get dark.
        softness: Standard deviation of the lens blur in pixels.
        vignetting: Light falloff in the corners in EV.
        fringe: Chromatic aberration: displacement of red and blue against green in the corners, in
            pixels.
        smoothing: Strength of the noise reduction, in standard deviations of the noise.
        sharpening: Share of the detail that sharpening adds to the photo.
        saturation: Factor for the saturation of colours.
        kelvin: Colour temperature of the cast that remains after white balance.
        quality: Quality of the JPEG files.
    """

    aperture: float
    sensor: float
    pitch: float
    read_noise: float
    longest: float
    steadied: float
    most_gain: float
    softness: float
    vignetting: float
    fringe: float
    smoothing: float
    sharpening: float
    saturation: float
    kelvin: float
    quality: int

    def take(
        self, image: NDArray[np.uint8], lux: float, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Return the photo as this phone would have taken it.

        Args:
            image: (h, w, 3) uint8 RGB, used as the scene.
            lux: Illuminance on the shelf. Shops have 300 to 1,000, a cooler with a broken lamp 30.
            rng: Generator for the direction of the hand's movement and for the noise.

        Returns:
            (h, w, 3) uint8 RGB.
        """
        on_sensor = lux * WHITE * TRANSMISSION / (4 * self.aperture**2)
        seconds = min(self.longest, FULL_SCALE / on_sensor)
        exposure = on_sensor * seconds
        gain = min(self.most_gain, FULL_SCALE / exposure)
        length = DEGREES_PER_SECOND * seconds * self.steadied * REFERENCE_SIDE / FIELD_OF_VIEW
        angle = rng.uniform(0, np.pi)
        shaken = blurred(image, streak(length * pixel(image), angle))
        brightness = exposure * gain / FULL_SCALE
        light = self._through_lens(to_light(shaken)) * np.float32(brightness)
        return self._processed(*self._read_out(light, brightness, exposure, grain(image, rng)))

    def _through_lens(self, light: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = light.shape[:2]
        scale = max(height, width) / REFERENCE_SIDE
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), self.softness * scale), np.float32)
        reach = np.hypot(height, width) / 2
        y, x = (
            np.arange(height, dtype=np.float32)[:, None] - height / 2,
            np.arange(width, dtype=np.float32)[None] - width / 2,
        )
        light = light * np.exp2(-self.vignetting * (x**2 + y**2) / reach**2)[:, :, None].astype(
            np.float32
        )
        for channel, sign in ((0, 1), (2, -1)):
            zoom = 1 + sign * self.fringe * scale / reach
            warp = np.array([[zoom, 0, (1 - zoom) * width / 2], [0, zoom, (1 - zoom) * height / 2]])
            light[:, :, channel] = cv2.warpAffine(
                light[:, :, channel], warp, (width, height), borderMode=cv2.BORDER_REFLECT_101
            )
        return light

    def _read_out(
        self,
        light: NDArray[np.float32],
        brightness: float,
        exposure: float,
        noise: NDArray[np.float32],
    ) -> tuple[NDArray[np.floating], float]:
        """Return linear light with noise, and the standard deviation of the noise at mid-grey.

        Args:
            light: (h, w, 3) float32 linear light, 1 for white.
            brightness: Linear value of a white label.
            exposure: Exposure of a white label in lux seconds.
            noise: (h, w, 3) float32 noise with a standard deviation of 1.

        Returns:
            (h, w, 3) linear light; standard deviation in sRGB levels.
        """
        side = self.sensor / REFERENCE_SIDE
        # Light per electron, and the read noise of all sensor pixels of one reference pixel.
        step = brightness / (ELECTRONS * side**2 * exposure)
        read = self.read_noise * side / self.pitch
        spread = np.sqrt(np.maximum(light, DARK) * step + (read * step) ** 2)
        at_mid_grey = float(np.sqrt(MID_GREY * step + (read * step) ** 2))
        return light + spread * noise, float(at_mid_grey * LEVELS_A_LIGHT)

    def _processed(self, light: NDArray[np.floating], levels: float) -> NDArray[np.uint8]:
        picture = from_light(light * kelvin_gains(self.kelvin).astype(np.float32))
        scale = pixel(picture)
        if self.smoothing * levels > 0.5:
            smooth = cv2.bilateralFilter(
                picture, 2 * round(1.5 * scale) + 1, self.smoothing * levels, scale
            )
            picture = np.asarray(smooth, np.uint8)
        values = picture.astype(np.float32)
        grey = values.mean(axis=2, keepdims=True)
        values = grey + self.saturation * (values - grey)
        values += self.sharpening * (values - cv2.GaussianBlur(values, (0, 0), 1.2 * scale))
        return compressed(np.clip(values + 0.5, 0, 255).astype(np.uint8), self.quality)


# Sensors of 1/1.3, 1/2.55 and 1/4 inch: the main cameras of expensive, of mid-range and of cheap
# or old phones.
CAMERAS = {
    "large_sensor": Camera(
        1.8, 9800, 1.2, 1.5, 1 / 15, 0.3, 64, 0.25, 0.3, 0.1, 1.0, 0.15, 1.05, 6200, 92
    ),
    "medium_sensor": Camera(
        1.8, 5600, 1.4, 2.0, 1 / 15, 0.6, 48, 0.45, 0.7, 0.3, 2.0, 0.5, 1.15, 5600, 80
    ),
    "small_sensor": Camera(
        2.4, 3600, 1.12, 2.5, 1 / 12, 1.0, 32, 0.8, 1.2, 0.8, 3.0, 1.0, 1.25, 5000, 60
    ),
}
