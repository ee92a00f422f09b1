"""Sends calls to a worker and reads its answers. The tensors cross by shared memory, the messages by a channel."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from typing import Any

import numpy as np

from acap_runtime.chips.calls import Answer, Call, Input, Output, SharedSource
from acap_runtime.chips.memory import CallMemory, Slot
from acap_runtime.chips.queue import CallQueue
from acap_runtime.errors import AcapError, DeviceError
from acap_runtime.link.messages import Channel, pack_conversion, unpack_error
from acap_runtime.link.ring import Ring
from acap_runtime.link.segment import Segment, layout


@dataclass(slots=True, eq=False)
class Execution:
    """One run of the model: the calls that one message sends to the worker.

    `started` is the time at which an instance took it (monotonic seconds), None while it lies ready in the worker.
    `slot` and `rings` are the memory that it uses.
    """

    calls: Sequence[Call]
    started: float | None = None
    slot: Slot | None = None
    rings: list[Ring] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The rows of all its calls; a call that cannot be split counts as one."""
        return sum(call.rows or 1 for call in self.calls)

    def finish(self, answers: Iterable[Answer]) -> None:
        """Answer each call with its own answer, unless nobody waits for it any more."""
        for call, answer in zip(self.calls, answers, strict=True):
            if not call.future.done():
                call.future.set_result(answer)

    def fail(self, error: AcapError) -> None:
        """Answer all calls with an error."""
        for call in self.calls:
            call.fail(error)

    def abandon(self, queue: CallQueue, error: AcapError) -> int:
        """Fail the calls, as the worker is gone, or put them back into the queue if no instance had taken them.

        Returns the number of calls that failed.
        """
        waited_for = [call for call in self.calls if not call.future.done()]
        for call in waited_for:
            if self.started is None:
                queue.put_back(call)
            else:
                call.fail(error)
        return 0 if self.started is None else len(waited_for)

    def drop_memory(self) -> None:
        """Let go of the memory now, not when the last traceback that refers to this execution goes."""
        self.slot = None
        self.rings.clear()


class Executions:
    """The executions that a worker has of one model, in the order in which they were sent."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        """The channel to the worker, None while there is none."""
        self._memory = CallMemory(self._send_forgotten)
        self._sent: dict[int, Execution] = {}
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def calls(self) -> int:
        """The number of calls that the worker has."""
        return sum(len(execution.calls) for execution in self._sent.values())

    @property
    def running_since(self) -> float | None:
        """The time at which the longest execution started (monotonic seconds), None if none did."""
        return min((each.started for each in self._sent.values() if each.started is not None), default=None)

    def send(self, execution: Execution, output_sizes: Iterable[int]) -> None:
        """Write the inputs into shared memory, with room for the outputs behind them, and tell the worker to run.

        Raises `AcapError` if an input or memory is not to be had, `OSError` if the worker cannot be told.
        """
        columns = [_column(parts) for parts in zip(*(call.inputs for call in execution.calls), strict=True)]
        offsets, inputs_end = layout([column.nbytes for column in columns])
        _, outputs_end = layout(output_sizes, inputs_end)
        slot = execution.slot = self._memory.take(outputs_end)
        try:
            inputs = [
                self._share(column, slot, offset, execution.rings)
                for column, offset in zip(columns, offsets, strict=True)
            ]
            self._send_call(execution, slot, inputs, inputs_end)
        except BaseException:
            self.give_back(execution)
            raise
        self._sent[self._last_number] = execution

    def mark_started(self, instances: int) -> None:
        """Note which executions the instances have taken by now.

        The worker takes them in the order in which they were sent, as many at a time as there are instances.
        """
        now = time.monotonic()
        for execution in islice(self._sent.values(), instances):
            if execution.started is None:
                execution.started = now

    def take_answered(self, message: Mapping[str, Any]) -> Execution:
        """Return the execution that the worker answers with this message, and count it no more."""
        return self._sent.pop(message["call"])

    def give_back(self, execution: Execution) -> None:
        """Free the memory of an execution that has ended, for those to come."""
        if execution.slot is not None:
            self._memory.give_back(execution.slot)
        for ring in execution.rings:
            self._memory.leave_ring(ring)
        execution.drop_memory()

    def close(self) -> list[Execution]:
        """Close the channel and free all memory, since the worker is gone. Returns the executions that it had."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        self._memory.clear()
        unanswered = list(self._sent.values())
        self._sent.clear()
        for execution in unanswered:
            execution.drop_memory()
        return unanswered

    def _share(self, column: _Column, slot: Slot, offset: int, rings: list[Ring]) -> list[Any]:
        """Copy an input into the slot, or enter the ring that it lies in. Returns its description for the worker."""
        if column.located is None:
            column.write_into(slot.segment.view, offset)
            return column.pack(slot.number, offset)
        ring, offset = column.located
        rings.append(ring)
        return column.pack(self._memory.enter_ring(ring), offset)

    def _send_call(self, execution: Execution, slot: Slot, inputs: Sequence[Any], inputs_end: int) -> None:
        assert self.channel is not None  # noqa: S101 - nothing is sent before the model is attached
        descriptors = self._memory.descriptors(slot, execution.rings)
        calls = execution.calls
        self._last_number += 1
        self.channel.send(
            {
                "call": self._last_number,
                "segment": slot.number,
                "forget": self._memory.forget,
                "bring": list(descriptors),
                "inputs": inputs,
                "end": inputs_end,
                "outputs": calls[0].outputs,
                "until": max(call.until for call in calls),
            },
            *descriptors.values(),
        )
        self._memory.forget = []
        slot.sent()

    def _send_forgotten(self) -> None:
        if self.channel is None:
            return
        try:
            self.channel.send({"forget": self._memory.forget})
        except OSError:
            return  # the worker hears of it with the next call, or is dying
        self._memory.forget = []


