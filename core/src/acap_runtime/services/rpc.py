"""Connects services to gRPC: parses requests, calls methods, and turns errors into statuses. No other module does."""

from __future__ import annotations

import asyncio
import logging
from asyncio import FIRST_COMPLETED
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NoReturn, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from acap_runtime.contract.unexpected import log_unexpected
from acap_runtime.errors import (
    AcapError,
    AlreadyExists,
    Busy,
    DeviceError,
    Forbidden,
    Incomplete,
    InvalidRequest,
    NotFound,
    NotReady,
    TooLate,
    Unavailable,
    Unimplemented,
)

_LOG = logging.getLogger(__name__)
_LONGEST_STATUS: Final = 2000
"""The largest status message in bytes. Peers refuse trailers beyond 8 KiB, and a byte that is not ASCII is sent as
three.
"""

STATUS: Final[dict[type[AcapError], grpc.StatusCode]] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    NotReady: grpc.StatusCode.FAILED_PRECONDITION,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeviceError: grpc.StatusCode.INTERNAL,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    TooLate: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    Incomplete: grpc.StatusCode.UNKNOWN,  # TensorFlow Serving's answer if some of several models fail
}


def status_of(error: BaseException) -> grpc.StatusCode:
    """Return the status of an error: that of its class, or of the nearest base class that has one."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), grpc.StatusCode.INTERNAL)


@dataclass(frozen=True, slots=True)
class Method:
    """A method that gives one response to each request. `request` is the requests' class; None passes raw bytes.

    `answer` takes a request and the call's context, and returns a response or raises `AcapError`. A method that
    `streams` takes any number of requests in one call and responds in their order. It works on up to `at_once` of them
    before it reads another. Unary clients can call it too: on the wire, a unary call is a stream of one message.
    """

    request: Any
    answer: Callable[[Any, Any], Awaitable[Any]]
    streams: bool = False
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class Subscription:
    """A method that gives any number of responses to one request, until the client ends the call.

    `answer` takes a request and the call's context, and yields responses or raises `AcapError`.
    """

    request: Any
    answer: Callable[[Any, Any], AsyncIterator[Any]]


def unimplemented(reason: str) -> Method:
    """Make a method that refuses every request with `reason`."""

    async def refuse(_request: Any, _context: Any) -> Any:
        raise Unimplemented(reason)

    return Method(None, refuse)


class Service(Protocol):
    """A gRPC service. `name` is its full name, with the package."""

    @property
    def name(self) -> str: ...

    @property
    def methods(self) -> Mapping[str, Method | Subscription]: ...


def handlers(services: Iterable[Service]) -> tuple[grpc.GenericRpcHandler[Any, Any], ...]:
    """Make the handlers of services, for a gRPC server."""
    return tuple(
        grpc.method_handlers_generic_handler(
            service.name, {name: _handler(method) for name, method in service.methods.items()}
        )
        for service in services
    )


def _handler(method: Method | Subscription) -> grpc.RpcMethodHandler[Any, Any]:
    if isinstance(method, Subscription):
        return grpc.unary_stream_rpc_method_handler(_unary_stream(method), response_serializer=_serialise)
    if method.streams:
        return grpc.stream_stream_rpc_method_handler(_stream_stream(method), response_serializer=_serialise)
    return grpc.unary_unary_rpc_method_handler(_unary_unary(method), response_serializer=_serialise)


def _serialise(response: Any) -> bytes:
    content: bytes = response.SerializeToString()
    return content


def _unary_unary(method: Method) -> Callable[[bytes, Any], Awaitable[Any]]:
    """Wrap a method for gRPC.

    The wrapper parses the request itself, since gRPC answers UNKNOWN to bytes that do not parse and logs a traceback.
    """

    async def answer(content: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await _answer(method, content, context)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await _abort(error, context)

    return answer


def _stream_stream(method: Method) -> Callable[[Any, Any], AsyncIterator[Any]]:
    """Wrap a method that streams. Requests without a response are cancelled when the call ends."""

    async def answer(contents: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        answers: deque[asyncio.Task[Any]] = deque()
        reading: asyncio.Task[bytes | None] | None = None
        ended = False
        try:
            while not ended or answers:
                if not ended and reading is None and len(answers) < method.at_once:
                    reading = asyncio.create_task(_next(contents))
                await asyncio.wait([*([reading] if reading else []), *islice(answers, 1)], return_when=FIRST_COMPLETED)
                if reading is not None and reading.done():
                    content, reading = reading.result(), None
                    if content is None:
                        ended = True
                    else:
                        answers.append(asyncio.create_task(_answer(method, content, context)))
                while answers and answers[0].done():
                    yield answers.popleft().result()
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await _abort(error, context)
        finally:
            for task in (*answers, *([reading] if reading else [])):
                task.cancel()

    return answer


async def _next(contents: AsyncIterator[bytes]) -> bytes | None:
    return await anext(contents, None)


async def _answer(method: Method, content: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    return await method.answer(_parse(method.request, content), context)


def _unary_stream(method: Subscription) -> Callable[[bytes, Any], AsyncIterator[Any]]:
    """Wrap a subscription."""

    async def answer(content: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for response in method.answer(_parse(method.request, content), context):
                yield response
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await _abort(error, context)

    return answer


async def _abort(error: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    if isinstance(error, AcapError):
        status = status_of(error)
        _LOG.log(logging.ERROR if status is grpc.StatusCode.INTERNAL else logging.DEBUG, "%s: %s", status.name, error)
        await context.abort(status, _status_message(str(error)))
    log_unexpected(_LOG, "a call failed in the server", error)
    # A stranger need not learn what the exception says, which may name files.
    await context.abort(grpc.StatusCode.INTERNAL, "unexpected error in the server; its log says more")


def _parse(request_type: Any, content: bytes) -> Any:
    if request_type is None:
        return content
    try:
        return request_type.FromString(content)
    except DecodeError as error:
        name = request_type.DESCRIPTOR.full_name
        raise InvalidRequest(f"expected a {name}, got {len(content)} bytes that are none: {error}") from None


def _status_message(text: str) -> str:
    return text.encode()[:_LONGEST_STATUS].decode(errors="ignore")
