"""The contract passes a chip that runs models only if it is right: each fault here must make one of its checks fail."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime.testing.inference import InferenceContract

PLUGIN = """
import atexit, os, subprocess

import acap_runtime as acap
import numpy as np

SERVED = os.environ["DIRECT"] != str(os.getpid())
TOP

class Model(acap.Model):
    inputs = (acap.TensorSpec("data/in", np.dtype("uint8"), (1, -1)),)
    outputs = (acap.TensorSpec("data/out", np.dtype("uint8"), (1, -1)),)

    def __init__(self, step):
        self.step = step

    def run(self, inputs):
        outputs = {"data/out": inputs["data/in"] + self.step}
        if SERVED:
            RUN
        return outputs

class Chip(acap.InferenceBackend):
    chip_id, name, options = None, "stepper", {"step-size": "what is added"}

    def probe(self):
        if SERVED:
            PROBE

    def load(self, path, options):
        return Model(np.uint8(options["step-size"]))

@acap.hookimpl
def acap_runtime_backends():
    return [Chip()]
"""

INPUTS = {"data/in": np.array([[1, 2, 250]], np.uint8)}


class Contract(InferenceContract):
    reload_rounds = run_rounds = least_rounds = 30
    leak_seconds = 0.0
    served_within = 30.0


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Contract]:
    """Installs a plugin with a fault, runs the check that has it served, and gives the contract that did."""

    def check(**faults: str) -> Contract:
        source = PLUGIN
        for name in ("TOP", "RUN", "PROBE"):
            source = source.replace(name, faults.get(name.lower(), "pass"))
        (tmp_path / "stepper.py").write_text(source)
        metadata = tmp_path / "stepper-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stepper\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[acap_runtime]\nstepper = stepper\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setenv("DIRECT", str(os.getpid()))
        backend = imported(tmp_path / "stepper.py").Chip()
        path, options = tmp_path / "some.model", {"step-size": "5"}
        path.touch()
        contract = Contract()
        model = backend.load(path, options)
        contract.test_predict_over_a_socket_gives_what_a_direct_run_does(backend, model, path, options, INPUTS)
        return contract

    return check


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_right_chip_passes_when_it_is_served(served: Callable[..., Contract]) -> None:
    assert served().proven == {"models served": (1, 1)}


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"run": "outputs['data/out'] = outputs['data/out'] + 1"}, "(?s)output data/out.*Mismatched elements: 3 / 3"),
        ({"run": "raise acap.DeviceError('the cable is loose')"}, "Predict, INTERNAL: .*the cable is loose"),
        ({"run": "subprocess.Popen(['sleep', '60'], start_new_session=True)"}, r"left processes behind: .*sleep 60"),
        ({"probe": "raise acap.NotReady('no driver')"}, "(?s)the server ends by itself with exit code 1.*no driver"),
        ({"top": "SERVED and atexit.register(os._exit, 3)"}, "exit code 3 at SIGTERM: expected 0"),
    ],
    ids=["answer", "error", "process", "probe", "exit code"],
)
def test_a_chip_that_fails_when_it_is_served(
    served: Callable[..., Contract], faults: dict[str, str], message: str
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        served(**faults)


class Leaking(acap.Model):
    """A right model, and what it keeps when it is run, or closed."""

    inputs = outputs = (acap.TensorSpec("data/in", np.dtype("uint8"), (1, 3)),)

    def __init__(self, keep: Callable[[], Any], at: str) -> None:
        self.keep = keep
        self.at = at

    def run(self, inputs: Mapping[str, acap.Array]) -> Mapping[str, acap.Array]:
        if self.at == "run":
            self.keep()
        return inputs

    def close(self) -> None:
        if self.at == "close":
            self.keep()


class LeakingChip(acap.InferenceBackend):
    chip_id, name = None, "leaking"

    def __init__(self, keep: Callable[[], Any], at: str) -> None:
        self.keep = keep
        self.at = at

    def probe(self) -> None:
        pass

    def load(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        return Leaking(self.keep, self.at)


class Kept:
    """What is leaked in a test, and given back after it."""

    def __init__(self) -> None:
        self.end = threading.Event()
        self.threads: list[threading.Thread] = []
        self.files: list[int] = []
        self.names: list[Path] = []
        self.memory: list[bytes] = []

    def thread(self) -> None:
        self.threads.append(threading.Thread(target=self.end.wait))
        self.threads[-1].start()

    def file(self) -> None:
        self.files.append(os.open(os.devnull, os.O_RDONLY))

    def shared(self) -> None:
        self.names.append(Path(f"/dev/shm/acap-test-contract-{os.getpid()}-{len(self.names)}"))
        self.names[-1].touch()

    def bytes(self) -> None:
        self.memory.append(b"x" * 2**20)


@pytest.fixture
def kept() -> Iterator[Kept]:
    kept = Kept()
    yield kept
    kept.end.set()
    for thread in kept.threads:
        thread.join()
    for file in kept.files:
        os.close(file)
    for name in kept.names:
        name.unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("thread", "30 loads leave 30 threads running"),
        ("file", "30 loads leave 30 files open"),
        ("shared", r"30 loads leave \d+ names in /dev/shm, such as "),
        ("bytes", r"30 loads grew the process by \d+\.\d MiB: expected at most 16"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_what_a_load_leaves_behind(kept: Kept, what: str, message: str) -> None:
    chip = LeakingChip(getattr(kept, what), "close")
    Contract().test_running_gives_everything_back(chip.load(Path(), {}), INPUTS)
    with pytest.raises(AssertionError, match=message):
        Contract().test_closing_gives_everything_back(chip, Path(), {}, INPUTS)


@pytest.mark.usefixtures("impatient")
def test_what_a_run_leaves_behind(kept: Kept) -> None:
    model = LeakingChip(kept.file, "run").load(Path(), {})
    with pytest.raises(AssertionError, match="30 runs leave 30 files open"):
        Contract().test_running_gives_everything_back(model, INPUTS)


def test_what_does_not_fit_into_the_time_is_not_counted() -> None:
    class Hasty(Contract):
        run_rounds = 10**9
        leak_seconds = 0.05

    contract = Hasty()
    contract.test_running_gives_everything_back(Leaking(lambda: None, "run"), INPUTS)
    (done, wanted) = contract.proven["runs"]
    assert 30 <= done < wanted == 10**9


def test_pytest_pays_nothing_for_the_kit_where_it_is_not_used() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import acap_runtime_pytest; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["acap_runtime_pytest"]
