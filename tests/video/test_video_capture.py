"""Streams and frames: the video capture API on the wire."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
import pytest
from acap_runtime.testing.lateness import Lateness
from acap_runtime_debug import Stamp, read_stamp
from calls import code_of, soon
from video_client import CODE, H264, PLANAR_RGB, RGB, STARTED, UTC, YUV, Video, processes_of, segments_mapped

RAW = {YUV: ("nv12", "yuv"), RGB: ("rgb-interleaved", "rgb"), PLANAR_RGB: ("rgb-planar", "planar-rgb")}
NONE, ZIPSTREAM, DIFF, MONO_CAPTURE, MONO_SERVER, MONO_CLIENT = 0, 2, 4, 8, 16, 32
CLIENT_CAPTURE_DIFF, CLIENT_SERVER_DIFF = 44, 52
CLIENTS_LIMIT = 4 << 20


def picture(frame: Any, stream_format: int, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    shape = {YUV: (height * 3 // 2, width), RGB: (height, width, 3), PLANAR_RGB: (3, height, width)}[stream_format]
    return np.frombuffer(frame.data, np.uint8).reshape(shape)


def stamp(frame: Any, stream_format: int = YUV, size: tuple[int, int] = (224, 224)) -> Stamp:
    """What the pixels say."""
    return read_stamp(picture(frame, stream_format, size), RAW[stream_format][0])


@pytest.fixture(scope="module")
def server(start_shared_server: Callable[..., Any]) -> Any:
    return start_shared_server(
        *("--camera", "test-pattern", "--camera", "other=test-pattern"), "--camera", "slow=test-pattern:open_delay=1.5"
    )


@pytest.fixture
def video(server: Any) -> Iterator[Video]:
    """A client, whose streams are gone after the test."""
    with server.client() as client:
        made = Video(client.channel)
        yield made
        made.close()


def test_the_published_clients_loop_gets_tight_nv12_at_its_pace(video: Video) -> None:
    stream = video.open(YUV, (224, 224), 10, UTC)
    video.frame(stream)
    with Lateness() as lateness:
        started, before_us = time.monotonic(), time.time_ns() // 1000
        frames = video.frames(stream, 40)
        took_s, after_us = time.monotonic() - started, time.time_ns() // 1000
    assert 4.0 * 0.95 <= took_s <= 4.0 * 1.05 + lateness.total_s
    first = frames[0].sequence_nbr
    assert [frame.sequence_nbr for frame in frames] == list(range(first, first + 40))
    assert [frame.id for frame in frames] == [frame.sequence_nbr for frame in frames]
    assert {(frame.type, frame.size, len(frame.data)) for frame in frames} == {("yuv", 75264, 75264)}
    times = [frame.timestamp for frame in frames]
    assert all(earlier < later for earlier, later in pairwise(times))
    assert before_us - 1_000_000 < times[0] < times[-1] <= after_us
    numbers = [stamp(frame).number for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + 40))


@pytest.mark.parametrize("framerate", [5, 30])
def test_the_frame_rate_is_what_was_asked_for(video: Video, framerate: int) -> None:
    stream = video.open(YUV, (64, 64), framerate)
    video.frame(stream)
    with Lateness() as lateness:
        started = time.monotonic()
        video.frames(stream, framerate * 3)
        took = time.monotonic() - started
    assert 3.0 * 0.95 <= took <= 3.0 * 1.05 + lateness.total_s


def test_a_stream_without_a_frame_rate_has_one_all_the_same(video: Video) -> None:
    stream = video.open(YUV, (64, 64), 0)
    frames = video.frames(stream, 3)
    assert frames[0].timestamp < frames[1].timestamp < frames[2].timestamp


SIZES = [
    *((YUV, size) for size in ((224, 224), (480, 320), (300, 300), (416, 416), (66, 34), (1920, 1080), (2, 2))),
    *((RGB, size) for size in ((224, 224), (301, 201), (1920, 1080), (1, 1))),
    *((PLANAR_RGB, size) for size in ((224, 224), (301, 201))),
]


@pytest.mark.parametrize(("stream_format", "size"), SIZES)
def test_frames_have_the_size_that_was_asked_for_without_padding(
    video: Video, stream_format: int, size: tuple[int, int]
) -> None:
    width, height = size
    for frame in video.frames(video.open(stream_format, size), 2):
        assert frame.type == RAW[stream_format][1]
        assert frame.size == len(frame.data) == width * height * (3 if stream_format != YUV else 1.5)
        if width >= 64:
            assert stamp(frame, stream_format, size).captured_us > 0


def test_the_three_raw_formats_show_the_same_colours(video: Video) -> None:
    size = (256, 128)
    pixels = {}
    for stream_format in RAW:
        array = picture(video.frame(video.open(stream_format, size)), stream_format, size).astype(float)
        row, columns = 40, np.arange(16, 256, 32)  # below the stamp, in the middle of each bar
        if stream_format == RGB:
            pixels[stream_format] = array[row, columns]
        elif stream_format == PLANAR_RGB:
            pixels[stream_format] = array[:, row, columns].T
        else:
            luma = 1.164 * (array[row, columns] - 16)
            blue, red = (array[128 + row // 2, columns // 2 * 2 + each] - 128 for each in (0, 1))
            pixels[stream_format] = np.stack(
                [luma + 1.596 * red, luma - 0.392 * blue - 0.813 * red, luma + 2.017 * blue], axis=1
            )
    assert np.array_equal(pixels[RGB], pixels[PLANAR_RGB])
    assert len(np.unique(pixels[RGB], axis=0)) == 8
    assert np.abs(pixels[RGB] - pixels[YUV].clip(0, 255)).max() < 6


def test_a_4k_frame_passes_and_a_client_with_the_default_limit_is_warned_of_in_the_log(
    server: Any, video: Video
) -> None:
    size = (3840, 2160)
    stream = video.open(YUV, size, 2)
    frame = video.frame(stream)
    assert frame.size == len(frame.data) == 12_441_600
    number = stamp(frame, YUV, size).number
    (warning,) = [line for line in server.log.splitlines() if f"stream {stream}: its frames have 12441600" in line]
    assert "WARNING" in warning
    assert str(CLIENTS_LIMIT) in warning
    assert "grpc.max_receive_message_length" in warning
    with grpc.insecure_channel(server.address) as channel:
        code, details = code_of(lambda: Video(channel).frame(stream))
    assert code == CODE.RESOURCE_EXHAUSTED
    assert "larger than max" in details
    frame = video.frame(stream)
    assert stamp(frame, YUV, size).number > number


def test_a_frame_that_every_client_takes_is_not_warned_of(server: Any, video: Video) -> None:
    stream = video.open(YUV, (1920, 1080))
    video.frame(stream)
    assert f"stream {stream}: its frames have" not in server.log


@pytest.mark.parametrize("kind", [NONE, ZIPSTREAM, DIFF, MONO_CAPTURE])
def test_times_of_capture_are_the_cameras_on_the_monotonic_clock(video: Video, kind: int) -> None:
    stream = video.open(timestamps=kind)
    for frame in video.frames(stream, 3):
        assert frame.timestamp == stamp(frame).captured_us
        assert frame.timestamp <= time.monotonic_ns() // 1000
        assert frame.custom_timestamp == 0


@pytest.mark.parametrize("kind", [MONO_SERVER, MONO_CLIENT])
def test_times_of_server_and_client_are_a_little_after_the_capture(video: Video, kind: int) -> None:
    stream = video.open(timestamps=kind)
    for frame in video.frames(stream, 3):
        assert stamp(frame).captured_us <= frame.timestamp <= time.monotonic_ns() // 1000
        assert frame.timestamp - stamp(frame).captured_us < 1_000_000
        assert frame.custom_timestamp == 0


@pytest.mark.parametrize("kind", [CLIENT_CAPTURE_DIFF, CLIENT_SERVER_DIFF])
def test_a_diff_says_how_long_before_the_clients_time_it_was(video: Video, kind: int) -> None:
    stream = video.open(timestamps=kind)
    for frame in video.frames(stream, 3):
        captured_us = stamp(frame).captured_us
        assert captured_us <= frame.timestamp <= time.monotonic_ns() // 1000
        assert 0 <= frame.custom_timestamp < 1_000_000
        if kind == CLIENT_CAPTURE_DIFF:
            assert abs(frame.timestamp - frame.custom_timestamp - captured_us) <= 1
        else:
            assert frame.timestamp - frame.custom_timestamp >= captured_us - 1


def test_utc_is_the_monotonic_time_of_capture_on_the_other_clock(video: Video) -> None:
    stream = video.open(timestamps=UTC)
    for frame in video.frames(stream, 3):
        offset_us = (time.time_ns() - time.monotonic_ns()) // 1000
        assert frame.timestamp == pytest.approx(stamp(frame).captured_us + offset_us, abs=100_000)


BAD = {
    "format 4": ((4, (224, 224), 10, UTC), ["format", "VDO_FORMAT_YUV", "got 4"]),
    "format 7": ((7, (224, 224), 10, UTC), ["format", "VDO_FORMAT_YUV", "got 7"]),
    "format 99": ((99, (224, 224), 10, UTC), ["format", "VDO_FORMAT_YUV", "got 99"]),
    "a negative format": ((-1, (224, 224), 10, UTC), ["format", "VDO_FORMAT_YUV", "got -1"]),
    "timestamp type 3": ((YUV, (224, 224), 10, 3), ["timestamp_type", "VDO_TIMESTAMP_UTC", "got 3"]),
    "no width": ((YUV, (0, 224), 10, UTC), ["0x224", "1 to 8192"]),
    "no height": ((YUV, (224, 0), 10, UTC), ["224x0", "1 to 8192"]),
    "too wide": ((YUV, (9000, 224), 10, UTC), ["9000x224", "1 to 8192"]),
    "absurdly high": ((RGB, (224, 2**32 - 1), 10, UTC), ["224x4294967295", "1 to 8192"]),
    "odd nv12": ((YUV, (225, 224), 10, UTC), ["225x224", "even"]),
    "odd nv12 height": ((YUV, (224, 201), 10, UTC), ["224x201", "even"]),
    "too fast": ((YUV, (224, 224), 1000, UTC), ["1000", "1 to 240"]),
    "what this camera cannot give": ((H264, (224, 224), 10, UTC), ["test-pattern", "h264", "expected one of", "nv12"]),
    "nothing at all": ((0, (0, 0), 0, 0), ["0x0", "1 to 8192"]),
}


@pytest.mark.parametrize("case", BAD)
def test_settings_that_make_no_sense_are_refused_with_what_was_expected(video: Video, case: str) -> None:
    settings, words = BAD[case]
    code, details = code_of(lambda: video.open(*settings))
    assert code == CODE.INVALID_ARGUMENT
    for word in words:
        assert word in details


def test_settings_that_a_camera_refuses_are_no_failure_of_the_camera(server: Any, video: Video) -> None:
    stream = video.open(framerate=30)
    video.frame(stream)
    process = processes_of(server, "test-pattern")[-1]
    already = len(server.log)
    for _ in range(3):
        assert code_of(lambda: video.open(H264))[0] == CODE.INVALID_ARGUMENT
    video.frames(stream, 3)
    assert processes_of(server, "test-pattern")[-1] == process
    assert " ERROR " not in server.log[already:], "a client's mistake is no error of the server's"


@pytest.mark.parametrize("method", ["NewStream", "DeleteStream", "GetFrame"])
def test_bytes_that_are_no_message_are_an_invalid_argument(server: Any, method: str) -> None:
    with server.client() as client:
        call = client.channel.unary_unary(f"/videocapture.v1.VideoCapture/{method}")
        code, details = code_of(lambda: call(b"\xff\xff\xff\xff", timeout=10))
        assert code == CODE.INVALID_ARGUMENT
        assert f"{method}Request" in details


@pytest.mark.parametrize("number", [0, 4_000_000_000])
def test_a_stream_that_does_not_exist_is_a_failed_precondition(server: Any, video: Video, number: int) -> None:
    for call in (video.frame, video.delete, lambda stream: video.frame(stream, 7)):
        code, details = code_of(lambda call=call: call(number))
        assert code == CODE.FAILED_PRECONDITION
        assert f"stream {number} does not exist" in details
        assert "NewStream" in details


def test_predict_from_a_stream_that_does_not_exist_is_a_failed_precondition(server: Any) -> None:
    with server.client() as client:
        code, details = code_of(lambda: client.send(client.request("model", stream_id=4711)))
        assert code == CODE.FAILED_PRECONDITION
        assert "stream 4711 does not exist" in details


def test_a_deleted_stream_is_gone_and_its_number_is_not_used_again(video: Video) -> None:
    stream = video.open()
    video.delete(stream)
    assert code_of(lambda: video.frame(stream))[0] == CODE.FAILED_PRECONDITION
    assert code_of(lambda: video.delete(stream))[0] == CODE.FAILED_PRECONDITION
    assert video.open() > stream


def test_a_devices_own_camera_on_another_machine_says_so_and_how_to_give_one(start_server) -> None:
    with start_server().client() as client:
        code, details = code_of(Video(client.channel).open)
        assert code == CODE.FAILED_PRECONDITION
        assert "libvdostream" in details
        assert "--camera SOURCE" in details


def test_without_a_camera_the_answer_says_how_to_give_one(start_server) -> None:
    with start_server("--block", "axis_os").client() as client:
        video = Video(client.channel)
        for call in (video.open, lambda: video.frame(1), lambda: video.open(camera="1")):
            code, details = code_of(call)
            assert code == CODE.FAILED_PRECONDITION
            assert "--camera" in details
            assert "test-pattern" in details
        code, details = code_of(lambda: client.send(client.request("model", stream_id=1)))
        assert code == CODE.FAILED_PRECONDITION
        assert "--camera" in details


def test_a_camera_can_be_given_in_the_environment(start_server) -> None:
    server = start_server(environment={"ACAPRUNTIME_CAMERA": "test-pattern 'other=test-pattern:open_delay=0.1'"})
    with server.client() as client:
        video = Video(client.channel)
        for camera in (None, "other"):
            assert video.frame(video.open(camera=camera)).size == 75264


@pytest.mark.parametrize(
    "name",
    ["nothing", "0", "4", "-1", "1.0", "", *(pytest.param(each * 5000, id=f"many {each}s") for each in ("9", "a"))],
)
def test_a_camera_that_does_not_exist_is_not_found_and_those_that_do_are_listed(video: Video, name: str) -> None:
    code, details = code_of(lambda: video.open(camera=name))
    assert code == CODE.NOT_FOUND
    assert name[:10] in details
    assert "1 test-pattern, 2 other, 3 slow" in details


def test_as_many_streams_as_may_be_are_open_and_no_more(start_server) -> None:
    with start_server("--camera", "test-pattern", "--max-streams", 3).client() as client:
        video = Video(client.channel)
        streams = [video.open() for _ in range(3)]
        code, details = code_of(video.open)
        assert code == CODE.RESOURCE_EXHAUSTED
        assert "--max-streams" in details
        video.delete(streams[1])
        streams[1] = video.open()
        assert code_of(video.open)[0] == CODE.RESOURCE_EXHAUSTED
        # Streams that could not be opened take no place.
        video.delete(streams.pop())
        for _ in range(4):
            assert code_of(lambda: video.open(H264))[0] == CODE.INVALID_ARGUMENT
        streams.append(video.open())
        with ThreadPoolExecutor(8) as pool:
            for stream in streams:
                video.delete(stream)
            calls = [pool.submit(video.open, size=(64, 64 + 2 * number)) for number in range(8)]
            errors = [call.exception() for call in calls]
        assert errors.count(None) == 3
        assert {error.code() for error in errors if error} == {CODE.RESOURCE_EXHAUSTED}


def test_concurrent_calls_on_one_stream_get_different_frames(video: Video) -> None:
    stream = video.open(framerate=20)
    with ThreadPoolExecutor(4) as pool:
        frames = [call.result() for call in [pool.submit(video.frame, stream) for _ in range(24)]]
    numbers = sorted(frame.sequence_nbr for frame in frames)
    assert numbers == list(range(numbers[0], numbers[0] + 24))
    assert len({stamp(frame).number for frame in frames}) == 24


def test_a_slow_client_gets_the_newest_frame(video: Video) -> None:
    stream = video.open(framerate=30, timestamps=MONO_CAPTURE)
    first = video.frame(stream)
    time.sleep(1.0)
    asked_us = time.monotonic_ns() // 1000
    second = video.frame(stream)
    assert second.sequence_nbr - first.sequence_nbr > 15
    assert asked_us - second.timestamp < 500_000


def test_a_frame_of_an_earlier_capture_is_not_handed_to_a_stream_that_joins(video: Video) -> None:
    first = video.open(framerate=2, timestamps=MONO_CAPTURE)
    video.frame(first)
    opened_us = time.monotonic_ns() // 1000
    frame = video.frame(video.open(framerate=2, timestamps=MONO_CAPTURE))
    assert frame.timestamp > opened_us - 20_000


def test_streams_of_equal_settings_share_a_capture_and_each_gets_every_frame(server: Any, video: Video) -> None:
    settings = (RGB, (128, 64), 20)
    streams = [video.open(*settings, timestamps=kind) for kind in (UTC, MONO_CAPTURE, UTC)]
    process = processes_of(server, "test-pattern")[-1]
    soon(lambda: segments_mapped(process) == 1)
    with ThreadPoolExecutor(3) as pool:
        taken = [call.result() for call in [pool.submit(video.frames, stream, 30) for stream in streams]]
    contents = []
    for frames in taken:
        first = frames[0].sequence_nbr
        assert [frame.sequence_nbr for frame in frames] == list(range(first, first + 30))
        contents.append({frame.sequence_nbr: frame.data for frame in frames})
    common = contents[0].keys() & contents[1].keys() & contents[2].keys()
    assert len(common) > 20
    assert all(contents[0][number] == contents[1][number] == contents[2][number] for number in common)
    assert segments_mapped(process) == 1
    video.delete(streams[0])
    video.frames(streams[1], 3)
    assert segments_mapped(process) == 1


def test_streams_of_different_settings_come_from_one_process(server: Any, video: Video) -> None:
    settings = [(RGB, (64, 64), 10), (YUV, (64, 64), 10), (YUV, (96, 64), 10), (YUV, (96, 64), 20)]
    streams = [video.open(*each) for each in settings]
    process = processes_of(server, "test-pattern")[-1]
    for stream, (stream_format, size, _) in zip(streams, settings, strict=True):
        stamp(video.frame(stream), stream_format, size)
    assert segments_mapped(process) == 4
    assert process in server.workers()
    video.delete(streams[0])
    soon(lambda: segments_mapped(process) == 3)


def test_the_first_camera_is_the_default_and_metadata_chooses_another(server: Any, video: Video) -> None:
    soon(lambda: not server.workers())
    for camera, name in ((None, "test-pattern"), ("1", "test-pattern"), ("2", "other"), ("other", "other")):
        stream = video.open(camera=camera)
        video.frame(stream)
        assert server.workers() == [processes_of(server, name)[-1]]
        video.delete(stream)
        soon(lambda: not server.workers())
    streams = [video.open(camera=camera) for camera in ("test-pattern", "other")]
    for stream in streams:
        video.frame(stream)
    assert sorted(server.workers()) == sorted(processes_of(server, name)[-1] for name in ("test-pattern", "other"))


def test_deleting_a_stream_ends_the_calls_that_wait_for_its_frames_at_once(video: Video) -> None:
    stream, other = video.open(framerate=1), video.open(framerate=1)
    video.frame(stream)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(video.frame, stream) for _ in range(2)]
        unharmed = pool.submit(lambda: video.frames(other, 2))
        time.sleep(0.2)
        deleted = time.monotonic()
        video.delete(stream)
        # One of the two may just have had a frame.
        errors = [error for call in waiting if (error := call.exception())]
        assert time.monotonic() - deleted < 0.5
        assert errors
        for error in errors:
            assert error.code() == CODE.FAILED_PRECONDITION
            assert error.details() == f"stream {stream} was deleted"
        assert len(unharmed.result()) == 2


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_client_that_gives_up_waiting_leaves_the_stream_as_it_is(video: Video, how: str) -> None:
    stream = video.open(framerate=1)
    first = video.frame(stream)
    if how == "deadline":
        assert code_of(lambda: video.frame(stream, timeout=0.2))[0] == CODE.DEADLINE_EXCEEDED
    else:
        call = video.stub.GetFrame.future(video.frame_request(stream), timeout=10)
        time.sleep(0.2)
        call.cancel()
    assert video.frame(stream).sequence_nbr == first.sequence_nbr + 1


def test_who_gave_up_takes_no_frame_from_those_who_wait_on(video: Video) -> None:
    stream = video.open(framerate=2)
    first = video.frame(stream)
    calls = [video.stub.GetFrame.future(video.frame_request(stream), timeout=10) for _ in range(5)]
    time.sleep(0.1)
    for call in calls[:4]:
        call.cancel()
    assert calls[4].result().sequence_nbr == first.sequence_nbr + 1


def test_a_new_stream_that_nobody_waits_for_any_more_is_not_opened(server: Any, video: Video) -> None:
    soon(lambda: not server.workers())
    assert code_of(lambda: video.open(camera="slow", timeout=0.8))[0] == CODE.DEADLINE_EXCEEDED
    soon(lambda: not server.workers(), 8)
    assert video.frame(video.open(camera="slow")).sequence_nbr == 1


def test_streams_that_are_opened_at_once_share_one_start_of_the_camera(server: Any, video: Video) -> None:
    soon(lambda: not server.workers())
    before = len(STARTED.findall(server.log))
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(video.open, size=(64, 64 + 2 * (number % 2))) for number in range(8)]
        assert len({call.result() for call in calls}) == 8
    assert len(STARTED.findall(server.log)) == before + 1
    assert segments_mapped(processes_of(server, "test-pattern")[-1]) == 2


def test_the_cameras_process_ends_with_its_last_stream_and_starts_again_with_the_next(
    server: Any, video: Video
) -> None:
    streams = [video.open(size=size) for size in ((64, 64), (96, 64))]
    process = processes_of(server, "test-pattern")[-1]
    video.delete(streams[0])
    video.frame(streams[1])
    assert process in server.workers()
    video.delete(streams[1])
    soon(lambda: process not in server.workers())
    assert video.frame(video.open()).sequence_nbr == 1
    assert processes_of(server, "test-pattern")[-1] != process


def test_frames_are_right_while_four_clients_read_large_ones(server: Any, video: Video) -> None:
    size = (1280, 720)
    streams = [video.open(RGB, size, 15, MONO_CAPTURE) for _ in range(4)]
    stop = threading.Event()

    def read(stream: int) -> int:
        with server.client() as client:
            mine, count = Video(client.channel), 0
            while not stop.is_set():
                frame = mine.frame(stream)
                # A slot that was written again meanwhile would show another time, or a wrong checksum.
                assert stamp(frame, RGB, size).captured_us == frame.timestamp
                count += 1
            return count

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(read, stream) for stream in streams]
        time.sleep(2)
        stop.set()
        assert all(call.result() > 5 for call in calls)


def test_streams_that_would_take_all_memory_are_refused_until_others_are_deleted(
    start_server: Callable[..., Any],
) -> None:
    server = start_server("--camera", "test-pattern", "--kept-frames", 100)
    with server.client() as client:
        video = Video(client.channel)
        first = video.open(RGB, (3000, 3000), 1)  # 108 slots of 27 MB each, were they all written
        code, details = code_of(lambda: video.open(RGB, (2900, 2900), 1))
        assert code == CODE.RESOURCE_EXHAUSTED
        assert "MiB" in details
        video.delete(first)
        video.delete(video.open(RGB, (1920, 1080), 1))
