"""Photos as arrays: reading upright, encoding, writing, resizing to the network input, and EXIF."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import ExifTags, Image

from shelfcount.files import write_whole
from shelfcount.records import ShelfcountError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# More pixels than the photo of any phone. Later steps need several copies of a photo in memory.
# OpenCV itself refuses to decode 2^30 pixels.
MAX_PHOTO_PIXELS = 250_000_000
# The input of a network is (pixel - PIXEL_ZERO) / PIXEL_SCALE, close to [-1, 1]. The zero point of
# a quantized uint8 input is a whole number, hence 127 and not 127.5. The pixel bytes are then
# exactly the input, in every file format.
PIXEL_ZERO = 127
PIXEL_SCALE = 127.5
# Level of the area outside a photo, in all channels: 0 in the input of the network.
FILL_GREY = PIXEL_ZERO
# EXIF 2.32, tag 0x0112: orientations that swap width and height of the stored picture.
SIDEWAYS = (5, 6, 7, 8)
# JPEG markers that begin a segment or end the image (ITU-T T.81, table B.1). The pattern excludes
# stuffed zeros, restart markers in a scan, and markers without a segment.
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
JPEG_START_OF_SCAN, JPEG_END = b"\xda", b"\xd9"


def read_photo(path: Path | str) -> NDArray[np.uint8]:
    """Read a photo upright, with the EXIF orientation applied.

    Args:
        path: Path of a JPEG, PNG, WebP, BMP or TIFF file.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ShelfcountError: If the file is missing, not an image, cut short or larger than
            `MAX_PHOTO_PIXELS`.
    """
    return decode_photo(photo_bytes(path), path)


def photo_bytes(path: Path | str) -> bytes:
    """Return the content of a photo file.

    Raises:
        ShelfcountError: If the file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ShelfcountError(f"cannot read photo '{path}': {error.strerror or error}") from error


