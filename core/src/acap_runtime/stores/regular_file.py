"""Opens a file that an operator named, which may be of any kind."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading. Raises `OSError` at once for anything else. Opening a FIFO would block."""
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    mode = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        raise OSError(errno.EINVAL, f"expected a regular file, got {stat.filemode(mode)}")
    return file
