"""Tensors of the Open Inference Protocol, version 2 (KServe's and Triton's): reads the inputs of a ModelInferRequest.

The rules are those of open_inference_grpc.proto and of Triton's binary, shared-memory and parameters extensions
(github.com/triton-inference-server/server, docs/protocol).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from acap_runtime.errors import InvalidRequest, NotReady, Unimplemented, quoted
from acap_runtime.link.sources import InlineBytes, Source
from acap_runtime.wire.client_regions import ClientRegions, Region
from acap_runtime.wire.tensors import Tensor, check_shape

_TYPES: Final = {
    "BOOL": ("|b1", "bool_contents"),
    "UINT8": ("|u1", "uint_contents"),
    "UINT16": ("<u2", "uint_contents"),
    "UINT32": ("<u4", "uint_contents"),
    "UINT64": ("<u8", "uint64_contents"),
    "INT8": ("|i1", "int_contents"),
    "INT16": ("<i2", "int_contents"),
    "INT32": ("<i4", "int_contents"),
    "INT64": ("<i8", "int64_contents"),
    "FP16": ("<f2", ""),
    "FP32": ("<f4", "fp32_contents"),
    "FP64": ("<f8", "fp64_contents"),
}
"""The protocol's datatypes that numpy has: numpy's name, and the field of ``contents`` (FP16 is sent only raw)."""

_DTYPES: Final = {name: np.dtype(code) for name, (code, _) in _TYPES.items()}
_DATATYPES: Final = {dtype: name for name, dtype in _DTYPES.items()}

_REGION: Final = "shared_memory_region"
_OFFSET: Final = "shared_memory_offset"
_SIZE: Final = "shared_memory_byte_size"
_SHARED_FIELDS: Final = {_REGION: ("string_param",), _OFFSET: ("int64_param",), _SIZE: ("int64_param",)}


def datatype_of(name: str, dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of a dtype. Raises `Unimplemented`, for a tensor called `name`, if there is none."""
    if dtype not in _DATATYPES:
        raise Unimplemented(
            f"tensor {quoted(name)} is of {dtype}, which the Open Inference Protocol has no datatype for; "
            f"call the model by TensorFlow Serving's Predict"
        )
    return _DATATYPES[dtype]


@dataclass(frozen=True, slots=True)
class V2Input:
    """An input of a ModelInferRequest, in the form that `models.inference` takes. Its bytes are counted and located.

    `source` is None if there is no data.
    """

    datatype: str
    shape: tuple[int, ...]
    source: Source | Region | None

    @property
    def has_data(self) -> bool:
        return self.source is not None

    def read(self, name: str, expected: np.dtype[Any], default_shape: tuple[int, ...]) -> Tensor:  # noqa: ARG002 - the protocol's shapes are complete
        label = f"input {quoted(name)}"
        if self.source is None:
            raise InvalidRequest(f"{label}: expected data in raw_input_contents, contents or shared memory, got none")
        wanted = datatype_of(name, expected)
        if self.datatype != wanted:
            raise InvalidRequest(f"{label}: expected datatype {wanted}, got {self.datatype}")
        source = self.source.open(label) if isinstance(self.source, Region) else self.source
        return Tensor(expected, self.shape, source)


