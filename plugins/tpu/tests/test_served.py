"""The chip behind the server: what its users see, above all when the driver crashes."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from acap_runtime.client import CallFailed, connect

COMMAND = Path(sys.executable).with_name("acapruntime")


def chip_row() -> dict[str, object]:
    done = subprocess.run([COMMAND, "chips", "--json", "4"], capture_output=True, text=True, check=False, timeout=60)
    (row,) = json.loads(done.stdout)
    assert done.returncode == (not row["ready"])
    return row


@contextlib.contextmanager
def serving(folder: Path, *arguments: object) -> Iterator[str]:
    address = f"{folder}/acap.sock"
    command = [str(word) for word in (COMMAND, "--socket", address, "-j", "4", *arguments)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"unix://{address}"
    finally:
        process.terminate()
        process.wait(20)


def predict(address: str, model: Path, times: int = 1) -> list[str]:
    """What a client is told: the values of the scores, or the error."""
    answers = []
    with connect(address) as client:
        for _ in range(times):
            try:
                outputs = client.predict(str(model), {"input": np.full((1, 224, 224, 3), 9, np.uint8)})
            except CallFailed as error:
                answers.append(str(error))
            else:
                (scores,) = outputs.values()
                answers.append(str(set(scores.ravel().tolist())))
    return answers


def test_the_list_of_chips_says_that_it_is_ready(edgetpu):
    edgetpu()
    assert chip_row()["ready"]


def test_the_list_of_chips_has_the_reason_that_libedgetpu_does_not_give(edgetpu):
    edgetpu(devices="")
    row = chip_row()
    assert not row["ready"]
    assert "not by libedgetpu" in row["reason"]
    assert "is one plugged in" in row["reason"]
    assert "not by larod" in row["reason"]


def test_a_library_that_crashes_when_it_is_opened_is_a_row_like_any_other(edgetpu):
    edgetpu(fault="create")
    row = chip_row()
    assert not row["ready"]
    assert row["reason"] == (
        "chip 4 (google-edge-tpu-tflite) is not ready: its worker was killed by SIGSEGV during the probe"
    )


def test_a_client_gets_what_the_chip_computes(edgetpu, compiled, tmp_path):
    edgetpu()
    with serving(tmp_path, "-m", compiled) as address:
        assert predict(address, compiled) == ["{9}"]


@pytest.mark.parametrize("fault", ["abi", "invoke"])
def test_a_crash_fails_the_call_and_the_server_lives_on(edgetpu, compiled, tmp_path, fault):
    edgetpu(fault=fault)
    with serving(tmp_path) as address:
        answers = predict(address, compiled, times=2)
    # How it ended is not always known yet when the call fails; that the worker did is.
    assert all(answer.startswith("Predict, UNAVAILABLE: ") for answer in answers), answers
    assert "worker of chip 4 (google-edge-tpu-tflite)" in answers[0]
    assert "was killed by SIGSEGV" in (tmp_path / "server.log").read_text()


def test_after_a_crash_in_mid_run_it_works_again(edgetpu, compiled, tmp_path):
    told = tmp_path / "fault"
    told.touch()
    log = edgetpu(fault=str(told))
    with serving(tmp_path, "-m", compiled) as address:
        assert predict(address, compiled) == ["{9}"]
        for word, status in (("invoke", "UNAVAILABLE"), ("unplugged", "INTERNAL")):
            told.write_text(word)
            (answer,) = predict(address, compiled)
            assert answer.startswith(f"Predict, {status}: ")
            told.write_text("")
            assert predict(address, compiled) == ["{9}"]
    said = (tmp_path / "server.log").read_text()
    assert said.count("was killed by SIGSEGV") == 1
    words = log.read_text().split()
    # Each worker probes and loads; the one that crashed gives nothing back.
    assert (words.count("create"), words.count("destroy")) == (4, 3)


def test_a_model_that_makes_room_for_another_lets_go_of_the_device(edgetpu, compiled, tmp_path):
    log = edgetpu()
    other = tmp_path / "other.tflite"
    other.write_bytes(compiled.read_bytes())
    with serving(tmp_path, "--on-demand-models", "1") as address:
        for model in (compiled, other, compiled):
            assert predict(address, model) == ["{9}"]
        until = time.monotonic() + 10
        while (words := log.read_text().split()).count("create") - words.count("destroy") != 1:
            assert time.monotonic() < until, words
            time.sleep(0.02)
        assert words.count("create") == 4, "once to probe, three times to load"
