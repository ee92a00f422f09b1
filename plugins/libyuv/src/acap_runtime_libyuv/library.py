"""The native library. Only code that runs beside the chip imports this."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, Final

import acap_runtime as acap
from cffi import FFI

from acap_runtime_libyuv.declarations import DECLARATIONS

ffi: Final = FFI()
ffi.cdef(DECLARATIONS)

_linker: Final = FFI()
_linker.cdef("""
struct link_map { uintptr_t address; const char *name; };
void *dlopen(const char *file, int mode);
int dlinfo(void *library, int request, struct link_map **info);
""")
_RTLD_DI_LINKMAP: Final = 2
_NAME: Final = "libyuv.so.0"


@cache
def open_library(name: str = _NAME) -> Any:  # only cffi knows its functions
    """Open libyuv, once per process: cffi never closes an opened library."""
    advice = "install libyuv 0, of 2019 or newer, on Debian and Ubuntu: apt install libyuv0"
    return acap.open_library(ffi.dlopen, name, advice=advice)


def library_file() -> Path:
    """Return the file of libyuv after it is open. Only its name gives the version, at the end."""
    linker: Any = _linker.dlopen(None)
    found: Any = _linker.new("struct link_map **")
    linker.dlinfo(linker.dlopen(_NAME.encode(), os.RTLD_LAZY), _RTLD_DI_LINKMAP, found)
    return Path(os.fsdecode(_linker.string(found[0].name))).resolve()


def check(function: str, code: int | None) -> None:
    """Raise `DeviceError` unless a libyuv function's return value means success."""
    if code:
        raise acap.DeviceError(f"libyuv's {function} failed with {code}: out of memory, or a size it cannot take")
