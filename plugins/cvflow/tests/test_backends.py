from __future__ import annotations

from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.testing.inference import InferenceContract
from acap_runtime.testing.processing import ProcessingContract
from acap_runtime_cvflow import CvflowBackend, CvflowProcBackend


class TestInference(InferenceContract):
    tested_on = "a stand-in for larod"
    may_import = frozenset({"acap_runtime_larod"})

    @pytest.fixture
    def backend(self) -> CvflowBackend:
        return CvflowBackend()

    @pytest.fixture
    def model_path(self, larod, tmp_path) -> Path:
        # As Ambarella's toolchain gives them: planes, rows of 32 bytes.
        tensors = ["input data uint8 nchw 1,3,20,30 32", "output scores float32 nchw 1,1,1,10 32"]
        return larod.write_model(tmp_path / "model.bin", tensors)

    @pytest.fixture
    def bad_model_path(self, larod, tmp_path) -> Path:
        return larod.write_model(tmp_path / "bad", ["input data", "output scores uint8 x 1,10"])

    @pytest.fixture
    def expected(self, sample_inputs):
        total = int(sample_inputs["data"].sum(dtype=int))
        return {"scores": ((total + np.arange(10)) % 127).astype(np.float32).reshape(1, 1, 1, 10)}


class TestProcessing(ProcessingContract):
    tested_on = "a stand-in for larod"
    may_import = frozenset({"acap_runtime_larod"})
    formats = frozenset({("nv12", "rgb-planar"), ("nv12", "nv12"), ("rgb-planar", "rgb-planar")})

    @pytest.fixture
    def backend(self) -> CvflowProcBackend:
        return CvflowProcBackend()


@pytest.mark.parametrize(
    ("backend", "number", "alias"),
    [(CvflowBackend(), 6, "LAROD_CHIP_CVFLOW_NN"), (CvflowProcBackend(), 9, "LAROD_CHIP_CVFLOW_PROC")],
)
def test_the_chips_have_their_numbers_and_names(backend, number, alias, larod):
    assert (backend.chip_id, backend.aliases) == (number, (alias,))
    larod.tell("devices", backend.name)
    backend.probe()
    larod.tell("devices", "cpu-proc")
    with pytest.raises(acap.NotReady, match=f"no device {backend.name}; it has cpu-proc"):
        backend.probe()


@pytest.mark.parametrize("backend", [CvflowBackend(), CvflowProcBackend()])
def test_without_larod_the_reason_says_where_it_comes_from(backend, monkeypatch):
    monkeypatch.delenv("ACAPRUNTIME_LIBLAROD")
    with pytest.raises(acap.NotReady, match=r"liblarod\.so\.1.*on an Axis device"):
        backend.probe()
