"""When a process that died is started again."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a worker that died is started again.

    At once after a first death within `window_s`; then after `first_delay_s`, doubled with each further one up to
    `longest_delay_s`. After `budget` deaths within the window it may rest for `rest_s`, while its calls are refused.
    """

    budget: int = 6
    window_s: float = 60.0
    first_delay_s: float = 0.25
    longest_delay_s: float = 4.0
    rest_s: float = 30.0

    def delay_s(self, deaths: int) -> float:
        """Seconds to wait after the last of `deaths` within the window."""
        return 0.0 if deaths <= 1 else min(self.first_delay_s * 2 ** (deaths - 2), self.longest_delay_s)


class RecentDeaths:
    """The deaths that count: those within a policy's window before the last."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._times: deque[float] = deque()

    def note(self) -> None:
        """One more, now."""
        self._times.append(time.monotonic())
        while self.span_s > self._policy.window_s:
            self._times.popleft()

    def clear(self) -> None:
        self._times.clear()

    @property
    def count(self) -> int:
        return len(self._times)

    @property
    def delay_s(self) -> float:
        """Seconds to wait after the last."""
        return self._policy.delay_s(self.count)

    @property
    def span_s(self) -> float:
        """Seconds from the first to the last."""
        return self._times[-1] - self._times[0]

    @property
    def since_last_s(self) -> float:
        return time.monotonic() - self._times[-1]
