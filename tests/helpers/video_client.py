"""A client of the video capture API for tests, and what several of them ask of servers and processes."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc

H264, YUV, RGB, PLANAR_RGB = 0, 3, 8, 9
UTC = 1
CODE = grpc.StatusCode
STARTED = re.compile(r"camera (\S+) started, process (\d+)")


class Video:
    """A client of the video capture API; `close` deletes the streams that it opened."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._messages = import_module("videocapture_pb2")
        self.stub = import_module("videocapture_pb2_grpc").VideoCaptureStub(channel)
        self._opened: list[int] = []

    def request(self, stream_format: int, size: tuple[int, int], framerate: int, timestamps: int) -> Any:
        width, height = size
        settings = self._messages.StreamSettings(
            format=stream_format, width=width, height=height, framerate=framerate, timestamp_type=timestamps
        )
        return self._messages.NewStreamRequest(settings=settings)

    def open(
        self,
        stream_format: int = YUV,
        size: tuple[int, int] = (224, 224),
        framerate: int = 10,
        timestamps: int = UTC,
        *,
        camera: str | None = None,
        timeout: float = 20,
    ) -> int:
        request = self.request(stream_format, size, framerate, timestamps)
        metadata = (("acap-camera", camera),) if camera is not None else None
        stream = self.stub.NewStream(request, timeout=timeout, metadata=metadata, wait_for_ready=True).stream_id
        self._opened.append(stream)
        return stream

    def frame(self, stream: int, reference: int = 0, timeout: float = 10) -> Any:
        return self.stub.GetFrame(self.frame_request(stream, reference), timeout=timeout)

    def frame_request(self, stream: int, reference: int = 0) -> Any:
        return self._messages.GetFrameRequest(stream_id=stream, frame_reference=reference)

    def frames(self, stream: int, count: int) -> list[Any]:
        return [self.frame(stream) for _ in range(count)]

    def delete(self, stream: int) -> None:
        self.stub.DeleteStream(self._messages.DeleteStreamRequest(stream_id=stream), timeout=10)

    def close(self) -> None:
        for stream in self._opened:
            try:
                self.delete(stream)
            except grpc.RpcError as error:
                assert error.code() == CODE.FAILED_PRECONDITION  # noqa: PT017 - the test deleted it


def processes_of(server: Any, camera: str) -> list[int]:
    """The camera's processes so far, as the log names them."""
    return [int(process) for name, process in STARTED.findall(server.log) if name == camera]


def segments_mapped(process: int) -> int:
    """How much shared memory of ours a process has mapped: a camera's process has a ring for each capture."""
    return Path(f"/proc/{process}/maps").read_text().count("memfd:acap-runtime")
