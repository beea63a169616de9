"""Layout of synthetic shelves: which product is where, in cm, and the furniture around it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import RGB, ShelfcountError
from shelfcount.synthetic.catalogue import VARIANTS, Product

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
        variant: Index of the drawing, see `product_drawing.draw_product`.
        gain: Factor of the brightness.
    """

    product: int
    row: int
    left: float
    bottom: float
    layer: int
    variant: int
    gain: float


_KINDS_IN_COOLERS = ("can", "bottle", "glass-bottle", "big-bottle", "carton")
# Height of the front of a shelf board with its price rail, in cm.
RAIL_HEIGHT = 3.5


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


def layout_shelf(
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
    if FURNITURE_LOOKS[background].is_cooler:
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
        floor += RAIL_HEIGHT
    items.sort(key=lambda item: (item.row, item.layer))
    return Layout(background, width, floor, tuple(floors), tuple(items), tuple(tags))


def _runs(
    catalogue: Sequence[Product],
    choice: NDArray[np.int64],
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
class FurnitureLook:
    """Colours of a piece of shop furniture.

    Attributes:
        back: Colour of the back wall.
        board: Colour of the shelf boards.
        rails: Possible colours of the price rails.
        frames: Possible colours of the frame.
        inside: Brightness at the top of a row, and from the middle of the row down.
        is_cooler: True for a cooler with a door.
    """

    back: RGB
    board: RGB
    rails: tuple[RGB, ...]
    frames: tuple[RGB, ...]
    inside: tuple[float, float]
    is_cooler: bool = False


WHITE_PAINT, SILVER_PAINT, BLACK_PAINT, BLUE_PAINT, RED_PAINT, GREEN_PAINT = (
    (236, 236, 234),
    (186, 188, 190),
    (30, 30, 34),
    (28, 64, 150),
    (176, 24, 30),
    (30, 110, 60),
)
FURNITURE_LOOKS = {
    "cooler": FurnitureLook(
        (214, 220, 226),
        (200, 206, 212),
        (BLUE_PAINT, RED_PAINT, WHITE_PAINT, GREEN_PAINT),
        (BLUE_PAINT, WHITE_PAINT, RED_PAINT, SILVER_PAINT),
        (0.9, 1.0),
        True,
    ),
    "dark-cooler": FurnitureLook(
        (44, 46, 52),
        (70, 72, 78),
        (BLACK_PAINT, BLUE_PAINT, SILVER_PAINT),
        (BLACK_PAINT, (60, 62, 66)),
        (0.62, 0.9),
        True,
    ),
    "metal": FurnitureLook(
        (176, 176, 172),
        (196, 196, 194),
        (SILVER_PAINT, WHITE_PAINT, (240, 206, 60)),
        (SILVER_PAINT, (110, 112, 116)),
        (0.55, 1.0),
    ),
    "white": FurnitureLook(
        (226, 224, 218),
        (234, 232, 228),
        (WHITE_PAINT, (240, 206, 60), RED_PAINT),
        (WHITE_PAINT,),
        (0.66, 1.0),
    ),
    "wood": FurnitureLook(
        (150, 112, 74), (172, 130, 88), ((120, 84, 52), WHITE_PAINT), ((124, 88, 56),), (0.58, 1.0)
    ),
}
