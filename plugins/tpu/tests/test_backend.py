import sys

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_tpu import TpuBackend

pytestmark = pytest.mark.usefixtures("no_edgetpu")


class LarodsModel(acap.Model):
    inputs = outputs = (acap.TensorSpec("x", np.dtype("uint8"), (1,)),)

    def run(self, inputs):
        return inputs


@pytest.fixture
def backend() -> TpuBackend:
    return TpuBackend()


@pytest.fixture
def zeros():
    return np.zeros((1, 224, 224, 3), np.uint8)


def test_the_chip_is_ready_where_a_device_is_plugged_in(backend, edgetpu):
    log = edgetpu()
    backend.probe()
    assert log.read_text() == "create\ndestroy\n"


def test_a_missing_library_is_named_with_what_to_install(backend, larod):
    larod(reason="no larod here")
    reason = r"not by libedgetpu: libedgetpu\.so\.none: cannot .*install libedgetpu 1.*; not by larod: no larod here"
    with pytest.raises(acap.NotReady, match=reason):
        backend.probe()


def test_another_library_is_not_taken_for_it(backend, larod, monkeypatch):
    larod()
    monkeypatch.setenv("ACAPRUNTIME_LIBEDGETPU", "libc.so.6")
    with pytest.raises(acap.NotReady, match=r"libc\.so\.6 lacks tflite_plugin_create_delegate; install libedgetpu 1"):
        backend.probe()


def test_without_the_variable_the_dynamic_linker_finds_the_library(backend, larod, monkeypatch):
    larod()
    monkeypatch.setenv("ACAPRUNTIME_LIBEDGETPU", "")
    monkeypatch.setattr("ctypes.CDLL", pytest.fail)
    with pytest.raises(pytest.fail.Exception, match=r"^libedgetpu\.so\.1$"):
        backend.probe()


def test_no_device_is_a_reason_though_the_library_gives_none(backend, edgetpu, larod):
    larod()
    edgetpu(devices="")
    with pytest.raises(acap.NotReady, match=r"opens no Edge TPU and gives no reason: is one plugged in"):
        backend.probe()


def test_no_runtime_is_a_reason(backend, edgetpu, larod, monkeypatch):
    larod()
    edgetpu()
    for package in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setitem(sys.modules, f"{package}.interpreter", None)
    with pytest.raises(acap.NotReady, match="not by libedgetpu: no TensorFlow Lite runtime here"):
        backend.probe()


def test_a_compiled_model_runs_on_the_device_that_is_asked_for(backend, edgetpu, compiled, zeros):
    log = edgetpu(devices="usb,pci,usb")
    backend.probe()
    log.unlink()
    model = backend.load(compiled, {"device": "usb:1", "performance": "Low"})
    assert log.read_text() == "create device=usb:1 Performance=Low\n"
    (scores,) = model.run({"input": zeros + 7}).values()
    assert scores.tolist() == [[7] * 1001]
    model.close()
    assert log.read_text().endswith("\ndestroy\n")


@pytest.mark.parametrize("device", ["pci", "usb:1", ":1"])
def test_a_device_that_is_not_there_is_named(backend, edgetpu, compiled, device):
    edgetpu(devices="usb")
    with pytest.raises(acap.NotReady, match=rf"opens no Edge TPU '{device}' and gives no reason"):
        backend.load(compiled, {"device": device})


def test_a_model_for_the_cpu_is_refused_and_sent_to_chip_2(backend, edgetpu, models):
    log = edgetpu()
    backend.probe()
    log.unlink()
    with pytest.raises(acap.InvalidRequest, match=r"without edgetpu-custom-op, which would run on the CPU: .* -j 2"):
        backend.load(models / "mobilenet_v2_1.0_224_quant.tflite", {})
    assert not log.exists()


def test_a_model_that_the_device_does_not_take_is_refused_with_what_to_do(backend, edgetpu, compiled):
    log = edgetpu(fault="model")
    with pytest.raises(acap.InvalidRequest, match=r"the Edge TPU did not take the model: .* edgetpu_compiler"):
        backend.load(compiled, {})
    assert log.read_text() == "create\ndestroy\n" * 2, "once to probe, once to load"


def test_a_device_that_fails_in_a_run_is_a_device_error(backend, edgetpu, compiled, zeros):
    edgetpu(fault="unplugged")
    model = backend.load(compiled, {})
    with pytest.raises(acap.DeviceError, match="the device is gone"):
        model.run({"input": zeros})
    model.close()


def test_every_delegate_is_given_back(backend, edgetpu, compiled, zeros):
    log = edgetpu()
    backend.probe()
    log.unlink()
    models = [backend.load(compiled, {}) for _ in range(3)]
    for model in models:
        model.run({"input": zeros})
        model.close()
    assert sorted(log.read_text().split()) == ["create"] * 3 + ["destroy"] * 3


def test_larod_is_the_second_choice(backend, compiled, larod):
    theirs = LarodsModel()
    asked = larod(theirs)
    assert backend.load(compiled, {}) is theirs
    assert backend.load(compiled, {}) is theirs
    devices = ("google-edge-tpu-tflite",)
    assert asked == [("probe", devices), *[("load_model", devices, compiled, {})] * 2]


def test_larod_judges_files_that_are_no_tflite_models(backend, larod, tmp_path):
    theirs = LarodsModel()
    larod(theirs)
    path = tmp_path / "model"
    path.write_text("something of larod's")
    assert backend.load(path, {}) is theirs


def test_a_device_that_is_unplugged_later_is_not_looked_for_at_larod(backend, compiled, edgetpu, larod):
    asked = larod(LarodsModel())
    edgetpu()
    backend.probe()
    edgetpu(devices="")
    with pytest.raises(acap.NotReady, match="opens no Edge TPU"):
        backend.load(compiled, {})
    assert asked == []


def test_larod_is_not_asked_where_libedgetpu_is_ready(backend, compiled, edgetpu, larod):
    edgetpu()
    asked = larod(LarodsModel())
    backend.probe()
    backend.load(compiled, {}).close()
    assert asked == []


def test_larod_gets_no_model_with_options_that_it_does_not_know(backend, compiled, larod):
    larod(LarodsModel())
    with pytest.raises(acap.InvalidRequest, match="device, performance: expected no such option, since larod drives"):
        backend.load(compiled, {"device": ":0", "performance": "Low"})


def test_larod_gets_no_model_for_the_cpu_either(backend, models, larod):
    asked = larod(LarodsModel())
    backend.probe()
    with pytest.raises(acap.InvalidRequest, match="-j 2"):
        backend.load(models / "mobilenet_v2_1.0_224_quant.tflite", {})
    assert len(asked) == 1
