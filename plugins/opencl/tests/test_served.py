"""The chip as its users see it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.client import CallFailed, Client, connect
from acap_runtime.testing.backend import require
from acap_runtime.testing.pictures import waves
from acap_runtime.testing.processing import Tolerance
from acap_runtime.testing.reference import Reference
from acap_runtime_opencl import OpenClBackend

COMMAND = Path(sys.executable).with_name("acapruntime")
LOADED = acap.Conversion(acap.Image("nv12", 320, 240), acap.Image("rgb-planar", 64, 48))
OTHERS = [
    acap.Conversion(acap.Image("rgb-interleaved", 320, 240), acap.Image("nv12", 64, 48)),
    acap.Conversion(acap.Image("rgb-planar", 64, 48), acap.Image("rgb-interleaved", 31, 23), acap.Crop(10, 4, 40, 40)),
]


def parameters(conversion: acap.Conversion) -> str:
    """A conversion as a model file has it."""
    came, wanted, crop = conversion.input, conversion.output, conversion.crop
    return (
        f'image.input.format = "{came.format}"\nimage.input.size = [{came.width}, {came.height}]\n'
        f'image.output.format = "{wanted.format}"\nimage.output.size = [{wanted.width}, {wanted.height}]\n'
    ) + (f"image.input.crop = [{crop.x}, {crop.y}, {crop.width}, {crop.height}]\n" if crop else "")


@dataclass
class Server:
    folder: Path
    client: Client

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    @property
    def worker(self) -> int:
        """The newest worker's process."""
        return int(re.findall(r"worker of chip 13 .* process (\d+)", self.log)[-1])

    def converts(self, conversion: acap.Conversion, model: str) -> None:
        picture = waves(conversion.input, 120)
        (result,) = self.client.predict(model, {"input": picture}).values()
        Tolerance(mean=1, peak=1).check(result, Reference()(picture, conversion))

    def wait_for_log(self, text: str) -> None:
        until = time.monotonic() + 20
        while text not in self.log:
            assert time.monotonic() < until, self.log
            time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_larod(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about pyopencl, wherever they run."""
    monkeypatch.setenv("ACAPRUNTIME_LIBLAROD", "liblarod.so.none")


@pytest.fixture
def server(no_larod: None, tmp_path: Path) -> Iterator[Server]:
    """A server that has one conversion and may have one more at a time."""
    require(OpenClBackend())
    model = tmp_path / "loaded.toml"
    model.write_text(parameters(LOADED))
    words = ["--socket", tmp_path / "s", "-j", "13", "-m", f"loaded={model}", "--on-demand-models", "1"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen([COMMAND, *words], stdout=log, stderr=log)
    try:
        with connect(f"unix://{tmp_path}/s") as client:
            yield Server(tmp_path, client)
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_the_list_of_chips_says_that_it_is_ready_or_the_reasons_why_not(tmp_path: Path) -> None:
    def row(**environment: str) -> dict[str, object]:
        command = [COMMAND, "chips", "--json", "13"]
        known = {**os.environ, **environment}
        done = subprocess.run(command, env=known, capture_output=True, text=True, check=False, timeout=60)
        (found,) = json.loads(done.stdout)
        return found

    without = row(OCL_ICD_VENDORS=str(tmp_path), OCL_ICD_FILENAMES="")
    assert not without["ready"]
    assert re.search("no OpenCL device: by pyopencl: .* install the driver .*; by larod: ", str(without["reason"]))
    require(OpenClBackend())
    assert row()["ready"]


def test_it_converts_lets_go_of_what_is_unloaded_and_works_again_after_a_crash(server: Server, tmp_path: Path) -> None:
    server.converts(LOADED, "loaded")
    for number, conversion in enumerate(OTHERS):
        path = tmp_path / f"other{number}.toml"
        path.write_text(parameters(conversion))
        server.converts(conversion, str(path))
    server.wait_for_log("other0.toml unloaded")

    crashed = server.worker
    os.kill(crashed, signal.SIGSTOP)  # so that the call is in mid-run when the worker dies, as of its driver
    with ThreadPoolExecutor(1) as thread:
        zeros = np.zeros(LOADED.input.shape, np.uint8)
        call = thread.submit(server.client.predict, "loaded", {"input": zeros})
        time.sleep(0.3)
        os.kill(crashed, signal.SIGKILL)
        with pytest.raises(CallFailed, match=r"UNAVAILABLE: .*worker of chip 13 \(axis-a8-gpu-proc\)"):
            call.result()
    server.converts(LOADED, "loaded")
    assert server.worker != crashed
    assert "was killed by SIGKILL" in server.log


def test_a_file_that_is_no_conversion_is_the_clients_mistake(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    large = acap.Conversion(acap.Image("rgb-planar", 20000, 1), acap.Image("rgb-planar", 8, 8))
    path.write_text(parameters(large))
    with pytest.raises(CallFailed, match=r"INVALID_ARGUMENT: .*at most 16384 pixels a side"):
        server.client.predict(str(path), {"input": np.zeros(large.input.shape, np.uint8)})
    server.converts(LOADED, "loaded")
