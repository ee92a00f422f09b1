from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_axis_os import VdoCamera
from acap_runtime_axis_os.clock import CaptureClock

pytestmark = pytest.mark.usefixtures("nothing_leaks")

SECOND_NS = 1_000_000_000


def picture_of(settings: acap.StreamSettings) -> acap.Array:
    return np.zeros(settings.picture.shape[1:], np.uint8)


@contextmanager
def opened(
    format_: acap.StreamFormat, size: tuple[int, int] = (64, 48), framerate: int = 100, timeout_s: float = 4
) -> Iterator[tuple[acap.Stream, acap.Array]]:
    settings = acap.StreamSettings(format_, *size, framerate)
    stream = VdoCamera(timeout_s).open("vdo", settings)
    try:
        yield stream, picture_of(settings)
    finally:
        stream.close()


def row_of(picture: acap.Array) -> int:
    """Bytes of a row."""
    return picture.shape[1] * 3 if picture.shape[-1] == 3 else picture.shape[-1]


@pytest.mark.parametrize("pitch", ["", "pitch=1000"])
@pytest.mark.parametrize(
    ("format_", "size"),
    [
        *((format_, size) for format_ in acap.IMAGE_FORMATS for size in ((64, 48), (300, 300), (30, 22))),
        ("rgb-interleaved", (31, 21)),
        ("rgb-planar", (31, 21)),
    ],
)
def test_rows_are_made_tight(
    format_: acap.ImageFormat, size: tuple[int, int], pitch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VDO", pitch)
    with opened(format_, size) as (stream, picture):
        stream.read(picture)
    rows = picture.reshape(-1, row_of(picture)).astype(int)
    first = rows[0, 0]
    expected = first + 3 * np.arange(rows.shape[0])[:, None] + np.arange(rows.shape[1])
    np.testing.assert_array_equal(rows, expected % 256)


def test_rows_without_padding_are_copied_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", "pitch=64")
    with opened("nv12") as (stream, picture):
        stream.read(picture)
    assert (np.diff(picture.astype(int), axis=1) % 256 == 1).all()


def test_a_frame_is_newer_than_the_last() -> None:
    with opened("nv12") as (stream, picture):
        seen = []
        for _ in range(5):
            frame = stream.read(picture)
            seen.append((frame.captured_ns, int(picture[0, 0])))
    numbers = [value * pow(7, -1, 256) % 256 for _, value in seen]
    assert numbers == sorted(set(numbers))
    assert [time for time, _ in seen] == sorted(time for time, _ in seen)


@pytest.mark.parametrize("format_", ["h264", "h265", "jpeg"])
def test_encoded_frames_come_as_vdo_made_them_and_without_a_picture(format_: acap.StreamFormat) -> None:
    with opened(format_) as (stream, picture):
        frames = [stream.read(picture) for _ in range(12)]
    assert not picture.any()
    assert not any(frame.has_picture for frame in frames)
    assert all(frame.encoded for frame in frames)
    keys = [number for number, frame in enumerate(frames) if frame.keyframe]
    assert keys == (list(range(12)) if format_ == "jpeg" else [0, 10])


@pytest.mark.parametrize("format_", ["h264", "h265"])
def test_a_keyframe_that_is_asked_for_comes(format_: acap.StreamFormat, live: Callable[[str], int]) -> None:
    before = live("forced keyframes")
    with opened(format_) as (stream, picture):
        assert stream.read(picture, keyframe=True).keyframe
        assert live("forced keyframes") == before, "the first frame is one anyway"
        assert not stream.read(picture).keyframe
        assert stream.read(picture, keyframe=True).keyframe
        assert live("forced keyframes") == before + 1
        assert not stream.read(picture).keyframe


@pytest.mark.parametrize("format_", ["jpeg", "nv12"])
def test_no_keyframe_is_asked_for_where_every_frame_is_one(
    format_: acap.StreamFormat, live: Callable[[str], int]
) -> None:
    before = live("forced keyframes")
    with opened(format_) as (stream, picture):
        for _ in range(3):
            assert stream.read(picture, keyframe=True).keyframe
    assert live("forced keyframes") == before


def test_what_comes_before_the_first_keyframe_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", "pframe=3")
    with opened("h264") as (stream, picture):
        assert stream.read(picture).keyframe


def test_a_request_for_a_keyframe_that_vdo_does_not_heed_delays_frames_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_VDO", "heedless=1")
    with opened("h264", framerate=5, timeout_s=0.5) as (stream, picture):
        stream.read(picture)
        assert not stream.read(picture, keyframe=True).keyframe


def test_a_refused_keyframe_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("h264") as (stream, picture):
        stream.read(picture)
        monkeypatch.setenv("FAKE_VDO", "force=8")
        with pytest.raises(acap.Unavailable, match="told to fail in force"):
            stream.read(picture, keyframe=True)


@pytest.mark.parametrize("format_", ["nv12", "h264"])
@pytest.mark.parametrize("code", [13, 21])
def test_transient_errors_are_tried_again(
    format_: acap.StreamFormat, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VDO", f"transient={code}")
    with opened(format_) as (stream, picture):
        for _ in range(5):
            stream.read(picture)


@pytest.mark.parametrize("told", ["get=13", "get=21", "hang=0"])
def test_a_stream_without_frames_fails_in_time(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", told)
    with opened("nv12", timeout_s=0.3) as (stream, picture):
        started = time.monotonic()
        with pytest.raises(acap.Unavailable, match=r"vdo, nv12 64x48 at 100 fps: VDO gave no frame for 0\.3 s"):
            stream.read(picture)
        assert 0.25 < time.monotonic() - started < 2


def test_a_stream_without_frames_is_not_asked_without_a_pause(
    monkeypatch: pytest.MonkeyPatch, live: Callable[[str], int]
) -> None:
    monkeypatch.setenv("FAKE_VDO", "get=13")
    before = live("tries")
    with opened("nv12", timeout_s=0.3) as (stream, picture), pytest.raises(acap.Unavailable):
        stream.read(picture)
    assert 1 < live("tries") - before < 100


def test_a_stream_that_stops_giving_frames_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", "hang=3")
    with opened("h264", timeout_s=0.3) as (stream, picture):
        for _ in range(3):
            stream.read(picture)
        with pytest.raises(acap.Unavailable, match="gave no frame"):
            stream.read(picture)


@pytest.mark.parametrize("code", [3, 6, 8, 9, 15, 17, 18, 20])
def test_any_other_error_ends_the_stream(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", f"get={code},at=2")
    with opened("nv12") as (stream, picture):
        stream.read(picture)
        stream.read(picture)
        with pytest.raises(acap.Unavailable, match=rf"told to fail in get \(code {code}\)"):
            stream.read(picture)


def test_maintenance_ends_the_stream_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", "get=16")
    with opened("nv12") as (stream, picture), pytest.raises(acap.Unavailable, match="VDO is down for maintenance"):
        stream.read(picture)


def test_a_code_of_another_domain_is_not_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", "get=13,foreign=1")
    with opened("nv12") as (stream, picture), pytest.raises(acap.Unavailable, match="told to fail in get"):
        stream.read(picture)


@pytest.mark.parametrize("format_", ["nv12", "h264"])
def test_a_buffer_that_cannot_be_given_back_ends_the_stream(
    format_: acap.StreamFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VDO", "unref=15")
    with opened(format_) as (stream, picture), pytest.raises(acap.Unavailable, match="told to fail in unref"):
        stream.read(picture)


@pytest.mark.parametrize("format_", ["nv12", "jpeg"])
def test_a_buffer_without_memory_is_given_back(
    format_: acap.StreamFormat, monkeypatch: pytest.MonkeyPatch, live: Callable[[str], int]
) -> None:
    monkeypatch.setenv("FAKE_VDO", "nodata=1")
    with opened(format_) as (stream, picture):
        with pytest.raises(acap.Unavailable, match="cannot be mapped"):
            stream.read(picture)
        assert live("buffers") == 0


def test_a_buffer_that_is_too_small_is_not_read(monkeypatch: pytest.MonkeyPatch, live: Callable[[str], int]) -> None:
    monkeypatch.setenv("FAKE_VDO", "pitch=100,capacity=7163")
    with opened("nv12") as (stream, picture):
        with pytest.raises(acap.Unavailable, match="buffer has 7163 bytes: expected at least 7164"):
            stream.read(picture)
        assert live("buffers") == 0


def test_the_padding_of_the_last_row_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", "pitch=100,capacity=7164")
    with opened("nv12") as (stream, picture):
        stream.read(picture)


def test_buffers_are_given_back_at_once(live: Callable[[str], int]) -> None:
    with opened("rgb-planar") as (stream, picture):
        for _ in range(3):
            stream.read(picture)
            assert live("buffers") == 0


@pytest.mark.parametrize("clock", [0, 1, 2, 3])
def test_times_are_of_the_monotonic_clock_whatever_vdos_clocks_are(clock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VDO", f"clock={clock}")
    with opened("nv12") as (stream, picture):
        last = time.monotonic_ns() - SECOND_NS
        for _ in range(5):
            captured = stream.read(picture).captured_ns
            assert last < captured <= time.monotonic_ns()
            last = captured


def test_the_time_of_the_capture_is_preferred() -> None:
    now = time.monotonic_ns() // 1000
    clock = CaptureClock()
    assert clock.time_of(now - 50_000, now - 20_000) == (now - 50_000) * 1000
    assert clock.time_of(now - 40_000, now - 10_000) == (now - 40_000) * 1000


@pytest.mark.parametrize("wrong_us", [0, 1, -6_000_000, 1_000_000])
def test_the_time_of_the_service_stands_in_for_one_that_cannot_be_true(wrong_us: int) -> None:
    now = time.monotonic_ns() // 1000
    captured = now + wrong_us if abs(wrong_us) > 1 else wrong_us
    assert CaptureClock().time_of(captured, now - 10_000) == (now - 10_000) * 1000


def test_a_time_that_does_not_grow_cannot_be_true() -> None:
    now = time.monotonic_ns() // 1000
    clock = CaptureClock()
    clock.time_of(now - 20_000, 0)
    assert clock.time_of(now - 20_000, now - 10_000) == (now - 10_000) * 1000
    assert clock.time_of(now - 30_000, now - 10_000) > (now - 10_000) * 1000


def test_the_time_of_the_reading_stands_in_for_both() -> None:
    clock = CaptureClock()
    before = time.monotonic_ns()
    times = [clock.time_of(1, 1) for _ in range(3)]
    assert before <= times[0] < times[1] < times[2] <= time.monotonic_ns() + 3


def test_a_thousand_frames_and_a_hundred_streams_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("nv12", framerate=240) as (stream, picture):
        started = time.monotonic()
        count = 0
        while time.monotonic() - started < 1:
            stream.read(picture)
            count += 1
        assert count > 200
    for number in range(100):
        monkeypatch.setenv("FAKE_VDO", ("", "info=9", "start=9", "unref=9", "nodata=1")[number % 5])
        try:
            with opened("nv12", framerate=240) as (stream, picture):
                stream.read(picture)
        except acap.AcapError:
            assert number % 5
        else:
            assert number % 5 == 0
