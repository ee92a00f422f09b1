"""keyvaluestore.KeyValueStore: the device's parameters, for the original's clients."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import grpc.aio

from acap_runtime.errors import InvalidRequest, NotReady, quoted
from acap_runtime.proto import ParameterRequest, ParameterResponse
from acap_runtime.services.rpc import Method
from acap_runtime.stores import Store

_LOG = logging.getLogger(__name__)
_LONGEST_KEY: Final = 255


class ParameterService:
    """Reads parameters for clients from `store`, which is None if the server has no store."""

    name: Final = "keyvaluestore.KeyValueStore"

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self.methods = {"GetValues": Method(ParameterRequest, self.get_values, streams=True)}

    async def get_values(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ARG002 - as each method
        """Answer a Request for one key with a Response. The value of a key that does not exist is empty.

        Raises `InvalidRequest` for an invalid key, `NotReady` without a store, and the errors of the store.
        """
        key = request.key
        if len(key) > _LONGEST_KEY or not re.fullmatch(r"[a-zA-Z0-9._-]+", key):
            raise InvalidRequest(
                f"key: expected 1 to {_LONGEST_KEY} letters, digits, '.', '_' and '-', such as root.Brand.Brand, "
                f"got {quoted(key)}{f' ({len(key)} characters)' if len(key) > _LONGEST_KEY else ''}"
            )
        if self._store is None:
            raise NotReady("this server has no parameter store; start it with --parameters FILE|URL")
        try:
            value = await self._store.get(key)
        except NotReady as error:
            raise NotReady(f"{error}; --parameters FILE|URL names another store") from None
        _LOG.debug("parameter %s %s", key, "is unknown" if value is None else "read")
        return ParameterResponse(value=value or "")
