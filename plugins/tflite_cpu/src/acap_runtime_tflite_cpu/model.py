"""A model in the TensorFlow Lite interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import acap_runtime as acap
import numpy as np

from acap_runtime_tflite_cpu.runtime import reason


class TfliteModel(acap.Model):
    """Owns an interpreter whose tensors are allocated."""

    def __init__(self, interpreter: Any) -> None:  # neither runtime has types
        self._interpreter = interpreter
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = _specs(inputs, "input")
        self.outputs = _specs(outputs, "output")
        self._input_indices = [details["index"] for details in inputs]
        self._output_indices = [details["index"] for details in outputs]
        self._shapes: list[tuple[int, ...]] | None = [tuple(details["shape"]) for details in inputs]

    def run(self, inputs: Mapping[str, acap.Array]) -> Mapping[str, acap.Array]:
        arrays = [inputs[spec.name] for spec in self.inputs]
        self._resize([array.shape for array in arrays])
        try:
            for index, array in zip(self._input_indices, arrays, strict=True):
                self._interpreter.set_tensor(index, array)
            self._interpreter.invoke()
            # Copies, because a view of the runtime's memory (`tensor()`) makes every invoke fail while it lives.
            return {spec.name: self._output(position) for position, spec in enumerate(self.outputs)}
        except (RuntimeError, ValueError) as error:
            raise acap.DeviceError(f"the model failed on these inputs: {reason(error)}") from error

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        if shapes == self._shapes:
            return
        # After a failed allocation the next request cannot use the tensors, whatever its shapes.
        self._shapes = None
        try:
            for index, shape in zip(self._input_indices, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape, strict=True)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            wanted = ", ".join(f"{spec.name} {list(shape)}" for spec, shape in zip(self.inputs, shapes, strict=True))
            raise acap.InvalidRequest(f"the model cannot take inputs of shape {wanted}: {reason(error)}") from error
        self._shapes = shapes

    def _output(self, position: int) -> acap.Array:
        try:
            array: acap.Array = self._interpreter.get_tensor(self._output_indices[position])
        except ValueError:
            details = self._interpreter.get_output_details()[position]
            if 0 not in details["shape"]:
                raise
            return np.empty(details["shape"], details["dtype"])  # get_tensor refuses empty tensors
        return array

    def close(self) -> None:
        del self._interpreter


def _specs(tensors: Sequence[Mapping[str, Any]], side: Literal["input", "output"]) -> tuple[acap.TensorSpec, ...]:
    names = _unique_names([tensor["name"] for tensor in tensors], side)
    return tuple(_spec(name, tensor, side) for name, tensor in zip(names, tensors, strict=True))


def _spec(name: str, tensor: Mapping[str, Any], side: Literal["input", "output"]) -> acap.TensorSpec:
    dtype = np.dtype(tensor["dtype"])
    if dtype.kind not in "biufc":
        kind = "strings" if dtype.kind == "S" else f"type {dtype}"
        raise acap.InvalidRequest(f"{side} tensor {name!r} holds {kind}: expected numbers or booleans")
    shape = tuple(int(size) for size in tensor["shape_signature"])
    return acap.TensorSpec(name, dtype, shape, _quantisation(dtype, tensor["quantization_parameters"]))


def _quantisation(dtype: np.dtype[Any], parameters: Mapping[str, Any]) -> acap.Quantisation | None:
    scales = tuple(float(scale) for scale in parameters["scales"])
    if dtype.kind not in "iu" or not scales:
        return None
    zero_points = tuple(int(zero_point) for zero_point in parameters["zero_points"])
    return acap.Quantisation(scales, zero_points, int(parameters["quantized_dimension"]))


def _unique_names(names: Sequence[str], side: Literal["input", "output"]) -> list[str]:
    """Name a tensor without a name ``input_<position>``, and append ``_<position>`` to a name that is taken."""
    unique: list[str] = []
    for position, name in enumerate(names):
        own = name or f"{side}_{position}"
        while own in unique or (own != name and own in names):
            own = f"{own}_{position}"
        unique.append(own)
    return unique
