"""Finds models and their versions on disk."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from acap_runtime.errors import Forbidden, InvalidRequest, NotFound, quoted
from acap_runtime.settings.model_source import HIGHEST_VERSION, ModelSource

_LOG = logging.getLogger(__name__)
_KERNEL_FILESYSTEMS: Final = {
    "proc",
    "sysfs",
    "debugfs",
    "tracefs",
    "securityfs",
    "cgroup",
    "cgroup2",
    "bpf",
    "configfs",
}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file, and the identity that tells it from another file at the same path."""

    path: Path
    identity: tuple[int, ...]


def versions_of(path: Path) -> dict[int, Path]:
    """Return the location of each version: a file is its own version 1, a folder has a numbered folder for each.

    Raises `NotFound`, `Forbidden` or `InvalidRequest` if there is none.
    """
    try:
        if not path.is_dir():
            return {1: identify(path).path}
        found = {int(entry.name): entry for entry in path.iterdir() if _is_version(entry)}
    except OSError as error:
        raise Forbidden(f"model folder {quoted(path)} cannot be read: {error.strerror}") from None
    if not found:
        raise NotFound(
            f"model folder {quoted(path)} holds no version: expected folders named by numbers, with a model file in "
            f"each, such as {path.name}/1/model.tflite"
        )
    return found


def file_of(version: Path) -> ModelFile:
    """Find the model file of a version: itself, or in its folder the file ``model.*`` or the only one.

    Raises `NotFound`, `Forbidden` or `InvalidRequest`.
    """
    try:
        if not version.is_dir():
            return identify(version)
        files = [entry for entry in version.iterdir() if _is_visible_file(entry)]
    except OSError as error:
        raise Forbidden(f"model folder {quoted(version)} cannot be read: {error.strerror}") from None
    chosen = [path for path in files if path.stem == "model"] or files
    if len(chosen) != 1:
        got = ", ".join(sorted(path.name for path in chosen)) or "none"
        raise InvalidRequest(f"version folder {quoted(version)}: expected one file called model.*, got {got}")
    return identify(chosen[0])


def models_in(folder: Path, suffixes: Collection[str]) -> list[ModelSource]:
    """Find the models in a folder: each file with one of `suffixes`, named without it, and each folder of versions.

    If several would have the same name, leaves all of them out and logs a warning. Raises `NotFound` or `Forbidden` if
    the folder cannot be read.
    """
    found: dict[str, list[Path]] = {}
    try:
        for path in folder.iterdir():
            if _is_visible_file(path) and path.suffix in suffixes:
                found.setdefault(path.stem, []).append(path)
            elif path.is_dir() and any(map(_is_version, path.iterdir())):
                found.setdefault(path.name, []).append(path)
    except FileNotFoundError:
        raise NotFound(f"model folder {quoted(folder)} does not exist") from None
    except OSError as error:
        raise Forbidden(f"model folder {quoted(error.filename or folder)} cannot be read: {error.strerror}") from None
    models = []
    for name, paths in sorted(found.items()):
        if len(paths) > 1:
            _LOG.warning("model %s is not served: expected one of its name, got %s", name, ", ".join(map(str, paths)))
        elif not name.isprintable():
            _LOG.warning("model %r is not served: expected a name of printable characters", name)
        else:
            models.append(ModelSource(name, paths[0]))
    return models


def _is_visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _is_version(path: Path) -> bool:
    # TensorFlow Serving ignores everything else too, such as a folder that is still being copied under another name.
    number = re.fullmatch(r"0*(\d{1,19})", path.name, re.ASCII)
    return number is not None and int(number[1]) <= HIGHEST_VERSION and path.is_dir()


def resolve(name: str) -> str:
    """Return the path of a model file without links. Raises as `identify` does, for the path as it was given."""
    identify(Path(name))
    return os.path.realpath(name)


def identify(path: Path) -> ModelFile:
    """Check that a model file exists and can be read. Raises `NotFound`, `Forbidden` or `InvalidRequest`."""
    label = f"model file {quoted(path)}"
    try:
        # O_PATH opens nothing yet: opening a device or a FIFO already has effects.
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"{label} does not exist") from None
    except PermissionError:
        raise Forbidden(f"{label} is not readable by the server, user {os.geteuid()}") from None
    except OSError as error:
        raise InvalidRequest(f"{label} cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_dev in _kernel_devices():
            raise InvalidRequest(f"{label} is no regular file")
        if not os.access(f"/proc/self/fd/{descriptor}", os.R_OK, effective_ids=True):
            raise Forbidden(f"{label} is not readable by the server, user {os.geteuid()}")
    finally:
        os.close(descriptor)
    return ModelFile(path, (status.st_mtime_ns, status.st_size, status.st_dev, status.st_ino))


def _kernel_devices() -> set[int]:
    """Return the devices whose "files" the kernel makes up: some are for the server alone, some are gone once read."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] in _KERNEL_FILESYSTEMS:
            major, minor = fields[2].split(":")
            found.add(os.makedev(int(major), int(minor)))
    return found
