from pathlib import Path

import numpy as np
import pytest
from acap_runtime.testing.inference import InferenceContract
from acap_runtime_tflite_glgpu import TfliteGpuBackend


class TestOnAPicture(InferenceContract):
    tested_on = "the machine's GPU, so far one in software (SwiftShader)"
    may_import = frozenset({"acap_runtime_larod"})

    @pytest.fixture(autouse=True)
    def there_is_a_gpu(self, some_gpu: None) -> None:
        pass

    @pytest.fixture
    def backend(self) -> TfliteGpuBackend:
        return TfliteGpuBackend()

    @pytest.fixture
    def model_path(self, models: Path) -> Path:
        return models / "mobilenet_v1_0.25_128_quant.tflite"

    @pytest.fixture
    def bad_model_path(self, tmp_path: Path) -> Path:
        path = tmp_path / "zeros.tflite"
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(1000))
        return path


class TestOnNumbers(InferenceContract):
    tested_on = "the machine's GPU, so far one in software (SwiftShader)"
    may_import = frozenset({"acap_runtime_larod"})

    @pytest.fixture(autouse=True)
    def there_is_a_gpu(self, some_gpu: None) -> None:
        pass

    @pytest.fixture
    def backend(self) -> TfliteGpuBackend:
        return TfliteGpuBackend()

    @pytest.fixture
    def model_path(self, build_model, tensor, operator) -> Path:
        tensors = [tensor(name, "FLOAT32", (1, 4)) for name in ("x", "y", "sum")]
        return build_model(tensors, [operator("ADD", (0, 1), (2,), {})], (0, 1), (2,))

    @pytest.fixture
    def options(self) -> dict[str, str]:
        return {"precision": "f32"}

    @pytest.fixture
    def expected(self, sample_inputs):
        return {"sum": np.add(sample_inputs["x"], sample_inputs["y"])}
