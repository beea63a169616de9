"""Catalogue of invented products for synthetic shelves: classes, shapes, sizes and brands.

Neighbours in the catalogue look alike on purpose: one brand as can and as bottle, one can in
two flavours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shelfcount.records import RGB, ShelfcountError

CATALOGUE_SIZE = 200
# Number of drawings of one product, which differ in the rotation of the label and in tilt.
VARIANTS = 6


@dataclass(frozen=True)
class Shape:
    """Shape and material of one kind of product.

    Attributes:
        height, width: Typical size in cm.
        profile: (height, half width) pairs from top (0) to bottom (1). A half width of 1 is the
            maximum.
        label: (top, bottom) of the printed part, as shares of the height.
        cap: (top, bottom) of the closure, as shares of the height; equal if there is none.
        gloss: Strength of the highlights, from 0 (cardboard) to 1 (polished metal).
        is_round: True if the product is a body of revolution, False if it is flat.
        is_clear: True if the content is visible outside of the label.
    """

    height: float
    width: float
    profile: tuple[tuple[float, float], ...]
    label: tuple[float, float] = (0.0, 1.0)
    cap: tuple[float, float] = (0.0, 0.0)
    gloss: float = 0.5
    is_round: bool = True
    is_clear: bool = False


_CAN = ((0, 0.8), (0.03, 0.82), (0.11, 1), (0.93, 1), (0.985, 0.86), (1, 0.8))
_PET = (
    (0, 0.38), (0.08, 0.4), (0.085, 0.44), (0.1, 0.44), (0.11, 0.37), (0.15, 0.4), (0.24, 0.7),
    (0.34, 0.97), (0.42, 1), (0.6, 0.97), (0.68, 1), (0.8, 0.94), (0.9, 1), (0.98, 0.98), (1, 0.9),
)  # fmt: skip
_LONG_NECK = (
    (0, 0.42),
    (0.05, 0.44),
    (0.06, 0.38),
    (0.3, 0.44),
    (0.4, 0.62),
    (0.48, 0.94),
    (0.54, 1),
    (0.97, 1),
    (1, 0.92),
)
_JAR = ((0, 0.9), (0.02, 0.94), (0.17, 0.94), (0.18, 0.88), (0.26, 1), (0.95, 1), (1, 0.92))
_TUBE = ((0, 1), (0.06, 1), (0.5, 0.97), (0.86, 0.86), (0.87, 0.72), (1, 0.72))
_PUMP = (
    (0, 0.34), (0.06, 0.34), (0.061, 0.12), (0.12, 0.12), (0.121, 0.4), (0.2, 0.4), (0.21, 0.36),
    (0.26, 0.7), (0.32, 1), (0.97, 1), (1, 0.95),
)  # fmt: skip

SHAPES: dict[str, Shape] = {
    "can": Shape(12.2, 6.6, _CAN, (0.04, 0.975), gloss=0.9),
    "bottle": Shape(21.5, 6.8, _PET, (0.4, 0.69), (0, 0.085), 0.7, is_clear=True),
    "glass-bottle": Shape(23.0, 6.2, _LONG_NECK, (0.56, 0.86), (0, 0.055), 0.9, is_clear=True),
    "big-bottle": Shape(31.0, 9.0, _PET, (0.42, 0.66), (0, 0.06), 0.7, is_clear=True),
    "bag": Shape(
        23.0,
        16.0,
        ((0, 0.97), (0.05, 0.96), (0.3, 1), (0.7, 1), (0.95, 0.96), (1, 0.97)),
        gloss=0.6,
        is_round=False,
    ),
    "canister": Shape(
        23.0,
        7.6,
        ((0, 0.97), (0.045, 1), (0.05, 0.96), (0.985, 0.96), (1, 1)),
        (0.05, 0.98),
        (0, 0.05),
        0.4,
    ),
    "box": Shape(20.0, 13.0, ((0, 1), (1, 1)), gloss=0.1, is_round=False),
    "carton": Shape(
        20.5,
        7.4,
        ((0, 0.96), (0.06, 0.96), (0.07, 0.98), (0.16, 1), (1, 1)),
        gloss=0.2,
        is_round=False,
    ),
    "jar": Shape(11.0, 7.6, _JAR, (0.34, 0.86), (0, 0.175), 0.8, is_clear=True),
    "tub": Shape(
        6.2,
        7.4,
        ((0, 1), (0.35, 1), (0.36, 0.95), (0.97, 0.9), (1, 0.86)),
        (0.38, 0.98),
        (0, 0.35),
        0.5,
    ),
    "tube": Shape(16.5, 6.0, _TUBE, (0.06, 0.86), (0.865, 1), 0.4),
    "pump-bottle": Shape(20.0, 7.0, _PUMP, (0.32, 0.97), (0, 0.21), 0.5),
}

# Thing to its main colour, second colour, and colour of the content or its picture.
_DRINKS: dict[str, tuple[RGB, RGB, RGB]] = {
    "cola": ((176, 18, 30), (245, 240, 232), (38, 16, 10)),
    "lemon": ((250, 208, 20), (40, 120, 50), (240, 228, 110)),
    "orange": ((242, 112, 14), (255, 245, 225), (250, 148, 30)),
    "lime": ((40, 160, 60), (250, 240, 90), (150, 205, 80)),
    "cherry": ((120, 12, 60), (250, 190, 205), (150, 10, 40)),
    "water": ((40, 110, 200), (240, 248, 252), (206, 224, 232)),
    "tea": ((24, 72, 44), (222, 186, 92), (164, 88, 26)),
    "energy": ((22, 24, 30), (120, 230, 40), (196, 190, 50)),
    "grape": ((88, 44, 140), (226, 206, 244), (70, 20, 84)),
    "peach": ((250, 160, 120), (200, 40, 70), (246, 170, 96)),
    "berry": ((206, 30, 90), (250, 236, 240), (180, 16, 60)),
    "tonic": ((228, 232, 234), (26, 60, 120), (220, 232, 232)),
    "coffee": ((92, 58, 36), (240, 222, 190), (74, 42, 22)),
    "cream-soda": ((246, 232, 204), (170, 40, 40), (236, 214, 170)),
}
_CHIPS: dict[str, tuple[RGB, RGB, RGB]] = {
    "chips-red": ((200, 22, 26), (252, 214, 60), (240, 196, 90)),
    "chips-green": ((30, 130, 60), (250, 250, 240), (240, 200, 96)),
    "chips-blue": ((24, 84, 180), (250, 232, 120), (238, 194, 84)),
    "chips-yellow": ((250, 200, 24), (190, 30, 30), (236, 180, 70)),
    "chips-purple": ((108, 40, 130), (250, 220, 240), (230, 176, 80)),
    "chips-black": ((32, 30, 32), (230, 96, 24), (220, 150, 60)),
}
_DRY: dict[str, tuple[RGB, RGB, RGB]] = {
    "cereal": ((36, 130, 206), (254, 222, 70), (224, 156, 62)),
    "tea-leaf": ((196, 206, 150), (30, 84, 50), (84, 120, 50)),
    "cookie": ((240, 220, 186), (130, 60, 30), (150, 92, 46)),
    "cracker": ((214, 40, 44), (252, 240, 214), (226, 176, 96)),
    "rice": ((248, 246, 238), (206, 30, 44), (250, 246, 230)),
    "pasta": ((30, 62, 140), (250, 240, 220), (240, 204, 100)),
    "cocoa": ((98, 54, 30), (250, 214, 120), (70, 34, 18)),
    "muesli": ((130, 160, 70), (252, 246, 226), (190, 130, 70)),
}
_DAIRY: dict[str, tuple[RGB, RGB, RGB]] = {
    "milk": ((238, 244, 248), (30, 90, 180), (250, 250, 250)),
    "oat": ((236, 222, 190), (60, 90, 70), (206, 170, 110)),
    "apple-juice": ((120, 180, 40), (250, 250, 230), (180, 200, 60)),
    "tomato-juice": ((204, 40, 30), (240, 250, 230), (220, 50, 30)),
    "mango-juice": ((250, 170, 20), (30, 120, 60), (250, 180, 40)),
    "plum-juice": ((84, 34, 90), (240, 220, 240), (100, 30, 90)),
}
_SPREADS: dict[str, tuple[RGB, RGB, RGB]] = {
    "jam": ((250, 240, 226), (180, 20, 50), (140, 14, 34)),
    "honey": ((252, 214, 110), (90, 50, 14), (214, 130, 20)),
    "olive": ((60, 84, 40), (246, 240, 210), (110, 120, 50)),
    "pickle": ((36, 120, 70), (252, 246, 200), (120, 140, 60)),
    "mustard": ((240, 236, 220), (30, 60, 130), (214, 164, 30)),
    "pesto": ((250, 250, 240), (40, 110, 50), (80, 110, 40)),
}
_CARE: dict[str, tuple[RGB, RGB, RGB]] = {
    "cream": ((246, 240, 236), (190, 150, 110), (250, 236, 226)),
    "lotion": ((214, 232, 240), (40, 110, 160), (180, 214, 230)),
    "shampoo": ((60, 140, 120), (240, 250, 246), (120, 190, 170)),
    "balm": ((244, 196, 206), (150, 40, 80), (230, 150, 170)),
    "gel": ((30, 60, 110), (150, 220, 240), (90, 170, 220)),
    "scrub": ((226, 206, 170), (110, 70, 40), (190, 160, 120)),
}
# Families of products: things, the kinds in which they exist, and two invented brands.
_FAMILIES: tuple[tuple[dict[str, tuple[RGB, RGB, RGB]], tuple[str, ...], tuple[str, str]], ...] = (
    (_DRINKS, ("can", "bottle", "glass-bottle", "big-bottle"), ("Zuvvo", "Plimka")),
    (_CHIPS, ("bag", "canister"), ("Krunzo", "Tavelli")),
    (_DRY, ("box", "bag"), ("Orbelo", "Hindra")),
    (_DAIRY, ("carton",), ("Molvik", "Savenna")),
    (_SPREADS, ("jar",), ("Dorwin", "Pelluca")),
    (_CARE, ("tube", "pump-bottle", "tub", "box"), ("Lumiva", "Noreya")),
)


@dataclass(frozen=True)
class Product:
    """One class of products.

    Attributes:
        name: Unique in its catalogue, such as ``lemon-bottle``.
        kind: Key of `SHAPES`.
        thing: Type of product, printed on the label.
        brand: Brand, printed on the label. The layout of the label is derived from it.
        colours: Main colour, second colour, and colour of the content, as RGB.
        height, width: Size in cm.
    """

    name: str
    kind: str
    thing: str
    brand: str
    colours: tuple[RGB, RGB, RGB]
    height: float
    width: float

    @property
    def shape(self) -> Shape:
        """Shape of the product's kind."""
        return SHAPES[self.kind]

    @property
    def stacks(self) -> bool:
        """True if products of this kind can be stacked on each other."""
        return self.height < 14 and self.kind in ("can", "box", "jar", "tub")


