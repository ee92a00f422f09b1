"""What a call to a model consists of, and how many may wait."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from acap_runtime.backend import Conversion
from acap_runtime.errors import Busy
from acap_runtime.sources import Source
from acap_runtime.worker.ring import Ring


class SharedSource(ABC):
    """A `Source` that lies in shared memory already; where, is decided when the chip is free for it."""

    @abstractmethod
    def locate(self) -> tuple[Ring, int] | None:
        """The memory and the offset in it, which stay as they are until `close` or the next `locate`; None where the
        bytes had better be copied, at once.

        Raises `AcapError` where there are none.
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """How many bytes were located."""

    @abstractmethod
    def write_into(self, target: memoryview) -> None:
        """Copy what was located."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the bytes."""


@dataclass(frozen=True, slots=True)
class Converter:
    """Where a worker finds the backend that converts images: the plugin's address, and larod's name of the chip."""

    address: str
    chip: str


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a call: where its bytes are, what they are, and the image conversion they need, if any."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    source: Source | SharedSource
    conversion: tuple[Converter, Conversion] | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One output, copied out of shared memory."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave, and the seconds that conversion and chip took."""

    outputs: tuple[Output, ...]
    conversion_s: float
    run_s: float


@dataclass(slots=True)
class Admission:
    """The calls that wait for one chip, or for a model that it loads, and how many may."""

    limit: int
    waiting: int = 0

    def check(self) -> None:
        """Raise `Busy` if no further call may wait."""
        if self.waiting >= self.limit:
            raise Busy(f"{self.limit} calls wait for the chip already (--queue); try again later")

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Wait within this context as one of them. Raises `Busy`."""
        self.check()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
