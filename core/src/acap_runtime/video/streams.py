"""The streams that clients have open: what each was given last, the frames it may fetch again, and its lease."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from acap_runtime.chips.calls import SharedSource
from acap_runtime.contract.camera import StreamSettings
from acap_runtime.errors import AcapError, Busy, NotFound, NotReady, Unavailable, quoted
from acap_runtime.link.ring import Ring
from acap_runtime.video.camera_process import CameraWorker
from acap_runtime.video.capture import CapturedFrame, RemoteCapture, ring_nbytes

_LOG = logging.getLogger(__name__)
_LONGEST_CHECK_S: Final = 10.0
_MOST_MEMORY: Final = 4 << 30
"""Bytes that all rings may have, were they full."""
_HIGHEST_FIRST: Final = 1 << 31
"""Below it the first stream's number is drawn; the wire has numbers up to twice as high."""
_NAME_ONE: Final = (
    "start the server with --camera SOURCE, such as --camera test-pattern or --camera rtsp://HOST/PATH "
    "(acapruntime cameras lists what is there)"
)
_NO_CAMERA: Final = f"this server has no camera; {_NAME_ONE}"


class Stream:
    """A client's view of a capture. Several streams of equal settings share one."""

    def __init__(
        self, number: int, camera: CameraWorker, capture: RemoteCapture, timestamp_type: int, kept_frames: int
    ) -> None:
        self.number = number
        self.camera = camera
        self.capture = capture
        self.timestamp_type = timestamp_type
        """VDO's number of the timestamps that the client asked for."""
        self.users = 0
        self.opened = self.used = time.monotonic()
        self._kept_frames = kept_frames
        self._kept: OrderedDict[int, CapturedFrame] = OrderedDict()
        self._closed: AcapError | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        # Of a capture that others have open already, the frames from now on.
        self._handed_out = 0 if capture.latest is None else capture.latest.number
        self._decodable = False
        capture.want_keyframe()

    @property
    def settings(self) -> StreamSettings:
        return self.capture.settings

    async def next_frame(self) -> CapturedFrame:
        """The newest frame that was not handed out on this stream, once there is one; of H.26x the next to decode.

        Its content must be read before anything else is awaited. Raises what keeps the camera from giving frames.
        """
        while True:
            self.check()
            frame = self.capture.after(self._handed_out, decodable=self._decodable)
            if frame is not None:
                self._handed_out, self._decodable = frame.number, True
                return frame
            await self._next_change()

    async def newest_picture(self) -> NewestPicture:
        """Return the picture for a model, once there is a frame. Raises `NotReady` if frames come without pictures."""
        while self.capture.latest is None:
            self.check()
            await self._next_change()
        if not self.capture.latest.has_picture:
            raise NotReady(
                f"stream {self.number}: {self.camera.camera} gives {self.settings.format} without raw pictures; "
                f"open a raw stream for models, such as VDO_FORMAT_YUV"
            )
        return NewestPicture(self)

    def check(self) -> None:
        """Raise what keeps this stream from giving frames."""
        if self._closed is not None:
            raise self._closed.copy()
        self.capture.check()

    def keep(self, frame: CapturedFrame) -> int:
        """Keep a frame that a model ran on, in place of the oldest; returns the reference to it."""
        if self._closed is not None:
            return frame.number
        if frame.number not in self._kept:
            self._kept[frame.number] = frame
            frame.keep_count += 1
        self._kept.move_to_end(frame.number)
        if len(self._kept) > self._kept_frames:
            self._kept.popitem(last=False)[1].keep_count -= 1
        self.capture.keep(frame)
        return frame.number

    def kept_frame(self, reference: int) -> CapturedFrame:
        """The frame of a reference. Raises `NotFound` where it is kept no more."""
        frame = self._kept.get(reference)
        if frame is None:
            kept = ", ".join(map(str, self._kept)) or "none"
            raise NotFound(
                f"stream {self.number} keeps no frame {reference}; of those that models ran on, it keeps: {kept} "
                f"(--kept-frames {self._kept_frames})"
            )
        return frame

    def close(self, reason: AcapError) -> None:
        """Let go of everything; who waits for a frame, or comes, is told the reason."""
        self._closed = reason
        for frame in self._kept.values():
            frame.keep_count -= 1
        self._kept.clear()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(reason.copy())
        self.camera.release(self.capture)

    async def _next_change(self) -> None:
        waiter = self.capture.waiter()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


class NewestPicture(SharedSource):
    """The picture that is the newest when a chip is free for it; `frame` is then the one it is of."""

    def __init__(self, stream: Stream) -> None:
        self.frame: CapturedFrame | None = None
        self._stream = stream
        self._lent = False

    @property
    def nbytes(self) -> int:
        return 0 if self.frame is None else self.frame.picture_nbytes

    def locate(self) -> tuple[Ring, int] | None:
        self.close()
        self._stream.check()
        self.frame = self._stream.capture.latest
        if self.frame is None:
            raise Unavailable("the camera was opened again, and has no frame yet; try again")
        self._lent = self._stream.capture.lend(self.frame)
        return self.frame.picture if self._lent else None

    def write_into(self, target: memoryview) -> None:
        assert self.frame is not None  # noqa: S101 - it was located
        self.frame.copy_picture(target)

    def close(self) -> None:
        if self.frame is not None and self._lent:
            self._stream.capture.give_back(self.frame)
        self.frame, self._lent = None, False


