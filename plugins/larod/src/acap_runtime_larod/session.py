"""A model loaded in larod's service: its connection, tensors and job, from the load to the last thing freed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import acap_runtime as acap

from acap_runtime_larod.connection import Connection, Device, text
from acap_runtime_larod.conversions import Parameter
from acap_runtime_larod.failure import CODES, LarodFailure
from acap_runtime_larod.library import ffi
from acap_runtime_larod.tensors import Buffer, Description, form_of, unique_names

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_NO_FILE: Final = -1
_PRIVATE: Final = 1
_READWRITE_AND_MAP: Final = 1 | 2
_LONGEST_NAME: Final = 127

POWER_WAITS_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each retry while the device has no power for the chip, 1.55 s in all. After that the request fails, so
that its client can decide."""


@dataclass(frozen=True, slots=True)
class Task:
    """The model to load, and the devices to load it on.

    `file` is a descriptor of a model file, or -1 if the parameters describe the model completely. `parameters` returns
    the load parameters for the device that was found. It raises `InvalidRequest` for a task that device cannot do.
    """

    title: str
    devices: tuple[str, ...]
    parameters: Callable[[str], Mapping[str, Parameter]]
    job_parameters: Mapping[str, Parameter] = field(default_factory=dict)
    instance: int = 0
    file: int = _NO_FILE


class Session:
    """A model that can be run. Raises `LarodFailure`, or an `AcapError` if no larod function failed."""

    def __init__(self, task: Task) -> None:
        with ExitStack() as undo:
            self._connection = Connection()
            undo.callback(self._connection.close)
            device = self._connection.find(task.devices, task.instance)
            model = self._load(task, device, undo)
            inputs, input_tensors = self._tensors(model, "Inputs", undo)
            outputs, output_tensors = self._tensors(model, "Outputs", undo)
            self._inputs, self._outputs = [each for _, each in inputs], [each for _, each in outputs]
            self.inputs, self.outputs = tuple(spec for spec, _ in inputs), tuple(spec for spec, _ in outputs)
            crop = self._map(task.job_parameters, undo)
            # The request copies its tensors. One request serves every run, since the tensors' files stay the same.
            self._job = self._connection.call(
                "larodCreateJobRequest", model, input_tensors, len(inputs), output_tensors, len(outputs), crop
            )
            undo.callback(self._connection.free, "larodDestroyJobRequest", ffi.new("larodJobRequest **", self._job))
            self._undo = undo.pop_all()

    def run(self, arrays: Sequence[acap.Array]) -> list[acap.Array]:
        """Run the model. The result may be mapped memory, which the next run overwrites."""
        for buffer, array in zip(self._inputs, arrays, strict=True):
            buffer.write(array)
        _with_power(self._run_job)
        return [buffer.read() for buffer in self._outputs]

    def close(self) -> None:
        """Free everything in reverse order of creation, whatever fails."""
        self._inputs, self._outputs = [], []
        self._undo.close()

    def _run_job(self) -> None:
        for buffer in self._outputs:
            buffer.rewind()
        self._connection.call("larodRunJob", self._connection.handle, self._job)

    def _load(self, task: Task, device: Device, undo: ExitStack) -> Any:
        connection = self._connection
        parameters = task.parameters(device.name)
        name = task.title.encode(errors="replace")[:_LONGEST_NAME]
        with ExitStack() as after:
            made = self._map(parameters, after)

            def load() -> Any:
                if task.file != _NO_FILE:
                    os.lseek(task.file, 0, os.SEEK_SET)
                return connection.call(
                    "larodLoadModel", connection.handle, task.file, device.handle, _PRIVATE, name, made
                )

            model = _with_power(load)
        undo.callback(connection.free, "larodDestroyModel", ffi.new("larodModel **", model))
        undo.callback(connection.end, "larodDeleteModel", connection.handle, model)
        return model

    def _map(self, parameters: Mapping[str, Parameter], undo: ExitStack) -> Any:
        """Make a map of parameters, or NULL for none."""
        if not parameters:
            return ffi.NULL
        connection = self._connection
        made = connection.call("larodCreateMap")
        undo.callback(connection.free, "larodDestroyMap", ffi.new("larodMap **", made))
        for key, value in parameters.items():
            match value:
                case str():
                    connection.call("larodMapSetStr", made, key.encode(), value.encode())
                case int():
                    connection.call("larodMapSetInt", made, key.encode(), value)
                case _:
                    connection.call(f"larodMapSetIntArr{len(value)}", made, key.encode(), *value)
        return made

    def _tensors(self, model: Any, side: str, undo: ExitStack) -> tuple[list[tuple[acap.TensorSpec, Buffer]], Any]:
        """Return a model's inputs or outputs with their memory, and larod's array of them."""
        connection = self._connection
        count = ffi.new("size_t *")
        with_memory = True
        try:
            # larod's own memory: both sides map it once, and the service need not be able to read any of our files.
            tensors = connection.call(
                f"larodAllocModel{side}", connection.handle, model, _READWRITE_AND_MAP, count, ffi.NULL
            )
        except LarodFailure as failure:
            if failure.needs_reload:
                raise
            _LOG.info("the service allots no memory for tensors, this process does: %s", failure)
            with_memory = False
            tensors = connection.call(f"larodCreateModel{side}", model, count)
        array = ffi.new("larodTensor ***", tensors)
        undo.callback(connection.end, "larodDestroyTensors", connection.handle, array, count[0])
        descriptions = [self._read_description(tensors[index]) for index in range(count[0])]
        names = unique_names([each.name for each in descriptions], side.lower().removesuffix("s"))
        made = []
        for index, (tensor, name) in enumerate(zip(descriptions, names, strict=True)):
            form = form_of(replace(tensor, name=name))
            if not with_memory:
                self._give_memory(tensors[index], form.nbytes, undo)
            descriptor = connection.call("larodGetTensorFd", tensors[index])
            start = connection.call("larodGetTensorFdOffset", tensors[index])
            made.append((form.spec, Buffer(form, descriptor, start)))
        return made, tensors

    def _give_memory(self, tensor: Any, nbytes: int, undo: ExitStack) -> None:
        descriptor = os.memfd_create("larod tensor")
        undo.callback(os.close, descriptor)
        os.ftruncate(descriptor, nbytes)
        self._connection.call("larodSetTensorFd", tensor, descriptor)
        self._connection.call("larodSetTensorFdProps", tensor, _READWRITE_AND_MAP)

    def _read_description(self, tensor: Any) -> Description:
        call = self._connection.call
        dims, pitches = call("larodGetTensorDims", tensor), call("larodGetTensorPitches", tensor)
        nbytes = ffi.new("size_t *")
        call("larodGetTensorByteSize", tensor, nbytes)
        try:
            name = text(call("larodGetTensorName", tensor))
        except LarodFailure as failure:
            # Formats such as cavalry's need not name their tensors.
            if failure.needs_reload:
                raise
            name = ""
        return Description(
            name,
            call("larodGetTensorDataType", tensor),
            call("larodGetTensorLayout", tensor),
            tuple(dims.dims[0 : dims.len]),
            tuple(pitches.pitches[0 : pitches.len]),
            nbytes[0],
        )


def _with_power(attempt: Callable[[], _Result]) -> _Result:
    """Retry for a while if the device has no power for the chip, which larod calls transient."""
    for wait in POWER_WAITS_S:
        try:
            return attempt()
        except LarodFailure as failure:
            if failure.code != CODES["POWER_NOT_AVAILABLE"]:
                raise
        time.sleep(wait)
    return attempt()
