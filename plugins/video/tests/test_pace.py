from __future__ import annotations

import time

import pytest
from acap_runtime_video.pace import Playback, Ticks

MS = 1_000_000
FRAME = 40 * MS


def test_a_clip_is_played_by_its_timestamps() -> None:
    playback = Playback()
    first = playback.due_ns(10.0, FRAME)
    assert [playback.due_ns(time_s, FRAME) - first for time_s in (10.1, 10.15, 10.15)] == [100 * MS, 150 * MS, 150 * MS]


def test_the_next_round_follows_without_a_break() -> None:
    playback = Playback()
    first = playback.due_ns(0.0, FRAME)
    playback.due_ns(0.5, FRAME)
    playback.rewind()
    assert playback.due_ns(0.0, FRAME) - first == 540 * MS


@pytest.mark.parametrize("broken", [None, -3.0, 1e6])
def test_a_timestamp_that_is_missing_or_broken_counts_as_one_interval(broken: float | None) -> None:
    playback = Playback()
    first = playback.due_ns(0.0, FRAME)
    assert playback.due_ns(broken, FRAME) - first == FRAME


def test_timestamps_out_of_order_keep_the_rate() -> None:
    playback = Playback()
    times = [0.04, 0.16, 0.12, 0.2, 0.08, 0.28, 0.32, 0.24]
    due = [playback.due_ns(time_s, FRAME) for time_s in times]
    assert due == sorted(due)
    assert due[-1] - due[0] == pytest.approx(7 * FRAME, abs=FRAME)


def test_a_clip_that_is_late_goes_on_from_now() -> None:
    playback = Playback()
    first = playback.due_ns(0.0, FRAME)
    time.sleep(0.6)
    now = time.monotonic_ns()
    assert playback.due_ns(0.04, FRAME) >= now
    assert now - first > 600 * MS


def test_beats_keep_their_rate_and_do_not_drift() -> None:
    start = time.monotonic_ns()
    ticks = Ticks(60, start)
    beats = []
    for _ in range(30):
        ticks.wait()
        beats.append(time.monotonic_ns() - start)
        time.sleep(0.005)
    # Not from the first one: on a busy machine any may be late, but none is early. Drift would add up to 9 intervals.
    due = [1_000_000_000 // 240 + number * 1_000_000_000 // 60 for number in range(30)]
    assert all(beat >= at - MS for beat, at in zip(beats, due, strict=True))
    assert beats[-1] - due[-1] <= 50 * MS


def test_missed_beats_are_left_out() -> None:
    ticks = Ticks(50, time.monotonic_ns())
    ticks.wait()
    time.sleep(0.31)
    late = time.monotonic()
    for _ in range(6):
        ticks.wait()
    assert 0.08 <= time.monotonic() - late <= 0.16


def test_beats_stand_a_quarter_of_an_interval_after_a_frame() -> None:
    frame_ns = time.monotonic_ns() - 10_000 * MS
    ticks = Ticks(10, frame_ns)
    ticks.wait()
    assert 20 <= (time.monotonic_ns() - frame_ns) / MS % 100 <= 60
