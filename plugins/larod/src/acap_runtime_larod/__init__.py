"""The chips of an Axis device, driven through larod: what plugins for one chip are made of.

Importing this loads nothing; the functions load liblarod. All of them take larod's device names in order of preference
and use the first that the device has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import acap_runtime as acap

__all__ = ["A9_DLPU_OPTIONS", "OPTIONS", "converts", "load_model", "prepare_conversion", "probe"]

OPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"instance": "which of several equal devices to use, a number from 0; 0 if it is left out"}
)
"""Load options that every inference device of larod takes."""

A9_DLPU_OPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {**OPTIONS, "disable-winograd": "1 computes convolutions more exactly and more slowly, 0 does not; 0 if left out"}
)
"""Load options of a9-dlpu-tflite (larod's page on inference: optional parameters of the ARTPEC-9 DLPU)."""


def probe(devices: Sequence[str]) -> None:
    """Raise `NotReady` unless liblarod 3 is here, its service answers, and it has one of `devices`."""
    from acap_runtime_larod.connection import probe_devices  # noqa: PLC0415  # brings cffi

    probe_devices(devices)


def load_model(devices: Sequence[str], path: Path, options: Mapping[str, str]) -> acap.Model:
    """Load a model file. `options` may have the names in `A9_DLPU_OPTIONS`.

    Raises `InvalidRequest` for an option's value that does not parse and for a file that larod takes for no model of
    this device, `NotReady` as `probe` does, `Unavailable` where the service or power for the chip is away,
    `Forbidden` where larod says so, `DeviceError` for all else.
    """
    from acap_runtime_larod.model import load  # noqa: PLC0415  # brings cffi

    return load(devices, path, options)


def converts(devices: Sequence[str], conversion: acap.Conversion) -> bool:
    """Whether one of the devices does such conversions, as far as larod's documents say; nothing is loaded."""
    from acap_runtime_larod.conversions import does  # noqa: PLC0415  # needed by few

    return any(does(device, conversion) for device in devices)


def prepare_conversion(devices: Sequence[str], conversion: acap.Conversion) -> acap.Model:
    """Make a model that converts images.

    Raises `InvalidRequest`, saying what the device can do, for a conversion outside its limits; others as `load_model`.
    """
    from acap_runtime_larod.model import prepare  # noqa: PLC0415  # brings cffi

    return prepare(devices, conversion)
