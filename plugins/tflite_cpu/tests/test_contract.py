from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from acap_runtime.testing.inference import InferenceContract
from acap_runtime_tflite_cpu import TfliteCpuBackend

# tflite-runtime trusts every offset in a file; LiteRT checks them first.
VERIFIES = find_spec("ai_edge_litert") is not None


class TestOnAPicture(InferenceContract):
    survives_bad_models = VERIFIES

    @pytest.fixture
    def backend(self) -> TfliteCpuBackend:
        return TfliteCpuBackend()

    @pytest.fixture
    def model_path(self, models: Path) -> Path:
        return models / "mobilenet_v1_0.25_128_quant.tflite"

    @pytest.fixture
    def bad_model_path(self, tmp_path: Path) -> Path:
        path = tmp_path / "zeros.tflite"
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(1000))
        return path


class TestOnOpenShapes(InferenceContract):
    survives_bad_models = VERIFIES

    @pytest.fixture
    def backend(self) -> TfliteCpuBackend:
        return TfliteCpuBackend()

    @pytest.fixture
    def model_path(self, build_model, tensor) -> Path:
        inputs = [tensor("x", "FLOAT32", (1, -1)), tensor("y", "FLOAT32", (1, -1))]
        return build_model("ADD", inputs, [tensor("sum", "FLOAT32", (1, -1))])

    @pytest.fixture
    def options(self) -> dict[str, str]:
        return {"threads": "2"}

    @pytest.fixture
    def expected(self, sample_inputs):
        return {"sum": np.add(sample_inputs["x"], sample_inputs["y"])}
