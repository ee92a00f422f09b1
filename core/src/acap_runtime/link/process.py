"""The process of a worker, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from acap_runtime.errors import AcapError, Busy, NotReady, Unavailable
from acap_runtime.link.messages import Channel, Message, unpack_error

_LOG = logging.getLogger(__name__)
LONGEST_DEATH_S: Final = 1.0
"""Seconds that a process may take to end once it closed a channel or was killed."""
PROBE_TIME_S: Final = 20.0
"""Seconds that a command which probes plugins gives each of them."""
_START_TIME_S: Final = 60.0
_STOP_TIME_S: Final = 3.0
_STDERR: Final = 2
_SECRETS: Final = frozenset(
    ("ACAPRUNTIME_PARAMETERS_USER", "ACAPRUNTIME_PARAMETERS_PASSWORD", "ACAPRUNTIME_CAMERA", "ACAPRUNTIME_PARAMETERS")
)
"""Environment variables of the front that may hold passwords. No plugin needs them."""


class WorkerProcess:
    """A worker process that reported ready. `kill_reason` is None until this side kills it."""

    def __init__(self, label: str, process: asyncio.subprocess.Process, control: Channel) -> None:
        self.control = control
        self.pid = process.pid
        self.kill_reason: str | None = None
        self._label = label
        self._process = process

    @classmethod
    async def start(cls, label: str, config: Message) -> WorkerProcess:
        """Start a process for the plugin that `config` names, and wait until it is ready.

        `acap_runtime.worker.child` reads `config`. Messages call the process `label`. Raises the error of the plugin's
        probe; `NotReady` if the probe takes too long; `Unavailable` if the process cannot be started or dies of the
        probe.
        """
        ours, theirs = Channel.pair()
        ours.set_nonblocking()
        try:
            process = await _spawn(theirs)
        except OSError as error:
            ours.close()
            raise Unavailable(f"no process for {label} can be started: {error}") from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        started = cls(label, process, ours)
        try:
            ours.send(config)
            async with asyncio.timeout(_START_TIME_S):
                await _receive_verdict(ours)
        except BaseException as error:
            await started.end()
            if isinstance(error, TimeoutError):
                raise NotReady(f"{label} is not ready: its probe took more than {_START_TIME_S:g} s") from None
            if isinstance(error, OSError):
                raise Unavailable(
                    f"{label} is not ready: its worker {started.described_end} during the probe"
                ) from None
            if isinstance(error, AcapError):
                raise type(error)(f"{label} is not ready: {error}") from None
            raise
        return started

    @property
    def killed_from_outside(self) -> bool:
        return self.kill_reason is None and self._process.returncode == -signal.SIGKILL

    @property
    def described_end(self) -> str:
        """The end of the process, as the predicate of a sentence: ``was killed by SIGSEGV``."""
        code = self._process.returncode
        if self.kill_reason is not None or code is None:
            return self.kill_reason or "does not end"
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def open_channel(self, message: Message) -> Channel:
        """Open a further channel to the process; `message` says what for. Raises `Busy` or `Unavailable`."""
        try:
            ours, theirs = Channel.pair()
        except OSError as error:
            raise Busy(f"no further channel to the worker of {self._label}: {error.strerror}") from None
        ours.set_nonblocking()
        try:
            self.control.send(message, theirs.fileno())
        except OSError as error:
            ours.close()
            if isinstance(error, BlockingIOError):
                raise Busy(f"the worker of {self._label} takes no more for the moment; try again later") from None
            raise Unavailable(f"the worker of {self._label} is down: {error}") from None
        finally:
            theirs.close()
        return ours

    async def wait(self) -> None:
        """Wait until the process ends, then kill the processes that its driver may have left behind."""
        await self._process.wait()
        self.control.close()
        self._kill_group()

    def kill(self, reason: str) -> None:
        """Kill the process and the processes that its driver may have started."""
        if self._process.returncode is None:
            self.kill_reason = self.kill_reason or reason
            self._kill_group()

    async def end(self) -> None:
        """Close the control channel, at which the process ends by itself, or kill it: within 3 seconds, or 6."""
        self.control.close()
        # A task that is being cancelled ends here too. In Python 3.11.2 (Debian 12) asyncio.timeout would not know its
        # own timeout from that cancellation.
        ended = asyncio.ensure_future(self._process.wait())
        try:
            for warning in ("does not end by itself and is killed", "was killed and does not end: its driver keeps it"):
                await asyncio.wait((ended,), timeout=_STOP_TIME_S)
                if ended.done():
                    return
                _LOG.warning("worker of %s %s", self._label, warning)
                self.kill("was killed: it did not end")
        finally:
            ended.cancel()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


async def _spawn(control: Channel) -> asyncio.subprocess.Process:
    # -P keeps the current folder off the import path.
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "acap_runtime.worker", str(control.fileno())),
        pass_fds=(control.fileno(),),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=_STDERR,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name not in _SECRETS},
    )


async def probe_all(configs: Sequence[tuple[str, Message]], timeout_s: float) -> list[AcapError | None]:
    """Start a process for each label and config, all at once, and end it. Return each one's error, None for ready."""

    async def probe(label: str, config: Message) -> AcapError | None:
        try:
            async with asyncio.timeout(timeout_s):
                process = await WorkerProcess.start(label, config)
            await process.end()
        except AcapError as error:
            return error
        except TimeoutError:
            return NotReady(f"{label} is not ready: its probe did not end within {timeout_s:g} s")
        return None

    return list(await asyncio.gather(*(probe(label, config) for label, config in configs)))


async def _receive_verdict(control: Channel) -> None:
    """Wait until the worker reports ready. Raises the error that it reports, or `ConnectionError` if it dies first."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(control.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(control.fileno())
    received = control.receive()
    if received is None:
        raise ConnectionError("the worker closed its channel")
    if "error" in received[0]:
        raise unpack_error(received[0]["error"])
