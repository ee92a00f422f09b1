"""What became of a model's calls, as `inference.ModelStatistics` tells it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Total:
    """How many there were, and the seconds that they took together."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class Statistics:
    """Of calls: `succeeded` and `failed` from their coming to their end, `queued` until they were sent to the chip.

    Of executions, which have several calls where calls are put together: `converted`, `ran`, and `ran` by rows.
    """

    succeeded: Total = field(default_factory=Total)
    failed: Total = field(default_factory=Total)
    refused: int = 0
    queued: Total = field(default_factory=Total)
    converted: Total = field(default_factory=Total)
    ran: Total = field(default_factory=Total)
    rows: int = 0
    by_rows: dict[int, Total] = field(default_factory=dict)
    last_ms: int = 0
    """When the last call came, in milliseconds since 1970."""


@dataclass(slots=True)
class Typical:
    """What something usually takes: a mean that follows changes, and how far from it is still usual."""

    mean_s: float | None = None
    deviation_s: float = 0.0

    def add(self, seconds: float) -> None:
        # RFC 6298's way of telling when an answer is overdue.
        if self.mean_s is None:
            self.mean_s, self.deviation_s = seconds, seconds / 2
        else:
            self.deviation_s += (abs(seconds - self.mean_s) - self.deviation_s) / 4
            self.mean_s += (seconds - self.mean_s) / 8

    @property
    def at_most_s(self) -> float:
        """Few take longer; 0 where nothing is known yet."""
        return 0.0 if self.mean_s is None else self.mean_s + 2 * self.deviation_s
