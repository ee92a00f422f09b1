"""The front's end of a model in a worker: its queue, the calls that the chip has, the memory that tensors cross by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from acap_runtime.chips.calls import Answer, Call, Input, Output, SharedSource
from acap_runtime.chips.memory import CallMemory, Slot
from acap_runtime.chips.queue import CallQueue
from acap_runtime.chips.statistics import Statistics, Total
from acap_runtime.contract.backend import TensorSpec
from acap_runtime.contract.batching import ALONE, Batching
from acap_runtime.errors import AcapError, Busy, DeviceError
from acap_runtime.link.messages import Channel, pack_conversion, unpack_error, unpack_spec
from acap_runtime.link.ring import Ring
from acap_runtime.link.segment import Segment, layout

_LOG = logging.getLogger(__name__)

WarmUp: TypeAlias = Callable[[Sequence[TensorSpec]], Awaitable[Sequence[Sequence[Input]]]]
"""Makes the calls that a model runs before it counts as loaded, from the inputs that it takes."""


@dataclass(slots=True, eq=False)
class _Execution:
    """Calls that are one message to the worker, and run together there."""

    calls: Sequence[Call]
    slot: Slot | None = None
    rings: list[Ring] = field(default_factory=list)
    started: float | None = None


@dataclass(eq=False)
class RemoteModel:
    """A model that a worker has, or is about to have.

    It outlives the worker's process: after a crash it is attached to the next one. `error` is set while calls are
    refused, and says why. Calls that wait in the queue when the worker dies go on waiting; those that the chip had
    fail. `load_s` is how long loading took the last time; `suspicion` grows when the worker dies while it loads this
    model; `lost_since` is when the worker closed its end (monotonic seconds).
    """

    name: str
    path: Path
    options: Mapping[str, str]
    instances: int
    queue: CallQueue
    batching: Batching = ALONE
    warm_up: WarmUp | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    error: AcapError | None = None
    load_s: float = 0.0
    suspicion: int = 0
    lost_since: float | None = None
    statistics: Statistics = field(default_factory=Statistics)
    _channel: Channel | None = None
    _ready: bool = False  # loaded and warm
    _open: bool = False  # ready, and nothing known to be wrong with the channel
    _lost: AcapError | None = None  # how the last worker that had it went
    _loading: asyncio.Future[None] | None = None
    _running: dict[int, _Execution] = field(default_factory=dict)
    _last_execution: int = 0
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self._memory = CallMemory(self._tell_forgotten)

    @property
    def attached(self) -> bool:
        """Whether a living worker has this model, loaded or loading."""
        return self._channel is not None

    @property
    def idle(self) -> bool:
        """Whether the chip has no call of this model, not even one that nobody waits for any more."""
        return not self._running and not self.queue

    @property
    def loading(self) -> bool:
        return self._channel is not None and not self._ready

    @property
    def serving(self) -> bool:
        """Whether a call would run."""
        return self._open and self.error is None

    @property
    def running(self) -> int:
        """How many calls the chip has."""
        return sum(len(execution.calls) for execution in self._running.values())

    @property
    def running_since(self) -> float | None:
        """When the longest running call reached the chip (monotonic seconds)."""
        return min((each.started for each in self._running.values() if each.started is not None), default=None)

    @property
    def batches(self) -> bool:
        """Whether calls may run together: where that is asked for, and every first dimension is open."""
        return self.batching.size > 1 and all(spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))

    async def attach(self, channel: Channel) -> None:
        """Take the channel to a worker that was told to load this model, and wait until it has, and has run what is to
        warm it up.

        Raises the error that the worker answers, or `Unavailable` where it dies meanwhile.
        """
        self._channel, self._lost = channel, None
        loop = asyncio.get_running_loop()
        self._loading = loop.create_future()
        loop.add_reader(channel.fileno(), self._receive)
        try:
            await self._loading
            await self._warm(loop)
        except BaseException:
            self._drop_channel()
            self._running.clear()
            raise
        finally:
            self._loading = None
        self.error = None
        self._ready = self._open = self._channel is channel
        self._dispatch()

    def hold(self) -> None:
        """Send the worker nothing more: it is about to end."""
        self._open = False

    def detach(self, error: AcapError) -> int:
        """The worker is gone: fail the calls that ran, and say how many they were; the others wait for the next."""
        self._drop_channel()
        self._lost, self.lost_since = error, None
        if self._loading is not None and not self._loading.done():
            self._loading.set_exception(error)
        executions = list(self._running.values())
        self._running.clear()
        self.queue.pace.interrupt()
        failed = 0
        for execution in executions:
            execution.slot = None  # its memory goes now, not when the caller's traceback does
            execution.rings.clear()
            for call in execution.calls:
                if call.future.done():
                    continue
                if execution.started is None:
                    self.queue.put_back(call)  # it lay ready beside those that ran
                else:
                    call.fail(error)
                    failed += 1
        return failed

    def refuse(self, error: AcapError) -> None:
        """Answer with `error` whatever waits and whatever comes, until the model is attached again."""
        self.error = error
        for call in list(self.queue):
            self.queue.remove(call)
            call.fail(error)

    async def run(self, inputs: Sequence[Input], outputs: Sequence[str], until: float) -> Answer:
        """Run the model once: `outputs` names those wanted (none for all), `until` is the deadline (monotonic).

        Raises `Busy` where the model's queue is full or the deadline cannot be kept, `TooLate` where it passed,
        `Unavailable` where the worker dies, and what the plugin raises.
        """
        call = Call(inputs, outputs, until, time.monotonic(), asyncio.get_running_loop().create_future())
        self.statistics.last_ms = time.time_ns() // 1_000_000
        if self.batches:
            call.rows, call.kind = _joinable(call)
        try:
            if self.error is not None:
                raise self.error.again()
            self._admit(call)
            self._dispatch()
            answer = await call.future
        except BaseException as error:
            self.queue.remove(call)
            if isinstance(error, Busy):
                self.statistics.refused += 1
            self.statistics.failed.add(time.monotonic() - call.came)
            raise
        self.statistics.succeeded.add(time.monotonic() - call.came)
        return answer

    def _admit(self, call: Call) -> None:
        if self._has_room() and not self.queue:
            self.queue.put_back(call)  # it goes at once
        else:
            self.queue.admit(call, self.running)

    def _has_room(self) -> bool:
        # One call more than can run lies ready in the worker, so that no instance waits for a message; where calls run
        # together, they had better wait here, for others to join them.
        return self._open and len(self._running) <= self.instances - self.batches

    def _dispatch(self) -> None:
        while self._has_room() and (calls := self._next_calls()):
            for call in calls:
                self.queue.remove(call)
            try:
                self._send(_Execution(calls))
            except AcapError as error:
                self._part(calls, error)
            except BlockingIOError:
                for call in calls:
                    call.fail(Busy(f"the worker takes no more messages for model {self.name}"))
            except OSError:
                # The worker is dying. The supervisor will attach this model to the next one, which gets the calls.
                self._open = False
                for call in calls:
                    self.queue.put_back(call)
        self._mark_started()

    def _part(self, calls: Sequence[Call], error: AcapError) -> None:
        """What one call did wrong is not for those to suffer that were to run with it."""
        for call in calls:
            if len(calls) == 1:
                call.fail(error)
            else:
                call.rows = None
                self.queue.put_back(call)

    def _next_calls(self) -> list[Call]:
        """The calls that run next, together; none where more may join them within the time that is allowed."""
        first = self.queue.first()
        if first is None:
            return []
        if first.rows is None:
            return [first]
        calls, rows = [], 0
        for call in self.queue:
            if call.rows is not None and call.kind == first.kind and not call.future.done():
                if call is not first and rows + call.rows > self.batching.size:
                    continue
                calls.append(call)
                rows += call.rows
        waits_until = min(call.came for call in calls) + self.batching.delay_s
        wait_s = min(waits_until, self.queue.latest_start(first)) - time.monotonic()
        if rows >= self.batching.size or wait_s <= 0:
            return calls
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._stop_waiting)
        return []

    def _stop_waiting(self) -> None:
        self._timer = None
        self._dispatch()

    async def _warm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run what is to warm the model up, on all instances at once. Raises what that raises."""
        for inputs in await self.warm_up(self.inputs) if self.warm_up else ():
            if self._lost is not None:
                raise self._lost.again()
            now = time.monotonic()
            executions = [
                _Execution([Call(inputs, (), float("inf"), now, loop.create_future())], started=now)
                for _ in range(self.instances)
            ]
            try:
                for execution in executions:
                    self._send(execution)
                await asyncio.gather(*(execution.calls[0].future for execution in executions))
            except OSError:
                # The worker is dying. The supervisor will say so.
                self._loading = loop.create_future()
                await self._loading
            except AcapError as error:
                raise type(error)(f"the model fails when it is warmed up: {error}") from None

    def _send(self, execution: _Execution) -> None:
        channel = self._channel
        assert channel is not None  # noqa: S101 - _has_room said so
        calls = execution.calls
        columns = list(zip(*(call.inputs for call in calls), strict=True))
        places = [each.source.locate() if isinstance(each.source, SharedSource) else None for each, *_ in columns]
        sizes = [
            0 if place else sum(each.source.nbytes for each in column)
            for column, place in zip(columns, places, strict=True)
        ]
        offsets, end = layout(sizes)
        rows = sum(call.rows or 1 for call in calls) if len(calls) > 1 else 1
        _, whole = layout([(spec.nbytes or 0) * rows for spec in self.outputs], end)
        slot = self._memory.take(whole)
        bring = {} if slot.known else {slot.number: slot.segment.descriptor}
        inputs = []
        try:
            for column, place, offset in zip(columns, places, offsets, strict=True):
                number, at = slot.number, offset
                if place:
                    ring, at = place
                    execution.rings.append(ring)
                    number = self._memory.enter_ring(ring)
                    bring[number] = ring.segment.descriptor
                else:
                    self._write(column, slot.segment.view, offset)
                first = column[0]
                shape = first.shape if len(calls) == 1 else (rows, *first.shape[1:])
                inputs.append([first.name, first.dtype.str, shape, number, at, _pack_conversion(first)])
            self._last_execution += 1
            channel.send(
                {
                    "call": self._last_execution,
                    "segment": slot.number,
                    "forget": self._memory.forget,
                    "bring": list(bring),
                    "inputs": inputs,
                    "end": end,
                    "outputs": calls[0].outputs,
                    "until": max(call.until for call in calls),
                },
                *bring.values(),
            )
        except BaseException:
            self._give_back(execution, slot)
            raise
        self._memory.forget = []
        slot.sent()
        execution.slot = slot
        self._running[self._last_execution] = execution
        now = time.monotonic()
        for call in calls if self._ready else ():
            self.statistics.queued.add(now - call.came)

    @staticmethod
    def _write(column: Sequence[Input], view: memoryview, offset: int) -> None:
        for each in column:
            end = offset + each.source.nbytes
            each.source.write_into(view[offset:end])
            offset = end

    def _give_back(self, execution: _Execution, slot: Slot) -> None:
        self._memory.give_back(slot)
        for ring in execution.rings:
            self._memory.leave_ring(ring)
        execution.rings.clear()

    def _tell_forgotten(self) -> None:
        if self._channel is None:
            return
        try:
            self._channel.send({"forget": self._memory.forget})
        except OSError:
            return  # it hears of it with the next call, or is dying
        self._memory.forget = []

    def _mark_started(self) -> None:
        # The worker takes calls in the order they were sent, as many at a time as there are instances.
        now = time.monotonic()
        for execution in islice(self._running.values(), self.instances):
            if execution.started is None:
                execution.started = now

    def _receive(self) -> None:
        channel = self._channel
        assert channel is not None  # noqa: S101 - reading stops when the channel goes
        try:
            received = channel.receive()
        except BlockingIOError:
            return
        except OSError as error:
            _LOG.error("model %s: an answer cannot be received: %s", self.name, error)
            received = None
        if received is None:
            # The worker is dying, as a rule. The supervisor sees to that, and detaches this model.
            self._open = False
            self.lost_since = time.monotonic()
            asyncio.get_running_loop().remove_reader(channel.fileno())
        elif self._loading is not None and not self._loading.done():
            self._finish_loading(received[0], self._loading)
        else:
            self._finish_execution(*received)

    def _finish_loading(self, message: Mapping[str, Any], loading: asyncio.Future[None]) -> None:
        if "error" in message:
            loading.set_exception(unpack_error(message["error"]))
            return
        self.inputs = tuple(unpack_spec(packed) for packed in message["inputs"])
        self.outputs = tuple(unpack_spec(packed) for packed in message["outputs"])
        loading.set_result(None)

    def _finish_execution(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        execution = self._running.pop(message["call"])
        slot = execution.slot
        assert slot is not None  # noqa: S101 - every running execution has one
        calls = execution.calls
        try:
            for descriptor in descriptors:
                slot.segment = Segment.adopt(descriptor)
            if "error" in message:
                raise unpack_error(message["error"])
            answer = _read_answer(message, slot.segment.view)
            self._note(execution, answer)
            for call, own in zip(calls, _split(answer, calls), strict=True):
                if not call.future.done():
                    call.future.set_result(own)
        except AcapError as error:
            for call in calls:
                call.fail(error)
        except (OSError, MemoryError) as error:
            for call in calls:
                call.fail(Busy(f"no memory for the answer of model {self.name}: {error}"))
        self._give_back(execution, slot)
        self._dispatch()

    def _note(self, execution: _Execution, answer: Answer) -> None:
        if not self._ready:
            return  # what warms it up is nobody's call
        calls, statistics = execution.calls, self.statistics
        rows = sum(call.rows or 1 for call in calls)
        statistics.converted.add(answer.conversion_s)
        statistics.ran.add(answer.run_s)
        statistics.rows += rows
        if rows <= self.batching.size:
            statistics.by_rows.setdefault(rows, Total()).add(answer.run_s)
        run_s = time.monotonic() - (execution.started or calls[0].came)
        self.queue.pace.note(run_s, len(calls), more=bool(self._running))

    def _drop_channel(self) -> None:
        channel, self._channel, self._open, self._ready = self._channel, None, False, False
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel.fileno())
            channel.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._memory.clear()


