import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_debug import DebugBackend
from acap_runtime_debug.faults import FAULTS

IN_A_PROCESS_OF_ITS_OWN = """
import sys, threading, time
from pathlib import Path
import numpy as np
from acap_runtime_debug import DebugBackend

def tick():
    time.sleep(0.2)
    print("other threads run", flush=True)
    time.sleep(0.2)
    print("still not back", flush=True)

threading.Thread(target=tick).start()
model = DebugBackend().load(Path(sys.argv[1]), {})
print("loaded", flush=True)
model.run({"data": np.zeros(1, np.uint8)})
"""


@pytest.fixture
def load(tmp_path: Path):
    def write_and_load(content: str, **options: str) -> acap.Model:
        path = tmp_path / "model.toml"
        path.write_text(content)
        return DebugBackend().load(path, options)

    return write_and_load


def data(*values: int) -> dict[str, acap.Array]:
    return {"data": np.array(values, np.uint8)}


def test_an_option_goes_before_the_file(load):
    model = load('fail = "load"\nbig_output = 10', fail="run", big_output="20")
    assert model.outputs[1].shape == (20,)
    with pytest.raises(acap.DeviceError):
        model.run(data(1))


def test_a_big_output_needs_its_name(load):
    with pytest.raises(acap.InvalidRequest, match="'big'"):
        load('inputs = [{name = "big"}]\nbig_output = 1')


@pytest.mark.parametrize(("knob", "error"), [("fail", acap.DeviceError), ("raise", RuntimeError)])
def test_errors_come_at_the_stage_that_was_asked_for(load, knob, error):
    with pytest.raises(error, match=r"debug .* was told to"):
        load(f'{knob} = "load"')
    model = load(f'{knob} = "run"')
    with pytest.raises(error, match=r"debug .* was told to"):
        model.run(data(1))


def test_a_trigger_spares_other_requests(load):
    model = load('fail = "run"\ndelay = 60\nwrong_output = "name"\ntrigger = 7')
    assert list(model.run(data(1, 7))) == ["data"]
    assert list(model.run(data())) == ["data"]
    model = load('fail = "run"\ntrigger = 7')
    with pytest.raises(acap.DeviceError):
        model.run(data(7, 1))


def test_a_trigger_is_a_byte_of_any_dtype(load):
    model = load('inputs = [{name = "a", dtype = "int32", shape = []}]\nfail = "run"\ntrigger = 1')
    model.run({"a": np.array(256, "<i4")})
    with pytest.raises(acap.DeviceError):
        model.run({"a": np.array(257, "<i4")})


def test_delays_let_other_threads_run(load):
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.01):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.monotonic()
    load("load_delay = 0.2\ndelay = 0.2").run(data(1))
    took = time.monotonic() - started
    done.set()
    thread.join()
    assert 0.4 <= took < 10
    assert len(ticks) > 5


def test_a_wrong_output_differs_in_what_was_asked_for(load):
    assert set(load('wrong_output = "name"').run(data(1))) == {"not data"}
    assert load('wrong_output = "dtype"').run(data(1))["data"].dtype == np.int16
    assert load('wrong_output = "shape"').run(data(1))["data"].shape == (1, 1)
    other = load('inputs = [{name = "data", dtype = "float32"}]\nwrong_output = "dtype"')
    assert other.run({"data": np.ones(2, np.float32)})["data"].dtype == np.uint8


@pytest.mark.parametrize("stage", ["load", "run"])
@pytest.mark.parametrize(("knob", "status"), [("crash", -signal.SIGSEGV), ("exit", 3)])
def test_the_process_ends_at_the_stage_that_was_asked_for(tmp_path, knob, status, stage):
    with _started(tmp_path, knob, stage) as process:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == status
        assert ("loaded" in output) == (stage == "run")


@pytest.mark.parametrize("stage", ["load", "run"])
def test_a_hang_leaves_other_threads_alone(tmp_path, stage):
    with _started(tmp_path, "hang", stage) as process:
        lines = [process.stdout.readline().strip() for _ in range(3 if stage == "run" else 2)]
        process.kill()
        assert lines[-2:] == ["other threads run", "still not back"]


@pytest.mark.parametrize("stage", ["load", "run"])
def test_a_freeze_stops_every_thread(tmp_path, stage):
    with _started(tmp_path, "freeze", stage) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.kill()
        assert "still not back" not in process.stdout.read()


def test_every_fault_is_an_option():
    assert FAULTS.keys() <= DebugBackend.options.keys()


def _started(tmp_path: Path, knob: str, stage: str) -> subprocess.Popen[str]:
    path = tmp_path / "model.toml"
    path.write_text(f'{knob} = "{stage}"')
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
