"""Who imports whom, and what an import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import acap_runtime
import acap_runtime.client
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core" / "src" / "acap_runtime"
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
PACKAGES = [f"acap_runtime_{folder.name}" for folder in PLUGINS]

FLOORS = [
    {"errors", "proto"},
    {"contract"},
    {"settings", "plugins", "link"},
    {"wire", "chips", "stores", "worker", "answers"},
    {"client", "trials", "video"},
    {"models"},
    {"services"},
    {"front"},
    {"cli"},
]
"""The core's folders. Each imports from the floors below its own."""

MOST_MODULES = 12
"""In one folder, so that its list is read at a glance. The compliance kit has a module for each contract and check."""

OUTSIDE = {"", "testing"}
"""What plugin authors import: the package itself, and the compliance kit, which none of the others import."""

EXTRAS = {
    "stores.vapix": "vapix",
    "trials.picture_files": "images",
    "cli.predict.drawing": "images",
    "cli.predict.command": "images",
    "models.watching": "watch",
}
"""Modules that need an extra of the core, which nothing but a choice of the operator imports."""

GRPC = ("grpc", "grpc_health", "grpc_reflection")
TRANSPORT = (*GRPC, "google", "acap_runtime.proto")


def sources(folder: Path) -> Iterator[tuple[str, Path]]:
    """The modules in a package's folder, by their names relative to it."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path, package: str = "") -> set[str]:
    """Everything that a file imports, wherever in it, as full names of modules or of things in them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute here"
            assert node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


CORE_MODULES = dict(sources(CORE))


def core_imports(path: Path) -> set[str]:
    """The modules of the core that a file imports."""
    found = set()
    for name in imported(path):
        if name == "acap_runtime" or name.startswith("acap_runtime."):
            words = name.split(".")[1:]
            while words and ".".join(words) not in CORE_MODULES:
                words.pop()
            found.add(".".join(words))
    return found


