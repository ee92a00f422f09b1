"""Acme's NPU for acap-runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import acap_runtime as acap
import numpy as np

from .library import Device

__all__ = ["AcmeNpu"]

SPEEDS = {"low": 1, "high": 2}


class AcmeModel(acap.Model):
    """A model on a device of its own."""

    inputs = (acap.TensorSpec("data", np.dtype(np.uint8), (1, -1)),)
    outputs = (acap.TensorSpec("replaced", np.dtype(np.uint8), (1, -1)),)

    def __init__(self, path: Path, speed: int) -> None:
        self._device = Device(speed)
        try:
            self._device.load(path)
        except BaseException:
            self._device.close()
            raise

    def run(self, inputs: Mapping[str, acap.Array]) -> Mapping[str, acap.Array]:
        return {"replaced": self._device.run(inputs["data"])}

    def close(self) -> None:
        self._device.close()


class AcmeNpu(acap.InferenceBackend):
    """The chip."""

    chip_id = None
    name = "acme-npu"
    aliases = ("ACME_NPU",)
    options = {"speed": "low or high (the default)"}  # noqa: RUF012 - declared by the contract

    def probe(self) -> None:
        try:
            Device(SPEEDS["low"]).close()
        except acap.DeviceError as error:
            raise acap.NotReady(f"{error}: is the chip plugged in?") from None

    def load(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        speed = options.get("speed", "high")
        if speed not in SPEEDS:
            raise acap.InvalidRequest(f"speed: expected {' or '.join(SPEEDS)}, got {speed!r}")
        return AcmeModel(path, SPEEDS[speed])


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [AcmeNpu()]
