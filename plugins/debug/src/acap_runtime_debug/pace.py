"""The pace of a camera's frames."""

from __future__ import annotations

import time
from typing import Final

_SECOND_NS: Final = 1_000_000_000


class Pace:
    """Frame `n` is due `n` intervals after the first, on the monotonic clock: errors of single waits never add up.

    A caller that is late by more than an interval misses the frames between, and their numbers are skipped.
    """

    def __init__(self, framerate: int) -> None:
        self._framerate = framerate
        self._start_ns: int | None = None
        self._number = -1

    def wait(self) -> tuple[int, int]:
        """Wait for the next frame. Returns its number, from 0, and its due time (``time.monotonic_ns()``)."""
        now = time.monotonic_ns()
        if self._start_ns is None:
            self._start_ns = now
        self._number = max(self._number + 1, (now - self._start_ns) * self._framerate // _SECOND_NS)
        due = self._start_ns + self._number * _SECOND_NS // self._framerate
        if due > now:
            time.sleep((due - now) / _SECOND_NS)
        return self._number, due
