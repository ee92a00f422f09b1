"""Supervises the process of a chip: starts it, watches it, and restarts it with its models after a death."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from acap_runtime.chips.remote_model import RemoteModel
from acap_runtime.errors import AcapError, Unavailable
from acap_runtime.link.process import LONGEST_DEATH_S, WorkerProcess, probe_all
from acap_runtime.link.restarts import RestartBackoff, RestartPolicy
from acap_runtime.plugins.installed import InstalledChip

_LOG = logging.getLogger(__name__)
_GUILTY: Final = 2
"""Suspicion at which a model is not loaded again: the worker died twice while loading it, or once while nothing else
was at work.
"""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Time limits for the work of one chip."""

    run_timeout_s: float = 30.0
    load_timeout_s: float = 300.0


class WorkerDied(Unavailable):
    """The process of a chip ended during this call or load."""


class Resting(Unavailable):
    """The process of a chip died too often of late and is not started for a while."""


class Worker:
    """The process of one chip, and its models.

    `when_changed` is called when the process or a model comes or goes. `when_broken` is called with the unexpected
    error that ended the supervision itself: from then on nothing restarts the process.
    """

    def __init__(
        self,
        chip: InstalledChip,
        limits: WorkerLimits = WorkerLimits(),
        restarts: RestartPolicy = RestartPolicy(),
        *,
        verbose: bool = False,
        when_changed: Callable[[], None] = lambda: None,
        when_broken: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self.chip = chip
        self.restarts = 0
        self.last_end = ""
        """The last end of the process, in words; empty if it never ended."""
        self.started_at: float | None = None
        """The time at which the running process became ready, in seconds since 1970."""
        self._when_changed = when_changed
        self._when_broken = when_broken
        self._limits = limits
        self._backoff = RestartBackoff(restarts)
        self._verbose = verbose
        self._models: list[RemoteModel] = []
        self._starting: list[RemoteModel] = []
        self._process: WorkerProcess | None = None
        self._refusal: AcapError | None = None
        self._settled = asyncio.Event()  # set while the process is up, or a refusal says why it is not
        self._watching: list[asyncio.Task[None]] = []
        self._reloading: asyncio.Task[None] | None = None
        self._suspects = asyncio.Lock()
        self._first_start: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while the process is ready."""
        return self._process.pid if self._process is not None else None

    @property
    def refusal(self) -> AcapError | None:
        """The error that calls and loads get at present, if any."""
        return self._refusal

    @property
    def state(self) -> str:
        """The state in a word: idle before the first model, then starting, ready, restarting, resting or failed."""
        if self._refusal is not None:
            return "resting" if isinstance(self._refusal, Resting) else "failed"
        if self._process is not None:
            return "ready"
        if self._watching:
            return "restarting"
        return "idle" if self._first_start is None or self._first_start.done() else "starting"

    async def start(self) -> None:
        """Start the process unless it was started, and wait until it is ready. Raises as `WorkerProcess.start` does."""
        if self._first_start is None or (self._first_start.done() and not self._watching):
            self._first_start = asyncio.create_task(self._start_first())
        try:
            await asyncio.shield(self._first_start)
        except AcapError as error:
            raise error.copy() from None

    async def _start_first(self) -> None:
        await self._start_process()
        self._watching = [asyncio.create_task(self._keep_alive()), asyncio.create_task(self._watch_runs())]
        for task in self._watching:
            task.add_done_callback(self._report_fault)

    async def stop(self) -> None:
        """Unload the models and end the process, within 3 seconds, or 6 if it has to be killed."""
        tasks = [*self._watching, *(task for task in (self._first_start, self._reloading) if task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stops = Unavailable("the server stops")
        self.refuse(stops)
        for model in self._models:
            model.detach(stops)
        self._models.clear()
        process, self._process = self._process, None
        if process is not None:
            await process.end()

    def _report_fault(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._when_broken(error)

    async def load(self, model: RemoteModel) -> None:
        """Load a model, now and again after every restart. The first load starts the process.

        Raises the error of the plugin's load or probe; `WorkerDied` if the worker dies of the load or exceeds its time
        limit; `Resting` if the worker died too often before.
        """
        await self.start()
        model.suspicion = 0
        self._starting.append(model)
        try:
            if not await self._loaded(model):
                _LOG.warning("loading model %s again: its worker died, perhaps not of it", model.name)
                # One suspect at a time: the model that is loading when the worker dies is the cause.
                async with self._suspects:
                    while not await self._loaded(model):
                        pass
        finally:
            self._starting.remove(model)
        self._models.append(model)
        self._when_changed()

    def is_resident(self, model: RemoteModel) -> bool:
        """Return True if the worker has this model, or loads it again after a restart."""
        return model in self._models

    def unload(self, model: RemoteModel) -> None:
        """Free a model on the chip. Its running calls fail."""
        self._models.remove(model)
        model.detach(Unavailable(f"model {model.name} was unloaded"))
        model.refuse(Unavailable(f"model {model.name} was unloaded"))

    async def _loaded(self, model: RemoteModel) -> bool:
        """Load a model once the process is up. Returns False if the worker died, but perhaps not of this model."""
        await self._settled.wait()
        if self._process is None or self._refusal is not None:
            raise self._refusal.copy() if self._refusal else Unavailable(f"the worker of {self.chip} is down")
        started = time.monotonic()
        try:
            await self._load(model, self._process)
        except WorkerDied:
            if model.suspicion < _GUILTY:
                return False
            raise
        model.load_s = time.monotonic() - started
        _LOG.info(
            "model %s loaded on %s in %.2f s, %d instance(s)", model.name, self.chip, model.load_s, model.instances
        )
        return True

    async def _load(self, model: RemoteModel, process: WorkerProcess) -> None:
        message = {"path": str(model.path), "options": dict(model.options), "instances": model.instances}
        try:
            ours = process.open_channel(message)
        except Unavailable as error:
            self._settled.clear()  # the process is dying; _keep_alive sets this again after the restart
            raise WorkerDied(str(error)) from None
        try:
            async with asyncio.timeout(self._limits.load_timeout_s):
                await model.attach(ours)
        except TimeoutError:
            reason = f"model {model.name} did not load within {self._limits.load_timeout_s:g} s (--load-timeout)"
            model.suspicion = _GUILTY
            self._kill(f"was killed: {reason}")
            raise WorkerDied(reason) from None
        model.suspicion = 0

    async def _start_process(self) -> WorkerProcess:
        self._process = await WorkerProcess.start(str(self.chip), _config(self.chip, verbose=self._verbose))
        _LOG.info("worker of %s started, process %d", self.chip, self._process.pid)
        self._refusal = None
        self.started_at = time.time()
        self._settled.set()
        self._when_changed()
        return self._process

    async def _keep_alive(self) -> None:
        assert self._process is not None  # noqa: S101 - watched only when started
        process = self._process
        while True:
            await process.wait()
            self._process = self.started_at = None
            self._settled.clear()
            self.last_end = process.described_end
            _LOG.error("worker of %s %s; %d call(s) failed", self.chip, self.last_end, self._lose_models(process))
            self._when_changed()
            process = await self._restart(self.last_end)
            self.restarts += 1
            for model in self._models:
                model.error = None  # _reload brings the model back, so calls may wait for it
            if self._reloading is None or self._reloading.done():
                self._reloading = asyncio.create_task(self._reload())

    async def _restart(self, reason: str) -> WorkerProcess:
        """Start the process again, as often as it takes. `reason` says how the last one ended."""
        while True:
            self._backoff.note_death()
            if self._backoff.exhausted:
                await self._rest(reason)
            else:
                await self._backoff.wait()
            try:
                return await self._start_process()
            except (AcapError, OSError) as error:
                reason = f"could not be started: {error}"
                _LOG.error("worker of %s %s", self.chip, reason)

    def _lose_models(self, process: WorkerProcess) -> int:
        """Tell the models that the process is gone, and suspect those that it may have died of.

        Returns the number of calls that failed.
        """
        everyone = (*self._models, *self._starting)
        loading = [model for model in everyone if model.loading]
        alone = len(loading) == 1 and all(model.running_since is None for model in everyone if not model.loading)
        if process.kill_reason is None:
            for model in loading:
                # SIGKILL comes from outside, such as from the kernel when memory is short, perhaps due to the model.
                model.suspicion += _GUILTY if alone and not process.killed_from_outside else 1
        error = WorkerDied(f"the worker of {self.chip} {process.described_end}")
        return sum(model.detach(error) for model in everyone)

    async def _rest(self, reason: str) -> None:
        """Refuse calls and loads until the rest is over."""
        times, rest_s = f"{self._backoff.deaths} times within {self._backoff.span_s:.0f} s", self._backoff.delay_s
        self.refuse(
            Resting(f"the worker of {self.chip} died {times} and rests for {rest_s:g} s; the last time it {reason}")
        )
        _LOG.error("%s", self._refusal)
        await self._backoff.wait()
        self._settled.clear()

    def refuse(self, refusal: AcapError) -> None:
        """Fail all waiting and future calls and loads with `refusal`, until the process is up again."""
        self._refusal = refusal
        self._settled.set()
        for model in self._models:
            model.refuse(refusal)
        for model in self._starting:
            model.detach(refusal)
        self._when_changed()

    async def _reload(self) -> None:
        # One model at a time: the one that is loading when the worker dies is the cause, and is left out from then on.
        # Slow ones come last, so that calls for the others do not wait for them.
        while lost := [model for model in self._models if not model.attached]:
            model = min(lost, key=lambda model: model.load_s)
            try:
                while not await self._loaded(model):
                    pass
            except Resting:
                return  # the restart after the rest loads them
            except (AcapError, OSError) as error:
                if model not in self._models:
                    continue  # it was unloaded meanwhile
                _LOG.error("model %s could not be loaded again: %s", model.name, error)
                self._models.remove(model)
                model.refuse(error if isinstance(error, AcapError) else Unavailable(str(error)))
            else:
                if model not in self._models:
                    model.detach(Unavailable(f"model {model.name} was unloaded"))
            self._when_changed()

    async def _watch_runs(self) -> None:
        limit = self._limits.run_timeout_s
        while True:
            await asyncio.sleep(min(1.0, limit / 4))
            running = [(since, model.name) for model in self._models if (since := model.running_since) is not None]
            since, name = min(running, default=(time.monotonic(), ""))
            if time.monotonic() - since > limit:
                self._kill(f"was killed: model {name} ran for more than {limit:g} s (--run-timeout)")
            for model in (*self._models, *self._starting):
                if model.lost_since is not None and time.monotonic() - model.lost_since > LONGEST_DEATH_S:
                    self._kill(f"was killed: it closed the channel of model {model.name} and did not end")

    def _kill(self, reason: str) -> None:
        if self._process is not None:
            for model in (*self._models, *self._starting):
                model.stop_sending()
            self._process.kill(reason)


def _config(chip: InstalledChip, *, verbose: bool = False) -> dict[str, Any]:
    return {"kind": "chip", "address": chip.plugin.address, "name": chip.backend.name, "verbose": verbose}


async def probe(chips: Sequence[InstalledChip], timeout_s: float) -> list[AcapError | None]:
    """Probe chips all at once, each in a process of its own. Returns each one's error, None for ready."""
    return await probe_all([(str(chip), _config(chip)) for chip in chips], timeout_s)
