"""Tests Predict as a client sees it: a server process, a client process and a socket between them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

import acap_runtime as acap

_SERVE = "import sys; from acap_runtime.cli import main; sys.exit(main())"

_PREDICT = """
import json, sys

import numpy as np
from acap_runtime.client import CallFailed, connect

address, folder, timeout, *models = sys.argv[1:]
try:
    with connect(address) as client:
        for model in models:
            names = json.load(open(f"{folder}/{model}.json"))
            with np.load(f"{folder}/{model}.inputs.npz") as arrays:
                inputs = {name: arrays[f"arr_{number}"] for number, name in enumerate(names)}
            outputs = client.predict(model, inputs, timeout_s=float(timeout))
            np.savez(f"{folder}/{model}.outputs.npz", *outputs.values())
            json.dump(list(outputs), open(f"{folder}/{model}.json", "w"))
except CallFailed as error:
    sys.exit(str(error))
"""

_MARK = "ACAP_COMPLIANCE_SERVER"
"""A variable that marks the server's processes, whoever their parents are."""
_SOCKET = "socket"
_POLL_S = 0.02
_STOP_S = 20.0
_LAST_WORDS_S = 2.0
_LINGER_S = 2.0
_LOG_END = 4000


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as the operator names it to the server, and the inputs that a client sends to it."""

    name: str
    path: Path
    inputs: Mapping[str, acap.Array]
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def argument(self) -> str:
        """The argument of ``-m``."""
        return ",".join([f"{self.name}={self.path}", *(f"{name}={value}" for name, value in self.options.items())])


def predict_over_a_socket(
    chip: str, models: Sequence[ServedModel], timeout_s: float
) -> dict[str, dict[str, acap.Array]]:
    """Start the server with a chip and its models, run each model once from a client, and stop the server.

    Returns the outputs of each model. Server and chip inherit this process's environment, so they find what it would
    find. Fails if the server does not start, refuses a call, does not end by itself with exit code 0, or leaves a
    process or its socket behind.
    """
    # Not pytest's folder, because a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="acap-") as folder:
        here = Path(folder)
        for model in models:
            np.savez(here / f"{model.name}.inputs.npz", *model.inputs.values())
            (here / f"{model.name}.json").write_text(json.dumps(list(model.inputs)), encoding="utf-8")
        with _server(here, chip, models, timeout_s) as server:
            server.run_client([server.address, folder, str(timeout_s), *(model.name for model in models)])
        return {model.name: _outputs(here, model.name) for model in models}


def _outputs(folder: Path, model: str) -> dict[str, acap.Array]:
    names = json.loads((folder / f"{model}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{model}.outputs.npz") as arrays:
        return {name: arrays[f"arr_{number}"] for number, name in enumerate(names)}


@contextlib.contextmanager
def _server(folder: Path, chip: str, models: Sequence[ServedModel], timeout_s: float) -> Iterator[_Server]:
    words = ["-j", chip, "--socket", str(folder / _SOCKET)]
    for model in models:
        words += ["-m", model.argument]
    server = _Server(folder, words, timeout_s)
    try:
        server.wait_until_it_listens()
        yield server
        server.stop()
    finally:
        for number in _processes_of(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for process in server.processes:
            process.kill()
            process.wait()


class _Server:
    """A server's process and the operations on it."""

    def __init__(self, folder: Path, words: Sequence[str], timeout_s: float) -> None:
        self.address = f"unix://{folder / _SOCKET}"
        self._folder = folder
        self._timeout_s = timeout_s
        self.processes: list[subprocess.Popen[bytes]] = []
        self._process = self._start(_SERVE, words, "server.log")

    def _start(self, program: str, words: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        with (self._folder / log).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", program, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, _MARK: str(self._folder)},
            )
        self.processes.append(process)
        return process

    def wait_until_it_listens(self) -> None:
        until = time.monotonic() + self._timeout_s
        while not (self._folder / _SOCKET).exists():
            self._check_it_runs()
            if time.monotonic() > until:
                self._fail(f"the server does not listen within {self._timeout_s:g} s")
            time.sleep(_POLL_S)

    def run_client(self, words: Sequence[str]) -> None:
        until = time.monotonic() + self._timeout_s
        client = self._start(_PREDICT, words, "client.log")
        while client.poll() is None:
            # A client would wait a long time for a server that is not there.
            self._check_it_runs()
            if time.monotonic() > until:
                self._fail(f"the client has no answer within {self._timeout_s:g} s")
            time.sleep(_POLL_S)
        if client.returncode:
            # A server that cannot start answers the waiting calls first and then exits.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_WORDS_S)
            self._check_it_runs()
            self._fail(f"Predict over a socket fails: {self._end_of('client.log').strip()}")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._fail(f"the server does not end within {_STOP_S:g} s of SIGTERM")
        if code:
            self._fail(f"the server ends with exit code {code} at SIGTERM: expected 0")
        if (self._folder / _SOCKET).exists():
            self._fail("the server leaves its socket behind")
        if left := _left_after(self._folder, _LINGER_S):
            self._fail(f"the server has ended and left processes behind: {', '.join(left.values())}")

    def _check_it_runs(self) -> None:
        if self._process.poll() is not None:
            self._fail(f"the server ends by itself with exit code {self._process.returncode}")

    def _fail(self, what: str) -> NoReturn:
        pytest.fail(f"{what}\nThe server says:\n{self._end_of('server.log')}")

    def _end_of(self, log: str) -> str:
        return (self._folder / log).read_text(encoding="utf-8", errors="replace")[-_LOG_END:]


def _left_after(folder: Path, seconds: float) -> dict[int, str]:
    until = time.monotonic() + seconds
    while (left := _processes_of(folder)) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def _processes_of(folder: Path) -> dict[int, str]:
    """Return the processes that have this server's mark in their environment, with their commands."""
    mark = f"{_MARK}={folder}".encode()
    found = {}
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal():
            continue
        # Processes of other users cannot be read, and any process may end while it is read.
        with contextlib.suppress(OSError):
            if mark in (path / "environ").read_bytes().split(b"\0"):
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found[int(path.name)] = f"{path.name} ({command:.200})"
    return found
