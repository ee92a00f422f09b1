"""Decides when a process that died is started again: the back-off, budget and rest of every worker."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The waits between the deaths of a process and its restarts.

    After the first death within `window_s` there is no wait. After the second it is `first_delay_s`, and it doubles
    with each further death up to `longest_delay_s`. After `budget` deaths within the window the process rests for
    `rest_s` and has a full budget again. With a `budget` of None it never rests.
    """

    budget: int | None = 6
    window_s: float = 60.0
    first_delay_s: float = 0.25
    longest_delay_s: float = 4.0
    rest_s: float = 30.0

    def delay_s(self, deaths: int) -> float:
        """Return the seconds to wait after the last of `deaths` within the window."""
        return 0.0 if deaths <= 1 else min(self.first_delay_s * 2 ** (deaths - 2), self.longest_delay_s)


class RestartBackoff:
    """Counts the deaths of one process and applies a `RestartPolicy` to them.

    The user calls `note_death` after each death and `wait` before each restart.
    """

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._times: deque[float] = deque()

    def note_death(self) -> None:
        """Count a death that happened now, and forget those that are older than the window."""
        self._times.append(time.monotonic())
        while self.span_s > self._policy.window_s:
            self._times.popleft()

    async def wait(self) -> None:
        """Sleep until the process may be started. A rest ends with all deaths forgotten."""
        await asyncio.sleep(self.remaining_s)
        if self.exhausted:
            self._times.clear()

    @property
    def deaths(self) -> int:
        """The number of deaths within the window."""
        return len(self._times)

    @property
    def span_s(self) -> float:
        """Seconds from the first of these deaths to the last."""
        return self._times[-1] - self._times[0]

    @property
    def exhausted(self) -> bool:
        """True if the deaths have used up the budget, so that the process rests."""
        return self._policy.budget is not None and self.deaths >= self._policy.budget

    @property
    def delay_s(self) -> float:
        """Seconds from the last death to the next start."""
        return self._policy.rest_s if self.exhausted else self._policy.delay_s(self.deaths)

    @property
    def remaining_s(self) -> float:
        """Seconds from now to the next start."""
        return max(0.0, self._times[-1] + self.delay_s - time.monotonic()) if self._times else 0.0
