"""Which GPU is taken, and what is said where none is."""

import stat
import sys
from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_tflite_glgpu import adapter
from acap_runtime_tflite_glgpu.trial import MODEL


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Put a shell script in the place of the trial's process."""

    def be(script: str) -> None:
        path = tmp_path / "trial"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(path))

    return be


def test_the_trials_model_adds():
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(model_content=MODEL.read_bytes())
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], np.arange(4, dtype=np.float32)[np.newaxis])
    interpreter.invoke()
    (details,) = interpreter.get_output_details()
    assert interpreter.get_tensor(details["index"]).tolist() == [[0, 2, 4, 6]]


@pytest.mark.usefixtures("software_gpu")
def test_a_gpu_that_adds_is_taken(caplog):
    caplog.set_level("INFO")
    adapter.find_adapter()
    assert "GPU: SwiftShader" in caplog.text


@pytest.mark.usefixtures("software_gpu")
@pytest.mark.parametrize("allowed", ["", "no"])
def test_a_driver_that_computes_on_the_cpu_is_no_gpu(monkeypatch, allowed):
    monkeypatch.setenv("ACAPRUNTIME_ALLOW_SOFTWARE_GPU", allowed)
    with pytest.raises(acap.NotReady, match=r"no GPU found, only SwiftShader.*computes on the CPU, .* -j 2"):
        adapter.find_adapter()


@pytest.mark.usefixtures("software_gpu", "no_gpu")
def test_no_adapter_is_a_reason_with_what_to_do():
    pytest.importorskip("ai_edge_litert", reason="there is no LiteRT here")
    with pytest.raises(acap.NotReady, match=r"no GPU found; .*no drivers.*: install the GPU's Vulkan driver .* -j 2"):
        adapter.find_adapter()


def test_a_driver_that_crashes_is_a_reason(trial):
    trial('echo "I0000 environment.cc:532] Selected adapter: Some GPU, adapterType=discrete GPU" >&2; kill -SEGV $$')
    with pytest.raises(acap.NotReady, match=r"^Some GPU crashes \(SIGSEGV\) when it is tried: install"):
        adapter.find_adapter()


def test_a_driver_that_crashes_before_it_has_a_name_is_a_reason(trial):
    trial("kill -ABRT $$")
    with pytest.raises(acap.NotReady, match=r"^the GPU driver crashes \(SIGABRT\)"):
        adapter.find_adapter()


def test_a_driver_that_hangs_is_a_reason(trial, monkeypatch):
    monkeypatch.setattr(adapter, "_TRIAL_TIME_S", 0.5)
    trial("exec sleep 60")
    with pytest.raises(acap.NotReady, match=r"the GPU did not answer within 0\.5 s"):
        adapter.find_adapter()


def test_a_gpu_that_computes_nonsense_is_a_reason(trial):
    trial('echo "[0. 1.] + [0. 1.] gave [7. 7.]" >&2; exit 1')
    with pytest.raises(acap.NotReady, match=r"a trial of the GPU failed: \[0\. 1\.\] \+ \[0\. 1\.\] gave \[7\. 7\.\]"):
        adapter.find_adapter()


def test_a_gpu_that_litert_does_not_name_is_taken(trial):
    trial("exit 0")
    adapter.find_adapter()


def test_no_litert_is_a_reason_with_what_to_install(monkeypatch, tmp_path):
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(acap.NotReady, match=r"a trial of the GPU failed: LiteRT cannot be used here: .*pip install"):
        adapter.find_adapter()
