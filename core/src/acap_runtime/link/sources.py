"""Where the bytes of an input are until they are copied to a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Source(Protocol):
    """Where the bytes of an input are until they are copied to the worker."""

    @property
    def nbytes(self) -> int:
        """How many they are."""

    def write_into(self, target: memoryview) -> None:
        """Copy all bytes into `target`, which has `nbytes`."""

    def close(self) -> None:
        """Let go of the bytes."""


@dataclass(slots=True)
class InlineBytes:
    """Bytes that came in the request itself."""

    data: bytes | memoryview

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def write_into(self, target: memoryview) -> None:
        target[:] = self.data

    def close(self) -> None:
        """The request owns the bytes."""
