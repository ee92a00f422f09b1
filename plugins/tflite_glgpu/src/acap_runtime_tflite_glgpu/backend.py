"""Chip 8 of larod's table: the GPU, by LiteRT, or on an Axis device by larod."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import acap_runtime as acap

LAROD_DEVICES: Final = ("gpu-tflite", "axis-a7-gpu-tflite")
"""larod's names of a GPU that runs TensorFlow Lite models, the usual one first."""


class TfliteGpuBackend(acap.InferenceBackend):
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

    def __init__(self) -> None:
        self._by_larod: bool | None = None
        """Which way leads to the chip, once it has been probed: it stays the same for all models."""

    def probe(self) -> None:
        from acap_runtime_tflite_glgpu.adapter import find_adapter  # noqa: PLC0415  # subprocess is not for the front

        try:
            find_adapter()
        except acap.NotReady as reason:
            self._probe_larod(reason)
            self._by_larod = True
        else:
            self._by_larod = False

    def _probe_larod(self, reason: acap.NotReady) -> None:
        """Find the chip by larod; raises `NotReady` with `reason`, why not by LiteRT, and larod's own."""
        from acap_runtime_larod import probe  # noqa: PLC0415  # loads a library

        try:
            probe(LAROD_DEVICES)
        except acap.NotReady as other:
            raise acap.NotReady(f"not by LiteRT: {reason}; not by larod: {other}") from other

    def load(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        allow_cpu = _choice("allow_cpu", options.get("allow_cpu", "no"), ("yes", "no")) == "yes"
        exact = _choice("precision", options.get("precision", "f16"), ("f16", "f32")) == "f32"
        if self._by_larod is None:
            self.probe()
        if not self._by_larod:
            from acap_runtime_tflite_glgpu.model import load_on_gpu  # noqa: PLC0415  # another plugin's modules

            return load_on_gpu(path, allow_cpu=allow_cpu, exact=exact)
        if options:
            raise acap.InvalidRequest(
                f"{', '.join(options)}: expected no such option, since larod drives the GPU here and knows none"
            )
        from acap_runtime_larod import load_model  # noqa: PLC0415  # loads a library

        return load_model(LAROD_DEVICES, path, {})


def _choice(option: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise acap.InvalidRequest(f"{option}: expected {' or '.join(choices)}, got {text!r:.80}")
    return text
