from __future__ import annotations

from typing import ClassVar

import acap_runtime as acap
import pytest
from acap_runtime.testing.processing import ProcessingContract
from acap_runtime_ace import AceBackend


class TestProcessing(ProcessingContract):
    tested_on = "a stand-in for larod"
    may_import = frozenset({"acap_runtime_larod"})
    formats = frozenset({("nv12", "rgb-interleaved")})
    scales = False
    crops = False
    reasons: ClassVar = dict.fromkeys(("scales", "crops"), "the engine changes the format and nothing else")

    @pytest.fixture
    def backend(self) -> AceBackend:
        return AceBackend()


@pytest.mark.parametrize("name", ["axis-a8-ace-proc", "axis-ace-proc"])
def test_the_device_is_found_by_either_name(name, larod):
    backend = AceBackend()
    assert backend.chip_id == 10
    assert {name, "LAROD_CHIP_ACE"} <= {backend.name, *backend.aliases}
    larod.tell("devices", name)
    backend.probe()
    image = (64, 48)
    backend.prepare(acap.Conversion(acap.Image("nv12", *image), acap.Image("rgb-interleaved", *image))).close()


def test_a_device_without_the_engine_says_what_it_has(larod):
    larod.tell("devices", "cpu-proc")
    with pytest.raises(acap.NotReady, match="no device axis-a8-ace-proc or axis-ace-proc; it has cpu-proc"):
        AceBackend().probe()


def test_without_larod_the_reason_says_where_it_comes_from(monkeypatch):
    monkeypatch.delenv("ACAPRUNTIME_LIBLAROD")
    with pytest.raises(acap.NotReady, match=r"liblarod\.so\.1.*on an Axis device"):
        AceBackend().probe()


def test_a_width_that_is_no_multiple_of_8_is_refused_with_what_the_engine_can_do():
    image = (68, 48)
    with pytest.raises(
        acap.InvalidRequest, match="width 68 is no multiple of 8; axis-a8-ace-proc converts nv12 to rgb"
    ):
        AceBackend().prepare(acap.Conversion(acap.Image("nv12", *image), acap.Image("rgb-interleaved", *image)))
