"""Every chip that larod drives, served over gRPC against the stand-in that acap-runtime-larod ships: no hardware."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import acap_runtime as acap
import grpc
import numpy as np
import pytest
from acap_runtime_larod.fake import FakeLarod, build_fake
from calls import soon

CODE = grpc.StatusCode
INFERENCE = ["4", "6", "8", "12", "a9-dlpu-tflite"]
CONVERSIONS = {
    "9": ("nv12", "rgb-planar", (320, 240), (160, 120)),
    "10": ("nv12", "rgb-interleaved", (320, 240), (320, 240)),
    "13": ("nv12", "rgb-interleaved", (320, 240), (160, 120)),
}
LOST_CONNECTION, POWER_NOT_AVAILABLE, JOB = -6, -15, -1
FEW_BYTES = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)


def grey_nv12(width: int, height: int) -> np.ndarray:
    picture = np.full(acap.Image("nv12", width, height).shape, 126, np.uint8)
    picture[:, height:] = 128
    return picture


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_fake(tmp_path_factory.mktemp("larod"))
    except acap.NotReady as error:
        pytest.skip(str(error))


@pytest.fixture
def larod(library: Path, tmp_path: Path) -> FakeLarod:
    folder = tmp_path / "larod"
    folder.mkdir()
    return FakeLarod(folder, library)


@pytest.fixture
def model(larod: FakeLarod, tmp_path: Path) -> Path:
    return inference_model(larod, tmp_path / "model.larod")


def inference_model(larod: FakeLarod, path: Path) -> Path:
    return larod.write_model(path, ["input data uint8 nhwc 1,4,4,3", "output sums uint8 nhwc 1,4,4,3"])


def conversion_model(chip: str, path: Path) -> Path:
    source, target, size, wanted = CONVERSIONS[chip]
    path.write_text(
        f'image.input.format = "{source}"\nimage.input.size = {list(size)}\n'
        f'image.output.format = "{target}"\nimage.output.size = {list(wanted)}\n'
    )
    return path


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


def test_every_chip_that_larod_drives_is_listed_as_ready(larod: FakeLarod) -> None:
    command = [Path(sys.executable).with_name("acapruntime"), "chips", "--json", *INFERENCE, *CONVERSIONS]
    environment = {**os.environ, **larod.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    rows = json.loads(done.stdout)
    assert [str(row["id"] or row["name"]) for row in rows] == [*INFERENCE, *CONVERSIONS]
    assert {row["name"]: row["reason"] for row in rows if not row["ready"]} == {}
    assert done.returncode == 0


@pytest.mark.parametrize("chip", [*INFERENCE, *CONVERSIONS])
def test_a_chip_loads_runs_fails_works_again_and_unloads(serve, larod: FakeLarod, tmp_path: Path, chip: str) -> None:
    paths = [tmp_path / f"model{number}" for number in range(3)]
    for path in paths:
        conversion_model(chip, path) if chip in CONVERSIONS else inference_model(larod, path)
    server = serve("-j", chip, "-m", f"model={paths[0]}", "--on-demand-models", "1")
    picture = grey_nv12(*CONVERSIONS[chip][2]) if chip in CONVERSIONS else FEW_BYTES
    with server.client() as client:

        def run(name: str = "model", picture: np.ndarray = picture) -> np.ndarray:
            (output,) = client.predict(name, {"data": picture}).values()
            return output

        first = run()
        if chip in CONVERSIONS:
            assert first.shape == acap.Image(CONVERSIONS[chip][1], *CONVERSIONS[chip][3]).shape
            assert abs(first.astype(int) - 128).max() <= 2
        assert (run(picture=picture // 2) != first).any()

        # In mid-run, as far as a client can tell: the job has begun when it is lost.
        larod.tell("delay-ms", 50)
        larod.tell("job-errors", LOST_CONNECTION)
        assert status_of(client, "model", picture) is CODE.UNAVAILABLE
        assert (run() == first).all()
        larod.forget("delay-ms")

        larod.tell("job-errors", POWER_NOT_AVAILABLE)
        started = time.monotonic()
        assert (run() == first).all()
        assert time.monotonic() - started > 0.04  # it was tried again after a while

        larod.tell("job-errors", JOB)
        assert status_of(client, "model", picture) is CODE.INTERNAL
        assert (run() == first).all()

        # A file takes the place of another, which is unloaded: the service has two models all the while.
        (worker,) = server.workers()
        for path in (*paths[1:], paths[1]):
            assert (run(str(path)) == first).all()
            soon(lambda: larod.counts(worker)["models-in-service"] == 2)
        assert {name: larod.counts(worker)[name] for name in ("connections", "models", "jobs")} == {
            "connections": 2,
            "models": 2,
            "jobs": 2,
        }
    assert server.stop() == 0


def test_a_model_gets_its_share_of_a_chip_beside_one_that_many_clients_flood(
    serve, larod: FakeLarod, model: Path, tmp_path: Path
) -> None:
    quiet = inference_model(larod, tmp_path / "quiet")
    server = serve("-j", "12", "-m", f"flooded={model}", "-m", f"quiet={quiet}", "--queue", "4")
    larod.tell("delay-ms", 20)
    answers = {"flooded": Counter(), "quiet": Counter()}
    with server.client() as client, ThreadPoolExecutor(9) as threads:

        def keep_running(name: str) -> None:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                status = status_of(client, name, FEW_BYTES)
                answers[name][status] += 1
                if status is not CODE.OK:
                    time.sleep(0.01)

        for each in [threads.submit(keep_running, name) for name in ("quiet", *["flooded"] * 8)]:
            each.result()
    assert server.stop() == 0
    assert set(answers["flooded"]) == {CODE.OK, CODE.RESOURCE_EXHAUSTED}  # the chip's queue was full
    assert set(answers["quiet"]) == {CODE.OK}
    # As often, but for the time that its only client takes between an answer and the next call.
    assert answers["quiet"][CODE.OK] > answers["flooded"][CODE.OK] / 3, answers


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
