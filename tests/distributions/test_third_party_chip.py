"""A chip from elsewhere: its distribution, outside `plugins/`, is installed beside core alone, and serves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import environments
import grpc
import numpy as np
import pytest
from surprises import surprises

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "third_party_chip"
TABLE = bytes(range(255, -1, -1))

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vendor's library."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here to build the vendor's library")
    path = tmp_path_factory.mktemp("vendor") / "libacme.so.1"
    command = ["gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-o", path]
    subprocess.run([*command, EXAMPLE / "vendor" / "acme.c"], check=True)
    return path


@pytest.fixture(scope="module")
def installed(library: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The Python of a fresh virtual environment with core and the plugin, and the plugin's tests without its source."""
    folder = tmp_path_factory.mktemp("third_party")
    environments.build_wheel(ROOT / "core", folder)
    plugin = environments.build_wheel(EXAMPLE, folder)
    python = environments.make(folder / "venv", f"{plugin}[testing]", find_links=folder)
    shutil.copytree(EXAMPLE / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {"ACME_LIBRARY": str(library), "ACAPRUNTIME_REQUIRE_HARDWARE": "1"}
    return SimpleNamespace(python=python, tests=folder / "tests", environment=environment)


@pytest.fixture
def start(installed: SimpleNamespace, start_server):
    """Starts the runtime of that virtual environment."""

    def start_there(*arguments: object, library: str | None = None, ready: bool = True):
        environment = installed.environment if library is None else {"ACME_LIBRARY": library}
        return start_server(*arguments, environment=environment, through=[str(installed.python)], ready=ready)

    return start_there


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "invert.acme"
    path.write_bytes(b"ACME" + TABLE)
    return path


def test_the_plugin_passes_its_own_tests(installed: SimpleNamespace, assert_tests_pass) -> None:
    assert_tests_pass(installed.tests, installed.python, installed.environment)


@pytest.mark.parametrize("chip", ["acme-npu", "ACME_NPU"])
def test_the_chip_answers_what_its_library_computes(start, model: Path, chip: str) -> None:
    server = start("-j", chip, "-m", f"model={model},speed=low")
    with server.client() as client:
        outputs = client.predict("model", {"data": np.array([[0, 1, 2, 255]], np.uint8)})
    assert list(outputs) == ["replaced"]
    assert outputs["replaced"].tolist() == [[255, 254, 253, 0]]


def test_a_broken_model_file_is_the_clients_mistake(start, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.acme"
    broken.write_bytes(b"ACME" + TABLE[:100])
    server = start("-j", "acme-npu", "-m", f"model={model}")
    data = {"data": np.array([[7]], np.uint8)}
    with server.client() as client:
        with pytest.raises(grpc.RpcError) as refusal:
            client.predict(str(broken), data)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert 'broken.acme: expected a model file, "ACME" and 256 bytes' in refusal.value.details()
        assert client.predict("model", data)["replaced"].tolist() == [[248]]


@pytest.mark.parametrize("missing", ["", "/nowhere/libacme.so.1"])
def test_without_the_library_the_start_fails_and_says_what_to_do(start, model: Path, missing: str) -> None:
    server = start("-j", "acme-npu", "-m", f"model={model}", library=missing, ready=False)
    assert server.process.wait(60) > 0
    assert "libacme.so.1: cannot open shared object file" in server.log
    assert "install Acme's SDK, or name its file in ACME_LIBRARY" in server.log
    assert not surprises(server.log)
