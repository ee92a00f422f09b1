"""grpc.health.v1.Health: reports the health of the server, a service or a model, by the name that a client gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Final

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from acap_runtime.errors import NotFound, Unavailable, quoted
from acap_runtime.models.catalogue import Catalogue
from acap_runtime.services.rpc import Method, Subscription


class HealthService:
    """Answers from the current state, so that no status is outdated.

    The empty name and the services of `inference` are serving if `unready` has no reason why not. `others` are always
    serving. A model is serving if one of its versions is. The package's own servicer keeps statuses in a table. The
    name of a model that is gone cannot be removed from that table, and one client that reads nothing can block code
    that sets a status.
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
        """Answer a HealthCheckRequest. Raises `NotFound` for a name that is neither a service nor a model."""
        status = self._status(request.service)
        if status is None:
            raise NotFound(f"service: expected nothing, a service or a model, got {quoted(request.service)}")
        return HealthCheckResponse(status=status)

    async def watch(self, request: Any, _context: Any) -> AsyncIterator[Any]:
        """Answer a HealthCheckRequest at once, and again whenever the status changes, until the server stops.

        An unknown name may become known; its status is SERVICE_UNKNOWN. Raises `Unavailable` at the end, so that
        watching clients do not keep the server from stopping.
        """
        told = None
        while True:
            # Both before the status is read, so that no change is missed while a response is on its way.
            news, stopping = self._news, self._stopping
            status = self._status(request.service)
            status = HealthCheckResponse.SERVICE_UNKNOWN if status is None else status
            if status != told:
                yield HealthCheckResponse(status=status)
                told = status
            if stopping:
                raise Unavailable("the server stops")
            await news.wait()

    async def follow(self, changed: asyncio.Event) -> None:
        """Notify watching clients whenever `changed` is set."""
        while True:
            await changed.wait()
            changed.clear()
            self._tell()

    def stop(self) -> None:
        """Report every name as not serving from now on."""
        self._stopping = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _status(self, name: str) -> Any:
        """Return the status of a name; None if it is unknown."""
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
