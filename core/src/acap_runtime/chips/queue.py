"""The calls that wait for a model: the earliest deadline goes first, and who cannot keep theirs is told at once."""

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
from acap_runtime.errors import Busy, TooLate

_USABLE: Final = 0.9
"""The share of the time until a deadline that may be promised away: the rest is for what cannot be foreseen."""
_MOST_COMPARED: Final = 256
"""Calls behind a new one that are asked whether they can wait for it."""
_FAR_S: Final = 3600.0
"""A deadline that is further away than any queue is long."""


@dataclass(slots=True)
class Pace:
    """How fast calls are answered: `run` is what one takes on the chip, `turn` the time from one to the next while
    there are always some, which is shorter where several run side by side and longer where other models do.
    """

    run: Typical = field(default_factory=Typical)
    turn: Typical = field(default_factory=Typical)
    _last: float | None = None

    def note(self, run_s: float, calls: int, *, more: bool) -> None:
        """That many calls were answered together just now; `more` says whether others were at the chip already."""
        now = time.monotonic()
        self.run.add(run_s)
        if self._last is not None:
            self.turn.add((now - self._last) / calls)
        self._last = now if more else None

    def interrupt(self) -> None:
        """The chip had nothing to do, or was down."""
        self._last = None

    def within_s(self, ahead: int) -> float:
        """The time within which a call is answered, as a rule, that has so many ahead of it; 0 if nothing is known."""
        if self.run.mean_s is None:
            return 0.0
        turn = self.turn if self.turn.mean_s is not None else self.run
        mean_s = turn.mean_s or 0.0
        return ahead * mean_s + 2 * math.sqrt(ahead) * turn.deviation_s + self.run.at_most_s


class CallQueue:
    """At most `limit` calls, in the order of their deadlines."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pace = Pace()
        self._calls: list[tuple[float, int, Call]] = []
        self._last = 0
        self._elsewhere = 0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def waiting(self) -> int:
        """How many wait, those for the model to be loaded included."""
        return len(self._calls) + self._elsewhere

    def __iter__(self) -> Iterator[Call]:
        return (call for _, _, call in self._calls)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Be one of those that wait, within this context, for the model to be loaded. Raises `Busy`."""
        self._check_room()
        self._elsewhere += 1
        try:
            yield
        finally:
            self._elsewhere -= 1

    def admit(self, call: Call, at_chip: int) -> None:
        """Add a call; `at_chip` are before all of them.

        Raises `Busy` where the queue is full, and where, as fast as calls are answered, this one would miss its
        deadline or have one that waits already miss its own.
        """
        if at_chip or self._calls:
            self._check_room()
            self._check_deadlines(call, at_chip)
        self.put_back(call)

    def put_back(self, call: Call) -> None:
        """Add a call that was taken, or is to go before all checks."""
        self._last += 1
        call.place = self._last
        insort(self._calls, (call.until, call.place, call))

    def remove(self, call: Call) -> None:
        """Take a call out, if it is there."""
        if call.place:
            del self._calls[bisect_left(self._calls, (call.until, call.place))]
            call.place = 0

    def first(self) -> Call | None:
        """The call whose turn it is, which stays in the queue; those whose deadline passed are told so."""
        now = time.monotonic()
        while self._calls:
            call = self._calls[0][2]
            if call.until > now and not call.future.done():
                return call
            self.remove(call)
            call.fail(TooLate("the deadline passed before the chip was free"))
        return None

    def latest_start(self, call: Call) -> float:
        """When a call has to run to keep its deadline (monotonic seconds)."""
        return call.came + (call.until - call.came) * _USABLE - self.pace.within_s(0)

    def _check_room(self) -> None:
        if self.waiting >= self.limit:
            raise Busy(f"{self.limit} calls wait for the model already (--queue); try again later")

    def _check_deadlines(self, call: Call, at_chip: int) -> None:
        now = time.monotonic()
        index = bisect_left(self._calls, (call.until, self._last + 1))
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
