"""Display of results in notebooks: small JPEG pictures, and optional packages for tables."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.drawing import pictures
from shelfcount.records import ShelfcountError
from shelfcount.vision.images import encode_photo

# Longest side in pixels and JPEG quality of a picture in a notebook. Notebooks contain their
# pictures: at this size a picture has about 80 kB and its tags are legible.
SHOWN_SIDE, SHOWN_QUALITY = 960, 72


def preview_jpeg(picture: NDArray[np.uint8], side: int = SHOWN_SIDE) -> bytes:
    """Return a picture as a small JPEG file.

    Args:
        picture: (h, w, 3) uint8 RGB.
        side: Maximum length of the longest side in pixels.
    """
    return encode_photo(pictures.shrunk(picture, side), quality=SHOWN_QUALITY)


def import_optional(package: str, user: str) -> Any:
    """Import an optional package and return it.

    Args:
        package: Name of the package.
        user: Function that needs it, for the error message.

    Raises:
        ShelfcountError: If the package cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ShelfcountError(
            f"{user} needs {package}, which cannot be imported: {error}. "
            f"Install it with: pip install {package}"
        ) from error
