"""Converts pixel colours to the formats of frames: BT.601 with limited range, as cameras use."""

from __future__ import annotations

from typing import Final

import acap_runtime as acap
import numpy as np

_ROWS_AT_ONCE: Final = 64
"""Rows converted together: 32-bit sums for a whole picture would not fit the processor's cache."""


def in_format(pixels: acap.Array, image_format: acap.ImageFormat) -> acap.Array:
    """Convert R, G and B of shape (height, width, 3) to a picture in a stream's format. nv12 needs even sizes."""
    if image_format == "rgb-interleaved":
        return np.ascontiguousarray(pixels)
    if image_format == "rgb-planar":
        return np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    height, width = pixels.shape[:2]
    picture = np.empty((height * 3 // 2, width), np.uint8)
    for row in range(0, height, _ROWS_AT_ONCE):
        rows = pixels[row : row + _ROWS_AT_ONCE].astype(np.int32)
        chroma = height + row // 2
        _write_nv12(rows, picture[row : row + len(rows)], picture[chroma : chroma + len(rows) // 2])
    return picture


def _write_nv12(pixels: acap.Array, luma: acap.Array, chroma: acap.Array) -> None:
    luma[...] = ((pixels @ np.array([66, 129, 25], np.int32) + 128) >> 8) + 16
    height, width = luma.shape
    four = pixels.reshape(height // 2, 2, width // 2, 2, 3).sum(axis=(1, 3), dtype=np.int32)
    chroma[:, 0::2] = ((four @ np.array([-38, -74, 112], np.int32) + 512) >> 10) + 128
    chroma[:, 1::2] = ((four @ np.array([112, -94, -18], np.int32) + 512) >> 10) + 128
