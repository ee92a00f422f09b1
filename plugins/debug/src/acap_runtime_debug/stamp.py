"""The stamp of a test picture: its number and time in black and white blocks, which survive lossy encoding too.

It has four rows of 32 blocks in the upper left corner, most significant bit first. White is 1. The rows are the frame's
number, the upper and the lower half of its time in microseconds, and the CRC-32 of these twelve bytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import acap_runtime as acap
import numpy as np

COLUMNS: Final = 32
ROWS: Final = 4
LARGEST_BLOCK: Final = 16
SMALLEST_WIDTH, SMALLEST_HEIGHT = 64, 32
"""Smaller pictures have no stamp."""

_CONTENT: Final = struct.Struct(">IQ")
_CHECKED: Final = struct.Struct(">IQI")
_BLACK_AND_WHITE: Final = {"nv12": (16, 235)}
_GREY: Final = 128


@dataclass(frozen=True, slots=True)
class Stamp:
    """The number of a frame, modulo 2**32, and its capture time: ``Frame.captured_ns // 1000``."""

    number: int
    captured_us: int


def write_stamp(stamp: Stamp, picture: acap.Array, image_format: acap.ImageFormat) -> None:
    """Draw `stamp` into a picture of at least `SMALLEST_WIDTH` x `SMALLEST_HEIGHT` pixels; leave smaller ones alone."""
    side = _block_side(picture, image_format)
    if not side:
        return
    content = _CONTENT.pack(stamp.number % 2**32, stamp.captured_us)
    bits = np.unpackbits(np.frombuffer(content + struct.pack(">I", zlib.crc32(content)), np.uint8))
    black, white = _BLACK_AND_WHITE.get(image_format, (0, 255))
    shades = np.where(bits.reshape(ROWS, COLUMNS), np.uint8(white), np.uint8(black))
    blocks = shades.repeat(side, axis=0).repeat(side, axis=1)
    height, width = blocks.shape
    match image_format:
        case "rgb-interleaved":
            picture[:height, :width] = blocks[:, :, np.newaxis]
        case "rgb-planar":
            picture[:, :height, :width] = blocks
        case "nv12":
            chroma = len(picture) * 2 // 3
            picture[:height, :width] = blocks
            picture[chroma : chroma + height // 2, :width] = _GREY


def read_stamp(picture: acap.Array, image_format: acap.ImageFormat) -> Stamp:
    """Read the stamp of a frame's picture, lossily encoded or not, with or without the leading 1 of a tensor.

    Raises `ValueError` for a picture that has none.
    """
    if picture.ndim > (2 if image_format == "nv12" else 3):
        picture = picture[0]
    side = _block_side(picture, image_format)
    if not side:
        raise ValueError(
            f"picture of shape {picture.shape}: expected at least {SMALLEST_WIDTH}x{SMALLEST_HEIGHT} pixels: smaller "
            f"ones have no stamp"
        )
    corner = _luma(picture, image_format, ROWS * side, COLUMNS * side)
    shades = corner.reshape(ROWS, side, COLUMNS, side).mean(axis=(1, 3))
    data = np.packbits(shades > _GREY).tobytes()
    number, captured_us, checksum = _CHECKED.unpack(data)
    if checksum != zlib.crc32(data[: _CONTENT.size]):
        raise ValueError(
            f"expected a stamp in the upper left {COLUMNS * side}x{ROWS * side} pixels of a {image_format} picture of "
            f"shape {picture.shape}, got {data.hex()}, whose checksum is wrong: is it the test pattern's picture, in "
            f"this format and unscaled?"
        )
    return Stamp(number, captured_us)


def _block_side(picture: acap.Array, image_format: acap.ImageFormat) -> int:
    height, width = _size(picture, image_format)
    # Even, so that no nv12 chroma sample spans two blocks.
    return min(LARGEST_BLOCK, width // (SMALLEST_WIDTH // 2), height // (SMALLEST_HEIGHT // 2)) // 2 * 2


def _size(picture: acap.Array, image_format: acap.ImageFormat) -> tuple[int, int]:
    match image_format:
        case "rgb-interleaved":
            height, width, _ = picture.shape
        case "rgb-planar":
            _, height, width = picture.shape
        case "nv12":
            height, width = len(picture) * 2 // 3, picture.shape[1]
    return height, width


def _luma(picture: acap.Array, image_format: acap.ImageFormat, height: int, width: int) -> acap.Array:
    corner: acap.Array
    match image_format:
        case "rgb-interleaved":
            corner = picture[:height, :width].mean(axis=2)
        case "rgb-planar":
            corner = picture[:, :height, :width].mean(axis=0)
        case "nv12":
            corner = picture[:height, :width]
    return corner
