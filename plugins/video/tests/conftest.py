from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

RATE = 25


def ramp(width: int, height: int) -> np.ndarray:
    """Red grows to the right, green grows downwards, blue is the same everywhere: so at every size."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = (np.arange(width) + 0.5) * 255 / width
    picture[..., 1] = ((np.arange(height) + 0.5) * 255 / height)[:, None]
    picture[..., 2] = 100
    return picture


@pytest.fixture(name="ramp")
def fixture_ramp() -> Callable[[int, int], np.ndarray]:
    return ramp


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """Write a clip without loss of the pictures, or of a grey one for each number."""

    def make(
        name: str, pictures: list[np.ndarray | int], rate: int = RATE, codec: str = "ffv1", title: str = ""
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            container.metadata["title"] = title
            stream = container.add_stream(codec, rate)
            for number, picture in enumerate(pictures):
                array = np.full((48, 64, 3), picture, np.uint8) if isinstance(picture, int) else picture
                frame = av.VideoFrame.from_ndarray(array, "rgb24")
                if number == 0:
                    stream.height, stream.width = array.shape[:2]
                    stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture
def ramp_clip(make_clip: Callable[..., Path]) -> Path:
    return make_clip("ramp.mkv", [ramp(640, 480)] * RATE)


def nal_units(count: int) -> list[list[bytes]]:
    """The units of `count` frames of H.264, every fifth of them a keyframe, each small enough for a packet of RTP."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 160, 120, "yuv420p"
    context.time_base, context.gop_size = Fraction(1, RATE), 5
    context.options = {"preset": "ultrafast", "tune": "zerolatency"}
    frames = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), number * 255 // count, np.uint8), "rgb24")
        frame.pts = number
        data = b"".join(bytes(packet) for packet in context.encode(frame.reformat(format="yuv420p")))
        frames.append([unit for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit])
    return frames


class RtspServer:
    """Just enough of RTSP over TCP for FFmpeg: one stream of H.264, until it is told to be silent or hangs up."""

    def __init__(self, status: str = "200 OK") -> None:
        self._status = status
        self._frames = nal_units(25)
        self._clients: list[socket.socket] = []
        self.requests: list[str] = []
        self.silent = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def hang_up(self) -> None:
        """Close all connections; new ones are accepted."""
        for client in self._clients:
            client.shutdown(socket.SHUT_RDWR)
        self._clients.clear()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for client in self._clients:
            with client:
                try:
                    client.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self._clients.append(client)
            self._threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, client.makefile("rb") as lines:
                while request := lines.readline().decode():
                    headers = {}
                    while line := lines.readline().decode().strip():
                        key, _, value = line.partition(":")
                        headers[key.lower()] = value.strip()
                    self.requests.append(request)
                    if not self._answer(client, request.split()[0], headers):
                        return
        except OSError:
            return

    def _answer(self, client: socket.socket, method: str, headers: dict[str, str]) -> bool:
        more, body = {"CSeq": headers.get("cseq", "0"), "Session": "1"}, ""
        if method == "OPTIONS":
            more["Public"] = "DESCRIBE, SETUP, PLAY, TEARDOWN"
        elif method == "DESCRIBE" and self._status == "200 OK":
            sets = ",".join(base64.b64encode(unit).decode() for unit in self._frames[0] if unit[0] & 31 in (7, 8))
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
                "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
                f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:track\r\n"
            )
            more |= {"Content-Type": "application/sdp", "Content-Length": str(len(body))}
        elif method == "SETUP":
            more["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
        status = self._status if method == "DESCRIBE" else "200 OK"
        lines = [f"RTSP/1.0 {status}", *(f"{key}: {value}" for key, value in more.items())]
        client.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        if method == "PLAY":
            self._play(client)
        return method not in ("PLAY", "TEARDOWN")

    def _play(self, client: socket.socket) -> None:
        sequence, number, start = 0, 0, time.monotonic()
        while True:
            if not self.silent.is_set():
                for unit in (units := self._frames[number % len(self._frames)]):
                    header = bytes([0x80, 96 | (0x80 if unit is units[-1] else 0)])
                    header += (sequence % 65536).to_bytes(2) + (number * 90000 // RATE).to_bytes(4) + b"\0\0\0\1"
                    client.sendall(b"$\0" + (len(header) + len(unit)).to_bytes(2) + header + unit)
                    sequence += 1
            number += 1
            time.sleep(max(0, start + number / RATE - time.monotonic()))


@pytest.fixture
def rtsp_server() -> Iterator[Callable[..., RtspServer]]:
    servers: list[RtspServer] = []

    def start(**options: str) -> RtspServer:
        servers.append(RtspServer(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
