"""``acapruntime doctor``: what it finds of plugins that are right, and of those that are wrong in every way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

COMMAND = Path(sys.executable).with_name("acapruntime")

CHIP = """
import acap_runtime as acap
import numpy as np

class Model(acap.Model):
    inputs = (acap.TensorSpec("data", np.dtype("float32"), (1, -1)),)
    outputs = (acap.TensorSpec("answer", np.dtype("float32"), (1, -1)),)

    def run(self, inputs):
        {run}
        return {{"answer": inputs["data"]}}

class Fake(acap.InferenceBackend):
    chip_id, name, aliases = None, "{name}", ()

    def probe(self):
        {probe}

    def load(self, path, options):
        return Model()

@acap.hookimpl
def acap_runtime_backends():
    return [Fake()]
"""

CONVERTER = """
import acap_runtime as acap
import numpy as np

class Model(acap.Model):
    def __init__(self, conversion):
        self.inputs, self.outputs, self.conversion = conversion.inputs, conversion.outputs, conversion

    def run(self, inputs):
        return {{"output": np.full(self.conversion.output.shape, 77, np.uint8)}}

class Fake(acap.ProcessingBackend):
    chip_id, name, aliases = None, "{name}", ()

    def probe(self):
        pass

    def prepare(self, conversion):
        {prepare}
        return Model(conversion)

@acap.hookimpl
def acap_runtime_backends():
    return [Fake()]
"""


def chip(name: str, probe: str = "pass", run: str = "pass") -> str:
    return CHIP.format(name=name, probe=probe, run=run)


def install(folder: Path, name: str, code: str, requires: str = "acap-runtime<0.2,>=0.1") -> None:
    """A distribution with one plugin, as pip would leave it."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    metadata = folder / f"{module}-1.2.dist-info"
    metadata.mkdir()
    line = f"Requires-Dist: {requires}\n" if requires else ""
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n{line}")
    (metadata / "entry_points.txt").write_text(f"[acap_runtime]\n{name} = {module}\n")


