"""Values as they are written on a command line, in the environment and in a configuration file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from acap_runtime.errors import InvalidRequest

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
    """A parser of integers within bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\s*\d{1,18}\s*", text, re.ASCII) or not low <= int(text) <= high:
            raise InvalidRequest(f"expected an integer from {low} to {high}, got {text!r}")
        return int(text)

    return parse


def seconds(low: float) -> Callable[[str], float]:
    """A parser of durations."""

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
    """Yes or no, as Axis parameters and most environments write them."""
    if text.casefold() not in _SWITCH:
        raise InvalidRequest(f"expected yes or no, got {text!r}")
    return _SWITCH[text.casefold()]
