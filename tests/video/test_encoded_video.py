"""Files and RTSP as cameras, end to end: every format through the server, decoded again; models on encoded streams."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import pytest
from acap_runtime.client import CallFailed, Client, Frame, Stream, connect
from acap_runtime.testing.lateness import Lateness
from PIL import Image

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
FORMATS = ["h264", "h265", "jpeg", "nv12", "rgb-interleaved", "rgb-planar"]
START_CODE = b"\0\0\0\1"


def clip(path: Path, picture: np.ndarray, codec: str = "libx264", seconds: int = 2) -> Path:
    """A clip that shows one picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "12"}
        for _ in range(25 * seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


def ramp(width: int, height: int) -> np.ndarray:
    picture = np.full((height, width, 3), 100, np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)
    picture[..., 1] = np.linspace(0, 255, height)[:, np.newaxis]
    return picture


def decoded(frames: list[Frame]) -> np.ndarray:
    """The last of a stream's frames as RGB."""
    frame = frames[-1]
    match frame.format:
        case "rgb-interleaved":
            return frame.array
        case "rgb-planar":
            return frame.array.transpose(1, 2, 0)
        case "nv12":
            return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.array), "nv12").to_ndarray(format="rgb24")
    context = av.CodecContext.create({"h265": "hevc", "jpeg": "mjpeg"}.get(frame.format, frame.format), "r")
    pictures = [picture for each in frames for picture in context.decode(av.Packet(each.data))]
    pictures += context.decode(None)
    assert len(pictures) == len(frames)
    return pictures[-1].to_ndarray(format="rgb24")


