"""libacme, loaded when the first device is opened."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import acap_runtime as acap
import numpy as np

BAD_MODEL, TOO_LARGE = 3, 4


@cache
def _library() -> ctypes.CDLL:
    name = os.environ.get("ACME_LIBRARY") or "libacme.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise acap.NotReady(f"{error}: set ACME_LIBRARY to the path of libacme.so.1 from Acme's SDK") from None
    # Without these ctypes passes an int, which cuts a pointer short.
    library.acme_open.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_void_p)]
    library.acme_load.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.acme_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    library.acme_close.argtypes = [ctypes.c_void_p]
    library.acme_close.restype = None
    library.acme_message.restype = ctypes.c_char_p
    return library


class Device:
    """An opened device. Every method but `close` raises what the contract asks for."""

    def __init__(self, speed: int) -> None:
        self._library = _library()
        self._handle = ctypes.c_void_p()
        self._check(self._library.acme_open(speed, self._handle), "acme_open")

    def load(self, path: Path) -> None:
        self._check(self._library.acme_load(self._handle, os.fsencode(path)), str(path))

    def run(self, data: acap.Array) -> acap.Array:
        output = np.empty_like(data)
        self._check(self._library.acme_run(self._handle, data.ctypes.data, output.ctypes.data, data.size), "acme_run")
        return output

    def close(self) -> None:
        self._library.acme_close(self._handle)

    def _check(self, code: int, what: str) -> None:
        if code:
            error = acap.InvalidRequest if code in (BAD_MODEL, TOO_LARGE) else acap.DeviceError
            raise error(f"{what}: {self._library.acme_message(code).decode()}")
