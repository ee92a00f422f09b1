"""acap-runtime plugin: the Edge TPU."""

from __future__ import annotations

import acap_runtime as acap

from acap_runtime_tpu.backend import TpuBackend

__all__ = ["TpuBackend"]


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [TpuBackend()]
