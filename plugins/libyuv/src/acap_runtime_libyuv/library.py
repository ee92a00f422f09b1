"""The native library. Only what runs beside the chip imports this."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import acap_runtime as acap
from cffi import FFI

from acap_runtime_libyuv.declarations import DECLARATIONS

ffi: Final = FFI()
ffi.cdef(DECLARATIONS)


@cache
def open_library(name: str = "libyuv.so.0") -> Any:  # its functions are known to cffi alone
    """Open libyuv, once for the process: cffi never gives an opened library back."""
    advice = "install libyuv 0, of 2019 or newer, on Debian and Ubuntu: apt install libyuv0"
    return acap.open_library(ffi.dlopen, name, advice=advice)


def check(function: str, code: int | None) -> None:
    """Raise `DeviceError` for what a function of libyuv returned, unless that means success."""
    if code:
        raise acap.DeviceError(f"libyuv's {function} failed with {code}: out of memory, or a size it cannot take")
