from __future__ import annotations

from pathlib import Path

import acap_runtime as acap
import pytest
from acap_runtime.testing.camera import CameraContract
from acap_runtime_debug import Pictures, TestPattern
from PIL import Image

SIZES = (*CameraContract.sizes, (63, 47))


class TestOfTheTestPattern(CameraContract):
    formats = acap.IMAGE_FORMATS
    sizes = SIZES

    @pytest.fixture
    def camera(self) -> TestPattern:
        return TestPattern()

    @pytest.fixture
    def source(self) -> str:
        return "test-pattern"


class TestOfPictures(CameraContract):
    formats = acap.IMAGE_FORMATS
    sizes = SIZES

    @pytest.fixture
    def camera(self) -> Pictures:
        return Pictures()

    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        for name, colour in (("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255))):
            Image.new("RGB", (40, 30), colour).save(tmp_path / f"{name}.png")
        return f"pictures:{tmp_path},seconds=0.1"

    @pytest.fixture
    def bad_source(self, tmp_path: Path) -> str:
        return f"pictures:{tmp_path / 'no such folder'}"
