"""The front's end of a chip's process: starts it, watches it, and starts it again with its models when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from acap_runtime.chips.remote_model import RemoteModel
from acap_runtime.errors import AcapError, Unavailable
from acap_runtime.link.process import WorkerProcess, probe_all
from acap_runtime.link.restarts import RecentDeaths, RestartPolicy
from acap_runtime.plugins.installed import InstalledChip

_LOG = logging.getLogger(__name__)
_LONGEST_DEATH_S: Final = 1.0
_GUILTY: Final = 2
"""Suspicion at which a model is not loaded again: it alone was loading when the worker died, or it was each time."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Bounds of one chip's work, in seconds."""

    run_timeout_s: float = 30.0
    load_timeout_s: float = 300.0


class WorkerDied(Unavailable):
    """The process of a chip ended while it had the call or the load in question."""


class Resting(Unavailable):
    """The chip's process died too often of late and is not started for a while."""


class Worker:
    """One chip's process and its models.

    `when_changed` is called when the process or a model comes or goes, `when_broken` with an error of this program's,
    after which nobody watches over the process any more.
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
        """How its process ended the last time; empty while it never did."""
        self.started_at: float | None = None
        """When the process that runs was ready, in seconds since 1970."""
        self._when_changed = when_changed
        self._when_broken = when_broken
        self._limits = limits
        self._policy = restarts
        self._verbose = verbose
        self._models: list[RemoteModel] = []
        self._starting: list[RemoteModel] = []
        self._process: WorkerProcess | None = None
        self._refusal: AcapError | None = None
        self._settled = asyncio.Event()  # the process is up, or there is a refusal that says why not
        self._watching: list[asyncio.Task[None]] = []
        self._reloading: asyncio.Task[None] | None = None
        self._suspects = asyncio.Lock()
        self._first_start: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process's number, while it is ready."""
        return self._process.pid if self._process is not None else None

    @property
    def refusal(self) -> AcapError | None:
        """Why calls and loads are refused, if they are."""
        return self._refusal

    @property
    def state(self) -> str:
        """In a word: idle before the first model, starting, ready, restarting, resting, failed."""
        if self._refusal is not None:
            return "resting" if isinstance(self._refusal, Resting) else "failed"
        if self._process is not None:
            return "ready"
        if self._watching:
            return "restarting"
        return "idle" if self._first_start is None or self._first_start.done() else "starting"

    async def start(self) -> None:
        """Start the process, if it was not, and wait until the chip is ready. Raises as `WorkerProcess.start` does."""
        if self._first_start is None or (self._first_start.done() and not self._watching):
            self._first_start = asyncio.create_task(self._start_first())
        try:
            await asyncio.shield(self._first_start)
        except AcapError as error:
            raise error.again() from None

    async def _start_first(self) -> None:
        await self._start_process()
        self._watching = [asyncio.create_task(self._keep_alive()), asyncio.create_task(self._watch_runs())]
        for task in self._watching:
            task.add_done_callback(self._report_fault)

    async def stop(self) -> None:
        """Unload the models and end the process: within 3 seconds, or, where it has to be killed, 6."""
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
        """Load a model, and from then on again after every restart. The first one starts the process.

        Raises what the plugin raises, its probe included, `WorkerDied` where the worker dies of it or does not answer
        within the limit, `Resting` where it died too often before.
        """
        await self.start()
        model.suspicion = 0
        self._starting.append(model)
        try:
            if not await self._loaded(model):
                _LOG.warning("loading model %s again: its worker died, perhaps not of it", model.name)
                # One at a time from here, so that it is known of which of them the worker dies.
                async with self._suspects:
                    while not await self._loaded(model):
                        pass
        finally:
            self._starting.remove(model)
        self._models.append(model)
        self._when_changed()

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
        if self._process is None or self._refusal is not None:
            raise self._refusal.again() if self._refusal else Unavailable(f"the worker of {self.chip} is down")
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
            self._settled.clear()  # it is dying; who watches over it will say when there is another
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
        deaths = RecentDeaths(self._policy)
        while True:
            await process.wait()
            self._process = self.started_at = None
            self._settled.clear()
            self.last_end = process.described_end
            _LOG.error("worker of %s %s; %d call(s) failed", self.chip, self.last_end, self._lose_models(process))
            self._when_changed()
            process = await self._started_again(deaths, self.last_end)
            self.restarts += 1
            for model in self._models:
                model.error = None  # it is about to come back: calls may wait again
            if self._reloading is None or self._reloading.done():
                self._reloading = asyncio.create_task(self._reload())

    async def _started_again(self, deaths: RecentDeaths, reason: str) -> WorkerProcess:
        while True:
            deaths.note()
            await self._wait_to_restart(deaths, reason)
            try:
                return await self._start_process()
            except (AcapError, OSError) as error:
                reason = f"could not be started: {error}"
                _LOG.error("worker of %s %s", self.chip, reason)

    def _lose_models(self, process: WorkerProcess) -> int:
        """Tell the models that the process is gone, and which of them it may have died of."""
        everyone = (*self._models, *self._starting)
        loading = [model for model in everyone if model.loading]
        alone = len(loading) == 1 and all(model.running_since is None for model in everyone if not model.loading)
        if process.kill_reason is None:
            for model in loading:
                # No driver kills with SIGKILL, but who runs short of memory does, perhaps because of the model.
                model.suspicion += _GUILTY if alone and not process.killed_from_outside else 1
        error = WorkerDied(f"the worker of {self.chip} {process.described_end}")
        return sum(model.detach(error) for model in everyone)

    async def _wait_to_restart(self, deaths: RecentDeaths, reason: str) -> None:
        if deaths.count < self._policy.budget:
            await asyncio.sleep(deaths.delay_s)
            return
        rest_s = self._policy.rest_s
        times = f"{deaths.count} times within {deaths.span_s:.0f} s"
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
        self._when_changed()

    async def _reload(self) -> None:
        # One by one, so that it is known which of them the worker dies of: that one is left out from then on. Those
        # that take long come last, so that the others' calls do not wait for them.
        while lost := [model for model in self._models if not model.attached]:
            model = min(lost, key=lambda model: model.load_s)
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
                if model.lost_since is not None and time.monotonic() - model.lost_since > _LONGEST_DEATH_S:
                    self._kill(f"was killed: it closed the channel of model {model.name} and did not end")

    def _kill(self, reason: str) -> None:
        if self._process is not None:
            for model in (*self._models, *self._starting):
                model.hold()
            self._process.kill(reason)


def _config(chip: InstalledChip, *, verbose: bool = False) -> dict[str, Any]:
    return {"kind": "chip", "address": chip.plugin.address, "name": chip.backend.name, "verbose": verbose}


async def probe(chips: Sequence[InstalledChip], timeout_s: float) -> list[AcapError | None]:
    """Probe chips side by side, each in a process of its own; None for each that is ready."""
    return await probe_all([(str(chip), _config(chip)) for chip in chips], timeout_s)
