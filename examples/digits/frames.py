"""Decodes video frames to pictures, matches them with the pictures shown, and writes a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from acap_runtime.client import Frame
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]
COLUMNS = 5
LABEL_HEIGHT = 30


def decode(frame: Frame) -> Image.Image:
    """Return the RGB picture of an NV12 frame (BT.601, luma from 16 to 235, chroma from 16 to 240)."""
    luma, chroma = frame.array[: frame.height], frame.array[frame.height :]
    planes = [_stretched(luma, 219, 0), _stretched(chroma[:, 0::2], 224, 128), _stretched(chroma[:, 1::2], 224, 128)]
    size = (frame.width, frame.height)
    pictures = [Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR) for plane in planes]
    return Image.merge("YCbCr", pictures).convert("RGB")


def _stretched(plane: Pixels, levels: int, middle: int) -> Pixels:
    """Stretch a plane to all 256 levels, as Pillow expects. `middle` keeps its value."""
    stretched = (plane.astype(np.float32) - (middle or 16)) * (255 / levels) + middle
    pixels: Pixels = np.rint(stretched).clip(0, 255).astype(np.uint8)
    return pixels


def nearest(seen: Image.Image, shown: Mapping[str, Image.Image]) -> str:
    """Return the name of the picture that differs least from a frame, compared at the frame's size."""
    pixels = np.asarray(seen, np.float32)

    def difference(name: str) -> float:
        picture = shown[name].resize(seen.size, Image.Resampling.BILINEAR)
        return float(np.abs(np.asarray(picture, np.float32) - pixels).mean())

    return min(shown, key=difference)


def write_sheet(path: Path, entries: Sequence[tuple[Image.Image, str, bool]]) -> None:
    """Write a PNG of all frames, each with its reading: green if that is right, red if it is wrong."""
    width, height = entries[0][0].size
    rows = -(-len(entries) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * (height + LABEL_HEIGHT)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (picture, label, right) in enumerate(entries):
        left, top = place % COLUMNS * width, place // COLUMNS * (height + LABEL_HEIGHT)
        sheet.paste(picture, (left, top))
        draw.text((left + 8, top + height + 5), label, fill="darkgreen" if right else "red", font_size=18)
    sheet.save(path)
