"""A parameter store of fixed values, and of keys that misbehave."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import acap_runtime as acap

from acap_runtime_debug.faults import CHIPLESS_FAULTS

VALUES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "root.Brand.Brand": "debug",
        "root.Brand.ProdFullName": "acap-runtime debug device",
        "root.Image.I0.Enabled": "yes",
    }
)
_MISBEHAVING: Final = "root.Debug."


class DebugStore(acap.ParameterStore):
    """A few parameters without a device. ``root.Debug.Crash`` and its like do to the caller what the options of
    `TestPattern` do.
    """

    name = "debug"

    def probe(self) -> None:
        """Always succeed: nothing can be missing."""

    def get(self, key: str) -> str | None:
        for fault, strike in CHIPLESS_FAULTS.items():
            if key == f"{_MISBEHAVING}{fault.capitalize()}":
                strike()
        return VALUES.get(key)
