"""The contract for cameras: where video comes from.

A camera is built in the front, where it only tells which sources are its own. ``probe``, ``open`` and everything a
`Stream` does happen in a worker process, one for each source that is open. A camera in full:

    import time

    import acap_runtime as acap

    class GreyStream(acap.Stream):
        def __init__(self, settings):
            self._interval_ns = 1_000_000_000 // settings.framerate
            self._due_ns = time.monotonic_ns()

        def read(self, picture, *, keyframe=False):
            time.sleep(max(0, self._due_ns - time.monotonic_ns()) / 1e9)
            picture[...] = 128
            frame = acap.Frame(captured_ns=self._due_ns)
            self._due_ns += self._interval_ns
            return frame

    class GreyCamera(acap.Camera):
        name, sources = "grey", "grey"

        def probe(self, source):
            pass

        def open(self, source, settings):
            if settings.encoded:
                raise acap.InvalidRequest(f"format {settings.format}: expected a raw format")
            return GreyStream(settings)

    @acap.hookimpl
    def acap_runtime_cameras():
        return [GreyCamera()]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

from acap_runtime.contract.backend import IMAGE_FORMATS, Array, Image, ImageFormat
from acap_runtime.errors import InvalidRequest

EncodedFormat = Literal["h264", "h265", "jpeg"]
StreamFormat: TypeAlias = EncodedFormat | ImageFormat
"""``h264`` and ``h265`` are Annex B with 4-byte start codes, one access unit per frame; ``jpeg`` is a JFIF file per
frame; the raw formats are larod's image formats."""

STREAM_FORMATS: tuple[StreamFormat, ...] = (*get_args(EncodedFormat), *IMAGE_FORMATS)
LARGEST_SIDE = 8192
"""Pixels that a stream is wide or high at most."""
LARGEST_FRAMERATE = 240


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What a stream gives: its format, width and height in pixels, and frames per second."""

    format: StreamFormat
    width: int
    height: int
    framerate: int

    def __post_init__(self) -> None:
        if self.format not in STREAM_FORMATS:
            raise InvalidRequest(f"stream format {self.format!r}: expected one of {', '.join(STREAM_FORMATS)}")
        if not (1 <= self.width <= LARGEST_SIDE and 1 <= self.height <= LARGEST_SIDE):
            raise InvalidRequest(
                f"stream size {self.width}x{self.height}: expected 1 to {LARGEST_SIDE} pixels each way"
            )
        if self.format in ("nv12", "h264", "h265") and (self.width % 2 or self.height % 2):
            raise InvalidRequest(
                f"stream size {self.width}x{self.height}: {self.format} needs an even width and height"
            )
        if not 1 <= self.framerate <= LARGEST_FRAMERATE:
            raise InvalidRequest(f"frame rate {self.framerate}: expected 1 to {LARGEST_FRAMERATE} frames per second")

    @property
    def encoded(self) -> bool:
        """Whether frames are compressed."""
        return self.format not in IMAGE_FORMATS

    @property
    def picture(self) -> Image:
        """The raw picture of each frame: the frame itself, or what was encoded, as nv12 where its size allows that."""
        for raw in IMAGE_FORMATS:
            if raw == self.format:
                return Image(raw, self.width, self.height)
        odd = self.width % 2 or self.height % 2
        return Image("rgb-interleaved" if odd else "nv12", self.width, self.height)

    def __str__(self) -> str:
        return f"{self.format} {self.width}x{self.height} at {self.framerate} fps"


@dataclass(frozen=True, slots=True)
class Frame:
    """What `Stream.read` gives beside the picture.

    `captured_ns` is when the frame was taken (``time.monotonic_ns()``): it grows from frame to frame. `encoded` is the
    compressed frame, and empty for raw formats; `keyframe` says whether it decodes by itself, which in H.26x takes its
    parameter sets too. `has_picture` is False where a camera encodes by
    itself and has no raw picture of this very frame: models then cannot run on the stream.
    """

    captured_ns: int
    encoded: bytes = b""
    keyframe: bool = True
    has_picture: bool = True


class Stream(ABC):
    """Frames of one form. One thread opens, reads and closes it; other streams of the source run side by side."""

    @abstractmethod
    def read(self, picture: Array, *, keyframe: bool = False) -> Frame:
        """Wait for the next frame, at the pace of the settings' frame rate, and write its picture.

        `picture` is a writable uint8 array of shape ``settings.picture.shape`` without its leading 1: shared memory
        that models read, and go on reading when this has returned. `keyframe` asks that this frame decode by itself,
        where the format has others.
        Raises `Unavailable` with the reason where the source ends or fails: the stream is closed then, and opened
        again after a while.
        """

    def close(self) -> None:  # noqa: B027 - what holds nothing has nothing to free
        """Free everything. Called once; no call follows."""


class Camera(ABC):
    """A kind of source of video: the device's own sensor, files, RTSP."""

    name: ClassVar[str]
    """What the kind is called, such as ``test-pattern``."""
    sources: ClassVar[str]
    """How its sources are written, for people: ``rtsp://HOST/PATH``."""
    own_source: ClassVar[str | None] = None
    """The source that is this device's own camera, served where the operator names none; None where there is none."""

    def claims(self, source: str) -> bool:
        """Whether `source` is written as one of its own: a look at the text alone. The kind's name, and whatever
        begins with the name and a colon, unless a camera knows better.
        """
        return source == self.name or source.startswith(f"{self.name}:")

    @abstractmethod
    def probe(self, source: str) -> None:
        """Raise `NotReady` with the reason if `source` gives no video here and now, `InvalidRequest` if it is
        malformed. It may open the source, and is given some seconds.
        """

    @abstractmethod
    def open(self, source: str, settings: StreamSettings) -> Stream:
        """Start a stream. Called by several threads at once, for streams of the same source.

        Raises `InvalidRequest` for settings that it cannot give, `NotReady` where something is missing on this
        machine, `Unavailable` where the source cannot be opened for the moment.
        """
