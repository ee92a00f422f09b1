"""The command line: the original's flags, ours, the environment, and what is said of chips and plugins."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from surprises import surprises

COMMAND = Path(sys.executable).with_name("acapruntime")
TABLE = {
    0: "none", 1: "debug-device", 2: "cpu-tflite", 4: "google-edge-tpu-tflite", 6: "ambarella-cvflow", 8: "gpu-tflite",
    9: "ambarella-cvflow-proc", 10: "axis-a8-ace-proc", 11: "cpu-proc", 12: "axis-a8-dlpu-tflite",
    13: "axis-a8-gpu-proc",
}  # fmt: skip
THREE = np.array([1, 2, 3], np.uint8)


def start(*words: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ACAPRUNTIME_")}
    return subprocess.Popen(
        [COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, **(environment or {})},
    )


def run(*words: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return finished(start(*words, environment=environment))


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    with process:
        try:
            out, error = process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    path = tmp_path / "echo.toml"
    path.touch()
    return path


class TestFlags:
    def test_every_flag_of_the_original_is_taken(
        self, start_server: Callable[..., Any], echo: Path, tmp_path: Path, free_port: int
    ) -> None:
        (tmp_path / "other.toml").touch()
        flags = ["-v", "-a", "127.0.0.1", "-p", free_port, "-t", "600", "-c", "", "-k", "", "-j", "1", "-m", echo]
        server = start_server(*flags, "-m", tmp_path / "other.toml", "-o")
        with server.client() as client:
            for path in (echo, tmp_path / "other.toml"):
                assert client.predict(str(path), {"data": THREE})
        assert "DEBUG model" in server.log
        assert server.stop() == 0

    def test_long_names_say_the_same_to_the_command_serve(
        self, start_server: Callable[..., Any], echo: Path, free_port: int
    ) -> None:
        server = start_server(
            *("serve", "--verbose", "--address", "127.0.0.1", "-p", free_port, "--run-for", "600"),
            *("--chip", "debug-device", "--model", f"echo={echo}", "--override", "--instances", "2", "--queue", "5"),
            *("--run-timeout", "9", "--load-timeout", "9", "--max-message-size", "5", "--grace", "1"),
            ready=False,
        )
        server.wait_for_log("ready")
        with server.client() as client:
            assert client.predict("echo", {"data": THREE})
        assert "2 instance(s)" in server.log
        assert server.stop() == 0

    @pytest.mark.parametrize("words", [["-h"], ["--help"], ["serve", "--help"]])
    def test_help_names_every_flag_and_variable(self, words: list[str]) -> None:
        done = run(*words)
        assert done.returncode == 0
        for flag in ("-v", "-a", "-p", "-t", "-c", "-k", "-j", "-m", "-o", "-h"):
            assert re.search(rf"^\s*{flag}\b", done.stdout, re.MULTILINE), flag
        assert "/tmp/acap-runtime.sock" in done.stdout
        assert "ACAPRUNTIME_MODEL" in done.stdout
        assert "acapruntime chips" in done.stdout

    def test_the_version_is_the_distributions(self) -> None:
        assert run("--version").stdout.strip() == version("acap-runtime")

    @pytest.mark.parametrize(
        "words",
        [
            [""],
            ["", "", ""],
            ["-a", "", "-p", "", "-c", "", "-k", "", "-j", "", "-m", ""],
            ["--client-ca", "", "--block", "", "--instances", "", "--threads", ""],
        ],
        ids=["one", "three", "values", "our values"],
    )
    def test_empty_arguments_are_as_if_not_given(self, tmp_path: Path, words: list[str]) -> None:
        done = run(*words, "--socket", tmp_path / "s.sock", "-t", "0.1")
        assert done.returncode == 0, done.stderr
        assert f"listening on unix://{tmp_path}/s.sock\n" in done.stderr
        assert "without inference" in done.stderr
        assert not surprises(done.stderr)

    def test_a_time_of_zero_is_no_limit_as_in_the_original(self, start_server: Callable[..., Any]) -> None:
        server = start_server("-t", "0", ready=False)
        server.wait_for_log("listening")
        time.sleep(0.5)
        assert server.process.poll() is None, server.log

    def test_a_flag_and_its_value_may_be_one_word(self, tmp_path: Path) -> None:
        done = run("-vo", "-t0.1", "-j0", f"--socket={tmp_path}/s.sock")
        assert done.returncode == 0, done.stderr
        assert "without inference" in done.stderr

    @pytest.mark.parametrize(
        "words",
        [
            pytest.param(["--nobody"], id="long"),
            pytest.param(["-x"], id="short"),
            pytest.param(["--verb"], id="abbreviated"),
            pytest.param(["hello"], id="a word"),
            pytest.param(["-p"], id="no value"),
            pytest.param(["chips", "--nobody"], id="of chips"),
            pytest.param(["plugins", "hello"], id="of plugins"),
        ],
    )
    def test_what_is_unknown_ends_it_with_2_and_how_to_call_it(self, words: list[str]) -> None:
        done = run(*words)
        assert done.returncode == 2
        assert "usage: acapruntime" in done.stderr
        assert words[-1] in done.stderr
        assert done.stdout == ""

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["-p", "abc"], ["--port: expected an integer from 0 to 65535, got 'abc'"]),
            (["-t", "soon"], ["--run-for: expected a number of seconds", "got 'soon'"]),
            (["-m", "=x"], ["--model: expected PATH or NAME=PATH, got '=x'"]),
            (["-m", "a=/x", "-m", "a=/y"], ["--model: expected each name once, got a again"]),
        ],
    )
    def test_a_value_that_does_not_parse_ends_it_with_2_and_what_was_expected(
        self, words: list[str], said: list[str]
    ) -> None:
        done = run(*words)
        assert done.returncode == 2
        assert all(each in done.stderr for each in said), done.stderr

    def test_ctrl_c_while_it_prints_is_no_error_of_ours(self) -> None:
        process = start("chips")
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        done = finished(process)
        assert done.returncode in {0, 130, -signal.SIGINT}


class TestEnvironment:
    def test_variables_say_what_flags_say(
        self, start_server: Callable[..., Any], echo: Path, tmp_path: Path, free_port: int
    ) -> None:
        spaced = tmp_path / "with blanks.toml"
        spaced.touch()
        server = start_server(
            ready=False,
            environment={
                "ACAPRUNTIME_VERBOSE": "yes",
                "ACAPRUNTIME_ADDRESS": "127.0.0.1",
                "ACAPRUNTIME_PORT": str(free_port),
                "ACAPRUNTIME_RUN_FOR": "600",
                "ACAPRUNTIME_CHIP": "cpu-proc debug-device",
                "ACAPRUNTIME_MODEL": f"one={echo} 'two={spaced}'",
                "ACAPRUNTIME_INSTANCES": "2",
                "ACAPRUNTIME_CERTIFICATE": "",
            },
        )
        server.wait_for_log("ready")
        server.address = f"127.0.0.1:{free_port}"
        with server.client() as client:
            assert client.predict("one", {"data": THREE})
            assert client.predict("two", {"data": THREE})
        assert server.log.count("2 instance(s)") == 2
        assert "images are converted by chip 11 (cpu-proc)" in server.log
        assert server.stop() == 0

    def test_the_command_line_goes_before_it(self, tmp_path: Path) -> None:
        environment = {
            "ACAPRUNTIME_SOCKET": str(tmp_path / "environment.sock"),
            "ACAPRUNTIME_RUN_FOR": "1000",
            "ACAPRUNTIME_CHIP": "nobody",
            "ACAPRUNTIME_PORT": "1",
        }
        words = ["--socket", tmp_path / "line.sock", "-t", "0.1", "-j", "0", "-p", "0"]
        done = run(*words, environment=environment)
        assert done.returncode == 0, done.stderr
        assert f"{tmp_path}/line.sock" in done.stderr

    def test_a_variable_that_does_not_parse_is_not_read_where_a_flag_is_given(self, tmp_path: Path) -> None:
        done = run("--socket", tmp_path / "s.sock", "-t", "0.1", environment={"ACAPRUNTIME_RUN_FOR": "soon"})
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("PORT", "http", "expected an integer from 0 to 65535, got 'http'"),
            ("VERBOSE", "perhaps", "expected yes or no, got 'perhaps'"),
            ("MODEL", "a=/x 'b=/y", "quotation"),
        ],
    )
    def test_a_value_that_does_not_parse_ends_it_with_the_variables_name(
        self, name: str, value: str, said: str
    ) -> None:
        done = run(environment={f"ACAPRUNTIME_{name}": value})
        assert done.returncode == 2
        assert f"ACAPRUNTIME_{name}: " in done.stderr
        assert said in done.stderr


class TestChips:
    def test_json_has_every_chip_of_the_table_with_all_there_is_to_know(self) -> None:
        done = run("chips", "--json")
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)
        assert [row["id"] for row in rows if row["id"] is not None] == list(TABLE)
        for row in rows:
            assert list(row) == ["id", "name", "aliases", "distribution", "version", "ready", "reason"]
            assert isinstance(row["aliases"], list)
            assert row["ready"] is (row["reason"] is None)
            assert row["name"] == TABLE.get(row["id"], row["name"])
        debug = rows[1]
        assert debug == {
            "id": 1,
            "name": "debug-device",
            "aliases": ["LAROD_CHIP_DEBUG"],
            "distribution": "acap-runtime-debug",
            "version": version("acap-runtime-debug"),
            "ready": True,
            "reason": None,
        }
        # Every chip of the table has a plugin here, and says why it cannot be used on this machine.
        cvflow = next(row for row in rows if row["id"] == 6)
        assert (cvflow["version"], cvflow["ready"]) == (version("acap-runtime-cvflow"), False)
        assert "liblarod.so.1" in cvflow["reason"]

    def test_one_whose_plugin_is_left_out_says_so(self) -> None:
        done = run("chips", "--json", "--block", "cvflow", "6")
        assert done.returncode == 1
        (row,) = json.loads(done.stdout)
        assert (row["version"], row["ready"]) == (None, False)
        assert "plugin cvflow of acap-runtime-cvflow is not used: blocked by --block" in row["reason"]

    def test_a_reader_that_has_seen_enough_is_no_error(self) -> None:
        listing = start("chips")
        listing.stdout.close()
        assert listing.wait(60) == 0
        with listing.stderr as said:
            # The image converter warns of a faulty libyuv, where the system has one.
            assert not [line for line in said if " WARNING worker cpu-proc: libyuv" not in line]

    def test_the_table_for_people_has_a_row_for_each(self) -> None:
        done = run("chips")
        assert done.returncode == 0
        heading, *lines = done.stdout.splitlines()
        assert heading.split() == ["ID", "NAME", "ALIASES", "DISTRIBUTION", "VERSION", "READY", "REASON"]
        assert [line.split()[0] for line in lines if line[0].isdigit()] == list(map(str, TABLE))
        row = r"^1 +debug-device +LAROD_CHIP_DEBUG +acap-runtime-debug +\S+ +yes +-$"
        assert re.search(row, done.stdout, re.MULTILINE)

    @pytest.mark.parametrize(
        ("words", "code", "names"),
        [
            (["1"], 0, ["debug-device"]),
            (["DEBUG-device", "larod_chip_libyuv"], 0, ["debug-device", "cpu-proc"]),
            (["11", "4"], 1, ["cpu-proc", "google-edge-tpu-tflite"]),
        ],
    )
    def test_only_those_asked_for_are_listed_and_their_readiness_is_the_exit_code(
        self, words: list[str], code: int, names: list[str]
    ) -> None:
        done = run("chips", *words, "--json")
        assert [row["name"] for row in json.loads(done.stdout)] == names
        assert done.returncode == code

    def test_one_that_nobody_knows_is_an_error(self) -> None:
        done = run("chips", "nobody")
        assert done.returncode == 1
        assert "'nobody'" in done.stderr
        assert done.stdout == ""

    @pytest.mark.parametrize("word", ["1", "Debug-Device", "larod_CHIP_debug"])
    def test_the_server_takes_number_name_or_alias_in_any_case(
        self, start_server: Callable[..., Any], word: str
    ) -> None:
        server = start_server("-j", word, ready=False)
        server.wait_for_log("worker of chip 1 (debug-device) started")

    @pytest.mark.parametrize("word", ["3", "nobody", "01"])
    def test_an_unknown_one_ends_the_start_with_the_choices(self, tmp_path: Path, word: str) -> None:
        done = run(f"-j{word}", "--socket", tmp_path / "s.sock")
        assert done.returncode == 1
        assert f"'{word}'" in done.stderr
        assert "0 (no chip), 1 debug-device, 2 cpu-tflite" in done.stderr

    def test_one_without_a_plugin_ends_the_start_with_the_reason(self, tmp_path: Path) -> None:
        done = run("-j", "LAROD_CHIP_TPU", "--block", "acap-runtime-tpu", "--socket", tmp_path / "s.sock")
        assert done.returncode == 1
        assert "plugin tpu of acap-runtime-tpu is not used: blocked by --block" in done.stderr

    def test_two_for_inference_end_the_start(self, tmp_path: Path) -> None:
        done = run("-j", "1", "-j", "2", "--socket", tmp_path / "s.sock")
        assert done.returncode == 1
        assert "chip 1 (debug-device), chip 2 (cpu-tflite)" in done.stderr


class TestPlugins:
    def test_json_says_what_each_brings(self) -> None:
        done = run("plugins", "--json")
        assert done.returncode == 0, done.stdout
        rows = {row["name"]: row for row in json.loads(done.stdout)}
        assert rows["debug"] == {
            "name": "debug",
            "distribution": "acap-runtime-debug",
            "version": version("acap-runtime-debug"),
            "chips": ["chip 1 (debug-device)"],
            "cameras": ["test-pattern", "pictures"],
            "parameters": ["debug"],
            "problem": None,
        }
        assert rows["libyuv"]["chips"] == ["chip 11 (cpu-proc)"]

    def test_the_table_for_people_says_it_too(self) -> None:
        done = run("plugins")
        assert done.returncode == 0
        headings = ["NAME", "DISTRIBUTION", "VERSION", "CHIPS", "CAMERAS", "PARAMETERS", "PROBLEM"]
        assert done.stdout.splitlines()[0].split() == headings
        debug = r"^debug +acap-runtime-debug +\S+ +chip 1 \(debug-device\) +test-pattern, pictures +debug +-$"
        assert re.search(debug, done.stdout, re.MULTILINE)

    @pytest.mark.parametrize("word", ["debug", "acap-runtime-debug"])
    def test_one_is_left_out_by_its_name_or_its_distributions(self, tmp_path: Path, word: str) -> None:
        listed = run("plugins", "--block", word, "--json")
        rows = {row["name"]: row for row in json.loads(listed.stdout)}
        assert (rows["debug"]["problem"], rows["debug"]["chips"]) == ("blocked by --block", [])
        assert listed.returncode == 0
        refused = run("-j", "1", "--block", word, "--socket", tmp_path / "s.sock")
        assert refused.returncode == 1
        assert "plugin debug of acap-runtime-debug is not used: blocked by --block" in refused.stderr

    def test_an_image_that_needs_a_converter_that_is_left_out_is_refused_with_what_to_install(
        self, start_server: Callable[..., Any], tmp_path: Path
    ) -> None:
        path = tmp_path / "image.toml"
        path.write_text('inputs = [{name = "image", shape = [1, 8, 8, 3]}]')
        server = start_server("-j", "1", "-m", f"image={path}", "--block", "libyuv", "--block", "opencl")
        with server.client() as client:
            with pytest.raises(grpc.RpcError) as caught:
                client.predict("image", {"data": np.zeros((1, 9, 9, 3), np.uint8)})
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "acap-runtime-libyuv" in caught.value.details()
            assert client.predict("image", {"data": np.zeros((1, 8, 8, 3), np.uint8)})


BACKEND = """
import acap_runtime as acap
import numpy as np

