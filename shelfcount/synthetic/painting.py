"""Painting of a laid-out synthetic shelf as a flat picture, before any camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.records import RGB, ShelfcountError
from shelfcount.synthetic.catalogue import Product
from shelfcount.synthetic.layout import (
    BLACK_PAINT,
    BLUE_PAINT,
    FURNITURE_LOOKS,
    RAIL_HEIGHT,
    WHITE_PAINT,
    FurnitureLook,
    Item,
    Layout,
    ShelfParams,
)
from shelfcount.synthetic.product_drawing import draw_product, draw_text
from shelfcount.words import plural

# Layer to its factors of size and brightness, as seen from the front.
_LAYERS = {-1: (0.93, 0.6), 0: (1.0, 1.0), 1: (1.04, 1.03)}
# Maximum side of an image that cv2.warpPerspective can read (SHRT_MAX - 1), and maximum number of
# items in int16.
_MAX_PLANE = 32766


@dataclass(frozen=True, eq=False)
class Plane:
    """Painted shelf.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        owner: (h, w) int16, index of the item that a pixel shows plus 1, or 0.
        hulls: Convex hull of each item, (k, 2) float64 x, y in continuous plane pixels.
        areas: (items,) int64, number of pixels of each item without occlusion.
        from_cm: (3, 3) float64 homography from cm of the layout to plane pixels.
    """

    image: NDArray[np.uint8]
    owner: NDArray[np.int16]
    hulls: tuple[NDArray[np.float64], ...]
    areas: NDArray[np.int64]
    from_cm: NDArray[np.float64]


class _Canvas:
    """Plane to paint on. Rectangles are (left, top, right, bottom) in cm."""

    def __init__(self, area: tuple[float, float, float, float], px_per_cm: float) -> None:
        self.scale = px_per_cm
        self.origin = np.array(area[:2])
        height, width = (
            math.ceil((area[3] - area[1]) * px_per_cm),
            math.ceil((area[2] - area[0]) * px_per_cm),
        )
        if max(height, width) > _MAX_PLANE:
            raise ShelfcountError(
                f"the synthetic shelf takes {width} x {height} pixels; the maximum is "
                f"{_MAX_PLANE} pixels per side. Use fewer views or smaller photos."
            )
        self.image = np.zeros((height, width, 3), np.uint8)
        self.owner = np.zeros((height, width), np.int16)

    def pixel(self, x: float, y: float) -> tuple[int, int]:
        """Return the nearest pixel (x, y) of a point in cm."""
        left, top = (np.array([x, y]) - self.origin) * self.scale
        return round(left), round(top)

    def window(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        """Return the rows and columns of a rectangle on the canvas."""
        (x0, y0), (x1, y1) = self.pixel(left, top), self.pixel(right, bottom)
        return slice(max(0, y0), max(0, y1)), slice(max(0, x0), max(0, x1))

    def fill(
        self,
        rectangle: tuple[float, float, float, float],
        colour: RGB,
        top: float = 1.0,
        bottom: float = 1.0,
    ) -> None:
        """Fill a rectangle with a colour whose brightness changes from `top` to `bottom`."""
        window = self.window(*rectangle)
        rows = self.image[window].shape[0]
        self.image[window] = np.clip(
            np.linspace(top, bottom, rows)[:, None, None] * colour, 0, 255
        ).astype(np.uint8)
        self.owner[window] = 0

    def shade(
        self, rectangle: tuple[float, float, float, float], top: float, bottom: float, reach: float
    ) -> None:
        """Multiply the brightness of a rectangle.

        The factor changes from `top` at the upper edge to `bottom` at the share `reach` of the
        height, and is constant below.
        """
        part = self.image[self.window(*rectangle)]
        if part.size:
            fall = np.interp(np.linspace(0, 1, part.shape[0]), (0, reach), (top, bottom)).astype(
                np.float32
            )
            cv2.multiply(
                part, np.broadcast_to(fall[:, None, None], part.shape).copy(), part, dtype=cv2.CV_8U
            )

    def texture(
        self,
        rectangle: tuple[float, float, float, float],
        grid: tuple[int, int],
        depth: float,
        rng: np.random.Generator,
    ) -> None:
        """Multiply a rectangle by smooth noise of strength `depth`.

        The noise has `grid` (rows, columns) knots.
        """
        part = self.image[self.window(*rectangle)]
        if part.size:
            noise = rng.normal(1, depth, (*grid, 1)) + rng.normal(0, depth / 4, (*grid, 3))
            cv2.multiply(
                part, cv2.resize(noise.astype(np.float32), part.shape[1::-1]), part, dtype=cv2.CV_8U
            )

    def text(self, text: str, x: float, y: float, width: float, ink: RGB) -> None:
        """Draw text of a width in cm, centred at x, y in cm."""
        draw_text(
            self.image, text, self.pixel(x, y), width * self.scale, ink, cv2.FONT_HERSHEY_DUPLEX
        )


def paint(
    layout: Layout,
    catalogue: Sequence[Product],
    params: ShelfParams,
    area: tuple[float, float, float, float],
    px_per_cm: float,
    rng: np.random.Generator,
) -> Plane:
    """Paint a shelf and its surroundings.

    Args:
        layout: Layout from `layout_shelf`.
        catalogue: Products to which the items of the layout refer.
        params: Parameters of the photo, of which the probability of occlusion is used.
        area: (left, top, right, bottom) of the painted area in cm.
        px_per_cm: Resolution of the plane in pixels per cm.
        rng: Random generator. The same state gives the same picture.

    Returns:
        Painted plane.

    Raises:
        ShelfcountError: If the shelf is too long for one plane.
    """
    if len(layout.items) > _MAX_PLANE:
        raise ShelfcountError(
            f"the synthetic shelf has {plural(len(layout.items), 'product')}; the maximum is "
            f"{_MAX_PLANE:,}. Use fewer views."
        )
    look = FURNITURE_LOOKS[layout.background]
    canvas = _Canvas(area, px_per_cm)
    brand = catalogue[layout.items[0].product].brand if layout.items else ""
    _paint_furniture(canvas, layout, look, area, brand, rng)
    rail = look.rails[rng.integers(len(look.rails))]
    guard = look.is_cooler and rng.random() < 0.35
    hulls: list[NDArray[np.float64]] = []
    areas: list[int] = []
    top = 0.0
    for row, floor in enumerate(layout.floors):
        for item in (item for item in layout.items if item.row == row):
            hull, pixels = _stamp(canvas, catalogue[item.product], item, len(hulls) + 1)
            hulls.append(hull)
            areas.append(pixels)
        canvas.shade((0, top, layout.width, floor), look.inside[0], look.inside[1], 0.5)
        _paint_rail(
            canvas, layout, row, floor, rail, guard, brand if look.is_cooler else "", params, rng
        )
        top = floor + RAIL_HEIGHT
    from_cm = np.array(
        [
            [px_per_cm, 0, -canvas.origin[0] * px_per_cm],
            [0, px_per_cm, -canvas.origin[1] * px_per_cm],
            [0, 0, 1],
        ]
    )
    return Plane(canvas.image, canvas.owner, tuple(hulls), np.array(areas, np.int64), from_cm)


def _stamp(
    canvas: _Canvas, product: Product, item: Item, number: int
) -> tuple[NDArray[np.float64], int]:
    """Paste a product with its shadow on the canvas.

    Args:
        canvas: Canvas, changed in place.
        product: Product to paste.
        item: Its place on the shelf.
        number: Value of its pixels in `Plane.owner`.

    Returns:
        (k, 2) float64 convex hull of the product in plane pixels, and its area in pixels.
    """
    size, gain = _LAYERS[item.layer]
    scale = canvas.scale * size
    # A few fixed resolutions, so that photos share cached sprites.
    master = round(16 * 2 ** (max(0, math.ceil(2 * math.log2(scale * 1.25 / 16))) / 2))
    drawn = draw_product(product, master, item.variant)
    width, height = (max(2, round(n * scale / master)) for n in drawn.shape[1::-1])
    small = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_LINEAR)
    # The sprite of a tilted product is wider than the product.
    middle, bottom = canvas.pixel(item.left + product.width / 2, item.bottom)
    pad = max(2, round(0.8 * scale))
    left, top = middle - width // 2, bottom - height
    inside = small[..., 3] > 127
    y = np.flatnonzero(inside.any(axis=1))
    first, last = inside[y].argmax(axis=1), width - inside[y, ::-1].argmax(axis=1)
    corners = np.concatenate(
        [np.stack((x, edge), axis=1) for x in (first, last) for edge in (y, y + 1)]
    ) + np.array([left, top])
    hull = cv2.convexHull(corners.astype(np.int32))

    alpha = cv2.copyMakeBorder(small[..., 3], pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    shadow = cv2.blur(cv2.blur(alpha, (pad | 1, pad | 1)), (pad | 1, pad | 1))
    through = cv2.multiply(255 - shadow // 2, 255 - alpha, scale=1 / 255)
    upper, outer = max(0, top - pad), max(0, left - pad)
    window = (slice(upper, max(0, bottom + pad)), slice(outer, max(0, left + width + pad)))
    ground = canvas.image[window]
    if ground.size:
        row, column = upper - top + pad, outer - left + pad
        cut = (slice(row, row + ground.shape[0]), slice(column, column + ground.shape[1]))
        colour = cv2.copyMakeBorder(small[..., :3], pad, pad, pad, pad, cv2.BORDER_CONSTANT)[cut]
        pasted = cv2.multiply(colour, cv2.merge([alpha[cut]] * 3), scale=gain * item.gain / 255)
        canvas.image[window] = cv2.add(
            cv2.multiply(ground, cv2.merge([through[cut]] * 3), scale=1 / 255), pasted
        )
        canvas.owner[window][alpha[cut] > 127] = number
    return hull[:, 0].astype(np.float64), int(inside.sum())


def _paint_furniture(
    canvas: _Canvas,
    layout: Layout,
    look: FurnitureLook,
    area: tuple[float, float, float, float],
    brand: str,
    rng: np.random.Generator,
) -> None:
    """Paint the surroundings, the frame and the inside of the empty shelf."""
    left, _, right, bottom = area
    frame = look.frames[rng.integers(len(look.frames))]
    side, head, base = (
        (5.0, rng.uniform(10, 24), rng.uniform(6, 14))
        if look.is_cooler
        else (2.5, rng.uniform(2, 8), rng.uniform(4, 9))
    )
    wall = int(rng.integers(60, 215))
    canvas.fill(area, (wall, wall, wall - 8), 0.9, 0.75)
    canvas.texture(area, (7, 9), 0.22, rng)
    ground = layout.height + base
    canvas.fill((left, ground, right, bottom), (130, 124, 116), 0.7, 1.1)
    canvas.texture((left, ground, right, bottom), (3, 12), 0.08, rng)
    canvas.fill((-side, -head, layout.width + side, ground), frame, 1.05, 0.85)
    canvas.shade((-side, 0, -side * 0.72, ground), 0.7, 0.7, 1)
    canvas.shade((layout.width + side * 0.72, 0, layout.width + side, ground), 0.7, 0.7, 1)
    if head > 8 and brand:
        canvas.text(
            brand.upper(),
            layout.width * rng.uniform(0.35, 0.65),
            -head / 2,
            4 * head,
            WHITE_PAINT if sum(frame) < 420 else BLUE_PAINT,
        )
    if look.is_cooler:
        # The open door.
        door = layout.width + side, layout.width + side + rng.uniform(14, 50)
        if rng.random() < 0.5:
            door = -door[1] + layout.width, -side
        canvas.fill((door[0], -2, door[1], layout.height + 2), frame, 0.8, 0.7)
        canvas.fill((door[0] + 3, 2, door[1] - 3, layout.height - 2), (172, 182, 188), 1.0, 0.7)
        canvas.texture((door[0] + 3, 2, door[1] - 3, layout.height - 2), (5, 6), 0.18, rng)
    inside = (0, 0, layout.width, layout.height)
    canvas.fill(inside, look.back, 0.95, 0.8)
    grid = (2, 3) if look.back != FURNITURE_LOOKS["wood"].back else (90, 3)
    canvas.texture(inside, grid, 0.07, rng)
    if look.is_cooler:
        for x in (0.0, layout.width - 1.2):
            canvas.fill((x, 0, x + 1.2, layout.height), (250, 252, 255))
    elif look.back == FURNITURE_LOOKS["metal"].back:
        for y in np.arange(2, layout.height, 2.5):
            for x in np.arange(2, layout.width, 5.0):
                canvas.image[canvas.window(x, y, x + 0.5, y + 0.9)] = 40
    for floor in layout.floors:
        # Upper side of the board, darker at the back.
        canvas.fill((0, floor - 2.6, layout.width, floor + 1), look.board, 0.55, 1.0)


def _paint_rail(
    canvas: _Canvas,
    layout: Layout,
    row: int,
    floor: float,
    rail: RGB,
    guard: bool,
    brand: str,
    params: ShelfParams,
    rng: np.random.Generator,
) -> None:
    """Paint the front of a board: price rail, price tags, wire guard and advertising cards."""
    top = floor + rng.uniform(-0.5, 0.5)
    if guard:
        for y in (floor - 4.2, floor - 2.2):
            canvas.image[canvas.window(0, y, layout.width, y + 0.22)] = 215
        for x in np.arange(1, layout.width, 5.5):
            canvas.image[canvas.window(x, floor - 4.2, x + 0.2, floor)] = 205
    canvas.fill((0, top, layout.width, floor + RAIL_HEIGHT), rail, 1.12, 0.84)
    canvas.fill((0, floor + RAIL_HEIGHT - 0.4, layout.width, floor + RAIL_HEIGHT), rail, 0.55, 0.45)
    if brand:
        for x in np.arange(9, layout.width - 6, 26):
            canvas.text(
                brand.upper(), x, floor + 1.6, 9, WHITE_PAINT if sum(rail) < 420 else BLUE_PAINT
            )
    paper = ((250, 250, 246), (252, 226, 70))[rng.integers(2)]
    for tag_row, left in layout.tags:
        if tag_row != row:
            continue
        price = f"{rng.integers(0, 9)}.{rng.choice((19, 29, 49, 79, 95, 99))}"
        if rng.random() < 0.85:
            canvas.fill((left, floor + 0.5, left + 5.4, floor + 3.0), paper, 1.0, 0.93)
            canvas.text(price, left + 3.5, floor + 1.8, 3.0, BLACK_PAINT)
            for line in range(3):
                canvas.fill(
                    (
                        left + 0.3,
                        floor + 0.9 + 0.6 * line,
                        left + 1.7 - 0.3 * (line % 2),
                        floor + 1.1 + 0.6 * line,
                    ),
                    (120, 120, 120),
                )
        if rng.random() < params.occlusion / 2:
            size, rise = rng.uniform(5, 9), rng.uniform(0.3, 0.8)
            card = (left, floor + 1 - rise * size, left + size, floor + 1 + (1 - rise) * size)
            canvas.fill(
                card, ((226, 30, 36), (252, 214, 30), (30, 120, 60))[rng.integers(3)], 1.05, 0.9
            )
            canvas.text(
                str(rng.choice(("-20%", "NEW", "2+1", price))),
                left + size / 2,
                (card[1] + card[3]) / 2,
                0.8 * size,
                WHITE_PAINT,
            )
