"""A larod tensor: its description, its layout and its memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from types import EllipsisType
from typing import Any, Final, TypeAlias

import acap_runtime as acap
import numpy as np

DATA_TYPES: Final[dict[int, np.dtype[Any]]] = {
    number: np.dtype(name)
    for number, name in enumerate(
        (
            # Data without a specified type are bytes.
            *("uint8", "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
            *("float16", "float32", "float64"),
        ),
        start=1,
    )
}
"""By larodTensorDataType."""

LAYOUT_420SP: Final = 4

_Index: TypeAlias = EllipsisType | tuple[int, slice]


@dataclass(frozen=True, slots=True)
class Description:
    """larod's description of a tensor. `dims` or `pitches` is empty and `nbytes` is 0 if larod does not give it."""

    name: str
    data_type: int
    layout: int
    dims: tuple[int, ...]
    pitches: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Plane:
    """A part of a tensor with regular strides: its place in the array and its place in memory."""

    index: _Index
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def end(self, itemsize: int) -> int:
        """Return the bytes from the tensor's start to the plane's end."""
        steps = zip(self.shape, self.strides, strict=True)
        return self.offset + sum((size - 1) * stride for size, stride in steps) + itemsize


@dataclass(frozen=True, slots=True)
class Form:
    """A tight tensor of the contract, and the places of its elements in larod's memory of `nbytes`."""

    spec: acap.TensorSpec
    planes: tuple[Plane, ...]
    nbytes: int


def form_of(tensor: Description) -> Form:
    """Read a tensor's form from larod's description. Raises `DeviceError` if that makes no sense.

    A pitch is the number of bytes of all elements of a dimension, padding included. It is the step in the dimension to
    its left. An nv12 image (420SP) has the dims 3, height, width. Its pitches are the total, the offset of the colour
    plane and the row (larod.h on larodTensorPitches and larodTensorLayout). It is an array of 1, height * 3/2, width.
    """
    dtype = DATA_TYPES.get(tensor.data_type)
    if dtype is None:
        raise acap.DeviceError(f"larod's tensor {tensor.name}: data type {tensor.data_type} is none of larod.h's")
    dims, pitches = tensor.dims, tensor.pitches
    if not dims:
        dims, pitches = (tensor.nbytes // dtype.itemsize,), ()
    if min(dims) < 1 or (pitches and len(pitches) != len(dims)):
        raise acap.DeviceError(f"larod's tensor {tensor.name}: dims {dims} with pitches {pitches} are no tensor")
    if tensor.layout == LAYOUT_420SP:
        shape, planes = _semiplanar(tensor.name, dims, pitches)
    else:
        shape = dims
        strides = (*pitches[1:], dtype.itemsize) if pitches else _tight_strides(dims, dtype.itemsize)
        planes = (Plane(..., shape, strides, 0),)
    end = max(plane.end(dtype.itemsize) for plane in planes)
    nbytes = tensor.nbytes or (pitches[0] if pitches else end)
    if end > nbytes:
        raise acap.DeviceError(
            f"larod's tensor {tensor.name}: dims {dims} with pitches {pitches} need {end} bytes, it has {nbytes}"
        )
    return Form(acap.TensorSpec(tensor.name, dtype, shape), planes, nbytes)


def _semiplanar(
    name: str, dims: tuple[int, ...], pitches: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[Plane, ...]]:
    if len(dims) != 3 or dims[1] % 2 or dims[2] % 2:  # noqa: PLR2004 - as larod.h says
        raise acap.DeviceError(f"larod's tensor {name}: expected dims 3, height, width of a nv12 image, got {dims}")
    _, height, width = dims
    _, colours, row = pitches or (0, width * height, width)
    shape = (1, height * 3 // 2, width)
    if (row, colours) == (width, width * height):
        return shape, (Plane(..., shape, _tight_strides(shape, 1), 0),)
    luma = Plane((0, slice(0, height)), (height, width), (row, 1), 0)
    return shape, (luma, Plane((0, slice(height, None)), (height // 2, width), (row, 1), colours))


def _tight_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * prod(shape[axis + 1 :]) for axis in range(len(shape)))


def unique_names(names: Sequence[str], side: str) -> list[str]:
    """Give every tensor a unique name: ``input_0`` for one without a name, ``x_1`` for the second called x."""
    taken = set(names)
    given: list[str] = []
    for position, name in enumerate(names):
        unique = name or f"{side}_{position}"
        while unique in given or (unique != name and unique in taken):
            unique += f"_{position}"
        given.append(unique)
    return given


class Buffer:
    """The memory of a tensor, mapped for as long as this object or an array of it lives.

    `start` is the tensor's offset in the file, in bytes.
    """

    def __init__(self, form: Form, descriptor: int, start: int) -> None:
        self._descriptor, self._start = descriptor, start
        name, dtype = form.spec.name, form.spec.dtype
        try:
            size = os.fstat(descriptor).st_size
            if size < start + form.nbytes:
                # Touching mapped memory beyond a file's end would kill the process.
                raise acap.DeviceError(
                    f"larod's tensor {name} needs {form.nbytes} bytes from byte {start}; its file has {size}"
                )
            # Never closed explicitly: an array that is still held keeps the memory mapped.
            memory = mmap.mmap(descriptor, start + form.nbytes)
        except OSError as error:
            raise acap.DeviceError(f"larod's tensor {name} cannot be mapped: {error}") from None
        self._planes = [
            (plane.index, np.ndarray(plane.shape, dtype, memory, start + plane.offset, plane.strides))
            for plane in form.planes
        ]
        (_, first), *others = self._planes
        tight = not others and first.flags.c_contiguous
        self._answer: acap.Array = first.view() if tight else np.empty(form.spec.shape, dtype)
        self._answer_is_memory = tight

    def rewind(self) -> None:
        """Set the file's offset to the tensor's start.

        larod writes an output at the offset and leaves the offset at the end (larod.h on larodCreateJobRequest). It
        rewinds inputs itself.
        """
        os.lseek(self._descriptor, self._start, os.SEEK_SET)

    def write(self, array: acap.Array) -> None:
        """Copy a tight array to the places of its elements."""
        for index, plane in self._planes:
            np.copyto(plane, array[index])

    def read(self) -> acap.Array:
        """Return the tensor as a tight array. If the mapped memory is tight, this is the memory itself."""
        if not self._answer_is_memory:
            for index, plane in self._planes:
                self._answer[index] = plane
        return self._answer
