"""Makes calls from several threads for some seconds, and measures how long each takes."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Call = Callable[[], object]

_WARM_UP_SHARE: Final = 0.15
_WARM_UP_CALLS: Final = 3


@dataclass(frozen=True)
class Sample:
    """The cost of the calls within one period."""

    calls: int
    p50_ms: float
    p99_ms: float
    per_s: float
    server_cpu_ms: float
    """Processor time per call, of the watched processes."""
    client_cpu_ms: float
    """Processor time per call, of this process."""


def measure(calls: Iterable[Call], seconds: float, pids: Iterable[int] = (), interval_s: float = 0.0) -> Sample:
    """Repeat each call in its own thread, after a warm-up, at most once per `interval_s`.

    Raises the first error of a call.
    """
    clients = [_Client(call, seconds, interval_s) for call in calls]
    watched = tuple(pids)
    used_before: list[float] = []
    started: list[float] = []

    def start() -> None:
        used_before[:] = [_cpu_s(watched), time.process_time()]
        started.append(time.perf_counter())

    barrier = threading.Barrier(len(clients), action=start)
    threads = [threading.Thread(target=client.live, args=(barrier,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in clients:
        if client.error is not None:
            raise client.error
    elapsed_s = time.perf_counter() - started[0]
    server_s, client_s = _cpu_s(watched) - used_before[0], time.process_time() - used_before[1]
    took = sorted(each for client in clients for each in client.took_s)
    return Sample(
        calls=len(took),
        p50_ms=1000 * _percentile(took, 0.50),
        p99_ms=1000 * _percentile(took, 0.99),
        per_s=len(took) / elapsed_s,
        server_cpu_ms=1000 * server_s / len(took),
        client_cpu_ms=1000 * client_s / len(took),
    )


class _Client:
    def __init__(self, call: Call, seconds: float, interval_s: float) -> None:
        self._call = call
        self._seconds = seconds
        self._interval_s = interval_s
        self.took_s: list[float] = []
        self.error: Exception | None = None

    def live(self, barrier: threading.Barrier) -> None:
        try:
            self._repeat(_WARM_UP_SHARE * self._seconds, _WARM_UP_CALLS)
            barrier.wait()
            self.took_s = self._repeat(self._seconds, 1)
        except threading.BrokenBarrierError:
            pass  # another client reports the error
        except Exception as error:  # noqa: BLE001 - raised where the threads are joined
            self.error = error
            barrier.abort()

    def _repeat(self, seconds: float, at_least: int) -> list[float]:
        took_s: list[float] = []
        due = time.perf_counter()
        end = due + seconds
        while len(took_s) < at_least or due < end:
            started = time.perf_counter()
            self._call()
            finished = time.perf_counter()
            took_s.append(finished - started)
            due = max(due + self._interval_s, finished)
            if due > finished:
                time.sleep(due - finished)
        return took_s


def _percentile(ascending: list[float], share: float) -> float:
    return ascending[math.ceil(share * len(ascending)) - 1]


def _cpu_s(pids: Iterable[int]) -> float:
    """Return the user and system time of processes, in seconds."""
    ticks = 0
    for pid in pids:
        # The command's name, in parentheses, may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
