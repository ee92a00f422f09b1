from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import acap_runtime as acap
import pytest
from acap_runtime_larod.fallback import FallbackBackend

OWN = acap.Conversion(acap.Image("rgb-planar", 1, 1), acap.Image("rgb-planar", 1, 1))


class OwnModel(acap.Model):
    inputs, outputs = OWN.inputs, OWN.outputs

    def run(self, inputs):
        return inputs


class Chip(FallbackBackend):
    chip_id = None
    name = "some-chip"
    devices = ("nobodys-chip", "axis-a8-dlpu-tflite")
    library = "libown"
    options = MappingProxyType({"speed": "any"})

    def __init__(self, reason: str = "") -> None:
        super().__init__()
        self.reason = reason

    def find(self) -> None:
        if self.reason:
            raise acap.NotReady(self.reason)

    def load_by_library(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        return OwnModel()

    def check_for_larod(self, path: Path) -> None:
        if path.name != "model":
            raise acap.InvalidRequest(f"{path}: for another chip")


def test_the_library_drives_the_chip_where_it_finds_it(larod, tmp_path):
    larod.tell("connect-errors", "-6")
    chip = Chip()
    chip.probe()
    assert isinstance(chip.load(tmp_path / "anything", {"speed": "low"}), OwnModel)


def test_larod_drives_it_where_the_library_does_not_find_it(write_model):
    model = Chip("no libown").load(write_model("input x uint8 x 1,4", "output y uint8 x 1,4"), {})
    assert [spec.name for spec in model.inputs] == ["x"]
    model.close()


def test_both_reasons_are_told_where_neither_finds_it(larod):
    larod.tell("devices", "cpu-proc")
    with pytest.raises(acap.NotReady, match=r"^not by libown: no libown; not by larod: larod has no device"):
        Chip("no libown").probe()


def test_the_way_stays_the_same_for_all_models(larod, tmp_path):
    chip = Chip()
    chip.probe()
    chip.reason = "unplugged"
    assert isinstance(chip.load(tmp_path / "anything", {}), OwnModel)


def test_larod_gets_no_options_of_the_library_and_no_model_for_another_chip(write_model, tmp_path):
    chip = Chip("no libown")
    with pytest.raises(acap.InvalidRequest, match="speed: expected no such option, since larod drives some-chip here"):
        chip.load(write_model(), {"speed": "low"})
    with pytest.raises(acap.InvalidRequest, match="for another chip"):
        chip.load(tmp_path / "other", {})
