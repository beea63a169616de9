"""Layout of a synthetic shelf in cm, and its painting on a flat plane, before the camera."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.data.products import VARIANTS, Colour, Product, sprite, write
from shelfcount.records import ShelfcountError
from shelfcount.words import plural

BACKGROUNDS = ("cooler", "dark-cooler", "metal", "white", "wood")
# Width of an average facing. `facings` times this is the width of the shelf that a photo shows.
CM_PER_FACING = 8.0


@dataclass(frozen=True)
class ShelfParams:
    """Parameters of synthetic photos.

    Values are drawn uniformly from a range, angles from both directions up to their maximum.

    Attributes:
        width, height: Size of the photo in pixels.
        rows: Minimum and maximum number of shelf rows.
        facings: Minimum and maximum number of products side by side in a row, which is the density.
            A product counts as 8 cm.
        run: Minimum and maximum number of facings of the same product side by side.
        gap: Probability that a facing is out of stock.
        occlusion: Probability, per run, that something covers part of it.
        back_row: Probability that a facing has a second product behind it.
        stacked: Frequency of stacked products, from 0 to 1. A row has stacks with twice this
            probability.
        background: One of `BACKGROUNDS`, or None for a random one.
        yaw, pitch, tilt: Maximum angles of the camera in degrees: sideways, up or down, and rolled.
        light: Strength of uneven light, colour cast and glare, from 0 to 1.
        blur: Strength of defocus and motion blur, from 0 to 1.
        noise: Strength of sensor noise, from 0 to 1.
        jpeg: Minimum JPEG quality, from 20 to 100.

    Raises:
        ShelfcountError: If a parameter is out of range.
    """

    width: int = 1024
    height: int = 768
    rows: tuple[int, int] = (3, 5)
    facings: tuple[int, int] = (12, 20)
    run: tuple[int, int] = (1, 6)
    gap: float = 0.08
    occlusion: float = 0.1
    back_row: float = 0.6
    stacked: float = 0.25
    background: str | None = None
    yaw: float = 18.0
    pitch: float = 8.0
    tilt: float = 4.0
    light: float = 0.6
    blur: float = 0.5
    noise: float = 0.5
    jpeg: int = 60

    def __post_init__(self) -> None:
        whole = {
            "width": (64, 8192),
            "height": (64, 8192),
            "jpeg": (20, 100),
            "rows": (1, 12),
            "facings": (1, 80),
            "run": (1, 80),
        }
        pairs = ("rows", "facings", "run")
        real: dict[str, tuple[int, int]] = {"yaw": (0, 45), "pitch": (0, 30), "tilt": (0, 30)}
        real |= dict.fromkeys(
            ("gap", "occlusion", "back_row", "stacked", "light", "blur", "noise"), (0, 1)
        )
        for name, (low, high) in (whole | real).items():
            value = getattr(self, name)
            numbers = value if isinstance(value, (tuple, list)) else (value,)
            if not all(
                isinstance(v, int if name in whole else (int, float)) and low <= v <= high
                for v in numbers
            ):
                number = "a whole number" if name in whole else "a number"
                kind = "whole numbers" if name in pairs else number
                raise ShelfcountError(
                    f"{name} of synthetic shelves must be {kind} from {low} to {high}, got "
                    f"{value!r}"
                )
            if name in pairs and (len(numbers) != 2 or numbers[0] > numbers[1]):
                raise ShelfcountError(
                    f"{name} of synthetic shelves must be (minimum, maximum), got {value}"
                )
        if self.background is not None and self.background not in BACKGROUNDS:
            raise ShelfcountError(
                f"background of synthetic shelves must be one of {', '.join(BACKGROUNDS)}, got "
                f"'{self.background}'"
            )


@dataclass(frozen=True)
class Item:
    """One product on the shelf, in cm from the top left corner of the bay.

    Attributes:
        product: Index in the catalogue.
        row: Row of the shelf; 0 is the top row.
        left, bottom: Left edge and base of the product.
        layer: -1 behind the front row, 0 in it, 1 in front of it.
        variant: Index of the drawing, see `products.sprite`.
        gain: Factor of the brightness.
    """

    product: int
    row: int
    left: float
    bottom: float
    layer: int
    variant: int
    gain: float


# Layer to its factors of size and brightness, as seen from the front.
_LAYERS = {-1: (0.93, 0.6), 0: (1.0, 1.0), 1: (1.04, 1.03)}
# Maximum side of an image that cv2.warpPerspective can read (SHRT_MAX - 1), and maximum number of
# items in int16.
_LARGEST_PLANE = 32766
_KINDS_IN_COOLERS = ("can", "bottle", "glass-bottle", "big-bottle", "carton")
# Height of the front of a shelf board with its price rail, in cm.
_RAIL = 3.5


@dataclass(frozen=True)
class Layout:
    """Layout of a whole shelf in cm.

    Attributes:
        background: One of `BACKGROUNDS`.
        width, height: Size of the bay.
        floors: Distance of each row's board from the top of the bay.
        items: Products in painting order, row by row and from back to front.
        tags: (row, left) of each price tag.
    """

    background: str
    width: float
    height: float
    floors: tuple[float, ...]
    items: tuple[Item, ...]
    tags: tuple[tuple[int, float], ...]


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


def lay_out(
    catalogue: Sequence[Product], params: ShelfParams, width: float, rng: np.random.Generator
) -> Layout:
    """Return a random layout of products on a shelf.

    Args:
        catalogue: Products to choose from.
        params: Parameters of the shelf.
        width: Width of the shelf in cm.
        rng: Random generator. The same state gives the same layout.

    Returns:
        Layout in cm.
    """
    n_rows = int(rng.integers(params.rows[0], params.rows[1] + 1))
    background = params.background or str(rng.choice(BACKGROUNDS))
    pool = rng.permutation(len(catalogue))
    if _LOOKS[background].is_cooler:
        drinks = pool[[catalogue[i].kind in _KINDS_IN_COOLERS for i in pool]]
        pool = drinks if len(drinks) >= 3 else pool
    pool = pool[: max(3, 4 * n_rows)]
    # The distance of shelf boards is adapted to the products, so products of similar height are in
    # the same row.
    pool = pool[np.argsort([catalogue[i].height + rng.normal(0, 3) for i in pool])]
    items: list[Item] = []
    tags: list[tuple[int, float]] = []
    floors: list[float] = []
    floor = 0.0
    for row in range(n_rows):
        choice = pool[min(len(pool) * row // n_rows, len(pool) - 1) :][
            : max(2, math.ceil(len(pool) / n_rows))
        ]
        stacks = rng.random() < 2 * params.stacked
        floor += max(
            catalogue[i].height * (2 if stacks and catalogue[i].stacks else 1) for i in choice
        ) + rng.uniform(3, 6)
        floors.append(floor)
        for left, facings, index in _runs(catalogue, choice, params, width, rng):
            tags.append(
                (row, left + rng.uniform(0, max(0.1, facings * catalogue[index].width - 6)))
            )
            for x, rise, layer in _places(catalogue[index], left, facings, stacks, params, rng):
                items.append(
                    Item(
                        index,
                        row,
                        x,
                        floor - rise,
                        layer,
                        int(rng.integers(VARIANTS)),
                        rng.uniform(0.94, 1.05),
                    )
                )
        floor += _RAIL
    items.sort(key=lambda item: (item.row, item.layer))
    return Layout(background, width, floor, tuple(floors), tuple(items), tuple(tags))


def _runs(
    catalogue: Sequence[Product],
    choice: np.ndarray,
    params: ShelfParams,
    width: float,
    rng: np.random.Generator,
) -> Iterator[tuple[float, int, int]]:
    """Yield (left in cm, number of facings, product index) of each run in a row."""
    left = rng.uniform(0, 1.5)
    while True:
        fitting = [i for i in choice if catalogue[i].width * 1.02 <= width - left]
        if not fitting:
            return
        product = int(rng.choice(fitting))
        step = catalogue[product].width * 1.02
        facings = min(
            int(rng.integers(params.run[0], params.run[1] + 1)), int((width - left) / step)
        )
        yield left, facings, product
        left += facings * step + rng.uniform(0, 1.2)


def _places(
    product: Product,
    left: float,
    facings: int,
    stacks: bool,
    params: ShelfParams,
    rng: np.random.Generator,
) -> Iterator[tuple[float, float, int]]:
    """Yield (left, height above the board, layer) of each product of a run, in cm."""
    step = product.width * 1.02
    for x in left + step * np.arange(facings):
        if rng.random() < params.back_row:
            yield x + rng.uniform(-0.1, 0.25) * step, rng.uniform(1.2, 2.0), -1
        if rng.random() < params.gap:
            continue
        x += rng.normal(0, 0.012) * step
        rise = rng.uniform(-0.3, 0.5)
        yield x, rise, 0
        if stacks and product.stacks and rng.random() < 0.7:
            yield x + rng.normal(0, 0.02) * step, rise + 0.97 * product.height, 0
    if rng.random() < params.occlusion / 2:
        yield rng.uniform(left, left + (facings - 0.5) * step), -0.9, 1


@dataclass(frozen=True)
class _Look:
    """Colours of a piece of shop furniture.

    Attributes:
        back: Colour of the back wall.
        board: Colour of the shelf boards.
        rails: Possible colours of the price rails.
        frames: Possible colours of the frame.
        inside: Brightness at the top of a row, and from the middle of the row down.
        is_cooler: True for a cooler with a door.
    """

    back: Colour
    board: Colour
    rails: tuple[Colour, ...]
    frames: tuple[Colour, ...]
    inside: tuple[float, float]
    is_cooler: bool = False


_WHITE, _SILVER, _BLACK, _BLUE, _RED, _GREEN = (
    (236, 236, 234),
    (186, 188, 190),
    (30, 30, 34),
    (28, 64, 150),
    (176, 24, 30),
    (30, 110, 60),
)
_LOOKS = {
    "cooler": _Look(
        (214, 220, 226),
        (200, 206, 212),
        (_BLUE, _RED, _WHITE, _GREEN),
        (_BLUE, _WHITE, _RED, _SILVER),
        (0.9, 1.0),
        True,
    ),
    "dark-cooler": _Look(
        (44, 46, 52),
        (70, 72, 78),
        (_BLACK, _BLUE, _SILVER),
        (_BLACK, (60, 62, 66)),
        (0.62, 0.9),
        True,
    ),
    "metal": _Look(
        (176, 176, 172),
        (196, 196, 194),
        (_SILVER, _WHITE, (240, 206, 60)),
        (_SILVER, (110, 112, 116)),
        (0.55, 1.0),
    ),
    "white": _Look(
        (226, 224, 218), (234, 232, 228), (_WHITE, (240, 206, 60), _RED), (_WHITE,), (0.66, 1.0)
    ),
    "wood": _Look(
        (150, 112, 74), (172, 130, 88), ((120, 84, 52), _WHITE), ((124, 88, 56),), (0.58, 1.0)
    ),
}


class _Canvas:
    """Plane to paint on. Rectangles are (left, top, right, bottom) in cm."""

    def __init__(self, area: tuple[float, float, float, float], px_per_cm: float) -> None:
        self.scale = px_per_cm
        self.origin = np.array(area[:2])
        height, width = (
            math.ceil((area[3] - area[1]) * px_per_cm),
            math.ceil((area[2] - area[0]) * px_per_cm),
        )
        if max(height, width) > _LARGEST_PLANE:
            raise ShelfcountError(
                f"the synthetic shelf takes {width} x {height} pixels; the maximum is "
                f"{_LARGEST_PLANE} pixels per side. Use fewer views or smaller photos."
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
        colour: Colour,
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

    def text(self, text: str, x: float, y: float, width: float, ink: Colour) -> None:
        """Draw text of a width in cm, centred at x, y in cm."""
        write(self.image, text, self.pixel(x, y), width * self.scale, ink, cv2.FONT_HERSHEY_DUPLEX)


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
        layout: Layout from `lay_out`.
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
    if len(layout.items) > _LARGEST_PLANE:
        raise ShelfcountError(
            f"the synthetic shelf has {plural(len(layout.items), 'product')}; the maximum is "
            f"{_LARGEST_PLANE:,}. Use fewer views."
        )
    look = _LOOKS[layout.background]
    canvas = _Canvas(area, px_per_cm)
    brand = catalogue[layout.items[0].product].brand if layout.items else ""
    _paint_furniture(canvas, layout, look, area, brand, rng)
    rail = look.rails[rng.integers(len(look.rails))]
    guard = look.is_cooler and rng.random() < 0.35
    hulls: list[np.ndarray] = []
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
        top = floor + _RAIL
    from_cm = np.array(
        [
            [px_per_cm, 0, -canvas.origin[0] * px_per_cm],
            [0, px_per_cm, -canvas.origin[1] * px_per_cm],
            [0, 0, 1],
        ]
    )
    return Plane(canvas.image, canvas.owner, tuple(hulls), np.array(areas, np.int64), from_cm)


def _stamp(canvas: _Canvas, product: Product, item: Item, number: int) -> tuple[np.ndarray, int]:
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
    drawn = sprite(product, master, item.variant)
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
    look: _Look,
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
            _WHITE if sum(frame) < 420 else _BLUE,
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
    grid = (2, 3) if look.back != _LOOKS["wood"].back else (90, 3)
    canvas.texture(inside, grid, 0.07, rng)
    if look.is_cooler:
        for x in (0.0, layout.width - 1.2):
            canvas.fill((x, 0, x + 1.2, layout.height), (250, 252, 255))
    elif look.back == _LOOKS["metal"].back:
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
    rail: Colour,
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
    canvas.fill((0, top, layout.width, floor + _RAIL), rail, 1.12, 0.84)
    canvas.fill((0, floor + _RAIL - 0.4, layout.width, floor + _RAIL), rail, 0.55, 0.45)
    if brand:
        for x in np.arange(9, layout.width - 6, 26):
            canvas.text(brand.upper(), x, floor + 1.6, 9, _WHITE if sum(rail) < 420 else _BLUE)
    paper = ((250, 250, 246), (252, 226, 70))[rng.integers(2)]
    for tag_row, left in layout.tags:
        if tag_row != row:
            continue
        price = f"{rng.integers(0, 9)}.{rng.choice((19, 29, 49, 79, 95, 99))}"
        if rng.random() < 0.85:
            canvas.fill((left, floor + 0.5, left + 5.4, floor + 3.0), paper, 1.0, 0.93)
            canvas.text(price, left + 3.5, floor + 1.8, 3.0, _BLACK)
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
                _WHITE,
            )
