"""What clients of the original rely on, and of TensorFlow Serving: the machine learning API on the wire."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

SHARED_MEMORY = Path("/dev/shm")
MILITARY_UNIFORM = 653
VALUES: dict[str, list[Any]] = {
    "float32": [1.5, -2.25, 3.0],
    "float64": [1e300, -0.1, 3.0],
    "int32": [-(2**31), 0, 2**31 - 1],
    "uint8": [0, 128, 255],
    "int16": [-(2**15), 0, 2**15 - 1],
    "int8": [-128, 0, 127],
    "complex64": [1 + 2j, -1.5j, 3],
    "int64": [-(2**63), 0, 2**63 - 1],
    "bool": [True, False, True],
    "uint16": [0, 1, 2**16 - 1],
    "complex128": [1e300 + 2j, -1.5j, 3],
    "float16": [1.5, -0.1, 65504],
    "uint32": [0, 1, 2**32 - 1],
    "uint64": [0, 1, 2**64 - 1],
}
FIELDS = {
    "float32": "float_val", "float64": "double_val", "int32": "int_val", "uint8": "int_val", "int16": "int_val",
    "int8": "int_val", "complex64": "scomplex_val", "int64": "int64_val", "bool": "bool_val", "uint16": "int_val",
    "complex128": "dcomplex_val", "float16": "half_val", "uint32": "uint32_val", "uint64": "uint64_val",
}  # fmt: skip
DETECTION = ["TFLite_Detection_PostProcess", *(f"TFLite_Detection_PostProcess:{number}" for number in (1, 2, 3))]
MODELS = {
    "echo": "",
    "one": 'inputs = [{name = "serving_default_images:0", shape = [3]}]',
    "two": 'inputs = [{name = "left", shape = [2]}, {name = "right", dtype = "float32", shape = [3]}]',
    "numbers": 'inputs = [{name = "numbers", dtype = "float32", shape = [1, -1, 2]}]',
    "picture": 'inputs = [{name = "image", shape = [1, 300, 300, 3]}]',
    "small": 'inputs = [{name = "image", shape = [1, 100, 200, 3]}]',
    "planar": 'inputs = [{name = "image", shape = [1, 3, 100, 200]}]',
    "pictures": 'inputs = [{name = "left", shape = [1, 8, 8, 3]}, {name = "right", shape = [1, 8, 8, 3]}]',
    "detection": "".join(f'[[inputs]]\nname = "{name}"\nshape = [2]\n' for name in DETECTION),
    "big": f"big_output = {70 << 20}",
    "scalar": 'inputs = [{name = "x", dtype = "float64", shape = []}]',
    **{name: f'inputs = [{{name = "x", dtype = "{name}", shape = [1, 3]}}]' for name in VALUES},
}


@dataclass
class Debug:
    """A server with the debug chip, which gives every input back, and a client of it."""

    server: Any
    client: Any


@pytest.fixture(scope="module")
def debug(start_shared_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debug]:
    folder = tmp_path_factory.mktemp("models")
    arguments: list[object] = ["-j", "1"]
    for name, text in MODELS.items():
        (folder / f"{name}.toml").write_text(text)
        arguments += ["-m", f"{name}={folder / name}.toml"]
    server = start_shared_server(*arguments)
    with server.client() as client:
        yield Debug(server, client)


@pytest.fixture(scope="module")
def client(debug: Debug) -> Any:
    return debug.client


def _gradient(width: int, height: int) -> np.ndarray:
    """A smooth picture, (1, height, width, 3), so that every way to scale it gives nearly the same."""
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)
    channels = [np.tile(across, (height, 1)), np.tile(down[:, None], (1, width)), np.full((height, width), 128.0)]
    return np.stack(channels, axis=-1).astype(np.uint8)[np.newaxis]


def _is_about(fitted: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(fitted.astype(int) - expected).mean() < 4)


@pytest.mark.parametrize("name", ["data", "x", "serving_default_images:0", "", "ünï ☃", "n" * 10_000])
def test_a_model_of_one_input_takes_any_name(client: Any, name: str) -> None:
    given = np.array([1, 2, 3], np.uint8)
    outputs = client.predict("one", {name: given})
    assert list(outputs) == ["serving_default_images:0"]
    assert np.array_equal(outputs["serving_default_images:0"], given)


def test_inputs_of_a_model_of_several_go_by_name(client: Any) -> None:
    left, right = np.array([1, 2], np.uint8), np.array([1.5, 2.5, 3.5], np.float32)
    for inputs in ({"left": left, "right": right}, {"right": right, "left": left}):
        outputs = client.predict("two", inputs)
        assert np.array_equal(outputs["left"], left)
        assert np.array_equal(outputs["right"], right)


def test_other_names_for_a_model_of_several_inputs_are_refused_with_the_right_ones(client: Any) -> None:
    request = client.request("two", {"data": np.zeros(2, np.uint8), "right": np.zeros(3, np.float32)})
    with pytest.raises(grpc.RpcError) as caught:
        client.send(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert all(name in caught.value.details() for name in ("'left'", "'right'", "'data'"))


@pytest.mark.parametrize("names", [[], ["left"], ["left", "right", "third"]])
def test_a_wrong_number_of_inputs_is_refused(client: Any, names: list[str]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.send(client.request("two", {name: np.zeros(2, np.uint8) for name in names}))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"got {len(names)}" in caught.value.details()


@pytest.mark.parametrize("dtype", VALUES)
def test_every_dtype_goes_there_and_back_in_tensor_content(client: Any, dtype: str) -> None:
    given = np.array([VALUES[dtype]], dtype)
    returned = client.predict(dtype, {"data": given})["x"]
    assert returned.dtype == given.dtype
    assert returned.shape == (1, 3)
    assert returned.tobytes() == given.tobytes()


def _as_values(array: np.ndarray) -> list[Any]:
    """Elements as TensorFlow's make_tensor_proto puts them into a *_val field."""
    flat = array.reshape(-1)
    if array.dtype == np.float16:
        return flat.view(np.uint16).tolist()
    if array.dtype.kind == "c":
        return [part for value in flat.tolist() for part in (value.real, value.imag)]
    return flat.tolist()


