"""Generates load: clients that call a server repeatedly."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
from acap_runtime.link.malloc import keep_large_buffers
from acap_runtime.proto import ModelInferResponse, PredictResponse
from commands import answer_commands
from http2 import INFER, PREDICT, CallFailedError, Connection
from timing import measure


def main() -> None:
    keep_large_buffers()
    answer_commands(_load)


def _load(command: dict[str, Any]) -> dict[str, Any]:
    request = Path(command["request"]).read_bytes()
    socket = Path(command["socket"])
    method = command["method"]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(socket, method)) for _ in range(command["clients"])]
        try:
            answer = _DIGESTS[method](connections[0].call(request))
            calls = [partial(connection.call, request) for connection in connections]
            sample = measure(calls, command["seconds"], command["pids"], command["interval_s"])
        except CallFailedError:
            _ask_for_the_reason(socket, method, request)
            raise
    return {**dataclasses.asdict(sample), "answer": answer}


def digest(answer: memoryview) -> str:
    """Return a digest of a server's outputs. Different outputs have different digests."""
    outputs = PredictResponse.FromString(answer.tobytes()).outputs
    return _hash([outputs[name].tensor_content for name in sorted(outputs)])


def digest_v2(answer: memoryview) -> str:
    """Return the digest of a ModelInferResponse's outputs."""
    response = ModelInferResponse.FromString(answer.tobytes())
    named = zip((output.name for output in response.outputs), response.raw_output_contents, strict=True)
    return _hash([content for _, content in sorted(named)])


def _hash(contents: list[bytes]) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]


_DIGESTS: Final = {PREDICT: digest, INFER: digest_v2}


def _ask_for_the_reason(socket: Path, method: str, request: bytes) -> None:
    """Repeat a call through a client that raises the server's status."""
    with grpc.insecure_channel(f"unix://{socket.absolute()}", [("grpc.max_send_message_length", -1)]) as channel:
        channel.unary_unary(method, None, None)(request, timeout=30.0)


if __name__ == "__main__":
    main()
