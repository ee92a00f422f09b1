"""Parsers for values on the command line, in the environment and in a configuration file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from acap_runtime.errors import InvalidRequest

HIGHEST_PORT: Final = 65535
_SWITCH: Final = {
    "1": True,
    "yes": True,
    "true": True,
    "on": True,
    "0": False,
    "no": False,
    "false": False,
    "off": False,
}


def integer(low: int, high: int) -> Callable[[str], int]:
    """Make a parser of integers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\s*\d{1,18}\s*", text, re.ASCII) or not low <= int(text) <= high:
            raise InvalidRequest(f"expected an integer from {low} to {high}, got {text!r}")
        return int(text)

    return parse


def seconds(low: float) -> Callable[[str], float]:
    """Make a parser of durations of at least `low` seconds."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not low <= value < 1e9:  # noqa: PLR2004 - some 30 years; also refuses nan
            raise InvalidRequest(f"expected a number of seconds, at least {low:g}, got {text!r}")
        return value

    return parse


def parse_switch(text: str) -> bool:
    """Parse yes or no, in the spellings of Axis parameters and of most environments."""
    if text.casefold() not in _SWITCH:
        raise InvalidRequest(f"expected yes or no, got {text!r}")
    return _SWITCH[text.casefold()]


def parse_parameters(text: str) -> str:
    """Check the source of parameters: a file, a plugin's store, or a camera as ``http(s)://HOST[:PORT][/PATH]``.

    Raises `InvalidRequest` for a URL that holds a secret or is malformed.
    """
    if "://" not in text:
        return text
    try:
        url = urlsplit(text)
        port_is_one = url.port is None or url.port > 0
    except ValueError:
        port_is_one = False
    # This check comes first: the later message quotes the text, which must not hold a password.
    if "@" in text:
        raise InvalidRequest(
            "expected a URL without user name and password, which every user of this machine would see; put them "
            "into a file (--parameters-credentials) or the environment (ACAPRUNTIME_PARAMETERS_USER, "
            "ACAPRUNTIME_PARAMETERS_PASSWORD)"
        )
    if not port_is_one or url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
        raise InvalidRequest(f"expected https://HOST[:PORT] or http://HOST[:PORT], got {text!r}")
    return text