class Model(acap.Model):
    inputs = outputs = (acap.TensorSpec("data", np.dtype("uint8"), (-1,)),)

    def run(self, inputs):
        return {{"data": inputs["data"] + 1}}

    def close(self):
        pass

class Fake(acap.InferenceBackend):
    chip_id, name, aliases = {chip_id}, "{name}", ()

    def probe(self):
        {probe}

    def load(self, path, options):
        return Model()

@acap.hookimpl
def acap_runtime_backends():
    return [Fake()]
"""


def _plugin(folder: Path, name: str, code: str) -> None:
    """A distribution of this name, as pip would leave it, with one plugin."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    metadata = folder / f"{module}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(f"[acap_runtime]\nplugin-of-{name} = {module}\n")


def _backend(name: str, probe: str = "pass", chip_id: int | None = None) -> str:
    return BACKEND.format(name=name, probe=probe, chip_id=chip_id)


def _python_path(folder: Path, **more: str) -> dict[str, str]:
    return {"PYTHONPATH": str(folder), **more}


FAULTY_PLUGINS = {
    "fake-import": ("raise RuntimeError('no luck today')", "RuntimeError: no luck today"),
    "fake-syntax": ("def", "SyntaxError"),
    "fake-dependency": ("import nobody_has_this", "nobody_has_this"),
    "fake-exit": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "fake-hook": (
        "import acap_runtime as acap\n@acap.hookimpl\ndef acap_runtime_nobody(): pass",
        "acap_runtime_nobody",
    ),
    "fake-junk": (
        "import acap_runtime as acap\n@acap.hookimpl\ndef acap_runtime_backends(): return ['junk']",
        "expected InferenceBackend or ProcessingBackend objects, got 'junk'",
    ),
    "fake-number": (
        "import acap_runtime as acap\n@acap.hookimpl\ndef acap_runtime_backends(): return 5",
        "TypeError",
    ),
    "fake-raise": (
        "import acap_runtime as acap\n@acap.hookimpl\ndef acap_runtime_backends(): return 1 / 0",
        "ZeroDivisionError",
    ),
    "fake-nameless": (_backend(""), "Fake.name: expected larod's device name, got ''"),
}
FAULTY_CHIPS = {
    "fake-segfault": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "fake-hang": ("import time; time.sleep(3600)", "its probe did not end within 20 s"),
    "fake-absent": ("raise acap.NotReady('/dev/fake does not exist')", "is not ready: /dev/fake does not exist"),
    "fake-surprise": ("raise KeyError('surprise')", "KeyError: 'surprise'"),
    "fake-leave": ("import os; os._exit(7)", "exit code 7"),
}


