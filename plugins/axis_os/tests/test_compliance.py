from __future__ import annotations

from pathlib import Path

import acap_runtime as acap
import pytest
from acap_runtime.testing.camera import CameraContract
from acap_runtime_axis_os import VdoCamera


@pytest.mark.usefixtures("nothing_leaks")
class TestOfTheFakeVdo(CameraContract):
    tested_on = "a stand-in for VDO"
    sizes = (*CameraContract.sizes, (300, 300), (63, 47))

    @pytest.fixture
    def camera(self, fake_libraries: Path) -> acap.Camera:
        return VdoCamera()

    @pytest.fixture
    def source(self) -> str:
        return "vdo"

    @pytest.fixture
    def bad_source(self) -> str:
        return "vdo:7"
