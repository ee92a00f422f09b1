"""A client for Python programs: models, video and parameters of a running server, with numpy arrays in and out.

    from acap_runtime.client import connect

    with connect() as client, client.stream("nv12", 640, 480) as stream:
        for frame in stream:
            prediction = client.predict_stream("mobilenet", stream)
            print(frame.timestamp_us, prediction.outputs["Softmax"].argmax())

It needs grpcio, protobuf and numpy, and leaves protobuf's default pool alone: a program may use it beside TensorFlow,
tensorflow-serving-api or tritonclient. Plain gRPC clients work just as well; code for this one is shorter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc
import numpy as np

from acap_runtime.client.calls import CallFailed, Calls
from acap_runtime.client.status import ModelDescription, model_description, plain
from acap_runtime.client.video import Frame, Stream
from acap_runtime.contract.backend import Array
from acap_runtime.contract.camera import StreamFormat
from acap_runtime.proto import (
    GetModelRequest,
    GetStatusRequest,
    NewStreamRequest,
    ParameterRequest,
    PredictRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)
from acap_runtime.wire.tensors import DTYPES, has_wire_type, write_tensor
from acap_runtime.wire.vdo import CAMERA_KEY, FORMATS, TIMESTAMPS, TimestampType

__all__ = [
    "CallFailed",
    "Client",
    "Frame",
    "ModelDescription",
    "Prediction",
    "Stream",
    "StreamFormat",
    "TimestampType",
    "connect",
]

_OPTIONS: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # By default, grpc would increase the time between connection attempts, up to two minutes.
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_DEFAULT_ADDRESS: Final = "unix:///tmp/acap-runtime.sock"
_LAST_QUESTION_S: Final = 1.0


def connect(
    address: str = _DEFAULT_ADDRESS,
    *,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    timeout_s: float = 30.0,
    wait_s: float = 30.0,
) -> Client:
    """Connect to a server at `address`, ``unix:///PATH`` or ``HOST:PORT``, as soon as it is up.

    `ca` is a PEM file of the certificates that vouch for the server's; with it, the connection uses TLS. On a unix
    socket the server's certificate has to be for ``localhost``. `certificate` and `key`, also PEM files, are this
    client's own, for servers that demand one. `timeout_s` is the default time limit of a call. It includes the time
    until a model is loaded or the next frame is available. `wait_s` is the time to wait for a server that is not up
    yet.

    Raises `CallFailed` (UNAVAILABLE) if no server answers in that time, `OSError` if a file cannot be read,
    `ValueError` for a combination that makes no sense.
    """
    channel = _channel(address, ca, certificate, key)
    try:
        grpc.channel_ready_future(channel).result(wait_s)
    except grpc.FutureTimeoutError:
        problem = _connection_problem(channel)
        channel.close()
        tls = "without TLS" if ca is None else f"over TLS with a certificate that {ca} vouches for"
        message = f"nothing answers at {address} {tls} within {wait_s:g} s: is the server running there?"
        raise CallFailed("connect", grpc.StatusCode.UNAVAILABLE, message) from problem
    except BaseException:
        channel.close()
        raise
    return Client(channel, timeout_s)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The result of a model for a stream's newest frame, `Stream.frame(reference)`."""

    outputs: dict[str, Array]
    reference: int


