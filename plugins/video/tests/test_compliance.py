from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import acap_runtime as acap
import pytest
from acap_runtime.testing.camera import CameraContract
from acap_runtime_video import FileCamera, FilterCamera, RtspCamera, V4l2Camera


class TestFilters(CameraContract):
    foreign_sources = ("", "test-pattern", "pictures:/folder", "/data/clip.mp4")
    rounds = 4

    @pytest.fixture
    def camera(self) -> acap.Camera:
        return FilterCamera()

    @pytest.fixture
    def source(self) -> str:
        return "lavfi:testsrc2=size=640x480:rate=25"

    @pytest.fixture
    def bad_source(self) -> str:
        return "lavfi:nosuchfilter"


class TestFiles(CameraContract):
    foreign_sources = ("", "test-pattern", "pictures:/folder", "rtsp://host/clip.mp4", "/dev/video0")
    sizes = ((160, 120), (301, 201))
    rounds = 4

    @pytest.fixture
    def camera(self) -> acap.Camera:
        return FileCamera()

    @pytest.fixture
    def source(self, ramp_clip: Path) -> str:
        return str(ramp_clip)

    @pytest.fixture
    def bad_source(self) -> str:
        return "/no/such/clip.mp4"


class TestRtsp(CameraContract):
    tested_on = "a server of the tests' own"
    foreign_sources = ("", "rtsp", "http://host/path", "/data/clip.mp4")
    rounds = 2

    def supported(self) -> list[acap.StreamSettings]:
        # A stream of any other form differs from those of files in nothing.
        return [acap.StreamSettings(name, 160, 120, self.framerate) for name in ("nv12", "h264")]

    @pytest.fixture
    def camera(self) -> acap.Camera:
        return RtspCamera()

    @pytest.fixture
    def source(self, rtsp_server: Callable) -> str:
        return f"rtsp://127.0.0.1:{rtsp_server().port}/"

    @pytest.fixture
    def bad_source(self, closed_port: int) -> str:
        return f"rtsp://127.0.0.1:{closed_port}/"

    @pytest.fixture
    def malformed_source(self) -> str:
        return "rtsp:///no-host"


class TestV4l2(CameraContract):
    needs_hardware = True
    foreign_sources = ("", "/data/clip.mp4", "v4l2:0")

    @pytest.fixture
    def camera(self) -> acap.Camera:
        return V4l2Camera()

    @pytest.fixture
    def source(self) -> str:
        return "/dev/video0"

    @pytest.fixture
    def bad_source(self) -> str:
        return "/dev/video99"

    @pytest.fixture
    def malformed_source(self) -> str:
        return "/dev/video"
