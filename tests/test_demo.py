"""What `dev.py demo` runs once everything is set up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_demo_reads_every_picture_and_stops_the_runtime() -> None:
    command = [sys.executable, ROOT / "examples" / "digits" / "demo.py", "--json"]
    demo = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert demo.returncode == 0, demo.stderr
    readings = json.loads(demo.stdout)
    assert len(readings) == 20
    assert all(reading["right"] for reading in readings)
    assert {reading["recognised"] for reading in readings} == set(range(10))
    assert "stopped" in demo.stderr


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
