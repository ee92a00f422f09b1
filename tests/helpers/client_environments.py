"""Environments of real clients: virtual environments with the stubs that others publish, and nothing of ours.

Each is made the first time that a test wants it, and stays in the user's cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acap-runtime" / "clients"
CLIENTS = Path(__file__).parents[1] / "clients"
Pip = Callable[..., None]

SERVING_API = "tensorflow-serving-api==2.21.0"
TENSORFLOW = ["tensorflow-cpu==2.21.0", "--platform=manylinux_2_27_x86_64", "--python-version=3.11"]
"""One wheel for every machine: nothing but modules that protoc made is taken out of it."""
SERVING_NEEDS = ["grpcio>=1.66", "protobuf>=6.31.1,<8"]
TRITON = ["tritonclient[grpc]==2.73.0", "grpcio-health-checking>=1.66", "grpcio-reflection>=1.66"]


def tensorflow_serving() -> Path:
    """The Python of an environment with tensorflow-serving-api as Google publishes it, and grpcio."""

    def install(folder: Path, pip: Pip) -> None:
        pip("--python", folder, "install", *SERVING_NEEDS)
        # Not TensorFlow itself, on which it depends: 1 GB, of which it uses half a megabyte.
        pip("--python", folder, "install", "--no-deps", SERVING_API)
        with TemporaryDirectory() as target:
            pip("download", "--no-cache-dir", "--no-deps", "--only-binary=:all:", f"--dest={target}", *TENSORFLOW)
            (wheel,) = Path(target).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if name.endswith("_pb2.py")]
                archive.extractall(next(folder.glob("lib/python*/site-packages")), names)

    return _environment("tensorflow-serving", [SERVING_API, *TENSORFLOW, *SERVING_NEEDS], install)


def triton() -> Path:
    """The Python of an environment with NVIDIA's tritonclient[grpc] and its numpy, and gRPC's health and reflection."""

    def install(folder: Path, pip: Pip) -> None:
        pip("--python", folder, "install", *TRITON)

    return _environment("triton", TRITON, install)


def run(python: Path, script: str, *arguments: object) -> bytes:
    """Run a script of tests/clients by one of these Pythons; returns what it prints."""
    done = subprocess.run([python, CLIENTS / script, *map(str, arguments)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _environment(name: str, requirements: list[str], install: Callable[[Path, Pip], None]) -> Path:
    key = hashlib.sha256("\n".join([*requirements, sys.version]).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{key}"
    python, stamp = folder / "bin" / "python", folder / "complete"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who comes second waits, and finds it made

        def run_module(*arguments: object) -> None:
            # The lock goes with it: were this process killed, it would still write into the folder.
            subprocess.run([sys.executable, "-m", *map(str, arguments)], check=True, pass_fds=[lock.fileno()])

        if not (stamp.exists() and python.exists()):
            shutil.rmtree(folder, ignore_errors=True)
            run_module("venv", "--without-pip", folder)
            install(folder, partial(run_module, "pip", "--quiet", "--disable-pip-version-check"))
            stamp.touch()
    return python
