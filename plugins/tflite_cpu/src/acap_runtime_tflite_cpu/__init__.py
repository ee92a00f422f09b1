"""acap-runtime plugin: TensorFlow Lite models on the CPU."""

from __future__ import annotations

import acap_runtime as acap

from acap_runtime_tflite_cpu.backend import TfliteCpuBackend

__all__ = ["TfliteCpuBackend"]


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [TfliteCpuBackend()]
