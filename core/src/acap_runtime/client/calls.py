"""Calls a server's methods, and reports failures."""

from __future__ import annotations

from typing import Any, Final

import grpc

from acap_runtime.proto import (
    DeleteStreamResponse,
    GetFrameResponse,
    GetStatusResponse,
    ModelStatus,
    NewStreamResponse,
    ParameterResponse,
    PredictResponse,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadResponse,
)


class CallFailed(Exception):
    """The server refused a call or did not answer it. ``str()`` gives all details in one line.

    `method` is the called method, such as ``Predict``, or ``connect``. `status` is gRPC's. `message` is the server's
    message. The error of grpc itself is the ``__cause__``.
    """

    def __init__(self, method: str, status: grpc.StatusCode, message: str) -> None:
        super().__init__(method, status, message)
        self.method = method
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"{self.method}, {self.status.name}: {self.message}"


class Method:
    """A method of a service. Several threads may call it at once."""

    def __init__(self, channel: grpc.Channel, path: str, response_type: Any, timeout_s: float) -> None:
        self._name: Final = path.rpartition("/")[2]
        self._timeout_s: Final = timeout_s
        self._call = channel.unary_unary(
            path, request_serializer=_serialised, response_deserializer=response_type.FromString
        )

    def __call__(
        self,
        request: Any,
        *,
        timeout_s: float | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Any:
        """Call the method and return the response. Raises `CallFailed`: UNAVAILABLE at once if the server is gone."""
        limit = self._timeout_s if timeout_s is None else timeout_s
        try:
            return self._call(request, timeout=limit, metadata=metadata)
        except grpc.RpcError as error:
            status, message = error.code(), error.details() or ""
            if status is grpc.StatusCode.DEADLINE_EXCEEDED:
                message = f"no answer within {limit:g} s"
            raise CallFailed(self._name, status, message) from error


class Calls:
    """The methods of a server's services that clients use. `timeout_s` is the limit for calls that set none."""

    def __init__(self, channel: grpc.Channel, timeout_s: float) -> None:
        def method(path: str, response_type: Any) -> Method:
            return Method(channel, path, response_type, timeout_s)

        self.predict = method("/tensorflow.serving.PredictionService/Predict", PredictResponse)
        self.new_stream = method("/videocapture.v1.VideoCapture/NewStream", NewStreamResponse)
        self.delete_stream = method("/videocapture.v1.VideoCapture/DeleteStream", DeleteStreamResponse)
        self.get_frame = method("/videocapture.v1.VideoCapture/GetFrame", GetFrameResponse)
        self.get_values = method("/keyvaluestore.KeyValueStore/GetValues", ParameterResponse)
        self.get_status = method("/acapruntime.v1.RuntimeService/GetStatus", GetStatusResponse)
        self.get_model = method("/acapruntime.v1.RuntimeService/GetModel", ModelStatus)
        repository = "/inference.GRPCInferenceService/RepositoryModel"
        self.load = method(f"{repository}Load", RepositoryModelLoadResponse)
        self.unload = method(f"{repository}Unload", RepositoryModelUnloadResponse)


def _serialised(request: Any) -> bytes:
    content: bytes = request.SerializeToString()
    return content
