from __future__ import annotations

import re
import threading
import time

import acap_runtime as acap
import acap_runtime_larod as larod_plugin
import numpy as np
import pytest

DLPU = ["axis-a8-dlpu-tflite"]
DTYPES = [
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float16", "float32", "float64"),
]


def answer(inputs, shape, position=0):
    """What the stand-in computes: the sum of all bytes, and then on by one."""
    total = sum(int(np.frombuffer(array.tobytes(), np.uint8).sum()) for array in inputs)
    return ((total + position + np.arange(np.prod(shape))) % 127).reshape(shape)


@pytest.fixture
def load():
    loaded = []

    def load_and_keep(path, devices=DLPU, **options):
        loaded.append(larod_plugin.load_model(devices, path, options))
        return loaded[-1]

    yield load_and_keep
    for model in loaded:
        model.close()


@pytest.fixture
def small(write_model):
    return write_model("input data uint8 nhwc 1,4,6,3", "output scores float32 nhwc 1,10")


DATA = np.arange(72, dtype=np.uint8).reshape(1, 4, 6, 3)


def test_a_model_answers_run_after_run(load, small):
    model = load(small)
    assert model.inputs == (acap.TensorSpec("data", np.dtype("uint8"), (1, 4, 6, 3)),)
    assert model.outputs == (acap.TensorSpec("scores", np.dtype("float32"), (1, 10)),)
    for value in (0, 1, 2):
        np.testing.assert_array_equal(model.run({"data": DATA + value})["scores"], answer([DATA + value], (1, 10)))


def test_a_service_that_maps_memory_is_answered_too(load, small, larod):
    larod.tell("mapped")
    model = load(small)
    for value in (0, 1):
        np.testing.assert_array_equal(model.run({"data": DATA + value})["scores"], answer([DATA + value], (1, 10)))


