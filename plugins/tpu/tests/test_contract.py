from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from acap_runtime.testing.inference import InferenceContract
from acap_runtime_tpu import TpuBackend


class TestOnTheStandIn(InferenceContract):
    tested_on = "a stand-in for libedgetpu"
    may_import = frozenset({"acap_runtime_larod"})

    @pytest.fixture(autouse=True)
    def plugged_in(self, edgetpu: Callable[..., Path]) -> None:
        edgetpu()

    @pytest.fixture
    def backend(self) -> TpuBackend:
        return TpuBackend()

    @pytest.fixture
    def model_path(self, compiled: Path) -> Path:
        return compiled

    @pytest.fixture
    def bad_model_path(self, tmp_path: Path) -> Path:
        path = tmp_path / "zeros.tflite"
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(1000) + b"edgetpu-custom-op")
        return path

    @pytest.fixture
    def options(self) -> dict[str, str]:
        return {"device": ":0"}

    @pytest.fixture
    def expected(self, sample_inputs):
        (pixels,) = sample_inputs.values()
        picked = pixels.ravel()[np.arange(1001) * pixels.size // 1001]
        return {"MobilenetV2/Predictions/Softmax": picked.reshape(1, 1001)}


class TestOnAnEdgeTpu(InferenceContract):
    """Where there is one, or larod has one; skipped with the reason elsewhere."""

    needs_hardware = True
    may_import = frozenset({"acap_runtime_larod"})

    @pytest.fixture
    def backend(self) -> TpuBackend:
        return TpuBackend()

    @pytest.fixture
    def model_path(self, compiled: Path) -> Path:
        return compiled
