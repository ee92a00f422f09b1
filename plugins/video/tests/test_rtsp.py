from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_video import RtspCamera

SETTINGS = acap.StreamSettings("nv12", 160, 120, 25)


def picture() -> np.ndarray:
    return np.empty(SETTINGS.picture.shape[1:], np.uint8)


def read_until_it_fails(stream: acap.Stream) -> None:
    for _ in range(500):
        stream.read(picture())


def test_video_comes_over_tcp_as_it_is_taken(rtsp_server: Callable) -> None:
    server = rtsp_server()
    camera = RtspCamera()
    url = f"rtsp://127.0.0.1:{server.port}/axis-media/media.amp"
    camera.probe(url)
    stream = camera.open(url, SETTINGS)
    frames, start, greys = [], time.monotonic(), []
    for _ in range(25):
        into = picture()
        frames.append(stream.read(into).captured_ns // 1000)
        greys.append(into[:120].mean())
    assert time.monotonic() - start == pytest.approx(1, rel=0.1)
    stream.close()
    assert len(set(frames)) > 15
    assert max(greys) - min(greys) > 150
    assert any(request.startswith("PLAY") for request in server.requests)


def test_two_streams_take_one_connection(rtsp_server: Callable) -> None:
    server = rtsp_server()
    camera, url = RtspCamera(), f"rtsp://127.0.0.1:{server.port}/"
    streams: list[acap.Stream] = []
    threads = [threading.Thread(target=lambda: streams.append(camera.open(url, SETTINGS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stream in streams:
        stream.read(picture())
        stream.close()
    assert len(streams) == 3
    assert len([request for request in server.requests if request.startswith("PLAY")]) == 1


def test_a_camera_that_hangs_up_is_unavailable_until_it_is_opened_anew(rtsp_server: Callable) -> None:
    server = rtsp_server()
    camera, url = RtspCamera(timeout_s=1), f"rtsp://root:secret@127.0.0.1:{server.port}/live"
    stream = camera.open(url, SETTINGS)
    other = camera.open(url, SETTINGS)
    stream.read(picture())
    server.hang_up()
    for each in (stream, other):
        with pytest.raises(acap.Unavailable, match=r"rtsp://\*\*\*@127\.0\.0\.1:\d+/live: ") as caught:
            read_until_it_fails(each)
        assert "secret" not in str(caught.value)
    # The second of them is still open, as it is while other threads have not noticed yet.
    stream.close()
    again = camera.open(url, SETTINGS)
    again.read(picture())
    other.close()
    again.read(picture())
    again.close()


def test_a_camera_that_falls_silent_is_unavailable(rtsp_server: Callable) -> None:
    server = rtsp_server()
    camera = RtspCamera(timeout_s=0.6)
    stream = camera.open(f"rtsp://127.0.0.1:{server.port}/", SETTINGS)
    stream.read(picture())
    server.silent.set()
    start = time.monotonic()
    with pytest.raises(acap.Unavailable, match=r"no frame for 0\.6 s"):
        read_until_it_fails(stream)
    assert 0.4 < time.monotonic() - start < 2
    stream.close()
    server.silent.clear()
    stream = camera.open(f"rtsp://127.0.0.1:{server.port}/", SETTINGS)
    stream.read(picture())
    stream.close()


def test_a_read_that_blocks_does_not_keep_a_stream_from_closing(rtsp_server: Callable) -> None:
    server = rtsp_server()
    camera, url = RtspCamera(timeout_s=3), f"rtsp://127.0.0.1:{server.port}/"
    stream = camera.open(url, SETTINGS)
    server.silent.set()
    time.sleep(0.2)
    start = time.monotonic()
    stream.close()
    assert time.monotonic() - start < 1.5
    server.silent.clear()
    stream = camera.open(url, SETTINGS)
    stream.read(picture())
    stream.close()


def test_a_server_that_never_answers_is_given_up(rtsp_server: Callable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        start = time.monotonic()
        with pytest.raises(acap.Unavailable, match=r"expected an RTSP camera: no answer within 0\.5 s"):
            RtspCamera(timeout_s=0.5).open(f"rtsp://127.0.0.1:{server.getsockname()[1]}/", SETTINGS)
        assert time.monotonic() - start < 1.5


def test_a_server_that_does_not_even_accept_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        start = time.monotonic()
        with pytest.raises(acap.Unavailable, match=r"no answer within 0\.5 s"):
            RtspCamera(timeout_s=0.5).open(f"rtsp://127.0.0.1:{server.getsockname()[1]}/", SETTINGS)
        assert time.monotonic() - start < 1.5


@pytest.mark.parametrize(
    ("status", "said"), [("404 Not Found", "404 Not Found"), ("401 Unauthorized", "401 Unauthorized")]
)
def test_a_refusal_is_said(rtsp_server: Callable, status: str, said: str) -> None:
    server = rtsp_server(status=status)
    with pytest.raises(acap.NotReady, match=said) as caught:
        RtspCamera(timeout_s=2).probe(f"rtsp://root:secret@127.0.0.1:{server.port}/")
    assert "secret" not in str(caught.value)
