"""Chip 4 of larod's table: the Edge TPU, by libedgetpu, or on an Axis device by larod."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import acap_runtime as acap

from acap_runtime_tpu.delegate_options import delegate_options


class TpuBackend(acap.InferenceBackend):
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

    def __init__(self) -> None:
        self._by_larod: bool | None = None
        """Which way leads to the chip, once it has been probed: it stays the same for all models."""

    def probe(self) -> None:
        from acap_runtime_tpu.edgetpu import open_delegate  # noqa: PLC0415  # loads libraries

        try:
            open_delegate({})
        except acap.NotReady as reason:
            self._probe_larod(reason)
            self._by_larod = True
        else:
            self._by_larod = False

    def _probe_larod(self, reason: acap.NotReady) -> None:
        """Find the chip by larod; raises `NotReady` with `reason`, why not by libedgetpu, and larod's own."""
        from acap_runtime_larod import probe  # noqa: PLC0415  # loads a library

        try:
            probe([self.name])
        except acap.NotReady as other:
            raise acap.NotReady(f"not by libedgetpu: {reason}; not by larod: {other}") from other

    def load(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        from acap_runtime_tpu.edgetpu import load_on_edgetpu, refuse_model_for_cpu  # noqa: PLC0415  # loads libraries

        wanted = delegate_options(options)
        if self._by_larod is None:
            self.probe()
        if not self._by_larod:
            return load_on_edgetpu(path, wanted)
        if options:
            raise acap.InvalidRequest(
                f"{', '.join(options)}: expected no such option, since larod drives the Edge TPU here and knows none"
            )
        refuse_model_for_cpu(path)
        from acap_runtime_larod import load_model  # noqa: PLC0415  # loads a library

        return load_model([self.name], path, {})
