"""A model that LiteRT compiled for the GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, Final

import acap_runtime as acap
import numpy as np
from acap_runtime_tflite_cpu.model import TfliteModel
from acap_runtime_tflite_cpu.model_file import read_model_file
from acap_runtime_tflite_cpu.runtime import find_interpreter, reason

from acap_runtime_tflite_glgpu.adapter import find_adapter
from acap_runtime_tflite_glgpu.compiler import compile_for_gpu

DTYPES: Final = frozenset(np.dtype(name) for name in ("bool", "int8", "uint8", "int32", "float16", "float32"))
"""The numpy types that LiteRT's tensor buffers can hold."""

_ELSEWHERE: Final = "serve it with the CPU, -j 2 (cpu-tflite)"


def load_on_gpu(path: Path, *, allow_cpu: bool, exact: bool) -> acap.Model:
    """Load a model. Raises `NotReady` if there is no GPU for it, and `InvalidRequest` as `load` does."""
    content = read_model_file(path)
    if b"edgetpu-custom-op" in content:
        raise acap.InvalidRequest(
            f"{path}: the model is compiled for the Edge TPU, chip 4 (google-edge-tpu-tflite); expected one for the GPU"
        )
    interpreter = _interpreter(path, content)
    try:
        compiled = compile_for_gpu(content, allow_cpu=allow_cpu, exact=exact)
    except RuntimeError as error:
        if "not accelerated" in str(error):
            raise _left_to_the_cpu(path) from error
        find_adapter()  # raises NotReady if the model is not at fault
        raise acap.InvalidRequest(
            f"{path}: LiteRT cannot make it run on the GPU ({_last_line(error)}, see the worker's log): {_ELSEWHERE}"
        ) from error
    if not (allow_cpu or compiled.is_fully_accelerated()):
        raise _left_to_the_cpu(path)
    try:
        return GpuModel(compiled, interpreter, content)
    except acap.InvalidRequest as error:
        raise acap.InvalidRequest(f"{path}: {error}") from error
    except RuntimeError as error:
        raise acap.InvalidRequest(f"{path}: LiteRT has no buffers for its tensors ({_last_line(error)})") from error


class GpuModel(acap.Model):
    """Owns a compiled model and its buffers.

    Tensors have the names and the order of the CPU's plugin, not those of LiteRT's signature. An open dimension has the
    size that the file gives, because the GPU's program is compiled for that size.
    """

    def __init__(self, compiled: Any, interpreter: Any, content: bytes) -> None:  # LiteRT has no types
        described = TfliteModel(interpreter)
        key, signature = _only_signature(compiled)
        input_places = _places(
            interpreter.get_input_details(), compiled.get_input_tensor_details(key), signature["inputs"]
        )
        output_places = _places(
            interpreter.get_output_details(), compiled.get_output_tensor_details(key), signature["outputs"]
        )
        self._content = content  # LiteRT does not promise to copy it
        self._compiled = compiled
        self._input_buffers = compiled.create_input_buffers(0)
        self._output_buffers = compiled.create_output_buffers(0)
        self._inputs = [self._input_buffers[place] for place in input_places]
        self._outputs = [self._output_buffers[place] for place in output_places]
        self.inputs = _closed(described.inputs, self._inputs)
        self.outputs = _closed(described.outputs, self._outputs)

    def run(self, inputs: Mapping[str, acap.Array]) -> Mapping[str, acap.Array]:
        try:
            for spec, buffer in zip(self.inputs, self._inputs, strict=True):
                buffer.write(inputs[spec.name])
            self._compiled.run_by_index(0, self._input_buffers, self._output_buffers)
            return {
                spec.name: buffer.read(prod(spec.shape), spec.dtype).reshape(spec.shape)
                for spec, buffer in zip(self.outputs, self._outputs, strict=True)
            }
        except RuntimeError as error:
            raise acap.DeviceError(f"the model failed on the GPU: {_last_line(error)}") from error

    def close(self) -> None:
        for buffer in (*self._input_buffers, *self._output_buffers):
            buffer.destroy()
        self._compiled.close()
        del self._compiled, self._content


def _interpreter(path: Path, content: bytes) -> Any:
    # Never runs and never allocates tensors. It provides names, open dimensions and quantisation.
    try:
        return find_interpreter()(model_content=content)
    except (RuntimeError, ValueError) as error:
        raise acap.InvalidRequest(f"{path}: expected a TensorFlow Lite model: {reason(error)}") from error


def _only_signature(compiled: Any) -> tuple[str, Mapping[str, Sequence[str]]]:
    """Return the name of the model's signature and its tensors' names. LiteRT adds a signature if there is none."""
    signatures = compiled.get_signature_list()
    if len(signatures) != 1:
        raise acap.InvalidRequest(
            f"expected a model with one signature, got {', '.join(map(repr, signatures))}: {_ELSEWHERE}"
        )
    ((key, signature),) = signatures.items()
    for names in signature.values():
        if len(set(names)) != len(names):
            raise acap.InvalidRequest(
                f"expected tensors with names of their own, got {', '.join(map(repr, names))}: {_ELSEWHERE}"
            )
    return key, signature


def _places(
    details: Sequence[Mapping[str, Any]], named: Mapping[str, Mapping[str, Any]], order: Sequence[str]
) -> list[int]:
    """Return each file tensor's position among those of the signature, which may have another order."""
    indices = [named[name]["index"] for name in order]
    wanted = [tensor["index"] for tensor in details]
    if sorted(indices) != sorted(wanted):
        raise acap.InvalidRequest(
            f"expected a signature with every input and output of the model's first graph once, got "
            f"{', '.join(map(repr, order))}: {_ELSEWHERE}"
        )
    return [indices.index(index) for index in wanted]


def _closed(specs: Sequence[acap.TensorSpec], buffers: Sequence[Any]) -> tuple[acap.TensorSpec, ...]:
    for spec in specs:
        if spec.dtype not in DTYPES:
            held = ", ".join(sorted(map(str, DTYPES)))
            raise acap.InvalidRequest(f"tensor {spec.name!r} holds {spec.dtype}: expected {held}; {_ELSEWHERE}")
    shapes = [tuple(map(int, buffer.get_tensor_details()["shape"])) for buffer in buffers]
    return tuple(replace(spec, shape=shape) for spec, shape in zip(specs, shapes, strict=True))


def _left_to_the_cpu(path: Path) -> acap.InvalidRequest:
    return acap.InvalidRequest(
        f"{path}: the GPU cannot run all of the model's operators: {_ELSEWHERE}, or load it with allow_cpu=yes, which "
        "leaves those to the CPU"
    )


def _last_line(error: Exception) -> str:
    """Return the last line of LiteRT's message, which has the reason. The lines before it are source locations."""
    lines = str(error).strip().splitlines()
    return lines[-1].removeprefix("└ ") if lines else acap.unexpected(error)
