"""The front's end of a capture: the frames of one form that a camera's process writes, and who uses them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import Any, Final

from acap_runtime.contract.camera import StreamSettings
from acap_runtime.errors import AcapError, DeviceError, Unavailable
from acap_runtime.link.messages import Channel, unpack_error
from acap_runtime.link.ring import Ring, RingLayout
from acap_runtime.link.segment import Segment

_LOG = logging.getLogger(__name__)
_SPARE_SLOTS: Final = 8
"""Slots of a ring beyond those of kept frames: for the newest, the one being written, and those lent."""
_MOST_LENT: Final = 5
"""Frames that calls may have in their slots at once; the camera needs others to go on writing."""
_BACKLOG: Final = 128
"""Frames that a client of an H.26x stream may be late by before it is given the next keyframe."""


def ring_nbytes(settings: StreamSettings, kept_frames: int) -> int:
    """Bytes that the ring of such a capture has, were every slot written."""
    return RingLayout(settings, kept_frames + _SPARE_SLOTS).nbytes


class CapturedFrame:
    """A frame in a ring, which stays while somebody holds it. Times are monotonic nanoseconds.

    `number` counts the capture's frames from 1. `server_ns` is when the camera's process had it, `client_ns` when the
    front had, `utc_us` is the time of capture in microseconds since 1970.
    """

    def __init__(self, ring: Ring, capture: RemoteCapture, number: int, message: Mapping[str, Any]) -> None:
        _, self._slot, self._encoded_nbytes, self.keyframe, self.has_picture = message["frame"]
        self.number = number
        self.captured_ns, self.server_ns = message["times"]
        self.client_ns = time.monotonic_ns()
        self.utc_us = (time.time_ns() - (self.client_ns - self.captured_ns)) // 1000
        self._ring = ring
        self._capture = capture
        self.keep_count = 0
        """The number of streams that may give the frame out again."""
        self._holders = 1
        # What is encoded is small; a client that is late may still want it when the slot has gone.
        self._copy = self._read() if ring.layout.settings.encoded else None

    @property
    def content(self) -> bytes:
        """The encoded frame, or the pixels of the picture. Only for those who hold the frame."""
        return self._read() if self._copy is None else self._copy

    @property
    def picture(self) -> tuple[Ring, int]:
        """The ring and the offset of the raw picture. Only for those who hold the frame."""
        return self._ring, self._ring.layout.picture_offset(self._slot)

    @property
    def picture_nbytes(self) -> int:
        return self._ring.layout.picture_nbytes

    def copy_picture(self, target: memoryview) -> None:
        """Write the raw picture into `target`, and keep the content, since the slot may be written again."""
        start = self.picture[1]
        target[:] = self._ring.segment.view[start : start + self.picture_nbytes]
        self._copy = self.content

    @property
    def in_slot(self) -> bool:
        """True if the slot is still this frame's. Otherwise `content` has only a copy, if one was made."""
        return self._holders > 0

    def hold(self) -> CapturedFrame:
        """Keep the slot until `release`."""
        self._holders += 1
        return self

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._capture.free(self._ring, self._slot)

    def move_out(self) -> None:
        """Release the slot, and keep a copy of the content for those who keep the frame."""
        if self.keep_count:
            self._copy = self.content
        self.release()

    def _read(self) -> bytes:
        layout = self._ring.layout
        if layout.settings.encoded:
            start, size = layout.encoded_offset(self._slot), self._encoded_nbytes
        else:
            start, size = layout.picture_offset(self._slot), layout.picture_nbytes
        return bytes(self._ring.segment.view[start : start + size])


