"""acap-runtime plugin: TensorFlow Lite models on the GPU."""

from __future__ import annotations

import acap_runtime as acap

from acap_runtime_tflite_glgpu.backend import TfliteGpuBackend

__all__ = ["TfliteGpuBackend"]


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [TfliteGpuBackend()]
