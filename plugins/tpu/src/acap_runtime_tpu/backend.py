"""Chip 4 of larod's table: the Edge TPU, by libedgetpu, or on an Axis device by larod."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import acap_runtime as acap
from acap_runtime_larod.fallback import FallbackBackend

from acap_runtime_tpu.delegate_options import delegate_options


class TpuBackend(FallbackBackend):
    """Runs TensorFlow Lite models on the Edge TPU, by libedgetpu where that is there and ready, else by larod."""

    chip_id = 4
    name = "google-edge-tpu-tflite"
    aliases = ("LAROD_CHIP_TPU",)
    options = MappingProxyType(
        {
            "device": "usb or pci for any of that kind, or by number :N, usb:N, pci:N; default: any",
            "performance": "Low, Medium, High or Max, with a device by number alone; default: Max",
        }
    )
    devices = (name,)
    library = "libedgetpu"

    def find(self) -> None:
        from acap_runtime_tpu.edgetpu import open_delegate  # noqa: PLC0415  # loads libraries

        open_delegate({})

    def load_by_library(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        from acap_runtime_tpu.edgetpu import load_on_edgetpu  # noqa: PLC0415  # loads libraries

        return load_on_edgetpu(path, delegate_options(options))

    def check_for_larod(self, path: Path) -> None:
        from acap_runtime_tpu.edgetpu import refuse_model_for_cpu  # noqa: PLC0415  # brings another plugin's modules

        refuse_model_for_cpu(path)
