"""The types of the commands' options, in the form that argparse expects."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from acap_runtime.errors import InvalidRequest

_Value = TypeVar("_Value")


def argument(parse: Callable[[str], _Value]) -> Callable[[str], _Value]:
    """Return a parser of `acap_runtime.settings.option_values` whose errors argparse shows."""

    def parse_argument(text: str) -> _Value:
        try:
            return parse(text)
        except InvalidRequest as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def positive(text: str) -> float:
    """Parse a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number
