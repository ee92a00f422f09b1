"""The servers under comparison, each in its own process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from commands import MeasurementError
from http2 import PREDICT, CallFailedError, Connection

Command = Sequence[str | Path]

_HERE: Final = Path(__file__).parent
_START_TIME_S: Final = 60.0
_STOP_TIME_S: Final = 20.0
_CPU: Final = 2


@dataclass(frozen=True)
class Server:
    """A running server."""

    socket: Path
    process: subprocess.Popen[bytes]
    log: Path

    def pids(self) -> list[int]:
        """Its processes."""
        return _with_descendants(self.process.pid)

    def wait_for_answer(self, request: bytes, method: str = PREDICT) -> None:
        """Wait until it listens and has answered. Raises `MeasurementError` if it does not."""
        watchdog = threading.Timer(_START_TIME_S, self.process.kill)
        watchdog.start()
        try:
            with self._connect(method) as connection:
                connection.call(request)
        except (CallFailedError, OSError) as error:
            raise MeasurementError(f"the server gave no answer: {error!r}\n{self.log.read_text()}") from None
        finally:
            watchdog.cancel()

    def wait_for_log(self, text: str) -> None:
        """Wait until its log contains `text`. Raises `MeasurementError` if it does not."""
        end = time.monotonic() + _START_TIME_S
        while text not in self.log.read_text():
            if time.monotonic() > end or self.process.poll() is not None:
                raise MeasurementError(f"the server did not write {text!r}\n{self.log.read_text()}")
            time.sleep(0.02)

    def _connect(self, method: str) -> Connection:
        while True:
            try:
                return Connection(self.socket, method)
            except (FileNotFoundError, ConnectionRefusedError):
                if self.process.poll() is not None:
                    raise
                time.sleep(0.002)


@contextlib.contextmanager
def running(command: Command, socket: Path) -> Iterator[Server]:
    """Start a server that listens on `socket`, and stop it at the end of the block."""
    log = socket.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield Server(socket, process, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIME_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def bare_server(socket: Path, models: dict[str, Path]) -> Command:
    given: list[str | Path] = [f"{name}={path}" for name, path in models.items()]
    return [sys.executable, _HERE / "bare_server.py", socket, *given]


def our_server(
    socket: Path, models: dict[str, Path], *, chip: int = _CPU, instances: int = 1, threads: int | None = 1
) -> Command:
    command: list[str | Path] = [
        Path(sys.executable).with_name("acapruntime"),
        "serve",
        "--socket",
        socket,
        "--chip",
        str(chip),
    ]
    command += ["--instances", str(instances)]
    if chip == _CPU and threads is not None:
        command += ["--threads", str(threads)]
    for name, path in models.items():
        command += ["--model", f"{name}={path}"]
    return command


def first_answer_s(command: Command, socket: Path, request: bytes) -> float:
    """Return the seconds from a server's start to its first answer, for a client that retries until it listens."""
    started = time.perf_counter()
    with running(command, socket) as server:
        server.wait_for_answer(request)
        return time.perf_counter() - started


def _with_descendants(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _with_descendants(int(child))
    return found
