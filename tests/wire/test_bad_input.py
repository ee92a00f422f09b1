"""Bad input costs the call that brought it, and nothing else: status, message, and the good call that follows."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

SHARED_MEMORY = Path("/dev/shm")
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.tflite"
NOBODY = 65534
FLOAT, DOUBLE, INT32, UINT8, INT16, INT8, STRING, COMPLEX64, BOOL = 1, 2, 3, 4, 5, 6, 7, 8, 10
QUINT8, BFLOAT16, UINT16, HALF, RESOURCE = 12, 14, 17, 19, 20
SURPRISE = re.compile("a call failed in the server: unexpected|raised by servicer method")
"""What the server, or grpc, logs about an exception that nobody foresaw."""

MODELS = {
    "floats": 'inputs = [{name = "x", dtype = "float32", shape = [2, 3]}]',
    "bytes": "",
    "open": 'inputs = [{name = "x", dtype = "float32", shape = [-1, 3]}]',
    "pair": 'inputs = [{name = "left", shape = [2]}, {name = "right", dtype = "float32", shape = [3]}]',
    "half": 'inputs = [{name = "x", dtype = "float16", shape = [3]}]',
    "int8": 'inputs = [{name = "x", dtype = "int8", shape = [3]}]',
    "uint16": 'inputs = [{name = "x", dtype = "uint16", shape = [3]}]',
    "complex": 'inputs = [{name = "x", dtype = "complex64", shape = [3]}]',
    "picture": 'inputs = [{name = "image", shape = [1, 16, 24, 3]}]',
    "float_picture": 'inputs = [{name = "image", dtype = "float32", shape = [1, 16, 24, 3]}]',
    "slow": 'inputs = [{name = "x", shape = [4]}]\ndelay = 0.5',
    "fails": 'fail = "run"',
    "raises": 'raise = "run"',
    "lies": 'wrong_output = "dtype"',
}


@dataclass
class Bench:
    """A long-lived server, what it looked like at first, and a request that it answers whatever came before."""

    server: Any
    client: Any
    good: Callable[[], None]
    pids: list[int]
    descriptors: list[int]
    threads: int

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """What happens in this context leaves the server as it was, able to answer, and not surprised."""
        before = len(self.server.log)
        yield
        self.good()
        surprises = [line for line in self.server.log[before:].splitlines() if SURPRISE.search(line)]
        assert not surprises
        assert self.server.process.poll() is None, self.server.log
        assert self.pids == _pids(self.server), self.server.log
        _wait_until(self._has_grown_by_no_more_than_its_models, "the server keeps what bad calls took")

    def refused(self, request: Any, status: str, *words: str, **options: Any) -> str:
        """Send what is to be refused; the message, which holds each of `words`."""
        with self.unharmed():
            return refused(self.client, request, status, *words, **options)

    def _has_grown_by_no_more_than_its_models(self) -> bool:
        # A model that clients have loaded has a channel, which is a descriptor at either end, and a thread or two.
        models = len(re.findall(r"model .* loaded on", self.server.log))
        front, worker = _descriptors(self.pids)
        grown = front - self.descriptors[0] <= models and worker - self.descriptors[1] <= models
        return grown and _threads(self.pids[1]) - self.threads <= 2 * models


def _bench(server: Any, client: Any, good: Callable[[], None]) -> Bench:
    for _ in range(3):
        good()
    pids = _pids(server)
    return Bench(server, client, good, pids, _descriptors(pids), _threads(pids[1]))


def _pids(server: Any) -> list[int]:
    return [server.process.pid, *server.workers()]


def _descriptors(pids: list[int]) -> list[int]:
    return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids]


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _wait_until(condition: Callable[[], bool], complaint: str, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, complaint
        time.sleep(0.02)


def refused(client: Any, request: Any, status: str, *words: str, **options: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        client.send(request, **options)
    details = caught.value.details()
    assert caught.value.code() is grpc.StatusCode[status], details
    missing = [word for word in words if word not in details]
    assert not missing, f"{missing} not in {details!r}"
    return details


@pytest.fixture(scope="module")
def bench(start_shared_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A server with the debug chip, and a model of every kind."""
    folder = tmp_path_factory.mktemp("models")
    arguments: list[object] = ["-j", "1", "--max-message-size", "8"]
    for name, text in MODELS.items():
        (folder / f"{name}.toml").write_text(text)
        arguments += ["-m", f"{name}={folder / name}.toml"]
    server = start_shared_server(*arguments)
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    picture = np.full((1, 30, 40, 3), 100, np.uint8)

    def good() -> None:
        assert np.array_equal(client.predict("floats", {"x": numbers})["x"], numbers)
        assert client.predict("picture", {"data": picture})["image"].shape == (1, 16, 24, 3)

    with server.client() as client:
        yield _bench(server, client, good)


