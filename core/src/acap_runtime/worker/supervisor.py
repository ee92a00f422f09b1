"""The front's end of a chip's process: starts it, watches it, and starts it again with its models when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from acap_runtime.errors import AcapError, Busy, NotReady, Unavailable
from acap_runtime.plugins import InstalledChip
from acap_runtime.worker.messages import Channel, unpack_error
from acap_runtime.worker.remote_model import Admission, RemoteModel

_LOG = logging.getLogger(__name__)
_STOP_TIME_S: Final = 3.0
_START_TIME_S: Final = 60.0
_LONGEST_DEATH_S: Final = 1.0
_STDERR: Final = 2
_GUILTY: Final = 2
"""Suspicion at which a model is not loaded again: it alone was loading when the worker died, or it was each time."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Bounds of one chip's work, in seconds and calls."""

    run_timeout_s: float = 30.0
    load_timeout_s: float = 300.0
    queue: int = 64


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a worker that died is started again.

    At once after a first death within `window_s`; then after `first_delay_s`, doubled with each further one up to
    `longest_delay_s`. After `budget` deaths within the window the chip rests for `rest_s`, and its calls are refused.
    """

    budget: int = 6
    window_s: float = 60.0
    first_delay_s: float = 0.25
    longest_delay_s: float = 4.0
    rest_s: float = 30.0

    def delay_s(self, deaths: int) -> float:
        """Seconds to wait after the last of `deaths` within the window."""
        return 0.0 if deaths <= 1 else min(self.first_delay_s * 2 ** (deaths - 2), self.longest_delay_s)


class WorkerDied(Unavailable):
    """The process of a chip ended while it had the call or the load in question."""


class Resting(Unavailable):
    """The chip's process died too often of late and is not started for a while."""


