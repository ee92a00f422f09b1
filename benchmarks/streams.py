#!/usr/bin/env python3
"""Measure video: Predict on the newest frame of a 1080p stream, and the cost of fetching a frame.

The chip's own rate is that of libyuv and the interpreter in one process, on frames of the same stream. Compare only
ratios within one run: a machine's speed changes from run to run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import grpc
from acap_runtime.proto import (
    DeleteStreamRequest,
    DeleteStreamResponse,
    GetFrameRequest,
    GetFrameResponse,
    NewStreamRequest,
    NewStreamResponse,
    PredictRequest,
    PredictResponse,
)
from commands import MeasurementError, measurer
from contestants import Server, our_server, running
from http2 import PREDICT, Connection
from report import aligned
from timing import Sample, measure

MODEL: Final = "mobilenet_v2_1.0_224_quant.tflite"
CLIENTS: Final = (1, 2, 4)
SIZES: Final = ((224, 224), (1920, 1080))
FRAMES: Final = 8
TARGET: Final = 0.9
TARGET_AT: Final = "ours, 2 clients"
ROOT: Final = Path(__file__).parent.parent
_SERVICE: Final = "/videocapture.v1.VideoCapture"
_YUV, _MONO_CAPTURE = 3, 8
_FRAMERATE: Final = 30
_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True)
class Fetching:
    """The cost of a stream to its client and its server.

    It holds the milliseconds from capture until the client has the frame, the milliseconds of a call for a frame that
    is already there, and the server's processor time per frame, including the camera's process.
    """

    size: str
    capture_to_client_ms: float
    call_ms: float
    server_cpu_ms: float


class Video:
    """The video capture API of a running server."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._new = channel.unary_unary(
            f"{_SERVICE}/NewStream", NewStreamRequest.SerializeToString, NewStreamResponse.FromString
        )
        self._delete = channel.unary_unary(
            f"{_SERVICE}/DeleteStream", DeleteStreamRequest.SerializeToString, DeleteStreamResponse.FromString
        )
        self._get = channel.unary_unary(
            f"{_SERVICE}/GetFrame", GetFrameRequest.SerializeToString, GetFrameResponse.FromString
        )

    def new_stream(self, width: int, height: int) -> int:
        settings = {"format": _YUV, "width": width, "height": height, "framerate": _FRAMERATE}
        request = NewStreamRequest(settings={**settings, "timestamp_type": _MONO_CAPTURE})
        return int(self._new(request, timeout=_TIMEOUT_S, wait_for_ready=True).stream_id)

    def delete(self, stream: int) -> None:
        self._delete(DeleteStreamRequest(stream_id=stream), timeout=_TIMEOUT_S)

    def frame(self, stream: int) -> GetFrameResponse:
        return self._get(GetFrameRequest(stream_id=stream), timeout=_TIMEOUT_S)


