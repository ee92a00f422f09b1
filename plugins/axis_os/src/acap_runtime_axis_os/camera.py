"""The device's own camera."""

from __future__ import annotations

import re
from typing import Final

import acap_runtime as acap

FRAME_TIMEOUT_S: Final = 4.0
"""The longest time without a frame. It is a little less than the five seconds after which the runtime ends the process,
so that the reason is reported."""

_SOURCE: Final = re.compile(r"vdo(?::(?P<channel>[0-9]{1,9}))?")


class VdoCamera(acap.Camera):
    """The video that VDO has: sensors and view areas of the Axis device that this runs on.

    Without a channel, VDO chooses one. A stream that gives no frame for `timeout_s` has failed.
    """

    name = "vdo"
    sources = "vdo, vdo:CHANNEL"
    own_source = "vdo"

    def __init__(self, timeout_s: float = FRAME_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s

    def probe(self, source: str) -> None:
        from acap_runtime_axis_os.vdo import open_vdo, try_source  # noqa: PLC0415  # brings cffi

        channel = _channel(source)
        try:
            try_source(open_vdo(), source, channel)
        except acap.AcapError as error:
            raise acap.NotReady(str(error)) from None

    def open(self, source: str, settings: acap.StreamSettings) -> acap.Stream:
        from acap_runtime_axis_os.stream import VdoStream  # noqa: PLC0415  # brings cffi
        from acap_runtime_axis_os.vdo import open_vdo  # noqa: PLC0415  # brings cffi

        return VdoStream(open_vdo(), source, _channel(source), settings, self._timeout_s)


def _channel(source: str) -> int | None:
    found = _SOURCE.fullmatch(source)
    if not found:
        raise acap.InvalidRequest(
            f"source {source!r}: expected vdo, or vdo:CHANNEL with the number of a channel, such as vdo:1"
        )
    return None if found["channel"] is None else int(found["channel"])
