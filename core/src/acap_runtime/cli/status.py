"""``acapruntime status``: shows the state of a running server."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from acap_runtime.cli import connection
from acap_runtime.cli.argument_types import argument
from acap_runtime.cli.table import lines, write
from acap_runtime.settings.option_values import seconds

_TIMEOUT_S: Final = 10.0
_EPILOG = """The exit code is 0 if the server is ready: its chip and all models given with -m can be used. Otherwise,
and where no server answers, it is 1."""
_CLEAR: Final = "\x1b[H\x1b[2J"
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns exit code 1 if the server is not ready, or if there is none."""
    parser = argparse.ArgumentParser(
        "acapruntime status", description="Show how a running server is.", epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--watch",
        nargs="?",
        const=2.0,
        type=argument(seconds(0.1)),
        metavar="SECONDS",
        help="again and again, every 2 seconds by default",
    )
    connection.add_arguments(parser, _TIMEOUT_S)
    given = parser.parse_args(arguments)
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        # The exception alone may be raised, and lost, in a callback of grpc.
        interrupted.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    with connection.connected(parser, given) as client:
        while not interrupted.is_set():
            status = client.status()
            if given.watch is not None and sys.stdout.isatty():
                sys.stdout.write(_CLEAR)
            write(json.dumps(status, indent=2) if given.json else "\n".join(_status_lines(status)))
            if given.watch is None:
                return int(not status["server"]["ready"])
            interrupted.wait(given.watch)
    raise KeyboardInterrupt


def _status_lines(status: Mapping[str, Any]) -> Iterable[str]:
    server = status["server"]
    state = "ready" if server["ready"] else f"NOT ready: {server['reason']}"
    yield f"acap-runtime {server['version']}, process {server['pid']}, up {_duration(server['uptime_s'])}: {state}"
    for name, row in (("workers", _worker), ("models", _model), ("cameras", _camera), ("streams", _stream)):
        if status[name]:
            yield ""
            yield from lines([row(each) for each in status[name]])


def _worker(worker: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "chip": " ".join(str(each) for each in (worker["chip_id"], worker["name"]) if each is not None),
        "plugin": f"{worker['plugin']} {worker['plugin_version']}",
        "state": worker["state"],
        "process": worker["pid"] or None,
        "up": None if worker["uptime_s"] is None else _duration(worker["uptime_s"]),
        "restarts": worker["restarts"],
        "last_error": worker["last_error"] or None,
    }


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    calls = model["calls"] or {"succeeded": 0, "failed": 0, "refused": 0, "mean_run_ms": None}
    run_ms = calls["mean_run_ms"]
    return {
        "model": model["name"],
        "version": model["version"],
        "labels": model["labels"],
        "state": model["state"],
        "chip": model["chip"] or None,
        "instances": model["instances"],
        "running": model["running_calls"],
        "waiting": f"{model['waiting_calls']} of {model['queue_limit']}",
        "succeeded": calls["succeeded"],
        "failed": calls["failed"],
        "refused": calls["refused"],
        "run_ms": None if run_ms is None else f"{run_ms:.1f}",
        "error": model["error"] or None,
    }


def _camera(camera: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "camera": f"{camera['number']} {camera['name']}",
        "source": camera["source"],
        "plugin": camera["plugin"],
        "state": camera["state"],
        "process": camera["pid"] or None,
        "streams": camera["streams"],
        "failures": camera["failures"],
        "last_error": camera["last_error"] or None,
    }


def _stream(stream: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stream": stream["id"],
        "camera": stream["camera"],
        "settings": stream["settings"],
        "age": _duration(stream["age_s"]),
        "idle": f"{_duration(stream['idle_s'])} of {_duration(stream['lease_s'])}",
    }


def _duration(time_s: float) -> str:
    """Return a time in its two largest units, such as ``3 h 12 min``."""
    left, words = int(time_s), []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            words.append(f"{count} {unit}")
    return " ".join(words[:2]) or "0 s"