@pytest.fixture(scope="module")
def cpu(start_shared_server: Callable[..., Any]) -> Iterator[Bench]:
    """A server with the CPU chip, and the digits model."""
    server = start_shared_server("-j", "2", "-m", f"digits={DIGITS}")
    with server.client() as client:

        def good() -> None:
            (scores,) = client.predict("digits", {"data": np.zeros((1, 32, 32, 3), np.uint8)}).values()
            assert scores.shape == (1, 10)

        yield _bench(server, client, good)


def tensor(dtype: int, *shape: int, **fields: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, **fields}


def proto(stubs: SimpleNamespace, dtype: int, shape: tuple[int, ...], **fields: Any) -> Any:
    message = stubs.tensor.TensorProto(dtype=dtype, **fields)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


@dataclass(frozen=True)
class Case:
    name: str
    model: str
    inputs: Mapping[str, dict[str, Any]]
    words: tuple[str, ...]

    def request(self, client: Any) -> Any:
        return client.request(self.model, {name: proto(client.stubs, **each) for name, each in self.inputs.items()})


def floats(name: str, given: dict[str, Any], *words: str) -> Case:
    """A tensor for the model that expects DT_FLOAT [2, 3] as 'x'."""
    return Case(name, "floats", {"data": given}, ("'x'", "expected", "got", *words))


def one(name: str, model: str, given: dict[str, Any], *words: str) -> Case:
    return Case(name, model, {"data": given}, ("expected", *words))


