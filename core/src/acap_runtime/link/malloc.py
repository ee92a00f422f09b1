"""How this process gets large buffers from the C library."""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MIB: Final = 1 << 20


def keep_large_buffers() -> None:
    """Let glibc keep freed buffers of a request's size instead of giving them back to the kernel.

    By default each is unmapped and faulted in anew with the next request: 3,361 page faults, and 2 to 4 times the
    time, for a 1080p picture. Costs some 20 MB. Other C libraries have no ``mallopt``, and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
    mallopt(_M_TRIM_THRESHOLD, 256 * _MIB)
    mallopt(_M_ARENA_MAX, 1)


def give_back_freed() -> None:
    """Give back to the kernel what was freed, which `keep_large_buffers` keeps: after a model's end, say."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