@pytest.mark.parametrize("dtype", VALUES)
def test_every_dtype_goes_there_in_the_field_of_its_values(client: Any, dtype: str) -> None:
    given = np.array([VALUES[dtype]], dtype)
    proto = client.tensor(given, **{FIELDS[dtype]: _as_values(given)})
    returned = client.predict(dtype, {"data": proto})["x"]
    assert returned.tobytes() == given.tobytes()


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize("sent", [1, 2])
def test_the_last_value_stands_for_all_that_are_left_out(client: Any, dtype: str, sent: int) -> None:
    given = np.array([VALUES[dtype]], dtype)
    expected = given.copy()
    expected[0, sent:] = given[0, sent - 1]
    proto = client.tensor(given, **{FIELDS[dtype]: _as_values(given[:, :sent])})
    returned = client.predict(dtype, {"data": proto})["x"]
    assert returned.tobytes() == expected.tobytes()


def test_special_floats_keep_their_bits(client: Any) -> None:
    given = np.array([[np.nan, -np.inf, -0.0]], np.float32)
    for proto in (given, client.tensor(given, float_val=given.reshape(-1).tolist())):
        assert client.predict("float32", {"data": proto})["x"].tobytes() == given.tobytes()
    halves = np.array([[0x7E01, 0xFC00, 0x0001]], np.uint16).view(np.float16)
    proto = client.tensor(halves, half_val=[0x7E01, 0xFC00, 0x0001])
    assert client.predict("float16", {"data": proto})["x"].tobytes() == halves.tobytes()


def test_a_scalar_goes_there_and_back(client: Any) -> None:
    given = np.array(2.5)
    for proto in (given, client.tensor(given, double_val=[2.5])):
        returned = client.predict("scalar", {"data": proto})["x"]
        assert returned.shape == ()
        assert returned == 2.5


def test_a_shape_that_the_model_leaves_open_is_the_requests(client: Any) -> None:
    for count in (1, 5, 1000):
        given = np.arange(2 * count, dtype=np.float32).reshape(1, count, 2)
        assert np.array_equal(client.predict("numbers", {"data": given})["numbers"], given)


def test_a_tensor_without_the_batch_dimension_gets_it(client: Any) -> None:
    given = np.array(VALUES["float32"], np.float32)
    assert client.predict("float32", {"data": given})["x"].shape == (1, 3)


def test_a_large_tensor_goes_there_and_back(client: Any) -> None:
    given = np.random.default_rng(1).integers(0, 256, 60 << 20, np.uint8)
    assert np.array_equal(client.predict("echo", {"data": given})["data"], given)


def test_an_answer_may_be_larger_than_any_request(client: Any) -> None:
    outputs = client.predict("big", {"data": np.ones(5, np.uint8)})
    assert outputs["big"].shape == (70 << 20,)
    assert not outputs["big"].any()
    assert outputs["data"].tolist() == [1] * 5


