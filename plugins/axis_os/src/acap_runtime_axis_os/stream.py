"""A VDO stream."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import acap_runtime as acap

from acap_runtime_axis_os.clock import CaptureClock
from acap_runtime_axis_os.declarations import FrameType, VdoError
from acap_runtime_axis_os.layout import Layout, tight_pitch
from acap_runtime_axis_os.library import Failure, Library
from acap_runtime_axis_os.vdo import opened, opening, reading, settings_of

_LOG = logging.getLogger(__name__)

_TRANSIENT: Final = frozenset({VdoError.NO_DATA, VdoError.NO_VIDEO})
"""VDO's EAGAIN: the stream is healthy, and the next try may have a frame."""
_KEY_FRAMES: Final = frozenset(FrameType)
_PAUSE_S: Final = 0.005
"""The pause between tries if there is no frame although the socket is readable."""


class VdoStream(acap.Stream):
    """A stream that VDO paces, scales and encodes. Encoded streams have no raw pictures."""

    def __init__(
        self, vdo: Library, source: str, channel: int | None, settings: acap.StreamSettings, timeout_s: float
    ) -> None:
        self._vdo = vdo
        self._what = f"{source}, {settings}"
        self._settings = settings
        self._timeout_s = timeout_s
        self._clock = CaptureClock()
        self._begun = False
        with opening(self._what), ExitStack() as stack:
            self._stream = stack.enter_context(opened(vdo, settings_of(settings, channel)))
            self._layout = self._agreed_layout()
            descriptor = vdo.call("vdo_stream_get_fd", self._stream, fails=lambda result: result < 0)
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
            vdo.call("vdo_stream_start", self._stream)
            stack.callback(vdo.functions.vdo_stream_stop, self._stream)
            self._resources = stack.pop_all()

    def read(self, picture: acap.Array, *, keyframe: bool = False) -> acap.Frame:
        moving = self._settings.format in ("h264", "h265")
        until = time.monotonic() + self._timeout_s
        no_longer_choosy = until - self._timeout_s / 2
        with reading(self._what):
            if moving and keyframe and self._begun:
                self._vdo.call("vdo_stream_force_key_frame", self._stream)
            while True:
                with self._next_buffer(until) as buffer:
                    frame = self._vdo.functions.vdo_buffer_get_frame(buffer)
                    is_key = not moving or self._vdo.functions.vdo_frame_get_frame_type(frame) in _KEY_FRAMES
                    # Frames before the first keyframe cannot be decoded. A requested keyframe is on its way. If VDO
                    # ignores the request, frames go on.
                    if is_key or (self._begun and not keyframe) or time.monotonic() >= no_longer_choosy:
                        self._begun = True
                        return self._frame(buffer, frame, picture, is_key=is_key)

    def close(self) -> None:
        self._resources.close()

    def _agreed_layout(self) -> Layout | None:
        """Check that VDO agreed to the request, raise if not, and return the layout of raw pictures."""
        get = self._vdo.functions.vdo_map_get_uint32
        asked = self._settings
        info = self._vdo.call("vdo_stream_get_info", self._stream)
        try:
            size = get(info, b"width", asked.width), get(info, b"height", asked.height)
            framerate = get(info, b"framerate", asked.framerate)
            wanted = b"NV12"
            subformat = self._vdo.text(
                self._vdo.functions.vdo_map_get_string(info, b"subformat", self._vdo.ffi.NULL, wanted)
            )
            pitch = 0 if asked.encoded else get(info, b"pitch", tight_pitch(asked.picture))
        finally:
            self._vdo.functions.g_object_unref(info)
        if size != (asked.width, asked.height):
            raise acap.InvalidRequest(f"{self._what}: VDO gives {size[0]}x{size[1]} instead; ask for a size it has")
        if asked.format == "nv12" and subformat.upper() != wanted.decode():
            raise acap.InvalidRequest(f"{self._what}: expected subformat NV12 of VDO, got {subformat}")
        if framerate != asked.framerate:
            _LOG.warning("%s: VDO gives %d frames per second", self._what, framerate)
        if asked.encoded:
            return None
        if pitch < tight_pitch(asked.picture):
            raise acap.DeviceError(
                f"{self._what}: VDO says that rows are {pitch} bytes apart: expected at least the "
                f"{tight_pitch(asked.picture)} of a row"
            )
        return Layout.of(asked.picture, pitch)

    @contextmanager
    def _next_buffer(self, until: float) -> Iterator[Any]:
        buffer = self._vdo.ffi.new("VdoBuffer **", self._wait_for_buffer(until))
        try:
            yield buffer[0]
        finally:
            self._vdo.call("vdo_stream_buffer_unref", self._stream, buffer)

    def _wait_for_buffer(self, until: float) -> Any:
        while (left_s := until - time.monotonic()) > 0 and self._poll.poll(left_s * 1000):
            try:
                return self._vdo.call("vdo_stream_get_buffer", self._stream)
            except Failure as failure:
                if failure.code not in _TRANSIENT:
                    raise
                time.sleep(_PAUSE_S)
        raise acap.Unavailable(f"{self._what}: VDO gave no frame for {self._timeout_s:g} s")

    def _frame(self, buffer: Any, frame: Any, picture: acap.Array, *, is_key: bool) -> acap.Frame:
        functions = self._vdo.functions
        data = functions.vdo_buffer_get_data(buffer)
        if not data:
            raise acap.Unavailable(f"{self._what}: VDO's memory of a frame cannot be mapped")
        captured_ns = self._clock.time_of(
            functions.vdo_frame_get_timestamp(frame), functions.vdo_frame_get_custom_timestamp(frame)
        )
        if self._layout is None:
            encoded = bytes(self._vdo.ffi.buffer(data, functions.vdo_frame_get_size(frame)))
            return acap.Frame(captured_ns, encoded, is_key, has_picture=False)
        capacity = functions.vdo_buffer_get_capacity(buffer)
        if capacity < self._layout.nbytes:
            raise acap.Unavailable(
                f"{self._what}: VDO's buffer has {capacity} bytes: expected at least {self._layout.nbytes}"
            )
        self._layout.copy(memoryview(self._vdo.ffi.buffer(data, self._layout.nbytes)), picture)
        return acap.Frame(captured_ns)
