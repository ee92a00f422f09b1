"""``acapruntime status`` and ``acapruntime models``: what a running server says of itself, whatever state it is in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from acap_runtime.client import CallFailed, connect
from acap_runtime.contract.backend import Quantisation
from calls import soon

COMMAND = Path(sys.executable).with_name("acapruntime")
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.tflite"
DATA = {"data": np.array([1, 2, 3], np.uint8)}


def run(*words: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ACAPRUNTIME_")}
    return subprocess.run(
        [COMMAND, *map(str, words)],
        env={**clean, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def status(server: Any) -> dict[str, Any]:
    with connect(server.address) as client:
        return client.status(timeout_s=5)


@pytest.fixture(scope="module")
def server(start_shared_server: Callable[..., Any]) -> Any:
    """One on which nothing is wrong, with a model that has versions, and a camera."""
    model = f"digits={DIGITS},instances=2,queue=7,labels=stable:1"
    return start_shared_server("-j", "2", "-m", model, "--camera", "door=test-pattern", "--block", "libyuv")


@pytest.fixture
def start_debug(start_server: Callable[..., Any]) -> Callable[..., Any]:
    def start(*words: object, **options: Any) -> Any:
        return start_server("-j", "1", "--block", "libyuv", *words, **options)

    return start


class TestStatus:
    def test_people_see_that_all_is_well(self, server: Any) -> None:
        done = run("status", "--address", server.address)
        assert done.returncode == 0, done.stderr
        head, *lines = done.stdout.splitlines()
        assert head.startswith("acap-runtime 0.1.0, process ")
        assert head.endswith(": ready")
        chip = next(line for line in lines if line.startswith("2 cpu-tflite"))
        assert chip.split()[2:5] == ["acap-runtime-tflite-cpu", "0.1.0", "ready"]
        model = next(line for line in lines if line.startswith("digits"))
        assert model.split()[:5] == ["digits", "1", "stable", "available", "cpu-tflite"]
        assert "0 of 7" in model
        assert any(line.startswith("1 door") and " idle " in line for line in lines)

    def test_programs_get_everything(self, server: Any) -> None:
        with connect(server.address) as client, client.stream("nv12", 64, 48, 10) as stream:
            stream.frame()
            for _ in range(3):
                client.predict("digits", np.zeros((1, 32, 32, 3), np.uint8))
            with pytest.raises(CallFailed):
                client.predict("digits", np.zeros(5, np.float32))
            done = run("status", "--json", "--address", server.address)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["server"]["pid"] == server.process.pid
        assert said["server"]["ready"] is True
        assert said["server"]["uptime_s"] > 0
        (worker,) = said["workers"]
        assert (worker["chip_id"], worker["name"], worker["restarts"]) == (2, "cpu-tflite", 0)
        assert worker["pid"] in server.workers()
        (model,) = said["models"]
        assert (model["name"], model["version"], model["labels"], model["state"]) == (
            *("digits", 1, ["stable"], "available"),
        )
        assert (model["instances"], model["queue_limit"], model["required"], model["on_demand"]) == (2, 7, True, False)
        assert model["calls"]["succeeded"] == 3
        assert model["calls"]["mean_run_ms"] > 0
        assert model["inputs"][0] | {"quantisation": None} == {
            "name": "data", "dtype": "uint8", "shape": [1, 32, 32, 3], "quantisation": None,
        }  # fmt: skip
        (camera,) = said["cameras"]
        assert (camera["name"], camera["state"], camera["streams"], camera["failures"]) == ("door", "open", 1, 0)
        assert camera["pid"] in server.workers()
        (opened,) = said["streams"]
        assert (opened["id"], opened["camera"], opened["lease_s"]) == (stream.number, "door", 600)
        assert "nv12 64x48" in opened["settings"]

    def test_it_is_shown_again_and_again_until_it_is_interrupted(self, server: Any) -> None:
        words = [COMMAND, "status", "--watch", "0.1", "--address", server.address]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            heads = 0
            for line in process.stdout:
                heads += line.startswith("acap-runtime")
                if heads == 3:
                    break
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130

    def test_a_server_that_loads_is_not_ready_and_says_why(
        self, start_debug: Callable[..., Any], write: Callable[..., str]
    ) -> None:
        server = start_debug("-m", f"slow={write('slow', 'load_delay = 60')}", "--grace", "0", ready=False)
        server.wait_for_log("worker of chip")
        done = run("status", "--address", server.address)
        assert done.returncode == 1
        assert "NOT ready: model slow is not available: version 1 is not loaded yet" in done.stdout
        assert not done.stderr
        assert status(server)["models"][0]["state"] == "loading"

    def test_a_worker_that_was_killed_is_told_with_its_restart(self, start_debug: Callable[..., Any]) -> None:
        server = start_debug()
        (worker,) = status(server)["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        soon(lambda: status(server)["workers"][0]["restarts"] == 1)
        (again,) = status(server)["workers"]
        assert again["state"] == "ready"
        assert again["pid"] not in (0, worker["pid"])
        assert "SIGKILL" in again["last_error"]
        assert run("status", "--address", server.address).returncode == 0

    def test_it_answers_at_once_while_the_chip_hangs(
        self, start_debug: Callable[..., Any], write: Callable[..., str]
    ) -> None:
        model = write("stuck", 'freeze = "run"')
        server = start_debug("-m", f"stuck={model}", "--grace", "0")
        with connect(server.address) as client, ThreadPoolExecutor(5) as threads:
            calls = [threads.submit(client.predict, "stuck", DATA, timeout_s=8) for _ in range(5)]
            soon(lambda: status(server)["models"][0]["waiting_calls"] == 3)
            before = time.monotonic()
            (model,) = status(server)["models"]
            assert time.monotonic() - before < 1
            assert (model["running_calls"], model["waiting_calls"]) == (2, 3)
            for call in calls:
                with pytest.raises(CallFailed):
                    call.result()
        assert status(server)["models"][0]["calls"]["failed"] == 5

    def test_a_worker_that_rests_keeps_the_server_from_being_ready(
        self, start_debug: Callable[..., Any], write: Callable[..., str]
    ) -> None:
        model = write("fatal", 'crash = "run"')
        server = start_debug("-m", f"fatal={model}")
        with connect(server.address) as client:

            def rests() -> bool:
                with pytest.raises(CallFailed):
                    client.predict("fatal", DATA)
                return bool(client.status()["workers"][0]["state"] == "resting")

            soon(rests, 30)
        done = run("status", "--address", server.address)
        assert done.returncode == 1
        assert "NOT ready: chip 1 (debug-device) is resting: the worker of chip 1 (debug-device) died" in done.stdout

    def test_a_model_that_is_not_required_may_fail(self, start_debug: Callable[..., Any], tmp_path: Path) -> None:
        folder = tmp_path / "models"
        folder.mkdir()
        (folder / "good.toml").touch()
        (folder / "bad.toml").write_text('fail = "load"')
        server = start_debug("--model-dir", folder)
        done = run("status", "--json", "--address", server.address)
        assert done.returncode == 0
        bad, good = json.loads(done.stdout)["models"]
        assert (bad["name"], bad["state"], bad["required"]) == ("bad", "end", False)
        assert "fail" in bad["error"]
        assert (good["name"], good["state"], good["error"]) == ("good", "available", "")

    def test_files_that_clients_had_loaded_are_told_from_the_operators_models(
        self, start_debug: Callable[..., Any], write: Callable[..., str]
    ) -> None:
        server = start_debug()
        path = write("file")
        with connect(server.address) as client:
            client.predict(path, DATA)
        (model,) = status(server)["models"]
        assert (model["name"], model["on_demand"], model["required"]) == (path, True, False)

    def test_a_cameras_failure_is_told_and_its_password_is_not(self, start_server: Callable[..., Any]) -> None:
        pytest.importorskip("acap_runtime_video", exc_type=ImportError)
        server = start_server("--camera", "door=rtsp://root:secret@127.0.0.1:1/media?key=secret")
        with connect(server.address) as client, pytest.raises(CallFailed):
            client.stream("nv12", 64, 48)
        done = run("status", "--json", "--address", server.address)
        assert "secret" not in done.stdout
        (camera,) = json.loads(done.stdout)["cameras"]
        assert camera["source"].startswith("rtsp://***@127.0.0.1")
        assert camera["failures"] == 1
        assert camera["last_error"]

    def test_without_a_chip_there_is_nothing_to_wait_for(self, start_server: Callable[..., Any]) -> None:
        server = start_server()
        first, *rest = run("status", "--address", server.address).stdout.splitlines()
        assert first.endswith(": ready")
        assert not any("CHIP" in line or "MODEL" in line for line in rest)


class TestReachingTheServer:
    @pytest.mark.parametrize("form", ["unix:{}", "unix://{}", "{}"])
    def test_a_socket_may_be_written_in_three_ways(self, server: Any, form: str) -> None:
        path = server.address.removeprefix("unix://")
        assert run("status", "--address", form.format(path)).returncode == 0

    def test_by_default_it_is_where_the_environment_has_a_server_listen(
        self, server: Any, start_server: Callable[..., Any], free_port: int
    ) -> None:
        path = server.address.removeprefix("unix://")
        assert run("status", environment={"ACAPRUNTIME_SOCKET": path}).returncode == 0
        start_server("-p", free_port, "-a", "127.0.0.1")
        tcp = {"ACAPRUNTIME_PORT": str(free_port)}
        assert run("status", environment=tcp).returncode == 0
        assert run("status", "--address", f"127.0.0.1:{free_port}").returncode == 0

    def test_without_a_server_the_error_says_what_to_do(self, tmp_path: Path, free_port: int) -> None:
        path = tmp_path / "none.sock"
        done = run("status", "--address", path)
        assert done.returncode == 1
        assert f"no server answers on the socket {path}: No such file" in done.stderr
        assert "--address" in done.stderr
        done = run("status", "--address", f"localhost:{free_port}", "--timeout", "0.5")
        assert done.returncode == 1
        assert f"nothing answers at localhost:{free_port} without TLS" in done.stderr

    @pytest.mark.parametrize(
        "words",
        [
            ["--address", "somewhere"],
            ["--address", "host:port"],
            ["--timeout", "soon"],
            ["--certificate", "mine.pem"],
            ["--watch", "0"],
            ["more"],
        ],
    )
    def test_a_command_line_that_makes_no_sense_is_told(self, server: Any, words: list[str]) -> None:
        given = words if "--address" in words else ["--address", server.address, *words]
        done = run("status", *given)
        assert done.returncode == 2
        assert words[0] in done.stderr

    def test_a_file_that_cannot_be_read_is_named(self, server: Any) -> None:
        done = run("status", "--address", server.address, "--ca", "/nowhere/ca.pem")
        assert done.returncode == 2
        assert "/nowhere/ca.pem" in done.stderr

    def test_another_server_is_told_from_ours(self, tmp_path: Path) -> None:
        other = grpc.server(ThreadPoolExecutor(1))
        other.add_insecure_port(f"unix:{tmp_path}/other.sock")
        other.start()
        try:
            done = run("status", "--address", tmp_path / "other.sock")
        finally:
            other.stop(None).wait()
        assert done.returncode == 1
        assert "does not know GetStatus; expected acap-runtime of this version" in done.stderr


class TestModels:
    @pytest.fixture
    def two(self, start_debug: Callable[..., Any], write: Callable[..., str]) -> Iterator[Any]:
        inputs = 'inputs = [{name = "picture", shape = [1, 8, 8, 3]}, {name = "x", dtype = "float32", shape = [1, -1]}]'
        return start_debug("-m", f"pair={write('pair', inputs)}", "-m", f"digits={DIGITS},chip=2")

    def test_people_see_inputs_and_outputs(self, two: Any) -> None:
        done = run("models", "--address", two.address)
        assert done.returncode == 0, done.stderr
        digits, pair = done.stdout.split("pair ")
        assert digits.splitlines()[0] == "digits version 1: available on cpu-tflite"
        assert "  output  digit  uint8 [1, 10], scale 0.00390625, zero point 0" in digits.splitlines()
        assert pair.splitlines() == [
            "version 1: available on debug-device",
            "  input   picture  uint8 [1, 8, 8, 3]",
            "  input   x        float32 [1, -1]",
            "  output  picture  uint8 [1, 8, 8, 3]",
            "  output  x        float32 [1, -1]",
        ]

    def test_programs_get_those_that_they_ask_for(self, two: Any) -> None:
        done = run("models", "--json", "pair", "--address", two.address)
        (model,) = json.loads(done.stdout)
        assert [(each["name"], each["dtype"], each["shape"]) for each in model["inputs"]] == [
            ("picture", "uint8", [1, 8, 8, 3]),
            ("x", "float32", [1, -1]),
        ]

    def test_an_unknown_model_is_told(self, two: Any) -> None:
        done = run("models", "nothing", "--address", two.address)
        assert done.returncode == 1
        assert "model 'nothing' is unknown; the server has: digits, pair" in done.stderr

    def test_one_is_unloaded_and_loaded_again(self, two: Any) -> None:
        done = run("models", "--unload", "pair", "--json", "--address", two.address)
        assert done.returncode == 0, done.stderr
        (model,) = json.loads(done.stdout)
        assert (model["name"], model["state"]) == ("pair", "end")
        done = run("models", "--load", "pair", "--address", two.address)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("pair version 1: available")
        done = run("models", "--load", "nothing", "--address", two.address)
        assert done.returncode == 1
        assert "RepositoryModelLoad, NOT_FOUND: model 'nothing' is unknown" in done.stderr

    def test_a_client_learns_how_integers_stand_for_real_numbers(self, two: Any) -> None:
        with connect(two.address) as client:
            model = client.model("digits")
        assert (model.name, model.version, model.chip) == ("digits", 1, "cpu-tflite")
        assert model.outputs[0].quantisation == Quantisation((1 / 256,), (0,))

    def test_a_file_is_loaded_for_who_asks_what_it_is(self, two: Any, write: Callable[..., str]) -> None:
        path = write("asked", 'inputs = [{name = "a", shape = [2]}]')
        with connect(two.address) as client:
            model = client.model(path)
            assert [str(spec) for spec in model.inputs] == ["uint8 [2]"]
            with pytest.raises(CallFailed, match="NOT_FOUND"):
                client.model("nothing")
