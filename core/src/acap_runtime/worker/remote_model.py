"""The front's end of a model in a worker: its queue, the calls that the chip has, the memory that tensors cross by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from acap_runtime.backend import TensorSpec
from acap_runtime.errors import AcapError, Busy, DeviceError
from acap_runtime.worker.calls import Admission, Answer, Input, Output, SharedSource
from acap_runtime.worker.memory import CallMemory, Slot
from acap_runtime.worker.messages import Channel, pack_conversion, unpack_error, unpack_spec
from acap_runtime.worker.ring import Ring
from acap_runtime.worker.segment import Segment, layout

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Call:
    inputs: Sequence[Input]
    outputs: Sequence[str]
    until: float
    future: asyncio.Future[Answer]
    slot: Slot | None = None
    rings: list[Ring] = field(default_factory=list)
    started: float | None = None


@dataclass(eq=False)
class RemoteModel:
    """A model that a worker has, or is about to have.

    It outlives the worker's process: after a crash it is attached to the next one. `error` is set while calls are
    refused, and says why. Calls that wait in the queue when the worker dies go on waiting; those that the chip had
    fail. `suspicion` grows when the worker dies while it loads this model; `lost_since` is when the worker closed its
    end (monotonic seconds).
    """

    name: str
    path: Path
    options: Mapping[str, str]
    instances: int
    admission: Admission
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    error: AcapError | None = None
    suspicion: int = 0
    lost_since: float | None = None
    _channel: Channel | None = None
    _open: bool = False  # loaded, and nothing known to be wrong with the channel
    _loading: asyncio.Future[None] | None = None
    _waiting: deque[_Call] = field(default_factory=deque)
    _running: dict[int, _Call] = field(default_factory=dict)
    _last_call: int = 0

    def __post_init__(self) -> None:
        self._memory = CallMemory(self._tell_forgotten)

    @property
    def attached(self) -> bool:
        """Whether a living worker has this model, loaded or loading."""
        return self._channel is not None

    @property
    def idle(self) -> bool:
        """Whether the chip has no call of this model, not even one that nobody waits for any more."""
        return not self._running and not self._waiting

    @property
    def loading(self) -> bool:
        return self._loading is not None

    @property
    def running_since(self) -> float | None:
        """When the longest running call reached the chip (monotonic seconds)."""
        return min((call.started for call in self._running.values() if call.started is not None), default=None)

    async def attach(self, channel: Channel) -> None:
        """Take the channel to a worker that was told to load this model, and wait until it has.

        Raises the error that the worker answers, or `Unavailable` where it dies meanwhile.
        """
        self._channel = channel
        loop = asyncio.get_running_loop()
        self._loading = loop.create_future()
        loop.add_reader(channel.fileno(), self._receive)
        try:
            await self._loading
        except BaseException:
            self._drop_channel()
            raise
        finally:
            self._loading = None
        self.error = None
        self._open = self._channel is channel
        self._dispatch()

    def hold(self) -> None:
        """Send the worker nothing more: it is about to end."""
        self._open = False

    def detach(self, error: AcapError) -> int:
        """The worker is gone: fail the calls that ran, and say how many they were; the others wait for the next."""
        self._drop_channel()
        self.lost_since = None
        if self._loading is not None and not self._loading.done():
            self._loading.set_exception(error)
        calls = list(self._running.values())
        self._running.clear()
        failed = 0
        for call in reversed(calls):
            call.slot = None  # its memory goes now, not when the caller's traceback does
            call.rings.clear()
            if call.future.done():
                continue
            if call.started is None:
                self._waiting.appendleft(call)  # it lay ready beside those that ran
                self.admission.waiting += 1
            else:
                call.future.set_exception(error.again())
                failed += 1
        return failed

    def refuse(self, error: AcapError) -> None:
        """Answer with `error` whatever waits and whatever comes, until the model is attached again."""
        self.error = error
        while self._waiting:
            call = self._take_waiting()
            if not call.future.done():
                call.future.set_exception(error.again())

    async def run(self, inputs: Sequence[Input], outputs: Sequence[str], until: float) -> Answer:
        """Run the model once: `outputs` names those wanted (none for all), `until` is the deadline (monotonic).

        Raises `Busy` where the chip's queue is full, `Unavailable` where the worker dies, and what the plugin raises.
        """
        if self.error is not None:
            raise self.error.again()
        if not self._has_room():
            self.admission.check()
        call = _Call(inputs, outputs, until, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self.admission.waiting += 1
        self._dispatch()
        try:
            return await call.future
        except asyncio.CancelledError:
            if call in self._waiting:
                self._waiting.remove(call)
                self.admission.waiting -= 1
            raise

    def _has_room(self) -> bool:
        # One call more than can run lies ready in the worker, so that no instance waits for a message.
        return self._open and len(self._running) <= self.instances

    def _take_waiting(self) -> _Call:
        self.admission.waiting -= 1
        return self._waiting.popleft()

    def _dispatch(self) -> None:
        while self._waiting and self._has_room():
            call = self._take_waiting()
            if call.future.done():
                continue  # cancelled a moment ago
            try:
                self._send(call)
            except AcapError as error:
                call.future.set_exception(error)
            except BlockingIOError:
                call.future.set_exception(Busy(f"the worker takes no more messages for model {self.name}"))
            except OSError:
                # The worker is dying. The supervisor will attach this model to the next one, which gets the call.
                self._open = False
                self._waiting.appendleft(call)
                self.admission.waiting += 1
        self._mark_started()

    def _send(self, call: _Call) -> None:
        channel = self._channel
        assert channel is not None  # noqa: S101 - _has_room said so
        places = [each.source.locate() if isinstance(each.source, SharedSource) else None for each in call.inputs]
        own = [0 if place else each.source.nbytes for each, place in zip(call.inputs, places, strict=True)]
        offsets, end = layout(own)
        _, whole = layout([spec.nbytes or 0 for spec in self.outputs], end)
        slot = self._memory.take(whole)
        bring = {} if slot.known else {slot.number: slot.segment.descriptor}
        inputs = []
        try:
            for each, place, offset in zip(call.inputs, places, offsets, strict=True):
                number, at = slot.number, offset
                if place:
                    ring, at = place
                    call.rings.append(ring)
                    number = self._memory.enter_ring(ring)
                    bring[number] = ring.segment.descriptor
                else:
                    each.source.write_into(slot.segment.view[offset : offset + each.source.nbytes])
                inputs.append([each.name, each.dtype.str, each.shape, number, at, _pack_conversion(each)])
            self._last_call += 1
            channel.send(
                {
                    "call": self._last_call,
                    "segment": slot.number,
                    "forget": self._memory.forget,
                    "bring": list(bring),
                    "inputs": inputs,
                    "end": end,
                    "outputs": call.outputs,
                    "until": call.until,
                },
                *bring.values(),
            )
        except BaseException:
            self._give_back(call, slot)
            raise
        self._memory.forget = []
        slot.sent()
        call.slot = slot
        self._running[self._last_call] = call

    def _give_back(self, call: _Call, slot: Slot) -> None:
        self._memory.give_back(slot)
        for ring in call.rings:
            self._memory.leave_ring(ring)
        call.rings.clear()

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
        for call in islice(self._running.values(), self.instances):
            if call.started is None:
                call.started = now

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
        elif self._loading is not None:
            self._finish_loading(received[0])
        else:
            self._finish_call(*received)

    def _finish_loading(self, message: Mapping[str, Any]) -> None:
        loading = self._loading
        if loading is None or loading.done():
            return
        if "error" in message:
            loading.set_exception(unpack_error(message["error"]))
            return
        self.inputs = tuple(unpack_spec(packed) for packed in message["inputs"])
        self.outputs = tuple(unpack_spec(packed) for packed in message["outputs"])
        loading.set_result(None)

    def _finish_call(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        call = self._running.pop(message["call"])
        slot = call.slot
        assert slot is not None  # noqa: S101 - every running call has one
        try:
            for descriptor in descriptors:
                slot.segment = Segment.adopt(descriptor)
            if "error" in message:
                raise unpack_error(message["error"])
            answer = None if call.future.done() else _read_answer(message, slot.segment.view)
        except AcapError as error:
            if not call.future.done():
                call.future.set_exception(error)
        except (OSError, MemoryError) as error:
            if not call.future.done():
                call.future.set_exception(Busy(f"no memory for the answer of model {self.name}: {error}"))
        else:
            if answer is not None:
                call.future.set_result(answer)
        self._give_back(call, slot)
        self._dispatch()

    def _drop_channel(self) -> None:
        channel, self._channel, self._open = self._channel, None, False
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel.fileno())
            channel.close()
        self._memory.clear()


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
