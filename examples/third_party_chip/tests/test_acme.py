# mypy: disable-error-code="import-not-found"
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.testing.inference import InferenceContract
from acme_npu import AcmeNpu

TABLE = np.random.default_rng(1).permutation(256).astype(np.uint8)


class TestAcmeNpu(InferenceContract):
    @pytest.fixture
    def backend(self) -> acap.InferenceBackend:
        backend: acap.InferenceBackend = AcmeNpu()
        return backend

    @pytest.fixture
    def model_path(self, tmp_path: Path) -> Path:
        path = tmp_path / "table.acme"
        path.write_bytes(b"ACME" + TABLE.tobytes())
        return path

    @pytest.fixture
    def bad_model_path(self, tmp_path: Path) -> Path:
        path = tmp_path / "long.acme"
        path.write_bytes(b"ACME" + bytes(257))
        return path

    @pytest.fixture
    def sample_inputs(self) -> Mapping[str, acap.Array]:
        return {"data": np.arange(256, dtype=np.uint8)[np.newaxis]}

    @pytest.fixture
    def expected(self) -> Mapping[str, acap.Array]:
        return {"replaced": TABLE[np.newaxis]}

    def test_more_than_the_chip_holds_is_refused(self, model: acap.Model) -> None:
        with pytest.raises(acap.InvalidRequest, match="at most 1048576 bytes"):
            model.run({"data": np.zeros((1, 2**20 + 1), np.uint8)})

    @pytest.mark.usefixtures("ready")
    @pytest.mark.parametrize("speed", ["low", "high"])
    def test_both_speeds_give_the_same_answer(
        self,
        backend: acap.InferenceBackend,
        model_path: Path,
        sample_inputs: Mapping[str, acap.Array],
        speed: str,
    ) -> None:
        model = backend.load(model_path, {"speed": speed})
        assert model.run(sample_inputs)["replaced"].tolist() == [TABLE.tolist()]
        model.close()