SIX_FLOATS = bytes(24)
TENSORS = [
    floats("wrong dtype", tensor(INT32, 2, 3, tensor_content=SIX_FLOATS), "DT_FLOAT", "DT_INT32"),
    floats("wider dtype", tensor(DOUBLE, 2, 3, tensor_content=bytes(48)), "DT_FLOAT", "DT_DOUBLE"),
    floats("no dtype", tensor(0, 2, 3, tensor_content=SIX_FLOATS), "DT_FLOAT", "DT_INVALID"),
    floats("an empty TensorProto", tensor(0), "DT_FLOAT", "DT_INVALID"),
    floats("unsupported dtype DT_QUINT8", tensor(QUINT8, 2, 3, tensor_content=bytes(6)), "DT_FLOAT", "DT_QUINT8"),
    floats(
        "unsupported dtype DT_BFLOAT16", tensor(BFLOAT16, 2, 3, tensor_content=bytes(12)), "DT_FLOAT", "DT_BFLOAT16"
    ),
    floats("unsupported dtype DT_RESOURCE", tensor(RESOURCE, 2, 3), "DT_FLOAT", "DT_RESOURCE"),
    floats("dtype of nobody's", tensor(999, 2, 3, tensor_content=SIX_FLOATS), "DT_FLOAT", "999"),
    floats("negative dtype", tensor(-1, 2, 3, tensor_content=SIX_FLOATS), "DT_FLOAT", "-1"),
    floats("rank too low", tensor(FLOAT, 6, tensor_content=SIX_FLOATS), "[2, 3]", "[6]"),
    floats("rank too high", tensor(FLOAT, 1, 1, 2, 3, tensor_content=SIX_FLOATS), "[2, 3]", "[1, 1, 2, 3]"),
    floats("no shape", tensor(FLOAT, float_val=[1.0]), "[2, 3]", "[]"),
    floats("dimensions the wrong way round", tensor(FLOAT, 3, 2, tensor_content=SIX_FLOATS), "[2, 3]", "[3, 2]"),
    floats("300 dimensions", tensor(FLOAT, *[1] * 300, float_val=[1.0]), "16 dimensions", "300"),
    floats("negative dimension", tensor(FLOAT, -1, 3, tensor_content=SIX_FLOATS), "[-1, 3]"),
    floats("lowest dimension", tensor(FLOAT, -(2**63), 3, tensor_content=SIX_FLOATS), str(-(2**63))),
    floats("dimension of 2**62", tensor(FLOAT, 2**62, 3, tensor_content=SIX_FLOATS), str(2**62)),
    one("product overflow", "floats", tensor(FLOAT, *[2**31 - 1] * 8, float_val=[1.0]), "'x'", "2147483647"),
    one("product that overflows to zero", "floats", tensor(FLOAT, *[2**16] * 4), "'x'", "65536"),
    floats("zero dimension", tensor(FLOAT, 0, 3), "[2, 3]", "[0, 3]"),
    one("zero dimension where the model has it open", "open", tensor(FLOAT, 0, 3), "'x'", "[-1, 3]", "got [0, 3]"),
    one("zero and huge dimensions", "floats", tensor(FLOAT, 0, 2**31 - 1, 2**31 - 1), "'x'", "[2, 3]"),
    floats("a byte too few", tensor(FLOAT, 2, 3, tensor_content=bytes(23)), "24 bytes", "23"),
    floats("a byte too many", tensor(FLOAT, 2, 3, tensor_content=bytes(25)), "24 bytes", "25"),
    floats("no bytes", tensor(FLOAT, 2, 3), "6 elements", "0 values"),
    floats("data twice", tensor(FLOAT, 2, 3, tensor_content=SIX_FLOATS, float_val=[1.0]), "once", "float_val"),
    floats("data in another dtype's field", tensor(FLOAT, 2, 3, double_val=[1.0]), "float_val", "double_val"),
    floats("data in two fields", tensor(FLOAT, 2, 3, float_val=[1.0], int_val=[1]), "float_val", "int_val"),
    floats("data in string_val", tensor(FLOAT, 2, 3, string_val=[b"/capture"]), "float_val", "string_val"),
    floats("too many values", tensor(FLOAT, 2, 3, float_val=[1.0] * 7), "1 to 6 elements", "7"),
    one(
        "one value for a huge shape", "bytes", tensor(UINT8, 2**31 - 1, int_val=[7]), "'data'", "2147483647", "at most"
    ),
    one("value too large for uint8", "bytes", tensor(UINT8, 3, int_val=[1, 256, 3]), "DT_UINT8", "0 to 255", "got 256"),
    one("value too small for uint8", "bytes", tensor(UINT8, 3, int_val=[-1]), "DT_UINT8", "0 to 255", "got -1"),
    one("value too large for int8", "int8", tensor(INT8, 3, int_val=[128]), "DT_INT8", "-128 to 127", "got 128"),
    one("value too large for uint16", "uint16", tensor(UINT16, 3, int_val=[65536]), "0 to 65535", "got 65536"),
    one("bits too large for a half", "half", tensor(HALF, 3, half_val=[0x10000]), "DT_HALF", "65535", "got 65536"),
    one("negative bits of a half", "half", tensor(HALF, 3, half_val=[-1]), "DT_HALF", "got -1"),
    one("half of a complex number", "complex", tensor(COMPLEX64, 3, scomplex_val=[1.0, 2.0, 3.0]), "scomplex_val", "3"),
    one("too many complex numbers", "complex", tensor(COMPLEX64, 3, scomplex_val=[1.0] * 8), "scomplex_val", "8"),
    one("batch of two pictures", "picture", tensor(UINT8, 2, 16, 24, 3, int_val=[1]), "'image'", "[2, 16, 24, 3]"),
    one("picture with transparency", "picture", tensor(UINT8, 1, 8, 8, 4, int_val=[1]), "'image'", "[1, 8, 8, 4]"),
    one("grey picture", "picture", tensor(UINT8, 1, 8, 8, 1, int_val=[1]), "'image'", "[1, 8, 8, 1]"),
    one("picture without height", "picture", tensor(UINT8, 1, 0, 8, 3), "'image'", "[1, 0, 8, 3]"),
    one("picture with rank 2", "picture", tensor(UINT8, 8, 24, int_val=[1]), "'image'", "RGB image", "[8, 24]"),
    one(
        "picture for a model that takes floats",
        "float_picture",
        tensor(UINT8, 1, 16, 24, 3, int_val=[1]),
        *("'image'", "DT_FLOAT", "DT_UINT8"),
    ),
    one(
        "picture of floats in another size",
        "float_picture",
        tensor(FLOAT, 1, 8, 8, 3, float_val=[1.0]),
        *("'image'", "[1, 16, 24, 3]", "[1, 8, 8, 3]"),
    ),
    one("picture with no batch and another size", "picture", tensor(UINT8, 0, 8, 8, 3), "'image'", "[0, 8, 8, 3]"),
    Case(
        "picture wider than the converter takes",
        "picture",
        {"data": tensor(UINT8, 1, 1, 20000, 3, int_val=[1])},
        ("20000x1", "at most 16384"),
    ),
    floats(
        "unknown rank",
        tensor(FLOAT, tensor_content=SIX_FLOATS, tensor_shape={"unknown_rank": True}),
        "a shape",
        "unknown rank",
    ),
]

