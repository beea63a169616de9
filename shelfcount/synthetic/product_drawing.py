"""Drawing of synthetic products: a flat label, wrapped around the product's shape and shaded."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from shelfcount.records import RGB
from shelfcount.synthetic.catalogue import CATALOGUE_SIZE, VARIANTS, Product


def draw_product(product: Product, px_per_cm: int, variant: int) -> NDArray[np.uint8]:
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


def _draw(product: Product, px_per_cm: int, variant: int) -> NDArray[np.uint8]:
    """Return the drawing of a product, as `draw_product` describes it, without a cache."""
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
_small_sprite = lru_cache(maxsize=CATALOGUE_SIZE * VARIANTS)(_draw)
_large_sprite = lru_cache(maxsize=96)(_draw)


def _size(product: Product, px_per_cm: int) -> tuple[int, int]:
    """Return (height, width) of a product in pixels, at least 8 each."""
    return max(8, round(product.height * px_per_cm)), max(8, round(product.width * px_per_cm))


def _half_widths(product: Product, height: int, width: int) -> NDArray[np.float32]:
    """Return the (height,) float32 half widths of the silhouette in pixels, slightly smoothed."""
    at, value = np.array(product.shape.profile, np.float32).T
    line = np.interp(np.linspace(0, 1, height), at, value).astype(np.float32)
    smooth = cv2.blur(line[:, None], (1, max(1, height // 45)))[:, 0]
    return np.asarray(smooth * width / 2, np.float32)


def _wrap(
    product: Product, skin: NDArray[np.uint8], px_per_cm: int, turn: float
) -> NDArray[np.uint8]:
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
    product: Product, skin: NDArray[np.uint8], px_per_cm: int, turn: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
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
    half: NDArray[np.floating] = _half_widths(product, height, width)
    columns = np.arange(width, dtype=np.float32)[None] + 0.5
    image: NDArray[np.floating] = skin.astype(np.float32)
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


def _lean(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Return the (h, w, 4) drawing rotated around the middle of its base, with wider sides."""
    height, width = image.shape[:2]
    pad = math.ceil(height * math.sin(math.radians(abs(degrees)))) + 1
    padded = cv2.copyMakeBorder(image, 0, 0, pad, pad, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    turn = cv2.getRotationMatrix2D((width / 2 + pad, float(height)), degrees, 1)
    return np.asarray(cv2.warpAffine(padded, turn, (width + 2 * pad, height)), np.uint8)


@lru_cache(maxsize=512)
def _skin(product: Product, px_per_cm: int) -> NDArray[np.uint8]:
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


def _label(product: Product, height: int, width: int) -> NDArray[np.uint8]:
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
    draw_text(art, product.brand, (middle, name_y), name_width, ink, font)
    ink = (
        (255, 255, 255)
        if sum(art[int(0.9 * (height - 1)), width // 2].tolist()) < 400
        else (30, 30, 40)
    )
    draw_text(
        art,
        product.thing.replace("-", " ").upper(),
        (middle, 0.9 * height),
        0.34 * width,
        ink,
        cv2.FONT_HERSHEY_SIMPLEX,
    )
    _small_print(art, ink)
    return art


def _ground(style: int, main: RGB, second: RGB, height: int, width: int) -> NDArray[np.uint8]:
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
    art: NDArray[np.uint8], product: Product, centre: tuple[float, float], size: float, colour: RGB
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


def draw_text(
    art: NDArray[np.uint8],
    text: str,
    centre: tuple[float, float],
    width: float,
    ink: RGB,
    font: int,
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


def _small_print(art: NDArray[np.uint8], ink: RGB) -> None:
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
