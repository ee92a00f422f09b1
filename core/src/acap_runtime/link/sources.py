"""Sources of an input's bytes, from which they are copied to a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Source(Protocol):
    """Holds the bytes of an input until they are copied to the worker."""

    @property
    def nbytes(self) -> int:
        """The number of bytes."""

    def write_into(self, target: memoryview) -> None:
        """Copy all bytes into `target`, which has `nbytes`."""

    def close(self) -> None:
        """Let go of the bytes."""


@dataclass(slots=True)
class InlineBytes:
    """Bytes that came with the request."""

    data: bytes | memoryview

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def write_into(self, target: memoryview) -> None:
        target[:] = self.data

    def close(self) -> None:
        """The request owns the bytes."""
