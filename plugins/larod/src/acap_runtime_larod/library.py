"""The native library. Only code that runs beside the chip imports this."""

from __future__ import annotations

import os
import threading
from functools import cache
from typing import Any, Final

import acap_runtime as acap
from cffi import FFI

from acap_runtime_larod.declarations import DECLARATIONS

ffi: Final = FFI()
ffi.cdef(DECLARATIONS)

LIBRARY_VARIABLE: Final = "ACAPRUNTIME_LIBLAROD"
"""Names another file to open. In a container the host's libraries are mounted where they hide none of the image's."""

_USUAL_LIBRARY: Final = "liblarod.so.1"

_ADVICE: Final = (
    "larod 3 is part of AXIS OS: run this on an Axis device that is up to date; in a container, mount the host's "
    f"libraries and name the file in {LIBRARY_VARIABLE}"
)


class Library:
    """liblarod, opened once per process: cffi never closes an opened library."""

    def __init__(self, name: str) -> None:
        # The soname is the same in every version. Before version 3, larodLoadModel took a number for the device, and
        # calling it with a pointer would crash. Such a larod lacks larodGetDevice and is refused.
        self.functions: Any = acap.open_library(ffi.dlopen, name, advice=_ADVICE)  # only cffi knows its type
        self.connecting = threading.Lock()
        """Held while a connection is made or ended. The header calls the library not thread safe. Between connections
        that could matter in its first steps in a process."""


_open = cache(Library)


def open_library() -> Library:
    """Open liblarod. Raises `NotReady` if it is missing or too old."""
    return _open(os.environ.get(LIBRARY_VARIABLE) or _USUAL_LIBRARY)
