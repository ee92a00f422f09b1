"""The load: clients that call a server again and again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from acap_runtime.malloc import keep_large_buffers
from acap_runtime.proto import PredictResponse
from commands import answer_commands
from http2 import PREDICT, CallFailedError, Connection
from timing import measure


def main() -> None:
    keep_large_buffers()
    answer_commands(_load)


def _load(command: dict[str, Any]) -> dict[str, Any]:
    request = Path(command["request"]).read_bytes()
    socket = Path(command["socket"])
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(socket, PREDICT)) for _ in range(command["clients"])]
        try:
            answer = digest(connections[0].call(request))
            calls = [partial(connection.call, request) for connection in connections]
            sample = measure(calls, command["seconds"], command["pids"], command["interval_s"])
        except CallFailedError:
            _ask_for_the_reason(socket, request)
            raise
    return {**dataclasses.asdict(sample), "answer": answer}


def digest(answer: memoryview) -> str:
    """What tells a server's outputs from different ones."""
    outputs = PredictResponse.FromString(answer.tobytes()).outputs
    contents = b"".join(outputs[name].tensor_content for name in sorted(outputs))
    return hashlib.sha256(contents).hexdigest()[:16]


def _ask_for_the_reason(socket: Path, request: bytes) -> None:
    """Repeat a call in a way that raises the status that the server gives."""
    with grpc.insecure_channel(f"unix://{socket.absolute()}", [("grpc.max_send_message_length", -1)]) as channel:
        channel.unary_unary(PREDICT, None, None)(request, timeout=30.0)


if __name__ == "__main__":
    main()
