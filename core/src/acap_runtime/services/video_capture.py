"""Axis' video capture API: videocapture.v1.VideoCapture."""

from __future__ import annotations

import logging
from math import prod
from typing import Any, Final

import grpc.aio

from acap_runtime.contract.camera import StreamSettings
from acap_runtime.errors import InvalidRequest
from acap_runtime.proto import (
    DeleteStreamRequest,
    DeleteStreamResponse,
    GetFrameRequest,
    GetFrameResponse,
    NewStreamRequest,
    NewStreamResponse,
)
from acap_runtime.services.rpc import Method
from acap_runtime.video.capture import CapturedFrame
from acap_runtime.video.streams import Streams
from acap_runtime.wire import vdo

_LOG = logging.getLogger(__name__)
_DEFAULT_FRAMERATE: Final = 30
_CLIENTS_LIMIT: Final = 4 << 20
"""The largest message in bytes that a gRPC client takes by default."""
_FORMATS: Final = {number: name for name, number in vdo.FORMATS.items()}


class VideoCaptureService:
    """Serves streams of cameras to clients. No raw picture may have more than `limit` bytes."""

    name: Final = "videocapture.v1.VideoCapture"

    def __init__(self, streams: Streams, limit: int) -> None:
        self._streams = streams
        self._limit = limit
        self.methods = {
            "NewStream": Method(NewStreamRequest, self.new_stream),
            "DeleteStream": Method(DeleteStreamRequest, self.delete_stream),
            "GetFrame": Method(GetFrameRequest, self.get_frame),
        }

    async def new_stream(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Answer a NewStreamRequest. Raises `AcapError`."""
        given = request.settings
        if given.format not in _FORMATS:
            raise InvalidRequest(
                f"settings.format: expected one of {_listed('StreamFormat', given)}, got {given.format}"
            )
        if given.timestamp_type not in vdo.TIMESTAMPS.values():
            raise InvalidRequest(
                f"timestamp_type: expected one of {_listed('TimestampType', given)}, got {given.timestamp_type}"
            )
        settings = StreamSettings(
            _FORMATS[given.format], given.width, given.height, given.framerate or _DEFAULT_FRAMERATE
        )
        nbytes = prod(settings.picture.shape)
        if nbytes > self._limit:
            raise InvalidRequest(
                f"a picture of {given.width}x{given.height} has {nbytes} bytes; expected at most {self._limit} "
                f"(--max-message-size)"
            )
        wanted = dict(context.invocation_metadata() or ()).get(vdo.CAMERA_KEY)
        stream = await self._streams.new(None if wanted is None else str(wanted), settings, given.timestamp_type)
        if not settings.encoded and nbytes > _CLIENTS_LIMIT:
            _LOG.warning(
                "stream %d: its frames have %d bytes; clients refuse more than %d unless they are opened with "
                "grpc.max_receive_message_length",
                stream.number,
                nbytes,
                _CLIENTS_LIMIT,
            )
        return NewStreamResponse(stream_id=stream.number)

    async def delete_stream(self, request: Any, _context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Answer a DeleteStreamRequest. Raises `AcapError`."""
        self._streams.delete(request.stream_id)
        return DeleteStreamResponse()

    async def get_frame(self, request: Any, _context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Answer a GetFrameRequest with the newest frame, or with the frame of its reference. Raises `AcapError`."""
        with self._streams.use(request.stream_id) as stream:
            reference = request.frame_reference
            frame = stream.kept_frame(reference) if reference else await stream.next_frame()
            content = frame.content
            timestamp, custom = _timestamps(frame, stream.timestamp_type)
            _LOG.debug("frame %d of stream %d: %d bytes", frame.number, stream.number, len(content))
            key, other = vdo.FRAME_TYPES[stream.settings.format]
            return GetFrameResponse(
                id=frame.number,
                type=key if frame.keyframe else other,
                size=len(content),
                timestamp=timestamp,
                custom_timestamp=custom,
                sequence_nbr=frame.number,
                data=content,
            )


def _timestamps(frame: CapturedFrame, kind: int) -> tuple[int, int]:
    """Return a frame's timestamp and the value that a DIFF adds: the time from capture to the client's time. Both are
    in microseconds.
    """
    if kind == vdo.UTC:
        return frame.utc_us, 0
    base = frame.server_ns if kind & vdo.MONO_SERVER else frame.captured_ns
    stamp = frame.client_ns if kind & vdo.MONO_CLIENT else base
    return stamp // 1000, max(0, stamp - base) // 1000 if kind & vdo.DIFF else 0


def _listed(enum: str, settings: Any) -> str:
    values = settings.DESCRIPTOR.file.enum_types_by_name[enum].values
    return ", ".join(f"{value.number} {value.name}" for value in values)
