import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_tflite_glgpu import TfliteGpuBackend

LAROD_DEVICES = ("gpu-tflite", "axis-a7-gpu-tflite")


class LarodsModel(acap.Model):
    inputs = outputs = (acap.TensorSpec("x", np.dtype("uint8"), (1,)),)

    def run(self, inputs):
        return inputs


@pytest.fixture
def backend() -> TfliteGpuBackend:
    return TfliteGpuBackend()


def test_both_reasons_are_told_where_neither_way_leads_to_a_gpu(backend, software_gpu, no_gpu, larod):
    asked = larod(reason="no larod here")
    with pytest.raises(acap.NotReady, match=r"^not by LiteRT: no GPU found.*; not by larod: no larod here$"):
        backend.probe()
    assert asked == [("probe", LAROD_DEVICES)]


def test_larod_is_not_asked_where_litert_has_a_gpu(backend, software_gpu, larod, models):
    asked = larod(LarodsModel())
    backend.probe()
    backend.load(models / "mobilenet_v1_0.25_128_quant.tflite", {}).close()
    assert asked == []


def test_larod_is_the_second_choice(backend, no_gpu, larod, tmp_path):
    theirs = LarodsModel()
    asked = larod(theirs)
    path = tmp_path / "something of larod's"
    assert backend.load(path, {}) is theirs
    assert backend.load(path, {}) is theirs
    assert asked == [("probe", LAROD_DEVICES), *[("load_model", LAROD_DEVICES, path, {})] * 2]


def test_larod_gets_no_model_with_options_that_it_does_not_know(backend, no_gpu, larod, tmp_path):
    larod(LarodsModel())
    with pytest.raises(acap.InvalidRequest, match="allow_cpu: expected no such option, since larod drives gpu-tflite"):
        backend.load(tmp_path / "model", {"allow_cpu": "no"})


@pytest.mark.parametrize(
    ("options", "choices"), [({"allow_cpu": "true"}, "yes or no"), ({"precision": "f64"}, "f16 or f32")]
)
def test_other_values_of_options_are_refused(backend, software_gpu, tmp_path, options, choices):
    with pytest.raises(acap.InvalidRequest, match=f": expected {choices}, got"):
        backend.load(tmp_path / "missing", options)


def test_a_model_for_the_edge_tpu_says_which_chip_it_is_for(backend, software_gpu, models):
    with pytest.raises(acap.InvalidRequest, match="compiled for the Edge TPU, chip 4"):
        backend.load(models / "mobilenet_v2_1.0_224_quant_edgetpu.tflite", {})


def test_an_operator_that_nothing_here_knows_refuses_the_model(backend, software_gpu, models):
    with pytest.raises(acap.InvalidRequest, match=r"LiteRT cannot make it run on the GPU .* -j 2"):
        backend.load(models / "model_invoking_error.tflite", {})
