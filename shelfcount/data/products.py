"""Invented products for synthetic shelves: catalogue of classes, and drawing of one product.

A product is drawn as a flat texture, which is then wrapped around its shape and shaded. Adjacent
products of the catalogue look similar on purpose: the same brand as can and as bottle, the same can
in two flavours. The brands are invented.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.records import ShelfcountError

Colour = tuple[int, int, int]
MOST_CLASSES = 200
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
_DRINKS: dict[str, tuple[Colour, Colour, Colour]] = {
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
_CHIPS: dict[str, tuple[Colour, Colour, Colour]] = {
    "chips-red": ((200, 22, 26), (252, 214, 60), (240, 196, 90)),
    "chips-green": ((30, 130, 60), (250, 250, 240), (240, 200, 96)),
    "chips-blue": ((24, 84, 180), (250, 232, 120), (238, 194, 84)),
    "chips-yellow": ((250, 200, 24), (190, 30, 30), (236, 180, 70)),
    "chips-purple": ((108, 40, 130), (250, 220, 240), (230, 176, 80)),
    "chips-black": ((32, 30, 32), (230, 96, 24), (220, 150, 60)),
}
_DRY: dict[str, tuple[Colour, Colour, Colour]] = {
    "cereal": ((36, 130, 206), (254, 222, 70), (224, 156, 62)),
    "tea-leaf": ((196, 206, 150), (30, 84, 50), (84, 120, 50)),
    "cookie": ((240, 220, 186), (130, 60, 30), (150, 92, 46)),
    "cracker": ((214, 40, 44), (252, 240, 214), (226, 176, 96)),
    "rice": ((248, 246, 238), (206, 30, 44), (250, 246, 230)),
    "pasta": ((30, 62, 140), (250, 240, 220), (240, 204, 100)),
    "cocoa": ((98, 54, 30), (250, 214, 120), (70, 34, 18)),
    "muesli": ((130, 160, 70), (252, 246, 226), (190, 130, 70)),
}
_DAIRY: dict[str, tuple[Colour, Colour, Colour]] = {
    "milk": ((238, 244, 248), (30, 90, 180), (250, 250, 250)),
    "oat": ((236, 222, 190), (60, 90, 70), (206, 170, 110)),
    "apple-juice": ((120, 180, 40), (250, 250, 230), (180, 200, 60)),
    "tomato-juice": ((204, 40, 30), (240, 250, 230), (220, 50, 30)),
    "mango-juice": ((250, 170, 20), (30, 120, 60), (250, 180, 40)),
    "plum-juice": ((84, 34, 90), (240, 220, 240), (100, 30, 90)),
}
_SPREADS: dict[str, tuple[Colour, Colour, Colour]] = {
    "jam": ((250, 240, 226), (180, 20, 50), (140, 14, 34)),
    "honey": ((252, 214, 110), (90, 50, 14), (214, 130, 20)),
    "olive": ((60, 84, 40), (246, 240, 210), (110, 120, 50)),
    "pickle": ((36, 120, 70), (252, 246, 200), (120, 140, 60)),
    "mustard": ((240, 236, 220), (30, 60, 130), (214, 164, 30)),
    "pesto": ((250, 250, 240), (40, 110, 50), (80, 110, 40)),
}
_CARE: dict[str, tuple[Colour, Colour, Colour]] = {
    "cream": ((246, 240, 236), (190, 150, 110), (250, 236, 226)),
    "lotion": ((214, 232, 240), (40, 110, 160), (180, 214, 230)),
    "shampoo": ((60, 140, 120), (240, 250, 246), (120, 190, 170)),
    "balm": ((244, 196, 206), (150, 40, 80), (230, 150, 170)),
    "gel": ((30, 60, 110), (150, 220, 240), (90, 170, 220)),
    "scrub": ((226, 206, 170), (110, 70, 40), (190, 160, 120)),
}
# Families of products: things, the kinds in which they exist, and two invented brands.
_FAMILIES: tuple[
    tuple[dict[str, tuple[Colour, Colour, Colour]], tuple[str, ...], tuple[str, str]], ...
] = (
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
    colours: tuple[Colour, Colour, Colour]
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


def products(n: int, seed: int = 0) -> tuple[Product, ...]:
    """Return a catalogue of n distinct products.

    Args:
        n: Number of products, from 1 to `MOST_CLASSES`. A smaller catalogue is the beginning of a
            larger one with the same seed.
        seed: Seed of the order of the products and of their sizes.

    Returns:
        Products with distinct names.

    Raises:
        ShelfcountError: If n is out of range.
    """
    if not 1 <= n <= MOST_CLASSES:
        raise ShelfcountError(
            f"the number of classes of synthetic shelves must be from 1 to {MOST_CLASSES}, got {n}"
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
    family: tuple[dict[str, tuple[Colour, Colour, Colour]], tuple[str, ...], tuple[str, str]],
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


def sprite(product: Product, px_per_cm: int, variant: int) -> NDArray[np.uint8]:
    """Return the drawing of a product from the front, to be scaled down and pasted.

    Args:
        product: Product of a catalogue.
        px_per_cm: Resolution in pixels per cm. About twice the final resolution gives smooth edges
            after scaling down.
        variant: Index of the drawing, from 0 to `VARIANTS` - 1. It determines the rotation of the
            label and the tilt.

    Returns:
        (h, w, 4) uint8 RGBA, read-only. Alpha is the silhouette. The sides may have a few empty
        columns.
    """
    return (_small_sprite if px_per_cm <= 24 else _large_sprite)(product, px_per_cm, variant)


def _draw(product: Product, px_per_cm: int, variant: int) -> np.ndarray:
    """Return the drawing of a product, as `sprite` describes it, without a cache."""
    rng = np.random.default_rng([variant, *product.name.encode()])
    skin = _skin(product, px_per_cm)
    # Most labels face the front, as shop staff arrange them. The last two variants are rotated at
    # random, as customers put products back.
    turn = rng.normal(0, 0.04) if variant < VARIANTS - 2 else rng.uniform(-0.5, 0.5)
    image = (
        _wrap(product, skin, px_per_cm, turn)
        if product.shape.is_round
        else _fold(product, skin, px_per_cm, turn, rng)
    )
    if variant == VARIANTS - 1:
        image = _lean(image, rng.choice((-1, 1)) * rng.uniform(1.5, 4))
    image.setflags(write=False)
    return image


# The first cache has room for all sprites of the largest catalogue at the size of usual photos, of
# about 150 KB each. The second has room for few, since sprites for photos of many megapixels take
# up to 6 MB.
_small_sprite = lru_cache(maxsize=MOST_CLASSES * VARIANTS)(_draw)
_large_sprite = lru_cache(maxsize=96)(_draw)


def _size(product: Product, px_per_cm: int) -> tuple[int, int]:
    """Return (height, width) of a product in pixels, at least 8 each."""
    return max(8, round(product.height * px_per_cm)), max(8, round(product.width * px_per_cm))


def _half_widths(product: Product, height: int, width: int) -> np.ndarray:
    """Return the (height,) float32 half widths of the silhouette in pixels, slightly smoothed."""
    at, value = np.array(product.shape.profile, np.float32).T
    line = np.interp(np.linspace(0, 1, height), at, value).astype(np.float32)
    return cv2.blur(line[:, None], (1, max(1, height // 45)))[:, 0] * width / 2


def _wrap(product: Product, skin: np.ndarray, px_per_cm: int, turn: float) -> np.ndarray:
    """Return the drawing of a body of revolution, with the texture wrapped around it.

    Args:
        product: Product with a round shape.
        skin: (h, w, 3) uint8 RGB texture, from `_skin`.
        px_per_cm: Resolution in pixels per cm.
        turn: Rotation of the label, as a share of half the circumference.

    Returns:
        (h, w, 4) uint8 RGBA.
    """
    height, width = _size(product, px_per_cm)
    bow = 0.035 * width  # A camera slightly above the product sees circles as flat ellipses.
    rows = np.arange(round(height + bow), dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None] + 0.5
    half = _half_widths(product, height, width)
    centre = np.sqrt(np.clip(1 - ((columns - width / 2) / (width / 2)) ** 2, 0, 1))
    v = rows - bow * centre
    across = (columns - width / 2) / half[np.clip(v, 0, height - 1).astype(int)]
    inside = (np.abs(across) < 1) & (v >= -bow * 0.5) & (v < height)
    across = np.clip(across, -1, 1)
    angle = np.arcsin(across)
    # The texture covers half of the circumference and is repeated on the back.
    u = ((angle / math.pi + 0.5 + turn) % 1) * (skin.shape[1] - 1)
    image = cv2.remap(
        skin, u.astype(np.float32), np.clip(v, 0, height - 1).astype(np.float32), cv2.INTER_LINEAR
    ).astype(np.float32)
    gloss = product.shape.gloss
    shade = 0.42 + 0.62 * np.cos(np.clip(angle + 0.35, -1.5, 1.5)) ** (0.6 + 0.4 * gloss)
    shine = gloss * (
        105 * np.exp(-(((across + 0.5) / 0.1) ** 2)) + 60 * np.exp(-(((across - 0.7) / 0.06) ** 2))
    )
    # Highlights are weaker where the profile changes its width.
    shine *= np.clip(
        1.1 - 2.5 * np.abs(np.gradient(half))[np.clip(v, 0, height - 1).astype(int)], 0.25, 1
    )
    image = image * shade[..., None] + shine[..., None]
    return np.dstack([np.clip(image, 0, 255), inside * 255.0]).astype(np.uint8)


def _fold(
    product: Product, skin: np.ndarray, px_per_cm: int, turn: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the drawing of a box, carton or bag.

    A bag has creases. A box or carton shows part of its side, which depends on `turn`.

    Args:
        product: Product with a flat shape.
        skin: (h, w, 3) uint8 RGB texture, from `_skin`.
        px_per_cm: Resolution in pixels per cm.
        turn: Rotation; a positive value shows the right side.
        rng: Random generator of the creases.

    Returns:
        (h, w, 4) uint8 RGBA.
    """
    height, width = _size(product, px_per_cm)
    half: np.ndarray = _half_widths(product, height, width)
    columns = np.arange(width, dtype=np.float32)[None] + 0.5
    image: np.ndarray = skin.astype(np.float32)
    if product.kind == "bag":
        relief = cv2.resize(
            rng.normal(0, 1, (13, 8)).astype(np.float32),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        slope = (
            cv2.Sobel(relief, cv2.CV_32F, 1, 1, ksize=3) * width * height / 900
            + cv2.Sobel(relief, cv2.CV_32F, 1, 0) * width / 90
        )
        bulge = np.cos((columns / width - 0.38) * 2.5)
        image = (
            image * (0.5 + 0.5 * bulge + 0.06 * np.clip(slope, -2, 2))[..., None]
            + 16 * np.clip(slope - 1.1, 0, 2)[..., None]
        )
        wobble = cv2.resize(rng.normal(0, 1, (8, 1)).astype(np.float32), (1, height))[:, 0]
        half = half * (1 + 0.02 * wobble) - 0.02 * width
        for edge in (
            slice(0, round(0.045 * height)),
            slice(height - round(0.045 * height), height),
        ):
            image[edge] = (
                image[edge] * 0.82
                + 22 * np.sin(np.arange(edge.stop - edge.start) * 2.2)[:, None, None]
            )
    else:
        side = round(abs(turn) * 0.5 * width) if abs(turn) > 0.1 else max(1, round(0.012 * width))
        front = cv2.resize(skin, (width - side, height), interpolation=cv2.INTER_AREA)
        face = np.repeat(front[:, -1:] // 2 + skin[:, :1] // 8, side, axis=1)
        image = np.hstack([front, face] if turn > 0 else [face[:, ::-1], front]).astype(np.float32)
        image *= (
            np.linspace(1.07, 0.93, width)[None, :, None]
            * np.linspace(1.03, 0.9, height)[:, None, None]
        )
        image[: max(1, height // 90)] += 35
    inside = np.abs(columns - width / 2) < half[:, None]
    return np.dstack([np.clip(image, 0, 255), inside * 255.0]).astype(np.uint8)


def _lean(image: np.ndarray, degrees: float) -> np.ndarray:
    """Return the (h, w, 4) drawing rotated around the middle of its base, with wider sides."""
    height, width = image.shape[:2]
    pad = math.ceil(height * math.sin(math.radians(abs(degrees)))) + 1
    padded = cv2.copyMakeBorder(image, 0, 0, pad, pad, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    turn = cv2.getRotationMatrix2D((width / 2 + pad, float(height)), degrees, 1)
    return cv2.warpAffine(padded, turn, (width + 2 * pad, height))


@lru_cache(maxsize=512)
def _skin(product: Product, px_per_cm: int) -> np.ndarray:
    """Return the (h, w, 3) uint8 RGB texture of the front.

    For a round product it covers half of the circumference.
    """
    shape, (height, width) = product.shape, _size(product, px_per_cm)
    if shape.is_round:
        width = round(width * math.pi / 2)
    main, second, content = product.colours
    rng = np.random.default_rng([1, *product.name.encode()])
    skin = np.full(
        (height, width, 3),
        content if shape.is_clear else (196, 198, 202) if product.kind == "can" else main,
        np.uint8,
    )
    if shape.is_clear:
        # Uneven brightness of the content, and the empty part above it.
        streaks = cv2.resize(
            rng.normal(1, 0.22, (1, 14)).astype(np.float32),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        skin = np.clip(skin * streaks[..., None] + 14, 0, 255).astype(np.uint8)
        level = round(height * (shape.cap[1] + (0.11 if product.kind == "bottle" else 0.06)))
        skin[:level] = skin[:level] // 3 + 130
    top, bottom = (round(v * height) for v in shape.label)
    skin[top:bottom] = _label(product, bottom - top, width)
    top, bottom = (round(v * height) for v in shape.cap)
    if bottom > top:
        ridges = 1 + 0.12 * np.sign(
            np.sin(np.arange(width) * 2 * math.pi / max(3, px_per_cm * 0.3))
        )
        cap = np.array(second if product.kind != "canister" else (235, 235, 230)) * ridges[:, None]
        skin[top:bottom] = np.clip(cap, 0, 255).astype(np.uint8)
    return skin


def _label(product: Product, height: int, width: int) -> np.ndarray:
    """Return the printed part of a product as (height, width, 3) uint8 RGB.

    The brand determines the layout, the product its colours.
    """
    style = np.random.default_rng([2, *product.brand.encode()])
    main, second, content = product.colours
    art = _ground(int(style.integers(4)), main, second, height, width)
    size = min(height, width)
    # A tall label has its picture below the name, a wide label next to it.
    is_tall = height > 0.75 * width
    middle, name_y = (0.5 if is_tall else 0.42) * width, (0.3 if is_tall else 0.42) * height
    ink = (
        second
        if abs(sum(main) - sum(second)) > 150
        else (255, 255, 255)
        if sum(main) < 380
        else (20, 24, 40)
    )
    if product.kind not in ("tube", "tub", "pump-bottle"):
        _picture(
            art,
            product,
            (middle, 0.66 * height) if is_tall else (0.8 * width, 0.5 * height),
            0.2 * size,
            content,
        )
    emblem = style.integers(4)
    name_width = min((0.62 if is_tall else 0.52) * width, 2.6 * height)
    if emblem == 1:
        cv2.ellipse(
            art,
            (int(middle), int(name_y)),
            (int(name_width * 0.58), int(size * 0.2)),
            -8,
            0,
            360,
            ink,
            -1,
            cv2.LINE_AA,
        )
        ink = main
    elif emblem == 2:
        corners = np.array([(-0.6, 0.16), (0.6, 0.06), (0.6, -0.16), (-0.6, -0.06)]) * (
            name_width,
            size,
        ) + (middle, name_y)
        cv2.fillConvexPoly(art, corners.round().astype(int), ink, cv2.LINE_AA)
        ink = main
    font = int(
        style.choice(
            (
                cv2.FONT_HERSHEY_DUPLEX,
                cv2.FONT_HERSHEY_TRIPLEX,
                cv2.FONT_HERSHEY_COMPLEX,
                cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
            )
        )
    )
    write(art, product.brand, (middle, name_y), name_width, ink, font)
    ink = (
        (255, 255, 255)
        if sum(art[int(0.9 * (height - 1)), width // 2].tolist()) < 400
        else (30, 30, 40)
    )
    write(
        art,
        product.thing.replace("-", " ").upper(),
        (middle, 0.9 * height),
        0.34 * width,
        ink,
        cv2.FONT_HERSHEY_SIMPLEX,
    )
    _small_print(art, ink)
    return art


def _ground(style: int, main: Colour, second: Colour, height: int, width: int) -> np.ndarray:
    """Return the (height, width, 3) uint8 RGB background of a label in one of four styles."""
    art = np.full((height, width, 3), main, np.uint8)
    if style == 0:
        fade = np.linspace(1.15, 0.7, height)[:, None, None]
        art = np.clip(art * fade, 0, 255).astype(np.uint8)
    elif style == 1:
        x = np.arange(width)
        wave = (0.78 + 0.06 * np.sin(x / width * 2 * math.pi)) * height
        shore = np.concatenate([np.stack([x, wave], 1), [[width, height], [0, height]]])
        cv2.fillPoly(art, [shore.round().astype(np.int32)], second, cv2.LINE_AA)
    elif style == 2:
        for top in (0.06, 0.8):
            cv2.rectangle(
                art, (0, int(top * height)), (width, int((top + 0.05) * height)), second, -1
            )
    else:
        corners = np.array([(0.1, 1), (0.32, 1), (0.9, 0), (0.68, 0)]) * (width, height)
        lighter = tuple(int(0.72 * m + 0.28 * s) for m, s in zip(main, second, strict=True))
        cv2.fillConvexPoly(art, corners.round().astype(int), lighter, cv2.LINE_AA)
    return art


def _picture(
    art: np.ndarray, product: Product, centre: tuple[float, float], size: float, colour: Colour
) -> None:
    """Draw the content on a label: round fruit, or flat ellipses for chips and biscuits."""
    rng = np.random.default_rng([3, *product.thing.encode()])
    flat = 0.55 if product.kind in ("bag", "canister", "box") else 1.0
    for dx, dy in ((-0.9, 0.2), (0.9, 0.1), (-0.2, -0.5), (0.3, 0.55)):
        place = (int(centre[0] + dx * size), int(centre[1] + dy * size * flat))
        axes, turn = (
            (max(1, int(size * 0.72)), max(1, int(size * 0.72 * flat))),
            rng.uniform(-40, 40),
        )
        tone = rng.uniform(0.85, 1.15)
        for grow, light in ((1.0, 0.72), (0.88, 1.0), (0.4, 1.25)):
            body = tuple(min(255, int(c * tone * light + 10)) for c in colour)
            shift = int((1 - grow) * size * 0.25)
            reach = (max(1, int(axes[0] * grow)), max(1, int(axes[1] * grow)))
            cv2.ellipse(
                art,
                (place[0] - shift, place[1] - shift),
                reach,
                turn,
                0,
                360,
                body,
                -1,
                cv2.LINE_AA,
            )


def write(
    art: np.ndarray, text: str, centre: tuple[float, float], width: float, ink: Colour, font: int
) -> None:
    """Draw centred text of a given width; text of less than 6 pixels is illegible and left out.

    Args:
        art: (h, w, 3) uint8 RGB picture, changed in place.
        text: Text to draw.
        centre: (x, y) of the centre of the text, in pixels.
        width: Width of the text in pixels.
        ink: RGB colour.
        font: Font of OpenCV, such as ``cv2.FONT_HERSHEY_SIMPLEX``.
    """
    thick = max(1, round(width / len(text) / 5))
    (wide, high), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = width / wide
    if width >= 6:
        corner = (round(centre[0] - width / 2), round(centre[1] + high * scale / 2))
        cv2.putText(art, text, corner, font, scale, ink, thick, cv2.LINE_AA)


def _small_print(art: np.ndarray, ink: Colour) -> None:
    """Draw lines of ingredients and a bar code at the seam, visible on rotated products."""
    height, width = art.shape[:2]
    for line in range(6):
        y = int((0.3 + 0.05 * line) * height)
        cv2.line(
            art,
            (int(0.02 * width), y),
            (int((0.1 + 0.02 * (line % 3)) * width), y),
            ink,
            max(1, height // 120),
            cv2.LINE_AA,
        )
    left, right, top, bottom = (
        int(0.88 * width),
        int(0.98 * width),
        int(0.5 * height),
        int(0.66 * height),
    )
    art[top:bottom, left:right] = 245
    bars = np.random.default_rng(4).random(max(1, right - left)) < 0.5
    art[top + 1 : bottom - 1, left:right][:, bars[: right - left]] = 25
