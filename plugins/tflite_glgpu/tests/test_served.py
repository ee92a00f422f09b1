"""The chip as its users see it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from acap_runtime.client import CallFailed, Client, connect

COMMAND = Path(sys.executable).with_name("acapruntime")


@contextlib.contextmanager
def serving(folder: Path, *arguments: object) -> Iterator[Client]:
    words = [str(word) for word in ("--socket", folder / "s", "-j", "8", *arguments)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([COMMAND, *words], stdout=log, stderr=log)
    try:
        with connect(f"unix://{folder}/s") as client:
            yield client
    finally:
        process.terminate()
        assert process.wait(20) == 0


def scores_of(client: Client, model: Path) -> np.ndarray:
    picture = np.random.default_rng(3).integers(0, 256, (1, 128, 128, 3), np.uint8)
    (scores,) = client.predict(str(model), {"input": picture}).values()
    return scores


def chip_row() -> dict[str, object]:
    done = subprocess.run([COMMAND, "chips", "--json", "8"], capture_output=True, text=True, check=False, timeout=60)
    (row,) = json.loads(done.stdout)
    assert done.returncode == (not row["ready"])
    return row


@pytest.mark.usefixtures("software_gpu")
def test_the_list_of_chips_says_that_it_is_ready():
    assert chip_row()["ready"]


@pytest.mark.usefixtures("software_gpu", "no_gpu")
def test_the_list_of_chips_has_the_reason_why_not():
    row = chip_row()
    assert not row["ready"]
    assert "not by LiteRT: no GPU found" in row["reason"]
    assert "not by larod: " in row["reason"]


@pytest.mark.usefixtures("software_gpu", "no_gpu")
def test_a_server_does_not_start_on_the_cpu_instead(models, tmp_path):
    command = [COMMAND, "--socket", tmp_path / "s", "-j", "8", "-m", models / "mobilenet_v1_0.25_128_quant.tflite"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "not by LiteRT: no GPU found" in done.stderr


@pytest.mark.usefixtures("software_gpu")
def test_it_runs_lets_go_of_what_is_unloaded_and_works_again_after_a_crash(models, tmp_path):
    model = models / "mobilenet_v1_0.25_128_quant.tflite"
    others = [tmp_path / f"other{number}.tflite" for number in range(2)]
    for other in others:
        other.write_bytes(model.read_bytes())
    log = tmp_path / "server.log"
    with serving(tmp_path, "-m", model, "--on-demand-models", "1") as client:
        first = scores_of(client, model)
        assert (first.shape, first.dtype) == ((1, 1001), np.uint8)
        for other in others:
            assert (scores_of(client, other) == first).all()
        until = time.monotonic() + 20
        while "other0.tflite unloaded" not in log.read_text():
            assert time.monotonic() < until
            time.sleep(0.02)

        worker = int(re.findall(r"worker of chip 8 .* process (\d+)", log.read_text())[-1])
        os.kill(worker, signal.SIGSTOP)  # so that the call is in mid-run when the worker dies, as of its driver
        with ThreadPoolExecutor(1) as thread:
            call = thread.submit(scores_of, client, model)
            time.sleep(0.3)
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(CallFailed, match=r"UNAVAILABLE: .*worker of chip 8 \(gpu-tflite\)"):
                call.result()
        assert (scores_of(client, model) == first).all()
    assert "GPU: SwiftShader" in log.read_text()
