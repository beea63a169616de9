"""Photos as arrays: read upright, stretch to the network's input, cut into tiles, write whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from shelfcount.records import ShelfcountError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# More pixels than any phone takes; later steps hold several copies. OpenCV itself refuses to decode 2^30.
MOST_PIXELS = 250_000_000
# A network sees (pixel - PIXEL_ZERO) / PIXEL_SCALE, close to [-1, 1]. A quantized uint8 input has a whole
# zero point, so 127 and not 127.5: then the pixel bytes are the input exactly, in every file format.
PIXEL_ZERO = 127
PIXEL_SCALE = 127.5
# A JPEG marker that begins a segment or ends the picture (ITU-T T.81, table B.1). Not so: stuffed
# zeros and restarts within a scan, and markers that stand alone.
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
JPEG_START_OF_SCAN, JPEG_END = b"\xda", b"\xd9"


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
    return decode_photo(data, path)


def decode_photo(data: bytes, path: Path | str) -> np.ndarray:
    """`read_photo` for bytes already read; `path` is for messages."""
    if data[:2] == b"\xff\xd8" and not jpeg_is_whole(data):
        raise ShelfcountError(
            f"photo '{path}' is cut short: its JPEG data has no end ({len(data)} bytes). Copy it again from the phone."
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:
        raise ShelfcountError(f"photo '{path}' cannot be decoded: {error.err}") from error
    if image is None:
        raise ShelfcountError(
            f"'{path}' is not a photo that can be decoded ({len(data)} bytes). JPEG, PNG, WebP, BMP and TIFF are."
        )
    if image.shape[0] * image.shape[1] > MOST_PIXELS:
        raise ShelfcountError(
            f"photo '{path}' has {image.shape[1]} x {image.shape[0]} pixels; at most {MOST_PIXELS:,} are read"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG file, given as its bytes, was written to its end.

    Decoders paint a missing part grey without a word. What lies behind the end is not looked at:
    phones append a film or a second picture.
    """
    # Segments are skipped by their length, since a thumbnail inside one has an end marker too.
    at, scanned = 2, False
    while marker := JPEG_MARKER.search(data, at):
        if marker[1] == JPEG_END:
            return scanned
        scanned |= marker[1] == JPEG_START_OF_SCAN
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def write_photo(path: Path | str, image: np.ndarray, quality: int = 92) -> None:
    """Write (height, width, 3) uint8 RGB whole or not at all; the suffix chooses the format.

    Args:
        path: Without a suffix, JPEG is written.
        image: The picture.
        quality: Of a JPEG, 0 to 100; other formats have none.

    Raises:
        ShelfcountError: If OpenCV writes no such format.
    """
    path = Path(path)
    try:
        write_whole(path, encode_photo(image, path.suffix.lower() or ".jpg", quality))
    except ShelfcountError as error:
        raise ShelfcountError(f"cannot write '{path}' as a picture: {error}") from error


def encode_photo(image: np.ndarray, suffix: str = ".jpg", quality: int = 92) -> bytes:
    """(height, width, 3) uint8 RGB as the bytes of a picture file.

    Raises:
        ShelfcountError: If OpenCV writes no format of this suffix.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in (".jpg", ".jpeg") else []
    try:
        ok, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    except cv2.error as error:
        raise ShelfcountError(f"{error.err}. Known formats: {', '.join(PHOTO_SUFFIXES)}") from error
    if not ok:
        raise ShelfcountError(f"the picture of shape {image.shape} cannot be encoded as '{suffix}'")
    return data.tobytes()


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
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def tiles(
    width: int, height: int, per_side: int, overlap: float = 0.25
) -> Iterator[tuple[int, int, int, int]]:
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