def make_catalogue(n: int, seed: int = 0) -> tuple[Product, ...]:
    """Return a catalogue of n distinct products.

    Args:
        n: Number of products, from 1 to `CATALOGUE_SIZE`. A smaller catalogue is the beginning of a
            larger one with the same seed.
        seed: Seed of the order of the products and of their sizes.

    Returns:
        Products with distinct names.

    Raises:
        ShelfcountError: If n is out of range.
    """
    if not 1 <= n <= CATALOGUE_SIZE:
        raise ShelfcountError(
            "the number of classes of synthetic shelves must be from 1 to "
            f"{CATALOGUE_SIZE}, got {n}"
        )
    rng = np.random.default_rng(seed)
    families = [list(_family(family, rng, series)) for series in (0, 1) for family in _FAMILIES]
    chosen: list[Product] = []
    while len(chosen) < n:
        # Four products of a family at a time, often two flavours in two kinds, which a detector has
        # to distinguish. Products of the second brands, whose names contain the brand, have a lower
        # weight.
        weight = np.array(
            [len(f) * (8 if i < len(_FAMILIES) else 1) for i, f in enumerate(families)], float
        )
        family = families[rng.choice(len(families), p=weight / weight.sum())]
        chosen += family[:4]
        del family[:4]
    return tuple(chosen[:n])


def _family(
    family: tuple[dict[str, tuple[RGB, RGB, RGB]], tuple[str, ...], tuple[str, str]],
    rng: np.random.Generator,
    series: int,
) -> Iterator[Product]:
    """Yield the products of a family in random order, with the first (0) or second (1) brand."""
    things, kinds, brands = family
    order = rng.permutation(list(things))
    for pair in zip(order[::2], order[1::2], strict=True):
        for kind in kinds:
            for thing in map(str, pair):
                shape = SHAPES[kind]
                # Boxes of care products contain a tube and are smaller. Sizes vary by a few
                # percent.
                size = (0.62 if kind == "box" and things is _CARE else 1.0) * rng.uniform(
                    0.94, 1.06
                )
                name = f"{thing}-{kind}" if series == 0 else f"{brands[1].lower()}-{thing}-{kind}"
                colours = (
                    things[thing]
                    if series == 0
                    else (things[thing][1], things[thing][0], things[thing][2])
                )
                yield Product(
                    name,
                    kind,
                    thing,
                    brands[series],
                    colours,
                    shape.height * size,
                    shape.width * size,
                )
