"""The front's end of a model in a worker: it takes calls, and lives on when the worker dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from acap_runtime.chips.batches import Batcher, make_joinable, split
from acap_runtime.chips.calls import Answer, Call, Input
from acap_runtime.chips.executions import Execution, Executions, read_answer
from acap_runtime.chips.queue import CallQueue
from acap_runtime.chips.statistics import Statistics
from acap_runtime.contract.backend import TensorSpec
from acap_runtime.contract.batching import ALONE, Batching
from acap_runtime.errors import AcapError, Busy
from acap_runtime.link.messages import Channel, unpack_error, unpack_spec

_LOG = logging.getLogger(__name__)

WarmUp: TypeAlias = Callable[[Sequence[TensorSpec]], Awaitable[Sequence[Sequence[Input]]]]
"""Makes the calls that a model runs before it counts as loaded, from the inputs that it takes."""


@dataclass(eq=False)
class RemoteModel:
    """A model that a worker has, or is about to have.

    It outlives the worker's process: after a crash it is attached to the next one. Calls that wait in the queue when
    the worker dies go on waiting; those that the chip had fail.

    `batches` is True if calls may run together: batching is asked for, and every first dimension is open. `error` is
    set while calls are refused, and gives the reason. `load_s` is the time that the last load took. `suspicion` grows
    when the worker dies while it loads this model. `lost_since` is the time at which the worker closed its end of the
    channel (monotonic seconds).
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
    batches: bool = False
    error: AcapError | None = None
    load_s: float = 0.0
    suspicion: int = 0
    lost_since: float | None = None
    statistics: Statistics = field(default_factory=Statistics)
    _executions: Executions = field(default_factory=Executions)
    _output_sizes: Sequence[int] = ()  # in bytes, 0 for an output of open shape
    _loading: asyncio.Future[None] | None = None
    _ready: bool = False  # loaded and warm
    _open: bool = False  # ready, and nothing known to be wrong with the channel
    _lost: AcapError | None = None  # the end of the last worker that had it

    def __post_init__(self) -> None:
        self._batcher = Batcher(self.queue, self.batching, self._dispatch)

    @property
    def attached(self) -> bool:
        """True if a living worker has this model, loaded or loading."""
        return self._executions.channel is not None

    @property
    def loading(self) -> bool:
        """True if a worker loads this model, or warms it up."""
        return self.attached and not self._ready

    @property
    def serving(self) -> bool:
        """True if a call would run."""
        return self._open and self.error is None

    @property
    def idle(self) -> bool:
        """True if the chip has no call of this model, not even one that nobody waits for any more."""
        return not self._executions and not self.queue

    @property
    def running(self) -> int:
        """The number of calls that the chip has."""
        return self._executions.calls

    @property
    def running_since(self) -> float | None:
        """The time at which the longest running call reached the chip (monotonic seconds), None if none runs."""
        return self._executions.running_since

    async def attach(self, channel: Channel) -> None:
        """Take the channel to a worker that was told to load this model. Wait until it is loaded and warm.

        Raises the error that the worker answers, or `Unavailable` if it dies meanwhile.
        """
        self._executions.channel, self._lost = channel, None
        loop = asyncio.get_running_loop()
        self._loading = loop.create_future()
        loop.add_reader(channel.fileno(), self._receive)
        try:
            await self._loading
            await self._run_warm_up()
        except BaseException:
            self._disconnect()
            raise
        finally:
            self._loading = None
        self.error = None
        self._ready = self._open = self._executions.channel is channel
        self._dispatch()

    def stop_sending(self) -> None:
        """Send the worker nothing more, as it is about to end."""
        self._open = False

    def detach(self, error: AcapError) -> int:
        """Fail the calls that ran, as the worker is gone. Returns their number.

        Calls that wait, and those that lay ready in the worker, wait for the next one.
        """
        executions = self._disconnect()
        self._lost, self.lost_since = error, None
        if self._loading is not None and not self._loading.done():
            self._loading.set_exception(error)
        self.queue.pace.interrupt()
        return sum(execution.abandon(self.queue, error) for execution in executions)

    def refuse(self, error: AcapError) -> None:
        """Fail all waiting and future calls with `error`, until the model is attached again."""
        self.error = error
        self.queue.fail_all(error)

    async def run(self, inputs: Sequence[Input], outputs: Sequence[str], until: float) -> Answer:
        """Run the model once: `outputs` names those wanted (none for all), `until` is the deadline (monotonic).

        Raises `Busy` if the queue is full or the deadline cannot be kept, `TooLate` if it passed, `Unavailable` if the
        worker dies, and the error that the plugin raises.
        """
        call = Call(inputs, outputs, until, time.monotonic(), asyncio.get_running_loop().create_future())
        self.statistics.last_ms = time.time_ns() // 1_000_000
        if self.batches:
            make_joinable(call)
        try:
            if self.error is not None:
                raise self.error.copy()
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
        # One call more than can run lies ready in the worker, so that no instance waits for a message. Where calls run
        # together, it waits here instead, for others to join it.
        return self._open and len(self._executions) <= self.instances - self.batches

    def _dispatch(self) -> None:
        """Send calls to the worker as long as it has room for them."""
        while self._has_room() and (batch := self._batcher.next_batch()):
            for call in batch:
                self.queue.remove(call)
            self._send(batch)
        self._executions.mark_started(self.instances)

    def _send(self, batch: Sequence[Call]) -> None:
        execution = Execution(batch)
        try:
            self._executions.send(execution, self._output_sizes)
        except AcapError as error:
            self._batcher.reject(batch, error)
        except BlockingIOError:
            execution.fail(Busy(f"the worker takes no more messages for model {self.name}"))
        except OSError:
            # The worker is dying. The supervisor will attach this model to the next one, which gets the calls.
            self._open = False
            for call in batch:
                self.queue.put_back(call)
        else:
            now = time.monotonic()
            for call in batch:
                self.statistics.queued.add(now - call.came)

    async def _run_warm_up(self) -> None:
        """Run the calls that warm the model up. Raises the error of the first that fails."""
        for inputs in await self.warm_up(self.inputs) if self.warm_up else ():
            if self._lost is not None:
                raise self._lost.copy()
            try:
                await self._run_on_all_instances(inputs)
            except OSError:
                # The worker is dying. The supervisor will say so.
                self._loading = asyncio.get_running_loop().create_future()
                await self._loading
            except AcapError as error:
                raise type(error)(f"the model fails when it is warmed up: {error}") from None

    async def _run_on_all_instances(self, inputs: Sequence[Input]) -> None:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        calls = [Call(inputs, (), float("inf"), now, loop.create_future()) for _ in range(self.instances)]
        for call in calls:
            self._executions.send(Execution([call], started=now), self._output_sizes)
        await asyncio.gather(*(call.future for call in calls))

    def _receive(self) -> None:
        channel = self._executions.channel
        assert channel is not None  # noqa: S101 - nothing is read once the channel is closed
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
        self._output_sizes = [spec.nbytes or 0 for spec in self.outputs]
        open_rows = all(spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))
        self.batches = self.batching.size > 1 and open_rows
        loading.set_result(None)

    def _finish_execution(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        execution = self._executions.take_answered(message)
        try:
            answer = read_answer(execution, message, descriptors)
            self._note(execution, answer)
            execution.finish(split(answer, execution.calls))
        except AcapError as error:
            execution.fail(error)
        except (OSError, MemoryError) as error:
            execution.fail(Busy(f"no memory for the answer of model {self.name}: {error}"))
        self._executions.give_back(execution)
        self._dispatch()

    def _note(self, execution: Execution, answer: Answer) -> None:
        if not self._ready:
            return  # a warm-up is no client's call
        self.statistics.note_execution(execution.rows, answer.conversion_s, answer.run_s, most_rows=self.batching.size)
        run_s = time.monotonic() - (execution.started or execution.calls[0].came)
        self.queue.pace.note(run_s, len(execution.calls), more=bool(self._executions))

    def _disconnect(self) -> list[Execution]:
        """Close the channel to the worker, if there is one. Returns the executions that it had."""
        self._open = self._ready = False
        self._batcher.cancel_wait()
        if self._executions.channel is not None:
            asyncio.get_running_loop().remove_reader(self._executions.channel.fileno())
        return self._executions.close()
