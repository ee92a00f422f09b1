"""The device's native libraries. Only code that runs in a worker imports this."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import acap_runtime as acap
from cffi import FFI

LIBRARIES_VARIABLE: Final = "ACAPRUNTIME_AXIS_OS_LIBRARIES"
"""Names the folder with the device's libraries if the loader does not find them."""

_MISSING: Final = re.compile(r": (\S+): cannot open shared object file")


class Failure(Exception):
    """A function reported a GError.

    `code` is None if the error's domain is not the library's own. `expected` is True if the service is down on purpose,
    for maintenance.
    """

    def __init__(self, message: str, code: int | None = None, *, expected: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.expected = expected


class Library:
    """An open library. Its functions raise GErrors as exceptions.

    GLib's own functions are looked up through the library that needs them. Its allocations are therefore freed by the
    same GLib that it uses, wherever that is.
    """

    def __init__(self, name: str, declarations: str, error_domain: str, folder: str | None) -> None:
        self.ffi = FFI()
        self.ffi.cdef(declarations)
        self._needed: dict[str, Any] = {}
        advice = (
            f"{name} is part of AXIS OS: run this on an Axis device, with ACAP 3.5 or newer, in a container with the "
            f"device's libraries mounted and {LIBRARIES_VARIABLE} naming their folder"
        )
        opener, file = (self._open_file, f"{folder}/{name}") if folder else (self.ffi.dlopen, name)
        self.functions: Any = acap.open_library(opener, file, advice=advice)
        self._domain: int = getattr(self.functions, error_domain)()

    def call(self, function: str, *arguments: Any, fails: Callable[[Any], bool] = operator.not_) -> Any:
        """Call a function that takes a place for a GError last. Raises `Failure` if `fails` is true of its result."""
        place = self.ffi.new("GError **")
        result = getattr(self.functions, function)(*arguments, place)
        try:
            if fails(result):
                raise self._failure(function, place)
        finally:
            if place[0]:
                self.functions.g_error_free(place[0])
        return result

    def _failure(self, function: str, place: Any) -> Failure:
        error = place[0]
        if not error:
            return Failure(f"{function} failed and does not say why")
        message = self.text(error.message) or "no message"
        own = error.domain == self._domain
        # Only libvdostream has this function. It needs the error before that is freed.
        is_expected = getattr(self.functions, "vdo_error_is_expected", None)
        return Failure(
            f"{function}: {message} (code {error.code})",
            error.code if own else None,
            expected=bool(own and is_expected is not None and is_expected(place)),
        )

    def text(self, string: Any) -> str:
        """Convert a C string, which may be NULL."""
        if not string:
            return ""
        encoded: Any = self.ffi.string(string)
        return str(encoded, errors="replace")

    def _open_file(self, path: str) -> Any:
        """Open a library, with the libraries it needs from the same folder if the loader does not find them.

        The loader searches only the places of this process's own libraries, and those must not change.
        """
        while True:
            try:
                return self.ffi.dlopen(path)
            except OSError as error:
                missing = _MISSING.search(str(error))
                needed = str(Path(path).parent / missing[1]) if missing else path
                if needed in self._needed or not Path(needed).is_file() or needed == path:
                    raise
                self._needed[needed] = None  # only once, even if two libraries need each other
                self._needed[needed] = self._open_file(needed)


def open_library(name: str, declarations: str, error_domain: str) -> Library:
    """Open a library, once per process. Raises `NotReady` if it is missing or too old."""
    return _opened(name, declarations, error_domain, os.environ.get(LIBRARIES_VARIABLE))


@cache
def _opened(name: str, declarations: str, error_domain: str, folder: str | None) -> Library:
    return Library(name, declarations, error_domain, folder)
