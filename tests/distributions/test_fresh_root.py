"""The short form of a fresh machine: the wheels and the main job in a bare Debian 13, with Python 3.13."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import debian_root
import environments
import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = ("debug", "libyuv", "tflite_cpu", "video")


@pytest.mark.timeout(600)
def test_the_wheels_do_the_main_job_on_a_fresh_debian_13(root: debian_root.Root, wheels: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    shown = {uv: "/usr/local/bin/uv", wheels: "/srv/wheels", ROOT / "examples" / "digits": "/srv/digits"}
    shown[ROOT / "tests" / "helpers" / "main_job.py"] = "/srv/main_job.py"
    names = ["acap-runtime", *(f"acap-runtime-{plugin.replace('_', '-')}" for plugin in PLUGINS)]
    root.run("uv", "--quiet", "venv", "--clear", "/srv/venv", shown=shown)
    install = ("uv", "--quiet", "pip", "install", "--python", "/srv/venv", "--find-links", "/srv/wheels")
    root.run(*install, *environments.refreshed(wheels), *names, shown=shown)
    said = json.loads(root.run("/srv/venv/bin/python", "/srv/main_job.py", "/srv/digits", shown=shown))
    assert said["python"].startswith("3.13.")
    assert int(said["av"].partition(".")[0]) >= 19
    assert (said["digit"], said["frame"], said["planar"]) == (7, 640 * 480 * 3 // 2, [1, 3, 300, 300])
    assert said["colours"] > 50
    assert said["stopped"] == 0