LEFT, RIGHT = tensor(UINT8, 2, int_val=[1]), tensor(FLOAT, 3, float_val=[1.0])
INPUTS = [
    Case("no inputs", "floats", {}, ("inputs", "expected 1", "'x'", "got 0")),
    Case("two inputs for a model of one", "bytes", {"data": LEFT, "b": LEFT}, ("expected 1", "'data'", "got 2")),
    Case("one input for a model of two", "pair", {"left": LEFT}, ("expected 2", "'left', 'right'", "got 1")),
    Case("three inputs for a model of two", "pair", {"left": LEFT, "right": RIGHT, "x": LEFT}, ("expected 2", "got 3")),
    Case("an unknown name", "pair", {"left": LEFT, "data": RIGHT}, ("'left', 'right'", "got 'data'")),
    Case("two unknown names", "pair", {"a": LEFT, "b": RIGHT}, ("'left', 'right'", "got 'a', 'b'")),
    Case("names in another case", "pair", {"Left": LEFT, "right": RIGHT}, ("'left', 'right'", "got 'Left'")),
    Case(
        "tensors under each other's names", "pair", {"left": RIGHT, "right": LEFT}, ("'left'", "DT_UINT8", "DT_FLOAT")
    ),
]

STRINGS = [
    Case(name, "floats", {"data": given}, ("'x'", "expected", *words))
    for name, given, *words in (
        ("string without a name", tensor(STRING), "one shared memory object", "0 strings"),
        ("two names", tensor(STRING, string_val=[b"/a", b"/b"]), "one shared memory object", "2 strings"),
        ("name and content", tensor(STRING, string_val=[b"/a"], tensor_content=b"a"), "1 strings and tensor_content"),
        ("name in tensor_content", tensor(STRING, tensor_content=b"/a"), "0 strings and tensor_content"),
        ("empty name", tensor(STRING, string_val=[b""]), "a name such as"),
        ("name of a slash", tensor(STRING, string_val=[b"/"]), "a name such as"),
        ("name with a slash inside", tensor(STRING, string_val=[b"/a/b"]), "'/a/b'", "no other slash"),
        ("name with two slashes", tensor(STRING, string_val=[b"//etc"]), "'//etc'", "no other slash"),
        ("path out of the folder", tensor(STRING, string_val=[b"../etc/passwd"]), "'../etc/passwd'", "no other slash"),
        ("name of the folder above", tensor(STRING, string_val=[b".."]), "'..'", "a name such as"),
        ("name of the folder", tensor(STRING, string_val=[b"/."]), "'/.'", "a name such as"),
        ("name of 300 bytes", tensor(STRING, string_val=[b"n" * 300]), "1 to 255 bytes"),
        ("name with NUL", tensor(STRING, string_val=[b"/a\0b"]), "\\x00", "a name such as"),
    )
]


@pytest.mark.parametrize("case", [*TENSORS, *INPUTS, *STRINGS], ids=lambda case: case.name)
def test_inputs_that_do_not_fit_are_refused_with_what_was_expected_and_what_came(bench: Bench, case: Case) -> None:
    bench.refused(case.request(bench.client), "INVALID_ARGUMENT", *case.words)


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (1, 2), (2, 1), (24, 16), (25, 17), (4000, 3), (3, 4000), (1280, 720), (16384, 2)]
)
def test_a_picture_of_any_other_size_is_fitted(bench: Bench, width: int, height: int) -> None:
    picture = np.full((1, height, width, 3), (200, 100, 50), np.uint8)
    with bench.unharmed():
        (fitted,) = bench.client.predict("picture", {"data": picture}).values()
        assert fitted.shape == (1, 16, 24, 3)
        assert np.abs(fitted.astype(int) - (200, 100, 50)).max() <= 8


SharedObject = Callable[[], Path]


@pytest.fixture
def shared_object() -> Iterator[Path]:
    """A path in the folder of shared memory, where there is nothing yet."""
    path = SHARED_MEMORY / f"acap-test-{os.getpid()}"
    try:
        yield path
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def _belonging_to_nobody(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may give a file away")
    path.write_bytes(SIX_FLOATS)
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o666)


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        pytest.param(lambda _: None, "NOT_FOUND", ["does not exist"], id="nothing"),
        pytest.param(lambda path: path.write_bytes(b""), "INVALID_ARGUMENT", ["24 bytes", "got 0"], id="empty"),
        pytest.param(
            lambda path: path.write_bytes(bytes(23)), "INVALID_ARGUMENT", ["24 bytes", "got 23"], id="too small"
        ),
        pytest.param(os.mkfifo, "PERMISSION_DENIED", ["no shared memory object"], id="a FIFO"),
        pytest.param(Path.mkdir, "PERMISSION_DENIED", ["no shared memory object"], id="a directory"),
        pytest.param(
            lambda path: path.symlink_to("/etc/passwd"), "PERMISSION_DENIED", ["cannot be opened"], id="a link"
        ),
        pytest.param(
            lambda path: path.symlink_to("nowhere"), "PERMISSION_DENIED", ["cannot be opened"], id="a dead link"
        ),
        pytest.param(_belonging_to_nobody, "PERMISSION_DENIED", [str(NOBODY), "expected"], id="of another user"),
    ],
)
def test_shared_memory_that_cannot_be_the_input_is_refused(
    bench: Bench, shared_object: Path, make: Callable[[Path], object], status: str, words: list[str]
) -> None:
    make(shared_object)
    given = tensor(STRING, string_val=[shared_object.name.encode()])
    request = Case("", "floats", {"data": given}, ()).request(bench.client)
    bench.refused(request, status, "'x'", f"'{shared_object.name}'", *words)


