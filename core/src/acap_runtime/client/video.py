"""A client's video: streams and their frames."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import numpy as np

from acap_runtime.client.calls import CallFailed, Calls
from acap_runtime.contract.backend import IMAGE_FORMATS, Array, Image
from acap_runtime.contract.camera import StreamFormat
from acap_runtime.proto import DeleteStreamRequest, GetFrameRequest

_GOODBYE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a stream. `data` contains it in its `format`. `width` and `height` are in pixels.

    `reference` equals `Prediction.reference` of the same frame. `sequence` counts the camera's frames; a gap means that
    the client was too slow. `type` is VDO's name, such as ``yuv``, ``h264-idr`` for a frame that decodes on its own, or
    ``h264-p`` for one that needs the frames before it. Timestamps are in microseconds, of the kind that the stream was
    opened with: ``utc`` counts from 1970.
    """

    format: StreamFormat
    width: int
    height: int
    data: bytes = field(repr=False)
    reference: int
    sequence: int
    type: str
    timestamp_us: int
    custom_timestamp_us: int

    @property
    def array(self) -> Array:
        """The picture, as a read-only view of `data`, uint8: (height * 3/2, width) for ``nv12``, (height, width, 3) for
        ``rgb-interleaved``, (3, height, width) for ``rgb-planar``.

        Raises `ValueError` for other formats, which have to be decoded first.
        """
        for raw in IMAGE_FORMATS:
            if raw == self.format:
                shape = Image(raw, self.width, self.height).shape[1:]
                return np.frombuffer(self.data, np.uint8).reshape(shape)
        raise ValueError(f"a frame in {self.format} has no pixels before it is decoded; its bytes are in .data")


class Stream:
    """A stream of a camera. It is a context manager that deletes the stream, and an iterator of each newest frame.

    `number` is the server's number of the stream. Format, width and height are the requested ones. The server deletes
    streams that are not used for some minutes (its ``--stream-lease``). Threads may share a stream; each frame then
    goes to one of them.
    """

    def __init__(self, calls: Calls, number: int, form: StreamFormat, width: int, height: int) -> None:
        self._calls = calls
        self.number = number
        self.format = form
        self.width = width
        self.height = height

    def frame(self, reference: int = 0, *, timeout_s: float | None = None) -> Frame:
        """Return the newest frame that was not returned yet, as soon as there is one; for H.26x the next one to decode.

        With the `reference` of a prediction, return the frame that the model ran on. The server keeps the last few
        frames. Raises `CallFailed`: NOT_FOUND if the frame is no longer kept, FAILED_PRECONDITION if the stream was
        deleted, UNAVAILABLE if the camera gives no frames at the moment.
        """
        request = GetFrameRequest(stream_id=self.number, frame_reference=reference)
        answer = self._calls.get_frame(request, timeout_s=timeout_s)
        return Frame(
            format=self.format,
            width=self.width,
            height=self.height,
            data=answer.data,
            reference=answer.id,
            sequence=answer.sequence_nbr,
            type=answer.type,
            timestamp_us=answer.timestamp,
            custom_timestamp_us=answer.custom_timestamp,
        )

    def __iter__(self) -> Iterator[Frame]:
        """Yield each newest frame, without end. Raises the errors of `frame`."""
        while True:
            yield self.frame()

    def close(self) -> None:
        """Delete the stream. Ignores failures: the stream is already gone, or goes when the server's lease ends."""
        request = DeleteStreamRequest(stream_id=self.number)
        # grpc raises ValueError if the client was closed first.
        with contextlib.suppress(CallFailed, ValueError):
            self._calls.delete_stream(request, timeout_s=_GOODBYE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