class Streams:
    """Every open stream, by number. At most `limit`; one that nobody uses for `lease_s` is deleted.

    `named` says that the operator named the cameras: others are what this device may have.
    """

    def __init__(
        self, cameras: Sequence[CameraWorker], *, named: bool, limit: int, lease_s: float, kept_frames: int
    ) -> None:
        self._cameras = {camera.camera.name: camera for camera in cameras}
        self.lease_s = lease_s
        self._named = named
        self._limit = limit
        self._kept_frames = kept_frames
        self._streams: dict[int, Stream] = {}
        self._opening = 0
        # Not from 1: who still has a stream's number from before a restart must not meet somebody else's.
        self._last = secrets.randbelow(_HIGHEST_FIRST)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    @property
    def cameras(self) -> Sequence[CameraWorker]:
        """The cameras that clients may name, in the order of their numbers."""
        return list(self._cameras.values())

    async def new(self, camera_name: str | None, settings: StreamSettings, timestamp_type: int) -> Stream:
        """Open a stream of a camera, of the first where none is named.

        Raises `NotReady` without a camera, `NotFound` for an unknown one, `Busy` where as many are open as may be,
        and as `CameraWorker.open` does.
        """
        camera = self._camera(camera_name)
        if len(self._streams) + self._opening >= self._limit:
            raise Busy(f"{self._limit} streams are open, as many as may be (--max-streams); delete one, or wait")
        self._check_memory(settings)
        self._opening += 1
        try:
            capture = await camera.open(settings)
        except NotReady as error:
            raise error.copy() if self._named else NotReady(f"{error}; {_NAME_ONE}") from None
        finally:
            self._opening -= 1
        self._last += 1
        stream = self._streams[self._last] = Stream(self._last, camera, capture, timestamp_type, self._kept_frames)
        _LOG.info("stream %d: %s of %s", stream.number, settings, camera.camera)
        return stream

    @contextlib.contextmanager
    def use(self, number: int) -> Iterator[Stream]:
        """A stream, whose lease is renewed. Raises `NotReady` for one that does not exist."""
        stream = self._find(number)
        stream.users += 1
        try:
            yield stream
        finally:
            stream.users -= 1
            stream.used = time.monotonic()

    def delete(self, number: int) -> None:
        """Close a stream; calls that wait for its frames end. Raises `NotReady` for one that does not exist."""
        self._close(self._find(number), "was deleted")

    async def expire(self) -> None:
        """Delete streams whose lease is over, for ever."""
        while True:
            await asyncio.sleep(min(self.lease_s / 4, _LONGEST_CHECK_S))
            over = time.monotonic() - self.lease_s
            for stream in list(self._streams.values()):
                if not stream.users and stream.used < over:
                    _LOG.warning("stream %d: nobody used it for %g s", stream.number, self.lease_s)
                    self._close(stream, f"was deleted: nobody used it for {self.lease_s:g} s (--stream-lease)")

    async def stop(self) -> None:
        """Close every stream and end the cameras' processes."""
        for stream in list(self._streams.values()):
            self._close(stream, "was deleted: the server stops")
        await asyncio.gather(*(camera.stop() for camera in self._cameras.values()))

    def _check_memory(self, settings: StreamSettings) -> None:
        """Raise `Busy` where the rings of all captures would have more memory than a device can be asked for."""
        rings = {
            (stream.camera.camera.name, stream.settings): stream.capture.nbytes for stream in self._streams.values()
        }
        needed = ring_nbytes(settings, self._kept_frames)
        if sum(rings.values()) + needed > _MOST_MEMORY:
            raise Busy(
                f"streams of {len(rings)} forms have {sum(rings.values()) >> 20} MiB, and {settings} would add "
                f"{needed >> 20}: expected at most {_MOST_MEMORY >> 20} in all; delete some, or open smaller ones"
            )

    def _close(self, stream: Stream, reason: str) -> None:
        del self._streams[stream.number]
        stream.close(NotReady(f"stream {stream.number} {reason}"))
        _LOG.info("stream %d %s", stream.number, reason)

    def _find(self, number: int) -> Stream:
        stream = self._streams.get(number)
        if stream is None:
            reason = "open one with NewStream" if self._cameras else _NO_CAMERA
            raise NotReady(f"stream {number} does not exist: {reason}")
        return stream

    def _camera(self, name: str | None) -> CameraWorker:
        if not self._cameras:
            raise NotReady(_NO_CAMERA)
        if name is None:
            return next(iter(self._cameras.values()))
        by_number = {str(number): camera for number, camera in enumerate(self._cameras.values(), 1)}
        camera = self._cameras.get(name) or by_number.get(name)
        if camera is None:
            known = ", ".join(f"{number} {each}" for number, each in enumerate(self._cameras, 1))
            raise NotFound(f"camera {quoted(name)} is unknown; expected one of: {known}")
        return camera
