from pathlib import Path

import acap_runtime as acap
import numpy as np
import pytest
from acap_runtime_tflite_cpu import TfliteCpuBackend

NUMPY_TYPES = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FLOAT16": "float16",
    "FLOAT32": "float32",
    "FLOAT64": "float64",
    "COMPLEX64": "complex64",
    "COMPLEX128": "complex128",
}


@pytest.fixture
def load():
    backend = TfliteCpuBackend()
    loaded = []

    def load_and_keep(path: Path, **options: str) -> acap.Model:
        loaded.append(backend.load(path, options))
        return loaded[-1]

    yield load_and_keep
    for model in loaded:
        model.close()


@pytest.mark.parametrize("options", [{}, {"threads": "2"}])
@pytest.mark.parametrize("picture", ["grace_hopper.bmp", "grace_hopper_300x300.bmp"])
def test_grace_hopper_is_in_uniform(models, load, picture, options):
    image = pytest.importorskip("PIL.Image")
    with image.open(models / picture) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((224, 224)))[np.newaxis]
    model = load(models / "mobilenet_v2_1.0_224_quant.tflite", **options)
    (scores,) = model.run({"input": pixels}).values()
    assert scores.argmax() == 653
    assert 200 <= scores.max() <= 242


def test_tensors_are_described_as_the_model_has_them(models, load):
    model = load(models / "mobilenet_v2_1.0_224_quant.tflite")
    assert model.inputs == (
        acap.TensorSpec("input", np.dtype("uint8"), (1, 224, 224, 3), acap.Quantisation((0.0078125,), (128,))),
    )
    assert model.outputs == (
        acap.TensorSpec(
            "MobilenetV2/Predictions/Softmax", np.dtype("uint8"), (1, 1001), acap.Quantisation((0.00390625,), (0,))
        ),
    )


@pytest.mark.parametrize("dtype", NUMPY_TYPES)
def test_numbers_of_every_type_go_in_and_come_out(build_model, tensor, load, dtype):
    model = load(build_model("RESHAPE", [tensor("in", dtype, (2, 3))], [tensor("out", dtype, (6,))], newShape=[6]))
    numpy_type = np.dtype(NUMPY_TYPES[dtype])
    assert model.inputs == (acap.TensorSpec("in", numpy_type, (2, 3)),)
    assert model.outputs == (acap.TensorSpec("out", numpy_type, (6,)),)
    values = np.array([[1, 0, 1], [0, 0, 1]], numpy_type)
    output = model.run({"in": values})["out"]
    assert output.dtype == numpy_type
    assert output.tolist() == values.ravel().tolist()


@pytest.mark.parametrize("dtype", ["STRING", "RESOURCE"])
def test_a_tensor_that_holds_no_numbers_is_refused_by_name(build_model, tensor, load, dtype):
    path = build_model("RESHAPE", [tensor("text", dtype, (2,))], [tensor("out", dtype, (2, 1))], newShape=[2, 1])
    with pytest.raises(acap.InvalidRequest, match=r"input tensor 'text' holds .* expected numbers"):
        load(path)


def test_a_scale_per_slice_keeps_its_axis(build_model, tensor, load):
    sliced = tensor("in", "INT8", (2, 3), scales=(0.5, 0.25, 0.125), zero_points=(0, 1, 2), axis=1)
    model = load(build_model("RESHAPE", [sliced], [tensor("out", "INT8", (6,))], newShape=[6]))
    assert model.inputs[0].quantisation == acap.Quantisation((0.5, 0.25, 0.125), (0, 1, 2), axis=1)
    assert model.outputs[0].quantisation is None


def test_tensors_without_a_name_of_their_own_get_one(build_model, tensor, load):
    inputs = [tensor(name, "FLOAT32", (2,)) for name in ("x", None, "x", "x_2")]
    model = load(build_model("ADD_N", inputs, [tensor(None, "FLOAT32", (2,))]))
    names = [spec.name for spec in model.inputs]
    assert names == ["x", "input_1", "x_2_2", "x_2"]
    ones = np.ones(2, np.float32)
    outputs = model.run({name: position * ones for position, name in enumerate(names)})
    assert outputs["output_0"].tolist() == [6, 6]


def test_an_open_shape_follows_the_request(build_model, tensor, load):
    model = load(build_model("NEG", [tensor("x", "FLOAT32", (1, -1))], [tensor("y", "FLOAT32", (1, -1))]))
    assert model.inputs[0].shape == model.outputs[0].shape == (1, -1)
    for size in (3, 3, 0, 5, 1):
        values = np.arange(size, dtype=np.float32)[np.newaxis]
        np.testing.assert_array_equal(model.run({"x": values})["y"], -values)


def test_shapes_that_do_not_fit_together_leave_the_model_usable(build_model, tensor, load):
    inputs = [tensor("x", "FLOAT32", (1, -1)), tensor("y", "FLOAT32", (1, -1))]
    model = load(build_model("ADD", inputs, [tensor("sum", "FLOAT32", (1, -1))]))
    ones = {size: np.ones((1, size), np.float32) for size in (1, 2, 3)}
    model.run({"x": ones[3], "y": ones[3]})
    with pytest.raises(acap.InvalidRequest, match=r"x \[1, 3\], y \[1, 2\]"):
        model.run({"x": ones[3], "y": ones[2]})
    assert model.run({"x": ones[3], "y": ones[3]})["sum"].tolist() == [[2, 2, 2]]


def test_an_output_may_be_empty(build_model, tensor, load):
    model = load(build_model("WHERE", [tensor("x", "BOOL", (4,))], [tensor("where", "INT64", (-1, 1))]))
    assert model.run({"x": np.array([True, False, True, False])})["where"].tolist() == [[0], [2]]
    nowhere = model.run({"x": np.zeros(4, np.bool_)})["where"]
    assert (nowhere.shape, nowhere.dtype) == ((0, 1), np.int64)
    assert model.run({"x": np.array([False, True, False, False])})["where"].tolist() == [[1]]


def test_a_run_that_fails_leaves_the_model_usable(build_model, tensor, load):
    inputs = [tensor("x", "INT32", (2,)), tensor("y", "INT32", (2,))]
    model = load(build_model("DIV", inputs, [tensor("quotient", "INT32", (2,))]))
    six = np.array([6, 6], np.int32)
    for _ in range(3):
        assert model.run({"x": six, "y": np.array([2, 3], np.int32)})["quotient"].tolist() == [3, 2]
        with pytest.raises(acap.DeviceError, match=r"DIV.* failed to invoke"):
            model.run({"x": six, "y": np.array([2, 0], np.int32)})


def test_answers_that_are_kept_do_not_change(build_model, tensor, load):
    model = load(build_model("NEG", [tensor("x", "FLOAT32", (2,))], [tensor("y", "FLOAT32", (2,))]))
    kept = [model.run({"x": np.full(2, value, np.float32)})["y"] for value in (1, 2, 3)]
    assert [array.tolist() for array in kept] == [[-1, -1], [-2, -2], [-3, -3]]
