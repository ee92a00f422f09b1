"""acap-runtime plugin: Ambarella CVflow of an Axis device, through larod."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import acap_runtime as acap
import acap_runtime_larod as larod

__all__ = ["CvflowBackend", "CvflowProcBackend"]


class CvflowBackend(acap.InferenceBackend):
    """Runs models that Ambarella's toolchain made for CVFlow (cavalry binaries), by larod."""

    chip_id = 6
    name = "ambarella-cvflow"
    aliases = ("LAROD_CHIP_CVFLOW_NN",)
    options = larod.OPTIONS

    def probe(self) -> None:
        larod.probe([self.name])

    def load(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        return larod.load_model([self.name], path, options)


class CvflowProcBackend(acap.ProcessingBackend):
    """Converts images on CVFlow's vector processor, by larod."""

    chip_id = 9
    name = "ambarella-cvflow-proc"
    aliases = ("LAROD_CHIP_CVFLOW_PROC",)

    def probe(self) -> None:
        larod.probe([self.name])

    def converts(self, conversion: acap.Conversion) -> bool:
        return larod.converts([self.name], conversion)

    def prepare(self, conversion: acap.Conversion) -> acap.Model:
        return larod.prepare_conversion([self.name], conversion)


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [CvflowBackend(), CvflowProcBackend()]
