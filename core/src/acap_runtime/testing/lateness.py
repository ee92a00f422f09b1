"""Measures how busy the machine is, for tests that measure real time."""

from __future__ import annotations

import threading
import time
from typing import Final, Self

_NAP_S: Final = 0.005
_USUAL_S: Final = 0.001
"""The lateness of an idle machine, which does not count."""


class Lateness:
    """Measures how late this machine wakes a sleeping thread, while the context is open.

    A busy machine delays every process equally. A test adds `total_s` to the longest time that it accepts, so that it
    fails because of the code under test and not because of other processes.
    """

    def __init__(self) -> None:
        self.total_s = 0.0
        """Sum of the delays so far, in seconds."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lateness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + _NAP_S
            time.sleep(_NAP_S)
            self.total_s += max(0.0, time.monotonic() - due - _USUAL_S)
