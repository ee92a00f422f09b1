"""Counts of a model's calls and runs, as `inference.ModelStatistics` reports them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Total:
    """A number of events, and the seconds that they took together."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class Statistics:
    """Times of calls: `succeeded` and `failed` from arrival to end, `queued` from arrival until they were sent.

    Times of executions, each of which may have several calls: `converted`, `ran`, and `by_rows`, which is `ran` split
    by the number of rows.
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
    """The time at which the last call came, in milliseconds since 1970."""

    def note_execution(self, rows: int, conversion_s: float, run_s: float, *, most_rows: int) -> None:
        """Count an execution. Only those of up to `most_rows` rows are counted by rows."""
        self.converted.add(conversion_s)
        self.ran.add(run_s)
        self.rows += rows
        if rows <= most_rows:
            self.by_rows.setdefault(rows, Total()).add(run_s)


@dataclass(slots=True)
class Typical:
    """The usual time of something: a mean that follows changes, and the usual deviation from it."""

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
        """A time that few exceed; 0 if nothing is known yet."""
        return 0.0 if self.mean_s is None else self.mean_s + 2 * self.deviation_s
