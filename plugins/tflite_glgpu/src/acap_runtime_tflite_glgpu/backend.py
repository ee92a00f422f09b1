"""Chip 8 of larod's table: the GPU, by LiteRT, or on an Axis device by larod."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import acap_runtime as acap
from acap_runtime_larod.fallback import FallbackBackend


class TfliteGpuBackend(FallbackBackend):
    """Runs TensorFlow Lite models by LiteRT's GPU accelerator where that finds a GPU, else by larod."""

    chip_id = 8
    name = "gpu-tflite"
    aliases = ("LAROD_CHIP_TFLITE_GLGPU",)
    options = MappingProxyType(
        {
            "allow_cpu": "yes: the CPU runs what the GPU cannot; no: such a model is refused; default: no",
            "precision": "f16: the GPU may compute with 16 bits; f32: it may not; default: f16",
        }
    )
    devices = (name, "axis-a7-gpu-tflite")
    library = "LiteRT"

    def find(self) -> None:
        from acap_runtime_tflite_glgpu.adapter import find_adapter  # noqa: PLC0415  # subprocess is not for the front

        find_adapter()

    def load_by_library(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        from acap_runtime_tflite_glgpu.model import load_on_gpu  # noqa: PLC0415  # another plugin's modules

        allow_cpu = _choice("allow_cpu", options.get("allow_cpu", "no"), ("yes", "no")) == "yes"
        exact = _choice("precision", options.get("precision", "f16"), ("f16", "f32")) == "f32"
        return load_on_gpu(path, allow_cpu=allow_cpu, exact=exact)


def _choice(option: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise acap.InvalidRequest(f"{option}: expected {' or '.join(choices)}, got {text!r:.80}")
    return text