class Client:
    """A connection to a server, made by `connect`. It is a context manager that closes the connection.

    Threads may share one client. Each method raises `CallFailed` with the server's message if the server refuses or
    does not answer, and `TypeError` or `ValueError`, before anything is sent, for arguments that cannot be sent.
    """

    def __init__(self, channel: grpc.Channel, timeout_s: float) -> None:
        self._channel = channel
        self._calls = Calls(channel, timeout_s)

    def predict(
        self,
        model: str,
        arrays: Mapping[str, Array] | Array,
        *,
        outputs: Iterable[str] = (),
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """Run a model. `model` is a name that the server knows or, on the server's unix socket, the absolute path of a
        file.

        `arrays` are the inputs by name, or the single input of a model that has one. Booleans, integers, floats of 16
        to 64 bits and complex numbers can be sent. A uint8 picture of shape (1, height, width, 3) is resized to the
        size that the model takes. The leading 1 may be left out. `outputs` names the outputs to return, by default all.
        They are read-only arrays; make a copy to write to one.
        """
        request = _request(model, arrays, outputs)
        return _outputs(self._calls.predict(request, timeout_s=timeout_s))

    def predict_stream(
        self,
        model: str,
        stream: Stream,
        arrays: Mapping[str, Array] | None = None,
        *,
        outputs: Iterable[str] = (),
        timeout_s: float | None = None,
    ) -> Prediction:
        """Run a model on a stream's newest frame, in the server. The picture itself is not sent to this client.

        The frame is converted and resized to the form that the model takes. `arrays` are the inputs other than the
        picture, for a model that has several. Everything else is as in `predict`.
        """
        request = _request(model, {} if arrays is None else arrays, outputs)
        request.stream_id = stream.number
        response = self._calls.predict(request, timeout_s=timeout_s)
        return Prediction(_outputs(response), response.frame_reference)

    def stream(
        self,
        format: StreamFormat,  # noqa: A002 - its name everywhere
        width: int,
        height: int,
        framerate: int = 30,
        *,
        timestamps: TimestampType = "utc",
        camera: str | int | None = None,
    ) -> Stream:
        """Open a stream of `width` x `height` pixels and `framerate` frames per second.

        `format` is raw (``nv12``, ``rgb-interleaved``, ``rgb-planar``) or encoded (``jpeg``, ``h264``, ``h265``: Annex
        B), as far as the camera supports it. `timestamps` selects the kind of the frames' timestamps: ``utc`` is the
        time at which they were taken. `camera` is a name that the server knows, or a number from 1. The first camera is
        the default.
        """
        settings = {
            "format": _number(FORMATS, "format", format),
            "width": width,
            "height": height,
            "framerate": framerate,
            "timestamp_type": _number(TIMESTAMPS, "timestamps", timestamps),
        }
        metadata = () if camera is None else ((CAMERA_KEY, str(camera)),)
        answer = self._calls.new_stream(NewStreamRequest(settings=settings), metadata=metadata)
        return Stream(self._calls, answer.stream_id, format, width, height)

    def parameter(self, key: str) -> str:
        """Return the value of a device's parameter, such as ``root.Brand.Brand``; empty if it does not exist."""
        value: str = self._calls.get_values(ParameterRequest(key=key)).value
        return value

    def model(self, name: str, *, timeout_s: float | None = None) -> ModelDescription:
        """Describe a model once it is loaded: its version, chip, inputs and outputs. `name` is as in `predict`."""
        return model_description(self._calls.get_model(GetModelRequest(name=name), timeout_s=timeout_s))

    def load(self, name: str, *, timeout_s: float | None = None) -> None:
        """Make the server load one of its models again, or the parts of it that are new on disk. Waits until it is
        served.
        """
        self._calls.load(RepositoryModelLoadRequest(model_name=name), timeout_s=timeout_s)

    def unload(self, name: str, *, timeout_s: float | None = None) -> None:
        """Make the server unload one of its models when its current calls have ended."""
        self._calls.unload(RepositoryModelUnloadRequest(model_name=name), timeout_s=timeout_s)

    def status(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the state of the server, its chips, models, cameras and streams, as ``acapruntime status --json``
        prints it: the fields of ``GetStatusResponse`` by their names.
        """
        return plain(self._calls.get_status(GetStatusRequest(), timeout_s=timeout_s))

    def close(self) -> None:
        """Close the connection. Calls that run in other threads end with CANCELLED."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _channel(address: str, ca: Path | None, certificate: Path | None, key: Path | None) -> grpc.Channel:
    if (certificate is None) != (key is None):
        raise ValueError("expected certificate and key together, got one of them")
    if ca is None:
        if certificate is not None:
            raise ValueError("expected ca beside certificate and key: without it there is no TLS")
        return grpc.insecure_channel(address, _OPTIONS)
    # A unix socket has no host name to check a certificate against.
    authority = [("grpc.default_authority", "localhost")] if address.startswith("unix:") else []
    files = (None if path is None else path.read_bytes() for path in (ca, key, certificate))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*files), [*_OPTIONS, *authority])


def _connection_problem(channel: grpc.Channel) -> grpc.RpcError | None:
    """Return grpc's error for a channel that does not become ready. Only a call reports it."""
    try:
        channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)(b"", timeout=_LAST_QUESTION_S)
    except grpc.RpcError as error:
        return error
    return None


def _number(numbers: Mapping[Any, int], what: str, name: str) -> int:
    if name not in numbers:
        raise ValueError(f"{what}: expected one of {', '.join(numbers)}, got {name!r}")
    return numbers[name]


def _request(model: str, arrays: Mapping[str, Array] | Array, outputs: Iterable[str]) -> Any:
    if isinstance(outputs, str):
        raise TypeError(f"outputs: expected names, got the text {outputs!r}; write [{outputs!r}]")
    request = PredictRequest(output_filter=outputs)
    request.model_spec.name = model
    for name, value in (arrays if isinstance(arrays, Mapping) else {"data": arrays}).items():
        array = np.asarray(value)
        dtype = array.dtype.newbyteorder("<")
        if not has_wire_type(dtype):
            raise TypeError(f"input {name!r}: expected booleans, integers, floats or complex numbers, got {dtype}")
        write_tensor(request.inputs[name], dtype, array.shape, array.astype(dtype, copy=False).tobytes())
    return request


def _outputs(response: Any) -> dict[str, Array]:
    return {name: _array(proto) for name, proto in response.outputs.items()}


def _array(proto: Any) -> Array:
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    return np.ndarray(shape, DTYPES[proto.dtype], proto.tensor_content)
