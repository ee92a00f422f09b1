"""What a run of the kit prints and writes at its end: what has passed, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = """
from typing import ClassVar

import acap_runtime as acap
import pytest
from acap_runtime.testing.processing import ProcessingContract


class Copy(acap.Model):
    def __init__(self, conversion):
        self.inputs, self.outputs = conversion.inputs, conversion.outputs

    def run(self, inputs):
        return {"output": inputs["input"]}


class Chip(acap.ProcessingBackend):
    '''Copies pictures. It does nothing else.'''

    chip_id, name, aliases, options = 77, "copier", ("COPY",), {"speed": "low or high"}

    def probe(self):
        PROBE

    def prepare(self, conversion):
        if conversion.input != conversion.output or conversion.crop or "FAULT" in str(conversion):
            raise acap.InvalidRequest("only copies")
        return Copy(conversion)


class TestCopier(ProcessingContract):
    tested_on = "paper"
    formats = frozenset((name, name) for name in acap.IMAGE_FORMATS)
    scales = False
    crops = False
    reasons: ClassVar = {"crops": "there are no scissors"}
    rounds = run_rounds = least_rounds = 20
    leak_seconds = 0.0

    @pytest.fixture
    def backend(self):
        return Chip()

    def test_models_run_side_by_side(self):
        pass

    def test_of_its_own(self):
        pass
"""
CHECKS = ("right", "colour", "specs", "gives_everything", "of_its_own", "side_by_side", "probing")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Any, str]]:
    """Runs some of the kit's tests of a chip that copies; gives the report that was written and what was printed."""

    def pytest_run(*options: str, probe: str = "pass", fault: str = "no fault", tests: str = TESTS) -> tuple[Any, str]:
        (tmp_path / "test_copier.py").write_text(tests.replace("PROBE", probe).replace("FAULT", fault))
        command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)]
        words = [*command, "-p", "no:cacheprovider", "-k", " or ".join(CHECKS), *options]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        report = tmp_path / "report.json"
        return json.loads(report.read_text()) if report.exists() else None, done.stdout + done.stderr

    return pytest_run


def test_what_passed_is_supported_and_what_the_class_names_is_not(run: Callable[..., tuple[Any, str]]) -> None:
    report, printed = run("--compliance-report", "report.json")
    (found,) = report["tested"]
    assert found["name"] == "test_copier.py::TestCopier"
    assert found["kind"] == "processing"
    assert found["tested_on"] == "paper"
    assert found["about"] == {
        "name": "copier",
        "description": "Copies pictures",
        "distribution": "",
        "version": "",
        "chip_id": 77,
        "aliases": ["COPY"],
        "options": {"speed": "low or high"},
    }
    assert found["supports"]["formats"] == [f"{name} to {name}" for name in ("nv12", "rgb-interleaved", "rgb-planar")]
    assert found["supports"]["sizes"] == ["64x48 to 64x48"]
    assert found["cannot"] == {"scales": "", "crops": "there are no scissors"}
    assert found["proven"] == {"loads": [20, 20], "runs": [20, 20]}
    assert found["checks"]["the picture is right"] == {"result": "met", "reason": ""}
    assert found["checks"]["models run side by side"]["result"] == "replaced"
    assert not [check for check in found["checks"] if "of its own" in check]
    for line in (
        r"processing  77 copier",
        r"aliases     COPY",
        r"tested on   paper",
        r"formats     nv12 to nv12, rgb-interleaved to rgb-interleaved, rgb-planar to rgb-planar",
        r"does not    scales; crops: there are no scissors",
        r"proven      loads 20, runs 20",
        r"replaced    models run side by side: by a test of the plugin's own",
    ):
        assert f"  {line}\n" in printed


def test_what_fails_for_one_conversion_is_not_supported(run: Callable[..., tuple[Any, str]]) -> None:
    report, printed = run("--compliance-report", "report.json", fault="rgb-planar")
    (found,) = report["tested"]
    assert found["supports"]["formats"] == [f"{name} to {name}" for name in ("nv12", "rgb-interleaved")]
    assert "sizes" not in found["supports"]
    assert found["checks"]["the picture is right"]["result"] == "failed"
    assert "failed      the picture is right: in its setup\n" in printed


def test_a_chip_that_is_missing_supports_nothing(run: Callable[..., tuple[Any, str]]) -> None:
    report, printed = run("--compliance-report", "report.json", probe="raise acap.NotReady('no paper')")
    (found,) = report["tested"]
    assert found["supports"] == found["proven"] == {}
    assert found["checks"]["the picture is right"] == {"result": "skipped", "reason": "copier: no paper"}
    assert "skipped    the picture is right: copier: no paper\n" in printed


def test_a_failure_when_a_fixture_ends_is_the_checks(run: Callable[..., tuple[Any, str]]) -> None:
    tests = TESTS.replace("return Chip()", "yield Chip()\n        assert False, 'left open'")
    tests = tests.replace("test_models_run_side_by_side", "test_something_else")
    report, _ = run("--compliance-report", "report.json", tests=tests)
    (found,) = report["tested"]
    assert {outcome["result"] for outcome in found["checks"].values()} == {"failed"}
    assert found["supports"] == found["proven"] == {}


def test_without_the_option_nothing_is_written(run: Callable[..., tuple[Any, str]], tmp_path: Path) -> None:
    report, printed = run()
    assert report is None
    assert "what the compliance kit has tested" in printed
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == []


def test_a_run_without_the_kit_prints_nothing_of_it(run: Callable[..., tuple[Any, str]]) -> None:
    report, printed = run("--compliance-report", "report.json", tests="def test_of_its_own(): pass")
    assert "compliance" not in printed
    assert report == {"tested": []}
