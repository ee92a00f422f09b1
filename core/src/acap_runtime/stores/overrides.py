"""Reads the device's parameters that override the settings with ``-o``.

They are the original's, in the group ``root.Acapruntime``.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from acap_runtime.errors import AcapError, InvalidRequest, NotReady, quoted
from acap_runtime.settings.option_values import HIGHEST_PORT
from acap_runtime.settings.options import Settings
from acap_runtime.stores import Store

_LOG = logging.getLogger(__name__)
_GROUP: Final = "root.Acapruntime"
_PACKAGE: Final = Path("/usr/local/packages/acapruntime")
"""The folder of the original, installed on a camera, including its certificate."""


@dataclass(frozen=True, slots=True)
class Override:
    """A parameter of the device, and the settings that it overrides, by field name."""

    key: str
    values: Mapping[str, Any]


async def read_overrides(settings: Settings, store: Store | None) -> list[Override]:
    """Read the overrides of `settings` from the device's parameters. There are none without ``-o``.

    A parameter that is absent overrides nothing. One that does not parse is logged and overrides nothing. Raises the
    error of the store, since a server that must follow the device must not start without its parameters.
    """
    if not settings.parameters_override:
        return []
    if store is None:
        _LOG.warning(
            "-o: there is no parameter store, nothing overrides the command line; give one with --parameters FILE|URL"
        )
        return []
    overrides = []
    for name, parse in _PARAMETERS.items():
        key = f"{_GROUP}.{name}"
        try:
            text = await store.get(key)
        except NotReady as error:
            if settings.parameters is not None:
                raise NotReady(f"-o: {key} cannot be read: {error}") from None
            _LOG.warning("-o: nothing overrides the command line: %s; --parameters FILE|URL names another store", error)
            return []  # the plugin of a device's own store is installed on another machine
        except AcapError as error:
            raise type(error)(f"-o: {key} cannot be read: {error}") from None
        try:
            values = {} if text is None else parse(text, settings)
        except InvalidRequest as error:
            _LOG.warning("-o: %s: %s; it overrides nothing", key, error)
        else:
            if values:
                overrides.append(Override(key, values))
    return overrides


def applied(settings: Settings, overrides: list[Override]) -> Settings:
    """Return the settings with the overrides in place."""
    for override in overrides:
        settings = dataclasses.replace(settings, **override.values)
    return settings


async def overridden(settings: Settings, store: Store | None) -> Settings:
    """Return the settings with the device's overrides in place, and log these. Raises as `read_overrides` does."""
    overrides = await read_overrides(settings, store)
    for override in overrides:
        values = ", ".join(f"{name} {value}" for name, value in override.values.items())
        _LOG.info("-o: %s sets %s", override.key, values)
    return applied(settings, overrides)


def _parse_yes(text: str) -> bool:
    if text.strip() not in {"yes", "no"}:
        raise InvalidRequest(f"expected yes or no, got {quoted(text)}")
    return text.strip() == "yes"


def _parse_integer(text: str, expected: str, highest: int) -> int:
    if not re.fullmatch(r"\s*\d{1,9}\s*", text, re.ASCII) or int(text) > highest:
        raise InvalidRequest(f"expected {expected}, got {quoted(text)}")
    return int(text)


def _verbose(text: str, _: Settings) -> dict[str, Any]:
    return {"verbose": _parse_yes(text)}


def _port(text: str, _: Settings) -> dict[str, Any]:
    return {"port": _parse_integer(text, f"an integer from 0 to {HIGHEST_PORT}", HIGHEST_PORT)}


def _tls(text: str, _: Settings) -> dict[str, Any]:
    # As in the original, "no" does not turn off the TLS of the command line.
    return {"certificate": _PACKAGE / "server.pem", "key": _PACKAGE / "server.key"} if _parse_yes(text) else {}


def _chip(text: str, settings: Settings) -> dict[str, Any]:
    # The parameter is the chip for inference. The second -j, the chip that converts images, stays unchanged.
    return {"chips": (str(_parse_integer(text, "a chip's number", 10**9)), *settings.chips[1:])}


_PARAMETERS: Final[Mapping[str, Callable[[str, Settings], dict[str, Any]]]] = {
    "Verbose": _verbose,
    "IpPort": _port,
    "UseTLS": _tls,
    "ChipId": _chip,
}
