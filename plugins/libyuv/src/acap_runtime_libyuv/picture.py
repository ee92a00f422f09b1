"""Pictures in memory, as libyuv sees them: planes, each a pointer and a stride."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import acap_runtime as acap
import numpy as np

from acap_runtime_libyuv.library import ffi

Layout = Literal["nv12", "i420", "raw", "argb", "planar"]
"""libyuv's names; ``raw`` is R, G, B per pixel. ``planar`` has no name there."""

LAYOUTS: Final[dict[str, Layout]] = {"nv12": "nv12", "rgb-interleaved": "raw", "rgb-planar": "planar"}


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane of a layout: bytes per sample, and the number of pixels that share a sample in each direction."""

    sample: int
    shared: int

    def columns(self, width: int) -> int:
        return -(-width // self.shared)

    def stride(self, width: int) -> int:
        return self.columns(width) * self.sample

    def rows(self, height: int) -> int:
        return -(-height // self.shared)

    def nbytes(self, width: int, height: int) -> int:
        return self.stride(width) * self.rows(height)


PLANES: Final[dict[Layout, tuple[Plane, ...]]] = {
    "nv12": (Plane(1, 1), Plane(2, 2)),
    "i420": (Plane(1, 1), Plane(1, 2), Plane(1, 2)),
    "raw": (Plane(3, 1),),
    "argb": (Plane(4, 1),),
    "planar": (Plane(1, 1), Plane(1, 1), Plane(1, 1)),
}

CHANNELS: Final[dict[Layout, tuple[tuple[int, int], ...]]] = {
    "nv12": ((0, 0), (1, 0), (1, 1)),
    "i420": ((0, 0), (1, 0), (2, 0)),
    "raw": ((0, 0), (0, 1), (0, 2)),
    "argb": ((0, 2), (0, 1), (0, 0)),
    "planar": ((0, 0), (1, 0), (2, 0)),
}
"""The places of Y, U and V, or of R, G and B: the plane, and the byte within its samples."""


def is_rgb(layout: Layout) -> bool:
    return layout not in {"nv12", "i420"}


def nbytes(layout: Layout, width: int, height: int) -> int:
    """Return the number of bytes of a tight picture."""
    return sum(plane.nbytes(width, height) for plane in PLANES[layout])


@dataclass(frozen=True, slots=True)
class Picture:
    """A part of a tight picture.

    `memory` is cffi's reference to the buffer. Pointers into the buffer do not keep it alive.
    """

    layout: Layout
    width: int
    height: int
    memory: Any
    planes: tuple[Any, ...]
    """Pointer, stride, pointer, stride, …: the order in which every function of libyuv takes them."""


def picture_in(memory: Any, layout: Layout, width: int, height: int, region: acap.Crop | None = None) -> Picture:
    """Lay a picture of `width` and `height` over `memory`, and take its `region`."""
    region = region or acap.Crop(0, 0, width, height)
    planes: list[Any] = []
    start = 0
    for plane in PLANES[layout]:
        stride = plane.stride(width)
        corner = region.y // plane.shared * stride + region.x // plane.shared * plane.sample
        planes += (memory + start + corner, stride)
        start += plane.nbytes(width, height)
    return Picture(layout, region.width, region.height, memory, tuple(planes))


def channels(picture: Picture) -> list[acap.Array]:
    """Return views of Y, U and V, or of R, G and B, each with rows and columns. The picture must outlive them."""
    views = []
    for index, byte in CHANNELS[picture.layout]:
        plane, pointer, stride = PLANES[picture.layout][index], *picture.planes[2 * index : 2 * index + 2]
        rows, columns = plane.rows(picture.height), plane.columns(picture.width)
        memory: Any = ffi.buffer(pointer + byte, (rows - 1) * stride + (columns - 1) * plane.sample + 1)
        views.append(np.ndarray((rows, columns), np.uint8, memory, strides=(stride, plane.sample)))
    return views


def move(source: Picture, target: Picture) -> None:
    """Convert between layouts with the same channels, as libyuv does, without libyuv."""
    for to, of in zip(channels(target), channels(source), strict=True):
        to[...] = of
