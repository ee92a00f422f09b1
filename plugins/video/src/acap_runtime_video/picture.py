"""Decoded frames as pictures of the contract: scaled, converted and in tight rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import acap_runtime as acap
import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter


@dataclass(frozen=True, slots=True)
class _Layout:
    """FFmpeg's name for a form, its range, and another form with the same values."""

    pixels: str
    range: ColorRange
    equal: str


_LAYOUTS: Final[dict[acap.ImageFormat, _Layout]] = {
    "nv12": _Layout("nv12", ColorRange.MPEG, "yuv420p"),
    "rgb-interleaved": _Layout("rgb24", ColorRange.JPEG, "gbrp"),
    "rgb-planar": _Layout("gbrp", ColorRange.JPEG, "rgb24"),
}


class Converter:
    """Turns frames of any size and form into pictures of one size and form: stretched, BT.601, nv12 limited range."""

    def __init__(self, image: acap.Image) -> None:
        self._image = image
        self._layout = _LAYOUTS[image.format]
        self._scaler = VideoReformatter()
        self._copier = VideoReformatter()

    def convert(self, frame: VideoFrame) -> VideoFrame:
        """Return a new frame, because all streams share `frame` itself."""
        try:
            converted = self._scale(self._scaler, frame, self._layout.pixels)
            if converted is frame:
                converted = self._scale(self._copier, self._scale(self._scaler, frame, self._layout.equal))
        except av.error.FFmpegError as error:
            came = f"{frame.format.name} {frame.width}x{frame.height}"
            raise acap.Unavailable(
                f"a frame of {came} cannot be converted to {self._image}: {error.strerror}"
            ) from error
        return converted

    def write(self, converted: VideoFrame, picture: acap.Array) -> None:
        """Copy the result of `convert` into an array, without the padding of FFmpeg's rows."""
        width, height = self._image.width, self._image.height
        planes = converted.planes
        if self._image.format == "nv12":
            picture[:height] = _rows(planes[0], width, height)
            picture[height:] = _rows(planes[1], width, height // 2)
        elif self._image.format == "rgb-interleaved":
            picture[...] = _rows(planes[0], width * 3, height).reshape(height, width, 3)
        else:
            green, blue, red = (_rows(plane, width, height) for plane in planes)
            picture[0], picture[1], picture[2] = red, green, blue

    def _scale(self, scaler: VideoReformatter, frame: VideoFrame, pixels: str | None = None) -> VideoFrame:
        return scaler.reformat(
            frame,
            self._image.width,
            self._image.height,
            pixels or self._layout.pixels,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=self._layout.range,
            interpolation=Interpolation.BILINEAR,
            threads=1,
        )


def _rows(plane: VideoPlane, width: int, height: int) -> acap.Array:
    memory: acap.Array = np.frombuffer(memoryview(plane), np.uint8)
    return memory.reshape(-1, plane.line_size)[:height, :width]