@dataclass(frozen=True, slots=True)
class V2Reader:
    """Reads inputs of at most `limit` bytes each. Looks up shared memory in `regions`, which is None if shared memory
    is not served.
    """

    limit: int
    regions: ClientRegions | None

    def read(self, request: Any) -> dict[str, V2Input]:
        """Return the inputs of a ModelInferRequest, by name.

        Raises `InvalidRequest` with the name of the tensor, what was expected and what came; `NotFound` for an unknown
        region; `NotReady` if shared memory is not served.
        """
        raw = iter(request.raw_input_contents)
        inputs: dict[str, V2Input] = {}
        shared = 0
        for proto in request.inputs:
            name = proto.name
            if name in inputs:
                raise InvalidRequest(f"inputs: expected each name once, got {quoted(name)} again")
            label = f"input {quoted(name)}"
            region = self.shared_part(label, proto.parameters) if proto.parameters else None
            if proto.HasField("contents") and (region is not None or request.raw_input_contents):
                place = "shared memory" if region is not None else "raw_input_contents"
                raise InvalidRequest(f"{label}: expected data once, got contents although data is in {place}")
            if region is not None:
                shared += 1
                inputs[name] = self._input(label, proto, region)
            elif proto.HasField("contents"):
                inputs[name] = self._input(label, proto, proto.contents)
            else:
                content = next(raw, None)
                inputs[name] = V2Input("", (), None) if content is None else self._input(label, proto, content)
        given = len(request.raw_input_contents)
        if given and given != len(inputs) - shared:
            raise InvalidRequest(
                f"raw_input_contents: expected {len(inputs) - shared}, one for each input outside shared memory, "
                f"got {given}"
            )
        return inputs

    def shared_part(self, label: str, parameters: Mapping[str, Any]) -> Region | None:
        """Return the memory that a tensor's parameters name, if any. Raises the errors of `read`."""
        values = {
            name: value_of(label, name, parameters[name], fields)
            for name, fields in _SHARED_FIELDS.items()
            if name in parameters
        }
        if not values:
            return None
        if _REGION not in values or _SIZE not in values:
            raise InvalidRequest(f"{label}: expected parameters {_REGION} and {_SIZE}, got {', '.join(values)} alone")
        return require(self.regions).part(label, values[_REGION], values.get(_OFFSET, 0), values[_SIZE])

    def _input(self, label: str, proto: Any, data: Any) -> V2Input:
        datatype = proto.datatype
        dtype = _DTYPES.get(datatype)
        if dtype is None:
            raise InvalidRequest(f"{label}: expected a datatype of {', '.join(_TYPES)}, got {quoted(datatype)}")
        shape = check_shape(proto.name, proto.shape, dtype, datatype, self.limit)
        nbytes = prod(shape) * dtype.itemsize
        source: Region | InlineBytes
        if isinstance(data, Region):
            got, place, source = data.nbytes, _SIZE, data
        elif isinstance(data, bytes):
            got, place, source = len(data), "raw_input_contents", InlineBytes(data)
        else:
            return V2Input(datatype, shape, InlineBytes(_contents(label, datatype, dtype, shape, data)))
        if got != nbytes:
            raise InvalidRequest(f"{label}: expected {nbytes} bytes for {datatype} {list(shape)}, got {got} in {place}")
        return V2Input(datatype, shape, source)


def require(regions: ClientRegions | None) -> ClientRegions:
    """Return the regions. Raises `NotReady` if shared memory is not served."""
    if regions is None:
        raise NotReady("shared memory is served on the unix socket only; send tensors in raw_input_contents")
    return regions


def value_of(label: str, name: str, parameter: Any, fields: tuple[str, ...]) -> Any:
    """Return the value of an InferParameter. Raises `InvalidRequest` if it is in none of `fields`."""
    field = parameter.WhichOneof("parameter_choice")
    if field not in fields:
        raise InvalidRequest(f"{label}: parameter {name}: expected {' or '.join(fields)}, got {field or 'nothing'}")
    return getattr(parameter, field)


def add_output(response: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], content: bytes) -> None:
    """Add an output to a ModelInferResponse. Its raw content is empty if the client has it in shared memory."""
    response.outputs.add(name=name, datatype=datatype_of(name, dtype), shape=shape)
    response.raw_output_contents.append(content)


def _contents(label: str, datatype: str, dtype: np.dtype[Any], shape: tuple[int, ...], contents: Any) -> memoryview:
    """Return the elements of InferTensorContents, which has one field for each group of datatypes."""
    field = _TYPES[datatype][1]
    filled = [descriptor.name for descriptor, _ in contents.ListFields()]
    if not field or any(each != field for each in filled):
        expected = f"contents.{field}, or in raw_input_contents" if field else "raw_input_contents"
        raise InvalidRequest(f"{label}: expected {datatype} in {expected}, got {' and '.join(filled) or 'none'}")
    # Without a given dtype, numpy 1 chooses floating point for values beyond int64.
    values = np.asarray(
        getattr(contents, field), {"i": np.dtype(np.int64), "u": np.dtype(np.uint64)}.get(dtype.kind, dtype)
    )
    if len(values) != prod(shape):
        raise InvalidRequest(
            f"{label}: expected {prod(shape)} elements for {datatype} {list(shape)}, got {len(values)} in {field}"
        )
    if dtype.kind in "iu" and len(values):
        limits = np.iinfo(dtype)
        for extreme in (int(values.min()), int(values.max())):
            if not limits.min <= extreme <= limits.max:
                raise InvalidRequest(
                    f"{label}: expected {datatype} from {limits.min} to {limits.max} in {field}, got {extreme}"
                )
    return np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8).data
