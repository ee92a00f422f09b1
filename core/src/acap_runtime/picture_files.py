"""Pictures from files, in the size that a model takes. Needs Pillow, which is an extra of this distribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from acap_runtime.backend import Array
from acap_runtime.errors import InvalidRequest


def read_picture(path: Path, width: int, height: int) -> Array:
    """R, G and B of a picture, stretched to a size: uint8 (height, width, 3). Raises `InvalidRequest`."""
    try:
        with Image.open(path) as picture:
            scaled = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"{path}: expected a picture: {error}") from None
    return np.asarray(scaled)
