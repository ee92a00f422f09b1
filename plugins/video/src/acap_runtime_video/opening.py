"""Opening a source with FFmpeg, and saying why that fails."""

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
"""Of one decoder: a device has few cores, and other work."""
_TEXT_IN_BYTES: Final = 19
"""The first av that takes metadata as it is. Those before refuse what is not UTF-8, unless they are told not to."""
_METADATA: Final[Mapping[str, Any]] = (
    {} if int(av.__version__.partition(".")[0]) >= _TEXT_IN_BYTES else {"metadata_errors": "replace"}
)


@contextmanager
def opened(source: Source) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a source; raises its `failure` with the reason where that gives no video to decode."""
    # What FFmpeg raises has the whole URL in it, credentials and all: it may not be chained to what is raised here.
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
            # Some protocols take an answer that did not come in time for a wrong one.
            why = f"no answer within {source.timeout_s:g} s"
        raise source.failure(f"{source}: expected {source.expected}: {why}") from None
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            raise source.failure(f"{source}: expected {source.expected}, got one without video")
        # Without a decoder there is no codec context, whatever the annotation says.
        if getattr(stream, "codec_context", None) is None:
            raise source.failure(f"{source}: expected video that FFmpeg decodes, got a codec that it does not know")
        # A thread for each of several frames would hold these back: not where they are live.
        stream.thread_type = "SLICE" if source.live else "AUTO"
        stream.thread_count = _THREADS
        yield container, stream


def reason(error: av.error.FFmpegError) -> str:
    """What FFmpeg says, without the URL."""
    return error.strerror or acap.unexpected(error)
