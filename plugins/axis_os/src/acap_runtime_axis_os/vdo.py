"""VDO's streams: their settings, and the translation of their errors to the runtime's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import acap_runtime as acap

from acap_runtime_axis_os.declarations import VDO, BufferStrategy, Format, Timestamp, VdoError
from acap_runtime_axis_os.library import Failure, Library, open_library

Setting: TypeAlias = tuple[Literal["boolean", "int32", "uint16", "uint32", "string"], str, int | bytes]
"""An entry of a VdoMap: its type, its name and its value."""

FORMATS: Final[Mapping[acap.StreamFormat, Format]] = MappingProxyType(
    {
        "h264": Format.H264,
        "h265": Format.H265,
        "jpeg": Format.JPEG,
        "nv12": Format.YUV,
        "rgb-interleaved": Format.RGB,
        "rgb-planar": Format.PLANAR_RGB,
    }
)

RAW_BUFFERS: Final = 3
"""One buffer is filled, one waits and one is copied. Each costs the device a whole picture."""

CALL_TIMEOUT_MS: Final = 2000
"""The longest time for giving a buffer back, which waits for the service."""

_ERRORS: Final[Mapping[int, type[acap.AcapError]]] = MappingProxyType(
    {
        VdoError.INVALID_ARGUMENT: acap.InvalidRequest,
        VdoError.NOT_SUPPORTED: acap.InvalidRequest,
        VdoError.NOT_FOUND: acap.NotReady,
        VdoError.PERMISSION_DENIED: acap.NotReady,
        VdoError.HAL: acap.DeviceError,
        VdoError.FATAL: acap.DeviceError,
    }
)
"""The runtime's errors for refusals to open a stream. All other errors are temporary: VDO requires a new try."""


def open_vdo() -> Library:
    """Open the library. Raises `NotReady` if it is missing or too old."""
    return open_library("libvdostream.so.1", VDO, "vdo_error_quark")


def settings_of(settings: acap.StreamSettings, channel: int | None) -> list[Setting]:
    """Return the settings to request from VDO."""
    entries: list[Setting] = [
        ("uint32", "format", FORMATS[settings.format]),
        ("uint32", "width", settings.width),
        ("uint32", "height", settings.height),
        ("uint32", "framerate", settings.framerate),
        ("uint32", "buffer.strategy", BufferStrategy.INFINITE),
        ("uint16", "timestamp.type", Timestamp.MONO_SERVER),
        # The plugin waits for frames with poll, with its own time limit.
        ("boolean", "socket.blocking", False),
        ("int32", "socket.timeout_ms", CALL_TIMEOUT_MS),
    ]
    if channel is not None:
        entries.append(("uint32", "channel", channel))
    if not settings.encoded:
        entries.append(("uint32", "buffer.count", RAW_BUFFERS))
    if settings.format == "nv12":
        entries.append(("string", "subformat", b"NV12"))
    return entries


def try_source(vdo: Library, source: str, channel: int | None) -> None:
    """Request a stream that every Axis camera has, without starting it. Raises the errors of `opened`."""
    entries: list[Setting] = [("uint32", "format", Format.JPEG)]
    if channel is not None:
        entries.append(("uint32", "channel", channel))
    with opening(source), opened(vdo, entries):
        pass


@contextmanager
def opened(vdo: Library, entries: list[Setting]) -> Iterator[Any]:
    """Yield a stream that is not started, and release it at the end. Raises `Failure`."""
    settings = vdo.functions.vdo_map_new()
    try:
        for kind, name, value in entries:
            getattr(vdo.functions, f"vdo_map_set_{kind}")(settings, name.encode(), value)
        stream = vdo.call("vdo_stream_new", settings, vdo.ffi.NULL)
    finally:
        vdo.functions.g_object_unref(settings)
    try:
        yield stream
    finally:
        vdo.functions.g_object_unref(stream)


@contextmanager
def opening(what: str) -> Iterator[None]:
    """Raise VDO's errors while opening a stream as the runtime's, with VDO's message."""
    try:
        yield
    except Failure as failure:
        raise _error(what, failure, _ERRORS.get(failure.code or 0, acap.Unavailable)) from None


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise VDO's errors while reading a stream as `Unavailable`. After any failure, VDO requires a new stream."""
    try:
        yield
    except Failure as failure:
        raise _error(what, failure, acap.Unavailable) from None


def _error(what: str, failure: Failure, kind: type[acap.AcapError]) -> acap.AcapError:
    if failure.expected:
        return acap.Unavailable(f"{what}: VDO is down for maintenance, and will be back: {failure}")
    return kind(f"{what}: {failure}")
