"""acap-runtime plugin: image conversion by OpenCL."""

from __future__ import annotations

import acap_runtime as acap

from acap_runtime_opencl.backend import OpenClBackend

__all__ = ["OpenClBackend"]


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [OpenClBackend()]
