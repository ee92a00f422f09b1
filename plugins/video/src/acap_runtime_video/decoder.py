"""A thread that decodes a source, and its newest frame."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import acap_runtime as acap
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc
from av.video.stream import VideoStream

from acap_runtime_video.opening import opened, reason
from acap_runtime_video.pace import SECOND_NS, Playback
from acap_runtime_video.source import Source

_LOG: Final = logging.getLogger(__name__)
_STILL_INTERVAL_NS: Final = SECOND_NS
"""The interval of rereading a clip of one frame: the file may be rewritten, and rereading must not keep a core busy."""
_USUAL_RATE: Final = 25
"""Frames per second of a clip that does not specify a rate."""


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A decoded frame, which several threads read, and its time of arrival."""

    frame: VideoFrame
    captured_ns: int


class Decoder:
    """Decodes from its creation until it is stopped or the source fails.

    It first waits for the end of its `predecessor`, since only one decoder at a time can open a device.
    """

    def __init__(self, source: Source, predecessor: Decoder | None = None) -> None:
        self.source = source
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._newest: Captured | None = None
        self._error: acap.AcapError | None = None
        # Opening may take as long as a gap between frames, and FFmpeg's own error then gives the better reason.
        self._expected_ns = time.monotonic_ns() + self._timeout_ns
        # A read that never returns must not prevent the process from exiting.
        self._thread = threading.Thread(target=self._live, args=(predecessor,), name=f"decode {source}", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """True once it gives no more frames."""
        return self._stopping.is_set() or self._error is not None

    def newest(self) -> Captured:
        """Wait for the first frame, and return the newest. Raises the reason if there is none or will be no more."""
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error.copy()
                left_ns = self._expected_ns + self._timeout_ns - time.monotonic_ns()
                if left_ns < 0:
                    self._fail(acap.Unavailable(f"{self.source}: no frame for {self.source.timeout_s:g} s"))
                elif self._newest is not None:
                    return self._newest
                else:
                    self._changed.wait(left_ns / SECOND_NS)

    def stop(self) -> None:
        """Tell it to end, without waiting."""
        self._stopping.set()

    def ended_within(self, seconds: float) -> bool:
        """Wait until its thread has ended and the source is closed. Returns False if that takes longer."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def _timeout_ns(self) -> int:
        return round(self.source.timeout_s * SECOND_NS)

    def _live(self, predecessor: Decoder | None) -> None:
        error: acap.AcapError
        try:
            if predecessor is not None and not predecessor.ended_within(self.source.timeout_s):
                raise acap.Unavailable(f"{self.source}: still in use: an earlier read of it has not come back")
            del predecessor
            self._decode()
            error = acap.Unavailable(f"{self.source}: ended")
        except acap.AcapError as known:
            error = known
        except Exception as unknown:  # noqa: BLE001 - streams must hear that there is nothing more to wait for
            acap.log_unexpected(_LOG, f"{self.source}: decoding failed", unknown)
            error = acap.Unavailable(f"{self.source}: decoding failed: {acap.unexpected(unknown)}")
        with self._changed:
            if self._newest is not None and not isinstance(error, acap.Unavailable):
                # A source that worked a moment ago is only temporarily gone.
                error = acap.Unavailable(str(error))
            self._fail(error)

    def _fail(self, error: acap.AcapError) -> None:
        self._stopping.set()
        self._error = self._error or error
        self._newest = None
        self._changed.notify_all()

    def _decode(self) -> None:
        playback = Playback()
        while not self._stopping.is_set():
            with opened(self.source) as (container, stream):
                self._expect(time.monotonic_ns())
                if self.source.live:
                    self._follow(container, stream)
                    return
                self._play(container, stream, playback)

    def _follow(self, container: InputContainer, stream: VideoStream) -> None:
        for frame in self._frames(container, stream):
            self._publish(frame)

    def _play(self, container: InputContainer, stream: VideoStream, playback: Playback) -> None:
        """Play a clip once. Reopening it, unlike rewinding, works with every format and notices a new file."""
        interval_ns = int(SECOND_NS / (stream.average_rate or stream.guessed_rate or _USUAL_RATE))
        # AVI counts frames in storage order, not display order: FFmpeg's timestamps are wrong with B frames.
        counted = container.format.name == "avi"
        count = 0
        playback.rewind()
        for frame in self._frames(container, stream):
            due_ns = playback.due_ns(None if counted else frame.time, interval_ns)
            self._expect(due_ns)
            if self._stopping.wait(max(0, due_ns - time.monotonic_ns()) / SECOND_NS):
                return
            self._publish(frame)
            count += 1
        if count == 0 and not self._stopping.is_set():
            raise self.source.failure(f"{self.source}: expected {self.source.expected}, got one without a whole frame")
        if count == 1:
            self._expect(time.monotonic_ns() + _STILL_INTERVAL_NS)
            self._stopping.wait(_STILL_INTERVAL_NS / SECOND_NS)

    def _frames(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        # Reads packets of all streams, so that a source without video for a while can still be stopped.
        packets = container.demux()
        while not self._stopping.is_set():
            try:
                packet = next(packets, None)
            except av.error.ExitError:
                raise acap.Unavailable(f"{self.source}: no frame for {self.source.timeout_s:g} s") from None
            except av.error.FFmpegError as error:
                if not self.source.live:
                    _LOG.debug("%s: ends early: %s", self.source, reason(error))
                    return
                raise acap.Unavailable(f"{self.source}: {reason(error)}") from None
            if packet is None:
                return
            if packet.stream_index == stream.index:
                yield from self._decoded(packet)

    def _decoded(self, packet: Packet[Stream]) -> list[VideoFrame]:
        try:
            return [frame for frame in packet.decode() if isinstance(frame, VideoFrame)]
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            # A broken packet costs its frame. A source with only broken packets is given up for lack of frames.
            _LOG.debug("%s: a packet does not decode: %s", self.source, reason(error))
            return []

    def _expect(self, when_ns: int) -> None:
        with self._changed:
            self._expected_ns = when_ns

    def _publish(self, frame: VideoFrame) -> None:
        # Scaling hides these tags from swscale by overwriting and restoring them. With several threads on one frame,
        # there must be nothing to hide. The tags describe displays, and no stream here converts between displays.
        frame.color_trc = ColorTrc.UNSPECIFIED
        frame.color_primaries = ColorPrimaries.UNSPECIFIED
        with self._changed:
            if self._stopping.is_set():
                return
            self._expected_ns = time.monotonic_ns()
            self._newest = Captured(frame, self._expected_ns)
            self._changed.notify_all()
