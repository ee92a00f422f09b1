"""grpc.reflection: what services there are, and the messages that they take, for clients without stubs."""

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
"""The protocol's versions, which differ in the name of their package alone. grpcio-reflection has the first, newer
clients ask for the second before it."""


class ReflectionService:
    """One version of the protocol, by its name; `services` are the full names of all services."""

    def __init__(self, name: str, services: Collection[str]) -> None:
        self.name = name
        self._services = tuple(services)
        self.methods = {"ServerReflectionInfo": Method(ServerReflectionRequest, self.answer, streams=True)}

    async def answer(self, request: Any, context: Any) -> Any:
        """Answer a ServerReflectionRequest; what is not found is in the response's error_response, as specified."""
        return await anext(self._servicer.ServerReflectionInfo(_one(request), context))

    @cached_property
    def _servicer(self) -> Any:
        # Made when the first client asks: most servers are never asked.
        from grpc_reflection.v1alpha import reflection  # noqa: PLC0415

        aio: Any = reflection.aio  # type: ignore[attr-defined]  # which the stubs do not know
        return aio.ReflectionServicer(self._services, pool=_Files(self._services))


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


class _Files:
    """The files of services, with those that they import, as grpcio-reflection looks into a pool.

    Ours are in a pool of our own, those of health and reflection in protobuf's default one.
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
        """As `DescriptorPool` has it, and for the full name of a method too. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            return self._pool.FindServiceByName(service).methods_by_name[method].containing_service.file


def _v1_of(file: Any) -> FileDescriptorProto:
    """The protocol's v1, made of its v1alpha by the other name."""
    text = MessageToString(FileDescriptorProto.FromString(file.serialized_pb))
    return Parse(text.replace("v1alpha", "v1"), FileDescriptorProto())
