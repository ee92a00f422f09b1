"""Makes libedgetpu's options from the load options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import acap_runtime as acap

PERFORMANCES: Final = ("Low", "Medium", "High", "Max")
_DEVICE: Final = re.compile(r"(usb|pci|(usb|pci)?:(?P<number>[0-9]{1,3}))")


def delegate_options(options: Mapping[str, str]) -> dict[str, str]:
    """Translate options for libedgetpu's delegate. Raises `InvalidRequest` for values that it would ignore.

    The delegate takes any device if none is given, and accepts a performance only together with a device's number.
    """
    wanted = {}
    number = None
    if "device" in options:
        match = _DEVICE.fullmatch(options["device"])
        if not match:
            raise acap.InvalidRequest(
                f"device: expected usb, pci, :N, usb:N or pci:N, or no such option for any device; "
                f"got {options['device']!r:.80}"
            )
        wanted["device"] = options["device"]
        number = match["number"]
    if "performance" in options:
        if options["performance"] not in PERFORMANCES:
            raise acap.InvalidRequest(
                f"performance: expected {', '.join(PERFORMANCES)}, got {options['performance']!r:.80}"
            )
        if number is None:
            raise acap.InvalidRequest(
                "performance: libedgetpu ignores it unless device has a number: expected device=:0, usb:0 or "
                f"pci:0, for instance; got {'device=' + options['device'] if 'device' in options else 'no device'}"
            )
        wanted["Performance"] = options["performance"]
    return wanted