def decode_photo(data: bytes, path: Path | str) -> NDArray[np.uint8]:
    """Decode a photo upright, with the EXIF orientation applied.

    Args:
        data: Content of a JPEG, PNG, WebP, BMP or TIFF file.
        path: Path of the file, for error messages.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ShelfcountError: If the data is not an image, cut short or larger than
            `MAX_PHOTO_PIXELS`.
    """
    if data[:2] == b"\xff\xd8" and not jpeg_is_whole(data):
        raise ShelfcountError(
            f"photo '{path}' is cut short: its JPEG data has no end ({len(data)} bytes). "
            "Copy it again from the phone."
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:
        raise ShelfcountError(f"cannot decode photo '{path}': {error.err}") from error
    if image is None:
        raise ShelfcountError(
            f"cannot decode '{path}' ({len(data)} bytes). "
            "Supported formats: JPEG, PNG, WebP, BMP and TIFF."
        )
    if image.shape[0] * image.shape[1] > MAX_PHOTO_PIXELS:
        raise ShelfcountError(
            f"photo '{path}' has {image.shape[1]} x {image.shape[0]} pixels, "
            f"more than the maximum of {MAX_PHOTO_PIXELS:,}. Scale it down."
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def jpeg_is_whole(data: bytes) -> bool:
    """Return whether the bytes of a JPEG file contain the image to its end.

    Decoders fill the missing part of an incomplete file with grey, without an error. Data after the
    end of the image is not checked: phones append a video or a second image.
    """
    # Segments are skipped by their length, since a thumbnail in one also has an end marker.
    at, scanned = 2, False
    while marker := JPEG_MARKER.search(data, at):
        if marker[1] == JPEG_END:
            return scanned
        scanned |= marker[1] == JPEG_START_OF_SCAN
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def write_photo(path: Path | str, image: NDArray[np.uint8], quality: int = 92) -> None:
    """Write an image to a file. The file is replaced only once the new one is complete.

    Args:
        path: Path of the file. Its suffix selects the format; JPEG if it has none.
        image: (height, width, 3) uint8 RGB.
        quality: Quality of a JPEG file, 0 to 100; ignored for other formats.

    Raises:
        ShelfcountError: If OpenCV does not support the format.
    """
    path = Path(path)
    try:
        write_whole(path, encode_photo(image, path.suffix.lower() or ".jpg", quality))
    except ShelfcountError as error:
        raise ShelfcountError(f"cannot write '{path}' as a picture: {error}") from error


def encode_photo(image: NDArray[np.uint8], suffix: str = ".jpg", quality: int = 92) -> bytes:
    """Encode an image and return the bytes of the file.

    Args:
        image: (height, width, 3) uint8 RGB.
        suffix: Suffix that selects the format.
        quality: Quality of a JPEG file, 0 to 100; ignored for other formats.

    Raises:
        ShelfcountError: If OpenCV does not support the format, or cannot encode the image.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in (".jpg", ".jpeg") else []
    try:
        ok, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    except cv2.error as error:
        raise ShelfcountError(
            f"{error.err}. Supported formats: {', '.join(PHOTO_SUFFIXES)}"
        ) from error
    if not ok:
        raise ShelfcountError(f"cannot encode an image of shape {image.shape} as '{suffix}'")
    return data.tobytes()


def read_input(path: Path | str, height: int, width: int) -> NDArray[np.uint8]:
    """Read a photo upright and stretch it to the input of a network.

    Args:
        path: Path of the photo.
        height, width: Size of the network input in pixels.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ShelfcountError: For the reasons given at `read_photo`.
    """
    return stretch(read_photo(path), height, width)


def network_input(
    pixels: NDArray[np.uint8], shape: tuple[int, ...], kind: DTypeLike
) -> NDArray[Any]:
    """Convert pixels to the input tensor of a network.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        shape: Shape of the tensor: (1, H, W, 3), or (1, 3, H, W) as PyTorch's converters write it.
        kind: Type of the tensor: uint8, int8 (pixel - 128) or a float type (pixels scaled to [-1,
            1]).

    Returns:
        The tensor in the given shape and type.
    """
    values: NDArray[Any] = pixels
    if np.dtype(kind) == np.int8:
        values = (pixels.astype(np.int16) - 128).astype(np.int8)
    elif np.issubdtype(kind, np.floating):
        values = ((pixels.astype(np.float32) - PIXEL_ZERO) / PIXEL_SCALE).astype(kind)
    return np.ascontiguousarray(values[None] if shape[-1] == 3 else values.transpose(2, 0, 1)[None])


def stretch(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize an image without keeping its aspect ratio, as MediaPipe and the Task Library do.

    Images are enlarged with bilinear interpolation. If a side shrinks, pixels are averaged
    (``INTER_AREA``), because bilinear interpolation over more than two pixels skips detail.

    Args:
        image: (h, w, 3) uint8.
        height, width: Size of the result in pixels.

    Returns:
        (height, width, 3) uint8; `image` itself if it has this size.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > height or image.shape[1] > width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


class PhotoSize(NamedTuple):
    """Size of a photo file.

    Attributes:
        stored: (width, height) of the stored picture in pixels.
        upright: (width, height) of the upright photo that `read_photo` returns.
        orientation: EXIF orientation, 1 to 8.
    """

    stored: tuple[int, int]
    upright: tuple[int, int]
    orientation: int


def read_size(path: Path) -> PhotoSize:
    """Return the size and the EXIF orientation of a complete photo. A JPEG is not decoded.

    Raises:
        ShelfcountError: If the photo cannot be read, is cut short or has too many pixels.
    """
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            stored = image.size
            if image.width * image.height > MAX_PHOTO_PIXELS:
                raise ShelfcountError(
                    f"photo '{path.name}' has {image.width} x {image.height} pixels, more than the "
                    f"maximum of {MAX_PHOTO_PIXELS:,}"
                )
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            if data[:2] == b"\xff\xd8":
                if not jpeg_is_whole(data):
                    raise ShelfcountError(
                        f"photo '{path.name}' is cut short: its JPEG data has no end marker "
                        f"({len(data)} bytes)"
                    )
                upright = stored[::-1] if orientation in SIDEWAYS else stored
                return PhotoSize(stored, upright, orientation)
            # Only decoding shows whether the file is complete, and whether OpenCV applies the EXIF
            # rotation to this format.
            image.load()
            height, width = decode_photo(data, path).shape[:2]
            return PhotoSize(stored, (width, height), orientation)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ShelfcountError(f"photo '{path.name}' cannot be read: {error}") from error


def exif_phone(path: Path) -> str:
    """Read the name of the phone that took a photo from its EXIF data.

    Args:
        path: The photo.

    Returns:
        Maker and model, or an empty string if the photo cannot be read or has no such data.
    """
    try:
        with Image.open(path) as image:
            exif = image.getexif()
    except OSError:
        return ""
    make, model = (
        str(exif.get(tag) or "").strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
    )
    # The model of many makers starts with the name of the maker.
    return model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()
