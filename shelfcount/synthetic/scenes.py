"""Synthetic shelf photos with exact labels: camera views of a painted shelf.

A shelf is one plane, so one homography is exact for all products of a photo; products behind
the front row show no parallax.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections, ShelfcountError
from shelfcount.synthetic.catalogue import Product
from shelfcount.synthetic.layout import CM_PER_FACING, Layout, ShelfParams, layout_shelf
from shelfcount.synthetic.painting import Plane, paint
from shelfcount.vision import boxes as box_math
from shelfcount.vision.effects import compressed
from shelfcount.vision.homography import warp

# Minimum visible share of a product. Below the first, it is marked `ignore`; below the second, it
# is not labelled.
LABEL_VISIBLE = 0.3
MIN_IGNORED = 0.1


@dataclass(frozen=True, eq=False)
class Scene:
    """Synthetic photo with its ground truth.

    Coordinates are continuous: pixel i covers [i, i + 1), for boxes and the homography.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        truth: Labelled products. A box is the extent of the whole product, including hidden parts,
            cut at the border of the photo.
        rows: (n,) int64, shelf row. 0 is the top row with a labelled product in this photo.
        positions: (n,) int64, position in the row from the left, by box centre; -1 for `ignore`
            boxes.
        items: (n,) int64, index of the physical product, the same in all views of a shelf.
        visible: (n,) float32, share of the product's area that is visible in the photo.
        plane_boxes: (n, 4) float32, xyxy, pixels of the shelf plane.
        homography: (3, 3) float64, from the shelf plane to the photo.
    """

    image: NDArray[np.uint8]
    truth: Detections
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    items: NDArray[np.int64]
    visible: NDArray[np.float32]
    plane_boxes: NDArray[np.float32]
    homography: NDArray[np.float64]


def render(catalogue: Sequence[Product], params: ShelfParams, rng: np.random.Generator) -> Scene:
    """Render one photo of one shelf.

    Args:
        catalogue: Products. The index of a product is its class in the ground truth.
        params: Parameters of the photo.
        rng: Random generator. The same state gives the same photo.

    Returns:
        Photo with its ground truth.

    Raises:
        ShelfcountError: If the catalogue is empty, or the shelf is too large to be painted.
    """
    return render_views(catalogue, params, rng, 1)[0]


def render_views(
    catalogue: Sequence[Product],
    params: ShelfParams,
    rng: np.random.Generator,
    n: int,
    overlap: float = 0.4,
) -> list[Scene]:
    """Render overlapping photos of one long shelf, from left to right.

    A product in two photos a and b has the same index in `items`. The homography
    ``b.homography @ inv(a.homography)`` maps it from a to b.

    Args:
        catalogue: Products. The index of a product is its class in the ground truth.
        params: Parameters of each photo. `facings` is the number in one photo; the shelf is longer.
        rng: Random generator. The same state gives the same photos.
        n: Number of photos.
        overlap: Share of a photo's width that the next photo shows too.

    Returns:
        Photos with their ground truth, from left to right.

    Raises:
        ShelfcountError: If the catalogue is empty, n is below 1, the overlap is not from 0 to 0.9,
            or the shelf is too large to be painted in one piece.
    """
    if not catalogue:
        raise ShelfcountError(
            "the catalogue of synthetic shelves is empty. Give at least 1 product."
        )
    if n < 1:
        raise ShelfcountError(f"views of synthetic shelves must be at least 1, got {n}")
    if not 0 <= overlap <= 0.9:
        raise ShelfcountError(f"overlap of synthetic shelves must be from 0 to 0.9, got {overlap}")
    seen = int(rng.integers(params.facings[0], params.facings[1] + 1)) * CM_PER_FACING
    seen = max(seen, 1.5 + 1.02 * max(p.width for p in catalogue))
    step = seen * (1 - overlap)
    layout = layout_shelf(catalogue, params, seen + step * (n - 1), rng)
    cameras = [
        _camera((step * i, step * i + seen), layout.height, params, 0.5 if n == 1 else 0.0, rng)
        for i in range(n)
    ]
    # The plane has a slightly higher resolution than the photo, so that the warp does not blur.
    px_per_cm = 1.1 * max(
        _magnification(camera, step * i + seen / 2, layout.height / 2)
        for i, camera in enumerate(cameras)
    )
    plane = paint(layout, catalogue, params, _seen_area(cameras, layout, params), px_per_cm, rng)
    return [
        _photograph(plane, camera @ np.linalg.inv(plane.from_cm), layout, params, rng)
        for camera in cameras
    ]


def _camera(
    span: tuple[float, float],
    height: float,
    params: ShelfParams,
    crop: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return a random camera as a (3, 3) float64 homography from cm on the shelf to the photo.

    Args:
        span: (left, right) in cm of the part of the shelf to show.
        height: Height of the shelf in cm.
        params: Size of the photo and maximum angles of the camera.
        crop: Maximum share by which the camera is closer than needed to show the whole part: 0
            shows all of it, 1 fills the photo with the shelf and cuts the rest off.
        rng: Random generator of angles, distance and shift.
    """
    yaw, pitch, tilt = (
        math.radians(rng.uniform(-a, a)) for a in (params.yaw, params.pitch, params.tilt)
    )
    turn = (
        cv2.Rodrigues(np.array([0, 0, tilt]))[0]
        @ cv2.Rodrigues(np.array([pitch, 0, 0]))[0]
        @ cv2.Rodrigues(np.array([0, yaw, 0]))[0]
    )
    x, y = (span[0] + span[1]) / 2, height / 2
    # The field of view of a phone's main camera is about 65 degrees. The larger side of the shelf
    # fills most of it.
    distance = 1.1 * max(span[1] - span[0], height)
    view = np.column_stack([turn[:, 0], turn[:, 1], (0, 0, distance)]) @ np.array(
        [[1, 0, -x], [0, 1, -y], [0, 0, 1.0]]
    )
    corners = _map([(span[0], 0), (span[1], 0), (span[1], height), (span[0], height)], view)
    low, high = corners.min(axis=0), corners.max(axis=0)
    fit = np.sort((params.width, params.height) / (high - low))
    zoom = fit[0] * (fit[1] / fit[0]) ** (crop * rng.random()) * rng.uniform(0.9, 1.04)
    shift = (np.array([params.width, params.height]) - zoom * (low + high)) / 2 + rng.normal(
        0, 0.015, 2
    ) * params.width
    return np.asarray(np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]], [0, 0, 1]]) @ view)


