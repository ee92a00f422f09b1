"""Runs all contestants side by side and measures one at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from commands import MeasurementError, Measurer, measurer
from contestants import Command, Server, bare_server, our_server, running
from http2 import REGISTER
from results import Row
from timing import Sample
from workloads import BARE, ECHO_MODELS, IN_PROCESS, OURS_DEFAULT, OURS_TWO, Workload, method_of

_DEBUG_CHIP: Final = 1


class Bench:
    """Running servers, and the processes that call them."""

    def __init__(self, servers: dict[str, Server], load: Measurer, in_process: Measurer) -> None:
        self._servers = servers
        self._load = load
        self._in_process = in_process
        self._answers: dict[str, str] = {}

    def measure(self, row: Row, seconds: float) -> Sample:
        """Measure a row's contestant once. Raises `MeasurementError`, also if its answers differ from others'."""
        workload = row.workload
        command = {
            "request": str(workload.requests[row.contestant]),
            "clients": row.clients,
            "seconds": seconds,
            "interval_s": 0.0 if row.paced_per_s is None else 1 / row.paced_per_s,
        }
        if row.contestant == IN_PROCESS:
            outcome = self._in_process.ask(**command, model=str(workload.model))
        else:
            server = self._servers[_server_of(workload, row.contestant)]
            method = method_of(row.contestant)
            outcome = self._load.ask(**command, method=method, socket=str(server.socket), pids=server.pids())
        answer = outcome.pop("answer")
        if answer != self._answers.setdefault(workload.name, answer):
            raise MeasurementError(f"{workload.name}: {row.contestant} answers differently from the others")
        return Sample(**outcome)


@contextlib.contextmanager
def running_bench(folder: Path, workloads: Sequence[Workload]) -> Iterator[Bench]:
    """Start the servers that these workloads need, and wait until each request has been answered once."""
    calls = [
        (_server_of(workload, contestant), method, request.read_bytes())
        for workload in workloads
        for contestant, method, request in _calls(workload)
    ]
    commands = _commands(folder, workloads)
    with contextlib.ExitStack() as stack:
        load, in_process = (stack.enter_context(measurer(script)) for script in ("load.py", "in_process.py"))
        servers = {
            name: stack.enter_context(running(commands[name], _socket(folder, name)))
            for name in dict.fromkeys(name for name, _, _ in calls)
        }
        for name, method, request in calls:
            servers[name].wait_for_answer(request, method)
        for name, server in servers.items():
            if name != "bare":
                # Our server already answers while it looks for a chip that converts images.
                server.wait_for_log("ready")
        yield Bench(servers, load, in_process)


def _calls(workload: Workload) -> Iterator[tuple[str, str, Path]]:
    """Yield each contestant's requests to a server, registrations first."""
    for contestant, registration in workload.registrations.items():
        yield contestant, REGISTER, registration
    for contestant, request in workload.requests.items():
        if contestant != IN_PROCESS:
            yield contestant, method_of(contestant), request


def _server_of(workload: Workload, contestant: str) -> str:
    if contestant == BARE:
        return "bare"
    if workload.model is None:
        return "echo"
    return {OURS_TWO: "two", OURS_DEFAULT: "default"}.get(contestant, "one")


def _commands(folder: Path, workloads: Sequence[Workload]) -> dict[str, Command]:
    models = {workload.name: workload.model for workload in workloads if workload.model}
    echoes = {name: folder / f"{name}.toml" for name in ECHO_MODELS}
    for name, path in echoes.items():
        path.write_text(ECHO_MODELS[name])
    return {
        "bare": bare_server(_socket(folder, "bare"), models),
        "one": our_server(_socket(folder, "one"), models),
        "two": our_server(_socket(folder, "two"), models, instances=2),
        "default": our_server(_socket(folder, "default"), models, threads=None),
        "echo": our_server(_socket(folder, "echo"), echoes, chip=_DEBUG_CHIP),
    }


def _socket(folder: Path, name: str) -> Path:
    return folder / f"{name}.sock"
