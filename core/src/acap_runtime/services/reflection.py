"""grpc.reflection: lists services and the messages that they take, for clients without stubs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from functools import cached_property
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.text_format import MessageToString, Parse
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from acap_runtime.proto import POOL
from acap_runtime.services.rpc import Method

REFLECTIONS: Final = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
"""The protocol's versions, which differ only in the name of their package. grpcio-reflection has the first. Newer
clients ask for the second first.
"""


class ReflectionService:
    """One version of the protocol, by its name. `services` has the full names of all services."""

    def __init__(self, name: str, services: Collection[str]) -> None:
        self.name = name
        self._services = tuple(services)
        self.methods = {"ServerReflectionInfo": Method(ServerReflectionRequest, self.answer, streams=True)}

    async def answer(self, request: Any, context: Any) -> Any:
        """Answer a ServerReflectionRequest. A symbol that is not found gives an error_response, as specified."""
        return await anext(self._servicer.ServerReflectionInfo(_one(request), context))

    @cached_property
    def _servicer(self) -> Any:
        # Made when the first client asks, since most servers are never asked.
        from grpc_reflection.v1alpha import reflection  # noqa: PLC0415

        aio: Any = reflection.aio  # type: ignore[attr-defined]  # which the stubs do not know
        return aio.ReflectionServicer(self._services, pool=_Files(self._services))


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


class _Files:
    """The files of services and their imports, with the interface of a pool that grpcio-reflection expects.

    Our files are in a pool of our own. Those of health and reflection are in protobuf's default pool.
    """

    def __init__(self, services: Collection[str]) -> None:
        self._pool = DescriptorPool()
        for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
            self._add(file)
        self._pool.Add(_v1_of(reflection_pb2.DESCRIPTOR))
        for name in services:
            with contextlib.suppress(KeyError):  # one of those above
                self._add(POOL.FindServiceByName(name).file)

    def _add(self, file: Any) -> None:
        for needed in file.dependencies:
            self._add(needed)
        self._pool.AddSerializedFile(file.serialized_pb)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - protobuf's name
        """Find a file as `DescriptorPool` does, also by the full name of a method. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            return self._pool.FindServiceByName(service).methods_by_name[method].containing_service.file


def _v1_of(file: Any) -> FileDescriptorProto:
    """Make the protocol's v1 file from its v1alpha by changing the package name."""
    text = MessageToString(FileDescriptorProto.FromString(file.serialized_pb))
    return Parse(text.replace("v1alpha", "v1"), FileDescriptorProto())
