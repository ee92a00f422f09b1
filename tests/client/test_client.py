"""The client library, against a server."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from acap_runtime.client import CallFailed, Client, Stream, connect
from acap_runtime_debug import read_stamp

CODE = grpc.StatusCode
DIGITS = Path(__file__).parents[2] / "examples" / "digits"
DTYPES = [
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]
SHAPES = {"nv12": (144, 128), "rgb-interleaved": (96, 128, 3), "rgb-planar": (3, 96, 128)}


@pytest.fixture(scope="module")
def server(start_shared_server: Callable[..., Any]) -> Any:
    """One with the digits model, two cameras and parameters."""
    cameras = ["--camera", "test-pattern", "--camera", f"digits=pictures:{DIGITS / 'pictures'},seconds=0.2"]
    return start_shared_server("-j", "2", "-m", f"digits={DIGITS / 'digits.tflite'}", *cameras, "--parameters", "debug")


@pytest.fixture
def client(server: Any) -> Iterator[Client]:
    with connect(server.address) as connected:
        yield connected


@pytest.fixture
def echo(start_server: Callable[..., Any], write: Callable[..., str]) -> Iterator[Callable[..., dict[str, np.ndarray]]]:
    """Has the debug chip give arrays back."""
    server = start_server("-j", "1")
    numbers = count()
    with connect(server.address) as connected:

        def run(arrays: dict[str, np.ndarray], **options: Any) -> dict[str, np.ndarray]:
            inputs = ", ".join(
                f'{{name = "{name}", dtype = "{array.dtype.newbyteorder("=")}", shape = {list(array.shape)}}}'
                for name, array in arrays.items()
            )
            name = f"echo-{next(numbers)}"  # a file that was loaded is not read again
            return connected.predict(write(name, f"inputs = [{inputs}]"), arrays, **options)

        yield run


def test_arrays_of_every_dtype_come_back_as_they_went(echo: Callable[..., dict[str, np.ndarray]]) -> None:
    rng = np.random.default_rng(5)
    arrays = {
        dtype: np.frombuffer(rng.bytes(96), np.uint8).view(dtype).reshape(3, -1)
        if dtype != "bool"
        else rng.integers(0, 2, (3, 32)).astype(bool)
        for dtype in DTYPES
    }
    given = echo(arrays)
    assert given.keys() == arrays.keys()
    for name, array in arrays.items():
        assert given[name].dtype == array.dtype
        assert given[name].shape == array.shape
        assert given[name].tobytes() == array.tobytes()
        assert not given[name].flags.writeable


def test_arrays_need_not_lie_in_memory_as_the_wire_wants_them(echo: Callable[..., dict[str, np.ndarray]]) -> None:
    counted = np.arange(24, dtype=">i4").reshape(4, 6)
    for array in (counted, counted[::2, ::-1], counted.T, np.asfortranarray(counted)):
        np.testing.assert_array_equal(echo({"data": array})["data"], array)


def test_outputs_can_be_chosen(echo: Callable[..., dict[str, np.ndarray]]) -> None:
    arrays = {name: np.full(3, number, np.uint8) for number, name in enumerate("abc")}
    assert echo(arrays, outputs=["c", "a"]).keys() == {"a", "c"}
    with pytest.raises(TypeError, match="expected names"):
        echo(arrays, outputs="a")


def test_one_array_needs_no_name_and_a_picture_no_size(client: Client) -> None:
    from PIL import Image

    with Image.open(DIGITS / "pictures" / "4-b.png") as picture:
        pixels = np.asarray(picture)
    for array in (pixels, pixels[np.newaxis]):
        assert client.predict("digits", array)["digit"].argmax() == 4


@pytest.mark.parametrize(("form", "shape"), SHAPES.items())
def test_a_raw_stream_gives_pictures(client: Client, form: Any, shape: tuple[int, ...]) -> None:
    kind = {"nv12": "yuv", "rgb-interleaved": "rgb", "rgb-planar": "planar-rgb"}[form]
    with client.stream(form, 128, 96, 20) as stream:
        frames = list(islice(stream, 4))
    assert [frame.type for frame in frames] == [kind] * 4
    for frame in frames:
        assert frame.array.shape == shape
        assert frame.array.dtype == np.uint8
        assert frame.array.tobytes() == frame.data
        assert abs(frame.timestamp_us - time.time_ns() // 1000) < 10_000_000
        assert frame.custom_timestamp_us == 0
    stamps = [read_stamp(frame.array, form).number for frame in frames]
    assert stamps == sorted(set(stamps))
    sequence = [frame.sequence for frame in frames]
    assert sequence == sorted(set(sequence))
    assert len({frame.timestamp_us for frame in frames}) == 4


def test_a_frame_may_be_larger_than_grpcs_limit(client: Client) -> None:
    with client.stream("rgb-interleaved", 1920, 1080, 5) as stream:
        assert stream.frame().array.shape == (1080, 1920, 3)


def test_a_prediction_names_the_frame_it_was_made_of(client: Client) -> None:
    with client.stream("nv12", 128, 128, 10, camera="digits") as stream:
        for newest in islice(stream, 5):
            prediction = client.predict_stream("digits", stream, outputs=["digit"])
            frame = stream.frame(prediction.reference)
            assert frame.reference == prediction.reference
            assert frame == stream.frame(prediction.reference)
            if newest.reference == prediction.reference:
                assert frame == newest
            # What the model read there is what it reads in the same pixels.
            luma = np.repeat(frame.array[:128, :, np.newaxis], 3, axis=2)
            sent = client.predict("digits", luma)["digit"]
            assert prediction.outputs["digit"].argmax() == sent.argmax()
        with pytest.raises(CallFailed, match="frame 4000000000") as caught:
            stream.frame(4_000_000_000)
    assert caught.value.status is CODE.NOT_FOUND


def test_a_camera_is_chosen_by_name_or_number(client: Client, server: Any) -> None:
    for camera in ("digits", 2):
        with client.stream("nv12", 64, 64, camera=camera) as stream:
            server.wait_for_log(f"stream {stream.number}: nv12 64x64 at 30 fps of camera digits")
    with pytest.raises(CallFailed, match="expected one of: 1 test-pattern, 2 digits") as caught:
        client.stream("nv12", 64, 64, camera=3)
    assert caught.value.status is CODE.NOT_FOUND


def test_timestamps_are_those_asked_for(client: Client) -> None:
    with client.stream("nv12", 64, 64, timestamps="none") as plain:
        plain.frame()
    with client.stream("nv12", 64, 64, timestamps="mono-client-capture-diff") as stream:
        frame = stream.frame()
        assert abs(frame.timestamp_us - time.monotonic_ns() // 1000) < 10_000_000
        assert 0 <= frame.custom_timestamp_us < 10_000_000


def test_a_stream_is_deleted_on_the_way_out(client: Client) -> None:
    def leave(stream: Stream) -> None:
        with stream:
            stream.frame()
            raise KeyError

    stream = client.stream("nv12", 64, 64)
    with pytest.raises(KeyError):
        leave(stream)
    for call in (stream.frame, lambda: client.predict_stream("digits", stream)):
        with pytest.raises(CallFailed, match=f"stream {stream.number} does not exist") as caught:
            call()
        assert caught.value.status is CODE.FAILED_PRECONDITION
    stream.close()


def test_a_stream_whose_server_is_gone_closes_quietly_and_at_once(start_server: Callable[..., Any]) -> None:
    server = start_server("--camera", "test-pattern")
    with connect(server.address) as client, client.stream("nv12", 64, 64) as stream:
        stream.frame()
        server.stop()
        started = time.monotonic()
    assert time.monotonic() - started < 3


def test_a_stream_may_be_closed_after_its_client(server: Any) -> None:
    with connect(server.address) as client:
        stream = client.stream("nv12", 64, 64)
    stream.close()


def test_a_parameter_is_read(client: Client) -> None:
    assert client.parameter("root.Brand.Brand") == "debug"
    assert client.parameter("root.Nothing") == ""
    with pytest.raises(CallFailed, match=r"GetValues, INVALID_ARGUMENT: key: expected"):
        client.parameter("two words")


def test_an_error_says_what_the_server_said(client: Client) -> None:
    with pytest.raises(CallFailed) as caught:
        client.predict("figures", np.zeros(3, np.uint8))
    error = caught.value
    assert error.method == "Predict"
    assert error.status is CODE.NOT_FOUND
    assert error.message.startswith("model 'figures' is unknown; expected one of: 'digits'")
    assert str(error) == f"Predict, NOT_FOUND: {error.message}"
    assert isinstance(error.__cause__, grpc.RpcError)
    assert error.__cause__.code() is CODE.NOT_FOUND


def test_what_cannot_be_sent_is_refused_before(tmp_path: Path) -> None:
    # No server is there: whatever is sent would fail otherwise.
    client = Client(grpc.insecure_channel(f"unix://{tmp_path}/none.sock"), timeout_s=1)
    with client:
        with pytest.raises(ValueError, match=r"format: expected one of h264, .*got 'yuv'"):
            client.stream("yuv", 64, 64)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"timestamps: expected one of none, .*got 'gmt'"):
            client.stream("nv12", 64, 64, timestamps="gmt")  # type: ignore[arg-type]
        for size in ((-1, 64), (64, 1 << 32)):
            with pytest.raises(ValueError, match="out of range"):
                client.stream("nv12", *size)
        for array in (np.array(["text"]), np.array([None]), np.zeros(1, "datetime64[s]"), np.zeros(1, "i4,f4")):
            with pytest.raises(TypeError, match="input 'pixels': expected booleans, integers, floats"):
                client.predict("digits", {"pixels": array})


def test_an_encoded_frame_has_no_array() -> None:
    from acap_runtime.client import Frame

    frame = Frame("jpeg", 64, 64, b"\xff\xd8", 1, 1, "jpeg", 0, 0)
    with pytest.raises(ValueError, match="jpeg has no pixels"):
        _ = frame.array


def test_without_a_server_it_waits_for_the_time_given(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(
        CallFailed, match=f"connect, UNAVAILABLE: nothing answers at unix://{tmp_path}/none.sock"
    ) as got:
        connect(f"unix://{tmp_path}/none.sock", wait_s=0.5)
    assert 0.5 <= time.monotonic() - started < 3
    assert got.value.status is CODE.UNAVAILABLE
    assert isinstance(got.value.__cause__, grpc.RpcError)


def test_a_server_that_starts_later_is_waited_for(start_server: Callable[..., Any], tmp_path: Path) -> None:
    socket = tmp_path / "late.sock"
    start_server("--socket", socket, ready=False)
    with connect(f"unix://{socket}") as client, pytest.raises(CallFailed) as caught:
        client.parameter("root.Brand.Brand")
    assert caught.value.status is CODE.FAILED_PRECONDITION


def test_a_call_that_gets_no_answer_says_for_how_long(start_server: Callable[..., Any], write: Any) -> None:
    server = start_server("-j", "1")
    with connect(server.address, timeout_s=0.3) as client:
        slow = write("slow", "delay = 1")
        with pytest.raises(CallFailed, match=r"Predict, DEADLINE_EXCEEDED: no answer within 0\.3 s"):
            client.predict(slow, np.zeros(3, np.uint8))
        assert client.predict(slow, np.zeros(3, np.uint8), timeout_s=20)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "certificate.pem", folder / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", key, "-out", chain], check=True, capture_output=True)
    return chain, key


@pytest.mark.parametrize("over", ["unix socket", "TCP"])
def test_it_speaks_tls(
    start_server: Callable[..., Any], certificate: tuple[Path, Path], free_port: int, over: str
) -> None:
    chain, key = certificate
    tcp = ["-p", free_port, "-a", "127.0.0.1"] if over == "TCP" else []
    server = start_server("-c", chain, "-k", key, "--client-ca", chain, "--parameters", "debug", *tcp)
    with connect(server.address, ca=chain, certificate=chain, key=key) as client:
        assert client.parameter("root.Brand.Brand") == "debug"
    for wrong in ({}, {"ca": chain}):
        with (
            pytest.raises(CallFailed, match="nothing answers" if wrong else "without TLS"),
            connect(server.address, wait_s=0.5, **wrong) as client,
        ):
            client.parameter("root.Brand.Brand")


def test_half_of_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="together"):
        connect(certificate=tmp_path)
    with pytest.raises(ValueError, match="expected ca"):
        connect(certificate=tmp_path, key=tmp_path)
    with pytest.raises(FileNotFoundError):
        connect(ca=tmp_path / "none.pem")


def test_it_lives_beside_other_clients_of_the_same_messages(
    client: Client, server: Any, stubs: SimpleNamespace
) -> None:
    # As tensorflow-serving-api does, the stubs put their messages into protobuf's default pool.
    from google.protobuf import descriptor_pool

    ours = descriptor_pool.Default().FindMessageTypeByName("tensorflow.TensorProto")
    assert ours is stubs.tensor.TensorProto.DESCRIPTOR
    zeros = np.zeros((1, 32, 32, 3), np.uint8)
    with server.client() as other:
        theirs = other.predict("digits", {"data": zeros})
    np.testing.assert_array_equal(client.predict("digits", zeros)["digit"], theirs["digit"])


@pytest.mark.parametrize("first", ["client", "stubs"])
def test_the_order_of_imports_does_not_matter(stubs: SimpleNamespace, first: str) -> None:
    imports = ["import acap_runtime.client", "import tensorflow_serving.apis.predict_pb2, videocapture_pb2"]
    code = "\n".join(
        [f"import sys; sys.path.insert(0, {str(stubs.path)!r})", *imports[:: 1 if first == "client" else -1]]
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_who_writes_a_plugin_does_not_pay_for_it() -> None:
    code = "import sys, acap_runtime; assert not {'grpc', 'acap_runtime.client'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
