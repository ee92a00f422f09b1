"""The front: composes the services, listens, and turns errors into gRPC statuses."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from acap_runtime.catalogue import Catalogue
from acap_runtime.converters import ConverterChoice
from acap_runtime.errors import (
    AcapError,
    Busy,
    DeviceError,
    Forbidden,
    InvalidRequest,
    NotFound,
    NotReady,
    Unavailable,
)
from acap_runtime.plugins import InstalledChip, Plugins, chosen_chips
from acap_runtime.proto import PredictRequest, PredictResponse
from acap_runtime.services.prediction import PredictionService
from acap_runtime.settings import Settings
from acap_runtime.tensors import TensorReader
from acap_runtime.tls import credentials
from acap_runtime.unix_socket import born_with_mode, claimed_socket
from acap_runtime.worker.supervisor import RestartPolicy, Worker, WorkerLimits

_LOG = logging.getLogger(__name__)
_MIB: Final = 1 << 20
_LONGEST_STATUS: Final = 2000
"""Bytes of a status message: peers refuse trailers beyond 8 KiB, and every byte that is not ASCII travels as three."""
_SOCKET_MODE: Final = 0o660
_LAST_WORDS_S: Final = 0.5
"""What calls have that wait when the start fails, to hear why."""

STATUS: Final[dict[type[AcapError], grpc.StatusCode]] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    NotReady: grpc.StatusCode.FAILED_PRECONDITION,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeviceError: grpc.StatusCode.INTERNAL,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
}


def status_of(error: BaseException) -> grpc.StatusCode:
    """The status for an error, looked up along its classes."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), grpc.StatusCode.INTERNAL)


async def serve(settings: Settings, plugins: Plugins) -> None:
    """Run the server until it is told to stop: by SIGTERM, SIGINT, or after `settings.run_for_s`.

    Listens at once; the chip and the models given come up meanwhile, and calls for them wait. Raises `AcapError`
    where the start fails.
    """
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
    prediction = PredictionService(catalogue, TensorReader(limit, shared_memory=not settings.port), choice)
    # HTTP/2 and protobuf add a little to a tensor of exactly that size.
    options = [("grpc.max_receive_message_length", limit + _MIB), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((_prediction_handlers(prediction),))
    stop = _stop_event()
    if settings.parameters_override:
        _LOG.warning("-o: no parameter store is configured, nothing overrides the command line")
    if settings.models and worker is None:
        _LOG.warning("-m: without a chip (-j) no model is loaded")
    async with _listening(server, settings):
        start = asyncio.create_task(_start(worker, catalogue, choice))
        grace_s = settings.grace_s
        try:
            await _until_stopped(stop, start, worker, settings.run_for_s)
            _LOG.info("stopping; running calls have %g s", grace_s)
        except AcapError as error:
            if worker:
                worker.refuse(Unavailable(f"the server does not start: {error}"))
            grace_s = min(grace_s, _LAST_WORDS_S)
            raise
        finally:
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            await server.stop(grace_s)
            if worker:
                await worker.stop()
    _LOG.info("stopped")


def _model_options(settings: Settings, chip: InstalledChip | None) -> dict[str, str]:
    if settings.threads is None or chip is None:
        return {}
    if "threads" not in chip.backend.options:
        raise InvalidRequest(f"--threads: {chip} has no such option")
    return {"threads": str(settings.threads)}


def _make_worker(settings: Settings, chip: InstalledChip) -> Worker:
    limits = WorkerLimits(settings.run_timeout_s, settings.load_timeout_s, settings.queue)
    return Worker(chip, limits, RestartPolicy(), verbose=settings.verbose)


async def _start(worker: Worker | None, catalogue: Catalogue, choice: ConverterChoice) -> None:
    if worker is None:
        _LOG.info("no chip: the server runs without inference (-j CHIP)")
    else:
        await worker.start()
        await catalogue.preload()
        await choice.prepare()
    _LOG.info("ready")


async def _until_stopped(
    stop: asyncio.Event, start: asyncio.Task[None], worker: Worker | None, run_for_s: float
) -> None:
    stopped = asyncio.create_task(stop.wait())
    try:
        async with asyncio.timeout(run_for_s or None):
            await asyncio.wait((stopped, start), return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
            watching = worker.tasks if worker else []
            await asyncio.wait((stopped, *watching), return_when=asyncio.FIRST_COMPLETED)
            for task in watching:
                if task.done():
                    task.result()  # a server that no longer watches its worker had better end
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


def _prediction_handlers(service: PredictionService) -> grpc.GenericRpcHandler[Any, Any]:
    return grpc.method_handlers_generic_handler(
        service.name,
        {
            "Predict": grpc.unary_unary_rpc_method_handler(
                _answering(PredictRequest, service.predict),
                response_serializer=PredictResponse.SerializeToString,
            )
        },
    )


def _answering(
    request_type: Any, behaviour: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[bytes, Any], Awaitable[Any]]:
    """A gRPC handler around a service's method: the only place where errors become statuses.

    It parses the request itself: grpc answers UNKNOWN to bytes that do not parse, and logs a stack for each.
    """

    async def answer(content: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(_parse(request_type, content), context)
        except AcapError as error:
            status = status_of(error)
            _LOG.log(
                logging.ERROR if status is grpc.StatusCode.INTERNAL else logging.DEBUG, "%s: %s", status.name, error
            )
            await context.abort(status, _status_message(str(error)))
        except Exception:  # noqa: BLE001 - logged whole, and the client learns that it was unexpected
            _LOG.exception("unexpected error in a call")
            await context.abort(grpc.StatusCode.INTERNAL, "unexpected error in the server; its log says more")

    return answer


def _parse(request_type: Any, content: bytes) -> Any:
    try:
        return request_type.FromString(content)
    except DecodeError as error:
        name = request_type.DESCRIPTOR.full_name
        raise InvalidRequest(f"expected a {name}, got {len(content)} bytes that are none: {error}") from None


def _status_message(text: str) -> str:
    return text.encode()[:_LONGEST_STATUS].decode(errors="ignore")
