"""Talks to a measuring process: one JSON object per line, one answer to each."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent
_PATIENCE_S: Final = 120.0


class MeasurementError(Exception):
    """A measurement failed."""


class Measurer:
    """A running script of this folder that answers commands."""

    def __init__(self, script: str, process: subprocess.Popen[str]) -> None:
        self._script = script
        self._process = process

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. Raises `MeasurementError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        patience = threading.Timer(_PATIENCE_S, self._process.kill)
        patience.start()
        line = self._process.stdout.readline()
        patience.cancel()
        if not line:
            raise MeasurementError(f"{self._script} ended, or did not answer within {_PATIENCE_S:g} s")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MeasurementError(f"{self._script}: {answer['error']}")
        return answer


@contextlib.contextmanager
def measurer(script: str) -> Iterator[Measurer]:
    """Start a script of this folder, and stop it at the end of the block."""
    with subprocess.Popen(
        [sys.executable, str(_HERE / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Measurer(script, process)
        finally:
            process.kill()


def answer_commands(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer commands from standard input until it ends."""
    for line in sys.stdin:
        try:
            result = answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - the other side is told
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)
