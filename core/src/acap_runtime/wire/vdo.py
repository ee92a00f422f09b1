"""The formats and timestamps of Axis' video capture API: VDO's numbers on the wire, and VDO's names of frames."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from acap_runtime.contract.camera import StreamFormat

TimestampType = Literal[
    "none",
    "utc",
    "zipstream",
    "diff",
    "mono-capture",
    "mono-server",
    "mono-client",
    "mono-client-capture-diff",
    "mono-client-server-diff",
]

FORMATS: Final[Mapping[StreamFormat, int]] = MappingProxyType(
    {"h264": 0, "h265": 1, "jpeg": 2, "nv12": 3, "rgb-interleaved": 8, "rgb-planar": 9}
)
"""VDO's number of each format."""

FRAME_TYPES: Final[Mapping[StreamFormat, tuple[str, str]]] = MappingProxyType(
    {
        "h264": ("h264-idr", "h264-p"),
        "h265": ("h265-idr", "h265-p"),
        "jpeg": ("jpeg", ""),
        "nv12": ("yuv", ""),
        "rgb-interleaved": ("rgb", ""),
        "rgb-planar": ("planar-rgb", ""),
    }
)
"""VDO's names of each format's key frames and of its other frames."""

UTC: Final = 1
DIFF: Final = 4
MONO_CAPTURE: Final = 8
MONO_SERVER: Final = 16
MONO_CLIENT: Final = 32

TIMESTAMPS: Final[Mapping[TimestampType, int]] = MappingProxyType(
    {
        "none": 0,
        "utc": UTC,
        "zipstream": 2,
        "diff": DIFF,
        "mono-capture": MONO_CAPTURE,
        "mono-server": MONO_SERVER,
        "mono-client": MONO_CLIENT,
        "mono-client-capture-diff": MONO_CLIENT | MONO_CAPTURE | DIFF,
        "mono-client-server-diff": MONO_CLIENT | MONO_SERVER | DIFF,
    }
)
"""VDO's number of each kind of timestamp."""

CAMERA_KEY: Final = "acap-camera"
"""The metadata key that selects the camera in a client's NewStream. It is our extension, not part of VDO."""
