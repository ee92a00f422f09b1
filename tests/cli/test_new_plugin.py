"""``acapruntime new-plugin``: what it writes is installed, tested and served as it stands."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import acap_runtime
import environments
import numpy as np
import pytest
from acap_runtime.client import connect
from surprises import surprises

COMMAND = Path(sys.executable).with_name("acapruntime")
KINDS = ("inference", "processing", "camera", "parameters")


def command(*words: object, folder: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACAPRUNTIME_")}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    return subprocess.run(
        [COMMAND, *map(str, words)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@dataclass
class Plugin:
    kind: str
    name: str
    folder: Path
    site: Path
    said: str

    @property
    def package(self) -> str:
        return f"acap_runtime_{self.name.replace('-', '_')}"


@pytest.fixture(scope="module", params=KINDS)
def plugin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    """A new plugin of each kind, and its installation in a folder that PYTHONPATH can name."""
    kind, name = request.param, f"acme-{request.param}2"
    root = tmp_path_factory.mktemp(kind)
    done = command("new-plugin", name, *(["--kind", kind] if kind != "inference" else []), folder=root)
    assert done.returncode == 0, done.stderr
    folder = root / f"acap-runtime-{name}"
    environments.install_alone(folder, root / "site")
    return Plugin(kind, name, folder, root / "site", done.stdout)


def test_it_is_a_whole_distribution(plugin: Plugin) -> None:
    files = {str(path.relative_to(plugin.folder)) for path in plugin.folder.rglob("*") if path.is_file()}
    main = {"camera": "camera", "parameters": "store"}.get(plugin.kind, "backend")
    package = f"src/{plugin.package}"
    assert files == {
        *("pyproject.toml", "README.md", ".gitignore", ".github/workflows/test.yml"),
        *(f"{package}/{name}" for name in ("__init__.py", f"{main}.py", "driver.py", "py.typed")),
        f"tests/test_{plugin.name.replace('-', '_')}.py",
    }
    for name in files:
        assert "@@" not in (plugin.folder / name).read_text(), name
    project = tomllib.loads((plugin.folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["acap_runtime"] == {plugin.name: plugin.package}
    assert "acap-runtime>=0.1,<0.2" in project["dependencies"]
    assert "# DRIVER:" in (plugin.folder / package / "driver.py").read_text()


def test_it_says_what_to_do_next(plugin: Plugin) -> None:
    for step in (f"cd acap-runtime-{plugin.name}", "pip install -e", "pytest", "DRIVER:"):
        assert step in plugin.said


def test_its_own_tests_pass(plugin: Plugin, assert_tests_pass: Callable[..., None]) -> None:
    assert_tests_pass(plugin.folder / "tests", environment={"PYTHONPATH": str(plugin.site)})


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy knows of the packages that all these plugins import."""
    return tmp_path_factory.mktemp("mypy")


