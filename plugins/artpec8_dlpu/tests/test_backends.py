from __future__ import annotations

from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.testing.inference import InferenceContract
from acap_runtime_artpec8_dlpu import Artpec8DlpuBackend, Artpec9DlpuBackend


class Contract(InferenceContract):
    tested_on = "a stand-in for larod"
    may_import = frozenset({"acap_runtime_larod"})

    @pytest.fixture
    def model_path(self, larod, tmp_path) -> Path:
        tensors = ["input data uint8 nhwc 1,20,30,3", "output scores uint8 x 1,10", "output boxes float32 x 1,10,4"]
        return larod.write_model(tmp_path / "model.tflite", tensors)

    @pytest.fixture
    def bad_model_path(self, larod, tmp_path) -> Path:
        return larod.write_model(tmp_path / "bad", ["input data", "output scores uint8 x 1,10"])

    @pytest.fixture
    def expected(self, sample_inputs):
        total = int(sample_inputs["data"].sum(dtype=int))
        return {
            "scores": ((total + np.arange(10)) % 127).astype(np.uint8).reshape(1, 10),
            "boxes": ((total + 1 + np.arange(40)) % 127).astype(np.float32).reshape(1, 10, 4),
        }


class TestArtpec8(Contract):
    @pytest.fixture
    def backend(self) -> Artpec8DlpuBackend:
        return Artpec8DlpuBackend()


class TestArtpec9(Contract):
    @pytest.fixture
    def backend(self) -> Artpec9DlpuBackend:
        return Artpec9DlpuBackend()

    @pytest.fixture
    def options(self) -> dict[str, str]:
        return {"disable-winograd": "1"}


@pytest.mark.parametrize(
    ("backend", "number", "aliases"),
    [(Artpec8DlpuBackend(), 12, ("LAROD_CHIP_TFLITE_ARTPEC8DLPU",)), (Artpec9DlpuBackend(), None, ())],
)
def test_the_chips_have_their_numbers_and_names(backend, number, aliases, larod):
    assert (backend.chip_id, backend.aliases) == (number, aliases)
    larod.tell("devices", backend.name)
    backend.probe()
    larod.tell("devices", "cpu-tflite")
    with pytest.raises(acap.NotReady, match=f"no device {backend.name}; it has cpu-tflite"):
        backend.probe()


def test_only_artpec9_has_an_option_about_winograd():
    assert "disable-winograd" not in Artpec8DlpuBackend.options
    assert "disable-winograd" in Artpec9DlpuBackend.options


@pytest.mark.parametrize("backend", [Artpec8DlpuBackend(), Artpec9DlpuBackend()])
def test_without_larod_the_reason_says_where_it_comes_from(backend, monkeypatch):
    monkeypatch.delenv("ACAPRUNTIME_LIBLAROD")
    with pytest.raises(acap.NotReady, match=r"liblarod\.so\.1.*on an Axis device"):
        backend.probe()
