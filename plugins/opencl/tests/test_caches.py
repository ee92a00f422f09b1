"""What is left on the disk, and what happens where nothing can be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from acap_runtime.testing.backend import require
from acap_runtime_opencl import OpenClBackend
from acap_runtime_opencl.caches import keep_caches_small

CONVERT = """
import sys
import acap_runtime as acap
import numpy as np
from acap_runtime_opencl import OpenClBackend

backend = OpenClBackend()
try:
    for width in map(int, sys.argv[1:]):
        conversion = acap.Conversion(acap.Image("nv12", 64, 48), acap.Image("rgb-planar", width, width))
        backend.prepare(conversion).run({"input": np.zeros(conversion.input.shape, np.uint8)})
    print("converted")
except acap.NotReady as error:
    print(error)
"""


def convert(*widths: int, **environment: str) -> str:
    """Convert in a fresh process, which has a cache nowhere but where `environment` says."""
    known = {name: value for name, value in os.environ.items() if name not in ("POCL_CACHE_DIR", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", CONVERT, *map(str, widths)]
    done = subprocess.run(command, env=known | environment, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def files_in(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def _pocl() -> None:
    require(OpenClBackend())
    import pyopencl

    if all(platform.name != "Portable Computing Language" for platform in pyopencl.get_platforms()):
        pytest.skip("pocl is not installed here: apt install pocl-opencl-icd")


def test_a_machine_without_a_driver_says_what_to_install(tmp_path: Path) -> None:
    told = convert(8, OCL_ICD_VENDORS=str(tmp_path), OCL_ICD_FILENAMES="")
    assert "no OpenCL device: by pyopencl: " in told
    assert "PLATFORM_NOT_FOUND_KHR; install the driver of the GPU" in told
    assert "apt install pocl-opencl-icd; by larod: " in told


@pytest.mark.usefixtures("_pocl")
def test_an_unwritable_home_does_not_matter(tmp_path: Path) -> None:
    assert convert(8, HOME="/proc/nobody", TMPDIR=str(tmp_path)) == "converted"
    (folder,) = tmp_path.iterdir()
    assert folder.name == f"acap-runtime-opencl-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("_pocl")
def test_the_cache_grows_neither_with_sizes_nor_with_processes(tmp_path: Path) -> None:
    environment = {"HOME": "/proc/nobody", "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    assert convert(8, 500, **environment) == "converted"
    before = files_in(tmp_path)
    for path in tmp_path.rglob("tempfile_*"):
        os.utime(path, (0, 0))
    assert convert(9, 24, 301, **environment) == "converted"
    after = files_in(tmp_path)
    assert len(after) == len(before)
    assert {path.parts[:2] for path in after} == {("cache", "acap-runtime-opencl")}


def test_a_folder_that_the_operator_named_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PYOPENCL_NO_CACHE", "0")
    keep_caches_small()
    assert os.environ["POCL_CACHE_DIR"] == str(tmp_path)
    assert os.environ["PYOPENCL_NO_CACHE"] == "0"


def chosen_folder(monkeypatch: pytest.MonkeyPatch, cache: Path, temporary: Path) -> str | None:
    monkeypatch.setenv("POCL_CACHE_DIR", "to be restored")
    monkeypatch.delenv("POCL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    keep_caches_small()
    return os.environ.get("POCL_CACHE_DIR")


def test_a_folder_into_which_others_may_write_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = tmp_path / f"acap-runtime-opencl-{os.geteuid()}"
    shared = tmp_path / "acap-runtime-opencl"
    shared.mkdir()
    shared.chmod(0o777)
    assert chosen_folder(monkeypatch, tmp_path, tmp_path) == str(mine)
    shared.rmdir()
    mine.rename(tmp_path / "elsewhere")
    shared.symlink_to(tmp_path / "elsewhere")
    mine.symlink_to(tmp_path / "elsewhere")
    assert chosen_folder(monkeypatch, tmp_path, tmp_path) is None


def test_only_old_and_empty_files_of_pocl_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "acap-runtime-opencl"
    folder.mkdir(mode=0o700)
    for name in ("tempfile_old", "tempfile_full", "tempfile_young", "program"):
        (folder / name).write_text("x" if name == "tempfile_full" else "")
        if name != "tempfile_young":
            os.utime(folder / name, (0, 0))
    assert chosen_folder(monkeypatch, tmp_path, tmp_path) == str(folder)
    assert files_in(folder) == {Path("tempfile_full"), Path("tempfile_young"), Path("program")}
