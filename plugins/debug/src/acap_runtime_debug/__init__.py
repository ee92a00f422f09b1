"""acap-runtime plugin: a chip that echoes its inputs, and misbehaves when told to."""

from __future__ import annotations

import acap_runtime as acap

from acap_runtime_debug.backend import DebugBackend

__all__ = ["DebugBackend"]


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [DebugBackend()]
