"""Checks a model file before native code reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import acap_runtime as acap

LARGEST_FILE: Final = 2**31 - 1
"""Offsets in a flatbuffer are signed 32-bit numbers."""

IDENTIFIER: Final = b"TFL3"
_IDENTIFIER_OFFSET: Final = 4


def read_model_file(path: Path) -> bytes:
    """Read a file that looks like a model. Raises `InvalidRequest` for other files."""
    try:
        if not path.is_file():
            raise acap.InvalidRequest(f"{path}: expected a model file, got something that is no file")
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise acap.InvalidRequest(f"{path}: expected a model of less than 2 GiB, got {size} bytes")
        with path.open("rb") as file:
            if file.read(_IDENTIFIER_OFFSET + len(IDENTIFIER))[_IDENTIFIER_OFFSET:] != IDENTIFIER:
                # The error does not reveal the file's contents: the client may not be allowed to read it.
                raise acap.InvalidRequest(
                    f"{path}: expected a TensorFlow Lite model, with {IDENTIFIER.decode()} at offset "
                    f"{_IDENTIFIER_OFFSET}, got {size} bytes without it"
                )
            # Not mapped: truncating a mapped file kills the process with SIGBUS.
            file.seek(0)
            return file.read()
    except OSError as error:
        raise acap.InvalidRequest(f"{path}: expected a model file: {error.strerror}") from error
