"""Finds the shared libraries that a process has mapped, and their versions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

_LIBRARY = re.compile(r"/[^\0]+\.so(?:\.[0-9.]+)?$")


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library: its file and its version. The version is None if neither pip nor the file's name gives one."""

    file: str
    version: str | None

    def __str__(self) -> str:
        return f"{self.file} ({self.version or 'version unknown'})"


def mapped_libraries(process: int) -> frozenset[str]:
    """Return the files of the shared libraries that a process has mapped. Raises `OSError` if the process is gone."""
    return libraries_in(Path(f"/proc/{process}/maps").read_text(errors="surrogateescape"))


def libraries_in(maps: str) -> frozenset[str]:
    """Return the files of the shared libraries in the text of ``/proc/PID/maps``."""
    names = (line.split(maxsplit=5)[5:] for line in maps.splitlines())
    return frozenset(name[0] for name in names if name and _LIBRARY.fullmatch(name[0]))


def find_versions(files: Iterable[str]) -> list[Library]:
    """Find the versions of libraries by their files. Leaves out the libraries of Python itself."""
    own = [file for file in sorted(files) if "/lib-dynload/" not in file]
    owners = _owners(own)
    return [Library(file, owners.get(file) or _version_in(file)) for file in own]


def _owners(files: Iterable[str]) -> dict[str, str]:
    """Return the distribution of each file that pip installed."""
    wanted = set(files)
    found: dict[str, str] = {}
    for distribution in distributions():
        if found.keys() >= wanted:
            break
        for file in distribution.files or ():
            if ".so" in file.name and (path := os.path.realpath(str(distribution.locate_file(file)))) in wanted:
                found[path] = f"{distribution.name} {distribution.version}"
    return found


def _version_in(file: str) -> str | None:
    # libyuv.so.0 has only the version of its interface. The file that it links to often has the whole version.
    found = re.search(r"\.so\.([0-9.]+)$", str(Path(file).resolve()))
    return found[1] if found else None
