"""What docs/build_tables.py makes of the compliance kit's reports: the same on every machine, and only what passed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "build_tables.py"
PROBE = "probing again gives the same answer"


@pytest.fixture(scope="module")
def build_tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_tables", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def a_class(result: str = "met", reason: str = "", **fields: Any) -> dict[str, Any]:
    """A test class of a converter, as the kit reports it."""
    met = result == "met"
    return {
        "name": "test_x.py::TestX",
        "kind": "processing",
        "tested_on": "paper",
        "needs_hardware": False,
        "about": {"name": "copier", "description": "Copies", "distribution": "acap-runtime-copier", "chip_id": 77}
        | {"version": "1", "aliases": ["COPY"], "options": {}},
        "checks": {PROBE: {"result": result, "reason": reason}},
        "supports": {"formats": ["nv12 to nv12"], "capabilities": ["crops"]} if met else {},
        "cannot": {"scales": "no room"},
        "proven": {"loads": [5, 1000]} if met else {},
        **fields,
    }


@pytest.fixture
def report(tmp_path: Path):
    def write(*classes: dict[str, Any]) -> Path:
        path = tmp_path / "report.json"
        path.write_text(json.dumps({"tested": classes}))
        return path

    return write


def test_a_chip_has_what_its_tests_have_shown(build_tables: ModuleType, report) -> None:
    page = build_tables.chips_page(build_tables.subjects_of([report(a_class())]))
    assert "| `77`, `copier`, `COPY` | nv12 to nv12 | crops; not scales (no room) | on paper |\n" in page


def test_what_only_hardware_could_show_is_not_told(build_tables: ModuleType, report) -> None:
    here = a_class(needs_hardware=True, tested_on="")
    elsewhere = a_class("skipped", "no device", needs_hardware=True, tested_on="")
    pages = [build_tables.chips_page(build_tables.subjects_of([report(each)])) for each in (here, elsewhere)]
    assert pages[0] == pages[1]
    assert "| no: it needs hardware |" in pages[0]
    beside = [
        build_tables.chips_page(build_tables.subjects_of([report(a_class(), each)])) for each in (here, elsewhere)
    ]
    assert beside[0] == beside[1]
    assert "| on paper |" in beside[0]


def test_neither_counts_nor_versions_are_told(build_tables: ModuleType, report) -> None:
    once = a_class()
    again = a_class(proven={"loads": [999, 1000]}, about={**once["about"], "version": "2"})
    pages = [build_tables.chips_page(build_tables.subjects_of([report(each)])) for each in (once, again)]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("found", "code", "message"),
    [
        (a_class("failed"), 1, f"TestX has failed: {PROBE}"),
        (a_class("skipped", "no C compiler"), 3, "test_x.py::TestX: no C compiler"),
        (a_class("skipped", "the subclass has no `expected` fixture"), 1, "what the tests found"),
        (a_class(), 1, "what the tests found"),
    ],
)
def test_the_check_tells_a_difference_from_a_machine_that_lacks_something(report, found, code, message) -> None:
    command = [sys.executable, str(SCRIPT), "--check", str(report(found))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert message in done.stdout + done.stderr
