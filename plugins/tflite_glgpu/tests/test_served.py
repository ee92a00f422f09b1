"""The chip as its users see it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PREDICT = """
import sys
import numpy as np
from acap_runtime.client import connect

with connect(sys.argv[1]) as client:
    (scores,) = client.predict(sys.argv[2], {"input": np.zeros((1, 128, 128, 3), np.uint8)}).values()
    print(scores.shape, scores.dtype)
"""

COMMAND = Path(sys.executable).with_name("acapruntime")


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
def test_a_client_gets_what_the_gpu_computes(models, tmp_path):
    model = models / "mobilenet_v1_0.25_128_quant.tflite"
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen([COMMAND, "--socket", tmp_path / "s", "-j", "8", "-m", model], stdout=log, stderr=log)
    try:
        client = [sys.executable, "-c", PREDICT, f"unix://{tmp_path}/s", model]
        done = subprocess.run(client, capture_output=True, text=True, check=False, timeout=90)
    finally:
        server.terminate()
        server.wait(20)
    assert done.stdout == "(1, 1001) uint8\n", done.stderr
    assert "GPU: SwiftShader" in (tmp_path / "server.log").read_text()