@pytest.fixture
def shared_object() -> Iterator[Path]:
    path = SHARED_MEMORY / f"acap-wire-{os.getpid()}.bmp"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("slash", ["/", ""], ids=["slash", "no slash"])
@pytest.mark.parametrize(
    "shape", [(1, 100, 200, 3), (100, 200, 3), (1,), ()], ids=["image", "no batch", "one", "scalar"]
)
def test_a_string_names_the_shared_memory_that_holds_the_tensor(
    client: Any, shared_object: Path, slash: str, shape: tuple[int, ...]
) -> None:
    given = _gradient(200, 100)
    shared_object.write_bytes(given.tobytes())
    shared_object.chmod(0o600)
    proto = _named(client, f"{slash}{shared_object.name}".encode(), shape)
    assert np.array_equal(client.predict("small", {"data": proto})["image"], given)
    assert shared_object.read_bytes() == given.tobytes()


def _named(client: Any, name: bytes, shape: tuple[int, ...] = ()) -> Any:
    proto = client.stubs.tensor.TensorProto(dtype=client.stubs.types.DT_STRING, string_val=[name])
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def test_shared_memory_may_hold_a_picture_of_another_size_and_more_than_it(client: Any, shared_object: Path) -> None:
    shared_object.write_bytes(_gradient(640, 480).tobytes() + bytes(5000))
    fitted = client.predict("small", {"data": _named(client, shared_object.name.encode(), (1, 480, 640, 3))})["image"]
    assert _is_about(fitted, _gradient(200, 100))


def test_shared_memory_is_read_anew_for_every_call(client: Any, shared_object: Path) -> None:
    proto = _named(client, shared_object.name.encode())
    for number in range(5):
        given = np.full((1, 3), number, np.float64)
        shared_object.write_bytes(given.tobytes())
        assert np.array_equal(client.predict("float64", {"data": proto})["x"], given)


