"""What a call to a model consists of."""

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


def inputs_of(arrays: Mapping[str, Array]) -> list[Input]:
    """Arrays by the names of inputs, as inputs."""
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
    """What a call gave, and the seconds that conversion and chip took."""

    outputs: tuple[Output, ...]
    conversion_s: float
    run_s: float


@dataclass(slots=True, eq=False)
class Call:
    """A call that waits for a model's turn; `outputs` names those wanted (none for all), `until` is its deadline and
    `came` when it came (monotonic seconds).

    `rows` is how many of the first dimension it has where it may run together with others of the same `kind`;
    `place` its number in the queue, 0 while it does not wait.
    """

    inputs: Sequence[Input]
    outputs: Sequence[str]
    until: float
    came: float
    future: asyncio.Future[Answer]
    rows: int | None = None
    kind: tuple[object, ...] = ()
    place: int = 0

    def fail(self, error: AcapError) -> None:
        """Answer with an error, unless there is an answer or nobody waits."""
        if not self.future.done():
            self.future.set_exception(error.again())
