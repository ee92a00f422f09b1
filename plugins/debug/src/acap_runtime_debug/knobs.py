"""The knobs of models and cameras, with their meanings and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import acap_runtime as acap

LONGEST_DELAY_S: Final = 86400.0
SHORTEST_SHOW_S: Final = 0.001
LARGEST_OUTPUT: Final = 2**30
LAST_FRAME: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Knob:
    """A knob of a model or a camera.

    `parse` takes a value from TOML or an option's text, and raises TypeError or ValueError if it is not `expected`.
    """

    meaning: str
    expected: str
    parse: Callable[[object], Any]


def read_knobs(values: Mapping[str, object], known: Mapping[str, Knob] | None = None) -> dict[str, Any]:
    """Parse the values of known knobs, by default a model's.

    Raises `InvalidRequest` for a value that does not parse.
    """
    known = KNOBS if known is None else known
    knobs = {}
    for name, value in values.items():
        try:
            knobs[name] = known[name].parse(value)
        except (TypeError, ValueError):
            raise acap.InvalidRequest(f"{name}: expected {known[name].expected}, got {value!r:.80}") from None
    return knobs


def read_options(text: str, known: Mapping[str, Knob]) -> dict[str, Any]:
    """Parse knobs written as ``NAME=VALUE,NAME=VALUE``. Raises `InvalidRequest`."""
    values: dict[str, object] = {}
    for option in text.split(",") if text else ():
        name, equals, value = option.partition("=")
        if name not in known or not equals:
            raise acap.InvalidRequest(f"option {option!r:.80}: expected NAME=VALUE, with one of {', '.join(known)}")
        if name in values:
            raise acap.InvalidRequest(f"option {name}: expected it once, got it twice")
        values[name] = value
    return read_knobs(values, known)


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    seconds = float(value) if isinstance(value, str) else value
    if not 0 <= seconds <= LONGEST_DELAY_S:
        raise ValueError
    return float(seconds)


def _show(value: object) -> float:
    seconds = _seconds(value)
    if seconds < SHORTEST_SHOW_S:
        raise ValueError
    return seconds


def _number(value: object, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    number = int(value)
    if not lowest <= number <= highest:
        raise ValueError
    return number


def _one_of(value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise TypeError
    if value not in choices:
        raise ValueError
    return value


def _delay(meaning: str) -> Knob:
    return Knob(f"{meaning}, in seconds", f"0 to {LONGEST_DELAY_S:.0f} seconds", _seconds)


def _numbered(meaning: str, lowest: int, highest: int) -> Knob:
    return Knob(meaning, f"a number from {lowest} to {highest}", lambda value: _number(value, lowest, highest))


def _choice(meaning: str, *choices: str) -> Knob:
    return Knob(meaning, " or ".join(f"'{choice}'" for choice in choices), lambda value: _one_of(value, choices))


def _fault(meaning: str) -> Knob:
    return _choice(f"{meaning}, in 'load' or 'run'", "load", "run")


def _at_frame(meaning: str) -> Knob:
    return _numbered(f"{meaning}, at the frame of this number; the first is 0", 0, LAST_FRAME)


KNOBS: Final[Mapping[str, Knob]] = MappingProxyType(
    {
        "delay": _delay("how long a run takes"),
        "load_delay": _delay("how long loading takes"),
        "crash": _fault("end the process with SIGSEGV"),
        "exit": _fault("end the process with status 3"),
        "hang": _fault("never return"),
        "freeze": _fault("never return, and keep the interpreter's lock"),
        "fail": _fault("raise a DeviceError"),
        "raise": _fault("raise a RuntimeError, as a faulty plugin does"),
        "big_output": _numbered("bytes of one more output, 'big', of zeros", 1, LARGEST_OUTPUT),
        "wrong_output": _choice("what of the first output differs from its spec", "name", "dtype", "shape"),
        "trigger": _numbered("runs misbehave and delay only if the first input's first byte is this", 0, 255),
    }
)

CAMERA_KNOBS: Final[Mapping[str, Knob]] = MappingProxyType(
    {
        "crash": _at_frame("end the process with SIGSEGV"),
        "exit": _at_frame("end the process with status 3"),
        "hang": _at_frame("never return"),
        "freeze": _at_frame("never return, and keep the interpreter's lock"),
        "fail": _at_frame("raise Unavailable"),
        "raise": _at_frame("raise a RuntimeError, as a faulty plugin does"),
        "end": _numbered("how many frames the source has before it ends", 0, LAST_FRAME),
        "open_fail": _choice("raise Unavailable when opened", "yes", "no"),
        "open_delay": _delay("how long opening takes"),
    }
)

PICTURES_KNOBS: Final[Mapping[str, Knob]] = MappingProxyType(
    {"seconds": Knob("how long each picture is shown", f"{SHORTEST_SHOW_S} to {LONGEST_DELAY_S:.0f} seconds", _show)}
)
