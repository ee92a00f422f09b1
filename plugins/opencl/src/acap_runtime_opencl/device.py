"""An OpenCL device and the programs compiled for it. Only code that runs beside the chip imports this."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Final

import acap_runtime as acap
import pyopencl as cl

CHOICE_VARIABLE: Final = "PYOPENCL_CTX"

FORMATS: Final[dict[acap.ImageFormat, int]] = {"nv12": 0, "rgb-interleaved": 1, "rgb-planar": 2}
"""The numbers of the formats in convert.cl."""

_ADVICE: Final = "install the driver of the GPU, or one for the CPU, on Debian and Ubuntu: apt install pocl-opencl-icd"
_PREFERENCE: Final = (cl.device_type.GPU, cl.device_type.ACCELERATOR, cl.device_type.CPU)


@contextmanager
def driver_errors(what: str) -> Iterator[None]:
    """Turn driver errors into ours: `Busy` if memory is short, otherwise `DeviceError`."""
    try:
        yield
    except cl.MemoryError as error:
        raise acap.Busy(f"{what}: OpenCL is out of memory: {error}; unload other models") from error
    except cl.Error as error:
        raise acap.DeviceError(f"{what}: OpenCL failed: {error}") from error


class Device:
    """An open device, with one context for all models. Several threads may call its methods."""

    def __init__(self, device: cl.Device) -> None:
        self._device = device
        self._name = f"{device.platform.name}, {device.name}".strip()
        with driver_errors(str(self)):
            self.context = cl.Context([device])
        self.largest_buffer: int = device.max_mem_alloc_size
        self._source = files("acap_runtime_opencl").joinpath("convert.cl").read_text(encoding="ascii")
        self._programs: dict[tuple[str, ...], cl.Program] = {}
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return self._name

    @property
    def has_host_memory(self) -> bool:
        """True if it works in the host's memory, so that nothing is copied."""
        return bool(self._device.type & cl.device_type.CPU)

    def queue(self) -> cl.CommandQueue:
        """Make a queue that runs commands in order."""
        return cl.CommandQueue(self.context, self._device)

    def kernel(self, came: acap.ImageFormat, wanted: acap.ImageFormat, *, scaled: bool) -> cl.Kernel:
        """Make a kernel for one caller, since a kernel holds its arguments. Its program is compiled once."""
        options = (f"-DFROM={FORMATS[came]}", f"-DTO={FORMATS[wanted]}", f"-DSCALED={int(scaled)}")
        with self._lock:
            if options not in self._programs:
                self._programs[options] = cl.Program(self.context, self._source).build(list(options))
            return cl.Kernel(self._programs[options], "convert")

    def most_work_items(self, kernel: cl.Kernel) -> int:
        """Return the largest number of a kernel's work items in a group."""
        return int(kernel.get_work_group_info(cl.kernel_work_group_info.WORK_GROUP_SIZE, self._device))


def open_device() -> Device:
    """Open the device that ``PYOPENCL_CTX`` names, or the first GPU, or any other device. Raises `NotReady`."""
    device = _chosen_device() if os.environ.get(CHOICE_VARIABLE) else _best_device()
    try:
        return Device(device)
    except (acap.DeviceError, acap.Busy) as error:
        raise acap.NotReady(str(error)) from error


def _chosen_device() -> cl.Device:
    try:
        return cl.choose_devices(interactive=False)[0]
    except (cl.Error, RuntimeError) as error:
        choice = os.environ[CHOICE_VARIABLE]
        found = "; ".join(f"{device.platform.name}: {device.name}" for device in _devices()) or "none"
        raise acap.NotReady(
            f"{CHOICE_VARIABLE}={choice}: {error}; expected platform:device, as numbers or parts of names, of: {found}"
        ) from error


def _best_device() -> cl.Device:
    usable = [device for device in _devices() if device.available and device.compiler_available]
    if not usable:
        raise acap.NotReady(
            "no platform has a device that is available and can compile (pocl has none where it can write no file: set "
            f"POCL_CACHE_DIR); {_ADVICE}"
        )
    return min(usable, key=_rank)


def _rank(device: cl.Device) -> int:
    return next((rank for rank, kind in enumerate(_PREFERENCE) if device.type & kind), len(_PREFERENCE))


def _devices() -> list[cl.Device]:
    try:
        return [device for platform in cl.get_platforms() for device in platform.get_devices()]
    except cl.Error as error:  # the loader raises this if no driver is installed
        raise acap.NotReady(f"{error}; {_ADVICE}") from error
