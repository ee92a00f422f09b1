"""Chip 13 of larod's table: OpenCL as a converter of images."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import acap_runtime as acap

LAROD_DEVICES: Final = ("axis-a8-gpu-proc", "axis-a8-dlpu-proc", "a9-gpu-proc", "axis-a7-gpu-proc")
"""larod's names for OpenCL, of one Axis device or another."""

LARGEST_SIDE: Final = 16384
"""In pixels: the kernel counts bytes of an image in 32 bits."""

Prepare: TypeAlias = Callable[[acap.Conversion], acap.Model]

_SMALLEST: Final = acap.Conversion(acap.Image("rgb-planar", 1, 1), acap.Image("rgb-planar", 1, 1))


class OpenClBackend(acap.ProcessingBackend):
    """Converts images by OpenCL: through larod where that has such a device, else by pyopencl.

    The choice is made once. All models of this backend share the device and the programs that pyopencl opened and
    compiled.
    """

    chip_id = 13
    name = LAROD_DEVICES[0]
    aliases = (*LAROD_DEVICES[1:], "LAROD_CHIP_OPENCL")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prepare: Prepare | None = None

    def probe(self) -> None:
        with self._lock:
            self._prepare = self._prepare or _find_device()

    def prepare(self, conversion: acap.Conversion) -> acap.Model:
        with self._lock:
            prepare = self._prepare = self._prepare or _find_device()
        return prepare(conversion)


def _find_device() -> Prepare:
    try:
        return _find_on_larod()
    except acap.NotReady as error:
        no_larod = error
    try:
        return _find_by_pyopencl()
    except acap.NotReady as error:
        raise acap.NotReady(f"no OpenCL device: by pyopencl: {error}; by larod: {no_larod}") from None


def _find_on_larod() -> Prepare:
    from acap_runtime_larod import prepare_conversion, probe  # noqa: PLC0415  # needed where the chip is

    probe(LAROD_DEVICES)
    return partial(prepare_conversion, LAROD_DEVICES)


def _find_by_pyopencl() -> Prepare:
    from acap_runtime_opencl.caches import keep_caches_small  # noqa: PLC0415

    keep_caches_small()
    try:
        from acap_runtime_opencl.device import open_device  # noqa: PLC0415  # brings pyopencl
    except ImportError as error:
        raise acap.NotReady(
            f"pyopencl cannot be imported: {error}; pip install pyopencl, and where that was built on this machine, "
            "OpenCL's loader, on Debian and Ubuntu: apt install ocl-icd-libopencl1"
        ) from error
    from acap_runtime_opencl.conversion import OpenClModel  # noqa: PLC0415

    device = open_device()

    def prepare(conversion: acap.Conversion) -> acap.Model:
        for image in (conversion.input, conversion.output):
            if max(image.width, image.height) > LARGEST_SIDE:
                raise acap.InvalidRequest(f"{image}: this chip takes at most {LARGEST_SIDE} pixels a side")
        return OpenClModel(conversion, device)

    try:
        prepare(_SMALLEST).close()
    except (acap.DeviceError, acap.Busy) as error:
        raise acap.NotReady(f"{device} cannot convert one pixel: {error}") from error
    return prepare
