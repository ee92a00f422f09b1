"""Wheels and virtual environments, made by uv: in a tenth of the time that pip takes for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_UV = Path(sys.executable).with_name("uv")
DISTRIBUTIONS = [_ROOT / "core", *sorted(path.parent for path in (_ROOT / "plugins").glob("*/pyproject.toml"))]


def build_wheel(distribution: Path, folder: Path) -> Path:
    """Build a distribution's wheel into a folder, by the build backend that its pyproject.toml names."""
    # From a copy: a build may leave files in the folder that it builds.
    copy = folder / "source" / distribution.name
    shutil.copytree(distribution, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = set(folder.glob("*.whl"))
    _uv("build", "--wheel", "--out-dir", folder, copy)
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel


def make(venv: Path, *requirements: object, find_links: Path) -> Path:
    """Make a virtual environment; returns its Python. Wheels of ours come from a folder, all others from the index."""
    _uv("venv", "--python", sys.executable, venv)
    _uv("pip", "install", "--python", venv, "--find-links", find_links, *refreshed(find_links), *requirements)
    return venv / "bin" / "python"


def refreshed(folder: Path) -> list[str]:
    """Arguments that keep uv from taking wheels of ours out of its cache, where it knows them by path and version."""
    names = {wheel.name.partition("-")[0] for wheel in folder.glob("*.whl")}
    return [word for name in sorted(names) for word in ("--refresh-package", name.replace("_", "-"))]


def install_alone(distribution: Path, site: Path) -> None:
    """Install a distribution without what it needs into a folder that PYTHONPATH can name."""
    _uv("pip", "install", "--python", sys.executable, "--no-deps", "--target", site, distribution)


def _uv(*arguments: object) -> None:
    done = subprocess.run([_UV, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"uv {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