@pytest.fixture(scope="module")
def served(start_shared_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    path = clip(tmp_path_factory.mktemp("clip") / "ramp.mp4", ramp(320, 240))
    server = start_shared_server("--camera", path)
    with connect(server.address) as client:
        yield client


def fetch(stream: Stream, count: int) -> list[Frame]:
    return [stream.frame() for _ in range(count)]


@pytest.mark.parametrize("size", [(320, 240), (224, 224), (160, 90)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("stream_format", FORMATS)
def test_every_format_is_the_picture_of_the_file(served: Client, stream_format: Any, size: tuple[int, int]) -> None:
    with served.stream(stream_format, *size, framerate=20) as stream:
        frames = fetch(stream, 6)
    assert np.abs(decoded(frames).astype(int) - ramp(*size)).mean() < 6
    assert [frame.sequence - frames[0].sequence for frame in frames] == list(range(6))


@pytest.mark.parametrize("stream_format", ["rgb-interleaved", "rgb-planar", "jpeg"])
def test_odd_sizes_are_right(served: Client, stream_format: Any) -> None:
    with served.stream(stream_format, 301, 201, framerate=20) as stream:
        picture = decoded(fetch(stream, 1))
    assert picture.shape == (201, 301, 3)
    assert np.abs(picture.astype(int) - ramp(301, 201)).mean() < 6


@pytest.mark.parametrize("stream_format", ["h264", "h265"])
def test_a_stream_of_encoded_frames_is_annex_b_that_begins_with_a_keyframe(served: Client, stream_format: Any) -> None:
    with served.stream(stream_format, 320, 240, framerate=25) as stream:
        frames = fetch(stream, 10)
    assert frames[0].type == f"{stream_format}-idr"
    assert {frame.type for frame in frames[1:]} <= {f"{stream_format}-idr", f"{stream_format}-p"}
    for frame in frames:
        assert frame.data.startswith(START_CODE)
        assert frame.data.count(b"\0\0\1") == frame.data.count(START_CODE)


@pytest.mark.parametrize("stream_format", ["h264", "h265"])
def test_who_joins_a_capture_begins_with_a_keyframe_and_can_decode(served: Client, stream_format: Any) -> None:
    with served.stream(stream_format, 320, 240, framerate=25) as first:
        fetch(first, 5)
        with served.stream(stream_format, 320, 240, framerate=25) as second:
            frames = fetch(second, 5)
            assert frames[0].type == f"{stream_format}-idr"
            assert frames[0].sequence > 5
            assert np.abs(decoded(frames).astype(int) - ramp(320, 240)).mean() < 6


def test_a_client_of_h264_that_is_late_for_a_while_misses_nothing(served: Client) -> None:
    with served.stream("h264", 320, 240, framerate=25) as stream:
        frames = fetch(stream, 2)
        time.sleep(1.0)
        frames += fetch(stream, 30)
    assert [frame.sequence - frames[0].sequence for frame in frames] == list(range(32))
    assert np.abs(decoded(frames).astype(int) - ramp(320, 240)).mean() < 6


@pytest.mark.parametrize("stream_format", FORMATS)
def test_frames_come_at_the_rate_that_was_asked_for(served: Client, stream_format: Any) -> None:
    with served.stream(stream_format, 160, 120, framerate=15, timestamps="mono-capture") as stream:
        fetch(stream, 2)
        with Lateness() as lateness:
            frames = fetch(stream, 16)
    stamps = [frame.timestamp_us for frame in frames]
    assert 0.9 <= (stamps[-1] - stamps[0]) / 1e6 <= 1.1 + lateness.total_s
    assert stamps == sorted(stamps)
    # A busy machine decodes a picture late, and the one before it is given again.
    assert len(stamps) - len(set(stamps)) <= lateness.total_s * 15


class TestModels:
    """What a camera shows is recognised through stream_id."""

    @pytest.mark.parametrize("stream_format", FORMATS)
    def test_a_digit_in_an_encoded_file(self, start_server, tmp_path: Path, stream_format: Any) -> None:
        with Image.open(DIGITS / "pictures" / "7-a.png") as image:
            digit = np.asarray(image.convert("RGB").resize((128, 128), Image.Resampling.BILINEAR))
        path = clip(tmp_path / "seven.mp4", digit)
        server = start_server("-j", "2", "-m", f"digits={DIGITS / 'digits.tflite'}", "--camera", path)
        with connect(server.address) as client, client.stream(stream_format, 128, 128, framerate=10) as stream:
            prediction = client.predict_stream("digits", stream)
            assert prediction.outputs["digit"].argmax() == 7
            frame = stream.frame(prediction.reference)
            assert frame.sequence == prediction.reference
            if not frame.type.endswith("-p"):
                assert np.abs(decoded([frame]).astype(int) - digit).mean() < 12

    def test_the_officer_in_a_1080p_clip(self, start_server, tmp_path: Path, models: Path) -> None:
        with Image.open(models / "grace_hopper.bmp") as image:
            picture = np.asarray(image.convert("RGB").resize((640, 480)))
        path = clip(tmp_path / "officer.mp4", picture)
        model = models / "mobilenet_v2_1.0_224_quant.tflite"
        server = start_server("-j", "2", "-m", f"mobilenet={model}", "--camera", f"door={path}")
        with connect(server.address) as client, client.stream("nv12", 1920, 1080, framerate=10) as stream:
            outputs = client.predict_stream("mobilenet", stream).outputs
        (scores,) = outputs.values()
        assert scores.argmax() == 653


@pytest.fixture
def rtsp_server() -> Iterator[Any]:
    """The RTSP server of the video plugin's own tests."""
    path = Path(__file__).parents[2] / "plugins" / "video" / "tests" / "conftest.py"
    spec = importlib.util.spec_from_file_location("video_conftest", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.RtspServer()
    yield server
    server.close()


def test_an_rtsp_camera_that_hangs_up_fails_its_streams_and_resumes(start_server, rtsp_server) -> None:
    url = f"rtsp://root:secret@127.0.0.1:{rtsp_server.port}/axis-media/media.amp"
    server = start_server("--camera", f"door={url}")
    with connect(server.address) as client, client.stream("nv12", 160, 120, framerate=10) as stream:
        last = fetch(stream, 3)[-1].sequence
        rtsp_server.hang_up()
        with pytest.raises(CallFailed) as caught:
            fetch(stream, 50)
        assert caught.value.status is grpc.StatusCode.UNAVAILABLE
        assert "camera door" in caught.value.message
        deadline = time.monotonic() + 20
        while True:
            try:
                frame = stream.frame()
            except CallFailed:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                break
        assert frame.sequence > last
    assert "secret" not in server.log


def test_a_camera_that_is_not_there_is_said_when_a_stream_is_opened(start_server, tmp_path: Path) -> None:
    server = start_server("--camera", tmp_path / "missing.mp4")
    with connect(server.address) as client, pytest.raises(CallFailed) as caught:
        client.stream("nv12", 160, 120)
    assert caught.value.status is grpc.StatusCode.FAILED_PRECONDITION
    assert "missing.mp4" in caught.value.message
