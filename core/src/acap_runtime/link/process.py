"""A worker's process: its start, up to its own word that it is ready, and its end."""

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
_START_TIME_S: Final = 60.0
_STOP_TIME_S: Final = 3.0
_STDERR: Final = 2
_SECRETS: Final = frozenset(
    ("ACAPRUNTIME_PARAMETERS_USER", "ACAPRUNTIME_PARAMETERS_PASSWORD", "ACAPRUNTIME_CAMERA", "ACAPRUNTIME_PARAMETERS")
)
"""Variables of the front's that may hold passwords: no plugin needs them."""


class WorkerProcess:
    """A process that is ready for what it was started for. `kill_reason` is set once this side has killed it."""

    def __init__(self, label: str, process: asyncio.subprocess.Process, control: Channel) -> None:
        self.control = control
        self.pid = process.pid
        self.kill_reason: str | None = None
        self._label = label
        self._process = process

    @classmethod
    async def start(cls, label: str, config: Message) -> WorkerProcess:
        """Start a process for what `config` names (see `child`), called `label` in messages, and wait for it.

        Raises `NotReady` or whatever else the plugin's probe raises, `Unavailable` where the process cannot be
        started or dies of the probe.
        """
        ours, theirs = Channel.pair()
        ours.set_nonblocking()
        try:
            # -P: the folder that the server happens to run in is no place to import from.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "acap_runtime.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=_STDERR,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name not in _SECRETS},
            )
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
                await _first_word(ours)
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
        """How it ended, as the rest of a sentence about it."""
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
        """A channel of its own to this process, for what `message` says. Raises `Busy` or `Unavailable`."""
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
        """Wait until it ends, and end what its driver may have left behind."""
        await self._process.wait()
        self.control.close()
        self._kill_group()

    def kill(self, reason: str) -> None:
        """End it at once, and what its driver may have started."""
        if self._process.returncode is None:
            self.kill_reason = self.kill_reason or reason
            self._kill_group()

    async def end(self) -> None:
        """Close the control channel, at which it ends by itself or is helped: within 3 seconds, or 6."""
        self.control.close()
        for warning in ("does not end by itself and is killed", "was killed and does not end: its driver keeps it"):
            try:
                async with asyncio.timeout(_STOP_TIME_S):
                    await self._process.wait()
            except TimeoutError:
                _LOG.warning("worker of %s %s", self._label, warning)
                self.kill("was killed: it did not end")
            else:
                return

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


async def probe_all(configs: Sequence[tuple[str, Message]], timeout_s: float) -> list[AcapError | None]:
    """Start a process for each label and config, side by side, and end it again; None for each that was ready."""

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


async def _first_word(control: Channel) -> None:
    """Wait for the worker's verdict. Raises what it says, `ConnectionError` where it dies before."""
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
