"""The runtime as on an Axis device: its camera, its parameters and its chips, all of them stand-ins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.client import CallFailed, Frame, connect
from acap_runtime_axis_os.fake import build_fakes
from acap_runtime_larod.fake import FakeLarod
from calls import soon


@pytest.fixture(scope="module")
def larod(tmp_path_factory: pytest.TempPathFactory) -> FakeLarod:
    try:
        return FakeLarod(tmp_path_factory.mktemp("larod"))
    except acap.NotReady as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def device(larod: FakeLarod, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment in which the runtime finds the device."""
    return {**build_fakes(tmp_path_factory.mktemp("axis-os")), **larod.environment}


def test_a_model_on_the_devices_chip_sees_its_camera(
    start_server: Callable[..., Any], device: Mapping[str, str], larod: FakeLarod, tmp_path: Path
) -> None:
    model = larod.write_model(tmp_path / "model", ["input data uint8 nhwc 1,48,64,3", "output out uint8 nhwc 1,1,1,10"])
    server = start_server("-j", "12", "-j", "13", "-m", f"model={model}", environment=device)
    workers = server.workers()
    with connect(server.address) as client:
        assert client.parameter("root.Brand.Brand") == "AXIS"
        with client.stream("nv12", 320, 240, framerate=20) as stream:
            for _ in range(2):
                prediction = client.predict_stream("model", stream)
                assert prediction.outputs["out"].shape == (1, 1, 1, 10)
                assert stream.frame(prediction.reference).array.any()
    assert server.stop() == 0
    for worker in workers:
        assert larod.leaks(worker) == {}


def test_its_streams_have_every_format_and_the_time_of_the_capture(
    start_server: Callable[..., Any], device: Mapping[str, str]
) -> None:
    server = start_server(environment=device)
    with connect(server.address) as client, ExitStack() as streams:

        def first_frame(format_: acap.StreamFormat) -> Frame:
            # All streams stay open, so that the camera's process does.
            return streams.enter_context(client.stream(format_, 300, 200, framerate=20)).frame()

        for format_ in acap.IMAGE_FORMATS:
            frame = first_frame(format_)
            # The stand-in pads such rows, to 320, 960 and 320 bytes.
            rows = frame.array.reshape(-1, 900 if format_ == "rgb-interleaved" else 300).astype(int)
            drawn = rows[0, 0] + 3 * np.arange(rows.shape[0])[:, None] + np.arange(rows.shape[1])
            np.testing.assert_array_equal(rows, drawn % 256)
            assert 0 <= time.time() - frame.timestamp_us / 1e6 < 2
        assert first_frame("h264").type == "h264-idr"
        assert first_frame("h265").type == "h265-idr"
        assert first_frame("jpeg").type == "jpeg"
    assert server.stop() == 0


def test_a_stream_that_vdo_ends_comes_back(start_server: Callable[..., Any], device: Mapping[str, str]) -> None:
    server = start_server(environment={**device, "FAKE_VDO": "get=9,at=5"})
    with connect(server.address) as client, client.stream("nv12", 64, 48, framerate=20) as stream:
        sequence = stream.frame().sequence
        failures = []

        def newer() -> bool:
            try:
                return stream.frame().sequence > sequence + 10
            except CallFailed as error:
                failures.append(str(error))
                return False

        soon(newer, within_s=20)
    assert all("UNAVAILABLE: " in failure and "told to fail in get" in failure for failure in failures), failures
    assert "told to fail in get (code 9)" in server.log
    assert server.stop() == 0
