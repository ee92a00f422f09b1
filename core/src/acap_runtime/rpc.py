"""Services as gRPC sees them: their methods, requests parsed, and errors as statuses, which they become here alone."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from acap_runtime.errors import (
    AcapError,
    Busy,
    DeviceError,
    Forbidden,
    InvalidRequest,
    NotFound,
    NotReady,
    TooLate,
    Unavailable,
)
from acap_runtime.proto import (
    DeleteStreamRequest,
    GetFrameRequest,
    NewStreamRequest,
    ParameterRequest,
    PredictRequest,
)
from acap_runtime.services.parameter import ParameterService
from acap_runtime.services.prediction import PredictionService
from acap_runtime.services.video_capture import VideoCaptureService

_LOG = logging.getLogger(__name__)
_LONGEST_STATUS: Final = 2000
"""Bytes of a status message: peers refuse trailers beyond 8 KiB, and every byte that is not ASCII travels as three."""

STATUS: Final[dict[type[AcapError], grpc.StatusCode]] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    NotReady: grpc.StatusCode.FAILED_PRECONDITION,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeviceError: grpc.StatusCode.INTERNAL,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    TooLate: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def status_of(error: BaseException) -> grpc.StatusCode:
    """The status for an error, looked up along its classes."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), grpc.StatusCode.INTERNAL)


Behaviour = Callable[[Any, Any], Awaitable[Any]]
"""A method of a service: takes a request message and the call's context, returns a response, raises `AcapError`."""


def handlers(
    prediction: PredictionService, video: VideoCaptureService, parameters: ParameterService
) -> tuple[grpc.GenericRpcHandler[Any, Any], ...]:
    """What a gRPC server serves."""
    return (
        _unary_handlers(prediction.name, {"Predict": (PredictRequest, prediction.predict)}),
        _unary_handlers(
            video.name,
            {
                "NewStream": (NewStreamRequest, video.new_stream),
                "DeleteStream": (DeleteStreamRequest, video.delete_stream),
                "GetFrame": (GetFrameRequest, video.get_frame),
            },
        ),
        # On the wire a unary call is a stream of one message: this serves clients of both kinds.
        grpc.method_handlers_generic_handler(
            parameters.name,
            {
                "GetValues": grpc.stream_stream_rpc_method_handler(
                    _answering_each(ParameterRequest, parameters.get_values), response_serializer=_serialised
                )
            },
        ),
    )


def _unary_handlers(service: str, methods: dict[str, tuple[Any, Behaviour]]) -> grpc.GenericRpcHandler[Any, Any]:
    return grpc.method_handlers_generic_handler(
        service,
        {
            name: grpc.unary_unary_rpc_method_handler(
                _answering(request_type, behaviour), response_serializer=_serialised
            )
            for name, (request_type, behaviour) in methods.items()
        },
    )


def _serialised(response: Any) -> bytes:
    content: bytes = response.SerializeToString()
    return content


def _answering(request_type: Any, behaviour: Behaviour) -> Callable[[bytes, Any], Awaitable[Any]]:
    """A gRPC handler around a service's method.

    It parses the request itself: grpc answers UNKNOWN to bytes that do not parse, and logs a stack for each.
    """

    async def answer(content: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(_parse(request_type, content), context)
        except Exception as error:  # noqa: BLE001 - whatever it is becomes a status
            await _refuse(error, context)

    return answer


def _answering_each(request_type: Any, behaviour: Behaviour) -> Callable[[Any, Any], AsyncIterator[Any]]:
    """The same for a stream of requests, each answered by one response."""

    async def answer(contents: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for content in contents:
                yield await behaviour(_parse(request_type, content), context)
        except Exception as error:  # noqa: BLE001 - whatever it is becomes a status
            await _refuse(error, context)

    return answer


async def _refuse(error: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    if isinstance(error, AcapError):
        status = status_of(error)
        _LOG.log(logging.ERROR if status is grpc.StatusCode.INTERNAL else logging.DEBUG, "%s: %s", status.name, error)
        await context.abort(status, _status_message(str(error)))
    _LOG.error("unexpected error in a call", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "unexpected error in the server; its log says more")


def _parse(request_type: Any, content: bytes) -> Any:
    try:
        return request_type.FromString(content)
    except DecodeError as error:
        name = request_type.DESCRIPTOR.full_name
        raise InvalidRequest(f"expected a {name}, got {len(content)} bytes that are none: {error}") from None


def _status_message(text: str) -> str:
    return text.encode()[:_LONGEST_STATUS].decode(errors="ignore")
