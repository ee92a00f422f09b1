"""grpc.health.v1.Health: whether the server, a service or a model serves, by the name that a client gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Final

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from acap_runtime.errors import NotFound, Unavailable, quoted
from acap_runtime.models.catalogue import Catalogue
from acap_runtime.services.rpc import Method, Subscription

_LAST_STATUS_S: Final = 0.1


class HealthService:
    """Answers from how things are, so that no status is older than what it tells of.

    The empty name and the services of `inference` serve where `unready` has no reason why not, `others` always, a model
    where one of its versions does. The package's own servicer keeps statuses in a table, from which the name
    of a model that is gone cannot be taken, and lets one client that reads nothing hold up who sets them.
    """

    name: Final = "grpc.health.v1.Health"

    def __init__(
        self, catalogue: Catalogue, unready: Callable[[], str], *, inference: Collection[str], others: Collection[str]
    ) -> None:
        self._catalogue = catalogue
        self._unready = unready
        self._inference = frozenset(inference)
        self._others = frozenset(others)
        self._stopping = False
        self._news = asyncio.Event()
        self.methods: dict[str, Method | Subscription] = {
            "Check": Method(HealthCheckRequest, self.check),
            "Watch": Subscription(HealthCheckRequest, self.watch),
        }

    async def check(self, request: Any, _context: Any) -> Any:
        """Answer a HealthCheckRequest. Raises `NotFound` for a name that is none of a service or a model."""
        status = self._status(request.service)
        if status is None:
            raise NotFound(f"service: expected nothing, a service or a model, got {quoted(request.service)}")
        return HealthCheckResponse(status=status)

    async def watch(self, request: Any, _context: Any) -> AsyncIterator[Any]:
        """Answer a HealthCheckRequest at once, and again whenever the status is another, until the server stops.

        A name that is unknown may become one: its status is SERVICE_UNKNOWN. Raises `Unavailable` at the end, so that
        who watches does not keep the server from stopping.
        """
        told = None
        while True:
            news = self._news  # before the status is looked at, so that no change is missed
            status = self._status(request.service)
            status = HealthCheckResponse.SERVICE_UNKNOWN if status is None else status
            if status != told:
                yield HealthCheckResponse(status=status)
                told = status
            if self._stopping:
                # gRPC drops a message that a client has not read yet when the call ends with an error.
                await asyncio.sleep(_LAST_STATUS_S)
                raise Unavailable("the server stops")
            await news.wait()

    async def follow(self, changed: asyncio.Event) -> None:
        """Tell those who watch whenever `changed` is set."""
        while True:
            await changed.wait()
            changed.clear()
            self._tell()

    def stop(self) -> None:
        """From now on nothing serves."""
        self._stopping = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _status(self, name: str) -> Any:
        """The status of a name; None if it is unknown."""
        if not name or name in self._inference:
            serves = not self._unready()
        elif name in self._others:
            serves = True
        else:
            try:
                serves = self._catalogue.model(name).serving
            except NotFound:
                return None
        serves = serves and not self._stopping
        return HealthCheckResponse.SERVING if serves else HealthCheckResponse.NOT_SERVING
