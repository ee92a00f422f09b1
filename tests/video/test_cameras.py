"""Cameras that fail, and clients that vanish: others go on undisturbed, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pytest
import video_client
from acap_runtime.testing.lateness import Lateness
from acap_runtime_debug import read_stamp
from calls import SOON_S, code_of, soon
from converters import NO_CONVERTERS
from surprises import surprises
from video_client import CODE, RGB, processes_of, segments_mapped

MONO_CAPTURE = 8
SIZE = (64, 32)
SHARED_MEMORY = Path("/dev/shm")
FAULT_AT = 20
FRAMERATE = 20
GOOD = np.array([1, 2, 3], np.uint8)
FAULTS = {
    "crash": (CODE.UNAVAILABLE, "SIGSEGV"),
    "exit": (CODE.UNAVAILABLE, "exit code 3"),
    "hang": (CODE.UNAVAILABLE, "gave no frame"),
    "freeze": (CODE.UNAVAILABLE, "gave no frame"),
    "fail": (CODE.UNAVAILABLE, "told to fail"),
    "raise": (CODE.INTERNAL, "RuntimeError: the debug plugin was told to raise"),
    "end": (CODE.UNAVAILABLE, "ended after 20 frames"),
}


class Video(video_client.Video):
    """Its streams are small ones of the good camera unless it says otherwise."""

    def open(
        self, camera: str = "good", framerate: int = FRAMERATE, size: tuple[int, int] = SIZE, timeout: float = 20
    ) -> int:
        return super().open(RGB, size, framerate, MONO_CAPTURE, camera=camera, timeout=timeout)

    def frame_soon(self, stream: int, within_s: float = 2 * SOON_S) -> Any:
        """The next frame of a camera that is about to come back."""
        end = time.monotonic() + within_s
        while True:
            try:
                return self.frame(stream)
            except grpc.RpcError as error:
                assert error.code() in {CODE.UNAVAILABLE, CODE.INTERNAL}, error  # noqa: PT017
                assert time.monotonic() < end, error  # noqa: PT017
                time.sleep(0.02)

    def frames_until_error(self, stream: int, timeout: float = 10) -> tuple[int, grpc.RpcError]:
        """The last frame's number, and what came in place of the next."""
        last = 0
        while True:
            try:
                last = self.frame(stream, timeout=timeout).sequence_nbr
            except grpc.RpcError as error:
                return last, error