@dataclass(slots=True)
class _Column:
    """One input of the model: the parts that the calls of an execution have of it.

    `located` is the ring that it lies in and its offset there, None for an input that is copied.
    """

    parts: Sequence[Input]
    located: tuple[Ring, int] | None

    @property
    def nbytes(self) -> int:
        """Bytes to copy."""
        return sum(part.source.nbytes for part in self.parts) if self.located is None else 0

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        return first if len(self.parts) == 1 else (sum(part.shape[0] for part in self.parts), *first[1:])

    def write_into(self, view: memoryview, offset: int) -> None:
        for part in self.parts:
            end = offset + part.source.nbytes
            part.source.write_into(view[offset:end])
            offset = end

    def pack(self, number: int, offset: int) -> list[Any]:
        """Describe the input in a message: it lies at `offset` in the memory of this number."""
        first = self.parts[0]
        return [first.name, first.dtype.str, self.shape, number, offset, _pack_conversion(first)]


def _column(parts: Sequence[Input]) -> _Column:
    source = parts[0].source  # a shared source is never joined with another
    return _Column(parts, source.locate() if isinstance(source, SharedSource) else None)


def _pack_conversion(each: Input) -> list[Any] | None:
    if each.conversion is None:
        return None
    converter, conversion = each.conversion
    return [converter.address, converter.chip, pack_conversion(conversion)]


def read_answer(execution: Execution, message: Mapping[str, Any], descriptors: Sequence[int]) -> Answer:
    """Copy the outputs out of shared memory. A descriptor is of a larger segment, which takes the slot's from now on.

    Raises the error that the worker answers, `DeviceError` for an answer that lies outside the memory, `OSError` or
    `MemoryError` if memory is short.
    """
    slot = execution.slot
    assert slot is not None  # noqa: S101 - an execution has one until it is given back
    for descriptor in descriptors:
        slot.segment = Segment.adopt(descriptor)
    if "error" in message:
        raise unpack_error(message["error"])
    view = slot.segment.view
    outputs = []
    for name, code, shape, offset in message["outputs"]:
        dtype = np.dtype(code)
        end = offset + prod(shape) * dtype.itemsize
        if end > len(view):
            raise DeviceError(f"output {name!r} ends at byte {end} of a segment of {len(view)}")
        outputs.append(Output(name, dtype, tuple(shape), bytes(view[offset:end])))
    return Answer(tuple(outputs), *message["times"])
