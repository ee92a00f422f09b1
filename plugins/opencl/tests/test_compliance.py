from __future__ import annotations

import acap_runtime as acap
import pytest
from acap_runtime.testing.backend import require
from acap_runtime.testing.processing import ProcessingContract, Tolerance
from acap_runtime_opencl import OpenClBackend

ONE_LEVEL = Tolerance(mean=1, peak=1)


@pytest.fixture(scope="module")
def opened() -> OpenClBackend:
    """One backend for all tests: each compiles for itself."""
    return OpenClBackend()


class TestTheDeviceThatIsHere(ProcessingContract):
    tested_on = "the machine's OpenCL device, so far pocl on a CPU"
    tolerance = ONE_LEVEL

    @pytest.fixture
    def backend(self, opened: OpenClBackend) -> acap.ProcessingBackend:
        return opened


class TestADeviceWithMemoryOfItsOwn(ProcessingContract):
    """What a GPU is given, on the device that is here: pictures are copied to it and back."""

    tested_on = "the machine's OpenCL device, so far pocl on a CPU"
    tolerance = ONE_LEVEL

    @pytest.fixture
    def backend(self, opened: OpenClBackend, monkeypatch: pytest.MonkeyPatch) -> acap.ProcessingBackend:
        require(opened)
        from acap_runtime_opencl.device import Device

        monkeypatch.setattr(Device, "has_host_memory", False)
        return opened
