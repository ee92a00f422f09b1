"""What the GPU computes, beside what the CPU does."""

from collections.abc import Callable, Mapping
from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_tflite_glgpu import TfliteGpuBackend

pytestmark = pytest.mark.usefixtures("software_gpu")


@pytest.fixture
def load():
    backend = TfliteGpuBackend()
    loaded = []

    def load_and_keep(path: Path, **options: str) -> acap.Model:
        loaded.append(backend.load(path, options))
        return loaded[-1]

    yield load_and_keep
    for model in loaded:
        model.close()


@pytest.fixture
def on_the_cpu() -> Callable[[Path, Mapping[str, acap.Array]], list[acap.Array]]:
    """Run a model with LiteRT's interpreter; its tensors have unique names here."""
    interpreter_type = pytest.importorskip("ai_edge_litert.interpreter").Interpreter

    def run(path: Path, inputs: Mapping[str, acap.Array]) -> list[acap.Array]:
        interpreter = interpreter_type(model_path=str(path))
        interpreter.allocate_tensors()
        for details in interpreter.get_input_details():
            interpreter.set_tensor(details["index"], inputs[details["name"]])
        interpreter.invoke()
        return [interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()]

    return run


@pytest.fixture
def small_net(build_model, tensor, operator) -> Path:
    """Two convolutions and a sum of both over the picture's places, in floats."""
    random = np.random.default_rng(1)

    def constant(name, *shape):
        values = random.standard_normal(shape).astype(np.float32) / np.float32(4)
        return tensor(name, "FLOAT32", shape, values.tobytes())

    tensors = [
        tensor("picture", "FLOAT32", (1, 16, 16, 3)),
        constant("weights 1", 8, 3, 3, 3),
        constant("bias 1", 8),
        tensor("inner", "FLOAT32", (1, 8, 8, 8)),
        constant("weights 2", 8, 3, 3, 8),
        constant("bias 2", 8),
        tensor("outer", "FLOAT32", (1, 8, 8, 8)),
        tensor("result", "FLOAT32", (1, 8, 8, 8)),
    ]
    strides = {"strideW": 2, "strideH": 2, "fusedActivationFunction": 1}
    operators = [
        operator("CONV_2D", (0, 1, 2), (3,), {"padding": 0, **strides}),
        operator("CONV_2D", (3, 4, 5), (6,), {"padding": 0, "strideW": 1, "strideH": 1}),
        operator("ADD", (3, 6), (7,), {}),
    ]
    return build_model(tensors, operators, (0,), (7,))


@pytest.mark.parametrize("precision", ["f16", "f32"])
def test_convolutions_of_floats_are_the_cpus(load, on_the_cpu, small_net, precision):
    picture = np.random.default_rng(2).random((1, 16, 16, 3)).astype(np.float32)
    got = load(small_net, precision=precision).run({"picture": picture})
    (expected,) = on_the_cpu(small_net, {"picture": picture})
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(got["result"], expected, rtol=0, atol=1e-5)


def test_grace_hopper_is_in_uniform(load, models, on_the_cpu):
    image = pytest.importorskip("PIL.Image")
    with image.open(models / "grace_hopper.bmp") as opened:
        pixels = np.asarray(opened.convert("RGB").resize((224, 224)))[np.newaxis]
    path = models / "mobilenet_v2_1.0_224_quant.tflite"
    (scores,) = load(path).run({"input": pixels}).values()
    (expected,) = on_the_cpu(path, {"input": pixels})
    assert scores.argmax() == expected.argmax() == 653
    assert np.abs(scores.astype(int) - expected.astype(int)).max() <= 8


def test_tensors_are_described_as_the_model_has_them(load, models):
    model = load(models / "mobilenet_v1_0.25_128_quant.tflite")
    assert model.inputs == (
        acap.TensorSpec("input", np.dtype("uint8"), (1, 128, 128, 3), acap.Quantisation((0.0078125,), (128,))),
    )
    (output,) = model.outputs
    assert output.name == "MobilenetV1/Predictions/Reshape_1"
    assert output.shape == (1, 1001)
    assert output.quantisation is not None