def alive(process: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descriptors(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def segments_open(process: int) -> int:
    """Descriptors of shared memory that a process has."""
    count = 0
    for each in Path(f"/proc/{process}/fd").iterdir():
        try:
            count += "memfd:acap-runtime" in str(each.readlink())
        except FileNotFoundError:
            continue
    return count


def threads(process: int) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


def memory_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@contextmanager
def nothing_left_in_shared_memory() -> Iterator[None]:
    before = set(SHARED_MEMORY.iterdir())
    yield
    soon(lambda: set(SHARED_MEMORY.iterdir()) <= before)


class Undisturbed:
    """A stream of the good camera and a client that sends tensors: neither may notice anything."""

    def __init__(self, server: Any, model: str) -> None:
        self._server, self._model = server, model
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(2)
        self.frames = 0
        self.predictions = 0

    def __enter__(self) -> Self:
        self._calls = [self._pool.submit(self._watch), self._pool.submit(self._predict)]
        soon(lambda: self.frames > 3 and self.predictions > 3)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for call in self._calls:
            call.result(20)
        self._pool.shutdown()

    def _watch(self) -> None:
        with self._server.client() as client:
            video = Video(client.channel)
            stream = video.open()
            first = video.frame(stream).sequence_nbr
            with Lateness() as lateness:
                while not self._stop.is_set():
                    number = video.frame(stream, timeout=2).sequence_nbr
                    self.frames += 1
                    missed = number - first - self.frames
                    # A fault of 0.5 s would cost ten. One may be late on its way through three processes.
                    assert 0 <= missed <= 1 + lateness.total_s * FRAMERATE, f"{missed} frames were missed"
            video.delete(stream)

    def _predict(self) -> None:
        with self._server.client() as client:
            while not self._stop.is_set():
                assert client.predict(self._model, {"data": GOOD}, timeout=2)["data"].tolist() == GOOD.tolist()
                self.predictions += 1
                time.sleep(0.01)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    contents = {"echo": "", "picture": f'inputs = [{{name = "image", shape = [1, {SIZE[1]}, {SIZE[0]}, 3]}}]'}
    for name, content in contents.items():
        (folder / f"{name}.toml").write_text(content)
    return {name: str(folder / f"{name}.toml") for name in contents}


@pytest.fixture(scope="module")
def server(start_shared_server: Callable[..., Any], models: dict[str, str]) -> Any:
    cameras = {
        "good": "test-pattern",
        **{fault: f"test-pattern:{fault}={FAULT_AT}" for fault in FAULTS},
        "broken": "test-pattern:open_fail=yes",
        "slow": "test-pattern:open_delay=1",
        "nonsense": "test-pattern:crash=never",
    }
    options = [word for name, source in cameras.items() for word in ("--camera", f"{name}={source}")]
    preloaded = [word for model in models.values() for word in ("-m", model)]
    return start_shared_server("-j", 1, *NO_CONVERTERS, *preloaded, *options)


@pytest.fixture
def video(server: Any) -> Iterator[Video]:
    """A client, whose streams are gone after the test."""
    with server.client() as client:
        made = Video(client.channel)
        yield made
        made.close()


def stamp_number(frame: Any) -> int:
    stamp = read_stamp(np.frombuffer(frame.data, np.uint8).reshape(SIZE[1], SIZE[0], 3), "rgb-interleaved")
    assert stamp.captured_us == frame.timestamp
    return stamp.number


@pytest.mark.parametrize("fault", FAULTS)
def test_a_camera_that_fails_tells_its_streams_why_and_comes_back_while_others_notice_nothing(
    server: Any, video: Video, models: dict[str, str], fault: str
) -> None:
    expected, reason = FAULTS[fault]
    with Undisturbed(server, models["echo"]) as others, server.client() as client:
        stream, bystander = video.open(fault), video.open(fault, size=(64, 64))
        request = client.request(models["picture"], stream_id=stream)
        references = [client.send(request).frame_reference for _ in range(2)]
        kept = {reference: video.frame(stream, reference) for reference in references}
        last, error = video.frames_until_error(stream, timeout=8)
        assert error.code() == expected
        assert reason in error.details()
        assert f"camera {fault}" in error.details()
        assert last <= FAULT_AT + 1
        for reference, frame in kept.items():
            assert video.frame(stream, reference) == frame, "what is kept stays fetchable"
        # It comes back by itself: streams and numbers go on.
        frame = video.frame_soon(stream)
        assert frame.sequence_nbr > last
        assert stamp_number(frame) < FAULT_AT
        assert video.frame(stream).sequence_nbr == frame.sequence_nbr + 1
        for reference, before in kept.items():
            assert video.frame(stream, reference) == before
        answer = client.send(request)
        assert answer.frame_reference > last
        assert client.arrays(answer)["image"].tobytes() == video.frame(stream, answer.frame_reference).data
        assert video.frame_soon(bystander).sequence_nbr > 0
        assert others.frames > FAULT_AT / 2
    if fault in {"crash", "exit", "hang", "freeze"}:
        first, second = processes_of(server, fault)[:2]
        assert not alive(first)
        assert first != second
    else:
        assert len(set(processes_of(server, fault))) == 1, "what a stream raises is no reason to end the process"


def test_a_camera_that_cannot_be_opened_says_why_to_who_asks(server: Any, video: Video) -> None:
    for _ in range(2):
        code, details = code_of(lambda: video.open("broken"))
        assert code == CODE.UNAVAILABLE
        assert "camera broken" in details
        assert "was told to fail" in details
    soon(lambda: not alive(processes_of(server, "broken")[-1]))


def test_a_camera_whose_source_makes_no_sense_says_so_to_who_asks(server: Any, video: Video) -> None:
    code, details = code_of(lambda: video.open("nonsense"))
    assert code == CODE.INVALID_ARGUMENT
    assert "crash: expected a number" in details


def test_a_camera_that_takes_long_to_open_keeps_only_its_own_clients_waiting(
    server: Any, video: Video, models: dict[str, str]
) -> None:
    with Undisturbed(server, models["echo"]) as others, ThreadPoolExecutor(2) as pool:
        started, already = time.monotonic(), others.frames
        calls = [pool.submit(video.open, "slow") for _ in range(2)]
        first, second = (call.result() for call in calls)
        assert time.monotonic() - started > 1
        assert video.frame(first).sequence_nbr
        assert video.frame(second).sequence_nbr
        assert others.frames > already + FRAMERATE // 2


def test_streams_that_nobody_waits_for_any_more_leave_nothing_in_a_camera_that_is_slow_to_open(
    server: Any, video: Video
) -> None:
    stream = video.open("slow")
    (process,) = {processes_of(server, "slow")[-1]}
    before, running = segments_open(process), threads(process)
    for number in range(5):
        code, _ = code_of(lambda number=number: video.open("slow", size=(128, 64 + 2 * number), timeout=0.2))
        assert code == CODE.DEADLINE_EXCEEDED
    soon(lambda: threads(process) <= running)
    video.frame(stream)
    assert processes_of(server, "slow")[-1] == process
    assert segments_open(process) <= before
    assert segments_mapped(process) == 1


def test_a_camera_that_is_killed_under_load_is_back_in_a_moment(
    server: Any, video: Video, models: dict[str, str]
) -> None:
    stop = threading.Event()
    failures: list[grpc.RpcError] = []
    numbers: dict[int, list[int]] = {}
    camera = "slow"  # the others' test shares no process with it

    def read(stream: int) -> None:
        with server.client() as client:
            mine = Video(client.channel)
            while not stop.is_set():
                try:
                    frame = mine.frame(stream)
                except grpc.RpcError as error:
                    failures.append(error)
                    time.sleep(0.02)
                else:
                    stamp_number(frame)
                    numbers[stream].append(frame.sequence_nbr)

    with Undisturbed(server, models["echo"]), ThreadPoolExecutor(8) as pool:
        streams = [video.open(camera) for _ in range(8)]
        numbers |= {stream: [] for stream in streams}
        calls = [pool.submit(read, stream) for stream in streams]
        for _ in range(2):
            seen = {stream: len(taken) for stream, taken in numbers.items()}
            soon(lambda seen=seen: all(len(numbers[stream]) > seen[stream] + 5 for stream in streams), 10)
            os.kill(processes_of(server, camera)[-1], signal.SIGKILL)
        seen = {stream: len(taken) for stream, taken in numbers.items()}
        soon(lambda: all(len(numbers[stream]) > seen[stream] + 5 for stream in streams), 10)
        stop.set()
        for call in calls:
            call.result()
    assert failures
    for error in failures:
        assert error.code() == CODE.UNAVAILABLE
        assert "SIGKILL" in error.details()
    for taken in numbers.values():
        assert all(earlier < later for earlier, later in pairwise(taken))


def test_a_stopped_camera_process_is_replaced_after_the_stall_limit(server: Any, video: Video) -> None:
    stream = video.open(size=(66, 34))
    frame = video.frame(stream)
    process = processes_of(server, "good")[-1]
    os.kill(process, signal.SIGSTOP)
    time.sleep(0.2)
    started = time.monotonic()
    _, error = video.frames_until_error(stream)
    assert error.code() == CODE.UNAVAILABLE
    assert "gave no frame" in error.details()
    assert 3 < time.monotonic() - started < 9
    assert video.frame_soon(stream).sequence_nbr > frame.sequence_nbr
    assert not alive(process)


def test_a_stream_can_be_opened_while_the_cameras_last_process_still_ends(start_server) -> None:
    server = start_server("--camera", "good=test-pattern", "--camera", f"hang=test-pattern:hang={FAULT_AT}")
    with server.client() as client:
        video = Video(client.channel)
        stream = video.open("hang")
        video.frames_until_error(stream, timeout=0.5)
        video.delete(stream)
        # The process is given some seconds to end; who does not want to wait for that harms nobody.
        for _ in range(2):
            assert code_of(lambda: video.open("hang", timeout=0.3))[0] == CODE.DEADLINE_EXCEEDED
        assert video.frame(video.open("hang")).sequence_nbr == 1
    assert server.stop() == 0
    assert not surprises(server.log)


@pytest.mark.parametrize("state", ["slow frames", "hang", "freeze", "opening"])
def test_a_server_stops_within_its_bound_while_calls_wait_for_frames(start_server, state: str) -> None:
    source = {"slow frames": "test-pattern", "opening": "test-pattern:open_delay=3600"}.get(
        state, f"test-pattern:{state}=3"
    )
    with nothing_left_in_shared_memory():
        server = start_server("--camera", f"good={source}", "--grace", "0.5")
        with server.client() as client, ThreadPoolExecutor(2) as pool:
            video = Video(client.channel)
            if state == "opening":
                calls = [pool.submit(video.open)]
            else:
                stream = video.open(framerate=1 if state == "slow frames" else 20)
                for _ in range(1 if state == "slow frames" else 3):
                    video.frame(stream)
                calls = [pool.submit(video.frame, stream) for _ in range(2)]
            soon(lambda: processes_of(server, "good"))
            time.sleep(0.3)
            workers = server.workers()
            with Lateness() as lateness:
                started = time.monotonic()
                assert server.stop() == 0
                took = time.monotonic() - started
            # A process that does not end by itself is killed after 3 s.
            assert took < 0.5 + 3 + 0.7 + lateness.total_s
            for call in calls:
                error = call.exception()
                assert error is None or error.code() in {CODE.UNAVAILABLE, CODE.CANCELLED, CODE.FAILED_PRECONDITION}
        assert workers
        assert not any(alive(worker) for worker in workers)
    assert not surprises(server.log)


@pytest.mark.parametrize("state", ["good", "hang", "freeze"])
def test_a_camera_dies_with_its_front_whatever_it_does(start_server, state: str) -> None:
    source = "test-pattern" if state == "good" else f"test-pattern:{state}=2"
    server = start_server("--camera", f"good={source}")
    with server.client() as client:
        video = Video(client.channel)
        stream = video.open()
        video.frame(stream)
        time.sleep(0.2)
        (process,) = server.workers()
        server.stop(signal.SIGKILL)
        soon(lambda: not alive(process))


def test_a_stream_that_nobody_uses_is_deleted_and_one_that_is_used_stays(start_server) -> None:
    server = start_server("--camera", "good=test-pattern", "--stream-lease", 1)
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        video = Video(client.channel)
        slow = video.open(framerate=1)
        used, unused = video.open(), video.open()
        end = time.monotonic() + 2.5
        waiting = pool.submit(lambda: [video.frame(slow).sequence_nbr for _ in range(3)])
        while time.monotonic() < end:
            video.frame(used)
            time.sleep(0.3)
        first, *_, last = waiting.result()
        assert last == first + 2
        code, details = code_of(lambda: video.frame(unused))
        assert code == CODE.FAILED_PRECONDITION
        assert f"stream {unused} does not exist" in details
        assert f"stream {unused} was deleted: nobody used it for 1 s (--stream-lease)" in server.log
        soon(lambda: not server.workers())
        assert code_of(lambda: video.frame(used))[0] == CODE.FAILED_PRECONDITION


def test_a_call_that_waits_for_a_frame_holds_its_stream(start_server) -> None:
    server = start_server("--camera", "good=test-pattern:hang=2", "--stream-lease", 0.5)
    with server.client() as client:
        video = Video(client.channel)
        stream = video.open()
        _, error = video.frames_until_error(stream, timeout=2)
        assert error.code() == CODE.DEADLINE_EXCEEDED
        assert "was deleted" not in server.log


CLIENT = """
import sys, time
sys.path.insert(0, sys.argv[2])
import grpc, videocapture_pb2 as messages, videocapture_pb2_grpc as services
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = services.VideoCaptureStub(channel)
    for number in range(10):
        settings = messages.StreamSettings(format=8, width=320 + 2 * number, height=240, framerate=10)
        stream = stub.NewStream(messages.NewStreamRequest(settings=settings), timeout=30).stream_id
        stub.GetFrame(messages.GetFrameRequest(stream_id=stream), timeout=30)
    print("open", flush=True)
    while True:
        stub.GetFrame(messages.GetFrameRequest(stream_id=stream), timeout=30)
"""


def open_and_die(server: Any, clients: int) -> None:
    """Clients with ten streams each, which are killed while they wait for frames."""
    with nothing_left_in_shared_memory():
        command = [sys.executable, "-c", CLIENT, server.address, str(server.stubs.path)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(clients)]
        for client in running:
            with client, client.stdout:
                assert client.stdout.readline() == b"open\n"
                client.kill()
    soon(lambda: not server.workers(), 10)


def test_streams_of_clients_that_died_are_freed_with_everything_they_took(start_server) -> None:
    server = start_server("--camera", "test-pattern", "--stream-lease", 2)
    front = server.process.pid
    open_and_die(server, 1)
    before = descriptors(front), segments_open(front), segments_mapped(front), threads(front)
    resident = memory_mib(front)
    open_and_die(server, 5)
    soon(lambda: descriptors(front) <= before[0])
    assert server.log.count("was deleted: nobody used it") == 60
    assert (segments_open(front), segments_mapped(front)) == before[1:3] == (0, 0)
    assert threads(front) <= before[3] + 3
    assert memory_mib(front) <= resident + 8
    with server.client() as client:
        video = Video(client.channel)
        assert video.frame(video.open("test-pattern")).sequence_nbr == 1


def test_opening_and_deleting_streams_leaves_nothing_behind(server: Any, video: Video) -> None:
    stream = video.open(size=(320, 240))
    video.frame(stream)
    camera, front = processes_of(server, "good")[-1], server.process.pid

    def work(count: int) -> None:
        for number in range(count):
            # Some share a capture, some do not; some have frames, some do not.
            other = video.open(size=(320 + number % 3 * 64, 240), framerate=30)
            if number % 2:
                video.frame(other)
            video.delete(other)

    def held() -> list[int]:
        measures = (descriptors, segments_open, segments_mapped, threads)
        return [measure(process) for process in (camera, front) for measure in measures]

    work(20)
    time.sleep(0.3)
    before, resident = held(), [memory_mib(process) for process in (camera, front)]
    work(100)
    # Threads of gRPC come and go.
    soon(lambda: all(now <= then for now, then in zip(held()[:-1], before[:-1], strict=True)))
    assert held()[-1] <= before[-1] + 3
    for process, then in zip((camera, front), resident, strict=True):
        assert memory_mib(process) <= then + 8
    assert processes_of(server, "good")[-1] == camera
    video.frame(stream)


def test_starting_and_ending_a_camera_leaves_nothing_behind(start_server) -> None:
    server = start_server("--camera", "good=test-pattern")
    with server.client() as client:
        video = Video(client.channel)
        front = server.process.pid

        def work(count: int) -> None:
            for _ in range(count):
                stream = video.open()
                video.frame(stream)
                video.delete(stream)
            soon(lambda: not server.workers())

        work(2)
        before = descriptors(front), segments_mapped(front), threads(front)
        work(6)
        soon(lambda: descriptors(front) <= before[0])
        assert segments_mapped(front) == before[1] == 0
        assert threads(front) <= before[2] + 2
        assert len(set(processes_of(server, "good"))) == 8
