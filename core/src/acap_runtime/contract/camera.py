"""The contract for cameras, the sources of video.

A camera is built in the front, which only asks it for the sources that it claims. ``probe``, ``open`` and all methods
of a `Stream` run in a worker process, one for each open source. A complete camera:

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
"""The largest width or height of a stream, in pixels."""
LARGEST_FRAMERATE = 240


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """The form of a stream: its format, width and height in pixels, and frames per second."""

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
        """True if frames are compressed."""
        return self.format not in IMAGE_FORMATS

    @property
    def picture(self) -> Image:
        """The form of each frame's raw picture: that of the frame itself for raw formats; for encoded formats, that of
        the encoder's input, which is nv12 where the size allows it.
        """
        for raw in IMAGE_FORMATS:
            if raw == self.format:
                return Image(raw, self.width, self.height)
        odd = self.width % 2 or self.height % 2
        return Image("rgb-interleaved" if odd else "nv12", self.width, self.height)

    def __str__(self) -> str:
        return f"{self.format} {self.width}x{self.height} at {self.framerate} fps"


@dataclass(frozen=True, slots=True)
class Frame:
    """The result of `Stream.read`, apart from the picture.

    `captured_ns` is the time at which the frame was taken (``time.monotonic_ns()``). It increases from frame to frame.
    `encoded` is the compressed frame; it is empty for raw formats. `keyframe` is True if the frame decodes on its own;
    in H.26x such a frame must include its parameter sets. `has_picture` is False where a camera encodes by itself and
    has no raw picture of this very frame. Models cannot run on such a stream.
    """

    captured_ns: int
    encoded: bytes = b""
    keyframe: bool = True
    has_picture: bool = True


class Stream(ABC):
    """A sequence of frames of one form. One thread opens, reads and closes a stream. Other streams of the same source
    run in parallel.
    """

    @abstractmethod
    def read(self, picture: Array, *, keyframe: bool = False) -> Frame:
        """Wait for the next frame, at the frame rate of the settings, and write its picture.

        `picture` is a writable uint8 array of shape ``settings.picture.shape`` without its leading 1. It is shared
        memory: models read it, and continue to read it after this method has returned. `keyframe` asks for a frame that
        decodes on its own, in formats that also have other frames. Raises `Unavailable` with the reason if the source
        ends or fails. The stream is then closed, and opened again after a while.
        """

    def close(self) -> None:  # noqa: B027 - a stream without resources has nothing to free
        """Free all resources. Called once; no call follows."""


class Camera(ABC):
    """A kind of video source: the device's own sensor, files, RTSP."""

    name: ClassVar[str]
    """The name of the kind, such as ``test-pattern``."""
    sources: ClassVar[str]
    """The syntax of its sources, for people: ``rtsp://HOST/PATH``."""
    own_source: ClassVar[str | None] = None
    """The source that is this device's own camera, served where the operator names no camera. None if there is none."""

    def claims(self, source: str) -> bool:
        """Return True if `source` belongs to this kind, judged by its text alone. By default, the kind's name and every
        text that starts with the name and a colon belong to it; a camera may override this.
        """
        return source == self.name or source.startswith(f"{self.name}:")

    @abstractmethod
    def probe(self, source: str) -> None:
        """Raise `NotReady` with the reason if `source` gives no video here and now, `InvalidRequest` if it is
        malformed. This method may open the source. It has a few seconds to finish.
        """

    @abstractmethod
    def open(self, source: str, settings: StreamSettings) -> Stream:
        """Start a stream. Several threads may call this at once, for streams of the same source.

        Raises `InvalidRequest` for settings that the camera does not support, `NotReady` if something is missing on
        this machine, `Unavailable` if the source cannot be opened at the moment.
        """
