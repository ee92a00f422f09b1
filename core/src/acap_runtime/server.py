"""The front: composes the services, listens, starts what they need, and stops it all again."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Final

import grpc.aio

from acap_runtime.catalogue import Catalogue, ModelDefaults
from acap_runtime.client_regions import ClientRegions
from acap_runtime.converters import ConverterChoice
from acap_runtime.device_parameters import overridden
from acap_runtime.errors import AcapError, InvalidRequest, NotReady, Unavailable, hidden
from acap_runtime.inference import Inference
from acap_runtime.plugins import InstalledChip, Plugins, chosen_chips
from acap_runtime.readiness import unready
from acap_runtime.rpc import Service, handlers
from acap_runtime.services.health import HealthService
from acap_runtime.services.inference_v2 import InferenceV2Service
from acap_runtime.services.model import ModelService, ReloadRights
from acap_runtime.services.parameter import ParameterService
from acap_runtime.services.prediction import PredictionService
from acap_runtime.services.reflection import REFLECTIONS, ReflectionService
from acap_runtime.services.runtime import RuntimeService
from acap_runtime.services.video_capture import VideoCaptureService
from acap_runtime.settings import Settings
from acap_runtime.stores import Store
from acap_runtime.stores.choice import make_store
from acap_runtime.streams import Streams
from acap_runtime.surprises import log_unexpected
from acap_runtime.tensors import TensorReader
from acap_runtime.tls import credentials
from acap_runtime.unix_socket import born_with_mode, claimed_socket
from acap_runtime.v2_tensors import V2Reader
from acap_runtime.worker.camera import CameraWorker
from acap_runtime.worker.restarts import RestartPolicy
from acap_runtime.worker.supervisor import Worker, WorkerLimits
from acap_runtime.worker.workers import Workers

_LOG = logging.getLogger(__name__)
_MIB: Final = 1 << 20
_SOCKET_MODE: Final = 0o660
_LAST_WORDS_S: Final = 0.5
"""What calls have that wait when the start fails, to hear why."""


async def serve(settings: Settings, plugins: Plugins, reread: Callable[[], Settings]) -> None:
    """Run the server until it is told to stop: by SIGTERM, SIGINT, or after `settings.run_for_s`.

    At SIGHUP it looks at the models again: at their files, and at what `reread` says that they are. Listens once it
    knows its settings, some of which device parameters may have (``-o``); the chip and the models given come up
    meanwhile, and calls for them wait. Raises `AcapError` where the start fails.
    """
    stop, hangup = _event_of(signal.SIGTERM, signal.SIGINT), _event_of(signal.SIGHUP)
    store = make_store(settings, plugins)
    try:
        overriding = asyncio.create_task(overridden(settings, store))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((overriding, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if overriding.done():
            await _serve(overriding.result(), plugins, store, stop=stop, hangup=hangup, reread=reread)
        else:
            overriding.cancel()
    finally:
        if store is not None:
            await store.close()


async def _serve(
    settings: Settings,
    plugins: Plugins,
    store: Store | None,
    *,
    stop: asyncio.Event,
    hangup: asyncio.Event,
    reread: Callable[[], Settings],
) -> None:
    if settings.verbose:
        logging.getLogger().setLevel(logging.DEBUG)
    chip, named_converter = chosen_chips(settings.chips, plugins)
    candidates = (named_converter,) if named_converter else plugins.converters()
    choice = ConverterChoice(candidates, required=named_converter is not None)
    changed = asyncio.Event()
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    workers = _make_workers(settings, plugins, chip, changed, broken)
    started = asyncio.Event()
    if settings.model_dir and not chip:
        _LOG.warning("--model-dir: without a chip (-j) nothing in it is loaded")
    catalogue = Catalogue(
        workers,
        models=settings.models,
        folder=settings.model_dir if chip else None,
        defaults=_model_defaults(settings, chip),
        on_demand=0 if settings.port else settings.on_demand_models,
        when_changed=changed.set,
    )
    await catalogue.find()
    limit = settings.max_message_size * _MIB
    streams = _make_streams(settings, plugins)
    inference = Inference(catalogue, choice, streams)
    # HTTP/2 and protobuf add a little to a tensor of exactly that size.
    options = [("grpc.max_receive_message_length", limit + _MIB), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    reason = partial(unready, workers, catalogue)
    running_models: list[Service] = [
        PredictionService(catalogue, inference, TensorReader(limit, shared_memory=not settings.port)),
        InferenceV2Service(
            inference,
            catalogue,
            V2Reader(limit, None if settings.port else ClientRegions()),
            reason,
            control=not settings.port or settings.model_control,
        ),
    ]
    others: list[Service] = [
        ModelService(catalogue, _reload_rights(settings), settings.models, started),
        VideoCaptureService(streams, limit),
        ParameterService(store),
        RuntimeService(workers, catalogue, streams, reason),
    ]
    health = HealthService(
        catalogue,
        reason,
        inference=[service.name for service in running_models],
        others=[service.name for service in others] + [HealthService.name, *REFLECTIONS],
    )
    _add_services(server, [*running_models, *others, health])
    async with _listening(server, settings):
        start = asyncio.create_task(_start(settings, store, workers, catalogue, choice, started=started))
        watching = [
            asyncio.create_task(health.follow(changed)),
            asyncio.create_task(streams.expire()),
            asyncio.create_task(_follow_files(start, catalogue)),
            asyncio.create_task(_follow_hangups(hangup, start, catalogue, reread)),
        ]
        grace_s = settings.grace_s
        try:
            await _until_stopped(stop, start, [*watching, broken], settings.run_for_s)
            _LOG.info("stopping; running calls have %g s", grace_s)
        except AcapError as error:
            workers.refuse(Unavailable(f"the server does not start: {error}"))
            grace_s = min(grace_s, _LAST_WORDS_S)
            raise
        finally:
            for task in (start, *watching):
                task.cancel()
            await asyncio.gather(start, *watching, return_exceptions=True)
            health.stop()
            await server.stop(grace_s)
            await asyncio.gather(streams.stop(), workers.stop())
    _LOG.info("stopped")


def _add_services(server: grpc.aio.Server, services: Sequence[Service]) -> None:
    """Have a server serve these, and reflection, which tells of them all."""
    names = [*(service.name for service in services), *REFLECTIONS]
    reflection = [ReflectionService(name, names) for name in REFLECTIONS]
    server.add_generic_rpc_handlers(handlers([*services, *reflection]))


def _reload_rights(settings: Settings) -> ReloadRights:
    if not settings.port:
        return ReloadRights(allowed=True, places=None)
    places = [model.path for model in settings.models] + ([settings.model_dir] if settings.model_dir else [])
    return ReloadRights(settings.model_control, places)


def _model_defaults(settings: Settings, chip: InstalledChip | None) -> ModelDefaults:
    if settings.threads is not None and chip is not None and "threads" not in chip.backend.options:
        raise InvalidRequest(f"--threads: {chip} has no such option")
    options = {} if settings.threads is None else {"threads": str(settings.threads)}
    return ModelDefaults(settings.instances, settings.queue, options)


def _make_streams(settings: Settings, plugins: Plugins) -> Streams:
    cameras = [plugins.camera(camera.name, camera.source) for camera in settings.cameras] or plugins.own_cameras()
    workers = [CameraWorker(camera, kept_frames=settings.kept_frames, verbose=settings.verbose) for camera in cameras]
    for number, camera in enumerate(cameras, 1):
        _LOG.info("camera %d: %s, %s; opened when a client wants it", number, camera.name, hidden(camera.source))
    return Streams(
        workers,
        named=bool(settings.cameras),
        limit=settings.max_streams,
        lease_s=settings.stream_lease_s,
        kept_frames=settings.kept_frames,
    )


def _make_workers(
    settings: Settings,
    plugins: Plugins,
    default: InstalledChip | None,
    changed: asyncio.Event,
    broken: asyncio.Future[None],
) -> Workers:
    limits = WorkerLimits(settings.run_timeout_s, settings.load_timeout_s)

    def report(error: BaseException) -> None:
        if not broken.done():
            broken.set_exception(error)

    def make(chip: InstalledChip) -> Worker:
        return Worker(
            chip, limits, RestartPolicy(), verbose=settings.verbose, when_changed=changed.set, when_broken=report
        )

    return Workers(default, plugins.select, make)


async def _start(
    settings: Settings,
    store: Store | None,
    workers: Workers,
    catalogue: Catalogue,
    choice: ConverterChoice,
    *,
    started: asyncio.Event,
) -> None:
    if store is not None and settings.parameters is not None:
        await store.probe()
        _LOG.info("parameters come from %s", store)
    if workers.default is not None:
        await workers.default.start()
    await catalogue.preload()
    if any(workers):
        await choice.prepare()
    else:
        _LOG.info("no chip: the server runs without inference (-j CHIP)")
    started.set()
    _LOG.info("ready")


async def _follow_files(start: asyncio.Task[None], catalogue: Catalogue) -> None:
    """Have new versions served as they come up."""
    await asyncio.wait([start])
    if not catalogue.watched:
        return
    try:
        from acap_runtime.watching import Watcher  # noqa: PLC0415 - what it needs is an extra
    except ModuleNotFoundError as error:
        _LOG.info(
            "model files are looked at again at SIGHUP only: %s is not installed (pip install 'acap-runtime[watch]')",
            error.name,
        )
        return
    await Watcher(catalogue).run()


async def _follow_hangups(
    hangup: asyncio.Event, start: asyncio.Task[None], catalogue: Catalogue, reread: Callable[[], Settings]
) -> None:
    """Look at the models again at each SIGHUP."""
    await asyncio.wait([start])
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            settings = await asyncio.to_thread(reread)
            await catalogue.configure(settings.models)
            _LOG.info("SIGHUP: models are as the settings and the disk have them now")
        except AcapError as error:
            _LOG.error("SIGHUP: the models stay as they are: %s", error)
        except Exception as error:  # noqa: BLE001 - the server goes on with what it has
            log_unexpected(_LOG, "SIGHUP: the models may be as they were", error)


async def _until_stopped(
    stop: asyncio.Event, start: asyncio.Task[None], watching: Sequence[asyncio.Future[None]], run_for_s: float
) -> None:
    """Wait for the end. Raises the error of a start that failed, or of one that watches over something."""
    stopped = asyncio.create_task(stop.wait())
    try:
        async with asyncio.timeout(run_for_s or None):
            await asyncio.wait((stopped, start), return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
            running: set[asyncio.Future[Any]] = {stopped, *watching}
            while not stopped.done():
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()  # a server that no longer watches its workers or leases had better end
    except TimeoutError:
        _LOG.info("%g s have passed (-t)", run_for_s)
    finally:
        stopped.cancel()


def _event_of(*signals: signal.Signals) -> asyncio.Event:
    event = asyncio.Event()
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event


@contextlib.asynccontextmanager
async def _listening(server: grpc.aio.Server, settings: Settings) -> AsyncIterator[None]:
    tls = credentials(settings)
    with contextlib.ExitStack() as stack:
        if settings.port:
            address = f"{_bracketed(settings.address)}:{settings.port}"
            _check_port(settings.address, settings.port)
            if tls is None and not _is_loopback(settings.address):
                _LOG.warning("%s is reachable from other machines, without encryption (-c and -k turn TLS on)", address)
        else:
            address = f"unix://{settings.socket.absolute()}"
            stack.enter_context(claimed_socket(settings.socket.absolute()))
        try:
            with born_with_mode(_SOCKET_MODE):
                if tls is None:
                    server.add_insecure_port(address)
                else:
                    server.add_secure_port(address, tls)
        except RuntimeError as error:
            raise NotReady(f"cannot listen on {address}: {error}") from None
        await server.start()
        _LOG.info("listening on %s%s", address, "" if tls is None else " with TLS")
        yield


def _check_port(address: str, port: int) -> None:
    # grpc says no more than that it failed.
    host = address.strip("[]")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise NotReady(f"cannot listen on {_bracketed(address)}:{port}: {error.strerror}") from None


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"
