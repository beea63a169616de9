"""Photos as arrays: read upright, stretch to the network's input, cut into tiles, write whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from shelfcount.records import ShelfcountError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# A photo of more pixels than any phone takes is refused before it fills the memory.
MOST_PIXELS = 250_000_000


def read_photo(path: Path | str) -> np.ndarray:
    """A photo as the person who took it saw it, EXIF orientation applied.

    Args:
        path: JPEG, PNG, WebP, BMP or TIFF.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ShelfcountError: If the file is missing, no photo, cut short or larger than `MOST_PIXELS`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ShelfcountError(f"cannot read photo '{path}': {error.strerror or error}") from error
    if data[:2] == b"\xff\xd8" and not jpeg_is_whole(data):
        raise ShelfcountError(f"photo '{path}' is cut short: its JPEG data has no end ({len(data)} bytes). Copy it again from the phone.")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:
        raise ShelfcountError(f"photo '{path}' cannot be decoded: {error.err}") from error
    if image is None:
        raise ShelfcountError(f"'{path}' is not a photo that can be decoded ({len(data)} bytes). JPEG, PNG, WebP, BMP and TIFF are.")
    if image.shape[0] * image.shape[1] > MOST_PIXELS:
        raise ShelfcountError(f"photo '{path}' has {image.shape[1]} x {image.shape[0]} pixels; at most {MOST_PIXELS:,} are read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG file, given as its bytes, was written to its end."""
    # Decoders paint the missing part grey without a word. The last scan must be followed by an
    # end marker; phones append their own data behind it, and a thumbnail has a pair before.
    return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") >= 0


def write_photo(path: Path | str, image: np.ndarray, quality: int = 92) -> None:
    """Write (height, width, 3) uint8 RGB whole or not at all; the suffix chooses the format."""
    path = Path(path)
    ok, data = cv2.imencode(path.suffix.lower() or ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ShelfcountError(f"cannot write '{path}' as a picture")
    write_whole(path, data.tobytes())


def write_whole(path: Path | str, data: bytes | str) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(data.encode() if isinstance(data, str) else data)
    draft.replace(path)


def stretch(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize without keeping the aspect, as MediaPipe and the Task Library do on the phone.

    Bilinear when enlarging; when shrinking, pixels are averaged first (`INTER_AREA`), because a
    plain bilinear step over more than two pixels skips detail and flickers on labels.

    Args:
        image: (h, w, 3) uint8.
        height, width: Of the result.

    Returns:
        (height, width, 3) uint8.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > height or image.shape[1] > width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def tiles(width: int, height: int, per_side: int, overlap: float = 0.25) -> Iterator[tuple[int, int, int, int]]:
    """Overlapping windows that cover a photo, n by n so that a tile keeps the photo's aspect.

    The same aspect means the same stretch, so products look in a tile as they did in training.

    Args:
        width, height: Of the photo in pixels.
        per_side: n; 1 gives the photo itself.
        overlap: Share of a tile that its neighbour sees too.

    Yields:
        (left, top, right, bottom) in pixels.
    """
    share = 1 / (per_side - (per_side - 1) * overlap)
    tile_width, tile_height = round(width * share), round(height * share)
    for top in np.linspace(0, height - tile_height, per_side).round().astype(int):
        for left in np.linspace(0, width - tile_width, per_side).round().astype(int):
            yield int(left), int(top), int(left) + tile_width, int(top) + tile_height
