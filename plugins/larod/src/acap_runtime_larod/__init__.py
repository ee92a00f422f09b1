"""Drives the chips of an Axis device through larod. Plugins for single chips are built on this.

Importing this package loads nothing. Its functions load liblarod. All of them take larod's device names in order of
preference and use the first that the device has.
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

    Raises `InvalidRequest` if an option's value does not parse or larod does not accept the file as a model for this
    device, `NotReady` as `probe` does, `Unavailable` if the service or the chip's power is away, `Forbidden` if larod
    denies access, and `DeviceError` for all other failures.
    """
    from acap_runtime_larod.model import load  # noqa: PLC0415  # brings cffi

    return load(devices, path, options)


def converts(devices: Sequence[str], conversion: acap.Conversion) -> bool:
    """Return True if larod's documentation lists the conversion for one of the devices. This loads nothing."""
    from acap_runtime_larod.conversions import does  # noqa: PLC0415  # needed by few

    return any(does(device, conversion) for device in devices)


def prepare_conversion(devices: Sequence[str], conversion: acap.Conversion) -> acap.Model:
    """Make a model that converts images.

    Raises `InvalidRequest` with the device's limits for a conversion outside them, and other errors as `load_model`.
    """
    from acap_runtime_larod.model import prepare  # noqa: PLC0415  # brings cffi

    return prepare(devices, conversion)
