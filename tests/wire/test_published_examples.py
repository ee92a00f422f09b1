"""The call patterns of Axis' published Python examples, with stubs made by protoc, from start to end."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import pytest

MODEL = "mobilenet_v2_1.0_224_quant.tflite"
OUTPUT = "MobilenetV2/Predictions/Softmax"


class VideoCaptureClient:
    """As in the examples: a stream in YUV with UTC timestamps, and the newest frame as RGB."""

    def __init__(self, channel: grpc.Channel, width: int, height: int, framerate: int) -> None:
        self._messages = import_module("videocapture_pb2")
        self._stub = import_module("videocapture_pb2_grpc").VideoCaptureStub(channel)
        self._width, self._height = width, height
        settings = self._messages.StreamSettings(
            format=self._messages.VDO_FORMAT_YUV,
            width=width,
            height=height,
            framerate=framerate,
            timestamp_type=self._messages.VDO_TIMESTAMP_UTC,
        )
        request = self._messages.NewStreamRequest(settings=settings)
        self.stream_id = self._stub.NewStream(request, timeout=30, wait_for_ready=True).stream_id

    def get_frame(self) -> np.ndarray:
        request = self._messages.GetFrameRequest(frame_reference=0, stream_id=self.stream_id)
        data = self._stub.GetFrame(request, timeout=30).data
        yuv = np.frombuffer(data, np.uint8).reshape(self._height + self._height // 2, self._width)
        return av.VideoFrame.from_ndarray(yuv, "nv12").to_ndarray(format="rgb24")

    def delete(self) -> None:
        self._stub.DeleteStream(self._messages.DeleteStreamRequest(stream_id=self.stream_id), timeout=30)


@pytest.fixture
def clip(tmp_path: Path, models: Path) -> Path:
    """A film of the officer."""
    from PIL import Image

    with Image.open(models / "grace_hopper.bmp") as image:
        picture = np.asarray(image.convert("RGB").resize((512, 512)))
    path = tmp_path / "officer.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 10)
        stream.height, stream.width, stream.pix_fmt = 512, 512, "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("size", [(224, 224), (480, 320), (1920, 1080)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_frames_are_fetched_and_sent_to_a_model_by_path(
    start_server, clip: Path, models: Path, size: tuple[int, int]
) -> None:
    server = start_server("-j", "2", "--camera", clip)
    with server.client() as client:
        capture = VideoCaptureClient(client.channel, *size, framerate=10)
        for _ in range(3):
            outputs: dict[str, Any] = client.predict(str(models / MODEL), {"data": capture.get_frame()[np.newaxis]})
            assert list(outputs) == [OUTPUT]
            assert outputs[OUTPUT].argmax() == 653
        capture.delete()


def test_video_alone_needs_no_argument(start_server, clip: Path) -> None:
    """The QR example: its service is started with nothing; where the camera is, the machine's owner has said."""
    server = start_server(environment={"ACAPRUNTIME_CAMERA": f"'{clip}'"})
    with server.client() as client:
        capture = VideoCaptureClient(client.channel, 640, 480, framerate=10)
        assert capture.get_frame().shape == (480, 640, 3)
        capture.delete()
