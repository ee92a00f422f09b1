"""The back-off after deaths of a process."""

from __future__ import annotations

import asyncio
import time

from acap_runtime.link.restarts import RestartBackoff, RestartPolicy


def after(deaths: int, policy: RestartPolicy) -> RestartBackoff:
    backoff = RestartBackoff(policy)
    for _ in range(deaths):
        backoff.note_death()
    return backoff


def waited_s(backoff: RestartBackoff) -> float:
    started = time.monotonic()
    asyncio.run(backoff.wait())
    return time.monotonic() - started


def test_the_first_start_and_the_first_restart_are_at_once() -> None:
    assert after(0, RestartPolicy()).remaining_s == 0
    assert after(1, RestartPolicy()).remaining_s == 0


def test_a_wait_lasts_until_the_delay_since_the_last_death_is_over() -> None:
    backoff = after(2, RestartPolicy(first_delay_s=0.3))
    assert 0.25 < backoff.remaining_s <= backoff.delay_s == 0.3
    assert 0.2 < waited_s(backoff) < 5
    assert backoff.remaining_s == 0
    assert backoff.deaths == 2


def test_a_rest_follows_the_last_death_of_the_budget_and_ends_with_a_full_budget() -> None:
    policy = RestartPolicy(budget=3, first_delay_s=0.0, rest_s=0.3)
    assert not after(2, policy).exhausted
    backoff = after(3, policy)
    assert backoff.exhausted
    assert backoff.delay_s == 0.3
    assert 0.2 < waited_s(backoff) < 5
    assert (backoff.deaths, backoff.exhausted, backoff.remaining_s) == (0, False, 0)


def test_without_a_budget_there_is_no_rest() -> None:
    backoff = after(1000, RestartPolicy(budget=None, rest_s=3600.0))
    assert not backoff.exhausted
    assert backoff.delay_s == RestartPolicy().longest_delay_s


def test_deaths_before_the_window_are_forgotten() -> None:
    backoff = after(2, RestartPolicy(window_s=0.1))
    time.sleep(0.2)
    backoff.note_death()
    assert (backoff.deaths, backoff.span_s, backoff.delay_s) == (1, 0, 0)
