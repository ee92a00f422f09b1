"""acap-runtime plugin: image conversion on the CPU with libyuv."""

from __future__ import annotations

import acap_runtime as acap

from acap_runtime_libyuv.backend import LibyuvBackend

__all__ = ["LibyuvBackend"]


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [LibyuvBackend()]
