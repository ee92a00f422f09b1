"""Which call goes next, and which is refused, without a chip."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from acap_runtime import Busy
from acap_runtime.chips.calls import Call
from acap_runtime.chips.queue import CallQueue, Pace
from acap_runtime.errors import TooLate


def in_a_loop(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        asyncio.run(scenario())

    test.__name__ = scenario.__name__
    return test


def call(within_s: float) -> Call:
    now = time.monotonic()
    return Call((), (), now + within_s, now, asyncio.get_running_loop().create_future())


def paced(queue: CallQueue, seconds: float) -> CallQueue:
    """A queue whose calls have always taken that long."""
    queue.pace.run.mean_s = queue.pace.turn.mean_s = seconds
    return queue


@in_a_loop
async def test_the_earliest_deadline_is_first_and_equal_ones_go_as_they_came() -> None:
    queue = CallQueue(10)
    late, early, other = call(30), call(10), call(20)
    twin = Call((), (), other.until, other.came, other.future)
    for each in (late, early, other, twin):
        queue.admit(each, 0)
    assert list(queue) == [early, other, twin, late]


@in_a_loop
async def test_a_call_can_be_taken_out_from_anywhere_and_more_than_once() -> None:
    queue = CallQueue(10)
    calls = [call(30 - number) for number in range(5)]
    for each in calls:
        queue.admit(each, 0)
    queue.remove(calls[2])
    queue.remove(calls[2])
    assert list(queue) == [calls[4], calls[3], calls[1], calls[0]]
    assert len(queue) == 4


@in_a_loop
async def test_what_is_late_or_given_up_is_never_first() -> None:
    queue = CallQueue(10)
    late, cancelled, good = call(0.01), call(10), call(20)
    for each in (late, cancelled, good):
        queue.admit(each, 0)
    cancelled.future.cancel()
    await asyncio.sleep(0.02)
    assert queue.first() is good
    assert list(queue) == [good]
    with pytest.raises(TooLate):
        late.future.result()


@in_a_loop
async def test_a_full_queue_refuses_and_says_which_setting_it_is() -> None:
    queue = CallQueue(2)
    queue.admit(call(10), 0)
    with queue.reserve(), pytest.raises(Busy, match=r"2 calls wait for the model already .--queue"):
        queue.admit(call(10), 0)
    queue.admit(call(10), 0)
    assert len(queue) == 2


@in_a_loop
async def test_a_deadline_that_cannot_be_kept_is_refused_at_once() -> None:
    queue = paced(CallQueue(100), 0.1)
    for _ in range(5):
        queue.admit(call(60), 2)
    # Nobody is ahead in the queue, but two at the chip. A tenth of the time is kept for what cannot be foreseen.
    queue.admit(call(0.35), 2)
    with pytest.raises(Busy, match=r"2 calls are ahead, an answer would take up to 0.3 s and the deadline leaves 0.2"):
        queue.admit(call(0.29), 2)
    with pytest.raises(Busy, match="3 calls are ahead"):
        queue.admit(call(0.36), 2)


@in_a_loop
async def test_who_is_in_a_hurry_does_not_make_another_miss_its_deadline() -> None:
    queue = paced(CallQueue(100), 0.1)
    queue.admit(call(0.4), 2)
    queue.admit(call(0.5), 2)
    with pytest.raises(Busy, match="calls with later deadlines wait already"):
        queue.admit(call(0.38), 2)
    assert len(queue) == 2


@in_a_loop
async def test_an_idle_chip_takes_every_call_however_slow_it_was() -> None:
    queue = paced(CallQueue(1), 100.0)
    queue.admit(call(1), 0)
    assert len(queue) == 1


def test_the_pace_follows_what_calls_take() -> None:
    pace = Pace()
    assert pace.within_s(10) == 0
    for _ in range(40):
        pace.note(0.02, 1, more=True)
        time.sleep(0.002)
    assert 0.02 <= pace.run.at_most_s < 0.021
    # Calls came one after the other in much less time than each takes: several ran side by side.
    assert 0.002 < pace.turn.at_most_s < 0.02
    assert pace.within_s(0) < pace.within_s(1) < pace.within_s(10) < 10 * 0.02


def test_a_pause_does_not_count_as_a_turn() -> None:
    pace = Pace()
    pace.note(0.01, 1, more=False)
    time.sleep(0.05)
    pace.note(0.01, 1, more=True)
    assert pace.turn.mean_s is None