def folder(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def floor(module: str) -> int:
    floors = [number for number, row in enumerate(FLOORS) if folder(module) in row]
    assert floors, f"acap_runtime/{folder(module)} is new: say in FLOORS where it stands"
    return floors[0]


def is_testing(module: str) -> bool:
    return folder(module) == "testing"


@pytest.mark.parametrize("module", [name for name in CORE_MODULES if name and not is_testing(name)])
def test_the_cores_imports_run_one_way(module: str) -> None:
    for other in core_imports(CORE_MODULES[module]) - {module}:
        assert other not in OUTSIDE, f"acap_runtime.{module} imports what is for plugin authors"
        assert not is_testing(other)
        assert folder(other) == folder(module) or floor(other) < floor(module), f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({name: core_imports(path) - {name, ""} for name, path in CORE_MODULES.items()}).prepare()


def test_every_folder_has_a_floor_and_few_modules() -> None:
    assert {folder(name) for name in CORE_MODULES} == {"", "testing"}.union(*FLOORS)
    assert {path.stem for path in CORE.glob("*.py")} == {"__init__", "errors"}, "no other module lies flat"
    for place in {path.parent for path in CORE_MODULES.values()} - {CORE, CORE / "testing"}:
        assert len(list(place.glob("[!_]*.py"))) <= MOST_MODULES, f"{place.name} is too full"


def test_the_design_shows_every_module_in_its_folder() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    (tree,) = re.findall(r"^core/src/acap_runtime/\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shown, place = set(), ""
    for line in tree.splitlines():
        if found := re.match(r"  ([\w/]+)/ ", line):
            place = f"{found[1]}/"
        elif re.match(r"  \w", line):
            place = ""
        shown |= {place + name for name in re.findall(r"(?<![\w/-])\w+\.py(?!:)", line)}
    files = {str(path.relative_to(CORE)) for path in CORE_MODULES.values()}
    assert shown == {name for name in files if not name.startswith("testing/") and not name.endswith("/__init__.py")}


def test_the_contract_is_found_where_it_was_published() -> None:
    code = "import acap_runtime.backend, acap_runtime.camera, acap_runtime.parameters as p; print(p.ParameterStore)"
    assert "acap_runtime.contract.parameter_store.ParameterStore" in run_python(code)


def test_the_package_gives_plugin_authors_the_contract_and_nothing_else() -> None:
    assert {folder(name) for name in core_imports(CORE_MODULES[""])} == {"errors", "contract"}
    names = {name.rpartition(".")[2] for name in imported(CORE_MODULES[""])} - {"sys"}
    assert names == set(acap_runtime.__all__)


@pytest.mark.parametrize("module", [name for name in CORE_MODULES if is_testing(name)])
def test_the_compliance_kit_uses_what_plugin_authors_have(module: str) -> None:
    assert all(other == "" or is_testing(other) for other in core_imports(CORE_MODULES[module]))
    for name in imported(CORE_MODULES[module]):
        if name.startswith("acap_runtime.") and not name.startswith("acap_runtime.testing"):
            assert name.removeprefix("acap_runtime.") in acap_runtime.__all__


@pytest.mark.parametrize("module", CORE_MODULES)
def test_the_core_imports_no_plugin_and_only_what_it_declares(module: str) -> None:
    extra = "testing" if is_testing(module) else EXTRAS.get(module, "")
    assert_declared(CORE_MODULES[module], ROOT / "core", {"acap_runtime"}, extra)


def reached_from(*modules: str) -> set[str]:
    """The core's modules that these import, and those that they import, and so on."""
    found: set[str] = set()
    left = {*modules}
    while left:
        found |= left
        left = {other for module in left for other in core_imports(CORE_MODULES[module])} - found
    return found


def mentions(module: str, names: tuple[str, ...]) -> list[str]:
    return [each for each in imported(CORE_MODULES[module]) for name in names if f"{each}.".startswith(f"{name}.")]


def test_nothing_that_the_workers_process_or_a_plugin_imports_knows_the_transport() -> None:
    workers = [name for name in CORE_MODULES if name.startswith("worker")]
    for module in reached_from("", *workers, *(name for name in CORE_MODULES if is_testing(name))):
        assert not mentions(module, TRANSPORT), module


def test_grpc_is_known_to_services_and_server_alone() -> None:
    knowing = {module for module in CORE_MODULES if mentions(module, GRPC)}
    assert {folder(module) for module in knowing} == {"services", "front", "client"}


@pytest.mark.parametrize("module", CORE_MODULES)
def test_only_the_command_line_prints(module: str) -> None:
    if folder(module) == "cli":
        return
    for node in ast.walk(ast.parse(CORE_MODULES[module].read_text())):
        assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
        assert not (isinstance(node, ast.Attribute) and node.attr in ("stdout", "__stdout__")) or is_testing(module)


def declared(folder: Path, extra: str) -> set[str]:
    """The distributions that a project says it needs, their names normalised."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *project.get("optional-dependencies", {}).get(extra, [])]
    return {normalised(re.split(r"[^A-Za-z0-9._-]", need)[0]) for need in needs}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def assert_declared(path: Path, folder: Path, own: set[str], extra: str) -> None:
    for name in imported(path):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top in own:
            continue
        owners = {normalised(owner) for owner in distributions().get(top, [top])}
        assert owners & declared(folder, extra), f"{path} imports {name}, which {folder.name} does not depend on"


def files_of(folder: Path, part: str) -> list[Path]:
    return sorted((folder / part).rglob("*.py"))


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_imports_the_contract_its_own_modules_and_what_it_declares(folder: Path) -> None:
    own = f"acap_runtime_{folder.name}"
    assert files_of(folder, "src")
    for path in files_of(folder, "src"):
        for name in imported(path):
            if name.startswith("acap_runtime."):
                assert name.removeprefix("acap_runtime.") in acap_runtime.__all__, f"{path} imports {name}"
        # An alternative that is tried at run time, by its name, is no import statement: it need not be installed.
        assert_declared(path, folder, {own}, extra="")


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugins_tests_import_no_more_than_a_third_partys_could(folder: Path) -> None:
    own = f"acap_runtime_{folder.name}"
    for path in files_of(folder, "tests"):
        for name in imported(path):
            if name.startswith("acap_runtime.") and not name.startswith("acap_runtime.testing."):
                public = {*acap_runtime.__all__, *(f"client.{each}" for each in acap_runtime.client.__all__)}
                assert name.removeprefix("acap_runtime.") in public, f"{path} imports {name}"
            others = {each for each in PACKAGES if normalised(each) not in declared(folder, "testing")} - {own}
            assert name.split(".")[0] not in others, f"{path} imports {name}"


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_names_used_of_the_contract_are_public(folder: Path) -> None:
    for path in [*files_of(folder, "src"), *files_of(folder, "tests")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "acap":
                assert node.attr in acap_runtime.__all__, f"{path}:{node.lineno}: acap.{node.attr}"


COST = """
import importlib, re, sys
from pathlib import Path

def libraries():
    return set(re.findall(r"/\\S+\\.so[.0-9]*", Path("/proc/self/maps").read_text()))

import {before}
known = libraries()
import {package}
for library in sorted(libraries() - known):
    if "/lib-dynload/" not in library:
        print("library", library)
for heavy in {heavy!r}:
    if heavy in sys.modules:
        print("module", heavy)
"""
HEAVY = [
    *("grpc", "google.protobuf", "cffi", "_cffi_backend", "ctypes", "ai_edge_litert", "tflite_runtime"),
    *("asyncio", "PIL", "acap_runtime.worker", "acap_runtime.front", "acap_runtime.testing"),
]


@pytest.mark.parametrize("package", ["acap_runtime", *PACKAGES])
def test_importing_a_package_loads_no_library_and_nothing_heavy(package: str) -> None:
    # numpy is the contract's own, and itself brings ctypes.
    heavy = sorted(set(HEAVY) - modules_of("numpy, pluggy"))
    before = "numpy, pluggy" if package == "acap_runtime" else "acap_runtime"
    assert run_python(COST.format(before=before, package=package, heavy=heavy)) == ""


@cache
def modules_of(packages: str) -> set[str]:
    return set(run_python(f"import sys, {packages}\nprint(*sys.modules)").split())


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_discovery_imports_plugins_and_nothing_heavy() -> None:
    code = (
        "import sys\nfrom acap_runtime.plugins.installed import discover\n"
        "assert not [row.problem for row in discover().rows if row.problem]\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert set(run_python(code).split()) <= modules_of("numpy, pluggy, importlib.metadata")


def mapped(process: int) -> str:
    return Path(f"/proc/{process}/maps").read_text()


@pytest.mark.parametrize(("chip", "driver"), [("1", None), ("2", "ai_edge_litert"), ("11", "libyuv")])
def test_a_worker_never_loads_grpc_and_the_front_never_a_driver(
    start_server: Callable[..., Any], tmp_path: Path, chip: str, driver: str | None
) -> None:
    model = tmp_path / "model.toml"
    model.touch()
    server = start_server("-j", chip)
    with server.client() as client:
        if chip == "1":
            client.predict(str(model), {"data": np.ones(3, np.uint8)})
    (worker,) = server.workers()
    assert "numpy" in mapped(worker)
    for transport in ("cygrpc", "google/_upb", "protobuf"):
        assert transport not in mapped(worker)
    assert "cygrpc" in mapped(server.process.pid)
    if driver is not None:
        assert driver in mapped(worker)
    for name in ("ai_edge_litert", "tflite", "libyuv", "_cffi_backend"):
        assert name not in mapped(server.process.pid)


def test_what_only_the_server_needs_of_grpc_stays_out_of_a_programs_process() -> None:
    # Both put their messages into protobuf's default pool, which is the program's. grpc imports the empty packages.
    modules = set(run_python("import sys, acap_runtime.client\nprint(*sys.modules)").split())
    assert not [name for name in modules if name.startswith(("grpc_health.", "grpc_reflection."))]
