"""Runs a plugin's parameter store in a process of its own, which answers one question at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from acap_runtime.contract.unexpected import unexpected
from acap_runtime.errors import Busy, DeviceError, Unavailable
from acap_runtime.link.messages import Channel, Message, unpack_error
from acap_runtime.link.process import LONGEST_DEATH_S, WorkerProcess
from acap_runtime.link.restarts import RestartBackoff, RestartPolicy
from acap_runtime.plugins.installed import InstalledStore
from acap_runtime.stores import Store
from acap_runtime.stores.listing import bare

_LOG = logging.getLogger(__name__)


class RemoteStore(Store):
    """A plugin's store. Its process starts with the first call.

    A call waits up to `patience_s` seconds for its turn, and as long again for its answer. A process that does not
    answer in time is killed. The next call after its end starts it again, with the back-off of `restarts`.
    """

    def __init__(
        self,
        installed: InstalledStore,
        restarts: RestartPolicy = RestartPolicy(),
        *,
        patience_s: float = 10.0,
        verbose: bool = False,
    ) -> None:
        self._installed = installed
        self._patience_s = patience_s
        self._verbose = verbose
        self._turn = asyncio.Lock()
        self._starting: asyncio.Task[_Conversation] | None = None
        self._conversation: _Conversation | None = None
        self._backoff = RestartBackoff(restarts)
        self._last_end = ""
        self._closed = False

    def __str__(self) -> str:
        return str(self._installed)

    async def probe(self) -> None:
        await self._running()

    async def get(self, key: str) -> str | None:
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._patience_s):
                    await stack.enter_async_context(self._turn)
                    conversation = await self._running()
            except TimeoutError:
                raise Unavailable(f"{self} was not ready within {self._patience_s:g} s; try again later") from None
            # Plugins know only keys that start with root.
            answer = await conversation.ask(f"root.{bare(key)}", self._patience_s)
        if "error" in answer:
            raise unpack_error(answer["error"])
        value: str | None = answer["value"]
        if value is not None and not _is_text(value):
            raise DeviceError(f"{self} gave a value for {key} that is no Unicode text")
        return value

    async def close(self) -> None:
        """End the process, within 3 seconds, or 6 if it has to be killed."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._conversation is not None:
            await self._conversation.end()

    async def _running(self) -> _Conversation:
        """Return the conversation with the process, which is started if there is none.

        All callers share one start. It continues if any of them gives up.
        """
        if self._closed:
            raise Unavailable(f"{self}: the server stops")
        if self._conversation is not None:
            if not self._conversation.over:
                return self._conversation
            self._note_death(self._conversation.process.described_end)
            self._conversation = None
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)

    def _started(self, task: asyncio.Task[_Conversation]) -> None:
        self._starting = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._conversation = task.result()
        elif not isinstance(error, _Resting):
            self._note_death(f"could not be started: {unexpected(error)}")

    async def _start(self) -> _Conversation:
        await self._wait_to_restart()
        config = {
            "kind": "store",
            "address": self._installed.plugin.address,
            "name": self._installed.store.name,
            "verbose": self._verbose,
        }
        process = await WorkerProcess.start(str(self), config)
        try:
            channel = process.open_channel({})
        except BaseException:
            await process.end()
            raise
        _LOG.info("worker of %s started, process %d", self, process.pid)
        return _Conversation(str(self), process, channel)

    def _note_death(self, reason: str) -> None:
        self._backoff.note_death()
        self._last_end = reason

    async def _wait_to_restart(self) -> None:
        backoff = self._backoff
        if backoff.exhausted and (rest_s := backoff.remaining_s) > 0:
            raise _Resting(
                f"{self} failed {backoff.deaths} times of late and is tried again in {rest_s:.0f} s; "
                f"the last time its worker {self._last_end}"
            )
        await backoff.wait()


class _Resting(Unavailable):
    """The store's process ended too often recently. The attempt that raises this does not count as an end."""


class _Conversation:
    """A process, and the channel on which it answers one question at a time."""

    def __init__(self, label: str, process: WorkerProcess, channel: Channel) -> None:
        self.process = process
        self._label = label
        self._channel = channel
        self._number = 0
        self._answer: asyncio.Future[Message] | None = None
        self._silent_since: float | None = None  # set while an answer is due, possibly to a caller that has given up
        self._ending = False
        asyncio.get_running_loop().add_reader(channel.fileno(), self._receive)
        self._watching = asyncio.create_task(self._watch())

    @property
    def over(self) -> bool:
        return self._watching.done()

    async def ask(self, key: str, patience_s: float) -> Message:
        """Ask for a key. Raises `Unavailable` if the process ends first, or takes too long and is killed."""
        self._number += 1
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answer = answer
        try:
            async with asyncio.timeout(self._silent_since + patience_s - time.monotonic()):
                try:
                    self._channel.send({"number": self._number, "key": key})
                except BlockingIOError:
                    raise Busy(f"{self._label} has too many questions already; try again later") from None
                except OSError as error:
                    _LOG.debug("the worker of %s is ending: %s", self._label, error)  # _watch reports the kind of end
                return await answer
        except TimeoutError:
            reason = f"was killed: it did not answer within {patience_s:g} s"
            self.process.kill(reason)
            await asyncio.wait((self._watching,), timeout=LONGEST_DEATH_S)
            raise Unavailable(f"the worker of {self._label} {reason}") from None
        finally:
            self._answer = None

    async def end(self) -> None:
        self._ending = True
        self._drop_channel()
        await self.process.end()
        await asyncio.wait((self._watching,), timeout=LONGEST_DEATH_S)
        self._watching.cancel()  # a process that cannot be killed is still being watched

    async def _watch(self) -> None:
        await self.process.wait()
        self._drop_channel()
        if not self._ending:
            _LOG.error("worker of %s %s", self._label, self.process.described_end)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable(f"the worker of {self._label} {self.process.described_end}"))

    def _receive(self) -> None:
        try:
            received = self._channel.receive()
        except BlockingIOError:
            return
        if received is None:
            # Usually the process is dying. Without a channel it cannot answer in any case.
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._channel.fileno())
            loop.call_later(LONGEST_DEATH_S, self.process.kill, "was killed: it closed its channel and did not end")
            return
        message, _ = received
        if message["number"] != self._number:
            self._silent_since = time.monotonic()  # the answer to an earlier question, whose caller has given up
            return
        self._silent_since = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    def _drop_channel(self) -> None:
        if self._channel.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()


def _is_text(value: Any) -> bool:
    # JSON can carry half of a surrogate pair; protobuf cannot.
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
