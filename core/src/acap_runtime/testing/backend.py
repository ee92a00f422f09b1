"""What every backend keeps to, whatever its chip does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest

import acap_runtime as acap

_AS_THE_FRONT = """
import asyncio, json, sys
from importlib.metadata import entry_points

from acap_runtime.hookspecs import PROJECT
from acap_runtime.plugins import load_backends


def libraries():
    with open("/proc/self/maps") as maps:
        return {line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line}


modules_before, libraries_before = set(sys.modules), libraries()
points = [point for point in entry_points(group=PROJECT) if point.module.partition(".")[0] == sys.argv[1]]
backends = [backend for point in points for backend in load_backends(point.value)]
json.dump(
    {
        "backends": [backend.name for backend in backends],
        "libraries": sorted(libraries() - libraries_before),
        "packages": sorted({name.partition(".")[0] for name in set(sys.modules) - modules_before}),
    },
    sys.stdout,
)
"""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What happens in a fresh process that asks a plugin for its backends and does nothing else."""

    backends: list[str]
    libraries: list[str]
    packages: list[str]


def discover(package: str) -> Discovery:
    """Load the entry points of one plugin, as the front does."""
    command = [sys.executable, "-c", _AS_THE_FRONT, package]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"importing {package} failed:\n{done.stderr}"
    return Discovery(**json.loads(done.stdout))


def require(backend: acap.Backend) -> None:
    """Skip the test with `probe`'s own reason where the chip is missing, or fail if it must be there."""
    try:
        backend.probe()
    except acap.NotReady as reason:
        if os.environ.get("ACAPRUNTIME_REQUIRE_HARDWARE") == "1":
            pytest.fail(f"{backend.name}: {reason}")
        pytest.skip(f"{backend.name}: {reason}")


class BackendContract:
    """The checks that all backends share; `InferenceContract` and `ProcessingContract` add those of their kind.

    A check that needs the chip asks for `ready`. That skips with `probe`'s own reason where the chip is missing, or
    fails if ``ACAPRUNTIME_REQUIRE_HARDWARE=1`` says that it must be there.
    """

    may_import: ClassVar[frozenset[str]] = frozenset()
    """Small packages outside the standard library that the plugin needs to tell who it is."""

    @pytest.fixture
    def backend(self) -> acap.Backend:
        """Override this: a new backend."""
        raise NotImplementedError("give the subclass a `backend` fixture")

    @pytest.fixture
    def ready(self, backend: acap.Backend) -> None:
        require(backend)

    def test_it_tells_who_it_is(self, backend: acap.Backend) -> None:
        kinds = (acap.InferenceBackend, acap.ProcessingBackend)
        assert isinstance(backend, kinds), f"{backend}: expected an InferenceBackend or a ProcessingBackend"
        assert type(backend.chip_id) in (int, type(None)), f"chip_id {backend.chip_id!r}: expected a number or None"
        assert isinstance(backend.aliases, tuple), f"aliases {backend.aliases!r}: expected a tuple"
        for name in (backend.name, *backend.aliases):
            assert isinstance(name, str), f"name {name!r}: expected a str"
            assert name, "a name is empty"
            assert not any(letter.isspace() for letter in name), f"name {name!r}: expected no white space"
            assert not name.isdecimal(), f"name {name!r}: looks like a chip's number"
        assert len({backend.name, *backend.aliases}) == 1 + len(backend.aliases), "a name is given twice"

    def test_its_options_are_explained(self, backend: acap.Backend) -> None:
        assert isinstance(backend.options, Mapping), f"options {backend.options!r}: expected a mapping"
        for name, meaning in backend.options.items():
            assert isinstance(name, str), f"option {name!r}: expected a str"
            assert isinstance(meaning, str), f"option {name!r}: expected its meaning as a str, got {meaning!r}"
            assert meaning, f"option {name!r}: expected its meaning"

    def test_its_plugin_is_found_by_an_entry_point(self, backend: acap.Backend) -> None:
        found = discover(_package(backend)).backends
        assert backend.name in found, (
            f"entry points of {_package(backend)} in group acap_runtime give {found}: expected {backend.name}. "
            f"Is the plugin installed?"
        )

    def test_discovery_loads_no_native_library(self, backend: acap.Backend) -> None:
        libraries = discover(_package(backend)).libraries
        assert not libraries, f"importing {_package(backend)} loads {libraries}: load them in probe, load or prepare"

    def test_discovery_imports_nothing_heavy(self, backend: acap.Backend) -> None:
        known = {_package(backend), "acap_runtime", *self.may_import, *sys.stdlib_module_names}
        packages = [name for name in discover(_package(backend)).packages if name not in known]
        assert not packages, f"importing {_package(backend)} imports {packages}: import them in probe, load or prepare"

    @pytest.mark.usefixtures("ready")
    def test_probing_again_gives_the_same_answer(self, backend: acap.Backend) -> None:
        backend.probe()


def _package(backend: acap.Backend) -> str:
    return type(backend).__module__.partition(".")[0]
