"""Chip 11 of larod's table: the CPU as a converter of images."""

from __future__ import annotations

import os
from typing import Final

import acap_runtime as acap

from acap_runtime_libyuv.chroma import CHROMAS, Chroma

CHROMA_VARIABLE: Final = "ACAPRUNTIME_LIBYUV_CHROMA"

LARGEST_SIDE: Final = 16384
"""In pixels. libyuv counts bytes of an image in 32 bits, and positions in it in 16.16 fixed point."""


class LibyuvBackend(acap.ProcessingBackend):
    """Converts images on the CPU, by libyuv.

    `chroma` selects how colour is scaled. None uses ``ACAPRUNTIME_LIBYUV_CHROMA``, or ``larod`` if that is not set.
    """

    chip_id = 11
    name = "cpu-proc"
    aliases = ("LAROD_CHIP_LIBYUV",)

    def __init__(self, chroma: Chroma | None = None) -> None:
        self._chroma = chroma

    def probe(self) -> None:
        from acap_runtime_libyuv.faults import functions_to_avoid  # noqa: PLC0415  # brings cffi

        self._chosen_chroma()
        functions_to_avoid()

    def prepare(self, conversion: acap.Conversion) -> acap.Model:
        from acap_runtime_libyuv.model import LibyuvModel  # noqa: PLC0415  # brings cffi

        for image in (conversion.input, conversion.output):
            if max(image.width, image.height) > LARGEST_SIDE:
                raise acap.InvalidRequest(f"{image}: libyuv takes at most {LARGEST_SIDE} pixels a side")
        return LibyuvModel(conversion, self._chosen_chroma())

    def _chosen_chroma(self) -> Chroma:
        wanted = self._chroma or os.environ.get(CHROMA_VARIABLE) or "larod"
        for chroma in CHROMAS:
            if chroma == wanted:
                return chroma
        raise acap.NotReady(f"chroma {wanted!r}: expected {CHROMA_VARIABLE} to be one of {', '.join(CHROMAS)}")
