"""Runs the server: startup, main loop, shutdown."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final

from acap_runtime.contract.unexpected import log_unexpected
from acap_runtime.errors import AcapError, Unavailable
from acap_runtime.front.listening import listening
from acap_runtime.front.wiring import Parts, make_grpc_server, make_parts, make_services
from acap_runtime.plugins.installed import Plugins
from acap_runtime.settings.options import Settings
from acap_runtime.stores.choice import make_store
from acap_runtime.stores.overrides import overridden

_LOG = logging.getLogger(__name__)
_LAST_WORDS_S: Final = 0.5
"""Seconds that waiting calls have to receive the reason when the start fails."""


async def serve(settings: Settings, plugins: Plugins, reread: Callable[[], Settings]) -> None:
    """Run the server until SIGTERM or SIGINT, or for `settings.run_for_s`.

    With ``-o``, parameters of the device may change the settings, so the server listens only after it has read them.
    The chip and the models start while it listens, and calls for them wait. At SIGHUP the server reads the model files
    again, and takes the models from the settings that `reread` returns. Raises `AcapError` if the start fails.
    """
    stop, hangup = _event_of(signal.SIGTERM, signal.SIGINT), _event_of(signal.SIGHUP)
    store = make_store(settings, plugins)
    try:
        overriding = asyncio.create_task(overridden(settings, store))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((overriding, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not overriding.done():
            overriding.cancel()
            return
        settings = overriding.result()
        if settings.verbose:
            logging.getLogger().setLevel(logging.DEBUG)
        parts = await make_parts(settings, plugins, store)
        await _Server(settings, parts, stop=stop, hangup=hangup, reread=reread).run()
    finally:
        if store is not None:
            await store.close()


def _event_of(*signals: signal.Signals) -> asyncio.Event:
    """Return an event that any of these signals sets."""
    event = asyncio.Event()
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event


class _Server:
    """A server whose parts are made, from its first moment of listening to its last call."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        *,
        stop: asyncio.Event,
        hangup: asyncio.Event,
        reread: Callable[[], Settings],
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._stop = stop
        self._hangup = hangup
        self._reread = reread
        services, self._health = make_services(settings, parts)
        self._grpc = make_grpc_server(settings, services)

    async def run(self) -> None:
        """Serve until the end. Raises `AcapError` if the start fails."""
        grace_s = self._settings.grace_s
        async with listening(self._grpc, self._settings):
            start = asyncio.create_task(self._start())
            watching = [
                asyncio.create_task(self._health.follow(self._parts.changed)),
                asyncio.create_task(self._parts.streams.expire()),
                asyncio.create_task(self._follow_files(start)),
                asyncio.create_task(self._follow_hangups(start)),
            ]
            try:
                await self._main_loop(start, [*watching, self._parts.fault])
                _LOG.info("stopping; running calls have %g s", grace_s)
            except AcapError as error:
                self._parts.workers.refuse(Unavailable(f"the server does not start: {error}"))
                grace_s = min(grace_s, _LAST_WORDS_S)
                raise
            finally:
                await self._shut_down([start, *watching], grace_s)
        _LOG.info("stopped")

    async def _start(self) -> None:
        """Start the store, the chip, the models and the converter of images, in this order."""
        store, workers = self._parts.store, self._parts.workers
        if store is not None and self._settings.parameters is not None:
            await store.probe()
            _LOG.info("parameters come from %s", store)
        if workers.default is not None:
            await workers.default.start()
        await self._parts.catalogue.preload()
        if any(workers):
            await self._parts.converters.prepare()
        else:
            _LOG.info("no chip: the server runs without inference (-j CHIP)")
        self._parts.started.set()
        _LOG.info("ready")

    async def _main_loop(self, start: asyncio.Task[None], watching: Sequence[asyncio.Future[None]]) -> None:
        """Wait for the end. Raises the error of a failed start, or of a task that watches over something."""
        stopped = asyncio.create_task(self._stop.wait())
        try:
            async with asyncio.timeout(self._settings.run_for_s or None):
                await asyncio.wait((stopped, start), return_when=asyncio.FIRST_COMPLETED)
                if start.done():
                    start.result()
                running: set[asyncio.Future[Any]] = {stopped, *watching}
                while not stopped.done():
                    ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in ended:
                        task.result()  # a server that no longer watches its chips or streams must not go on
        except TimeoutError:
            _LOG.info("%g s have passed (-t)", self._settings.run_for_s)
        finally:
            stopped.cancel()

    async def _shut_down(self, tasks: Sequence[asyncio.Task[None]], grace_s: float) -> None:
        """End the server's own tasks, then the calls, then the processes of cameras and chips."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._health.stop()
        await self._grpc.stop(grace_s)
        await asyncio.gather(self._parts.streams.stop(), self._parts.workers.stop())

    async def _follow_files(self, start: asyncio.Task[None]) -> None:
        """Serve new versions of models as they appear on disk, once the start is over."""
        await asyncio.wait([start])
        if not self._parts.catalogue.watched:
            return
        try:
            from acap_runtime.models.watching import Watcher  # noqa: PLC0415 - what it needs is an extra
        except ModuleNotFoundError as error:
            _LOG.info(
                "model files are looked at again at SIGHUP only: %s is not installed "
                "(pip install 'acap-runtime[watch]')",
                error.name,
            )
            return
        await Watcher(self._parts.catalogue).run()

    async def _follow_hangups(self, start: asyncio.Task[None]) -> None:
        """Read the settings and the model files again at each SIGHUP, once the start is over."""
        await asyncio.wait([start])
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            try:
                settings = await asyncio.to_thread(self._reread)
                await self._parts.catalogue.configure(settings.models)
                _LOG.info("SIGHUP: models are as the settings and the disk have them now")
            except AcapError as error:
                _LOG.error("SIGHUP: the models stay as they are: %s", error)
            except Exception as error:  # noqa: BLE001 - the server goes on with what it has
                log_unexpected(_LOG, "SIGHUP: the models may be as they were", error)