class Worker:
    """One chip's process and its models."""

    def __init__(
        self,
        chip: InstalledChip,
        limits: WorkerLimits = WorkerLimits(),
        restarts: RestartPolicy = RestartPolicy(),
        *,
        verbose: bool = False,
    ) -> None:
        self.chip = chip
        self.admission = Admission(limits.queue)
        self._limits = limits
        self._restarts = restarts
        self._verbose = verbose
        self._models: list[RemoteModel] = []
        self._starting: list[RemoteModel] = []
        self._process: asyncio.subprocess.Process | None = None
        self._control: Channel | None = None
        self._refusal: AcapError | None = None
        self._settled = asyncio.Event()  # the process is up, or there is a refusal that says why not
        self._kill_reason: str | None = None
        self.tasks: list[asyncio.Task[None]] = []
        """What watches over the process; they end by an error only, which is one of this program."""
        self._reloading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process and wait until the chip is ready.

        Raises `NotReady` or whatever else the backend's probe raises, `Unavailable` where the process dies of it.
        """
        await self._spawn()
        self._log_start()
        self.tasks = [asyncio.create_task(self._keep_alive()), asyncio.create_task(self._watch_runs())]

    async def check(self) -> None:
        """Start the process, hear whether the chip is ready, and end it. Raises as `start` does."""
        await self._spawn()
        self._drop_control()
        await self._end_process()

    async def stop(self) -> None:
        """Unload the models and end the process: within 3 seconds, or, where it has to be killed, 6."""
        tasks = [*self.tasks, *([self._reloading] if self._reloading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stops = Unavailable("the server stops")
        self.refuse(stops)
        for model in self._models:
            model.detach(stops)
        self._models.clear()
        if self._control is not None:
            self._control.close()
            self._control = None
        await self._end_process()

    async def load(self, model: RemoteModel) -> None:
        """Load a model, and from then on again after every restart.

        Raises what the plugin raises, `WorkerDied` where the worker dies of it or does not answer within the limit,
        `Resting` where it died too often before.
        """
        model.suspicion = 0
        self._starting.append(model)
        try:
            while not await self._loaded(model):
                _LOG.warning("loading model %s again: its worker died, perhaps not of it", model.name)
        finally:
            self._starting.remove(model)
        self._models.append(model)

    def holds(self, model: RemoteModel) -> bool:
        """Whether the worker has this model, or will have it again once it is restarted."""
        return model in self._models

    def unload(self, model: RemoteModel) -> None:
        """Free a model on the chip. Its calls that still run fail."""
        self._models.remove(model)
        model.detach(Unavailable(f"model {model.name} was unloaded"))
        model.refuse(Unavailable(f"model {model.name} was unloaded"))

    async def _loaded(self, model: RemoteModel) -> bool:
        """Load a model once the process is up; False where the worker died meanwhile, but maybe not of this model."""
        await self._settled.wait()
        if self._control is None:
            raise self._refusal.again() if self._refusal else Unavailable(f"the worker of {self.chip} is down")
        started = time.monotonic()
        try:
            await self._load(model, self._control)
        except WorkerDied:
            if model.suspicion < _GUILTY:
                return False
            raise
        _LOG.info(
            "model %s loaded on %s in %.2f s, %d instance(s)",
            model.name,
            self.chip,
            time.monotonic() - started,
            model.instances,
        )
        return True

    async def _load(self, model: RemoteModel, control: Channel) -> None:
        ours, theirs = Channel.pair()
        message = {"path": str(model.path), "options": dict(model.options), "instances": model.instances}
        try:
            control.send(message, theirs.fileno())
        except BlockingIOError:
            ours.close()
            raise Busy(f"the worker of {self.chip} takes no more models for the moment") from None
        except OSError as error:
            ours.close()
            self._drop_control()
            raise WorkerDied(f"the worker of {self.chip} is down: {error}") from None
        finally:
            theirs.close()
        try:
            async with asyncio.timeout(self._limits.load_timeout_s):
                await model.attach(ours)
        except TimeoutError:
            reason = f"model {model.name} did not load within {self._limits.load_timeout_s:g} s (--load-timeout)"
            model.suspicion = _GUILTY
            self._kill(f"was killed: {reason}")
            raise WorkerDied(reason) from None
        model.suspicion = 0

    async def _spawn(self) -> None:
        ours, theirs = Channel.pair()
        ours.set_nonblocking()
        self._kill_reason = None
        try:
            # -P: the folder that the server happens to run in is no place to import from.
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "acap_runtime.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=_STDERR,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise Unavailable(f"no process for {self.chip} can be started: {error}") from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            ours.send({"address": self.chip.plugin.address, "name": self.chip.backend.name, "verbose": self._verbose})
            async with asyncio.timeout(_START_TIME_S):
                await _first_word(ours)
        except BaseException as error:
            ours.close()
            await self._end_process()
            if isinstance(error, TimeoutError):
                raise NotReady(f"{self.chip} is not ready: its probe took more than {_START_TIME_S:g} s") from None
            if isinstance(error, OSError):
                end = _describe_end(process.returncode)
                raise Unavailable(f"{self.chip} is not ready: its worker {end} during the probe") from None
            if isinstance(error, AcapError):
                raise type(error)(f"{self.chip} is not ready: {error}") from None
            raise
        self._control = ours
        self._refusal = None
        self._settled.set()

    def _log_start(self) -> None:
        assert self._process is not None  # noqa: S101 - called when it was started
        _LOG.info("worker of %s started, process %d", self.chip, self._process.pid)

    async def _keep_alive(self) -> None:
        deaths: deque[float] = deque()
        while True:
            reason = await self._death()
            _LOG.error("worker of %s %s; %d call(s) failed", self.chip, reason, self._lose_models(reason))
            while self._control is None:
                deaths.append(time.monotonic())
                await self._wait_to_restart(deaths, reason)
                try:
                    await self._spawn()
                except (AcapError, OSError) as error:
                    reason = f"could not be started: {error}"
                    _LOG.error("worker of %s %s", self.chip, reason)
            self._log_start()
            for model in self._models:
                model.error = None  # it is about to come back: calls may wait again
            if self._reloading is None or self._reloading.done():
                self._reloading = asyncio.create_task(self._reload())

    async def _death(self) -> str:
        """Wait until the process ends, and say how."""
        assert self._process is not None  # noqa: S101 - watched only when started
        code = await self._process.wait()
        self._drop_control()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # what a driver started and left behind
        return self._kill_reason or _describe_end(code)

    def _drop_control(self) -> None:
        self._settled.clear()
        if self._control is not None:
            self._control.close()
            self._control = None

    def _lose_models(self, reason: str) -> int:
        """Tell the models that the process is gone, and which of them it may have died of."""
        everyone = (*self._models, *self._starting)
        loading = [model for model in everyone if model.loading]
        alone = len(loading) == 1 and all(model.running_since is None for model in everyone)
        # No driver kills with SIGKILL, but somebody who runs short of memory does, perhaps because of the model.
        killed = self._process is not None and self._process.returncode == -signal.SIGKILL
        if self._kill_reason is None:
            for model in loading:
                model.suspicion += _GUILTY if alone and not killed else 1
        return sum(model.detach(WorkerDied(f"the worker of {self.chip} {reason}")) for model in everyone)

    async def _wait_to_restart(self, deaths: deque[float], reason: str) -> None:
        while deaths[-1] - deaths[0] > self._restarts.window_s:
            deaths.popleft()
        if len(deaths) < self._restarts.budget:
            await asyncio.sleep(self._restarts.delay_s(len(deaths)))
            return
        rest_s = self._restarts.rest_s
        times = f"{len(deaths)} times within {deaths[-1] - deaths[0]:.0f} s"
        self.refuse(
            Resting(f"the worker of {self.chip} died {times} and rests for {rest_s:g} s; the last time it {reason}")
        )
        _LOG.error("%s", self._refusal)
        await asyncio.sleep(rest_s)
        deaths.clear()
        self._settled.clear()

    def refuse(self, refusal: AcapError) -> None:
        """Answer with `refusal` the calls and loads that wait or come, until the process is up again."""
        self._refusal = refusal
        self._settled.set()
        for model in self._models:
            model.refuse(refusal)
        for model in self._starting:
            model.detach(refusal)

    async def _reload(self) -> None:
        # One by one, so that it is known which of them the worker dies of: that one is left out from then on.
        while lost := [model for model in self._models if not model.attached]:
            model = lost[0]
            try:
                while not await self._loaded(model):
                    pass
            except Resting:
                return  # they are loaded again when it is over
            except (AcapError, OSError) as error:
                if model not in self._models:
                    continue  # it was unloaded meanwhile
                _LOG.error("model %s could not be loaded again: %s", model.name, error)
                self._models.remove(model)
                model.refuse(error if isinstance(error, AcapError) else Unavailable(str(error)))
            else:
                if model not in self._models:
                    model.detach(Unavailable(f"model {model.name} was unloaded"))

    async def _watch_runs(self) -> None:
        limit = self._limits.run_timeout_s
        while True:
            await asyncio.sleep(min(1.0, limit / 4))
            running = [(since, model.name) for model in self._models if (since := model.running_since) is not None]
            since, name = min(running, default=(time.monotonic(), ""))
            if time.monotonic() - since > limit:
                self._kill(f"was killed: model {name} ran for more than {limit:g} s (--run-timeout)")
            for model in (*self._models, *self._starting):
                if model.lost_since is not None and time.monotonic() - model.lost_since > _LONGEST_DEATH_S:
                    self._kill(f"was killed: it closed the channel of model {model.name} and did not end")

    def _kill(self, reason: str) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._kill_reason = self._kill_reason or reason
        for model in (*self._models, *self._starting):
            model.hold()
        # With it what its driver may have started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _end_process(self) -> None:
        """Wait for the process, whose control channel is closed, and help it end."""
        process = self._process
        if process is None:
            return
        for warning in ("does not end by itself and is killed", "was killed and does not end: its driver keeps it"):
            try:
                async with asyncio.timeout(_STOP_TIME_S):
                    await process.wait()
            except TimeoutError:
                _LOG.warning("worker of %s %s", self.chip, warning)
                self._kill("was killed: it did not end")
            else:
                return


async def _first_word(control: Channel) -> None:
    """Wait for the worker's verdict on its chip. Raises what it says, `ConnectionError` where it dies before."""
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


def _describe_end(code: int | None) -> str:
    if code is None:
        return "does not end"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


async def probe(chips: Sequence[InstalledChip], timeout_s: float) -> list[AcapError | None]:
    """Probe chips side by side, each in a process of its own; None for each that is ready."""

    async def probe_one(chip: InstalledChip) -> AcapError | None:
        try:
            async with asyncio.timeout(timeout_s):
                await Worker(chip).check()
        except AcapError as error:
            return error
        except TimeoutError:
            return NotReady(f"{chip} is not ready: its probe did not end within {timeout_s:g} s")
        return None

    return list(await asyncio.gather(*(probe_one(chip) for chip in chips)))
