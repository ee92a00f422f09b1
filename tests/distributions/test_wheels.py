"""Each distribution alone: its wheel holds what it needs, and its tests pass beside core and nothing else of ours."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import environments
import pytest
from environments import DISTRIBUTIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the compliance kit wrote of each distribution; dev.py compares the documents with it."""
    return Path(os.environ.get("ACAP_REPORTS") or tmp_path_factory.mktemp("reports"))


def _wheel(wheels: Path, distribution: Path) -> Path:
    stem = "acap_runtime" if distribution.name == "core" else f"acap_runtime_{distribution.name}"
    (wheel,) = wheels.glob(f"{stem}-*.whl")
    return wheel


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_a_wheel_holds_every_file_of_its_package(distribution: Path, wheels: Path) -> None:
    with zipfile.ZipFile(_wheel(wheels, distribution)) as wheel:
        packed = set(wheel.namelist())
        (metadata,) = (wheel.read(name).decode() for name in packed if name.endswith(".dist-info/METADATA"))
    source = distribution / "src"
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert files <= packed
    assert any(name.endswith("/py.typed") for name in packed)
    assert not any("test_" in name for name in packed)
    # A library for plugins registers nothing.
    assert any(name.endswith("/entry_points.txt") for name in packed) or distribution.name == "larod"
    assert "License-Expression: Apache-2.0" in metadata
    if distribution.name == "core":
        assert "acap_runtime/proto/api.binpb" in packed


@pytest.mark.timeout(600)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda path: path.name)
def test_a_distribution_passes_its_tests_alone(
    distribution: Path, wheels: Path, reports: Path, tmp_path: Path, assert_tests_pass
) -> None:
    python = environments.make(tmp_path / "venv", f"{_wheel(wheels, distribution)}[testing]", find_links=wheels)
    shutil.copytree(distribution, tmp_path / distribution.name, ignore=shutil.ignore_patterns("src", "__pycache__"))
    # A copy has no neighbours: tests of real models look for them where this names them.
    environment = {"ACAP_TEST_MODELS": os.environ.get("ACAP_TEST_MODELS", str(ROOT.parent / "shared" / "models"))}
    report = f"--compliance-report={reports / distribution.name}.json"
    assert_tests_pass(tmp_path / distribution.name / "tests", python, environment, report)