def _map(
    points: Sequence[tuple[float, float]] | NDArray[np.float64], homography: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (n, 2) float64 points x, y after a (3, 3) homography."""
    flat = np.asarray(points, np.float64).reshape(1, -1, 2)
    return np.asarray(cv2.perspectiveTransform(flat, homography)[0], np.float64)


def _magnification(camera: NDArray[np.float64], x: float, y: float) -> float:
    """Return the photo's pixels per cm around a point of the shelf, given in cm."""
    here, right, below = _map([(x, y), (x + 1, y), (x, y + 1)], camera)
    return math.sqrt(abs(float(np.linalg.det(np.array([right - here, below - here])))))


def _seen_area(
    cameras: Sequence[NDArray[np.float64]], layout: Layout, params: ShelfParams
) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) in cm of the area that the photos show.

    The area ends at most 80 cm, or the height of the shelf if that is more, beyond the shelf.
    """
    frame = [(0, 0), (params.width, 0), (params.width, params.height), (0, params.height)]
    beyond = max(80.0, layout.height)
    limit = (-beyond, -beyond, layout.width + beyond, layout.height + beyond)
    rays = np.concatenate(
        [
            np.array([(*corner, 1.0) for corner in frame]) @ np.linalg.inv(camera).T
            for camera in cameras
        ]
    )
    # The ray of a corner above the horizon does not meet the plane.
    if np.ptp(np.sign(rays[:, 2])) > 0:
        return limit
    x, y = (rays[:, :2] / rays[:, 2:]).T
    return (
        max(limit[0], x.min() - 1),
        max(limit[1], y.min() - 1),
        min(limit[2], x.max() + 1),
        min(limit[3], y.max() + 1),
    )


def _photograph(
    plane: Plane,
    homography: NDArray[np.float64],
    layout: Layout,
    params: ShelfParams,
    rng: np.random.Generator,
) -> Scene:
    """Return the photo of a painted shelf with its ground truth.

    Args:
        plane: Painted shelf.
        homography: (3, 3) float64, from plane pixels to photo pixels.
        layout: Layout of the shelf.
        params: Parameters of the photo.
        rng: Random generator of blur, light and noise.
    """
    size = (params.width, params.height)
    clean = warp(plane.image, homography, size, cv2.BORDER_REPLICATE)
    owner = warp(plane.owner, homography, size, interpolation=cv2.INTER_NEAREST)
    shown = np.bincount(owner.ravel(), minlength=len(plane.hulls) + 1)[1:]

    seen = []
    for item in np.flatnonzero(shown):
        hull = plane.hulls[item]
        outline = _map(hull, homography).astype(np.float32)
        # Area of the whole product in a photo without borders: the area of its hull, times the
        # share of the hull that the product fills on the plane.
        whole = (
            cv2.contourArea(outline) * plane.areas[item] / cv2.contourArea(hull.astype(np.float32))
        )
        share = min(1.0, shown[item] / max(whole, 1.0))
        if share >= MIN_IGNORED:
            box = (*outline.min(axis=0), *outline.max(axis=0))
            seen.append((int(item), share, box, (*hull.min(axis=0), *hull.max(axis=0))))
    items = np.array([s[0] for s in seen], np.int64)
    visible = np.array([s[1] for s in seen], np.float32)
    ignore = (visible < LABEL_VISIBLE) | np.array([layout.items[i].layer < 0 for i in items], bool)
    boxes = box_math.clip(np.array([s[2] for s in seen], np.float32).reshape(-1, 4), *size)
    truth = Detections(boxes, [layout.items[i].product for i in items], ignore=ignore)
    rows, positions = _places([layout.items[i].row for i in items], boxes, ignore)
    return Scene(
        _develop(np.asarray(clean, np.uint8), params, rng),
        truth,
        rows,
        positions,
        items,
        visible,
        np.array([s[3] for s in seen], np.float32).reshape(-1, 4),
        homography,
    )


def _places(
    shelf: Sequence[int], boxes: NDArray[np.floating], ignore: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and positions of boxes as `Scene` defines them.

    Args:
        shelf: Index of the shelf row of each box.
        boxes: (n, 4) xyxy, pixels of the photo.
        ignore: (n,) bool.

    Returns:
        (n,) int64 rows and (n,) int64 positions.
    """
    shelves = np.asarray(shelf, np.int64)
    labelled = np.unique(shelves[~ignore])
    # Ignored boxes on a row without a labelled product get the index of the next labelled row
    # below.
    rows = np.searchsorted(labelled, shelves)
    positions = np.full(len(shelves), -1, np.int64)
    for row in range(len(labelled)):
        members = np.flatnonzero((rows == row) & ~ignore)
        order = np.argsort(boxes[members, 0] + boxes[members, 2], kind="stable")
        positions[members[order]] = np.arange(len(members))
    return rows, positions


