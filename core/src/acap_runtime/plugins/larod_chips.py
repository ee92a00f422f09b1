"""larod's chips: their numbers, their names, and the distribution that drives each.

Numbers and ``LAROD_CHIP_*`` names are larod's up to version 2 and the original runtime's; device names are larod 3's
(its API changes page, table of migration).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


def words(number: int | None, name: str, aliases: Iterable[str]) -> frozenset[str]:
    """Return all words that select a chip: its number, its name and its aliases, casefolded."""
    own = [name, *aliases] if number is None else [str(number), name, *aliases]
    return frozenset(word.casefold() for word in own)


@dataclass(frozen=True, slots=True)
class Chip:
    """One row of larod's table. `id` is None for a device that larod 3 names and never numbered."""

    id: int | None
    name: str
    aliases: tuple[str, ...]
    distribution: str

    @property
    def words(self) -> frozenset[str]:
        return words(self.id, self.name, self.aliases)


NO_CHIP: Final = Chip(0, "none", ("LAROD_CHIP_INVALID",), "acap-runtime")
"""The value of `-j` for a server without inference."""

LIBYUV: Final = 11
"""The chip with which the original always converts images."""

CHIPS: Final = (
    Chip(1, "debug-device", ("LAROD_CHIP_DEBUG",), "acap-runtime-debug"),
    Chip(2, "cpu-tflite", ("LAROD_CHIP_TFLITE_CPU",), "acap-runtime-tflite-cpu"),
    Chip(4, "google-edge-tpu-tflite", ("LAROD_CHIP_TPU",), "acap-runtime-tpu"),
    Chip(6, "ambarella-cvflow", ("LAROD_CHIP_CVFLOW_NN",), "acap-runtime-cvflow"),
    Chip(8, "gpu-tflite", ("LAROD_CHIP_TFLITE_GLGPU",), "acap-runtime-tflite-glgpu"),
    Chip(9, "ambarella-cvflow-proc", ("LAROD_CHIP_CVFLOW_PROC",), "acap-runtime-cvflow"),
    Chip(10, "axis-a8-ace-proc", ("axis-ace-proc", "LAROD_CHIP_ACE"), "acap-runtime-ace"),
    Chip(11, "cpu-proc", ("LAROD_CHIP_LIBYUV",), "acap-runtime-libyuv"),
    Chip(12, "axis-a8-dlpu-tflite", ("LAROD_CHIP_TFLITE_ARTPEC8DLPU",), "acap-runtime-artpec8-dlpu"),
    Chip(
        13,
        "axis-a8-gpu-proc",
        ("axis-a8-dlpu-proc", "a9-gpu-proc", "axis-a7-gpu-proc", "LAROD_CHIP_OPENCL"),
        "acap-runtime-opencl",
    ),
    Chip(None, "a9-dlpu-tflite", (), "acap-runtime-artpec8-dlpu"),
)
