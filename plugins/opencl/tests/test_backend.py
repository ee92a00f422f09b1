from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.testing.backend import require
from acap_runtime.testing.pictures import noise
from acap_runtime_opencl import OpenClBackend
from acap_runtime_opencl.backend import LARGEST_SIDE, LAROD_DEVICES

CONVERSION = acap.Conversion(acap.Image("rgb-interleaved", 64, 48), acap.Image("rgb-planar", 32, 30))


def larod_without_a_device(devices: tuple[str, ...]) -> None:
    raise acap.NotReady(f"liblarod.so.1 of nobody, {devices[0]}")


@pytest.fixture(autouse=True)
def no_larod(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about pyopencl, wherever they run, unless they say otherwise."""
    monkeypatch.setitem(
        sys.modules, "acap_runtime_larod", SimpleNamespace(probe=larod_without_a_device, prepare_conversion=None)
    )


@pytest.fixture
def backend(no_larod: None) -> OpenClBackend:
    backend = OpenClBackend()
    require(backend)
    return backend


def test_a_machine_without_pyopencl_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyopencl", None)
    monkeypatch.delitem(sys.modules, "acap_runtime_opencl.device", raising=False)
    with pytest.raises(acap.NotReady, match=r"pyopencl cannot be imported: .*; pip install pyopencl"):
        OpenClBackend().probe()


def test_a_machine_without_opencl_gives_the_reasons_of_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyopencl", None)
    monkeypatch.delitem(sys.modules, "acap_runtime_opencl.device", raising=False)
    reasons = r"no OpenCL device: by pyopencl: pyopencl .*; by larod: liblarod\.so\.1 of nobody, axis-a8-gpu-proc"
    with pytest.raises(acap.NotReady, match=reasons):
        OpenClBackend().probe()
    with pytest.raises(acap.NotReady, match=reasons):
        OpenClBackend().prepare(CONVERSION)


def test_a_larod_device_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def prepare_conversion(devices: tuple[str, ...], conversion: acap.Conversion) -> str:
        asked.append((devices, conversion))
        return "larod's model"

    larod = SimpleNamespace(probe=asked.append, prepare_conversion=prepare_conversion)
    monkeypatch.setitem(sys.modules, "acap_runtime_larod", larod)
    backend = OpenClBackend()
    backend.probe()
    assert [backend.prepare(CONVERSION), backend.prepare(CONVERSION)] == ["larod's model"] * 2
    assert asked == [LAROD_DEVICES, *[(LAROD_DEVICES, CONVERSION)] * 2]


def test_a_choice_that_names_no_device_is_refused_and_the_devices_are_named(
    backend: OpenClBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyopencl

    monkeypatch.setenv("PYOPENCL_CTX", "abacus")
    platform = pyopencl.get_platforms()[0].name
    with pytest.raises(acap.NotReady, match=rf"PYOPENCL_CTX=abacus: .*expected platform:device, .*{platform}: "):
        OpenClBackend().probe()


def test_the_operator_may_choose_the_device(backend: OpenClBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOPENCL_CTX", "0:0")
    chosen = OpenClBackend()
    chosen.probe()
    picture = noise(CONVERSION.input)
    results = [each.prepare(CONVERSION).run({"input": picture})["output"] for each in (chosen, backend)]
    np.testing.assert_array_equal(*results)


def test_a_gpu_comes_before_a_cpu(backend: OpenClBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyopencl
    from acap_runtime_opencl import device

    def fake(name: str, kind: int, **state: bool) -> SimpleNamespace:
        usable = {"available": True, "compiler_available": True} | state
        return SimpleNamespace(name=name, type=kind, **usable)

    kinds = pyopencl.device_type
    devices = [
        fake("cpu", kinds.CPU),
        fake("broken gpu", kinds.GPU, available=False),
        fake("gpu without a compiler", kinds.GPU, compiler_available=False),
        fake("gpu", kinds.GPU | kinds.DEFAULT),
    ]
    monkeypatch.setattr(device, "_devices", lambda: devices)
    assert device._best_device().name == "gpu"
    devices.pop()
    assert device._best_device().name == "cpu"


@pytest.mark.parametrize("size", [(LARGEST_SIDE + 1, 1), (1, LARGEST_SIDE + 1)])
def test_a_side_that_the_kernel_cannot_count_is_refused(backend: OpenClBackend, size: tuple[int, int]) -> None:
    large, small = acap.Image("rgb-planar", *size), acap.Image("rgb-planar", 8, 8)
    for conversion in (acap.Conversion(large, small), acap.Conversion(small, large)):
        with pytest.raises(acap.InvalidRequest, match="at most 16384 pixels a side"):
            backend.prepare(conversion)


def test_an_image_that_the_device_cannot_hold_is_refused(
    backend: OpenClBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from acap_runtime_opencl import device

    opened = device.open_device()
    opened.largest_buffer = 64 * 48 * 3 - 1
    monkeypatch.setattr(device, "open_device", lambda: opened)
    with pytest.raises(acap.InvalidRequest, match=r"rgb-interleaved 64x48: .* takes at most 9215 bytes"):
        OpenClBackend().prepare(CONVERSION)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("OUT_OF_RESOURCES", acap.Busy),
        ("MEM_OBJECT_ALLOCATION_FAILURE", acap.Busy),
        ("OUT_OF_HOST_MEMORY", acap.Busy),
        ("INVALID_KERNEL_ARGS", acap.DeviceError),
        ("DEVICE_NOT_AVAILABLE", acap.DeviceError),
    ],
)
def test_an_error_of_the_driver_keeps_its_words(
    backend: OpenClBackend, monkeypatch: pytest.MonkeyPatch, code: str, wanted: type[acap.AcapError]
) -> None:
    import pyopencl as cl

    short = code in ("OUT_OF_RESOURCES", "MEM_OBJECT_ALLOCATION_FAILURE", "OUT_OF_HOST_MEMORY")

    def fail(*arguments: Any) -> None:
        raise (cl.MemoryError if short else cl.RuntimeError)(
            cl._cl._ErrorRecord(msg="", code=getattr(cl.status_code, code), routine="clEnqueueNDRangeKernel")
        )

    model = backend.prepare(CONVERSION)
    picture = noise(CONVERSION.input)
    before = model.run({"input": picture})["output"].copy()
    with monkeypatch.context() as patch:
        patch.setattr(cl, "enqueue_nd_range_kernel", fail)
        with pytest.raises(wanted, match=f"rgb-interleaved 64x48 to .*clEnqueueNDRangeKernel failed: {code}"):
            model.run({"input": picture})
        with pytest.raises(wanted, match=code):
            backend.prepare(CONVERSION)
    np.testing.assert_array_equal(model.run({"input": picture})["output"], before)
    model.close()


def test_a_driver_that_cannot_compile_is_not_ready(backend: OpenClBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    from acap_runtime_opencl import device

    opened = device.open_device()
    opened._source = "this is no OpenCL C"
    monkeypatch.setattr(device, "open_device", lambda: opened)
    with pytest.raises(acap.NotReady, match=r"cannot convert one pixel: .*OpenCL failed: .*BUILD_PROGRAM_FAILURE"):
        OpenClBackend().probe()


def every_conversion() -> Iterator[acap.Conversion]:
    for came, wanted in product(acap.IMAGE_FORMATS, acap.IMAGE_FORMATS):
        for size in ((320, 240), (200, 150)):
            yield acap.Conversion(acap.Image(came, 320, 240), acap.Image(wanted, *size))


def test_four_threads_prepare_run_and_close_side_by_side() -> None:
    backend = OpenClBackend()  # not probed: the threads also race to open it and to compile
    alone = OpenClBackend()
    require(alone)

    def converted(conversion: acap.Conversion, by: OpenClBackend, times: int) -> list[acap.Array]:
        model = by.prepare(conversion)
        picture = noise(conversion.input)
        results = [model.run({"input": picture})["output"].copy() for _ in range(times)]
        model.close()
        return results

    work = [*every_conversion()] * 3
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda conversion: converted(conversion, backend, 10), work))
    for conversion, results in zip(work, found, strict=True):
        (wanted,) = converted(conversion, alone, 1)
        for result in results:
            np.testing.assert_array_equal(result, wanted, err_msg=str(conversion))


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "copied"])
def test_five_thousand_runs_leave_nothing_behind(
    backend: OpenClBackend, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    from acap_runtime_opencl.device import Device

    monkeypatch.setattr(Device, "has_host_memory", in_place)
    model = backend.prepare(CONVERSION)

    def run(times: int) -> int:
        for number in range(times):
            picture = np.full(CONVERSION.input.shape, number % 256, np.uint8)
            assert (model.run({"input": picture})["output"] == number % 256).all()
        return resident_bytes()

    before = run(500)
    grown = run(5000) - before
    assert grown < 2**21, f"grew by {grown} bytes"
    model.close()
