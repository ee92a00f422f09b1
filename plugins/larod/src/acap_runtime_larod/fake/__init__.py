"""A stand-in for liblarod.so.1 in C, for tests on machines that are not Axis devices. Never use it for anything else.

README.md beside this file describes its behaviour and the files that control it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import acap_runtime as acap

from acap_runtime_larod.declarations import DECLARATIONS

__all__ = ["FakeLarod", "build_fake"]

_SOURCES: Final = ("larod.c", "pictures.c")
_HEADERS: Final = "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n"
_FLAGS: Final = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-pthread")


def build_fake(folder: Path, *, old: bool = False) -> Path:
    """Compile the stand-in into `folder`, and return the path of a ``liblarod.so.1``.

    `old` leaves out what larod 3 added. Raises `NotReady` if there is no C compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise acap.NotReady("the stand-in for larod is written in C: expected gcc or cc; apt install gcc libc6-dev")
    here = Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    # The binding uses the same text: a function of the stand-in with another signature does not compile.
    (folder / "larod.h").write_text(_HEADERS + DECLARATIONS)
    library = folder / "liblarod.so.1"
    files: list[str | Path] = ["-I", folder, *(here / name for name in _SOURCES), "-o", library, "-lm"]
    if old:
        files.append("-DFAKE_LAROD_OLD")
    done = subprocess.run([compiler, *_FLAGS, *files], capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode:
        raise RuntimeError(f"the stand-in for larod does not compile:\n{done.stderr}")
    return library


class FakeLarod:
    """The stand-in in a folder: the library, the files that control it, and the files that it writes."""

    def __init__(self, folder: Path, library: Path | None = None) -> None:
        self.library = library or build_fake(folder)
        self.state = folder / "state"
        self.state.mkdir(exist_ok=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables that make a process use the stand-in instead of larod."""
        return {"ACAPRUNTIME_LIBLAROD": str(self.library), "FAKE_LAROD_STATE": str(self.state)}

    def tell(self, name: str, *lines: object) -> None:
        """Write a control file of the stand-in, such as ``job-errors`` with one code per line."""
        (self.state / name).write_text("".join(f"{line}\n" for line in lines))

    def forget(self, name: str) -> None:
        """Remove a control file."""
        (self.state / name).unlink(missing_ok=True)

    def counts(self, process: int | None = None) -> Mapping[str, int]:
        """Return the counts of what a process, by default this one, has made and not yet freed."""
        path = self.state / f"counts.{process or os.getpid()}"
        lines = path.read_text().splitlines() if path.exists() else []
        return {name: int(number) for name, number in map(str.split, lines)}

    def leaks(self, process: int | None = None) -> Mapping[str, int]:
        """Return the counts that are not zero."""
        return {name: number for name, number in self.counts(process).items() if number}

    @staticmethod
    def write_model(path: Path, tensors: Iterable[str]) -> Path:
        """Write a model file for the stand-in: a line per tensor, such as ``input data uint8 nhwc 1,4,4,3``."""
        path.write_text("".join(f"{line}\n" for line in ("fake larod model", *tensors, "end")))
        return path
