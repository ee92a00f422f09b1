"""Small conversions with known answers, for every libyuv function that this plugin uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import acap_runtime as acap
import numpy as np

from acap_runtime_libyuv.conversion import FUNCTIONS, MOVES, SCALERS, calls, function_for
from acap_runtime_libyuv.library import ffi
from acap_runtime_libyuv.picture import CHANNELS, PLANES, Layout, Picture, channels, is_rgb, nbytes, picture_in

_Size: TypeAlias = tuple[int, int]
_Draw: TypeAlias = Callable[[Picture, _Size], None]

_WIDTHS: Final = (1, 7, 8, 9, 15, 17, 31, 33, 63, 65)
"""Widths around the numbers of pixels that one instruction takes. Leftover pixels take another code path."""
_HEIGHTS: Final = {True: 4, False: 3}
"""Heights, by True if they must be even."""
_SCALES: Final = ((1, 2), (3, 4), (5, 7), (7, 5), (2, 1))
_MARGIN: Final = 64
_UNTOUCHED: Final = 255
"""The value around the pictures. libyuv also writes it for alpha."""
_TOLERANCE: Final = 8
"""In levels of 255: twice what was seen of libyuv 1807 to 1974 on x86-64 and arm. A pixel of a slope has up to 7."""

_BLOCKS: Final = {
    "rgb": ((150, 50, 50), (50, 150, 50), (50, 50, 150), (100, 100, 100), (120, 90, 40)),
    "yuv": ((84.6, 113.2, 171.9), (109.4, 98.9, 91.2), (68.7, 171.9, 120.9), (101.9, 128, 128), (96.1, 101.6, 144.8)),
}
"""The same colours twice: four pixels each, that share U and V."""
_LIGHT: Final = {"rgb": (1, 1, 1), "yuv": (219 / 255, 0, 0)}
"""The contribution of a level of grey to the colours. Every pixel has its own level."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A call in a piece of memory, and the expected contents afterwards."""

    function: str
    size: str
    before: bytes
    arguments: list[Any]
    """The arguments as in C. A pointer is a tuple of one number: its offset in the memory."""
    target: slice
    wanted: acap.Array

    def fault(self, after: bytes) -> str | None:
        """Return the fault of the memory after the call, as the rest of a sentence, or None."""
        off = np.abs(np.frombuffer(after, np.uint8).astype(np.int16) - self.wanted)
        inside, allowed = off[self.target].max(), 0 if self.function in MOVES else _TOLERANCE
        off[self.target] = 0
        if off.any():
            return f"writes outside of its target at {self.size} pixels"
        if inside > allowed:
            return f"is off by {inside} of 255 at {self.size} pixels, where {allowed} are allowed"
        return None


def trials() -> Iterator[Trial]:
    for came, wanted in (*FUNCTIONS, ("raw", "raw")):
        even = "nv12" in {came, wanted}
        for width in _WIDTHS:
            size = (width * 2 if even else width, _HEIGHTS[even])
            yield _trial(came, size, wanted, size, _draw_colours)
    for layout in SCALERS:
        for width in _WIDTHS[1::2]:
            for times, per in _SCALES:
                yield _trial(layout, (width, 8), layout, (width * times // per, 8 * times // per), _draw_slopes)


def _trial(came: Layout, source_size: _Size, wanted: Layout, target_size: _Size, draw: _Draw) -> Trial:
    # The source is part of a larger picture, because libyuv would treat adjacent rows as a single long one.
    width, height = source_size[0] + 2, source_size[1] + 2
    start = _MARGIN + nbytes(came, width, height) + _MARGIN
    end = start + nbytes(wanted, *target_size)
    memory = np.full(end + _MARGIN, _UNTOUCHED, np.uint8)
    pointer = ffi.from_buffer("uint8_t[]", memory.data)
    source = picture_in(pointer + _MARGIN, came, width, height, acap.Crop(2, 2, *source_size))
    target = picture_in(pointer + start, wanted, *target_size)
    draw(source, source_size)
    before = memory.tobytes()
    draw(target, source_size)
    function = function_for(source, target)
    (arguments,) = calls(function, source, target)
    placed = [(each - (pointer + 0),) if isinstance(each, ffi.CData) else each for each in arguments]
    text = "{}x{}".format(*source_size) + (" to {}x{}".format(*target_size) if target_size != source_size else "")
    return Trial(function, text, before, placed, slice(start, end), memory)


def _colours(space: str) -> acap.Array:
    x, y = np.meshgrid(np.arange(2 * max(_WIDTHS)), np.arange(max(_HEIGHTS.values())))
    blocks = np.array(_BLOCKS[space])[(x // 2 + 2 * (y // 2)) % len(_BLOCKS[space])]
    pixels: acap.Array = np.rint(blocks + ((37 * x + 53 * y) % 100)[..., None] * _LIGHT[space]).astype(np.uint8)
    return pixels


_COLOURS: Final = {space: _colours(space) for space in _BLOCKS}


def _draw_colours(picture: Picture, _: _Size) -> None:
    pixels = _COLOURS["rgb" if is_rgb(picture.layout) else "yuv"]
    for channel, (view, shared) in enumerate(_views(picture)):
        view[...] = pixels[: picture.height : shared, : picture.width : shared, channel]


def _draw_slopes(picture: Picture, size: _Size) -> None:
    """Draw the expected result of scaling a slope from a picture of `size`."""
    for view, shared in _views(picture):
        y, x = (_places(count, -(-of // shared)) for count, of in zip(view.shape, size[::-1], strict=True))
        view[...] = 4 * y[:, None] + 3 * x


def _views(picture: Picture) -> Iterator[tuple[acap.Array, int]]:
    for view, (plane, _) in zip(channels(picture), CHANNELS[picture.layout], strict=True):
        yield view, PLANES[picture.layout][plane].shared


def _places(count: int, of: int) -> acap.Array:
    places: acap.Array = np.clip((np.arange(count) + 0.5) * of / count - 0.5, 0, of - 1)
    return places
