"""Shared memory between front and worker. It is anonymous from the start, so no crash leaves a name behind."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable
from typing import Final

from acap_runtime.errors import DeviceError

ALIGNMENT: Final = 64
"""The start of every tensor in a segment is a multiple of this many bytes."""

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Segment:
    """A piece of memory that two processes map.

    Its size is sealed, so that neither side can make the other's access fault. `descriptor` is open until
    `close_descriptor`; the memory lives as long as a view of it.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise DeviceError("a shared memory segment came without seals")
        self.size = os.fstat(descriptor).st_size
        self.view = memoryview(mmap.mmap(descriptor, self.size))

    @classmethod
    def create(cls, size: int) -> Segment:
        """Make a segment of at least `size` bytes. Raises `OSError` if memory is short."""
        descriptor = os.memfd_create("acap-runtime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def adopt(cls, descriptor: int) -> Segment:
        """Map a segment that the other side made, and close the descriptor that it came with."""
        try:
            return cls(descriptor)
        finally:
            os.close(descriptor)

    def close_descriptor(self) -> None:
        """Close the descriptor, once the other side has the segment. The mapping stays."""
        os.close(self.descriptor)


def layout(sizes: Iterable[int], start: int = 0) -> tuple[list[int], int]:
    """Return aligned offsets for blocks of `sizes` bytes, from `start` on, and the end of the last block."""
    offsets, end = [], start
    for size in sizes:
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        offsets.append(offset)
        end = offset + size
    return offsets, end
