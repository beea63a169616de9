"""The one loop over photos: reading them, naming those that cannot be read, reporting progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Dropped, Photo, Progress, ShelfcountError
from shelfcount.vision.images import read_photo


@dataclass(frozen=True, eq=False)
class PhotoArray:
    """Photo in memory, as an alternative to a file.

    Attributes:
        path: Name of the photo in results and messages.
        pixels: (height, width, 3) uint8 RGB, upright.

    Raises:
        ShelfcountError: If `pixels` has another shape or type.
    """

    path: str
    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ShelfcountError(
                "a photo array must be (height, width, 3) uint8 RGB, "
                f"got {pixels.shape} {pixels.dtype}"
            )


PhotoSource = Path | str | Photo | PhotoArray
AnySource = TypeVar("AnySource", bound=PhotoSource)
Content = TypeVar("Content")


def name_of(source: PhotoSource) -> str:
    """Return the path of a photo, or the name of a photo in memory."""
    return str(source if isinstance(source, Path | str) else source.path)


def load_photo(source: PhotoSource) -> NDArray[np.uint8]:
    """Return the pixels of a photo.

    Args:
        source: Path of a photo, labelled photo, or photo in memory.

    Returns:
        (height, width, 3) uint8 RGB, upright.

    Raises:
        ShelfcountError: If the photo cannot be read, or its size differs from that of its labels.
    """
    if isinstance(source, PhotoArray):
        return source.pixels
    if not isinstance(source, Photo):
        return read_photo(source)
    image = read_photo(source.path)
    require_labelled_size(source, image)
    return image


def require_labelled_size(photo: Photo, image: NDArray[np.uint8]) -> None:
    """Check that the pixels of a labelled photo have the size that its labels were made for.

    Raises:
        ShelfcountError: If the sizes differ.
    """
    height, width = image.shape[:2]
    if (width, height) != (photo.width, photo.height):
        raise ShelfcountError(
            f"photo '{photo.path}' has {width} x {height} pixels, but its labels were made for "
            f"{photo.width} x {photo.height}. Label the photo again, or use the file that was "
            "labelled."
        )


def read_photos(
    photos: Iterable[AnySource],
    on_error: Callable[[Dropped], None] | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[AnySource, NDArray[np.uint8]]]:
    """Read photos one by one; one photo at a time is in memory.

    Args:
        photos: Paths, labelled photos or photos in memory.
        on_error: Called with each photo that cannot be read, which is then skipped. Default: the
            first such photo ends the loop with an error.
        progress: Called with (photos done, number of photos) after the caller has worked on a
            photo, and after each photo that cannot be read.

    Yields:
        Each photo as it was given, and its (height, width, 3) uint8 RGB pixels, upright.

    Raises:
        ShelfcountError: If a photo cannot be read, or has another size than its labels, and
            `on_error` is None.
    """
    return for_each_photo(photos, load_photo, on_error, progress)


def for_each_photo(
    photos: Iterable[AnySource],
    read: Callable[[AnySource], Content],
    on_error: Callable[[Dropped], None] | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[AnySource, Content]]:
    """Apply a function to photos one by one; the loop behind `read_photos`.

    Args:
        photos: Paths, labelled photos or photos in memory.
        read: Returns the content of a photo, or raises `ShelfcountError`.
        on_error: See `read_photos`.
        progress: See `read_photos`.

    Yields:
        Each photo as it was given, and what `read` returned for it.

    Raises:
        ShelfcountError: If `read` raises it and `on_error` is None.
    """
    sources = list(photos)
    for done, photo in enumerate(sources, start=1):
        try:
            content = read(photo)
        except ShelfcountError as error:
            if on_error is None:
                raise
            on_error(Dropped(name_of(photo), str(error)))
        else:
            yield photo, content
        if progress is not None:
            progress(done, len(sources))