def test_a_shared_memory_name_that_is_no_text_is_not_found(bench: Bench) -> None:
    request = Case("", "floats", {"data": tensor(STRING, string_val=[b"/\xff\xfe\x80"])}, ()).request(bench.client)
    bench.refused(request, "NOT_FOUND", "'x'", "does not exist")


def test_shared_memory_for_an_input_of_open_shape_needs_one(bench: Bench, shared_object: Path) -> None:
    shared_object.write_bytes(SIX_FLOATS)
    given = tensor(STRING, string_val=[shared_object.name.encode()])
    request = Case("", "open", {"data": given}, ()).request(bench.client)
    bench.refused(request, "INVALID_ARGUMENT", "'x'", "expected a shape", "[-1, 3]")


def test_shared_memory_larger_than_the_limit_is_refused(bench: Bench, shared_object: Path) -> None:
    with shared_object.open("wb") as file:
        file.truncate(9 << 20)
    given = tensor(STRING, 9 << 20, string_val=[shared_object.name.encode()])
    request = Case("", "bytes", {"data": given}, ()).request(bench.client)
    bench.refused(request, "INVALID_ARGUMENT", "'data'", "at most", "--max-message-size")


def test_shared_memory_that_is_truncated_while_its_call_waits_is_refused(bench: Bench, shared_object: Path) -> None:
    shared_object.write_bytes(b"four")
    named = Case("", "slow", {"x": tensor(STRING, string_val=[shared_object.name.encode()])}, ())

    def is_open() -> bool:
        folder = Path(f"/proc/{bench.server.process.pid}/fd")
        return shared_object in [each.readlink() for each in folder.iterdir() if each.is_symlink()]

    with bench.unharmed():
        ahead = [_start_slow_call(bench) for _ in range(3)]
        waiting = _stub(bench).Predict.future(named.request(bench.client), timeout=30)
        _wait_until(is_open, "the object was never opened")
        os.truncate(shared_object, 2)
        assert waiting.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "shrank" in waiting.details()
        assert [each.code() for each in ahead] == [grpc.StatusCode.OK] * 3


LONG_PATH = "/" + "p" * 9_999


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        pytest.param("nobody", "NOT_FOUND", ["'nobody'", "expected one of", "'floats'"], id="unknown"),
        pytest.param("", "INVALID_ARGUMENT", ["model_spec.name", "expected", "nothing"], id="no name"),
        pytest.param("models/x.toml", "NOT_FOUND", ["'models/x.toml'", "absolute path"], id="relative path"),
        pytest.param("./floats", "NOT_FOUND", ["'./floats'"], id="path to a name"),
        pytest.param("/does/not/exist", "NOT_FOUND", ["'/does/not/exist' does not exist"], id="no file"),
        pytest.param("/etc/passwd/x", "INVALID_ARGUMENT", ["'/etc/passwd/x'"], id="path through a file"),
        pytest.param("/usr", "INVALID_ARGUMENT", ["'/usr'", "no regular file"], id="a directory"),
        pytest.param("/", "INVALID_ARGUMENT", ["'/'", "no regular file"], id="the root"),
        pytest.param("/dev/zero", "INVALID_ARGUMENT", ["'/dev/zero'", "no regular file"], id="an endless device"),
        pytest.param("/dev/null", "INVALID_ARGUMENT", ["'/dev/null'", "no regular file"], id="a device"),
        pytest.param("/proc/self/environ", "INVALID_ARGUMENT", ["no regular file"], id="a file in /proc"),
        pytest.param("/sys/kernel/uevent_seqnum", "INVALID_ARGUMENT", ["no regular file"], id="a file in /sys"),
        pytest.param("/tmp/a\0b", "INVALID_ARGUMENT", ["NUL"], id="path with NUL"),
        pytest.param(LONG_PATH, "INVALID_ARGUMENT", ["at most 4096"], id="path of 10,000 characters"),
        pytest.param("x" * (1 << 20), "NOT_FOUND", ["is unknown"], id="name of 1 MB"),
        pytest.param("ü" * (1 << 19), "NOT_FOUND", ["is unknown"], id="name of 1 MB that is not ASCII"),
        pytest.param("/" + "😀" * 3000, "INVALID_ARGUMENT", ["😀😀", "too long"], id="path of 3,000 emoji"),
        pytest.param("a\r\n\x1b[31mb😀", "NOT_FOUND", [r"'a\r\n\x1b[31mb😀'"], id="control characters and emoji"),
    ],
)
def test_a_name_that_leads_to_no_model_is_refused_in_a_message_that_arrives(
    bench: Bench, name: str, status: str, words: list[str]
) -> None:
    request = bench.client.request(name, {"data": np.zeros((2, 3), np.float32)})
    details = bench.refused(request, status, *words)
    assert len(details) < 1500
    assert details.isprintable()


