"""When a frame was taken."""

from __future__ import annotations

import time
from typing import Final

_US: Final = 1000
_OLDEST_NS: Final = 5_000_000_000
"""A frame that is older than this was not taken then: its time is another clock's."""


class CaptureClock:
    """Turns VDO's two timestamps into times of ``time.monotonic_ns()`` that grow from frame to frame.

    The timestamp is documented as CLOCK_MONOTONIC of the capture, in µs, which is what is wanted; but in streams with
    Zipstream as the signal processor's, whose clock may be another. So the custom timestamp is asked to be MONO_SERVER,
    which is CLOCK_MONOTONIC when VDO's service had the frame, and stands in where the first one cannot be true.
    """

    def __init__(self) -> None:
        self._last_ns = 0

    def time_of(self, captured_us: int, served_us: int) -> int:
        now = time.monotonic_ns()
        for stamp in (captured_us * _US, served_us * _US):
            if max(self._last_ns, now - _OLDEST_NS) < stamp <= now:
                break
        else:
            stamp = max(now, self._last_ns + 1)
        self._last_ns = stamp
        return stamp