def test_it_passes_ruff_and_mypy_with_its_own_settings(plugin: Plugin, analysed: Path) -> None:
    environment = {**os.environ, "MYPY_CACHE_DIR": str(analysed)}
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        words = [*tool, "."] if tool[0] == "ruff" else tool
        analysis = [sys.executable, "-m", *words]
        done = subprocess.run(analysis, cwd=plugin.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_uses_nothing_but_the_contract(plugin: Plugin) -> None:
    for path in (plugin.folder / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "acap":
                assert node.attr in acap_runtime.__all__, f"{path}:{node.lineno}: acap.{node.attr}"


def test_the_doctor_finds_nothing_wrong(plugin: Plugin, tmp_path: Path) -> None:
    done = command("doctor", plugin.name, "--json", folder=tmp_path, site=plugin.site)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout)["plugins"]
    assert (found["plugin"], found["broken"]) == (plugin.name, False)
    results = {check["check"]: check["result"] for check in found["checks"]}
    assert results["import"] == results["version"] == "ok"
    if plugin.kind == "processing":
        assert results["smoke"] == "ok"


def rows(plugin: Plugin, folder: Path, *words: object) -> Sequence[dict[str, Any]]:
    done = command(*words, "--json", folder=folder, site=plugin.site)
    assert done.returncode == 0, done.stdout + done.stderr
    listed: list[dict[str, Any]] = json.loads(done.stdout)
    return listed


def test_it_is_served(plugin: Plugin, tmp_path: Path, start_server: Callable[..., Any]) -> None:
    environment = {"PYTHONPATH": str(plugin.site)}
    if plugin.kind in ("inference", "processing"):
        (row,) = rows(plugin, tmp_path, "chips", plugin.name)
        assert (row["name"], row["distribution"], row["ready"]) == (plugin.name, f"acap-runtime-{plugin.name}", True)
    match plugin.kind:
        case "inference":
            code = f"from {plugin.package}.driver import example; import sys; sys.stdout.buffer.write(example())"
            made = subprocess.run(
                [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, check=True
            )
            (tmp_path / "example.model").write_bytes(made.stdout)
            model = f"example={tmp_path}/example.model,power=low"
            server = start_server("-j", plugin.name, "-m", model, environment=environment)
            with server.client() as client:
                outputs = client.predict("example", {"data": np.array([[1, 1, 1, 1]], np.uint8)})
            assert outputs["scores"].tolist() == [[1, 2, 3, 4]]
        case "processing":
            image = tmp_path / "image.toml"
            image.write_text('inputs = [{name = "image", shape = [1, 8, 8, 3]}]')
            chips = ("-j", "1", "-j", plugin.name)
            server = start_server(*chips, "-m", f"image={image}", environment=environment)
            with server.client() as client:
                outputs = client.predict("image", {"image": np.full((1, 20, 30, 3), 7, np.uint8)})
            assert outputs["image"].shape == (1, 8, 8, 3)
            assert (outputs["image"] == 7).all()
        case "camera":
            (row,) = rows(plugin, tmp_path, "cameras", f"{plugin.name}:0")
            assert row["ready"], row["reason"]
            server = start_server("--camera", plugin.name, environment=environment)
            with connect(server.address) as client, client.stream("rgb-interleaved", 64, 48, framerate=20) as stream:
                frame = stream.frame()
            assert len(frame.data) == 64 * 48 * 3
        case "parameters":
            server = start_server("--parameters", plugin.name, environment=environment)
            with connect(server.address) as client:
                assert client.parameter("root.Brand.Brand") == plugin.name


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "kept").write_text("mine")
    done = command("new-plugin", "acme", "--folder", folder, folder=tmp_path)
    assert done.returncode == 1
    assert f"{folder} is not empty" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in ("file", "file/below"):
        done = command("new-plugin", "acme", "--folder", folder, folder=tmp_path)
        assert done.returncode == 1
        assert "cannot be written" in done.stderr
        assert not surprises(done.stderr)


@pytest.mark.parametrize(
    "name", ["", "Acme", "2acme", "acme_npu", "acme--npu", "-x", "acme npu", "acme/x", "é", "a" * 31]
)
def test_a_name_that_pip_or_python_would_not_take_is_refused(tmp_path: Path, name: str) -> None:
    done = command("new-plugin", f"--folder={tmp_path}/new", "--", name, folder=tmp_path)
    assert done.returncode == 1
    assert "such as acme-npu" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["none", "cpu-tflite", "tpu", "acap-runtime-libyuv"])
def test_the_name_of_a_chip_of_the_table_is_refused(tmp_path: Path, name: str) -> None:
    done = command("new-plugin", name, folder=tmp_path)
    assert done.returncode == 1
    assert "choose another" in done.stderr


def test_a_distributions_name_means_the_plugin(tmp_path: Path) -> None:
    assert command("new-plugin", "acap-runtime-acme", folder=tmp_path).returncode == 0
    assert (tmp_path / "acap-runtime-acme" / "src" / "acap_runtime_acme").is_dir()
