"""Capture times of frames."""

from __future__ import annotations

import time
from typing import Final

_US: Final = 1000
_OLDEST_NS: Final = 5_000_000_000
"""A frame cannot be older than this: such a time comes from another clock."""


class CaptureClock:
    """Turns VDO's two timestamps into times of ``time.monotonic_ns()`` that grow from frame to frame.

    VDO documents the timestamp as CLOCK_MONOTONIC of the capture, in µs, which is the wanted time. In streams with
    Zipstream it documents the signal processor's time, whose clock may differ. The plugin therefore requests
    MONO_SERVER as the custom timestamp: CLOCK_MONOTONIC when VDO's service had the frame. The custom timestamp replaces
    the first one if that cannot be true.
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