def test_an_open_dimension_has_the_size_that_the_file_gives_it(load, build_model, tensor, operator):
    path = build_model(
        [tensor("x", "FLOAT32", (-1, 8)), tensor("y", "FLOAT32", (-1, 8))], [operator("NEG", (0,), (1,))], (0,), (1,)
    )
    model = load(path)
    assert model.inputs[0].shape == model.outputs[0].shape == (1, 8)
    assert model.run({"x": np.ones((1, 8), np.float32)})["y"].tolist() == [[-1] * 8]


@pytest.mark.parametrize("signature", [(), ("a", "b"), ("b", "a")])
def test_inputs_keep_the_files_order_and_names_whatever_the_signature_says(
    load, build_model, tensor, operator, signature
):
    tensors = [tensor(name, "FLOAT32", (1, 4)) for name in ("minuend", "subtrahend", "difference")]
    model = load(build_model(tensors, [operator("SUB", (0, 1), (2,), {})], (0, 1), (2,), signature))
    assert [spec.name for spec in model.inputs] == ["minuend", "subtrahend"]
    ones = np.ones((1, 4), np.float32)
    assert model.run({"minuend": ones * 5, "subtrahend": ones * 2})["difference"].tolist() == [[3] * 4]


@pytest.mark.parametrize("dtype", ["INT32", "INT8", "FLOAT16", "FLOAT32"])
def test_numbers_of_these_types_go_in_and_come_out(load, build_model, tensor, operator, dtype):
    tensors = [tensor("x", dtype, (1, 3)), tensor("y", dtype, (1, 3))]
    model = load(build_model(tensors, [operator("NEG", (0,), (1,))], (0,), (1,)))
    output = model.run({"x": np.array([[1, 2, -3]], dtype.lower())})["y"]
    assert output.dtype == dtype.lower()
    assert output.tolist() == [[-1, -2, 3]]


@pytest.fixture
def partly_for_the_cpu(build_model, tensor, operator) -> Path:
    """The rank is not the GPU's to tell, the negation is."""
    tensors = [
        tensor("x", "FLOAT32", (1, 8)),
        tensor("y", "FLOAT32", (1, 8)),
        tensor("rank", "INT32", ()),
    ]
    return build_model(tensors, [operator("NEG", (0,), (1,)), operator("RANK", (0,), (2,))], (0,), (1, 2))


def test_what_the_gpu_cannot_run_is_refused_not_left_to_the_cpu(load, partly_for_the_cpu):
    with pytest.raises(acap.InvalidRequest, match=r"cannot run all of the model's operators: .* -j 2 .*allow_cpu=yes"):
        load(partly_for_the_cpu)


def test_with_allow_cpu_both_work_on_a_model(load, partly_for_the_cpu):
    outputs = load(partly_for_the_cpu, allow_cpu="yes").run({"x": np.ones((1, 8), np.float32)})
    assert outputs["y"].tolist() == [[-1] * 8]
    assert outputs["rank"].item() == 2


def test_a_type_that_litert_has_no_buffers_for_is_refused_by_name(load, build_model, tensor, operator):
    tensors = [tensor("x", "INT64", (1, 3)), tensor("y", "INT64", (1, 3))]
    path = build_model(tensors, [operator("NEG", (0,), (1,))], (0,), (1,))
    with pytest.raises(acap.InvalidRequest, match=r"tensor 'x' holds int64: expected bool, float16, .* -j 2"):
        load(path, allow_cpu="yes")


def test_two_inputs_of_one_name_are_refused(load, build_model, tensor, operator):
    tensors = [tensor(name, "FLOAT32", (1, 4)) for name in ("x", "x", "y")]
    path = build_model(tensors, [operator("SUB", (0, 1), (2,), {})], (0, 1), (2,))
    with pytest.raises(acap.InvalidRequest, match=r"names of their own, got 'x', 'x': .* -j 2"):
        load(path)


def test_a_signature_that_lacks_an_output_is_no_reason_to_lose_it(load, build_model, tensor, operator):
    tensors = [tensor(name, "FLOAT32", (1, 4)) for name in ("x", "y", "unnamed")]
    operators = [operator("NEG", (0,), (1,)), operator("ABS", (0,), (2,))]
    path = build_model(tensors, operators, (0,), (1, 2), signature=("in",), signature_outputs=1)
    with pytest.raises(acap.InvalidRequest, match=r"LiteRT cannot make it run on the GPU .* -j 2"):
        load(path)