def main() -> int:
    arguments = _parse()
    # Otherwise the servers would outlive this process.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    started = time.monotonic()
    model = arguments.models.absolute() / MODEL
    try:
        if not model.is_file():
            raise MeasurementError(f"no {model}: see benchmarks/README.md")
        with tempfile.TemporaryDirectory() as folder, _serving(Path(folder), model) as (server, video):
            rates = _predictions(Path(folder), server, video, model, arguments)
            fetching = [_fetching(server, video, *size, arguments.seconds * arguments.rounds) for size in SIZES]
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    _report(rates, fetching)
    print(f"took {time.monotonic() - started:.0f} s")
    if arguments.json:
        samples = {name: [dataclasses.asdict(each) for each in rounds] for name, rounds in rates.items()}
        report = {"predictions": samples, "fetching": [dataclasses.asdict(each) for each in fetching]}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("ACAP_TEST_MODELS", ROOT.parent / "shared" / "models"))
    parser.add_argument("--models", type=Path, metavar="DIR", default=default, help="folder of models [%(default)s]")
    parser.add_argument("--seconds", type=float, metavar="S", default=2.0, help="of each measurement [%(default)s]")
    parser.add_argument("--rounds", type=int, metavar="N", default=3, help="of all measurements [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.rounds < 1:
        parser.error("expected numbers above 0")
    return arguments


@contextlib.contextmanager
def _serving(folder: Path, model: Path) -> Iterator[tuple[Server, Video]]:
    socket = folder / "streams.sock"
    command = [*our_server(socket, {"mobilenet_v2": model}), "--camera", "test-pattern"]
    options = [("grpc.max_receive_message_length", -1)]
    with running(command, socket) as server, grpc.insecure_channel(f"unix://{socket}", options) as channel:
        server.wait_for_log("ready")
        yield server, Video(channel)


def _predictions(
    folder: Path, server: Server, video: Video, model: Path, arguments: argparse.Namespace
) -> dict[str, list[Sample]]:
    width, height = SIZES[-1]
    stream = video.new_stream(width, height)
    frames = folder / "frames"
    frames.write_bytes(b"".join(video.frame(stream).data for _ in range(FRAMES)))
    request = _prediction(stream)
    rates: dict[str, list[Sample]] = {}
    command = {"frames": str(frames), "width": width, "height": height, "model": str(model)}
    with measurer("in_process_video.py") as alone:
        for number in range(arguments.rounds):
            print(f"round {number + 1}/{arguments.rounds}", file=sys.stderr, flush=True)
            sample = Sample(**alone.ask(**command, seconds=arguments.seconds))
            rates.setdefault("in-process", []).append(sample)
            for clients in CLIENTS:
                sample = _calls(server, request, clients, arguments.seconds)
                rates.setdefault(f"ours, {clients} client{'s' * (clients > 1)}", []).append(sample)
    video.delete(stream)  # its camera would count in the next measurement
    return rates


def _calls(server: Server, request: bytes, clients: int, seconds: float) -> Sample:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(server.socket, PREDICT)) for _ in range(clients)]
        return measure([partial(each.call, request) for each in connections], seconds, server.pids())


def _fetching(server: Server, video: Video, width: int, height: int, seconds: float) -> Fetching:
    stream = video.new_stream(width, height)
    late_ms = []

    def fetch() -> None:
        frame = video.frame(stream)
        late_ms.append(time.monotonic() * 1000 - frame.timestamp / 1000)

    paced = measure([fetch], seconds, server.pids())
    with Connection(server.socket, PREDICT) as connection:
        answer = PredictResponse.FromString(connection.call(_prediction(stream)).tobytes())
    again = GetFrameRequest(stream_id=stream, frame_reference=answer.frame_reference).SerializeToString()
    with Connection(server.socket, f"{_SERVICE}/GetFrame") as connection:
        at_once = measure([partial(connection.call, again)], seconds)
    video.delete(stream)
    return Fetching(f"{width}x{height}", median(late_ms), at_once.p50_ms, paced.server_cpu_ms)


def _prediction(stream: int) -> bytes:
    content: bytes = PredictRequest(model_spec={"name": "mobilenet_v2"}, stream_id=stream).SerializeToString()
    return content


def _report(rates: dict[str, list[Sample]], fetching: list[Fetching]) -> None:
    print(f"Predict(stream_id) of mobilenet_v2 on {SIZES[-1][0]}x{SIZES[-1][1]} nv12 at {_FRAMERATE} fps")
    alone = rates["in-process"]
    shares = {}
    table = [["contestant", "p50 ms", "frames/s", "of in-process", "server CPU ms"]]
    for name, rounds in rates.items():
        share = median(ours.per_s / theirs.per_s for ours, theirs in zip(rounds, alone, strict=True))
        shares[name] = share
        values = [median(getattr(each, value) for each in rounds) for value in ("p50_ms", "per_s", "server_cpu_ms")]
        table.append([name, f"{values[0]:.2f}", f"{values[1]:.1f}", f"{share:.2f}", f"{values[2]:.2f}"])
    print(*aligned(table), sep="\n")
    reached = shares[TARGET_AT]
    verdict = "met" if reached >= TARGET else "NOT MET"
    print(
        f"target {verdict}: {TARGET_AT}, frames/s as a share of in-process: at least {TARGET:g}; measured {reached:.2f}"
    )
    print(f"\nGetFrame of nv12 at {_FRAMERATE} fps")
    table = [["size", "capture to client ms", "call ms", "server CPU ms"]]
    for each in fetching:
        numbers = (each.capture_to_client_ms, each.call_ms, each.server_cpu_ms)
        table.append([each.size, *(f"{number:.2f}" for number in numbers)])
    print(*aligned(table), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
