"""Reads TensorProtos, locates their bytes, and writes the tensors of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from acap_runtime.contract.backend import TensorSpec
from acap_runtime.errors import InvalidRequest, NotReady, quoted
from acap_runtime.link.sources import InlineBytes, Source
from acap_runtime.proto import TensorProto
from acap_runtime.wire.client_memory import open_client_memory

DT_STRING = 7
_NUMPY_TYPES: dict[int, tuple[str, str, str]] = {
    1: ("DT_FLOAT", "<f4", "float_val"),
    2: ("DT_DOUBLE", "<f8", "double_val"),
    3: ("DT_INT32", "<i4", "int_val"),
    4: ("DT_UINT8", "|u1", "int_val"),
    5: ("DT_INT16", "<i2", "int_val"),
    6: ("DT_INT8", "|i1", "int_val"),
    8: ("DT_COMPLEX64", "<c8", "scomplex_val"),
    9: ("DT_INT64", "<i8", "int64_val"),
    10: ("DT_BOOL", "|b1", "bool_val"),
    17: ("DT_UINT16", "<u2", "int_val"),
    18: ("DT_COMPLEX128", "<c16", "dcomplex_val"),
    19: ("DT_HALF", "<f2", "half_val"),
    22: ("DT_UINT32", "<u4", "uint32_val"),
    23: ("DT_UINT64", "<u8", "uint64_val"),
}
"""TensorFlow's number of each dtype that numpy also has: name, numpy's name, the field of single values."""

_FROM_NUMPY = {np.dtype(code): number for number, (_, code, _) in _NUMPY_TYPES.items()}
DTYPES = {number: np.dtype(code) for number, (_, code, _) in _NUMPY_TYPES.items()}
"""The numpy dtype of each of TensorFlow's numbers, where numpy has it."""

_VALUE_FIELDS = (*sorted({field for _, _, field in _NUMPY_TYPES.values()}), "string_val")
_LARGEST_DIMENSION = 2**31 - 1
_HIGHEST_RANK = 16


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that a client sent. Its byte count has been checked."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class TensorReader:
    """Reads TensorProtos of at most `limit` bytes each. Uses shared memory only if `shared_memory` allows it."""

    limit: int
    shared_memory: bool

    def read(self, name: str, proto: Any, expected: np.dtype[Any], default_shape: tuple[int, ...]) -> Tensor:
        """Return the tensor in `proto`, for an input of dtype `expected`.

        A shared memory object without a shape of its own has `default_shape`. Raises `InvalidRequest` with the name of
        the tensor, what was expected and what came.
        """
        if proto.dtype == DT_STRING:
            return self._read_shared_memory(name, proto, expected, default_shape)
        if proto.dtype not in DTYPES:
            raise InvalidRequest(
                f"input {quoted(name)}: expected dtype {dtype_name(expected)}, got {_number_name(proto.dtype)}"
            )
        dtype = DTYPES[proto.dtype]
        if dtype != expected:
            raise InvalidRequest(
                f"input {quoted(name)}: expected dtype {dtype_name(expected)}, got {dtype_name(dtype)}"
            )
        shape = self._shape(name, proto, dtype)
        return Tensor(dtype, shape, InlineBytes(_inline_data(name, proto, dtype, shape)))

    def _shape(self, name: str, proto: Any, dtype: np.dtype[Any]) -> tuple[int, ...]:
        if proto.tensor_shape.unknown_rank:
            raise InvalidRequest(f"input {quoted(name)}: expected a shape, got an unknown rank")
        return check_shape(name, (dim.size for dim in proto.tensor_shape.dim), dtype, dtype_name(dtype), self.limit)

    def _read_shared_memory(
        self,
        name: str,
        proto: Any,
        dtype: np.dtype[Any],
        default_shape: tuple[int, ...],
    ) -> Tensor:
        if not self.shared_memory:
            raise NotReady(
                f"input {quoted(name)}: shared memory is served on the unix socket only; send tensor_content"
            )
        if len(proto.string_val) != 1 or proto.tensor_content:
            raise InvalidRequest(
                f"input {quoted(name)}: expected the name of one shared memory object in string_val "
                f"(that is what DT_STRING means here), got {len(proto.string_val)} strings"
                + (" and tensor_content" if proto.tensor_content else "")
            )
        shape = self._shape(name, proto, dtype)
        if shape in ((), (1,)):
            shape = default_shape
        if -1 in shape:
            raise InvalidRequest(f"input {quoted(name)}: expected a shape, as the model leaves it open: {list(shape)}")
        nbytes = prod(shape) * dtype.itemsize
        return Tensor(dtype, shape, open_client_memory(f"input {quoted(name)}", proto.string_val[0], nbytes))


