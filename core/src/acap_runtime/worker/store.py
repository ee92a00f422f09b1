"""A parameter store in the worker."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from acap_runtime.contract.parameter_store import ParameterStore
from acap_runtime.contract.unexpected import log_unexpected
from acap_runtime.errors import AcapError, DeviceError, NotReady, quoted
from acap_runtime.link.messages import Channel, pack_error
from acap_runtime.plugins.installed import load_plugin

_LOG = logging.getLogger(__name__)


def open_store(config: Mapping[str, Any]) -> Callable[[Mapping[str, Any], Channel], None]:
    """Find the store and probe it. Returns the function that answers questions to it. Raises any error that the plugin
    raises.
    """
    for store in load_plugin(config["address"]).stores:
        if store.name == config["name"]:
            store.probe()
            return partial(_answer_questions, store)
    raise NotReady(f"plugin {config['address']} no longer brings parameter store {config['name']}")


def _answer_questions(store: ParameterStore, _message: Mapping[str, Any], channel: Channel) -> None:
    with contextlib.suppress(ConnectionError):  # the front has no more questions
        while (received := channel.receive()) is not None:
            question = received[0]
            number = question["number"]
            try:
                channel.send({"number": number, **_answer(store, question["key"])})
            except AcapError as error:  # the value is too long for a message
                channel.send({"number": number, "error": pack_error(error)})
    channel.close()


def _answer(store: ParameterStore, key: str) -> dict[str, Any]:
    try:
        value: object = store.get(key)
    except BaseException as error:  # noqa: BLE001 - the front is told, whatever a plugin raises
        if not isinstance(error, AcapError):
            log_unexpected(_LOG, f"parameter {quoted(key)} could not be read", error)
        return {"error": pack_error(error)}
    if value is not None and not isinstance(value, str):
        return {"error": pack_error(DeviceError(f"the plugin's store gave {type(value).__name__}; expected a str"))}
    return {"value": value}