@pytest.mark.parametrize("allots", [True, False], ids=["memory of the service", "memory of our own"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_of_every_type_go_in_and_come_out(load, write_model, larod, dtype, allots):
    if not allots:
        larod.tell("alloc-errors", -14, -14)
    model = load(write_model(f"input in {dtype} x 2,3", f"output out {dtype} x 3,5"))
    values = np.array([[1, 0, 1], [0, 0, 1]], dtype)
    for _ in range(2):
        out = model.run({"in": values})["out"]
        assert out.dtype == dtype
        wanted = answer([values], (3, 5))
        np.testing.assert_array_equal(out, wanted % 2 if dtype == "bool" else wanted.astype(dtype))


@pytest.mark.parametrize(
    ("tensor", "shape"),
    [
        ("float32 nchw 1,3,5,7 32", (1, 3, 5, 7)),
        ("uint8 nhwc 1,5,7,3 32", (1, 5, 7, 3)),
        ("int16 x 2,3,5 64", (2, 3, 5)),
        ("uint8 420sp 3,6,10 16", (1, 9, 10)),
        ("uint8 420sp 3,6,16 16", (1, 9, 16)),
    ],
)
def test_padding_at_the_end_of_rows_is_left_out_of_arrays(load, write_model, tensor, shape):
    model = load(write_model(f"input in {tensor}", f"output out {tensor}"))
    assert model.inputs[0].shape == model.outputs[0].shape == shape
    values = np.random.default_rng(0).integers(0, 100, shape).astype(model.inputs[0].dtype)
    for _ in range(2):
        out = model.run({"in": values})["out"]
        assert out.flags.c_contiguous
        np.testing.assert_array_equal(out, answer([values], shape))


def test_a_tensor_of_which_only_the_size_is_known_is_flat(load, write_model):
    model = load(write_model("input in unspecified x bytes:12", "output out float32 x bytes:20"))
    assert (model.inputs[0].dtype, model.inputs[0].shape) == (np.uint8, (12,))
    values = np.arange(12, dtype=np.uint8)
    np.testing.assert_array_equal(model.run({"in": values})["out"], answer([values], (5,)))


def test_tensors_without_a_name_of_their_own_get_one(load, write_model):
    names = ["x", "-", "x", "x_2", "?"]
    model = load(write_model(*(f"input {name} uint8 x 2" for name in names), "output - uint8 x 1"))
    assert [spec.name for spec in model.inputs] == ["x", "input_1", "x_2_2", "x_2", "input_4"]
    values = {spec.name: np.full(2, number, np.uint8) for number, spec in enumerate(model.inputs)}
    assert model.run(values)["output_0"].tolist() == [20]


def test_more_tensors_than_the_service_can_track_get_memory_of_our_own(load, write_model):
    model = load(write_model(*(f"input i{number} uint8 x 2" for number in range(33)), "output out uint8 x 1"))
    ones = np.ones(2, np.uint8)
    assert model.run({spec.name: ones for spec in model.inputs})["out"].tolist() == [66]


def test_a_type_that_larod_calls_invalid_is_an_error_of_the_device(load, write_model):
    with pytest.raises(acap.DeviceError, match=r"tensor data: data type 0 is none"):
        load(write_model("input data invalid x 2", "output out uint8 x 1"))


def test_a_semiplanar_tensor_with_odd_sizes_is_an_error_of_the_device(load, write_model):
    with pytest.raises(acap.DeviceError, match=r"expected dims 3, height, width"):
        load(write_model("input data uint8 420sp 3,5,4", "output out uint8 x 1"))


@pytest.mark.parametrize("content", [b"", b"\x1c\0\0\0TFL3" + bytes(50), b"fake larod model\ninput data uint8\nend\n"])
def test_a_file_that_larod_refuses_is_refused_with_its_reason(load, tmp_path, content):
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(
        acap.InvalidRequest,
        match=r"bad\.tflite cannot be loaded on axis-a8-dlpu-tflite: Model .*LAROD_ERROR_LOAD_MODEL from larodLoad",
    ):
        load(path)


def test_what_is_no_file_is_refused(load, tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(acap.InvalidRequest, match=re.escape(f"{path}: expected a model file")):
            load(path)


def test_the_first_device_that_is_there_is_used(load, small, larod):
    larod.tell("devices", "cpu-tflite", "a9-dlpu-tflite")
    with pytest.raises(acap.NotReady, match="no device axis-a8-dlpu-tflite; it has a9-dlpu-tflite, cpu-tflite"):
        load(small)
    load(small, [*DLPU, "cpu-tflite"]).run({"data": DATA})


def test_an_instance_is_chosen_by_its_number(load, small):
    load(small, instance="1").run({"data": DATA})
    with pytest.raises(acap.NotReady, match="axis-a8-dlpu-tflite, instance 2; it has"):
        load(small, instance="2")


def test_an_option_of_the_artpec9_dlpu_reaches_the_load(load, small):
    load(small, ["a9-dlpu-tflite"], **{"disable-winograd": "1"})
    with pytest.raises(acap.InvalidRequest, match="Unknown parameter"):
        load(small, **{"disable-winograd": "1"})


@pytest.mark.parametrize("option", larod_plugin.A9_DLPU_OPTIONS)
@pytest.mark.parametrize("value", ["", "-1", "99", "one", "01", " 1", "٣"])
def test_a_value_that_does_not_parse_is_refused(load, small, option, value):
    with pytest.raises(acap.InvalidRequest, match=f"{option}: expected a number from 0 to"):
        load(small, **{option: value})


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        (-1, acap.DeviceError, "LAROD_ERROR_JOB"),
        (-3, acap.DeviceError, "LAROD_ERROR_FD"),
        (-5, acap.Forbidden, "LAROD_ERROR_PERMISSION"),
        (-12, acap.InvalidRequest, "LAROD_ERROR_TENSOR_MISMATCH"),
        (-99, acap.DeviceError, "-99"),
        (12, acap.DeviceError, "ENOMEM"),
    ],
)
def test_a_failing_job_is_told_in_larods_words_and_leaves_the_model_usable(load, small, larod, code, kind, name):
    model = load(small)
    larod.tell("job-errors", code)
    with pytest.raises(kind, match=rf"model could not be run: The job fails .*\({name} from larodRunJob\)"):
        model.run({"data": DATA})
    np.testing.assert_array_equal(model.run({"data": DATA})["scores"], answer([DATA], (1, 10)))


@pytest.mark.parametrize("where", ["load", "job"])
def test_power_that_is_away_for_a_moment_is_waited_for(load, small, larod, where):
    larod.tell(f"{where}-errors", *[-15] * 3)
    np.testing.assert_array_equal(load(small).run({"data": DATA})["scores"], answer([DATA], (1, 10)))


@pytest.mark.parametrize("where", ["load", "job"])
def test_power_that_stays_away_makes_the_chip_unavailable_after_a_while(load, small, larod, where):
    model = load(small)
    larod.tell(f"{where}-errors", "always -15")
    started = time.monotonic()
    with pytest.raises(acap.Unavailable, match=r"POWER_NOT_AVAILABLE.*try again later"):
        model.run({"data": DATA}) if where == "job" else load(small)
    assert 1 < time.monotonic() - started < 10
    larod.forget(f"{where}-errors")
    model.run({"data": DATA})


def test_a_connection_lost_in_mid_job_is_made_anew_at_the_next_run(load, small, larod):
    model = load(small)
    kept = model.run({"data": DATA})["scores"]
    before = kept.copy()
    for _ in range(3):
        larod.tell("job-errors", -6)
        with pytest.raises(acap.Unavailable, match=r"LAROD_ERROR_CONNECTION.*connects anew.*try again"):
            model.run({"data": DATA + 1})
        np.testing.assert_array_equal(model.run({"data": DATA})["scores"], answer([DATA], (1, 10)))
    np.testing.assert_array_equal(kept, before)


@pytest.mark.parametrize("code", [-4, 32, 104])
def test_a_service_that_forgot_the_model_gets_it_again(load, small, larod, code):
    model = load(small)
    larod.tell("job-errors", code)
    with pytest.raises(acap.Unavailable, match="try again"):
        model.run({"data": DATA})
    model.run({"data": DATA})


def test_a_service_that_stays_away_is_asked_again_at_each_run(load, small, larod):
    model = load(small)
    larod.tell("job-errors", -6)
    larod.tell("connect-errors", -6, -6)
    for _ in range(3):
        with pytest.raises(acap.Unavailable):
            model.run({"data": DATA})
    np.testing.assert_array_equal(model.run({"data": DATA})["scores"], answer([DATA], (1, 10)))


def test_a_service_that_comes_back_without_the_device_for_the_moment_is_unavailable(load, small, larod):
    model = load(small)
    larod.tell("job-errors", -6)
    larod.tell("devices", "cpu-proc")
    for reason in ("LAROD_ERROR_CONNECTION", "not loaded for the moment: larod has no device"):
        with pytest.raises(acap.Unavailable, match=reason):
            model.run({"data": DATA})
    larod.forget("devices")
    model.run({"data": DATA})


def test_what_is_loaded_again_is_the_file_that_was_loaded(load, small, larod, write_model):
    model = load(small)
    small.unlink()
    write_model("input other uint8 nhwc 1,4,6,3", "output scores float32 nhwc 1,10")
    larod.tell("job-errors", -6)
    with pytest.raises(acap.Unavailable):
        model.run({"data": DATA})
    model.run({"data": DATA})


def test_a_file_that_was_overwritten_in_place_is_not_taken_for_the_model(load, small, larod, write_model):
    model = load(small)
    write_model("input other uint8 nhwc 1,4,6,3", "output scores float32 nhwc 1,10")
    larod.tell("job-errors", -6)
    with pytest.raises(acap.Unavailable):
        model.run({"data": DATA})
    with pytest.raises(acap.DeviceError, match="other tensors"):
        model.run({"data": DATA})


def test_a_model_that_lost_its_connection_can_be_closed(load, small, larod):
    model = load(small)
    larod.tell("job-errors", -6)
    with pytest.raises(acap.Unavailable):
        model.run({"data": DATA})


@pytest.mark.parametrize(
    ("failure", "code", "kind"),
    [
        ("load-errors", -6, acap.Unavailable),
        ("load-errors", -1, acap.DeviceError),
        ("alloc-errors", -6, acap.Unavailable),
    ],
)
def test_a_load_that_fails_half_way_leaves_nothing_behind(larod, small, failure, code, kind):
    larod.tell(failure, code)
    with pytest.raises(kind, match="cannot be loaded on axis-a8-dlpu-tflite"):
        larod_plugin.load_model(DLPU, small, {})
    assert larod.counts()
    assert larod.leaks() == {}


def test_models_in_other_threads_do_not_wait_for_a_job(load, small, larod):
    models = [load(small) for _ in range(3)]
    larod.tell("delay-ms", 300)
    threads = [threading.Thread(target=model.run, args=({"data": DATA},)) for model in models]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 0.8
