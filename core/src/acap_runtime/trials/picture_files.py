"""Reads pictures from files, upright and in R, G and B. Needs Pillow, which is an extra of this distribution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from acap_runtime.contract.backend import Array
from acap_runtime.errors import InvalidRequest


def read_picture(path: Path, width: int, height: int) -> Array:
    """Return a picture stretched to a size: uint8 (height, width, 3). Raises `InvalidRequest`."""
    with opened(path) as picture:
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Yield a picture in Pillow's form. Raises `InvalidRequest` if it cannot be read."""
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"{path}: expected a picture: {error}") from None
    yield upright
