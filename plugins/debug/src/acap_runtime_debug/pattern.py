"""A camera without hardware: colour bars, a moving box, and a stamp that tests read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import acap_runtime as acap
import numpy as np

from acap_runtime_debug.colour import in_format
from acap_runtime_debug.faults import misbehave_at
from acap_runtime_debug.knobs import CAMERA_KNOBS, read_options
from acap_runtime_debug.pace import Pace
from acap_runtime_debug.stamp import Stamp, write_stamp

_BARS: Final = (
    *((235, 235, 235), (235, 235, 16), (16, 235, 235), (16, 235, 16)),
    *((235, 16, 235), (235, 16, 16), (16, 16, 235), (16, 16, 16)),
)
_BOX: Final = (255, 128, 0)
_SECONDS_TO_CROSS: Final = 4


def require_raw(settings: acap.StreamSettings) -> acap.Image:
    """Return the form of raw frames. Raises `InvalidRequest` for encoded ones."""
    if settings.encoded:
        raise acap.InvalidRequest(
            f"format {settings.format}: expected one of {', '.join(acap.IMAGE_FORMATS)}: the debug plugin's cameras do "
            f"not encode; the video plugin's do: lavfi:testsrc2, or a file"
        )
    return settings.picture


class TestPattern(acap.Camera):
    """Test pictures that tell which frame they are. Its options are the ways in which a camera fails, for trying
    everything around one.
    """

    name = "test-pattern"
    sources = "test-pattern[:OPTION=VALUE,...]"

    def probe(self, source: str) -> None:
        """Check the options. Nothing else can be missing."""
        self._knobs(source)

    def open(self, source: str, settings: acap.StreamSettings) -> acap.Stream:
        knobs = self._knobs(source)
        image = require_raw(settings)
        time.sleep(knobs.get("open_delay", 0.0))
        if knobs.get("open_fail") == "yes":
            raise acap.Unavailable(f"{source}: was told to fail")
        return _PatternStream(knobs, image, settings.framerate)

    def _knobs(self, source: str) -> Mapping[str, Any]:
        return read_options(source.removeprefix(self.name).removeprefix(":"), CAMERA_KNOBS)


class _PatternStream(acap.Stream):
    def __init__(self, knobs: Mapping[str, Any], image: acap.Image, framerate: int) -> None:
        self._knobs = knobs
        self._image = image
        self._pace = Pace(framerate)
        self._background = _background(image)
        self._box = _Box(image, framerate)

    def read(self, picture: acap.Array, *, keyframe: bool = False) -> acap.Frame:
        del keyframe  # every raw frame is a keyframe
        number, due_ns = self._pace.wait()
        misbehave_at(self._knobs, number)
        np.copyto(picture, self._background)
        self._box.draw(number, picture)
        write_stamp(Stamp(number, due_ns // 1000), picture, self._image.format)
        return acap.Frame(due_ns)


def _background(image: acap.Image) -> acap.Array:
    """Draw bars of eight colours, and below them a ramp from black to white."""
    # Two rows of each are enough: they are converted as a small picture and repeated.
    columns = np.arange(image.width)
    bars = np.array(_BARS, np.uint8)[columns * len(_BARS) // image.width]
    ramp = (columns * 255 // max(1, image.width - 1)).astype(np.uint8)[:, np.newaxis].repeat(3, axis=1)
    small = in_format(np.stack([bars, bars, ramp, ramp]), image.format)
    ramp_rows = image.height // 8 // 2 * 2
    rows = np.repeat([0, 2], [image.height - ramp_rows, ramp_rows])
    background: acap.Array
    match image.format:
        case "rgb-interleaved":
            background = small[rows]
        case "rgb-planar":
            background = np.ascontiguousarray(small[:, rows])
        case "nv12":
            background = small[np.concatenate([rows, 4 + rows[::2] // 2])]
    return background


class _Box:
    """An orange box that crosses the picture repeatedly. Its edges are at even pixels, as nv12 requires."""

    def __init__(self, image: acap.Image, framerate: int) -> None:
        self._image = image
        self._width = max(2, image.width // 8 // 2 * 2)
        self._top = image.height // 2 // 2 * 2
        self._bottom = self._top + max(2, image.height // 8 // 2 * 2)
        self._places = max(2, image.width - self._width + 2)
        self._step = max(2, image.width // (_SECONDS_TO_CROSS * framerate))
        pixels = np.broadcast_to(np.array(_BOX, np.uint8), (2, 2, 3))
        self._colour = in_format(pixels, image.format)

    def draw(self, number: int, picture: acap.Array) -> None:
        left = number * self._step % self._places // 2 * 2
        right, rows = left + self._width, slice(self._top, self._bottom)
        match self._image.format:
            case "rgb-interleaved":
                picture[rows, left:right] = self._colour[0, 0]
            case "rgb-planar":
                picture[:, rows, left:right] = self._colour[:, :1, :1]
            case "nv12":
                chroma = slice(self._image.height + self._top // 2, self._image.height + self._bottom // 2)
                picture[rows, left:right] = self._colour[0, 0]
                picture[chroma, left:right:2] = self._colour[2, 0]
                picture[chroma, left + 1 : right : 2] = self._colour[2, 1]
