"""A conversion with its queue, its kernel and its buffers."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Final

import acap_runtime as acap
import numpy as np
import pyopencl as cl

from acap_runtime_opencl.device import Device, driver_errors

_GROUP: Final = 64
"""Work items side by side in a group. The number is fixed, because pocl recompiles a kernel for every other number."""

_SOURCE, _TARGET = 0, 9
"""Positions of the buffers among the kernel's arguments."""


class OpenClModel(acap.Model):
    """One conversion on one device.

    A device that works in the host's memory reads the input and writes the output in place. For any other device they
    are copied.
    """

    def __init__(self, conversion: acap.Conversion, device: Device) -> None:
        self.inputs, self.outputs = conversion.inputs, conversion.outputs
        self._conversion = conversion
        self._device = device
        for image in (conversion.input, conversion.output):
            if prod(image.shape) > device.largest_buffer:
                raise acap.InvalidRequest(f"{image}: {device} takes at most {device.largest_buffer} bytes")
        self._output = np.empty(conversion.output.shape, np.uint8)
        with driver_errors(f"{conversion} on {device}"):
            self._queue = device.queue()
            self._kernel = self._make_kernel()
            self._sizes = self._work()
            self._source = None if device.has_host_memory else self._make_source()
            self._target = self._make_target()
            self._kernel.set_arg(_TARGET, self._target)
        # Drivers finish compiling, and allocate memory, only when a kernel first runs.
        self.run({"input": np.zeros(conversion.input.shape, np.uint8)})

    def run(self, inputs: Mapping[str, acap.Array]) -> Mapping[str, acap.Array]:
        with driver_errors(f"{self._conversion} on {self._device}"):
            if self._source is None:
                self._run_in_place(inputs["input"])
            else:
                cl.enqueue_copy(self._queue, self._source, inputs["input"])
                self._convert(self._source)
                cl.enqueue_copy(self._queue, self._output, self._target)
        return {"output": self._output}

    def close(self) -> None:
        for buffer in filter(None, (self._source, self._target)):
            buffer.release()
        del self._source, self._target, self._kernel, self._queue, self._output

    def _run_in_place(self, picture: acap.Array) -> None:
        flags = cl.mem_flags.READ_ONLY | cl.mem_flags.USE_HOST_PTR
        source = cl.Buffer(self._device.context, flags, hostbuf=picture)
        try:
            self._convert(source)
            # The output is guaranteed to be in the host's memory only after it has been mapped.
            view, _ = cl.enqueue_map_buffer(
                self._queue, self._target, cl.map_flags.READ, 0, self._output.shape, self._output.dtype
            )
            view.base.release(self._queue)
        finally:
            self._queue.finish()
            source.release()

    def _convert(self, source: cl.Buffer) -> None:
        self._kernel.set_arg(_SOURCE, source)
        cl.enqueue_nd_range_kernel(self._queue, self._kernel, *self._sizes)

    def _make_kernel(self) -> cl.Kernel:
        source, region, target = self._conversion.input, self._conversion.region, self._conversion.output
        scaled = (region.width, region.height) != (target.width, target.height)
        kernel = self._device.kernel(source.format, target.format, scaled=scaled)
        numbers = (source.width, source.height, region.x, region.y, region.width, region.height)
        for index, number in enumerate(numbers, _SOURCE + 1):
            kernel.set_arg(index, np.int32(number))
        kernel.set_arg(_TARGET - 2, np.float32(region.width / target.width))
        kernel.set_arg(_TARGET - 1, np.float32(region.height / target.height))
        kernel.set_arg(_TARGET + 1, np.int32(target.width))
        kernel.set_arg(_TARGET + 2, np.int32(target.height))
        return kernel

    def _work(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the number of work items across and down, in whole groups, and the number in a group."""
        image = self._conversion.output
        shared = 2 if image.format == "nv12" else 1
        group = min(_GROUP, self._device.most_work_items(self._kernel))
        groups = -(-image.width // (shared * group))
        return (groups * group, image.height // shared), (group, 1)

    def _make_source(self) -> cl.Buffer:
        return cl.Buffer(self._device.context, cl.mem_flags.READ_ONLY, prod(self._conversion.input.shape))

    def _make_target(self) -> cl.Buffer:
        if self._device.has_host_memory:
            flags = cl.mem_flags.WRITE_ONLY | cl.mem_flags.USE_HOST_PTR
            return cl.Buffer(self._device.context, flags, hostbuf=self._output)
        return cl.Buffer(self._device.context, cl.mem_flags.WRITE_ONLY, self._output.nbytes)
