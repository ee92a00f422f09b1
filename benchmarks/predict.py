#!/usr/bin/env python3
"""Measure Predict: the chip alone, a bare gRPC server around it, and this project's server, in turn.

Prints a table for each workload, and tells which of the project's targets are met. Compare only ratios within one run:
a machine's speed changes from run to run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import signal
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench import running_bench
from commands import MeasurementError
from contestants import bare_server, first_answer_s, our_server
from report import lines
from results import Results, Row
from workloads import BARE, FIRST_ANSWER, MODEL_FILES, OURS, Workload, all_workloads

CLIENTS: Final = (1, 2, 4, 8)
ROOT: Final = Path(__file__).parent.parent
FIRST_ANSWER_MODEL: Final = "mobilenet_v2"
ECHO_SHARE: Final = 0.5
"""The share of the given seconds for calls without a model: that time is enough for many of them."""


def main() -> int:
    arguments = _parse()
    # Otherwise the servers would outlive this process.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = _measure(arguments, Path(folder))
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    print(*lines(results), sep="\n")
    print(f"took {time.monotonic() - started:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("ACAP_TEST_MODELS", ROOT.parent / "shared" / "models"))
    parser.add_argument("--models", type=Path, metavar="DIR", default=default, help="folder of models [%(default)s]")
    parser.add_argument("--seconds", type=float, metavar="S", default=1.0, help="of each measurement [%(default)s]")
    parser.add_argument("--rounds", type=int, metavar="N", default=3, help="of all measurements [%(default)s]")
    parser.add_argument("--starts", type=int, metavar="N", default=5, help="for the first answer [%(default)s]")
    parser.add_argument(
        "--paced", type=float, metavar="RATE", help="measure a client that sends so many requests/s as well, such as 30"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"workloads, by the start of their names, and {FIRST_ANSWER}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.rounds < 1 or arguments.starts < 1 or (arguments.paced or 1) <= 0:
        parser.error("expected numbers above 0")
    return arguments


def _measure(arguments: argparse.Namespace, folder: Path) -> Results:
    models = _find_models(arguments.models)
    with all_workloads(folder, models) as workloads:
        by_name = {workload.name: workload for workload in workloads}
        wanted = _choose([*by_name, *([FIRST_ANSWER] if FIRST_ANSWER_MODEL in models else [])], arguments.only)
        first_answers = {}
        if FIRST_ANSWER in wanted:
            first_answers = _first_answers(folder, by_name[FIRST_ANSWER_MODEL], arguments.starts)
        chosen = [by_name[name] for name in wanted if name in by_name]
        rows = _rounds(folder, chosen, arguments) if chosen else []
    settings = {name: getattr(arguments, name) for name in ("seconds", "rounds", "starts", "paced")}
    return Results(_machine(), settings, rows, first_answers)


def _find_models(folder: Path) -> dict[str, Path]:
    if importlib.util.find_spec("ai_edge_litert") is None:
        _say("no models are measured: pip install ai-edge-litert")
        return {}
    paths = {name: folder.absolute() / file for name, (file, _) in MODEL_FILES.items()}
    for name, path in paths.items():
        if not path.is_file():
            _say(f"{name} is not measured: no {path}")
    return {name: path for name, path in paths.items() if path.is_file()}


def _choose(names: list[str], starts: list[str] | None) -> list[str]:
    for start in starts or ():
        if not any(name.startswith(start) for name in names):
            raise MeasurementError(f"--only {start}: expected the start of one of {', '.join(names)}")
    return [name for name in names if starts is None or name.startswith(tuple(starts))]


def _first_answers(folder: Path, workload: Workload, starts: int) -> dict[str, list[float]]:
    assert workload.model is not None
    models = {workload.name: workload.model}
    request = workload.requests[OURS].read_bytes()
    times: dict[str, list[float]] = {BARE: [], OURS: []}
    for number in range(starts):
        _say(f"{FIRST_ANSWER} {number + 1}/{starts}")
        for contestant, command in ((BARE, bare_server), (OURS, our_server)):
            socket = folder / f"first-{contestant}-{number}.sock"
            times[contestant].append(first_answer_s(command(socket, models), socket, request))
    return times


def _rounds(folder: Path, workloads: list[Workload], arguments: argparse.Namespace) -> list[Row]:
    paces: list[tuple[int, float | None]] = [(clients, None) for clients in CLIENTS]
    if arguments.paced:
        paces.append((1, arguments.paced))
    rows = [
        Row(workload, contestant, clients, paced_per_s)
        for workload in workloads
        for clients, paced_per_s in paces
        for contestant in workload.requests
    ]
    _say("starting servers")
    with running_bench(folder, workloads) as bench:
        for number in range(arguments.rounds):
            for workload, group in groupby(rows, lambda row: row.workload):
                _say(f"round {number + 1}/{arguments.rounds}: {workload.name}")
                # Alternate the direction, so that no row is always first or last.
                for row in list(group)[:: -1 if number % 2 else 1]:
                    seconds = arguments.seconds * (1.0 if workload.model or row.paced_per_s else ECHO_SHARE)
                    row.samples.append(bench.measure(row, seconds))
    return rows


def _machine() -> dict[str, Any]:
    about = {"processor": _processor(), "CPUs": os.cpu_count(), "Python": platform.python_version()}
    for name in ("acap-runtime", "grpcio", "protobuf", "ai-edge-litert"):
        with contextlib.suppress(PackageNotFoundError):
            about[name] = version(name)
    # Copies dominate the cost of large inputs. A machine that copies slower is slower there, whatever the server does.
    return {**about, "a copy of 6.2 MB in ms": round(_copy_ms(1920 * 1080 * 3), 2)}


def _copy_ms(size: int) -> float:
    source, target = bytes(size), memoryview(bytearray(size))
    took = []
    for _ in range(50):
        started = time.perf_counter()
        target[:] = source
        took.append(time.perf_counter() - started)
    return 1000 * median(took)


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