def test_a_message_that_lists_many_names_arrives_as_well(bench: Bench) -> None:
    scalar = np.zeros(1, np.uint8)
    request = bench.client.request("floats", {f"😀{'n' * 1000}{number}": scalar for number in range(100)})
    assert len(bench.refused(request, "INVALID_ARGUMENT", "expected 1", "got 100")) < 1500
    request = bench.client.request("floats", {"data": np.zeros((2, 3), np.float32)})
    request.output_filter.extend(f"😀\n{'n' * 1000}{number}" for number in range(100))
    assert len(bench.refused(request, "INVALID_ARGUMENT", "'x'", "😀", "more")) < 2500


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        pytest.param(_fifo, "INVALID_ARGUMENT", ["no regular file"], id="a FIFO"),
        pytest.param(_loop, "INVALID_ARGUMENT", ["symbolic links"], id="a loop of links"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "NOT_FOUND", ["does not exist"], id="a dead link"),
        pytest.param(lambda path: path.write_text("dtype"), "INVALID_ARGUMENT", ["expected a TOML"], id="no TOML"),
        pytest.param(lambda path: path.write_text("x = 1"), "INVALID_ARGUMENT", ["['x']"], id="unknown knob"),
        pytest.param(lambda path: path.write_text('fail = "load"'), "INTERNAL", ["told to fail"], id="chip fails"),
        pytest.param(lambda path: path.write_text('raise = "load"'), "INTERNAL", ["told to raise"], id="plugin raises"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(
    bench: Bench, tmp_path: Path, make: Callable[[Path], object], status: str, words: list[str]
) -> None:
    path = tmp_path / "given.toml"
    make(path)
    request = bench.client.request(str(path), {"data": np.zeros(3, np.uint8)})
    bench.refused(request, status, *words)
    bench.refused(request, status, *words)  # refused again, from memory where it was tried


def test_a_special_file_is_refused_without_being_opened(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: os.close(os.open(path, os.O_WRONLY)))
    writer.start()  # blocks until somebody opens the other end
    try:
        bench.refused(
            bench.client.request(str(path), {"data": np.zeros(3, np.uint8)}), "INVALID_ARGUMENT", "no regular"
        )
        assert writer.is_alive()
    finally:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        writer.join(10)


def test_a_file_that_becomes_a_model_is_loaded_although_it_was_refused(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "late.toml"
    request = bench.client.request(str(path), {"data": np.zeros(3, np.uint8)})
    bench.refused(request, "NOT_FOUND", str(path))
    path.write_text("dtype")
    bench.refused(request, "INVALID_ARGUMENT", "expected a TOML")
    path.write_text("")
    with bench.unharmed():
        assert bench.client.send(request).outputs["data"].tensor_content == bytes(3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", ["TFL3", "0 bytes"], id="empty"),
        pytest.param(b"This is no model, it is a text.\n" * 9, ["TFL3"], id="text"),
        pytest.param(np.random.default_rng(3).bytes(5000), ["TFL3"], id="random bytes"),
        pytest.param(
            b"\x1c\0\0\0TFL3" + np.random.default_rng(4).bytes(5000), [], id="random bytes after a good start"
        ),
        *(pytest.param(share, [], id=f"{share:%} of a model") for share in (0.0005, 0.01, 0.1, 0.5, 0.9, 0.99999)),
    ],
)
def test_a_file_that_is_not_all_of_a_model_is_refused(
    cpu: Bench, tmp_path: Path, content: bytes | float, words: list[str]
) -> None:
    if isinstance(content, float):
        whole = DIGITS.read_bytes()
        content = whole[: int(len(whole) * content)]
    path = tmp_path / "given.tflite"
    path.write_bytes(content)
    request = cpu.client.request(str(path), {"data": np.zeros((1, 32, 32, 3), np.uint8)})
    cpu.refused(request, "INVALID_ARGUMENT", str(path), "expected a TensorFlow Lite model", *words)


def test_a_model_with_an_operator_that_the_runtime_lacks_is_refused(cpu: Bench, models: Path) -> None:
    path = models / "model_invoking_error.tflite"
    request = cpu.client.request(str(path), {"data": np.zeros(1, np.float32)})
    cpu.refused(request, "INVALID_ARGUMENT", str(path), "runs on the CPU", "fake-op-double")


@pytest.mark.parametrize(
    ("model", "words"),
    [("fails", ["told to fail"]), ("raises", ["told to raise", "RuntimeError"]), ("lies", ["uint8", "int16"])],
)
def test_a_chip_that_fails_or_a_plugin_that_errs_fails_that_call(bench: Bench, model: str, words: list[str]) -> None:
    bench.refused(bench.client.request(model, {"data": np.zeros(3, np.uint8)}), "INTERNAL", *words)


def test_an_unreadable_file_is_refused(start_server: Callable[..., Any], tmp_path: Path) -> None:
    through: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root reads every file, and there is no setpriv that would take that from it")
        through = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    secret, folder, good = (tmp_path / name for name in ("secret.toml", "folder", "good.toml"))
    secret.touch(0o000)
    good.touch()
    folder.mkdir()
    (folder / "inside.toml").touch()
    folder.chmod(0o000)
    server = start_server("-j", "1", through=through)
    pids = _pids(server)
    three = np.zeros(3, np.uint8)
    try:
        with server.client() as client:
            for path in (secret, folder / "inside.toml"):
                request = client.request(str(path), {"data": three})
                refused(client, request, "PERMISSION_DENIED", str(path), "not readable", str(os.geteuid()))
                assert client.predict(str(good), {"data": three})["data"].shape == (3,)
    finally:
        folder.chmod(0o700)
    assert pids == _pids(server)


def _floats(client: Any, **fields: Any) -> Any:
    return client.request("floats", {"x": np.zeros((2, 3), np.float32)}, **fields)


def test_an_output_that_the_model_does_not_have_is_refused(bench: Bench) -> None:
    request = _floats(bench.client, output_filter=["x", "y"])
    bench.refused(request, "INVALID_ARGUMENT", "output_filter", "expected", "'x'", "got 'y'")
    bench.refused(_floats(bench.client, output_filter=[""]), "INVALID_ARGUMENT", "output_filter", "got ''")


def test_an_output_that_is_asked_for_twice_comes_once(bench: Bench) -> None:
    with bench.unharmed():
        assert list(bench.client.send(_floats(bench.client, output_filter=["x"] * 5)).outputs) == ["x"]


@pytest.mark.parametrize("version", [7, 0, -1, 2**63 - 1])
def test_a_version_that_does_not_exist_is_not_found(bench: Bench, version: int) -> None:
    request = _floats(bench.client)
    request.model_spec.version.value = version
    bench.refused(request, "NOT_FOUND", "'floats'", f"version {version}", "it has: 1")


def test_a_version_label_is_not_found(bench: Bench) -> None:
    request = _floats(bench.client)
    request.model_spec.version_label = "stable"
    bench.refused(request, "NOT_FOUND", "'floats'", "'stable'")


def test_a_stream_that_does_not_exist_is_refused(bench: Bench) -> None:
    bench.refused(_floats(bench.client, stream_id=5), "FAILED_PRECONDITION", "stream 5")


def test_a_request_above_the_limit_is_refused(bench: Bench) -> None:
    request = bench.client.request("bytes", {"data": np.zeros(10 << 20, np.uint8)})
    bench.refused(request, "RESOURCE_EXHAUSTED", "larger than max", str(9 << 20))


def _send_bytes(bench: Bench, data: bytes, method: str = "/tensorflow.serving.PredictionService/Predict") -> bytes:
    return bench.client.channel.unary_unary(method)(data, timeout=30)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff" * 100, id="no protobuf"),
        pytest.param(b"\x0a\x7f", id="a field that ends too early"),
        pytest.param(b"\x0a\x03\x0a\x01\xff", id="a name that is no UTF-8"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\x0b" * 10_000, id="groups within groups"),
    ],
)
def test_bytes_that_are_no_request_are_refused(bench: Bench, data: bytes) -> None:
    with bench.unharmed(), pytest.raises(grpc.RpcError) as caught:
        _send_bytes(bench, data)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details()


