"""gRPC's health checking and reflection, as both packages' unmodified clients see them, in their own processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import soon
from client_environments import CLIENTS, run
from serving import BAD, config, reload, version
from surprises import surprises

pytestmark = pytest.mark.timeout(600)  # the environment may have to be made first
PREDICTION = "tensorflow.serving.PredictionService"
MODELS = "tensorflow.serving.ModelService"
VIDEO = "videocapture.v1.VideoCapture"
PARAMETERS = "keyvaluestore.KeyValueStore"
HEALTH = "grpc.health.v1.Health"
REFLECTION = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


@pytest.fixture
def check(triton_python: Path) -> Callable[..., dict[str, str]]:
    """The health of names."""

    def ask(server: Any, *names: str) -> dict[str, str]:
        answers: dict[str, str] = json.loads(run(triton_python, "check_health.py", server.address, *names))
        return answers

    return ask


class Watch:
    """A client that watches a name in any number of streams."""

    def __init__(self, python: Path, server: Any, name: str, count: int = 1) -> None:
        command = [python, CLIENTS / "watch_health.py", server.address, name, str(count)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def next(self) -> str:
        """The status that all streams have next, or the code that they end with."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def watch(triton_python: Path) -> Iterator[Callable[..., Watch]]:
    with contextlib.ExitStack() as stack:

        def start(server: Any, name: str, count: int = 1) -> Watch:
            client = Watch(triton_python, server, name, count)
            stack.callback(client.kill)
            return client

        yield start


def sockets(process: int) -> int:
    """How many a process has open."""
    found = 0
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += descriptor.readlink().name.startswith("socket:")
    return found


def test_the_server_its_services_and_its_models_have_a_health(start_server, tmp_path, check) -> None:
    good, bad = version(tmp_path / "models" / "good", 1), version(tmp_path / "models" / "bad", 1, BAD)
    server = start_server("-j", "1", "--model-dir", good.parent)
    assert check(server, "", PREDICTION, MODELS, VIDEO, PARAMETERS, HEALTH, *REFLECTION, "good", bad.name, "x") == {
        **dict.fromkeys(("", PREDICTION, MODELS, VIDEO, PARAMETERS, HEALTH, *REFLECTION, "good"), "SERVING"),
        "bad": "NOT_SERVING",  # which the server was not told to have
        "x": "NOT_FOUND",
    }


def test_a_server_without_a_chip_serves(start_server, check) -> None:
    assert check(start_server(), "", PREDICTION, VIDEO) == dict.fromkeys(("", PREDICTION, VIDEO), "SERVING")


def test_what_loads_does_not_serve_yet_and_the_rest_does(start_server, tmp_path, check, watch) -> None:
    slow, fast = version(tmp_path / "slow", 1, "load_delay = 8"), version(tmp_path / "fast", 1)
    server = start_server("-j", "1", "-m", f"slow={slow}", "-m", f"fast={fast}", ready=False)
    server.wait_for_log("model fast version 1 loaded")
    watching = watch(server, "")
    assert watching.next() == "NOT_SERVING"
    assert check(server, "", PREDICTION, "slow", "fast", VIDEO) == {
        **dict.fromkeys(("", PREDICTION, "slow"), "NOT_SERVING"),
        **dict.fromkeys(("fast", VIDEO), "SERVING"),
    }
    assert watching.next() == "SERVING"
    assert check(server, "", PREDICTION, "slow") == dict.fromkeys(("", PREDICTION, "slow"), "SERVING")


def test_a_killed_worker_is_seen_and_that_it_is_back(start_server, tmp_path, watch) -> None:
    model = version(tmp_path / "name", 1, "load_delay = 1")
    server = start_server("-j", "1", "-m", f"name={model}")
    watching = [watch(server, name) for name in ("", PREDICTION, "name")]
    assert [each.next() for each in watching] == ["SERVING"] * 3
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    assert [each.next() for each in watching] == ["NOT_SERVING"] * 3
    assert [each.next() for each in watching] == ["SERVING"] * 3


def test_a_server_that_stops_says_so_to_those_who_watch_and_does_not_wait_for_them(start_server, watch) -> None:
    server = start_server("-j", "1", "--grace", "60")
    watching = watch(server, "")
    assert watching.next() == "SERVING"
    assert server.stop() == 0
    assert watching.next() == "NOT_SERVING"
    assert watching.next() == "UNAVAILABLE"