def check_shape(name: str, sizes: Iterable[int], dtype: np.dtype[Any], type_name: str, limit: int) -> tuple[int, ...]:
    """Check and return the shape that a client gave for input `name`, of the dtype that the client calls `type_name`.

    Raises `InvalidRequest` if the shape is invalid or such a tensor has more than `limit` bytes.
    """
    shape = tuple(sizes)
    if len(shape) > _HIGHEST_RANK:
        raise InvalidRequest(f"input {quoted(name)}: expected at most {_HIGHEST_RANK} dimensions, got {len(shape)}")
    if any(not 0 <= size <= _LARGEST_DIMENSION for size in shape):
        raise InvalidRequest(
            f"input {quoted(name)}: expected dimensions from 0 to {_LARGEST_DIMENSION}, got {list(shape)}"
        )
    if (nbytes := prod(shape) * dtype.itemsize) > limit:
        raise InvalidRequest(
            f"input {quoted(name)}: shape {list(shape)} of {type_name} takes {nbytes} bytes; "
            f"expected at most {limit} (--max-message-size)"
        )
    return shape


def has_data(proto: Any) -> bool:
    """Return True if a TensorProto holds elements, or names shared memory, in addition to its dtype and shape."""
    return bool(proto.tensor_content) or any(len(getattr(proto, field)) for field in _VALUE_FIELDS)


def _inline_data(name: str, proto: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes | memoryview:
    number = _FROM_NUMPY[dtype]
    field = _NUMPY_TYPES[number][2]
    filled = [each for each in _VALUE_FIELDS if len(getattr(proto, each))]
    content: bytes = proto.tensor_content
    count = prod(shape)
    if content:
        if filled:
            raise InvalidRequest(
                f"input {quoted(name)}: expected data once, got it in tensor_content and in {', '.join(filled)}"
            )
        if len(content) != count * dtype.itemsize:
            raise InvalidRequest(
                f"input {quoted(name)}: expected {count * dtype.itemsize} bytes for {dtype_name(dtype)} {list(shape)}, "
                f"got {len(content)} in tensor_content"
            )
        return content
    if any(each != field for each in filled):
        raise InvalidRequest(
            f"input {quoted(name)}: expected {dtype_name(dtype)} in tensor_content or {field}, got {', '.join(filled)}"
        )
    return _values(name, getattr(proto, field), field, dtype, count)


def _values(name: str, values: Any, field: str, dtype: np.dtype[Any], count: int) -> memoryview:
    """Return the elements of a ``*_val`` field. TensorFlow omits repetitions of the last element."""
    stored, parts = _STORAGE.get(field, (dtype, 1))
    wire = np.asarray(values, dtype=stored)
    if field in _CHECKED_RANGES:
        low, high = _CHECKED_RANGES[field](dtype)
        outside = wire[(wire < low) | (wire > high)]
        if outside.size:
            raise InvalidRequest(
                f"input {quoted(name)}: expected {dtype_name(dtype)} from {low} to {high} in {field}, got {outside[0]}"
            )
    given, rest = divmod(len(wire), parts)
    if rest or given > count or (count and not given):
        raise InvalidRequest(
            f"input {quoted(name)}: expected 1 to {count} elements in {field}"
            f"{' (two values each)' if parts > 1 else ''} or all in tensor_content, got {len(wire)} values"
        )
    elements = wire.astype(np.uint16).view(dtype) if field == "half_val" else wire.reshape(given, parts)
    filled = np.empty((count, parts), dtype if parts == 1 else stored)
    filled[:given] = elements.reshape(given, parts)
    filled[given:] = elements.reshape(given, parts)[-1:]
    return filled.reshape(-1).view(np.uint8).data


_STORAGE: dict[str, tuple[np.dtype[Any], int]] = {
    "half_val": (np.dtype(np.int32), 1),
    "int_val": (np.dtype(np.int32), 1),
    "scomplex_val": (np.dtype(np.float32), 2),
    "dcomplex_val": (np.dtype(np.float64), 2),
}
"""Fields whose values are not simply elements: their wire type, and the number of values per element."""

_CHECKED_RANGES: dict[str, Callable[[np.dtype[Any]], tuple[int, int]]] = {
    "half_val": lambda _: (0, 0xFFFF),
    "int_val": lambda dtype: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)),
}


def write_tensor(proto: Any, dtype: np.dtype[Any], shape: tuple[int, ...], content: bytes) -> None:
    """Fill an answer's TensorProto, always through tensor_content, as the original does."""
    proto.dtype = _FROM_NUMPY[dtype]
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_content = content


def write_spec(info: Any, spec: TensorSpec) -> None:
    """Fill a TensorInfo with the name, dtype and shape of a model's input or output. An open dimension is -1.

    The name is the one in the model's file, as in TensorFlow Serving's answers. Here, requests also use that name.
    """
    info.name = spec.name
    info.dtype = _FROM_NUMPY[spec.dtype]
    for size in spec.shape:
        info.tensor_shape.dim.add(size=size)


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return TensorFlow's name of a dtype, or numpy's if the wire has none."""
    number = _FROM_NUMPY.get(dtype)
    return str(dtype) if number is None else _NUMPY_TYPES[number][0]


def has_wire_type(dtype: np.dtype[Any]) -> bool:
    """Return True if tensors of this dtype can be sent."""
    return dtype in _FROM_NUMPY


def _number_name(number: int) -> str:
    known = TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number
    return f"{known[number].name if number in known else number}, which this server does not take"
