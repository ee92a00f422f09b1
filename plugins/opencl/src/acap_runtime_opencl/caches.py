"""The caches of pyopencl and its drivers. They do not grow, and the home folder need not be writable."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

POCL_VARIABLE: Final = "POCL_CACHE_DIR"
PYOPENCL_VARIABLE: Final = "PYOPENCL_NO_CACHE"

_LEFTOVER_AGE_S: Final = 60


def keep_caches_small() -> None:
    """Set the environment that pyopencl reads on import, and that pocl reads when its devices are first listed.

    pyopencl's own caches are off: it fails if it cannot write them, and drivers have their own. pocl gets a folder of
    this plugin, unless the operator named one: pocl finds no device if it cannot write, and each process that uses it
    leaves an empty file behind.
    """
    os.environ.setdefault(PYOPENCL_VARIABLE, "1")
    if POCL_VARIABLE in os.environ:
        return
    for folder in _candidates():
        if _is_private(folder):
            _remove_leftovers(folder)
            os.environ[POCL_VARIABLE] = str(folder)
            return


def _candidates() -> Iterator[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 - never raises
    if cache.is_absolute():
        yield cache / "acap-runtime-opencl"
    yield Path(tempfile.gettempdir()) / f"acap-runtime-opencl-{os.geteuid()}"


def _is_private(folder: Path) -> bool:
    """Return True if the folder exists, is writable and belongs only to us: pocl runs the code that it finds there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
    except OSError:
        return False
    mine = state.st_uid == os.geteuid() and not state.st_mode & 0o022
    return mine and not folder.is_symlink() and os.access(folder, os.W_OK | os.X_OK)


def _remove_leftovers(folder: Path) -> None:
    """Remove the empty files that pocl makes to test that it can write. Recent ones stay: they may yet be filled."""
    for path in folder.glob("tempfile_*"):
        with suppress(OSError):
            state = path.lstat()
            if state.st_size == 0 and time.time() - state.st_mtime > _LEFTOVER_AGE_S:
                path.unlink()
