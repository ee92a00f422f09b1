"""A minimal HTTP/2 client for unary gRPC calls over a unix socket.

A grpcio client needs as much processor time for a call as the server does. If both share two cores, the client would
be half of the measurement.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Final, Self

PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
REGISTER: Final = "/inference.GRPCInferenceService/SystemSharedMemoryRegister"
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM: Final = 1
_ACK: Final = 1
_END_HEADERS: Final = 4
_ENABLE_PUSH, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 2, 4, 5
_DEFAULT_WINDOW: Final = 2**16 - 1
_LARGEST_WINDOW: Final = 2**31 - 1
_DEFAULT_FRAME_SIZE: Final = 2**14
_LARGEST_FRAME_SIZE: Final = 2**24 - 1
_MESSAGE_PREFIX: Final = 5
"""gRPC's own bytes before each message: a compression flag and the message's length."""
_MOST_FRAMES: Final = 256
"""Frames sent at once. A frame is two buffers, and sendmsg takes at most 1024 buffers."""


class CallFailedError(Exception):
    """The server answered without a message."""


class Connection:
    """Calls one method, one call at a time. Use it as a context manager."""

    def __init__(self, path: Path, method: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._reader = self._socket.makefile("rb")
        self._headers = _header_block(method)
        self._answer = memoryview(bytearray(_DEFAULT_WINDOW))
        self._stream = -1
        self._frame_size = _DEFAULT_FRAME_SIZE
        self._window = self._stream_window = self._first_window = _DEFAULT_WINDOW
        self._received = 0
        settings = {_ENABLE_PUSH: 0, _INITIAL_WINDOW_SIZE: _LARGEST_WINDOW, _MAX_FRAME_SIZE: _LARGEST_FRAME_SIZE}
        content = b"".join(struct.pack("!HI", *pair) for pair in settings.items())
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, content))
        self._open_window(_LARGEST_WINDOW - _DEFAULT_WINDOW)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._socket.close()

    def call(self, message: bytes) -> memoryview:
        """Send a request and return the answer's message. The next call overwrites its memory.

        Raises `CallFailedError` if the server answers without a message.
        """
        self._stream += 2
        self._stream_window = self._first_window
        self._send(message)
        end = 0
        finished = False
        while not finished:
            kind, flags, length = self._receive(end)
            if kind == _DATA:
                end += length
            finished = kind in {_DATA, _HEADERS} and bool(flags & _END_STREAM)
        if self._received > _LARGEST_WINDOW // 2:
            self._open_window(self._received)
            self._received = 0
        if end < _MESSAGE_PREFIX:
            raise CallFailedError
        return self._answer[_MESSAGE_PREFIX:end]

    def _send(self, message: bytes) -> None:
        prefix = b"\0" + len(message).to_bytes(4)
        buffers: list[bytes | memoryview] = [_frame(_HEADERS, _END_HEADERS, self._stream, self._headers)]
        buffers += [_frame_head(len(prefix), _DATA, 0, self._stream), prefix]
        self._window -= len(prefix)
        self._stream_window -= len(prefix)
        rest = memoryview(message)
        while True:
            while len(buffers) < 2 * _MOST_FRAMES and rest:
                size = min(len(rest), self._frame_size, self._window, self._stream_window)
                if size <= 0:
                    break
                flags = _END_STREAM if size == len(rest) else 0
                buffers += [_frame_head(size, _DATA, flags, self._stream), rest[:size]]
                rest = rest[size:]
                self._window -= size
                self._stream_window -= size
            self._send_all(buffers)
            if not rest:
                return
            buffers = []
            if min(self._window, self._stream_window) <= 0:
                self._receive(0)

    def _send_all(self, buffers: list[bytes | memoryview]) -> None:
        sent = self._socket.sendmsg(buffers)
        for buffer in buffers:
            if sent < len(buffer):
                self._socket.sendall(buffer[sent:])
            sent = max(0, sent - len(buffer))

    def _receive(self, position: int) -> tuple[int, int, int]:
        """Read and handle a frame, writing answer data to `position`. Returns its kind, flags and length."""
        head = self._reader.read(9)
        if len(head) < 9:
            raise ConnectionError("the server closed the connection")
        length, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
        stream = int.from_bytes(head[5:])
        if kind == _DATA:
            self._received += length
            self._read_data(position, length)
            return kind, flags, length
        content = self._reader.read(length)
        if kind == _SETTINGS and not flags & _ACK:
            self._apply(content)
            self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(_frame(_PING, _ACK, 0, content))
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(content)
        elif kind == _WINDOW_UPDATE and stream == self._stream:
            self._stream_window += int.from_bytes(content)
        elif kind == _GOAWAY or (kind == _RST_STREAM and stream == self._stream):
            raise ConnectionError(f"the server ends the {'connection' if kind == _GOAWAY else 'call'}: {content!r}")
        return kind, flags, length

    def _read_data(self, position: int, length: int) -> None:
        end = position + length
        if end > len(self._answer):
            larger = memoryview(bytearray(2 * end))
            larger[:position] = self._answer[:position]
            self._answer = larger
        self._reader.readinto(self._answer[position:end])

    def _apply(self, settings: bytes) -> None:
        for name, value in struct.iter_unpack("!HI", settings):
            if name == _INITIAL_WINDOW_SIZE:
                self._stream_window += value - self._first_window
                self._first_window = value
            elif name == _MAX_FRAME_SIZE:
                self._frame_size = value

    def _open_window(self, size: int) -> None:
        self._socket.sendall(_frame(_WINDOW_UPDATE, 0, 0, size.to_bytes(4)))


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return _frame_head(len(content), kind, flags, stream) + content


def _frame_head(length: int, kind: int, flags: int, stream: int) -> bytes:
    return length.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)


def _header_block(method: str) -> bytes:
    # HPACK without its dynamic table: POST and http are fully indexed, :path and :authority have indexed names.
    fields = b"\x83\x86" + b"\x04" + _text(method) + b"\x01" + _text("localhost")
    for name, value in (("te", "trailers"), ("content-type", "application/grpc"), ("grpc-timeout", "60S")):
        fields += b"\0" + _text(name) + _text(value)
    return fields


def _text(text: str) -> bytes:
    assert len(text) < 127  # HPACK encodes longer strings differently
    return bytes((len(text),)) + text.encode()
