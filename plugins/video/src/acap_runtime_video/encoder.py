"""Encodes pictures as H.264, H.265 and JPEG: one frame per picture, without delay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import acap_runtime as acap
import av.error
from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

_KEYFRAME_INTERVAL_S: Final = 2
_THREADS: Final = 2
_SMPTE170M: Final = 6
"""FFmpeg's number for BT.601 as a tag of frames and codecs. swscale has its own numbers."""
_START_CODE: Final = re.compile(rb"\x00{2,}\x01")


@dataclass(frozen=True, slots=True)
class _Codec:
    name: str
    pixels: str
    range: ColorRange
    options: Mapping[str, str]
    threads: int = _THREADS
    smallest_side: int = 1


_CODECS: Final[dict[str, _Codec]] = {
    "h264": _Codec(
        "libx264",
        "nv12",
        ColorRange.MPEG,
        {"preset": "ultrafast", "tune": "zerolatency", "forced-idr": "1", "x264-params": "scenecut=0"},
    ),
    "h265": _Codec(
        "libx265",
        "yuv420p",
        ColorRange.MPEG,
        {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "forced-idr": "1",
            # x265 writes its own log, bypassing FFmpeg's.
            "x265-params": f"log-level=none:info=0:scenecut=0:open-gop=0:frame-threads=1:pools={_THREADS}",
        },
        smallest_side=16,
    ),
    "jpeg": _Codec("mjpeg", "yuv420p", ColorRange.JPEG, {"qmin": "4", "qmax": "4", "huffman": "default"}, threads=1),
}


class Encoder:
    """Encodes the pictures of `Converter`. Parameter sets precede every keyframe."""

    def __init__(self, settings: acap.StreamSettings) -> None:
        self._codec = _CODECS[settings.format]
        if min(settings.width, settings.height) < self._codec.smallest_side:
            least = self._codec.smallest_side
            raise acap.InvalidRequest(f"{settings}: expected at least {least} pixels each way for {settings.format}")
        self._annex_b = settings.format != "jpeg"
        self._reformatter = VideoReformatter()
        self._count = 0
        context = CodecContext.create(self._codec.name, "w")
        assert isinstance(context, VideoCodecContext)  # noqa: S101  # PyAV has one function for all kinds
        context.width, context.height, context.pix_fmt = settings.width, settings.height, self._codec.pixels
        context.framerate = Fraction(settings.framerate)
        context.time_base = 1 / context.framerate
        context.gop_size = _KEYFRAME_INTERVAL_S * settings.framerate
        context.max_b_frames = 0
        context.thread_count = self._codec.threads
        context.colorspace, context.color_range = _SMPTE170M, self._codec.range
        # Without it, FFmpeg omits the header that makes a JPEG a JFIF file.
        context.sample_aspect_ratio = Fraction(1)
        context.options = dict(self._codec.options)
        try:
            context.open()
        except av.error.FFmpegError as error:
            raise acap.InvalidRequest(f"{settings}: {self._codec.name} does not take that: {error.strerror}") from None
        self._context = context

    def encode(self, picture: VideoFrame, *, keyframe: bool) -> tuple[bytes, bool]:
        """Return the compressed frame, and True if it decodes by itself. Sets the time and the type of `picture`."""
        # A conversion applies the destination's range to a source that has none.
        frame = self._reformatter.reformat(
            picture,
            format=self._codec.pixels,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=self._codec.range,
            threads=1,
        )
        frame.time_base, frame.pts = self._context.time_base, self._count
        # Frames keep their type from the source, which would otherwise decide their type here.
        frame.pict_type = PictureType.I if keyframe or self._count == 0 else PictureType.NONE
        self._count += 1
        try:
            packets = self._context.encode(frame)
        except av.error.FFmpegError as error:
            raise acap.Unavailable(f"{self._codec.name} cannot encode a frame: {error.strerror}") from error
        if not packets:
            raise acap.Unavailable(f"{self._codec.name} gave nothing for a frame: expected one packet, at once")
        data = b"".join(bytes(packet) for packet in packets)
        return four_byte_start_codes(data) if self._annex_b else data, any(packet.is_keyframe for packet in packets)


def four_byte_start_codes(stream: bytes) -> bytes:
    """Make every start code of an Annex B stream 00 00 00 01.

    Nothing else looks like a start code: inside a unit, a 3 follows two zeros if a 1 or less would follow otherwise,
    and no unit ends in a zero.
    """
    return _START_CODE.sub(b"\x00\x00\x00\x01", stream)
