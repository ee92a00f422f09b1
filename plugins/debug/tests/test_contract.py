from pathlib import Path

import numpy as np
import pytest
from acap_runtime.testing.inference import InferenceContract
from acap_runtime_debug import DebugBackend

MODEL = """
inputs = [
    {name = "image", shape = [1, -1, -1, 3]},
    {name = "numbers", dtype = "float32", shape = [1, 4]},
    {name = "scalar", dtype = "int64", shape = []},
]
big_output = 100
"""


class TestDebugBackend(InferenceContract):
    needs_whole_files = False

    @pytest.fixture
    def backend(self) -> DebugBackend:
        return DebugBackend()

    @pytest.fixture
    def model_path(self, tmp_path: Path) -> Path:
        path = tmp_path / "good" / "model.toml"
        path.parent.mkdir()
        path.write_text(MODEL)
        return path

    @pytest.fixture
    def bad_model_path(self, tmp_path: Path) -> Path:
        path = tmp_path / "bad.toml"
        path.write_text('inputs = [{name = "data", shape = [-2]}]')
        return path

    @pytest.fixture
    def expected(self, sample_inputs):
        return {**sample_inputs, "big": np.zeros(100, np.uint8)}
