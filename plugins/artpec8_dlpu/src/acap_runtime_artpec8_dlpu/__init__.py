"""acap-runtime plugin: TensorFlow Lite models on the DLPU of ARTPEC-8 and ARTPEC-9, through larod."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import acap_runtime as acap
import acap_runtime_larod as larod

__all__ = ["Artpec8DlpuBackend", "Artpec9DlpuBackend"]


class DlpuBackend(acap.InferenceBackend):
    """What both have in common: one larod device, which has the backend's name."""

    def probe(self) -> None:
        larod.probe([self.name])

    def load(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        return larod.load_model([self.name], path, options)


class Artpec8DlpuBackend(DlpuBackend):
    """Runs TensorFlow Lite models on the DLPU of ARTPEC-8, by larod."""

    chip_id = 12
    name = "axis-a8-dlpu-tflite"
    aliases = ("LAROD_CHIP_TFLITE_ARTPEC8DLPU",)
    options = larod.OPTIONS


class Artpec9DlpuBackend(DlpuBackend):
    """Runs TensorFlow Lite models on the DLPU of ARTPEC-9, by larod, which gave it a name and no number."""

    chip_id = None
    name = "a9-dlpu-tflite"
    options = larod.A9_DLPU_OPTIONS


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [Artpec8DlpuBackend(), Artpec9DlpuBackend()]