def start(*words: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ACAPRUNTIME_")}
    return subprocess.Popen(
        [COMMAND, "doctor", *map(str, words)],
        env={**clean, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, error = process.communicate(timeout=100)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def run(*words: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    with start(*words, environment=environment) as process:
        return finished(process)


def examined(*words: object, environment: Mapping[str, str] | None = None) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings of each plugin by its name or, where it has none, its distribution's."""
    return understood(run(*words, "--json", environment=environment))


def understood(done: subprocess.CompletedProcess[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert said["ok"] is (done.returncode == 0)
    return done.returncode, {each["plugin"] or each["distribution"]: each for each in said["plugins"]}


def results(found: Mapping[str, Any]) -> dict[str, str]:
    return {check["check"]: check["result"] for check in found["checks"]}


def detail(found: Mapping[str, Any], check: str) -> str:
    return next(each["detail"] for each in found["checks"] if each["check"] == check)


class TestRightPlugins:
    def test_a_converter_is_examined_to_its_pictures(self) -> None:
        code, found = examined("11")
        assert code == 0
        assert list(found) == ["libyuv"]
        assert results(found["libyuv"]) == dict.fromkeys(("import", "version", "probe", "libraries", "smoke"), "ok")
        assert "nv12 320x240 to rgb-interleaved 320x240 is right" in detail(found["libyuv"], "smoke")
        (libraries,) = (check["libraries"] for check in found["libyuv"]["checks"] if check["check"] == "libraries")
        (libyuv,) = (each for each in libraries if "/libyuv.so" in each["file"])
        assert libyuv["version"]
        assert libyuv["version"][0].isdigit()
        (cffi,) = (each for each in libraries if "_cffi_backend" in each["file"])
        assert cffi["version"].startswith("cffi ")
        assert not [each for each in libraries if "numpy" in each["file"] or "lib-dynload" in each["file"]]

    def test_a_model_runs_once_where_one_is_given(self, tmp_path: Path) -> None:
        _, found = examined("1")
        assert (results(found["debug"])["smoke"], detail(found["debug"], "smoke")) == (
            "skipped",
            "give --model FILE to run one",
        )
        (tmp_path / "echo.toml").touch()
        code, found = examined("1", "--model", tmp_path / "echo.toml")
        assert code == 0
        assert "echo.toml ran on zeros" in detail(found["debug"], "smoke")
        assert "data uint8 [1]" in detail(found["debug"], "smoke")

    def test_a_model_that_a_named_chip_does_not_load_is_a_failure(self, tmp_path: Path) -> None:
        (tmp_path / "bad.toml").write_text("no = toml")
        code, found = examined("1", "--model", tmp_path / "bad.toml")
        assert code == 1
        assert results(found["debug"])["smoke"] == "failed"
        code, found = examined("1", "--model", tmp_path / "none.toml")
        assert "expected a model file, found none" in detail(found["debug"], "smoke")

    @pytest.mark.parametrize(
        ("fault", "said"),
        [("fail", "told to fail"), ("raise", "RuntimeError"), ("crash", "SIGSEGV"), ("exit", "exit code 3")],
    )
    def test_a_model_that_the_chip_fails_at_is_a_failure(self, tmp_path: Path, fault: str, said: str) -> None:
        (tmp_path / "fault.toml").write_text(f'{fault} = "run"')
        code, found = examined("1", "--model", tmp_path / "fault.toml")
        assert code == 1
        assert said in detail(found["debug"], "smoke")

    def test_without_names_it_examines_every_plugin(self) -> None:
        code, found = examined()
        assert code == 0, found
        assert {"debug", "libyuv", "tflite-cpu"} <= found.keys()
        assert not any(each["broken"] for each in found.values())

    def test_a_chip_that_is_not_there_counts_only_where_it_is_named(self) -> None:
        code, found = examined("LAROD_CHIP_CVFLOW_NN", "1")
        assert code == 1
        assert found["cvflow"]["broken"]
        assert "liblarod.so.1" in detail(found["cvflow"], "probe")
        assert not found["debug"]["broken"]

    def test_a_chip_whose_plugin_is_left_out_is_reported_by_its_distribution(self) -> None:
        code, found = examined("--block", "cvflow", "6")
        assert code == 1
        assert "blocked by --block" in detail(found["acap-runtime-cvflow"], "import")

    def test_the_report_for_people_says_it_too(self) -> None:
        done = run("11", "6")
        assert done.returncode == 1
        lines = done.stdout.splitlines()
        assert lines[0].startswith("acap-runtime-libyuv ")
        assert any(line.split()[:2] == ["ok", "import"] for line in lines)
        assert any("not ready" in line and "liblarod.so.1" in line for line in lines)
        assert lines[-1] == "broken: cvflow"

    def test_what_nobody_knows_is_an_error(self) -> None:
        done = run("nobody")
        assert (done.returncode, done.stdout) == (1, "")
        assert "'nobody' is unknown" in done.stderr


class TestCameras:
    def test_those_that_are_configured_are_probed(self) -> None:
        done = run("--camera", "good=test-pattern", "--camera", "bad=pictures:/no/such/folder", "1", "--json")
        assert done.returncode == 1
        checks = {check["about"]: check for each in json.loads(done.stdout)["plugins"] for check in each["checks"]}
        assert checks["camera good"]["result"] == "ok"
        assert checks["camera bad"]["result"] == "not ready"
        assert "/no/such/folder" in checks["camera bad"]["detail"]

    def test_a_source_that_no_plugin_opens_is_said(self) -> None:
        done = run("--camera", "bad=nobody:x", "1")
        assert done.returncode == 1
        assert "no plugin here opens 'nobody:x'" in done.stdout


WRONG = {
    "fake-raise": ("raise RuntimeError('no luck today')", "import", "failed", "RuntimeError: no luck today"),
    "fake-crash": ("import ctypes; ctypes.string_at(0)", "import", "failed", "SIGSEGV"),
    "fake-leave": ("import os; os._exit(0)", "import", "failed", "exit code 0"),
    "fake-exit": ("import sys; sys.exit(3)", "import", "failed", "SystemExit: 3"),
    "fake-stuck": ("import time; time.sleep(3600)", "import", "failed", "does not end within 20 s"),
    "fake-segfault": (chip("segfault", "import ctypes; ctypes.string_at(0)"), "probe", "failed", "SIGSEGV"),
    "fake-hang": (chip("hang", "import time; time.sleep(3600)"), "probe", "failed", "does not end within 20 s"),
    "fake-absent": (
        chip("absent", "raise acap.NotReady('/dev/x: permission denied; join group x')"),
        *("probe", "not ready", "/dev/x: permission denied; join group x"),
    ),
    "fake-surprise": (chip("surprise", "raise KeyError('oh')"), "probe", "failed", "KeyError: 'oh'"),
    "fake-print": (f"print('junk')\n{chip('print', 'print(1)')}", "probe", "ok", "ready"),
    "fake-grey": (CONVERTER.format(name="grey", prepare="pass"), "smoke", "failed", "expected about (255, 0, 0)"),
    "fake-picky": (
        CONVERTER.format(name="picky", prepare="raise acap.InvalidRequest('only 1x1')"),
        *("smoke", "skipped", "only 1x1"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def examining(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The examination where plugins are installed that are wrong in every way, beside the project's own: it waits for
    two of them for 20 s each, and goes on beside this module's other tests meanwhile.
    """
    folder = tmp_path_factory.mktemp("plugins")
    for name, (code, *_) in WRONG.items():
        install(folder, name, code)
    with start("--json", environment={"PYTHONPATH": str(folder)}) as process:
        yield process, folder
        process.kill()


@pytest.fixture(scope="module")
def wrong(examining: tuple[subprocess.Popen[str], Path]) -> tuple[int, dict[str, dict[str, Any]], Path]:
    """What is found of the wrong ones."""
    process, folder = examining
    return *understood(finished(process)), folder


class TestWrongPlugins:
    @pytest.mark.timeout(200)
    @pytest.mark.parametrize("name", WRONG)
    def test_what_is_wrong_is_said(self, wrong: tuple[int, dict[str, dict[str, Any]], Path], name: str) -> None:
        _, check, result, said = WRONG[name]
        found = wrong[1][name]
        assert results(found)[check] == result
        assert said in detail(found, check)
        assert found["broken"] is (result == "failed")

    def test_the_others_are_examined_all_the_same(self, wrong: tuple[int, dict[str, dict[str, Any]], Path]) -> None:
        code, found, _ = wrong
        assert code == 1
        assert results(found["libyuv"])["smoke"] == "ok"

    def test_a_chip_that_is_missing_its_device_counts_where_it_is_named(
        self, wrong: tuple[int, dict[str, dict[str, Any]], Path]
    ) -> None:
        blocked = [word for name in WRONG if name != "fake-absent" for word in ("--block", name)]
        code, found = examined("absent", *blocked, environment={"PYTHONPATH": str(wrong[2])})
        assert code == 1
        assert found["fake-absent"]["broken"]

    def test_a_plugin_is_named_by_its_own_name_where_its_import_fails(
        self, wrong: tuple[int, dict[str, dict[str, Any]], Path]
    ) -> None:
        blocked = [word for name in WRONG if name != "fake-raise" for word in ("--block", name)]
        code, found = examined("fake-raise", *blocked, environment={"PYTHONPATH": str(wrong[2])})
        assert code == 1
        assert "--block fake-raise" in detail(found["fake-raise"], "import")


def test_a_version_that_does_not_fit_is_a_failure_and_the_plugin_is_not_imported(tmp_path: Path) -> None:
    install(tmp_path, "fake-old", "import os; os._exit(3)", "acap-runtime>=7")
    install(tmp_path, "fake-silent", chip("silent"), "")
    code, found = examined("fake-old", "silent", environment={"PYTHONPATH": str(tmp_path)})
    assert code == 1
    assert (results(found["fake-old"]), found["fake-old"]["broken"]) == (
        {"import": "skipped", "version": "failed"},
        True,
    )
    assert "needs acap-runtime>=7, and 0." in detail(found["fake-old"], "version")
    assert "pip install --upgrade fake-old" in detail(found["fake-old"], "version")
    assert (results(found["fake-silent"])["version"], found["fake-silent"]["broken"]) == ("unknown", False)


def test_two_that_claim_one_chip_are_both_refused(tmp_path: Path) -> None:
    install(tmp_path, "fake-rival", chip("cpu-tflite"))
    code, found = examined("cpu-tflite", environment={"PYTHONPATH": str(tmp_path)})
    assert code == 1
    assert "claimed more than once" in json.dumps(found)


def test_a_model_that_gives_no_numbers_is_a_failure(tmp_path: Path) -> None:
    install(tmp_path, "fake-nan", chip("nan", run="return {'answer': inputs['data'] / 0}"))
    (tmp_path / "model").touch()
    code, found = examined("nan", "--model", tmp_path / "model", environment={"PYTHONPATH": str(tmp_path)})
    assert code == 1
    assert "is not finite" in detail(found["fake-nan"], "smoke")
