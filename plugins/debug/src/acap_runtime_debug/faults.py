"""Simulates the failures of a chip, its driver or a plugin."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn

import acap_runtime as acap

Stage = Literal["load", "run"]


def misbehave(knobs: Mapping[str, Any], stage: Stage) -> None:
    """Misbehave as a model's knobs request for this stage."""
    for name, fault in FAULTS.items():
        if knobs.get(name) == stage:
            fault()


def misbehave_at(knobs: Mapping[str, Any], number: int) -> None:
    """Misbehave as a camera's knobs request for frame `number` or for a skipped frame before it."""
    for name, fault in CHIPLESS_FAULTS.items():
        if number >= knobs.get(name, number + 1):
            fault()
    if number >= knobs.get("end", number + 1):
        raise acap.Unavailable(f"the test pattern ended after {knobs['end']} frames, as it was told to")


def _crash() -> NoReturn:
    while True:
        os.kill(os.getpid(), signal.SIGSEGV)


def _exit() -> NoReturn:
    os._exit(3)


def _hang() -> NoReturn:
    while True:
        time.sleep(3600)


def _freeze() -> NoReturn:
    import ctypes  # noqa: PLC0415  # loads a library

    pause = ctypes.PyDLL(None).pause
    while True:
        pause()


def _fail() -> NoReturn:
    raise acap.DeviceError("the debug chip was told to fail")


def _be_unavailable() -> NoReturn:
    raise acap.Unavailable("the debug plugin was told to fail")


def _raise() -> NoReturn:
    raise RuntimeError("the debug plugin was told to raise")


FAULTS: Final[Mapping[str, Callable[[], NoReturn]]] = MappingProxyType(
    {"crash": _crash, "exit": _exit, "hang": _hang, "freeze": _freeze, "fail": _fail, "raise": _raise}
)

CHIPLESS_FAULTS: Final[Mapping[str, Callable[[], NoReturn]]] = MappingProxyType({**FAULTS, "fail": _be_unavailable})
"""The same for cameras and parameter stores, which have no chip."""
