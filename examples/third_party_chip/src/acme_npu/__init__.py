"""Acme's NPU for acap-runtime, driven through the vendor's C library, libacme."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import acap_runtime as acap
import numpy as np

SPEEDS = {"low": 1, "high": 2}
BAD_MODEL, TOO_LARGE = 3, 4


@cache
def _libacme() -> ctypes.CDLL:
    advice = "install Acme's SDK"
    library = acap.open_library(ctypes.CDLL, "libacme.so.1", advice=advice, variable="ACME_LIBRARY")
    library.acme_message.restype = ctypes.c_char_p  # the other functions return an error code, or nothing
    return library


def _check(code: int, what: object) -> None:
    if code:
        error = acap.InvalidRequest if code in (BAD_MODEL, TOO_LARGE) else acap.DeviceError
        raise error(f"{what}: {_libacme().acme_message(code).decode()}")


class AcmeModel(acap.Model):
    """A device that is opened for one model. The library may be used by several threads, a device by one at a time."""

    inputs = (acap.TensorSpec("data", np.dtype(np.uint8), (1, -1)),)
    outputs = (acap.TensorSpec("replaced", np.dtype(np.uint8), (1, -1)),)

    def __init__(self, speed: str = "high") -> None:
        self._device = ctypes.c_void_p()
        _check(_libacme().acme_open(SPEEDS[speed], ctypes.byref(self._device)), "acme_open")

    def load(self, path: Path) -> None:
        _check(_libacme().acme_load(self._device, os.fsencode(path)), path)

    def run(self, inputs: Mapping[str, acap.Array]) -> Mapping[str, acap.Array]:
        data = inputs["data"]
        output = np.empty_like(data)
        _check(_libacme().acme_run(self._device, data.ctypes, output.ctypes, ctypes.c_size_t(data.size)), "acme_run")
        return {"replaced": output}

    def close(self) -> None:
        _libacme().acme_close(self._device)


class AcmeNpu(acap.InferenceBackend):
    """The chip, as the runtime sees it."""

    chip_id = None
    name = "acme-npu"
    aliases = ("ACME_NPU",)
    options = {"speed": "low or high (the default)"}  # noqa: RUF012 - declared by the contract

    def probe(self) -> None:
        try:
            AcmeModel().close()
        except acap.DeviceError as error:
            raise acap.NotReady(f"{error}: is the chip plugged in?") from None

    def load(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        speed = options.get("speed", "high")
        if speed not in SPEEDS:
            raise acap.InvalidRequest(f"speed: expected {' or '.join(SPEEDS)}, got {speed!r:.80}")
        model = AcmeModel(speed)
        try:
            model.load(path)
        except acap.AcapError:
            model.close()
            raise
        return model


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [AcmeNpu()]
