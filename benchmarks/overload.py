#!/usr/bin/env python3
"""Offer a server twice the calls that its chip can run, and measure the outcome.

Admitted calls must meet their deadlines, the others must be refused at once, and health checks must wait for neither.
The chip is the debug one, which sleeps. This measures the server's admission, not a model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import grpc.aio
from acap_runtime.proto import PredictRequest, PredictResponse
from contestants import our_server, running
from grpc_health.v1 import health_pb2, health_pb2_grpc
from http2 import PREDICT
from report import aligned

_RUN_S: Final = 0.02
_DEADLINES_S: Final = (0.3, 1.0)
_HEALTH_EVERY_S: Final = 0.05
_DT_UINT8: Final = 4
_LATE: Final = grpc.StatusCode.DEADLINE_EXCEEDED
_REFUSED: Final = grpc.StatusCode.RESOURCE_EXHAUSTED
TARGETS: Final = {
    "late_share": ("calls let in that missed their deadline, of all let in", 0.01),
    "refusal_p99_ms": ("until a refusal was heard, p99 ms", 10.0),
    "health_p99_ms": ("health check, p99 ms", 50.0),
    "idle_share": ("of the chip's time in which it ran nothing", 0.1),
}


@dataclass
class Outcomes:
    """The outcomes of the calls: a count of each status, and milliseconds to each answer, refusal and health check."""

    codes: Counter[str] = field(default_factory=Counter)
    served_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    health_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """The reported figures: calls/s offered, served and refused, and the values that `TARGETS` limit."""

    offered_per_s: float
    served_per_s: float
    refused_per_s: float
    served_p99_ms: float
    late_share: float
    refusal_p99_ms: float
    health_p99_ms: float
    idle_share: float


async def overload(address: str, seconds: float, factor: float) -> Outcomes:
    """Call at `factor` times the chip's rate, regardless of answers. Every other call has the shorter deadline."""
    outcomes = Outcomes()
    content = PredictRequest(model_spec={"name": "busy"})
    content.inputs["data"].dtype = _DT_UINT8
    content.inputs["data"].tensor_shape.dim.add(size=1)
    content.inputs["data"].tensor_content = b"\1"
    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as calls:
        predict = channel.unary_unary(PREDICT, PredictRequest.SerializeToString, PredictResponse.FromString)
        health = health_pb2_grpc.HealthStub(channel)
        checking = calls.create_task(_check_health(health, outcomes.health_ms))
        started = time.monotonic()
        for number in range(round(seconds * factor / _RUN_S)):
            await asyncio.sleep(started + number * _RUN_S / factor - time.monotonic())
            deadline_s = _DEADLINES_S[number % len(_DEADLINES_S)]
            calls.create_task(_call(predict, content, deadline_s, outcomes))
        checking.cancel()
    return outcomes


async def _call(predict: Any, content: Any, deadline_s: float, outcomes: Outcomes) -> None:
    started = time.monotonic()
    try:
        await predict(content, timeout=deadline_s)
        code = grpc.StatusCode.OK
    except grpc.RpcError as error:
        code = error.code()
    took_ms = (time.monotonic() - started) * 1000
    outcomes.codes[code.name] += 1
    if code is _REFUSED:
        outcomes.refused_ms.append(took_ms)
    elif code is grpc.StatusCode.OK:
        outcomes.served_ms.append(took_ms)


async def _check_health(health: Any, took_ms: list[float]) -> None:
    while True:
        started = time.monotonic()
        await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        took_ms.append((time.monotonic() - started) * 1000)
        await asyncio.sleep(_HEALTH_EVERY_S)


def figures(outcomes: Outcomes, seconds: float) -> Figures:
    """Summarise the outcomes."""
    served, late = outcomes.codes["OK"], outcomes.codes[_LATE.name]
    return Figures(
        sum(outcomes.codes.values()) / seconds,
        served / seconds,
        outcomes.codes[_REFUSED.name] / seconds,
        _p99(outcomes.served_ms),
        late / max(1, served + late),
        _p99(outcomes.refused_ms),
        _p99(outcomes.health_ms),
        max(0.0, 1 - served * _RUN_S / seconds),
    )


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[98] if len(values) > 1 else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, metavar="S", default=60.0, help="of overload [%(default)s]")
    parser.add_argument(
        "--factor", type=float, metavar="N", default=2.0, help="calls, of what can be run [%(default)s]"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        socket, model = Path(folder) / "overload.sock", Path(folder) / "busy.toml"
        model.write_text(f"delay = {_RUN_S}")
        with running(our_server(socket, {"busy": model}, chip=1), socket) as server:
            server.wait_for_log("ready")
            asyncio.run(overload(f"unix://{socket}", 1.0, 0.5))  # the server learns how long a run takes
            measured = figures(
                asyncio.run(overload(f"unix://{socket}", arguments.seconds, arguments.factor)), arguments.seconds
            )
    _report(measured)
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(measured), indent=1) + "\n")
    return 0


def _report(measured: Figures) -> None:
    print(
        f"offered {measured.offered_per_s:.0f}/s to a chip that can run {1 / _RUN_S:.0f}/s: served "
        f"{measured.served_per_s:.1f}/s within {measured.served_p99_ms:.0f} ms (p99; deadlines "
        f"{', '.join(f'{deadline_s * 1000:.0f}' for deadline_s in _DEADLINES_S)} ms), refused "
        f"{measured.refused_per_s:.1f}/s"
    )
    print(*aligned(_rows(measured)), sep="\n")


def _rows(measured: Figures) -> list[list[str]]:
    rows = [["target", "at most", "measured", ""]]
    for name, (meaning, limit) in TARGETS.items():
        value = getattr(measured, name)
        rows.append([meaning, f"{limit:g}", f"{value:.3g}", "met" if value <= limit else "NOT MET"])
    return rows


if __name__ == "__main__":
    sys.exit(main())