def test_shared_memory_of_another_user_in_the_servers_group_is_taken(client: Any, shared_object: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may give a file away")
    given = np.array([VALUES["int32"]], np.int32)
    shared_object.write_bytes(given.tobytes())
    os.chown(shared_object, 65534, os.getegid())
    assert np.array_equal(client.predict("int32", {"data": _named(client, shared_object.name.encode())})["x"], given)


def test_each_input_may_come_another_way(client: Any, shared_object: Path) -> None:
    right = np.array([1, 2, 3], np.float32)
    shared_object.write_bytes(right.tobytes())
    left = np.array([7, 7], np.uint8)
    inputs = {"right": _named(client, shared_object.name.encode()), "left": client.tensor(left, int_val=[7])}
    outputs = client.predict("two", inputs)
    assert np.array_equal(outputs["left"], left)
    assert np.array_equal(outputs["right"], right)


@pytest.mark.parametrize(("width", "height"), [(224, 224), (480, 320), (416, 416), (1920, 1080), (300, 300)])
def test_a_picture_of_another_size_is_stretched_to_the_models(client: Any, width: int, height: int) -> None:
    fitted = client.predict("picture", {"data": _gradient(width, height)})["image"]
    assert fitted.shape == (1, 300, 300, 3)
    assert _is_about(fitted, _gradient(300, 300))


def test_a_picture_of_the_models_size_stays_as_it_is(client: Any) -> None:
    given = np.random.default_rng(1).integers(0, 256, (1, 300, 300, 3), np.uint8)
    assert np.array_equal(client.predict("picture", {"data": given})["image"], given)


def test_a_picture_is_turned_into_planes_for_a_model_that_takes_those(client: Any) -> None:
    fitted = client.predict("planar", {"data": _gradient(400, 300)})["image"]
    assert fitted.shape == (1, 3, 100, 200)
    assert _is_about(fitted.transpose(0, 2, 3, 1), _gradient(200, 100))


def test_two_pictures_of_one_request_are_fitted_each_by_itself(client: Any) -> None:
    white, black = np.full((1, 30, 40, 3), 250, np.uint8), np.full((1, 30, 40, 3), 5, np.uint8)
    outputs = client.predict("pictures", {"left": white, "right": black})
    assert abs(int(outputs["left"].mean()) - 250) < 8
    assert abs(int(outputs["right"].mean()) - 5) < 8


@pytest.mark.parametrize("size", [(224, 224), (480, 320), (416, 416), (1920, 1080)])
def test_a_picture_of_any_size_is_recognised(cpu: Any, models: Path, size: tuple[int, int]) -> None:
    with Image.open(models / "grace_hopper_300x300.bmp") as picture:
        pixels = np.asarray(picture.convert("RGB").resize(size))[np.newaxis]
    with cpu.client() as client:
        (scores,) = client.predict(str(models / "mobilenet_v2_1.0_224_quant.tflite"), {"data": pixels}).values()
    assert scores.argmax() == MILITARY_UNIFORM


@pytest.fixture(scope="module")
def cpu(start_shared_server: Callable[..., Any]) -> Any:
    return start_shared_server("-j", "2")


def test_images_are_converted_by_libyuv_unless_told_otherwise(debug: Debug) -> None:
    assert "images are converted by chip 11 (cpu-proc)" in debug.server.log


def test_a_processing_chip_serves_conversions_as_models(start_server: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "resize.toml"
    path.write_text(
        'image.input.format = "rgb-interleaved"\nimage.input.size = [640, 480]\n'
        'image.output.format = "rgb-planar"\nimage.output.size = [200, 100]\n'
    )
    with start_server("-j", "11", "-m", f"resize={path}").client() as client:
        (planes,) = client.predict("resize", {"data": _gradient(640, 480)}).values()
    assert planes.shape == (1, 3, 100, 200)
    assert _is_about(planes.transpose(0, 2, 3, 1), _gradient(200, 100))


def test_a_second_chip_converts_for_the_first(start_server: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(MODELS["small"])
    server = start_server("-j", "LAROD_CHIP_LIBYUV", "-j", "debug-device", "-m", f"small={tmp_path / 'small.toml'}")
    with server.client() as client:
        assert _is_about(client.predict("small", {"data": _gradient(400, 300)})["image"], _gradient(200, 100))


@pytest.mark.parametrize("dtype", VALUES)
def test_an_output_is_in_tensor_content_with_its_dtype_and_shape_and_nowhere_else(client: Any, dtype: str) -> None:
    given = np.array([VALUES[dtype]], dtype)
    request = client.request(dtype, {"data": client.tensor(given, **{FIELDS[dtype]: _as_values(given)})})
    output = client.send(request).outputs["x"]
    assert {field.name for field, _ in output.ListFields()} == {"dtype", "tensor_shape", "tensor_content"}
    assert output.dtype == request.inputs["data"].dtype
    assert [dim.size for dim in output.tensor_shape.dim] == [1, 3]
    assert not output.tensor_shape.unknown_rank


def test_outputs_have_the_models_names(client: Any) -> None:
    outputs = client.predict("detection", {name: np.array([1, 2], np.uint8) for name in DETECTION})
    assert sorted(outputs) == DETECTION


@pytest.mark.parametrize("wanted", [[], DETECTION[:1], DETECTION[2:], DETECTION[::-1], [DETECTION[1]] * 3])
def test_the_output_filter_selects(client: Any, wanted: list[str]) -> None:
    inputs = {name: np.full(2, number, np.uint8) for number, name in enumerate(DETECTION)}
    response = client.send(client.request("detection", inputs, output_filter=wanted))
    outputs = client.arrays(response)
    assert sorted(outputs) == sorted(set(wanted or DETECTION))
    assert all(np.array_equal(array, inputs[name]) for name, array in outputs.items())


def test_the_answer_says_which_model_gave_it(client: Any) -> None:
    request = client.request("float32", {"data": np.zeros((1, 3), np.float32)})
    response = client.send(request)
    assert response.model_spec.name == "float32"
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"
    assert response.frame_reference == 0


def test_a_version_that_exists_and_any_signature_name_may_be_asked_for(client: Any) -> None:
    request = client.request("float32", {"data": np.zeros((1, 3), np.float32)})
    request.model_spec.version.value = 1
    request.model_spec.signature_name = "predict_images"
    response = client.send(request)
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "predict_images"


def test_a_call_without_a_deadline_is_answered(client: Any) -> None:
    assert client.predict("one", {"data": np.zeros(3, np.uint8)}, timeout=None)


def test_a_compressed_request_is_read(client: Any) -> None:
    request = client.request("echo", {"data": np.zeros(1 << 20, np.uint8)})
    response = client.send(request, compression=grpc.Compression.Gzip)
    assert len(response.outputs["data"].tensor_content) == 1 << 20


def test_many_clients_each_get_their_own_answer(debug: Debug) -> None:
    def ask(seed: int) -> bool:
        random = np.random.default_rng(seed)
        with debug.server.client() as client:
            for _ in range(20):
                given = random.integers(0, 256, int(random.integers(1, 100_000)), np.uint8)
                if not np.array_equal(client.predict("echo", {"data": given})["data"], given):
                    return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


def test_a_model_may_be_named_by_its_path(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "by path, with = and blanks.toml"
    path.write_text(MODELS["one"])
    response = client.send(client.request(str(path), {"data": np.array([1, 2, 3], np.uint8)}))
    assert response.model_spec.name == str(path)
    assert response.outputs["serving_default_images:0"].tensor_content == b"\x01\x02\x03"


def test_a_model_given_without_a_name_has_its_path_for_a_name(start_server: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.touch()
    server = start_server("-j", "1", "-m", path)
    with server.client() as client:
        assert client.predict(str(path), {"data": np.zeros(3, np.uint8)})["data"].shape == (3,)
    assert server.log.count("loaded on") == 1


def test_two_ways_to_one_file_are_one_model(debug: Debug, tmp_path: Path) -> None:
    path, link = tmp_path / "model.toml", tmp_path / "link.toml"
    path.touch()
    link.symlink_to(path)
    (tmp_path / "folder").mkdir()
    for name in (path, link, f"{tmp_path}/./model.toml", f"{tmp_path}/folder/../model.toml"):
        assert debug.client.predict(str(name), {"data": np.zeros(3, np.uint8)})
    assert debug.server.log.count(f"{path} loaded on") == 1


def test_a_file_that_many_clients_name_at_once_is_loaded_once(debug: Debug, tmp_path: Path) -> None:
    path = tmp_path / "wanted.toml"
    path.write_text("load_delay = 1")
    together = threading.Barrier(8)

    def ask(number: int) -> bool:
        with debug.server.client() as client:
            together.wait()
            given = np.full(9, number, np.uint8)
            return np.array_equal(client.predict(str(path), {"data": given})["data"], given)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    assert debug.server.log.count(f"{path} loaded on") == 1


def test_calls_for_other_models_do_not_wait_for_a_load(debug: Debug, tmp_path: Path) -> None:
    path = tmp_path / "slow.toml"
    path.write_text("load_delay = 2")
    stub = debug.client.stubs.service.PredictionServiceStub(debug.client.channel)
    loading = stub.Predict.future(debug.client.request(str(path), {"data": np.zeros(3, np.uint8)}), timeout=30)
    for _ in range(20):
        assert debug.client.predict("one", {"data": np.zeros(3, np.uint8)}, timeout=5)
    assert not loading.done()
    assert loading.code() is grpc.StatusCode.OK


def test_the_least_recently_used_file_goes_when_another_needs_its_place(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server("-j", "1", "--on-demand-models", "2")
    paths = [tmp_path / f"{number}.toml" for number in range(3)]
    with server.client() as client:
        for path in (*paths, paths[0]):
            path.touch()
            assert client.predict(str(path), {"data": np.zeros(3, np.uint8)})
    assert [server.log.count(f"{path} loaded on") for path in paths] == [2, 1, 1]


IMPORT_STUBS = "from tensorflow_serving.apis import predict_pb2; from tensorflow.core.framework import tensor_pb2"
IMPORT_OURS = "from acap_runtime import proto"
ROUND_TRIP = """
request = predict_pb2.PredictRequest(stream_id=5)
request.inputs["data"].CopyFrom(tensor_pb2.TensorProto(dtype=1, float_val=[1.5]))
ours = proto.PredictRequest.FromString(request.SerializeToString())
assert ours.stream_id == 5 and ours.inputs["data"].float_val[0] == 1.5
assert predict_pb2.PredictRequest.FromString(ours.SerializeToString()) == request
assert type(ours) is not type(request)
"""


@pytest.mark.parametrize("order", [(IMPORT_STUBS, IMPORT_OURS), (IMPORT_OURS, IMPORT_STUBS)], ids=["theirs", "ours"])
def test_our_messages_live_beside_tensorflows_whichever_is_imported_first(
    stubs: SimpleNamespace, order: tuple[str, str]
) -> None:
    program = "\n".join((*order, ROUND_TRIP))
    environment = {**os.environ, "PYTHONPATH": str(stubs.path)}
    subprocess.run([sys.executable, "-W", "error", "-c", program], env=environment, check=True, timeout=60)


def test_the_server_starts_where_a_program_has_the_same_symbols_in_the_default_pool(stubs: SimpleNamespace) -> None:
    program = f"{IMPORT_STUBS}\nimport acap_runtime.front.server, acap_runtime.testing, acap_runtime.cli"
    environment = {**os.environ, "PYTHONPATH": str(stubs.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