@pytest.fixture(scope="module")
def mark() -> str:
    """In the environment of everything that is started here."""
    return f"command-line-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    for name, (code, _) in FAULTY_PLUGINS.items():
        _plugin(folder, name, code)
    for name, (probe, _) in FAULTY_CHIPS.items():
        _plugin(folder, name, _backend(f"chip-of-{name}", probe))
    _plugin(folder, "fake-good", _backend("chip-of-fake-good"))
    return folder


@pytest.fixture(scope="module")
def faulty(folder: Path, mark: str) -> dict[str, str]:
    return _python_path(folder, ACAP_TEST_MARK=mark)


@pytest.fixture(scope="module", autouse=True)
def listing(faulty: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    # Takes as long as the probe that hangs may, so it goes on beside the other tests.
    with start("chips", "--json", environment=faulty) as process:
        yield process
        if process.poll() is None:
            process.kill()


class TestFaultyPlugins:
    def test_each_is_listed_with_its_reason_beside_those_that_work(self, faulty: dict[str, str]) -> None:
        done = run("plugins", "--json", environment=faulty)
        rows = {row["distribution"]: row for row in json.loads(done.stdout)}
        assert done.returncode == 1
        for name, (_, reason) in FAULTY_PLUGINS.items():
            row = rows[name]
            assert (row["name"], row["version"], row["chips"]) == (f"plugin-of-{name}", "1.2", [])
            assert reason in row["problem"]
        assert rows["fake-good"]["chips"] == ["chip chip-of-fake-good"]
        assert rows["fake-good"]["problem"] is None
        assert rows["acap-runtime-debug"]["problem"] is None

    def test_those_left_out_do_not_count_as_faults(self, faulty: dict[str, str]) -> None:
        blocked = [word for name in FAULTY_PLUGINS for word in ("--block", name)]
        assert run("plugins", *blocked, environment=faulty).returncode == 0

    def test_the_server_starts_without_them_and_says_why(
        self, start_server: Callable[..., Any], faulty: dict[str, str], echo: Path
    ) -> None:
        server = start_server("-j", "chip-of-FAKE-good", "-m", f"one={echo}", environment=faulty)
        with server.client() as client:
            assert client.predict("one", {"data": THREE})["data"].tolist() == [2, 3, 4]
        for name, (_, reason) in FAULTY_PLUGINS.items():
            assert re.search(
                rf"WARNING plugin plugin-of-{name} of {name} is not used: .*{re.escape(reason)}", server.log
            )

    @pytest.mark.parametrize("name", [name for name in FAULTY_CHIPS if name != "fake-hang"])
    def test_a_chip_that_is_not_ready_ends_the_start_with_the_reason(
        self, faulty: dict[str, str], tmp_path: Path, name: str
    ) -> None:
        done = run("-j", f"chip-of-{name}", "--socket", tmp_path / "s.sock", environment=faulty)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"acapruntime: error: chip chip-of-{name} is not ready: ")
        assert FAULTY_CHIPS[name][1] in last
        assert not (tmp_path / "s.sock").exists()

    def test_a_chip_that_is_not_ready_is_told_to_the_calls_that_wait_for_it(
        self, start_server: Callable[..., Any], tmp_path: Path, echo: Path
    ) -> None:
        _plugin(tmp_path, "fake-late", _backend("late", "import time; time.sleep(1); raise acap.NotReady('no luck')"))
        server = start_server(
            *("-j", "late", "-m", f"one={echo}", "--grace", "5"), environment=_python_path(tmp_path), ready=False
        )
        server.wait_for_log("listening")  # a call that comes before waits a second until it tries again
        with server.client() as client, pytest.raises(grpc.RpcError) as caught:
            client.predict("one", {"data": THREE})
        failed = time.monotonic()
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "no luck" in caught.value.details()
        assert server.process.wait(20) == 1
        assert time.monotonic() - failed < 3

    def test_a_plugin_that_talks_does_not_talk_into_json(self, tmp_path: Path) -> None:
        talk = "import os; print('hello'); os.write(1, b'hello')"
        _plugin(tmp_path, "fake-talker", f"{talk}\n{_backend('talker', talk)}")
        for words in (["plugins"], ["chips", "talker"]):
            done = run(*words, "--json", environment=_python_path(tmp_path))
            assert "talker" in str(json.loads(done.stdout))
            assert done.returncode == 0

    def test_each_chip_is_listed_with_its_reason_and_no_probe_outlives_it(
        self, listing: subprocess.Popen[str], mark: str
    ) -> None:
        done = finished(listing)
        assert done.returncode == 0
        rows = {row["name"]: row for row in json.loads(done.stdout)}
        for name, (_, reason) in FAULTY_CHIPS.items():
            row = rows[f"chip-of-{name}"]
            assert (row["id"], row["distribution"], row["version"], row["ready"]) == (None, name, "1.2", False)
            assert reason in row["reason"]
        assert rows["chip-of-fake-good"]["ready"]
        assert rows["debug-device"]["ready"]
        assert _marked(mark) == []


