"""Opens a source with FFmpeg, and explains a failure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import acap_runtime as acap
import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from acap_runtime_video.source import Source

_THREADS: Final = 2
"""Threads of one decoder: a device has few cores, and other work."""
_TEXT_IN_BYTES: Final = 19
"""The first av that takes metadata as bytes. Earlier ones refuse metadata that is not UTF-8, unless told not to."""
_METADATA: Final[Mapping[str, Any]] = (
    {} if int(av.__version__.partition(".")[0]) >= _TEXT_IN_BYTES else {"metadata_errors": "replace"}
)


@contextmanager
def opened(source: Source) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a source. Raises its `failure` with the reason if it has no video to decode."""
    # FFmpeg's errors contain the whole URL with its credentials, so the error raised here must not be chained to them.
    given_up_s = time.monotonic() + source.timeout_s
    try:
        container = av.open(
            source.url,
            format=source.format,
            options=dict(source.options),
            timeout=source.timeout_s if source.live else None,
            **_METADATA,
        )
    except av.error.FFmpegError as error:
        why = reason(error)
        if source.live and time.monotonic() >= given_up_s:
            # Some protocols report an answer that did not come in time as a wrong one.
            why = f"no answer within {source.timeout_s:g} s"
        raise source.failure(f"{source}: expected {source.expected}: {why}") from None
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            raise source.failure(f"{source}: expected {source.expected}, got one without video")
        # Without a decoder there is no codec context, despite the annotation.
        if getattr(stream, "codec_context", None) is None:
            raise source.failure(f"{source}: expected video that FFmpeg decodes, got a codec that it does not know")
        # Frame threading delays frames, so do not use it for live sources.
        stream.thread_type = "SLICE" if source.live else "AUTO"
        stream.thread_count = _THREADS
        yield container, stream


def reason(error: av.error.FFmpegError) -> str:
    """Return FFmpeg's message without the URL."""
    return error.strerror or acap.unexpected(error)
