"""Checks that discovery finds what a plugin provides, and what discovery loads into a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

import acap_runtime as acap

_AS_THE_FRONT = """
import asyncio, json, sys
from importlib.metadata import entry_points

from acap_runtime.contract.hookspecs import PROJECT
from acap_runtime.plugins.installed import load_plugin


def libraries():
    with open("/proc/self/maps") as maps:
        return {line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line}


modules_before, libraries_before = set(sys.modules), libraries()
points = [point for point in entry_points(group=PROJECT) if point.module.partition(".")[0] == sys.argv[1]]
plugins = [load_plugin(point.value) for point in points]
json.dump(
    {
        "backends": [backend.name for plugin in plugins for backend in plugin.backends],
        "cameras": [camera.name for plugin in plugins for camera in plugin.cameras],
        "stores": [store.name for plugin in plugins for store in plugin.stores],
        "libraries": sorted(libraries() - libraries_before),
        "packages": sorted({name.partition(".")[0] for name in set(sys.modules) - modules_before}),
    },
    sys.stdout,
)
"""


@dataclass(frozen=True, slots=True)
class Discovery:
    """The result of a fresh process that only discovers what a plugin provides."""

    backends: list[str]
    cameras: list[str]
    stores: list[str]
    libraries: list[str]
    packages: list[str]


def discover(package: str) -> Discovery:
    """Load the entry points of one plugin, as the front does."""
    command = [sys.executable, "-c", _AS_THE_FRONT, package]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"importing {package} failed:\n{done.stderr}"
    return Discovery(**json.loads(done.stdout))


def package_of(brought: object) -> str:
    """Return the package of the plugin that provides a backend or a camera."""
    return type(brought).__module__.partition(".")[0]


def check_found(name: str, found: list[str], package: str) -> None:
    """Fail if a plugin's entry points do not provide `name`."""
    assert name in found, (
        f"entry points of {package} in group acap_runtime give {found}: expected {name}. Is the plugin installed?"
    )


def check_no_library(package: str, where: str) -> None:
    """Fail if discovery loads a native library. `where` names the place that should load it."""
    libraries = discover(package).libraries
    assert not libraries, f"importing {package} loads {libraries}: load them in {where}"


def check_nothing_heavy(package: str, may_import: Iterable[str], where: str) -> None:
    """Fail if discovery imports anything but the standard library, the contract and `may_import`."""
    known = {package, "acap_runtime", *may_import, *sys.stdlib_module_names}
    packages = [name for name in discover(package).packages if name not in known]
    assert not packages, f"importing {package} imports {packages}: import them in {where}"


def require_ready(name: str, probe: Callable[[], None]) -> None:
    """Skip the test with the probe's own reason if the probed thing is missing, or fail if it must be there."""
    try:
        probe()
    except acap.NotReady as reason:
        if os.environ.get("ACAPRUNTIME_REQUIRE_HARDWARE") == "1":
            pytest.fail(f"{name}: {reason}")
        pytest.skip(f"{name}: {reason}")
