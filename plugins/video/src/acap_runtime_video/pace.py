"""The pace of frames: those of a clip, and those that a stream hands out."""

from __future__ import annotations

import time
from typing import Final

SECOND_NS: Final = 1_000_000_000
_LONGEST_GAP_NS: Final = 10 * SECOND_NS
"""Timestamps further apart than this count as broken."""
_LATE_NS: Final = SECOND_NS // 2
"""A clip that is later than this is too much for this machine: it plays slower instead of catching up."""


class Playback:
    """The due times of a clip's frames, by the clip's timestamps, from one round to the next without a break.

    A timestamp that is missing, goes back or jumps far ahead counts as one interval. Clips with such timestamps play at
    about their frame rate.
    """

    def __init__(self) -> None:
        self._due_ns: int | None = None
        self._position_ns: int | None = None

    def due_ns(self, time_s: float | None, interval_ns: int) -> int:
        """Return the due time of the frame with timestamp `time_s`, or `interval_ns` after the last if it is None."""
        now_ns = time.monotonic_ns()
        told_ns = None if time_s is None else round(time_s * SECOND_NS)
        if self._due_ns is None:
            self._due_ns = now_ns
            self._position_ns = told_ns
            return self._due_ns
        gap_ns = interval_ns
        if (
            told_ns is not None
            and self._position_ns is not None
            and 0 <= told_ns - self._position_ns <= _LONGEST_GAP_NS
        ):
            gap_ns = told_ns - self._position_ns
        self._position_ns = told_ns if self._position_ns is None else self._position_ns + gap_ns
        self._due_ns += gap_ns
        if now_ns - self._due_ns > _LATE_NS:
            self._due_ns = now_ns
        return self._due_ns

    def rewind(self) -> None:
        """Start a new round: the next frame is the clip's first again."""
        self._position_ns = None


class Ticks:
    """The beats of a stream, `framerate` per second without drift. Missed beats are skipped.

    A source often has the same rate. Beats therefore come a quarter of an interval after a frame. If both came at once,
    jitter would give one frame twice and lose the next.
    """

    def __init__(self, framerate: int, frame_ns: int) -> None:
        self._framerate = framerate
        self._start_ns = frame_ns + SECOND_NS // framerate // 4
        self._tick = self._latest(time.monotonic_ns())

    def wait(self) -> None:
        """Wait for the next beat, or return at once if it is past."""
        now_ns = time.monotonic_ns()
        # The latest past beat counts only if the one after the last was missed as well.
        self._tick = max(self._tick + 1, self._latest(now_ns))
        due_ns = self._start_ns + self._tick * SECOND_NS // self._framerate
        if due_ns > now_ns:
            time.sleep((due_ns - now_ns) / SECOND_NS)

    def _latest(self, now_ns: int) -> int:
        return (now_ns - self._start_ns) * self._framerate // SECOND_NS