class RemoteCapture:
    """A capture that a camera's process has, or is about to have; it outlives the process.

    `error` is set while there are no frames, and says why. `users` are the streams that share it.
    """

    def __init__(self, settings: StreamSettings, kept_frames: int) -> None:
        self.settings = settings
        self.users = 0
        self.latest: CapturedFrame | None = None
        self.error: AcapError | None = None
        self.settled = asyncio.Event()
        """Set once it is open or there is an error."""
        self.progress = time.monotonic()
        """The time at which the last frame came, or the capture was opened (monotonic seconds)."""
        self.lost: asyncio.Future[AcapError | None] = asyncio.get_running_loop().create_future()
        """Done when the camera's process ends this capture: with the reason, or None where it says nothing."""
        self._layout = RingLayout(settings, kept_frames + _SPARE_SLOTS)
        self._kept_frames = kept_frames
        self._kept: OrderedDict[int, CapturedFrame] = OrderedDict()
        self._lent: Counter[CapturedFrame] = Counter()
        self._channel: Channel | None = None
        self._ring: Ring | None = None
        self._before = 0  # frames that earlier rings had
        self._last = 0
        self._backlog: deque[CapturedFrame] = deque(maxlen=_BACKLOG)
        self._waiters: set[asyncio.Future[None]] = set()
        self._to_free: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the ring, were every slot written."""
        return self._layout.nbytes

    @property
    def slots(self) -> int:
        return self._layout.slots

    def attach(self, channel: Channel) -> None:
        """Take the channel to a process that was told to open this capture; `settled` says when it is."""
        self._channel = channel
        self.lost = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(channel.fileno(), self._receive)

    def detach(self, error: AcapError) -> None:
        """The process is gone or has failed: whoever waits for a frame is told, and whoever comes."""
        self.error = error
        self._drop()
        self.settled.set()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error.copy())
        self._waiters.clear()

    def check(self) -> None:
        """Raise what keeps this capture from giving frames."""
        if self.error is not None:
            raise self.error.copy()

    def want_keyframe(self) -> None:
        """Ask for a frame that decodes by itself, for a client that joins."""
        if self._channel is not None and self.settings.encoded:
            self._tell({"keyframe": True})

    def after(self, number: int, *, decodable: bool) -> CapturedFrame | None:
        """The frame for a client that had `number` last: the newest, but of H.26x the next one that it can decode.

        `decodable` says that it can decode what follows `number`. None where there is none yet.
        """
        if self.settings.format not in ("h264", "h265"):
            return self.latest if self.latest is not None and self.latest.number > number else None
        later = [frame for frame in self._backlog if frame.number > number]
        if decodable and later and later[0].number == number + 1:
            return later[0]
        return next((frame for frame in later if frame.keyframe), None)

    def keep(self, frame: CapturedFrame) -> None:
        """Leave a frame in its slot for those who keep it, as long as not too many others are kept after it."""
        if frame.number in self._kept or not frame.in_slot or frame.picture[0] is not self._ring:
            return
        self._kept[frame.number] = frame.hold()
        if len(self._kept) > self._kept_frames:
            self._kept.popitem(last=False)[1].move_out()

    def lend(self, frame: CapturedFrame) -> bool:
        """Leave a frame in its slot until `give_back`; False where so many others are that it had better be copied."""
        if frame not in self._lent and len(self._lent) >= _MOST_LENT:
            return False
        self._lent[frame] += 1
        frame.hold()
        return True

    def give_back(self, frame: CapturedFrame) -> None:
        self._lent[frame] -= 1
        if self._lent[frame] <= 0:
            del self._lent[frame]
        frame.release()

    def waiter(self) -> asyncio.Future[None]:
        """Return a future that is done when the next frame comes. It raises the error that ends the capture."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(future)
        future.add_done_callback(self._waiters.discard)
        return future

    def free(self, ring: Ring, slot: int) -> None:
        """Let the camera write a slot again."""
        if ring is self._ring:
            self._to_free.append(slot)
            self._tell({"free": self._to_free})

    def _tell(self, message: Mapping[str, Any]) -> None:
        if self._channel is None:
            return
        try:
            self._channel.send(message)
        except OSError:
            return  # it takes no more for the moment, and is told with the next; or it has ended, which others see
        if "free" in message:
            self._to_free = []

    def _receive(self) -> None:
        channel = self._channel
        assert channel is not None  # noqa: S101 - reading stops when the channel goes
        try:
            received = channel.receive()
        except BlockingIOError:
            return
        except OSError as error:
            received = {"error": ["Unavailable", f"a frame cannot be received: {error}"]}, []
        if received is None or "error" in received[0]:
            asyncio.get_running_loop().remove_reader(channel.fileno())
            if not self.lost.done():
                self.lost.set_result(None if received is None else unpack_error(received[0]["error"]))
            return
        message, descriptors = received
        self.progress = time.monotonic()
        if "opened" in message:
            self._open(descriptors)
        elif "frame" in message:
            self._take(message)
        else:
            _LOG.debug("frame %d of %s missed: every slot is in use", message["missed"], self.settings)

    def _open(self, descriptors: list[int]) -> None:
        try:
            (descriptor,) = descriptors
            segment = Segment(descriptor)
            if segment.size < self._layout.nbytes:
                raise DeviceError(f"the ring has {segment.size} bytes: expected {self._layout.nbytes}")
        except (AcapError, OSError, ValueError) as error:
            for each in descriptors:
                os.close(each)
            self.lost.set_result(error if isinstance(error, AcapError) else Unavailable(str(error)))
            return
        self._ring = Ring(self._layout, segment)
        if self.error is not None:
            _LOG.info("%s is there again", self.settings)
        self.error = None
        self.settled.set()

    def _take(self, message: Mapping[str, Any]) -> None:
        assert self._ring is not None  # noqa: S101 - the process says that it is open first
        self._last = self._before + message["frame"][0]
        frame = CapturedFrame(self._ring, self, self._last, message)
        if self.latest is not None:
            self.latest.release()
        self.latest = frame
        if self.settings.format in ("h264", "h265"):
            self._backlog.append(frame)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel.fileno())
            channel.close()
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.retire()
        self.latest = None
        self._lent.clear()
        self._kept.clear()  # what streams keep stays in the memory of the ring that was
        self._backlog.clear()
        self._to_free = []
        self._before = self._last
