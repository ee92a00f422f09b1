"""Every chip that larod drives, served over gRPC against the stand-in that acap-runtime-larod ships: no hardware."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from acap_runtime import NotReady
from acap_runtime_larod.fake import FakeLarod, build_fake

CODE = grpc.StatusCode
INFERENCE = ["4", "6", "8", "12", "a9-dlpu-tflite"]
CONVERSIONS = {
    "9": ("nv12", "rgb-planar", (320, 240), (160, 120)),
    "10": ("nv12", "rgb-interleaved", (320, 240), (320, 240)),
    "13": ("nv12", "rgb-interleaved", (320, 240), (160, 120)),
}
LOST_CONNECTION, POWER_NOT_AVAILABLE, JOB = -6, -15, -1


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_fake(tmp_path_factory.mktemp("larod"))
    except NotReady as error:
        pytest.skip(str(error))


@pytest.fixture
def larod(library: Path, tmp_path: Path) -> FakeLarod:
    folder = tmp_path / "larod"
    folder.mkdir()
    return FakeLarod(folder, library)


@pytest.fixture
def model(larod: FakeLarod, tmp_path: Path) -> Path:
    tensors = ["input data uint8 nhwc 1,4,4,3", "output sums uint8 nhwc 1,4,4,3"]
    return larod.write_model(tmp_path / "model.larod", tensors)


@pytest.fixture
def serve(start_server: Callable[..., Any], larod: FakeLarod) -> Iterator[Callable[..., Any]]:
    """Starts servers that find the stand-in; when they have stopped, every create must have had its destroy."""
    workers: list[int] = []

    def start(*arguments: object) -> Any:
        server = start_server(*arguments, environment=larod.environment)
        workers.extend(server.workers())
        return server

    yield start
    for worker in workers:
        assert larod.leaks(worker) == {}


def status_of(client: Any, name: str, picture: np.ndarray) -> grpc.StatusCode:
    try:
        client.predict(name, {"data": picture})
    except grpc.RpcError as error:
        return error.code()
    return CODE.OK


@pytest.mark.parametrize("chip", INFERENCE)
def test_a_chip_loads_runs_loses_its_connection_and_works_again(
    serve, larod: FakeLarod, model: Path, chip: str
) -> None:
    server = serve("-j", chip, "-m", f"model={model}")
    picture = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    with server.client() as client:
        first = client.predict("model", {"data": picture})["sums"]
        assert first.shape == (1, 4, 4, 3)
        assert (client.predict("model", {"data": picture + 1})["sums"] != first).any()

        larod.tell("job-errors", LOST_CONNECTION)
        assert status_of(client, "model", picture) is CODE.UNAVAILABLE
        larod.forget("job-errors")
        assert (client.predict("model", {"data": picture})["sums"] == first).all()

        larod.tell("job-errors", POWER_NOT_AVAILABLE)
        started = time.monotonic()
        assert (client.predict("model", {"data": picture})["sums"] == first).all()
        assert time.monotonic() - started > 0.04  # it was tried again after a while

        larod.tell("job-errors", JOB)
        assert status_of(client, "model", picture) is CODE.INTERNAL
        larod.forget("job-errors")
        assert (client.predict("model", {"data": picture})["sums"] == first).all()
    assert server.stop() == 0


@pytest.mark.parametrize("chip", CONVERSIONS)
def test_a_processing_chip_serves_its_conversion(serve, tmp_path: Path, chip: str) -> None:
    source, target, size, wanted = CONVERSIONS[chip]
    path = tmp_path / "conversion.toml"
    path.write_text(
        f'image.input.format = "{source}"\nimage.input.size = {list(size)}\n'
        f'image.output.format = "{target}"\nimage.output.size = {list(wanted)}\n'
    )
    server = serve("-j", chip, "-m", f"conversion={path}")
    grey = np.full((1, size[1] * 3 // 2, size[0]), 126, np.uint8)
    grey[:, size[1] :] = 128
    with server.client() as client:
        (picture,) = client.predict("conversion", {"data": grey}).values()
    assert picture.shape == ((1, 3, *wanted[::-1]) if target == "rgb-planar" else (1, *wanted[::-1], 3))
    assert abs(picture.astype(int) - 128).max() <= 2
    assert server.stop() == 0


def test_a_file_that_is_no_model_is_the_clients_mistake(serve, tmp_path: Path) -> None:
    path = tmp_path / "text.larod"
    path.write_text("no model")
    server = serve("-j", "12")
    with server.client() as client:
        assert status_of(client, str(path), np.zeros(1, np.uint8)) is CODE.INVALID_ARGUMENT
    assert server.stop() == 0


def test_a_converter_that_cannot_scale_is_not_chosen_to(serve, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chip 10 is ready and does other conversions; who asks for this one is told so, and what to install."""
    monkeypatch.setenv("ACAPRUNTIME_BLOCK", "libyuv opencl cvflow")
    server = serve("-j", "12", "-m", f"model={model}")
    with server.client() as client, pytest.raises(grpc.RpcError) as caught:
        client.predict("model", {"data": np.zeros((1, 8, 8, 3), np.uint8)})
    assert server.stop() == 0
    assert caught.value.code() is CODE.FAILED_PRECONDITION
    assert "chip 10 (axis-a8-ace-proc) does not convert rgb-interleaved 8x8" in caught.value.details()


@pytest.mark.parametrize("chip", [*INFERENCE, "9", "10"])
def test_without_larod_the_start_fails_with_the_reason(chip: str, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("acapruntime"), "-j", chip, "--socket", tmp_path / "s.sock"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 1
    assert "liblarod.so.1" in done.stderr
    assert "is not ready" in done.stderr