def test_an_empty_request_is_refused(bench: Bench) -> None:
    bench.refused(bench.client.stubs.predict.PredictRequest(), "INVALID_ARGUMENT", "model_spec.name")


def test_fields_from_the_future_are_no_obstacle(bench: Bench) -> None:
    known = _floats(bench.client).SerializeToString()
    unknown = b"\xfa\x3e\x05later" + b"\xf8\x3f\x01"  # field 1007: five bytes; field 1023: the number 1
    with bench.unharmed():
        assert b"serving_default" in _send_bytes(bench, unknown + known + unknown)


@pytest.mark.parametrize(
    "method",
    [
        "/tensorflow.serving.PredictionService/Classify",
        "/tensorflow.serving.PredictionService/predict",
        "/tensorflow.serving.Nobody/Predict",
        "/Predict",
    ],
)
def test_a_method_that_does_not_exist_is_unimplemented(bench: Bench, method: str) -> None:
    with bench.unharmed(), pytest.raises(grpc.RpcError) as caught:
        _send_bytes(bench, b"", method)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def _stub(bench: Bench) -> Any:
    return bench.client.stubs.service.PredictionServiceStub(bench.client.channel)


def _start_slow_call(bench: Bench, timeout: float = 30.0) -> Any:
    request = bench.client.request("slow", {"x": np.zeros(4, np.uint8)})
    return _stub(bench).Predict.future(request, timeout=timeout)


