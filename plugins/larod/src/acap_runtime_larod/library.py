"""The native library. Only what runs beside the chip imports this."""

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


class Library:
    """liblarod, opened once for the process: cffi never gives an opened library back."""

    def __init__(self, name: str) -> None:
        try:
            functions: Any = ffi.dlopen(name)  # known to cffi alone
        except OSError as error:
            # cffi adds where else it looked: of no use to who has no larod.
            reason = str(error).partition(".  Additionally,")[0]
            raise acap.NotReady(
                f"{reason}; larod is part of AXIS OS: run this on an Axis device that has it; in a container, mount "
                f"the host's libraries and name the file in {LIBRARY_VARIABLE}"
            ) from None
        # The soname is the same in every version. Before version 3, larodLoadModel took a number for the device: to
        # call that one with a pointer would crash.
        if not hasattr(functions, "larodGetDevice"):
            raise acap.NotReady(
                f"{name} has no larodGetDevice: expected larod 3, got an older one (or no larod); update AXIS OS"
            )
        missing = [function for function in dir(functions) if not hasattr(functions, function)]
        if missing:
            raise acap.NotReady(f"{name} lacks {', '.join(missing)}: expected larod 3; update AXIS OS")
        self.functions = functions
        self.connecting = threading.Lock()
        """Held while a connection is made or ended. The header calls the library not thread safe, and what it does
        first in a process is where that could matter between connections."""


_open = cache(Library)


def open_library() -> Library:
    """Open liblarod. Raises `NotReady` where there is none, or one that is too old."""
    return _open(os.environ.get(LIBRARY_VARIABLE) or _USUAL_LIBRARY)