def _joinable(call: Call) -> tuple[int | None, tuple[object, ...]]:
    """How many rows a call has, and what others must have like it to run with it; None where it runs alone."""
    rows = {each.shape[0] for each in call.inputs}
    alone = any(each.conversion is not None or isinstance(each.source, SharedSource) for each in call.inputs)
    if alone or len(rows) != 1 or 0 in rows:
        return None, ()
    return rows.pop(), (tuple(call.outputs), *((each.name, each.shape[1:]) for each in call.inputs))


def _split(answer: Answer, calls: Sequence[Call]) -> Sequence[Answer]:
    """Each call's rows of an answer. Raises `DeviceError` where an output has not as many as the calls together."""
    if len(calls) == 1:
        return [answer]
    rows = [call.rows or 0 for call in calls]
    for output in answer.outputs:
        if output.shape[0] != sum(rows):
            raise DeviceError(
                f"output {output.name!r}: expected {sum(rows)} rows of calls that ran together, got {output.shape[0]}"
            )
    answers, start = [], 0
    for count in rows:
        answers.append(replace(answer, outputs=tuple(_rows(output, start, count) for output in answer.outputs)))
        start += count
    return answers


def _rows(output: Output, start: int, count: int) -> Output:
    size = len(output.content) // output.shape[0]
    content = output.content[start * size : (start + count) * size]
    return Output(output.name, output.dtype, (count, *output.shape[1:]), content)


def _pack_conversion(each: Input) -> list[Any] | None:
    if each.conversion is None:
        return None
    converter, conversion = each.conversion
    return [converter.address, converter.chip, pack_conversion(conversion)]


def _read_answer(message: Mapping[str, Any], view: memoryview) -> Answer:
    outputs = []
    for name, code, shape, offset in message["outputs"]:
        dtype = np.dtype(code)
        end = offset + prod(shape) * dtype.itemsize
        if end > len(view):
            raise DeviceError(f"output {name!r} ends at byte {end} of a segment of {len(view)}")
        outputs.append(Output(name, dtype, tuple(shape), bytes(view[offset:end])))
    return Answer(tuple(outputs), *message["times"])
