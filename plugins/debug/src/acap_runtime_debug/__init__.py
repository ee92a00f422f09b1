"""acap-runtime plugin: a chip, cameras and a parameter store that need no hardware, and misbehave when told to."""

from __future__ import annotations

import acap_runtime as acap

from acap_runtime_debug.backend import DebugBackend
from acap_runtime_debug.pattern import TestPattern
from acap_runtime_debug.pictures import Pictures
from acap_runtime_debug.stamp import Stamp, read_stamp
from acap_runtime_debug.store import DebugStore

__all__ = ["DebugBackend", "DebugStore", "Pictures", "Stamp", "TestPattern", "read_stamp"]


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [DebugBackend()]


@acap.hookimpl
def acap_runtime_cameras() -> list[acap.Camera]:
    return [TestPattern(), Pictures()]


@acap.hookimpl
def acap_runtime_parameter_stores() -> list[acap.ParameterStore]:
    return [DebugStore()]
