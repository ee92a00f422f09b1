"""Inputs of ModelInferRequests; whole calls are in tests/services/test_kserve.py."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acap_runtime.errors import AlreadyExists, Busy, Forbidden, InvalidRequest, NotFound, NotReady, Unimplemented
from acap_runtime.proto import ModelInferRequest, ModelInferResponse
from acap_runtime.wire.client_regions import ClientRegions, Region
from acap_runtime.wire.v2_tensors import V2Reader, add_output, datatype_of

READER = V2Reader(1 << 20, ClientRegions())
DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip


def request(*inputs: tuple[str, str, list[int], dict[str, Any]], raw: list[bytes] | None = None) -> Any:
    made = ModelInferRequest(raw_input_contents=raw or [])
    for name, datatype, shape, contents in inputs:
        tensor = made.inputs.add(name=name, datatype=datatype, shape=shape)
        if contents:
            tensor.contents.SetInParent()
            for field, values in contents.items():
                getattr(tensor.contents, field).extend(values)
    return made


def shared(made: Any, region: str, nbytes: int, offset: int | None = None) -> Any:
    parameters = made.inputs[0].parameters
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = nbytes
    if offset is not None:
        parameters["shared_memory_offset"].int64_param = offset
    return made


def read(made: Any, dtype: str, reader: V2Reader = READER) -> np.ndarray:
    tensor = reader.read(made)["x"].read("x", np.dtype(dtype), ())
    content = bytearray(tensor.source.nbytes)
    tensor.source.write_into(memoryview(content))
    tensor.source.close()
    return np.frombuffer(bytes(content), tensor.dtype).reshape(tensor.shape)


class SharedObject:
    """What a client makes with shm_open. Python's own starts a process that watches over it, which other tests see."""

    def __init__(self, size: int) -> None:
        self.path = Path(tempfile.mkstemp(prefix="acap-test-", dir="/dev/shm")[1])
        self.name = self.path.name
        self.path.write_bytes(bytes(size))

    def read(self, start: int, end: int) -> bytes:
        return self.path.read_bytes()[start:end]

    def write(self, start: int, content: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(start)
            file.write(content)


@pytest.fixture
def memory() -> Iterator[SharedObject]:
    made = SharedObject(4096)
    yield made
    made.path.unlink()


@pytest.mark.parametrize("dtype", DATATYPES)
def test_what_is_written_is_read_again(dtype: str) -> None:
    given = np.arange(6).astype(dtype).reshape(2, 3)
    response = ModelInferResponse()
    add_output(response, "x", given.dtype, given.shape, given.tobytes())
    output = response.outputs[0]
    assert (output.name, output.datatype, list(output.shape)) == ("x", DATATYPES[dtype], [2, 3])
    made = request(("x", output.datatype, [2, 3], {}), raw=list(response.raw_output_contents))
    assert np.array_equal(read(made, dtype), given)


def test_a_dtype_that_the_protocol_lacks_is_said_to_be_so() -> None:
    with pytest.raises(Unimplemented, match="complex64"):
        datatype_of("x", np.dtype("complex64"))


@pytest.mark.parametrize(
    ("datatype", "contents", "dtype"),
    [
        ("BOOL", {"bool_contents": [True, False]}, "bool"),
        ("INT8", {"int_contents": [-128, 127]}, "int8"),
        ("UINT16", {"uint_contents": [0, 65535]}, "uint16"),
        ("UINT64", {"uint64_contents": [0, 2**64 - 1]}, "uint64"),
        ("INT64", {"int64_contents": [-(2**63), 2**63 - 1]}, "int64"),
        ("FP32", {"fp32_contents": [1.5, float("inf")]}, "float32"),
        ("FP64", {"fp64_contents": [1.5, -2.5]}, "float64"),
    ],
)
def test_typed_contents_are_read(datatype: str, contents: dict[str, list[Any]], dtype: str) -> None:
    (values,) = contents.values()
    assert read(request(("x", datatype, [2], contents)), dtype).tolist() == values


def test_a_tensor_without_elements_is_one() -> None:
    assert read(request(("x", "FP32", [0, 3], {}), raw=[b""]), "float32").shape == (0, 3)
    assert read(request(("x", "FP32", [0, 3], {"fp32_contents": []})), "float32").shape == (0, 3)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (request(("x", "UINT8", [3], {}), raw=[b"ab"]), "'x'.*3 bytes.*UINT8.*2 in raw_input_contents"),
        (request(("x", "UINT8", [3], {}), raw=[b"abc", b"d"]), "raw_input_contents: expected 1.*got 2"),
        (
            request(("x", "UINT8", [1], {}), ("y", "UINT8", [1], {}), raw=[b"a"]),
            "raw_input_contents: expected 2.*got 1",
        ),
        (request(("x", "UINT8", [1], {"uint_contents": [1]}), raw=[b"a"]), "'x'.*data once"),
        (request(("x", "UINT8", [1], {}), ("x", "UINT8", [1], {}), raw=[b"a", b"b"]), "'x' again"),
        (request(("x", "UINT8", [2], {"uint_contents": [1]})), "'x'.*2 elements.*got 1 in uint_contents"),
        (request(("x", "UINT8", [2], {"uint_contents": [1, 256]})), "'x'.*0 to 255 in uint_contents, got 256"),
        (request(("x", "INT8", [2], {"int_contents": [-129, 0]})), "'x'.*-128 to 127 in int_contents, got -129"),
        (request(("x", "UINT8", [1], {"int_contents": [1]})), "'x'.*uint_contents.*got int_contents"),
        (request(("x", "FP32", [1], {"fp32_contents": [1], "fp64_contents": [1]})), "fp32_contents and fp64_contents"),
        (request(("x", "FP16", [1], {"fp32_contents": [1]})), "'x'.*FP16 in raw_input_contents"),
        (request(("x", "BYTES", [1], {}), raw=[b"\1\0\0\0a"]), "'x'.*UINT8.*got 'BYTES'"),
        (request(("x", "FLOAT", [1], {}), raw=[b"abcd"]), "'x'.*FP32.*got 'FLOAT'"),
        (request(("x", "UINT8", [-1], {}), raw=[b"abcd"]), "'x'.*dimensions"),
        (request(("x", "UINT8", [1] * 17, {}), raw=[b"a"]), "'x'.*16 dimensions"),
        (request(("x", "UINT8", [2**20 + 1], {}), raw=[b""]), "'x'.*max-message-size"),
        (request(("x", "UINT8", [2**31 - 1] * 16, {}), raw=[b""]), "'x'.*max-message-size"),
        (request(("x", "FP32", [1], {})), "'x'.*expected data.*got none"),
        (request(("x", "FP64", [1], {}), raw=[b"12345678"]), "'x'.*datatype FP32, got FP64"),
        (shared(request(("x", "UINT8", [1], {"uint_contents": [1]})), "r", 1), "not registered"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected_and_what_came(made: Any, words: str) -> None:
    with pytest.raises((InvalidRequest, NotFound), match=words):
        read(made, "float32")


def test_an_input_without_data_is_left_to_a_stream() -> None:
    given = READER.read(request(("x", "", [], {}), ("y", "UINT8", [1], {"uint_contents": [1]})))
    assert [given[name].has_data for name in ("x", "y")] == [False, True]


def test_an_input_is_read_out_of_a_region(memory: SharedObject) -> None:
    regions = ClientRegions()
    regions.register("r", Region(f"/{memory.name}", 100, 1000))
    memory.write(300, np.float32([1.5, 2.5]).tobytes())
    reader = V2Reader(1 << 20, regions)
    made = shared(request(("x", "FP32", [2], {})), "r", 8, 200)
    assert read(made, "float32", reader).tolist() == [1.5, 2.5]
    for broken, words in (
        (shared(request(("x", "FP32", [2], {})), "r", 8, 993), "1000.*8 from byte 993"),
        (shared(request(("x", "FP32", [2], {})), "r", 8, -1), "8 from byte -1"),
        (shared(request(("x", "FP32", [2], {})), "r", -8), "-8 from byte 0"),
        (shared(request(("x", "FP32", [2], {})), "r", 9), "expected 8 bytes.*got 9 in shared_memory_byte_size"),
        (shared(request(("x", "FP32", [2], {"fp32_contents": [1, 2]})), "r", 8), "data once"),
        (shared(request(("x", "FP32", [2], {}), raw=[b"12345678"]), "r", 8), "raw_input_contents: expected 0"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            read(broken, "float32", reader)
    with pytest.raises(NotReady, match="unix socket"):
        read(made, "float32", V2Reader(1 << 20, None))


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("shared_memory_region", "int64_param", 1),
        ("shared_memory_offset", "string_param", "1"),
        ("shared_memory_byte_size", "uint64_param", 8),
    ],
)
def test_parameters_of_shared_memory_have_their_types(name: str, field: str, value: object) -> None:
    made = shared(request(("x", "FP32", [2], {})), "r", 8, 0)
    setattr(made.inputs[0].parameters[name], field, value)
    with pytest.raises(InvalidRequest, match=f"{name}: expected .*_param, got {field}"):
        READER.read(made)


@pytest.mark.parametrize("name", ["shared_memory_region", "shared_memory_byte_size"])
def test_half_a_place_in_shared_memory_is_none(name: str) -> None:
    made = shared(request(("x", "FP32", [2], {})), "r", 8)
    del made.inputs[0].parameters[name]
    with pytest.raises(InvalidRequest, match="shared_memory_region and shared_memory_byte_size"):
        READER.read(made)


def region_of(memory: SharedObject, offset: int = 0, nbytes: int = 4096) -> Region:
    return Region(f"/{memory.name}", offset, nbytes)


@pytest.mark.parametrize(
    ("name", "region", "error"),
    [
        ("", region_of, InvalidRequest),
        ("n" * 256, region_of, InvalidRequest),
        ("r", lambda memory: region_of(memory, 1), InvalidRequest),
        ("r", lambda memory: region_of(memory, 0, 0), InvalidRequest),
        ("r", lambda memory: region_of(memory, 2**63, 1), InvalidRequest),
        ("r", lambda memory: region_of(memory, 1, 2**64 - 1), InvalidRequest),
        ("r", lambda memory: Region(f"/../etc/{memory.name}", 0, 1), InvalidRequest),
        ("r", lambda _: Region("", 0, 1), InvalidRequest),
        ("r", lambda _: Region("/acap-not-there", 0, 1), NotFound),
    ],
)
def test_a_region_that_is_none_is_not_registered(
    memory: SharedObject, name: str, region: Callable[[SharedObject], Region], error: type[Exception]
) -> None:
    regions = ClientRegions()
    with pytest.raises(error):
        regions.register(name, region(memory))
    assert not regions.regions


def test_a_name_is_taken_until_it_is_unregistered_or_its_object_gone(memory: SharedObject) -> None:
    regions = ClientRegions()
    other = SharedObject(10)
    regions.register("r", Region(other.name, 0, 10))
    with pytest.raises(AlreadyExists, match="'r'"):
        regions.register("r", region_of(memory))
    other.path.unlink()
    regions.register("r", region_of(memory))
    assert regions.regions == {"r": region_of(memory)}
    regions.unregister("unknown")
    regions.unregister("r")
    regions.register("r", region_of(memory, 1, 2))
    regions.unregister("")
    assert not regions.regions


def test_regions_are_bounded_and_those_of_objects_that_are_gone_make_room(memory: SharedObject) -> None:
    regions = ClientRegions()
    other = SharedObject(10)
    regions.register("other", Region(other.name, 0, 10))
    for number in range(1023):
        regions.register(str(number), region_of(memory))
    with pytest.raises(Busy, match="1024"):
        regions.register("one more", region_of(memory))
    other.path.unlink()
    regions.register("one more", region_of(memory))
    assert "other" not in regions.regions


def test_an_answer_is_written_where_it_has_room(memory: SharedObject) -> None:
    part = region_of(memory, 10, 4)
    target = part.open("output 'y'", writable=True)
    target.store(b"abcd")
    assert memory.read(8, 16) == b"\0\0abcd\0\0"
    target.store(b"x")
    assert memory.read(10, 14) == b"xbcd"
    with pytest.raises(InvalidRequest, match=r"output 'y'.*room for 5 bytes, got 4"):
        target.store(b"abcde")
    target.close()
    reading = part.open("output 'y'")
    with pytest.raises(InvalidRequest, match="cannot be written"):
        reading.store(b"a")
    reading.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give an object to another user")
def test_an_object_of_another_user_is_written_only_if_the_group_may(memory: SharedObject) -> None:
    path = memory.path
    os.chown(path, 4321, os.getegid())
    for mode, readable, writable in ((0o600, False, False), (0o640, True, False), (0o660, True, True)):
        path.chmod(mode)
        for wanted, allowed in ((False, readable), (True, writable)):
            if allowed:
                region_of(memory).open("x", writable=wanted).close()
            else:
                with pytest.raises(Forbidden, match="belongs to user 4321"):
                    region_of(memory).open("x", writable=wanted)
