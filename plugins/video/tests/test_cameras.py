from __future__ import annotations

import re
import socket
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import acap_runtime as acap
import av
import numpy as np
import pytest
from acap_runtime_video import FileCamera, FilterCamera, RtspCamera, V4l2Camera, acap_runtime_cameras
from acap_runtime_video.decoder import Decoder
from acap_runtime_video.source import Source, without_credentials

NV12 = acap.StreamSettings("nv12", 64, 48, 25)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("/data/clip.mp4", "file"),
        ("/data/with:colon.mkv", "file"),
        ("/data/no-suffix", "file"),
        ("./clip", "file"),
        ("../clip", "file"),
        ("clip.mkv", "file"),
        ("a folder/clip.mp4", "file"),
        ("/dev/stdin", "file"),
        ("rtsp://camera/stream", "rtsp"),
        ("RTSPS://root:pass@camera:322/axis-media/media.amp?camera=1", "rtsp"),
        ("/dev/video0", "v4l2"),
        ("/dev/v4l/by-id/usb-camera-index0", "v4l2"),
        ("lavfi:testsrc2=size=640x480:rate=25", "lavfi"),
        ("test-pattern", None),
        ("pictures:/folder", None),
        ("pictures:/folder/with.suffix", None),
        ("http://host/clip.mp4", None),
        ("vdo:1", None),
        ("", None),
        ("/", None),
        (".", None),
        (".mp4", None),
    ],
)
def test_one_kind_at_most_claims_a_source_by_its_text(source: str, kind: str | None) -> None:
    assert [camera.name for camera in acap_runtime_cameras() if camera.claims(source)] == ([kind] if kind else [])


def test_a_working_source_passes_its_probe(ramp_clip: Path) -> None:
    FileCamera().probe(str(ramp_clip))
    FilterCamera().probe("lavfi:testsrc2=size=64x48:rate=25")


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4", "clip.avi"])
def test_a_clip_whose_title_is_not_utf8_plays(make_clip: Callable[..., Path], name: str) -> None:
    path = make_clip(name, [0, 100, 200], codec="libx264", title="some letters")
    path.write_bytes(path.read_bytes().replace(b"letters", b"l\xe9tt\xebrs"))
    picture = np.full(NV12.picture.shape[1:], 7, np.uint8)
    stream = FileCamera().open(str(path), NV12)
    stream.read(picture)
    stream.close()
    assert picture[0, 0] != 7


def test_what_av_did_not_expect_is_told_in_one_line_with_its_version(
    ramp_clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = Decoder(Source("rtsp://root:secret@camera", str(ramp_clip), "a file", options={"no text": 3}))
    whose = f"av {av.__version__}, called by acap-runtime-video {version('acap-runtime-video')}"
    told = rf"rtsp://\*\*\*@camera: decoding failed: unexpected TypeError: .* \({re.escape(whose)}, opening\.py:\d+\)"
    with pytest.raises(acap.Unavailable) as caught:
        decoder.newest()
    assert re.fullmatch(told, str(caught.value))
    (record,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert re.fullmatch(told, record.getMessage())
    assert record.exc_info is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "nothing.mp4")
    message = r"nothing\.mp4: expected a file with video: No such file"
    with pytest.raises(acap.NotReady, match=message):
        FileCamera().probe(path)
    with pytest.raises(acap.NotReady, match=message):
        FileCamera().open(path, NV12)


def test_what_is_no_video_is_not_ready(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video at all\n" * 100)
    with pytest.raises(acap.NotReady, match="expected a file with video: Invalid data"):
        FileCamera().probe(str(text))
    with pytest.raises(acap.NotReady, match="expected a file with video"):
        FileCamera().probe(str(tmp_path))


def test_a_file_without_video_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", 8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(acap.NotReady, match=r"sound\.wav: expected a file with video, got one without video"):
        FileCamera().probe(str(path))


def test_an_mp4_that_lacks_its_end_is_not_ready(make_clip: Callable[..., Path]) -> None:
    path = make_clip("clip.mp4", list(range(0, 250, 10)), codec="libx264")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(acap.NotReady, match="expected a file with video: Invalid data"):
        FileCamera().probe(str(path))


def test_a_graph_that_is_none_is_not_ready() -> None:
    for graph in ("nosuchfilter", "sine=frequency=440", "testsrc2=size=nonsense"):
        with pytest.raises(acap.NotReady, match=f"lavfi:{graph}: expected a graph"):
            FilterCamera().probe(f"lavfi:{graph}")


def test_a_device_that_is_missing_is_not_ready() -> None:
    with pytest.raises(acap.NotReady, match="/dev/video99: expected a V4L2 camera: No such file"):
        V4l2Camera().probe("/dev/video99")


def test_a_closed_port_is_not_ready_and_for_a_stream_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"rtsp://root:secret@127.0.0.1:{server.getsockname()[1]}/video?password=secret"
    with pytest.raises(acap.NotReady, match=r"rtsp://\*\*\*@127\.0\.0\.1.*RTSP camera: Connection refused") as probed:
        RtspCamera().probe(url)
    with pytest.raises(acap.Unavailable, match="Connection refused") as opened:
        RtspCamera().open(url, NV12)
    for error in (probed.value, opened.value):
        assert "secret" not in str(error)
        assert error.__cause__ is None


@pytest.mark.parametrize(
    ("camera", "source"),
    [(RtspCamera(), "rtsp://"), (RtspCamera(), "rtsp:///path"), (RtspCamera(), "rtsp://a b/"), (FileCamera(), "/a\0b")],
)
def test_a_malformed_source_is_an_invalid_request(camera: acap.Camera, source: str) -> None:
    with pytest.raises(acap.InvalidRequest, match="expected"):
        camera.probe(source)


def test_filters_want_a_graph() -> None:
    for source in ("lavfi", "lavfi:"):
        with pytest.raises(acap.InvalidRequest, match="expected a graph of filters, such as lavfi:testsrc2"):
            FilterCamera().probe(source)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://host/path", "rtsp://host/path"),
        ("rtsp://root:pass@host/path", "rtsp://***@host/path"),
        ("rtsp://root:p/a@s?s@host:554/path", "rtsp://***@host:554/path"),
        ("rtsp://host/path?user=root&pwd=pass", "rtsp://host/path?…"),
        ("lavfi:movie=rtsp\\://root:pass@host", "lavfi:movie=rtsp\\://***@host"),
        ("/data/a@b.mp4", "/data/a@b.mp4"),
    ],
)
def test_credentials_are_left_out_of_messages(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
