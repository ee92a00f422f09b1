"""What `dev.py demo` runs once everything is set up."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"


def test_the_demo_reads_every_picture_and_stops_the_runtime(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    command = [sys.executable, DIGITS / "demo.py", "--json", "--sheet", sheet]
    demo = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert demo.returncode == 0, demo.stderr
    result = json.loads(demo.stdout)
    readings = result["readings"]
    assert [reading["picture"] for reading in readings] == [
        f"{digit}-{which}.png" for digit in range(10) for which in "ab"
    ]
    for reading in readings:
        for way in ("sent", "seen"):
            assert reading[way]["right"]
            assert reading["picture"].startswith(f"{reading[way]['recognised']}-")
    # What each frame shows was found by its pixels alone; the pictures come in this order.
    references = [reading["seen"]["reference"] for reading in readings]
    assert references == sorted(set(references))
    assert "stopped" in demo.stderr
    assert result["seconds"] < 25
    assert result["sheet"] == str(sheet)
    with Image.open(sheet) as picture:
        assert picture.size == (5 * 224, 4 * (224 + 30))


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(DIGITS)
    return importlib.import_module("demo")


def test_the_demo_notices_what_is_misread(demo: Any) -> None:
    scores = np.array([[1, 2, 200, 3, 0, 0, 0, 0, 0, 0]], np.uint8)
    assert demo.read("2-a.png", {"digit": scores}, 0.001).right
    wrong = demo.read("3-a.png", {"digit": scores}, 0.001)
    assert (wrong.recognised, wrong.right) == (2, False)
    assert "WRONG" in demo.cells(wrong)


def test_dev_py_needs_the_standard_library_only() -> None:
    # -I -S: no site-packages, and not this folder.
    help_ = [sys.executable, "-I", "-S", ROOT / "dev.py", "--help"]
    shown = subprocess.run(help_, capture_output=True, text=True, check=True).stdout
    assert "demo" in shown
    assert "test" in shown


def test_dev_py_refuses_arguments_it_does_not_know() -> None:
    wrong = subprocess.run(
        [sys.executable, ROOT / "dev.py", "demo", "--speed", "9"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "--speed" in wrong.stderr
