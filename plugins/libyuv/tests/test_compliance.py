from __future__ import annotations

import pytest
from acap_runtime.testing.processing import ProcessingContract, Tolerance
from acap_runtime.testing.reference import Reference
from acap_runtime_libyuv import LibyuvBackend


class TestChromaAsInLarod(ProcessingContract):
    reference = Reference(chroma="halved", enlarging="corners")

    @pytest.fixture
    def backend(self, monkeypatch: pytest.MonkeyPatch) -> LibyuvBackend:
        monkeypatch.delenv("ACAPRUNTIME_LIBYUV_CHROMA", raising=False)
        return LibyuvBackend()


class TestFullChroma(ProcessingContract):
    reference = Reference(chroma="full", enlarging="corners")
    tolerance = Tolerance(mean=2, peak=6)

    @pytest.fixture
    def backend(self, monkeypatch: pytest.MonkeyPatch) -> LibyuvBackend:
        monkeypatch.setenv("ACAPRUNTIME_LIBYUV_CHROMA", "full")
        return LibyuvBackend()
