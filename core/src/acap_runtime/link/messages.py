"""Small messages between front and worker: JSON over a SOCK_SEQPACKET pair, with file descriptors.

A packet socket keeps messages whole. Several threads may send on one channel, or wait on it, without a lock: the kernel
hands each message to exactly one of them.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from acap_runtime.contract.backend import Conversion, Crop, Image, Quantisation, TensorSpec
from acap_runtime.contract.camera import StreamSettings
from acap_runtime.contract.unexpected import unexpected
from acap_runtime.errors import (
    AcapError,
    Busy,
    DeviceError,
    Forbidden,
    InvalidRequest,
    NotFound,
    NotReady,
    TooLate,
    Unavailable,
)

Message: TypeAlias = Mapping[str, Any]

_LARGEST_MESSAGE: Final = 128 * 1024
_LONGEST_ERROR: Final = 2000
_DESCRIPTOR_SIZE: Final = 4
_MOST_DESCRIPTORS: Final = 16
_ERRORS: Final[dict[str, type[AcapError]]] = {
    kind.__name__: kind
    for kind in (InvalidRequest, NotFound, NotReady, Unavailable, Busy, DeviceError, Forbidden, TooLate)
}


class Channel:
    """One end of a message pair. `close` may be called more than once."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @staticmethod
    def pair() -> tuple[Channel, Channel]:
        """Make two connected ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Channel(one), Channel(other)

    def fileno(self) -> int:
        return self._socket.fileno()

    def set_nonblocking(self) -> None:
        self._socket.setblocking(False)

    def send(self, message: Message, *descriptors: int) -> None:
        """Send one message, and file descriptors with it. Raises `OSError` if the other end is gone."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > _LARGEST_MESSAGE:
            raise DeviceError(f"a message of {len(data)} bytes: expected at most {_LARGEST_MESSAGE}")
        if descriptors:
            socket.send_fds(self._socket, [data], descriptors)
        else:
            self._socket.send(data)

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """Return the next message and the descriptors that came with it, or None if the other end is closed.

        Raises `OSError` if descriptors came and this process can have no more of them, `BlockingIOError` if no message
        is there and the channel does not block.
        """
        try:
            data, ancillary, flags = self._receive_packet()
        except ConnectionResetError:
            # The other end closed with something unread. The kernel reports that before it gives the last messages.
            data, ancillary, flags = self._receive_packet()
        if not data:
            return None
        descriptors = array.array("i")
        for _, _, packed in ancillary:
            descriptors.frombytes(packed[: len(packed) - len(packed) % _DESCRIPTOR_SIZE])
        if flags & socket.MSG_CTRUNC:
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return json.loads(data), list(descriptors)

    def _receive_packet(self) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        # Not socket.recv_fds, which drops the flag in Python 3.11.
        return self._socket.recvmsg(
            _LARGEST_MESSAGE, socket.CMSG_SPACE(_MOST_DESCRIPTORS * _DESCRIPTOR_SIZE), socket.MSG_CMSG_CLOEXEC
        )[:3]

    def hang_up(self) -> None:
        """Shut the connection down. The other end, and all threads that wait on this one, see it closed."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the other end was first

    def close(self) -> None:
        self._socket.close()


def pack_error(error: BaseException) -> list[str]:
    """Pack an exception for a message. An exception that is no `AcapError` becomes a `DeviceError`."""
    if not isinstance(error, AcapError):
        return [DeviceError.__name__, unexpected(error)]
    text = str(error)[:_LONGEST_ERROR]
    # The front knows core's errors only: a plugin's own subclass travels as the one it is derived from.
    for kind in type(error).__mro__:
        if kind in _ERRORS.values():
            return [kind.__name__, text]
    return [DeviceError.__name__, text]


def unpack_error(packed: Sequence[str]) -> AcapError:
    """Return the exception that `pack_error` packed."""
    name, message = packed
    return _ERRORS.get(name, DeviceError)(message)


def pack_spec(spec: TensorSpec) -> list[Any]:
    quantisation = spec.quantisation
    return [
        spec.name,
        spec.dtype.str,
        spec.shape,
        None if quantisation is None else [quantisation.scales, quantisation.zero_points, quantisation.axis],
    ]


def unpack_spec(packed: Sequence[Any]) -> TensorSpec:
    name, dtype, shape, quantisation = packed
    return TensorSpec(
        name,
        np.dtype(dtype),
        tuple(shape),
        Quantisation(tuple(quantisation[0]), tuple(quantisation[1]), quantisation[2]) if quantisation else None,
    )


def pack_conversion(conversion: Conversion) -> list[Any]:
    return [
        *(
            part
            for image in (conversion.input, conversion.output)
            for part in (image.format, image.width, image.height)
        ),
        conversion.crop and [conversion.crop.x, conversion.crop.y, conversion.crop.width, conversion.crop.height],
    ]


def unpack_conversion(packed: Sequence[Any]) -> Conversion:
    return Conversion(Image(*packed[0:3]), Image(*packed[3:6]), Crop(*packed[6]) if packed[6] else None)


def pack_settings(settings: StreamSettings) -> list[Any]:
    return [settings.format, settings.width, settings.height, settings.framerate]


def unpack_settings(packed: Sequence[Any]) -> StreamSettings:
    return StreamSettings(*packed)
