"""Chooses the calls of a model's queue that run next, several together where they may."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from acap_runtime.chips.calls import Answer, Call, Output, SharedSource
from acap_runtime.chips.queue import CallQueue
from acap_runtime.contract.batching import Batching
from acap_runtime.errors import AcapError, DeviceError


class Batcher:
    """Chooses the next batch: one call that runs alone, or several that run together.

    `run_batch` is called when a batch has waited for further calls as long as it may.
    """

    def __init__(self, queue: CallQueue, batching: Batching, run_batch: Callable[[], None]) -> None:
        self._queue = queue
        self._batching = batching
        self._run_batch = run_batch
        self._timer: asyncio.TimerHandle | None = None

    def next_batch(self) -> list[Call]:
        """Return the calls that run next, which stay in the queue; none while the batch waits for further calls."""
        first = self._queue.first()
        if first is None:
            return []
        if first.rows is None:
            return [first]
        batch, rows = self._batch_with(first)
        if rows >= self._batching.size or (wait_s := self._wait_s(batch)) <= 0:
            return batch
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._end_wait)
        return []

    def cancel_wait(self) -> None:
        """Do not call `run_batch` for the batch that waits now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reject(self, batch: Sequence[Call], error: AcapError) -> None:
        """Fail a call that was to run alone. Put back the calls of a larger batch, to run alone: one is at fault."""
        for call in batch:
            if len(batch) == 1:
                call.fail(error)
            else:
                call.rows = None
                self._queue.put_back(call)

    def _batch_with(self, first: Call) -> tuple[list[Call], int]:
        """Return the first call with those that fit beside it, and the number of their rows."""
        batch, rows = [], 0
        for call in self._queue:
            if call.rows is not None and call.kind == first.kind and not call.future.done():
                if call is not first and rows + call.rows > self._batching.size:
                    continue
                batch.append(call)
                rows += call.rows
        return batch, rows

    def _wait_s(self, batch: Sequence[Call]) -> float:
        """Return for how long the batch may wait: no call beyond the delay, the first within its deadline."""
        delay_ends = min(call.came for call in batch) + self._batching.delay_s
        return min(delay_ends, self._queue.latest_start(batch[0])) - time.monotonic()

    def _end_wait(self) -> None:
        self._timer = None
        self._run_batch()


def make_joinable(call: Call) -> None:
    """Let a call run together with others of the same outputs and row shapes, unless one of its inputs forbids it."""
    rows = {each.shape[0] for each in call.inputs}
    alone = any(each.conversion is not None or isinstance(each.source, SharedSource) for each in call.inputs)
    if alone or len(rows) != 1 or 0 in rows:
        return
    call.rows = rows.pop()
    call.kind = (tuple(call.outputs), *((each.name, each.shape[1:]) for each in call.inputs))


def split(answer: Answer, batch: Sequence[Call]) -> Sequence[Answer]:
    """Return each call's rows of an answer.

    Raises `DeviceError` if an output has another number of rows than the calls have together.
    """
    if len(batch) == 1:
        return [answer]
    counts = [call.rows or 0 for call in batch]
    for output in answer.outputs:
        if output.shape[0] != sum(counts):
            raise DeviceError(
                f"output {output.name!r}: expected {sum(counts)} rows of calls that ran together, got {output.shape[0]}"
            )
    answers, start = [], 0
    for count in counts:
        answers.append(replace(answer, outputs=tuple(_rows(output, start, count) for output in answer.outputs)))
        start += count
    return answers


def _rows(output: Output, start: int, count: int) -> Output:
    size = len(output.content) // output.shape[0]
    content = output.content[start * size : (start + count) * size]
    return Output(output.name, output.dtype, (count, *output.shape[1:]), content)