def test_a_name_that_is_unknown_may_become_one_and_cease_to_be(
    start_server, tmp_path, watch, tensorflow_serving_python
) -> None:
    server = start_server("-j", "1")
    watching = watch(server, "name")
    assert watching.next() == "SERVICE_UNKNOWN"
    script = "call_tensorflow_serving.py"
    for models in ([config("name", version(tmp_path / "name", 1))], []):
        method, request = reload(*models)
        run(tensorflow_serving_python, script, server.address, method, json.dumps(request))
    told = [watching.next()]
    while told[-1] != "SERVICE_UNKNOWN":
        told.append(watching.next())
    assert told[-2:] == ["SERVING", "SERVICE_UNKNOWN"]
    assert set(told[:-2]) <= {"NOT_SERVING"}


def test_many_may_watch_and_vanish(start_server, tmp_path, check, watch) -> None:
    server = start_server("-j", "1", "-m", f"name={version(tmp_path / 'name', 1, 'load_delay = 1')}")
    before = sockets(server.process.pid)
    crowd = [watch(server, "name", 100) for _ in range(3)]
    assert [each.next() for each in crowd] == ["SERVING"] * 3
    crowd[0].kill()
    os.kill(crowd[1].process.pid, signal.SIGSTOP)
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    assert [crowd[2].next(), crowd[2].next()] == ["NOT_SERVING", "SERVING"]
    assert check(server, "", "name") == {"": "SERVING", "name": "SERVING"}
    for each in crowd[1:]:
        each.kill()
    soon(lambda: sockets(server.process.pid) <= before)
    assert not surprises(server.log)


def deaf_watcher(address: str, path: str) -> socket.socket:
    """A client that watches the whole server's health, and lets the server send it not one byte of an answer."""
    headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    headers["content-type"] = "application/grpc"
    block = b"".join(
        b"\x00" + b"".join(bytes([len(each)]) + each.encode() for each in header) for header in headers.items()
    )
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address.removeprefix("unix://"))
    no_window = struct.pack("!HI", 4, 0)
    frames = [(4, 0, 0, no_window), (1, 4, 1, block), (0, 1, 1, bytes(5))]  # SETTINGS, HEADERS, DATA
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    for kind, flags, stream, content in frames:
        connection.sendall(struct.pack("!I", len(content))[1:] + struct.pack("!BBI", kind, flags, stream) + content)
    return connection


def test_a_client_that_takes_no_answer_holds_up_nobody(start_server, tmp_path, check, watch) -> None:
    server = start_server("-j", "1", "-m", f"name={version(tmp_path / 'name', 1, 'load_delay = 1')}", "--grace", "1")
    watching = watch(server, "")
    assert watching.next() == "SERVING"
    with deaf_watcher(server.address, f"/{HEALTH}/Watch"):
        assert check(server, "") == {"": "SERVING"}
        for worker in server.workers():
            os.kill(worker, signal.SIGKILL)
        assert [watching.next(), watching.next()] == ["NOT_SERVING", "SERVING"]
        assert check(server, "") == {"": "SERVING"}
        assert server.stop() == 0


def test_a_request_that_does_not_parse_is_refused(start_server) -> None:
    server = start_server()
    with server.client() as client:
        for call in (client.channel.unary_unary(f"/{HEALTH}/Check"), client.channel.unary_stream(f"/{HEALTH}/Watch")):
            with pytest.raises(grpc.RpcError) as raised:
                list(call(b"\xff", timeout=5))
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_client_without_stubs_learns_what_there_is_and_predicts(start_server, tmp_path, triton_python) -> None:
    server = start_server("-j", "1", "-m", f"name={version(tmp_path / 'name', 1)}")
    found = json.loads(run(triton_python, "reflect.py", server.address, "name"))
    assert {PREDICTION, MODELS, VIDEO, PARAMETERS, HEALTH, *REFLECTION} <= found["methods"].keys()
    assert found["methods"][HEALTH]["Watch"] == "grpc.health.v1.HealthCheckRequest"
    assert found["methods"][MODELS].keys() == {"GetModelStatus", "HandleReloadConfigRequest"}
    for name in REFLECTION:
        request = name.replace("ServerReflection", "ServerReflectionRequest")
        assert found["methods"][name] == {"ServerReflectionInfo": request}
    assert found["answer"]["outputs"]["data"]["tensorContent"] == "AQID"
    assert found["missing"] == "KeyError"
    assert found["file of a method"] == "prediction_service.proto"


def test_newer_clients_of_reflection_find_the_version_that_they_ask_for(start_server) -> None:
    # There is none on PyPI: a ServerReflectionRequest with list_services, field 7, and the response's names.
    with start_server().client() as client:
        call = client.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        (answer,) = call(iter([b"\x3a\x00"]), timeout=5)
    assert PREDICTION.encode() in answer
