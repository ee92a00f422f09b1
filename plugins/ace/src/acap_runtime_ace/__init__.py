"""acap-runtime plugin: image conversion on the Axis Compute Engine, through larod."""

from __future__ import annotations

from typing import Final

import acap_runtime as acap
import acap_runtime_larod as larod

__all__ = ["AceBackend"]

DEVICES: Final = ("axis-a8-ace-proc", "axis-ace-proc")
"""larod's page on API changes has the first name, its page on preprocessing the second."""


class AceBackend(acap.ProcessingBackend):
    """Converts images on the Axis Compute Engine: nv12 to rgb-interleaved of the same size."""

    chip_id = 10
    name = "axis-a8-ace-proc"
    aliases = ("axis-ace-proc", "LAROD_CHIP_ACE")

    def probe(self) -> None:
        larod.probe(DEVICES)

    def converts(self, conversion: acap.Conversion) -> bool:
        return larod.converts(DEVICES, conversion)

    def prepare(self, conversion: acap.Conversion) -> acap.Model:
        return larod.prepare_conversion(DEVICES, conversion)


@acap.hookimpl
def acap_runtime_backends() -> list[acap.Backend]:
    return [AceBackend()]
