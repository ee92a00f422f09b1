"""TensorProtos to arrays and back; bad ones, over the wire, are in tests/wire/test_bad_input.py."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from acap_runtime.errors import InvalidRequest, NotReady
from acap_runtime.proto import TensorProto
from acap_runtime.wire.tensors import TensorReader, dtype_name, has_wire_type, write_tensor

NUMBERS = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "complex64": 8, "int64": 9, "bool": 10,
    "uint16": 17, "complex128": 18, "float16": 19, "uint32": 22, "uint64": 23,
}  # fmt: skip
READER = TensorReader(limit=1 << 20, shared_memory=True)


def _proto(dtype: str, *shape: int, **fields: Any) -> Any:
    proto = TensorProto(dtype=NUMBERS[dtype], **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def _read(proto: Any, dtype: str, reader: TensorReader = READER) -> np.ndarray:
    tensor = reader.read("x", proto, np.dtype(dtype), ())
    content = bytearray(tensor.source.nbytes)
    tensor.source.write_into(memoryview(content))
    tensor.source.close()
    return np.frombuffer(bytes(content), tensor.dtype).reshape(tensor.shape)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_what_is_written_is_read_again(dtype: str) -> None:
    given = np.arange(6).astype(dtype).reshape(2, 3)
    proto = TensorProto()
    write_tensor(proto, given.dtype, given.shape, given.tobytes())
    assert proto.dtype == NUMBERS[dtype]
    assert np.array_equal(_read(proto, dtype), given)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_dtype_has_a_name_on_the_wire(dtype: str) -> None:
    assert has_wire_type(np.dtype(dtype))
    assert dtype_name(np.dtype(dtype)).startswith("DT_")


@pytest.mark.parametrize("dtype", ["S4", "U4", "datetime64[s]", "object"])
def test_other_dtypes_have_none(dtype: str) -> None:
    assert not has_wire_type(np.dtype(dtype))


def test_halves_are_bits() -> None:
    bits = struct.unpack("<2H", struct.pack("<2e", 1.5, -0.25))
    assert _read(_proto("float16", 2, half_val=bits), "float16").tolist() == [1.5, -0.25]


def test_complex_numbers_are_pairs_of_which_the_last_is_repeated() -> None:
    proto = _proto("complex64", 3, scomplex_val=[1, 2, 3, 4])
    assert _read(proto, "complex64").tolist() == [1 + 2j, 3 + 4j, 3 + 4j]


def test_a_tensor_of_nothing_needs_no_data() -> None:
    assert _read(_proto("uint8", 0, 3), "uint8").shape == (0, 3)


def test_a_tensor_of_exactly_the_limit_is_read_and_none_beyond() -> None:
    reader = TensorReader(limit=12, shared_memory=False)
    assert _read(_proto("float32", 3, float_val=[1]), "float32", reader).tolist() == [1, 1, 1]
    with pytest.raises(InvalidRequest, match="takes 16 bytes; expected at most 12"):
        _read(_proto("float32", 4, float_val=[1]), "float32", reader)


@pytest.mark.parametrize(
    "sizes", [(2**31 - 1,) * 16, (2**16,) * 4, (2**32,), (2**63 - 1,), (-1,), (3, -(2**63)), (1,) * 17]
)
def test_no_shape_however_absurd_costs_memory(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="'x'"):
        _read(_proto("uint8", *sizes, int_val=[1]), "uint8")


@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255), ("uint16", 0, 65535)])
def test_integers_have_the_range_of_their_dtype(dtype: str, low: int, high: int) -> None:
    assert _read(_proto(dtype, 2, int_val=[low, high]), dtype).tolist() == [low, high]
    for value in (low - 1, high + 1):
        with pytest.raises(InvalidRequest, match=f"from {low} to {high} in int_val, got {value}"):
            _read(_proto(dtype, 2, int_val=[low, value]), dtype)


def test_shared_memory_is_refused_where_it_is_not_allowed() -> None:
    proto = TensorProto(dtype=7, string_val=[b"/x"])
    with pytest.raises(NotReady, match="unix socket only"):
        _read(proto, "uint8", TensorReader(limit=100, shared_memory=False))
