"""The calls that wait for a model: the earliest deadline goes first, and calls that would miss it are refused."""

from __future__ import annotations

import contextlib
import math
import time
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from acap_runtime.chips.calls import Call
from acap_runtime.chips.statistics import Typical
from acap_runtime.errors import AcapError, Busy, TooLate

_USABLE: Final = 0.9
"""The share of the time until a deadline that may be promised away: the rest is for what cannot be foreseen."""
_MOST_COMPARED: Final = 256
"""Calls behind a new one whose deadlines are checked before it goes in."""
_FAR_S: Final = 3600.0
"""A deadline that is further away than any queue is long."""


@dataclass(slots=True)
class Pace:
    """How fast calls are answered.

    `run` is the time that one call takes on the chip. `turn` is the time from one answer to the next while calls wait:
    shorter if several calls run side by side, longer if other models use the chip too.
    """

    run: Typical = field(default_factory=Typical)
    turn: Typical = field(default_factory=Typical)
    _last: float | None = None

    def note(self, run_s: float, calls: int, *, more: bool) -> None:
        """Count `calls` that were answered together just now; `more` is True if the chip has others already."""
        now = time.monotonic()
        self.run.add(run_s)
        if self._last is not None:
            self.turn.add((now - self._last) / calls)
        self._last = now if more else None

    def interrupt(self) -> None:
        """Begin a new turn, as the chip was down."""
        self._last = None

    def within_s(self, ahead: int) -> float:
        """Return the time within which a call with `ahead` before it is answered as a rule; 0 if nothing is known."""
        if self.run.mean_s is None:
            return 0.0
        turn = self.turn if self.turn.mean_s is not None else self.run
        mean_s = turn.mean_s or 0.0
        return ahead * mean_s + 2 * math.sqrt(ahead) * turn.deviation_s + self.run.at_most_s


class CallQueue:
    """At most `limit` calls, sorted by deadline, and in order of arrival where deadlines are equal."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pace = Pace()
        self._calls: list[tuple[float, int, Call]] = []
        self._last_ticket = 0
        self._reserved = 0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def waiting(self) -> int:
        """The number of calls that wait, including those that wait for the model to load."""
        return len(self._calls) + self._reserved

    def __iter__(self) -> Iterator[Call]:
        return (call for _, _, call in self._calls)

    @contextlib.contextmanager
    def reserve(self) -> Iterator[None]:
        """Reserve room for a call while the model is loading. Raises `Busy` if the queue is full."""
        self._check_room()
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    def admit(self, call: Call, at_chip: int) -> None:
        """Add a call; `at_chip` calls are ahead of the whole queue.

        Raises `Busy` if the queue is full, or if at the present pace this call would miss its deadline, or would make a
        call that waits already miss its own.
        """
        if at_chip or self._calls:
            self._check_room()
            self._check_deadlines(call, at_chip)
        self.put_back(call)

    def put_back(self, call: Call) -> None:
        """Add a call without any check."""
        self._last_ticket += 1
        call.ticket = self._last_ticket
        insort(self._calls, (call.until, call.ticket, call))

    def remove(self, call: Call) -> None:
        """Take a call out, if it is there."""
        if call.ticket:
            del self._calls[bisect_left(self._calls, (call.until, call.ticket))]
            call.ticket = 0

    def fail_all(self, error: AcapError) -> None:
        """Take all calls out and answer them with an error."""
        for call in list(self):
            self.remove(call)
            call.fail(error)

    def first(self) -> Call | None:
        """Return the next call, which stays in the queue. Fail and drop calls before it whose deadline has passed."""
        now = time.monotonic()
        while self._calls:
            call = self._calls[0][2]
            if call.until > now and not call.future.done():
                return call
            self.remove(call)
            call.fail(TooLate("the deadline passed before the chip was free"))
        return None

    def latest_start(self, call: Call) -> float:
        """Return the latest time at which a call can start and keep its deadline (monotonic seconds)."""
        return call.came + (call.until - call.came) * _USABLE - self.pace.within_s(0)

    def _check_room(self) -> None:
        if self.waiting >= self.limit:
            raise Busy(f"{self.limit} calls wait for the model already (--queue); try again later")

    def _check_deadlines(self, call: Call, at_chip: int) -> None:
        now = time.monotonic()
        index = bisect_left(self._calls, (call.until, self._last_ticket + 1))
        within_s = self.pace.within_s(at_chip + index)
        if within_s > (call.until - now) * _USABLE:
            raise Busy(
                f"{at_chip + index} calls are ahead, an answer would take up to {within_s:.3g} s and the deadline "
                f"leaves {max(call.until - now, 0):.3g} s; try again later, or with a longer deadline"
            )
        for position, (until, _, _) in enumerate(self._calls[index : index + _MOST_COMPARED], at_chip + index):
            left_s = (until - now) * _USABLE
            if left_s > _FAR_S:
                return
            if self.pace.within_s(position) <= left_s < self.pace.within_s(position + 1):
                raise Busy("calls with later deadlines wait already, which could not be kept then; try again later")
