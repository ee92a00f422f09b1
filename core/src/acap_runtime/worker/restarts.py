"""When a process that died is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a worker that died is started again.

    At once after a first death within `window_s`; then after `first_delay_s`, doubled with each further one up to
    `longest_delay_s`. After `budget` deaths within the window the chip rests for `rest_s`, and its calls are refused.
    """

    budget: int = 6
    window_s: float = 60.0
    first_delay_s: float = 0.25
    longest_delay_s: float = 4.0
    rest_s: float = 30.0

    def delay_s(self, deaths: int) -> float:
        """Seconds to wait after the last of `deaths` within the window."""
        return 0.0 if deaths <= 1 else min(self.first_delay_s * 2 ** (deaths - 2), self.longest_delay_s)
