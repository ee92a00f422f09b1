"""A connection to larod's service."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import acap_runtime as acap

from acap_runtime_larod.failure import CODES, LarodFailure
from acap_runtime_larod.library import ffi, open_library

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """A larod device. Its handle is valid until the connection ends."""

    name: str
    instance: int
    handle: Any

    def __str__(self) -> str:
        return f"{self.name}:{self.instance}" if self.instance else self.name


class Connection:
    """A session with the service, and the lock that must be held for every call of larod.

    Every model has its own connection. The header states that the library is not thread safe, and several models run
    side by side in threads. On one shared connection, one model's job of seconds would block all others. A private
    model and the memory that the service allots for tensors end with their connection, so nothing is left in the
    service. The service can map at most 32 tensors of a connection.
    """

    def __init__(self) -> None:
        self._library = open_library()
        self._lock = threading.Lock()
        self._pointer = ffi.new("larodConnection **")
        with self._library.connecting:
            self.call("larodConnect", self._pointer)

    @property
    def handle(self) -> Any:
        return self._pointer[0]

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function whose last argument is an error pointer. Raises `LarodFailure` if it fails."""
        error = ffi.new("larodError **")
        with self._lock:
            result = getattr(self._library.functions, function)(*arguments, error)
            if error[0] != ffi.NULL:
                try:
                    raise LarodFailure(function, int(error[0].code), text(error[0].msg))
                finally:
                    self._library.functions.larodClearError(error)
        if result is False or result == ffi.NULL:
            raise LarodFailure(function, CODES["NONE"], "failed and gave no reason")
        return result

    def free(self, function: str, pointer: Any) -> None:
        """Call a function that frees a pointer's target and cannot fail."""
        with self._lock:
            getattr(self._library.functions, function)(pointer)

    def end(self, function: str, *arguments: Any) -> None:
        """Call a function that ends something. A failure must not prevent the rest of the cleanup."""
        try:
            self.call(function, *arguments)
        except LarodFailure as failure:
            _LOG.debug("while freeing: %s", failure)

    def close(self) -> None:
        with self._library.connecting:
            self.end("larodDisconnect", self._pointer)

    def devices(self) -> list[Device]:
        count = ffi.new("size_t *")
        # The caller frees neither the list nor the devices.
        handles = self.call("larodListDevices", self.handle, count)
        return [self._read_device(handles[index]) for index in range(count[0])]

    def find(self, names: Sequence[str], instance: int = 0) -> Device:
        """Find the first of `names` that the service has. Raises `NotReady`, listing the service's devices."""
        found = self.devices()
        for name in names:
            for device in found:
                if (device.name, device.instance) == (name, instance):
                    return device
        wanted = " or ".join(names) + (f", instance {instance}" if instance else "")
        raise acap.NotReady(
            f"larod has no device {wanted}; it has {', '.join(sorted(map(str, found))) or 'none'}: "
            "this chip is not in this Axis device"
        )

    def _read_device(self, handle: Any) -> Device:
        instance = ffi.new("uint32_t *")
        self.call("larodGetDeviceInstance", handle, instance)
        return Device(text(self.call("larodGetDeviceName", handle)), instance[0], handle)


def text(pointer: Any) -> str:
    """Convert a larod string. NULL becomes an empty string."""
    if pointer == ffi.NULL:
        return ""
    content = ffi.string(pointer)
    return content.decode(errors="replace") if isinstance(content, bytes) else content


def probe_devices(devices: Sequence[str]) -> None:
    """Raise `NotReady` unless the service answers and has one of `devices`."""
    try:
        with contextlib.closing(Connection()) as connection:
            connection.find(devices)
    except LarodFailure as failure:
        raise acap.NotReady(
            f"larod cannot be used: {failure}; is its service running, and may this user use it?"
        ) from None
