"""The kinds of source that FFmpeg opens, and the syntax of each."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Final

import acap_runtime as acap

from acap_runtime_video.sharing import SharedDecoders
from acap_runtime_video.source import Source, without_credentials

_FILE: Final = re.compile(r"(/|\./|\.\./).+|[^:]+\.\w+", re.DOTALL)
_DEVICE: Final = re.compile(r"/dev/(video|v4l/).*", re.DOTALL)
_RTSP: Final = re.compile(r"rtsps?://", re.IGNORECASE)


class _FfmpegCamera(acap.Camera):
    """Whatever its kind, a source is decoded once for all its streams.

    A source that gives nothing for `timeout_s` counts as dead.
    """

    def __init__(self, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._decoders = SharedDecoders()

    @abstractmethod
    def _source(self, text: str) -> Source:
        """Return the source that FFmpeg opens. Raises `InvalidRequest` for a text that names nothing."""

    def probe(self, source: str) -> None:
        try:
            with self._decoders.borrowed(self._source(source)):
                pass
        except acap.Unavailable as error:
            raise acap.NotReady(str(error)) from None

    def open(self, source: str, settings: acap.StreamSettings) -> acap.Stream:
        from acap_runtime_video.stream import VideoStream  # noqa: PLC0415  # brings av

        return VideoStream(self._decoders.borrowed(self._source(source)), settings)


class FileCamera(_FfmpegCamera):
    """Files, played in real time, over and over."""

    name = "file"
    sources = "/PATH/CLIP.mp4"

    def claims(self, source: str) -> bool:
        return bool(_FILE.fullmatch(source)) and not _DEVICE.fullmatch(source)

    def _source(self, text: str) -> Source:
        if "\0" in text:
            raise acap.InvalidRequest(f"source {text!r}: expected the name of a file, which has no NUL in it")
        return Source(text, f"file:{text}", "a file with video", timeout_s=self._timeout_s)


class RtspCamera(_FfmpegCamera):
    """Network cameras, over TCP: a frame that lost a packet is worse than one that comes a little later."""

    name = "rtsp"
    sources = "rtsp://HOST/PATH, rtsps://HOST/PATH"

    def claims(self, source: str) -> bool:
        return bool(_RTSP.match(source))

    def _source(self, text: str) -> Source:
        if not re.fullmatch(r"rtsps?://[^/?#\s\0][^\s\0]*", text, re.IGNORECASE):
            raise acap.InvalidRequest(f"source {without_credentials(text)!r}: expected {self.sources}")
        options = {
            "rtsp_transport": "tcp",
            "allowed_media_types": "video",
            # The frame rate of a live source is not used, so do not wait to measure it.
            "fpsprobesize": "0",
            "fflags": "nobuffer",
        }
        # FFmpeg's protocol names are lower case.
        scheme, _, rest = text.partition("://")
        url = f"{scheme.lower()}://{rest}"
        return Source(
            text, url, "an RTSP camera", "rtsp", options, live=True, timeout_s=self._timeout_s, failure=acap.Unavailable
        )


class V4l2Camera(_FfmpegCamera):
    """Cameras of this machine, in the format that they are set to."""

    name = "v4l2"
    sources = "/dev/videoN"

    def claims(self, source: str) -> bool:
        return bool(_DEVICE.fullmatch(source))

    def _source(self, text: str) -> Source:
        return Source(text, text, "a V4L2 camera", "v4l2", live=True, timeout_s=self._timeout_s)


class FilterCamera(_FfmpegCamera):
    """FFmpeg's filters that make up video themselves."""

    name = "lavfi"
    sources = "lavfi:testsrc2=size=640x480:rate=25"

    def _source(self, text: str) -> Source:
        graph = text.removeprefix(self.name).removeprefix(":")
        if not graph:
            raise acap.InvalidRequest(f"source {text!r}: expected a graph of filters, such as {self.sources}")
        return Source(text, graph, "a graph of FFmpeg's filters that gives video", "lavfi", timeout_s=self._timeout_s)