def _develop(
    image: NDArray[np.uint8], params: ShelfParams, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return an (h, w, 3) uint8 picture with the effects of lens, light, sensor and JPEG.

    Blur, light and noise act on sRGB levels and on coarse maps, which is cheap. The effects of
    `vision.effects` act in linear light, as robustness tests need for their stated severities.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    # With a shorter side of 768 pixels and full strength, defocus has a sigma of up to 1.5 pixels,
    # and motion blur a length of up to 6 pixels.
    sigma = 0.002 * side * params.blur * rng.random() ** 2
    if sigma > 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    length = round(0.008 * side * params.blur * rng.random() ** 2)
    if length > 1:
        kernel = np.zeros((length * 2 + 1, length * 2 + 1), np.float32)
        angle = rng.uniform(0, math.pi)
        reach = length / 2 * np.array([math.cos(angle), math.sin(angle)])
        start, end = ((length + sign * reach).round().astype(int).tolist() for sign in (-1, 1))
        cv2.line(kernel, start, end, 1.0)
        image = np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)

    gain, glare = (
        cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR)
        for m in _light(params.light, rng)
    )
    picture = image.astype(np.float32)
    cv2.multiply(picture, gain, picture)
    cv2.add(picture, cv2.merge([glare] * 3), picture)
    if params.noise:
        # Phones smooth colour noise more than brightness noise, so colour noise is coarser.
        strength = 9 * params.noise * rng.random()
        fine = rng.standard_normal((height, width), np.float32) * strength
        coarse = rng.standard_normal((height // 4 + 1, width // 4 + 1, 3), np.float32) * (
            0.6 * strength
        )
        cv2.add(picture, cv2.merge([fine] * 3), picture)
        cv2.add(picture, cv2.resize(coarse, (width, height)), picture)
    developed = np.clip(picture, 0, 255, out=picture).astype(np.uint8)
    quality = int(rng.integers(params.jpeg, 101))
    return compressed(developed, quality)


def _light(
    strength: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return coarse random light maps of a photo.

    Args:
        strength: Strength from 0 to 1.
        rng: Random generator.

    Returns:
        (24, 32, 3) float32 factors, and (24, 32) float32 grey levels to add.
    """
    y, x = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 32), indexing="ij")
    angle = rng.uniform(0, 2 * math.pi)
    fall = 1 + strength * (
        0.35 * rng.random() * (x * math.cos(angle) + y * math.sin(angle))
        - 0.22 * rng.random() * (x**2 + y**2)
    )
    warmth = strength * rng.normal(0, 0.08)
    tint = np.array([1 + warmth, 1 + strength * rng.normal(0, 0.025), 1 - warmth])
    gain = fall[..., None] * tint * (1 + strength * rng.uniform(-0.35, 0.22))
    glare = np.full(x.shape, strength * rng.uniform(0, 14))
    for _ in range(int(rng.integers(0, 3))):
        # Reflection of a lamp or window in a cooler's door or in foil.
        centre, size = rng.uniform(-1, 1, 2), rng.uniform(0.1, 0.5, 2)
        glare += (
            strength
            * rng.uniform(10, 110)
            * np.exp(-(((x - centre[0]) / size[0]) ** 2) - ((y - centre[1]) / size[1]) ** 2)
        )
    return gain.astype(np.float32), glare.astype(np.float32)
