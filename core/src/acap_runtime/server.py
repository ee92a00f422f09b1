"""The front: composes the services, listens, starts what they need, and stops it all again."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import AsyncIterator
from typing import Final

import grpc.aio

from acap_runtime.catalogue import Catalogue
from acap_runtime.converters import ConverterChoice
from acap_runtime.device_parameters import overridden
from acap_runtime.errors import AcapError, InvalidRequest, NotReady, Unavailable, hidden
from acap_runtime.plugins import InstalledChip, Plugins, chosen_chips
from acap_runtime.rpc import handlers
from acap_runtime.services.parameter import ParameterService
from acap_runtime.services.prediction import PredictionService
from acap_runtime.services.video_capture import VideoCaptureService
from acap_runtime.settings import Settings
from acap_runtime.stores import Store
from acap_runtime.stores.choice import make_store
from acap_runtime.streams import Streams
from acap_runtime.tensors import TensorReader
from acap_runtime.tls import credentials
from acap_runtime.unix_socket import born_with_mode, claimed_socket
from acap_runtime.worker.camera import CameraWorker
from acap_runtime.worker.restarts import RestartPolicy
from acap_runtime.worker.supervisor import Worker, WorkerLimits

_LOG = logging.getLogger(__name__)
_MIB: Final = 1 << 20
_SOCKET_MODE: Final = 0o660
_LAST_WORDS_S: Final = 0.5
"""What calls have that wait when the start fails, to hear why."""


async def serve(settings: Settings, plugins: Plugins) -> None:
    """Run the server until it is told to stop: by SIGTERM, SIGINT, or after `settings.run_for_s`.

    Listens once it knows its settings, some of which device parameters may have (``-o``); the chip and the models
    given come up meanwhile, and calls for them wait. Raises `AcapError` where the start fails.
    """
    stop = _stop_event()
    store = make_store(settings, plugins)
    try:
        overriding = asyncio.create_task(overridden(settings, store))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((overriding, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if overriding.done():
            await _serve(overriding.result(), plugins, store, stop)
        else:
            overriding.cancel()
    finally:
        if store is not None:
            await store.close()


async def _serve(settings: Settings, plugins: Plugins, store: Store | None, stop: asyncio.Event) -> None:
    if settings.verbose:
        logging.getLogger().setLevel(logging.DEBUG)
    chip, named_converter = chosen_chips(settings.chips, plugins)
    candidates = (named_converter,) if named_converter else plugins.converters()
    choice = ConverterChoice(candidates, required=named_converter is not None)
    worker = _make_worker(settings, chip) if chip else None
    catalogue = Catalogue(
        worker,
        models=settings.models,
        options=_model_options(settings, chip),
        instances=settings.instances,
        on_demand=0 if settings.port else settings.on_demand_models,
    )
    limit = settings.max_message_size * _MIB
    reader = TensorReader(limit, shared_memory=not settings.port)
    streams = _make_streams(settings, plugins)
    prediction = PredictionService(catalogue, reader, choice, streams)
    # HTTP/2 and protobuf add a little to a tensor of exactly that size.
    options = [("grpc.max_receive_message_length", limit + _MIB), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers(handlers(prediction, VideoCaptureService(streams, limit), ParameterService(store)))
    if settings.models and worker is None:
        _LOG.warning("-m: without a chip (-j) no model is loaded")
    async with _listening(server, settings):
        start = asyncio.create_task(_start(settings, store, worker, catalogue, choice))
        expiry = asyncio.create_task(streams.expire())
        grace_s = settings.grace_s
        try:
            await _until_stopped(stop, start, expiry, worker, settings.run_for_s)
            _LOG.info("stopping; running calls have %g s", grace_s)
        except AcapError as error:
            if worker:
                worker.refuse(Unavailable(f"the server does not start: {error}"))
            grace_s = min(grace_s, _LAST_WORDS_S)
            raise
        finally:
            for task in (start, expiry):
                task.cancel()
            await asyncio.gather(start, expiry, return_exceptions=True)
            await server.stop(grace_s)
            await asyncio.gather(streams.stop(), *([worker.stop()] if worker else []))
    _LOG.info("stopped")


def _model_options(settings: Settings, chip: InstalledChip | None) -> dict[str, str]:
    if settings.threads is None or chip is None:
        return {}
    if "threads" not in chip.backend.options:
        raise InvalidRequest(f"--threads: {chip} has no such option")
    return {"threads": str(settings.threads)}


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


def _make_worker(settings: Settings, chip: InstalledChip) -> Worker:
    limits = WorkerLimits(settings.run_timeout_s, settings.load_timeout_s, settings.queue)
    return Worker(chip, limits, RestartPolicy(), verbose=settings.verbose)


async def _start(
    settings: Settings, store: Store | None, worker: Worker | None, catalogue: Catalogue, choice: ConverterChoice
) -> None:
    if store is not None and settings.parameters is not None:
        await store.probe()
        _LOG.info("parameters come from %s", store)
    if worker is None:
        _LOG.info("no chip: the server runs without inference (-j CHIP)")
    else:
        await worker.start()
        await catalogue.preload()
        await choice.prepare()
    _LOG.info("ready")


async def _until_stopped(
    stop: asyncio.Event,
    start: asyncio.Task[None],
    expiry: asyncio.Task[None],
    worker: Worker | None,
    run_for_s: float,
) -> None:
    stopped = asyncio.create_task(stop.wait())
    try:
        async with asyncio.timeout(run_for_s or None):
            await asyncio.wait((stopped, start), return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
            watching = [expiry, *(worker.tasks if worker else ())]
            await asyncio.wait((stopped, *watching), return_when=asyncio.FIRST_COMPLETED)
            for task in watching:
                if task.done():
                    task.result()  # a server that no longer watches its worker or leases had better end
    except TimeoutError:
        _LOG.info("%g s have passed (-t)", run_for_s)
    finally:
        stopped.cancel()


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


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