def test_a_call_that_is_cancelled_at_once_leaves_nothing(bench: Bench) -> None:
    with bench.unharmed():
        call = _start_slow_call(bench)
        call.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            call.result()


def test_a_call_that_is_cancelled_while_it_runs_leaves_nothing(bench: Bench) -> None:
    with bench.unharmed():
        call = _start_slow_call(bench)
        time.sleep(0.2)
        call.cancel()
        assert call.code() is grpc.StatusCode.CANCELLED


def test_calls_that_are_cancelled_before_they_start_never_run(bench: Bench) -> None:
    with bench.unharmed():
        running = [_start_slow_call(bench) for _ in range(2)]
        time.sleep(0.2)
        waiting = [_start_slow_call(bench) for _ in range(20)]
        time.sleep(0.2)
        for call in waiting:
            call.cancel()
        started = time.monotonic()
        last = _start_slow_call(bench)
        assert [call.code() for call in (*running, last)] == [grpc.StatusCode.OK] * 3
        assert time.monotonic() - started < 5.0, "20 calls of 0.5 s were run for nobody"


def test_a_deadline_that_has_passed_already_is_answered_so(bench: Bench) -> None:
    bench.refused(_floats(bench.client), "DEADLINE_EXCEEDED", timeout=-1.0)


def test_a_deadline_that_passes_while_the_chip_runs_is_kept(bench: Bench) -> None:
    started = time.monotonic()
    with bench.unharmed():
        assert _start_slow_call(bench, timeout=0.1).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 0.5


def test_calls_whose_deadline_passes_while_they_wait_never_run(bench: Bench) -> None:
    with bench.unharmed():
        running = [_start_slow_call(bench) for _ in range(2)]
        time.sleep(0.1)
        waiting = [_start_slow_call(bench, timeout=0.1) for _ in range(20)]
        # At once, where it is known already that the chip cannot be so fast.
        late = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert {call.code() for call in waiting} <= late
        started = time.monotonic()
        last = _start_slow_call(bench)
        assert [call.code() for call in (*running, last)] == [grpc.StatusCode.OK] * 3
        assert time.monotonic() - started < 5.0, "20 calls of 0.5 s were run for nobody"


def test_a_deadline_that_passes_while_the_model_loads_leaves_the_load_to_others(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "late.toml"
    path.write_text("load_delay = 1")
    request = bench.client.request(str(path), {"data": np.zeros(3, np.uint8)})
    bench.refused(request, "DEADLINE_EXCEEDED", timeout=0.3)
    with bench.unharmed():
        bench.client.send(request)
        assert bench.server.log.count(f"model {path} loaded") == 1


def test_a_call_that_is_cancelled_while_the_model_loads_leaves_the_load_to_others(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "late.toml"
    path.write_text("load_delay = 1")
    request = bench.client.request(str(path), {"data": np.zeros(3, np.uint8)})
    with bench.unharmed():
        call = _stub(bench).Predict.future(request)
        time.sleep(0.3)
        call.cancel()
        bench.client.send(request)
        assert bench.server.log.count(f"model {path} loaded") == 1


def test_a_client_that_vanishes_in_a_call_leaves_nothing(bench: Bench) -> None:
    with bench.unharmed(), bench.server.client() as leaving:
        request = leaving.request("slow", {"x": np.zeros(4, np.uint8)})
        leaving.stubs.service.PredictionServiceStub(leaving.channel).Predict.future(request)
        time.sleep(0.2)
