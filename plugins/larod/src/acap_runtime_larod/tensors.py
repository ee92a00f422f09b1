"""A tensor of larod: what it is, how it lies in memory, and its memory."""

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
            # Data of no specified type are bytes.
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
    """What larod says of a tensor; `dims` or `pitches` is empty and `nbytes` 0 where it says nothing."""

    name: str
    data_type: int
    layout: int
    dims: tuple[int, ...]
    pitches: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Plane:
    """A part of a tensor with regular strides: where it is in the array, and where in memory."""

    index: _Index
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def end(self, itemsize: int) -> int:
        """Bytes from the tensor's start to the plane's last."""
        steps = zip(self.shape, self.strides, strict=True)
        return self.offset + sum((size - 1) * stride for size, stride in steps) + itemsize


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor as the contract has it, tight, and where its elements are in larod's memory of `nbytes`."""

    spec: acap.TensorSpec
    planes: tuple[Plane, ...]
    nbytes: int


def form_of(tensor: Description) -> Form:
    """Read a tensor's form from what larod says of it. Raises `DeviceError` where that makes no sense.

    A pitch is the bytes of all elements of a dimension, padding included: the step in the dimension to its left. A
    nv12 image (420SP) has dims 3, height, width and pitches total, offset of the colour plane, row (larod.h on
    larodTensorPitches and larodTensorLayout); it is an array of 1, height * 3/2, width.
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
    """Give tensors without a name of their own one: ``input_0``, or ``x_1`` for the second called x."""
    taken = set(names)
    given: list[str] = []
    for position, name in enumerate(names):
        unique = name or f"{side}_{position}"
        while unique in given or (unique != name and unique in taken):
            unique += f"_{position}"
        given.append(unique)
    return given


class Buffer:
    """The memory of a tensor, mapped here for as long as it or an array of it lives.

    `start` is where the tensor begins in the file, in bytes.
    """

    def __init__(self, form: Form, descriptor: int, start: int) -> None:
        self._descriptor, self._start = descriptor, start
        name, dtype = form.spec.name, form.spec.dtype
        try:
            size = os.fstat(descriptor).st_size
            if size < start + form.nbytes:
                # To touch mapped memory beyond a file's end would kill the process.
                raise acap.DeviceError(
                    f"larod's tensor {name} needs {form.nbytes} bytes from byte {start}; its file has {size}"
                )
            # Never closed by hand: an array that somebody keeps keeps it mapped.
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

        larod writes an output where the offset is, and leaves it at the end (larod.h on larodCreateJobRequest); inputs
        it rewinds by itself.
        """
        os.lseek(self._descriptor, self._start, os.SEEK_SET)

    def write(self, array: acap.Array) -> None:
        """Copy a tight array to where its elements belong."""
        for index, plane in self._planes:
            np.copyto(plane, array[index])

    def read(self) -> acap.Array:
        """The tensor as a tight array: the mapped memory itself where that is tight."""
        if not self._answer_is_memory:
            for index, plane in self._planes:
                self._answer[index] = plane
        return self._answer
