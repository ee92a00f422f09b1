"""Thousands of calls of every kind leave no memory, no descriptor and no shared memory behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

ALLOWANCE_MIB = 4.0
"""What each process may grow by: less than 2 KiB for each of 2,000 calls, or 40 KiB for each of 100."""
LARGE_ALLOWANCE_MIB = 32.0
"""The same for calls of 6 MB, beyond the most that the process had before: five requests of 100."""
LARGE_KINDS = ("large_calls", "cancelled_calls", "shared_memory_calls", "loads")
"""Calls with buffers that the C library keeps or gives back by the dozen MiB, as it likes: what counts for these is the
most that a process had during warm-up."""
DESCRIPTOR_ALLOWANCE = 3
"""Slots of a model are made when calls overlap, so their number wavers by a few."""
SHARED_MEMORY = Path("/dev/shm")
LARGE = (1, 1080, 1920, 3)
ON_DEMAND = 8


@dataclass(frozen=True)
class Usage:
    """What a process holds."""

    memory_mib: float
    descriptors: int
    segments: int
    threads: int


def usage(process: int) -> Usage:
    folder = Path(f"/proc/{process}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return Usage(
        memory_mib=int(status["VmRSS"].split()[0]) / 1024,
        descriptors=len(list((folder / "fd").iterdir())),
        segments=(folder / "maps").read_text().count("memfd:acap-runtime"),
        threads=int(status["Threads"]),
    )


class Work:
    """The kinds of calls that the runtime serves, each a number of times."""

    def __init__(self, client: Any, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.small = self.model("small")
        self.large = self.model("large", f'inputs = [{{name = "image", shape = {list(LARGE)}}}]')
        self.slow = self.model("slow", "delay = 0.002")
        self.slower = self.model("slower", "delay = 0.02")
        self.failing = {
            grpc.StatusCode.INTERNAL: self.model("fails", 'fail = "run"'),
            grpc.StatusCode.INVALID_ARGUMENT: self.large,
            grpc.StatusCode.NOT_FOUND: str(folder / "missing.toml"),
        }
        self.most_mib: dict[int, float] = {}
        self.image = np.arange(np.prod(LARGE), dtype=np.uint8).reshape(LARGE)

    def model(self, name: str, content: str = "") -> str:
        path = self.folder / f"{name}.toml"
        path.write_text(content)
        return str(path)

    def warm_up(self, processes: Iterable[int]) -> None:
        """Everything a few times, so that what is made at the first use is there."""
        for kind, count in KINDS * 3:
            getattr(self, kind)(max(count // 10, ON_DEMAND))
            for process in processes:
                self.most_mib[process] = max(self.most_mib.get(process, 0.0), usage(process).memory_mib)

    def small_calls(self, count: int) -> None:
        for number in range(count):
            data = np.full(1 + number % 1000, number % 251, np.uint8)
            assert self.client.predict(self.small, {"data": data})["data"].tobytes() == data.tobytes()

    def large_calls(self, count: int) -> None:
        for _ in range(count):
            assert self.client.predict(self.large, {"image": self.image})["image"].shape == LARGE

    def failing_calls(self, count: int) -> None:
        for number in range(count):
            code, model = list(self.failing.items())[number % len(self.failing)]
            with pytest.raises(grpc.RpcError) as raised:
                self.client.predict(model, {"data": np.zeros((2, 2 + number % 7), np.uint8).reshape(-1)})
            assert raised.value.code() == code

    def cancelled_calls(self, count: int) -> None:
        stub = self.client.stubs.service.PredictionServiceStub(self.client.channel)
        request = self.client.request(self.slow, {"data": np.ones(200_000, np.uint8)})
        for start in range(0, count, 20):
            calls = [stub.Predict.future(request, timeout=30) for _ in range(min(20, count - start))]
            time.sleep(0.01)
            for call in reversed(calls):
                call.cancel()

    def expired_calls(self, count: int) -> None:
        for _ in range(count):
            with pytest.raises(grpc.RpcError):
                self.client.predict(self.slower, {"data": np.ones(10, np.uint8)}, timeout=0.005)

    def shared_memory_calls(self, count: int) -> None:
        path = SHARED_MEMORY / f"acap-test-leaks-{os.getpid()}"
        proto = self.client.tensor(np.empty(LARGE, np.uint8), string_val=[f"/{path.name}".encode()])
        proto.dtype = self.client.stubs.types.DT_STRING
        try:
            path.write_bytes(self.image.tobytes())
            for _ in range(count):
                assert self.client.predict(self.large, {"image": proto})["image"].shape == LARGE
        finally:
            path.unlink(missing_ok=True)

    def loads(self, count: int) -> None:
        for number in range(count):
            path = self.model(f"on_demand_{number}", "big_output = 1_000_000")
            self.client.predict(path, {"data": np.ones(100, np.uint8)})


@pytest.fixture(scope="module")
def server(start_shared_server: Callable[..., Any]) -> Any:
    return start_shared_server("-j", "1", "--on-demand-models", ON_DEMAND)


@pytest.fixture(scope="module")
def work(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    with server.client() as client:
        made = Work(client, tmp_path_factory.mktemp("models"))
        made.warm_up([server.process.pid, *server.workers()])
        yield made


KINDS = [
    ("small_calls", 2000),
    ("large_calls", 100),
    ("failing_calls", 500),
    ("cancelled_calls", 300),
    ("expired_calls", 100),
    ("shared_memory_calls", 100),
    ("loads", 40),
]


@pytest.mark.parametrize(("kind", "count"), KINDS, ids=[kind for kind, _ in KINDS])
def test_nothing_grows_with_the_number_of_calls(server: Any, work: Work, kind: str, count: int) -> None:
    names = set(SHARED_MEMORY.iterdir())
    run = getattr(work, kind)
    run(count // 10)
    work.small_calls(10)
    (worker,) = server.workers()
    processes = {"server": server.process.pid, "worker": worker}
    before = {name: usage(process) for name, process in processes.items()}
    if kind in LARGE_KINDS:
        most = {name: work.most_mib[process] + LARGE_ALLOWANCE_MIB for name, process in processes.items()}
        before = {name: replace(before[name], memory_mib=most[name]) for name in processes}
    run(count)
    work.small_calls(10)
    problems: list[str] = []
    end = time.monotonic() + 5
    while problems := grown(before, {name: usage(process) for name, process in processes.items()}):
        assert time.monotonic() < end, problems
        time.sleep(0.1)
        work.small_calls(10)
    assert server.workers() == [worker]
    while set(SHARED_MEMORY.iterdir()) - names:
        assert time.monotonic() < end + 5, set(SHARED_MEMORY.iterdir()) - names
        time.sleep(0.1)


def grown(before: dict[str, Usage], after: dict[str, Usage]) -> list[str]:
    """What is more than it was, beyond the allowance."""
    return [
        f"{name}: {before[name]} became {now}"
        for name, now in after.items()
        if now.memory_mib > before[name].memory_mib + ALLOWANCE_MIB
        or now.descriptors > before[name].descriptors + DESCRIPTOR_ALLOWANCE
        or now.segments > before[name].segments + DESCRIPTOR_ALLOWANCE
        or now.threads > before[name].threads + DESCRIPTOR_ALLOWANCE
    ]


def test_segments_are_as_many_as_calls_can_overlap(server: Any, work: Work) -> None:
    work.small_calls(10)
    (worker,) = server.workers()
    # Per model one call that runs and one that lies ready.
    for process in (server.process.pid, worker):
        assert usage(process).segments <= 2 * ON_DEMAND