def _marked(mark: str) -> list[int]:
    """The processes with a mark in their environment."""
    found = []
    for each in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in each.read_bytes():
                found.append(int(each.parent.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


class TestRivals:
    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        folder = tmp_path / "plugins"
        folder.mkdir()
        _plugin(folder, "rival", _backend("rival-device", chip_id=1))
        return _python_path(folder)

    def test_only_the_chip_that_both_claim_is_refused_naming_both(self, environment: dict[str, str]) -> None:
        done = run("chips", "--json", environment=environment)
        rows = json.loads(done.stdout)
        claimed = [row for row in rows if row["id"] == 1]
        assert sorted(row["distribution"] for row in claimed) == ["acap-runtime-debug", "rival"]
        for row in claimed:
            assert not row["ready"]
            assert "acap-runtime-debug (plugin debug) and rival (plugin plugin-of-rival)" in row["reason"]
            assert "--block" in row["reason"]
        assert next(row for row in rows if row["id"] == 11)["ready"]

    @pytest.mark.parametrize("word", ["1", "rival-device", "debug-device"])
    def test_the_start_ends_naming_both_and_the_way_out(
        self, environment: dict[str, str], tmp_path: Path, word: str
    ) -> None:
        done = run("-j", word, "--socket", tmp_path / "s.sock", environment=environment)
        assert done.returncode == 1
        assert all(each in done.stderr for each in ("acap-runtime-debug", "rival", "--block"))

    @pytest.mark.parametrize(
        ("blocked", "answer"), [("rival", [1, 2, 3]), ("plugin-of-rival", [1, 2, 3]), ("debug", [2, 3, 4])]
    )
    def test_the_one_that_is_not_left_out_has_it(
        self,
        start_server: Callable[..., Any],
        environment: dict[str, str],
        echo: Path,
        blocked: str,
        answer: list[int],
    ) -> None:
        server = start_server("-j", "1", "--block", blocked, "-m", f"one={echo}", environment=environment)
        with server.client() as client:
            assert client.predict("one", {"data": THREE})["data"].tolist() == answer
