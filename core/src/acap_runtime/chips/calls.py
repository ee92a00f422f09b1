"""A call to a model: its inputs, and its answer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from acap_runtime.contract.backend import Array, Conversion
from acap_runtime.errors import AcapError
from acap_runtime.link.ring import Ring
from acap_runtime.link.sources import InlineBytes, Source


class SharedSource(ABC):
    """A `Source` that lies in shared memory already. It is located only when the chip is free for the call."""

    @abstractmethod
    def locate(self) -> tuple[Ring, int] | None:
        """Return the memory and the offset of the bytes, which do not change until `close` or the next `locate`.

        Returns None if the bytes must be copied at once instead. Raises `AcapError` if there are none.
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The number of bytes that were located."""

    @abstractmethod
    def write_into(self, target: memoryview) -> None:
        """Copy the bytes that were located."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the bytes."""


@dataclass(frozen=True, slots=True)
class Converter:
    """The backend that converts images, as a worker finds it: the plugin's address, and larod's name of the chip."""

    address: str
    chip: str


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a call: its name, its type, the source of its bytes, and the image conversion it needs, if any."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    source: Source | SharedSource
    conversion: tuple[Converter, Conversion] | None = None


def inputs_of(arrays: Mapping[str, Array]) -> list[Input]:
    """Make inputs of arrays by the inputs' names."""
    return [
        Input(name, array.dtype, array.shape, InlineBytes(np.ascontiguousarray(array).tobytes()))
        for name, array in arrays.items()
    ]


@dataclass(frozen=True, slots=True)
class Output:
    """One output, copied out of shared memory."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs of a call, and the seconds that conversion and run took."""

    outputs: tuple[Output, ...]
    conversion_s: float
    run_s: float


@dataclass(slots=True, eq=False)
class Call:
    """A call to a model. `outputs` names those that are wanted (none for all).

    `until` is its deadline, and `came` the time at which it came (monotonic seconds). `rows` is the size of its first
    dimension if it may run together with other calls of the same `kind`, else None. `ticket` is its number in the
    queue, 0 while it does not wait.
    """

    inputs: Sequence[Input]
    outputs: Sequence[str]
    until: float
    came: float
    future: asyncio.Future[Answer]
    rows: int | None = None
    kind: tuple[object, ...] = ()
    ticket: int = 0

    def fail(self, error: AcapError) -> None:
        """Answer with an error, unless the call is answered or cancelled."""
        if not self.future.done():
            self.future.set_exception(error.copy())
