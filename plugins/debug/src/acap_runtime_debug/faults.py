"""The ways in which a chip, its driver or a plugin fails."""

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
    """Do what a model's knobs ask for at this stage."""
    for name, fault in FAULTS.items():
        if knobs.get(name) == stage:
            fault()


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


def _raise() -> NoReturn:
    raise RuntimeError("the debug plugin was told to raise")


FAULTS: Final[Mapping[str, Callable[[], NoReturn]]] = MappingProxyType(
    {"crash": _crash, "exit": _exit, "hang": _hang, "freeze": _freeze, "fail": _fail, "raise": _raise}
)
