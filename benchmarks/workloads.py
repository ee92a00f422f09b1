"""The requests to each server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final

from acap_runtime.proto import ModelInferRequest, PredictRequest, SystemSharedMemoryRegisterRequest
from http2 import INFER, PREDICT

IN_PROCESS: Final = "in-process"
BARE: Final = "bare server"
OURS: Final = "ours"
OURS_TWO: Final = "ours, 2 instances"
OURS_DEFAULT: Final = "ours, defaults"
OURS_SHARED: Final = "ours, shared memory"
OURS_V2: Final = "ours, v2"
OURS_V2_SHARED: Final = "ours, v2, shared memory"

FIRST_ANSWER: Final = "first-answer"
"""Not a workload, but listed with them."""

MODEL_FILES: Final = {
    "mobilenet_v2": ("mobilenet_v2_1.0_224_quant.tflite", (1, 224, 224, 3)),
    "mobilenet_v1_0.25_128": ("mobilenet_v1_0.25_128_quant.tflite", (1, 128, 128, 3)),
}
"""File and input shape of each model."""

ECHO_MODELS: Final = {"echo": "", "input": "big_output = 1"}
"""Model files for the debug chip: one returns its input, and one also has an output `big` of one byte."""

_SIZES: Final = {"1KB": 1024, "150KB": 150 * 1024, "1MB": 1 << 20, "6.2MB": 1920 * 1080 * 3}
_SHARED_MEMORY: Final = Path("/dev/shm")
_PIXEL: Final = b"\x40"
_DT_UINT8: Final = 4
_DT_STRING: Final = 7


@dataclass(frozen=True)
class Workload:
    """The same question to several contestants. Each contestant has its own request, in a file.

    `registrations` has the requests that some contestants send first, to register shared memory.
    """

    name: str
    meaning: str
    requests: dict[str, Path]
    model: Path | None = None
    registrations: dict[str, Path] = field(default_factory=dict)


def method_of(contestant: str) -> str:
    """Return the gRPC method that a contestant's requests call."""
    return INFER if contestant in {OURS_V2, OURS_V2_SHARED} else PREDICT


@contextlib.contextmanager
def all_workloads(folder: Path, models: dict[str, Path]) -> Iterator[list[Workload]]:
    """Yield every workload that the available model files allow. Requests are written into `folder`."""
    with contextlib.ExitStack() as stack:
        workloads = [_model_workload(folder, name, path) for name, path in models.items()]
        for label, size in _SIZES.items():
            request = _by_bytes(folder, "echo", (size,))
            requests = {BARE: request, OURS: request, OURS_V2: _by_v2(folder, "echo", (size,))}
            workloads.append(Workload(f"echo-{label}", "bytes there and back", requests))
        for label, size in _SIZES.items():
            request = _by_bytes(folder, "input", (size,))
            memory = _shared_memory(size, stack)
            requests = {
                BARE: request,
                OURS: request,
                OURS_SHARED: _by_shared_memory(folder, "input", (size,), memory),
                OURS_V2: _by_v2(folder, "input", (size,)),
                OURS_V2_SHARED: _by_v2(folder, "input", (size,), region=memory),
            }
            workloads.append(
                Workload(
                    f"input-{label}",
                    "bytes there, a single one back, the output that is asked for",
                    requests,
                    registrations={OURS_V2_SHARED: _registration(folder, memory, size)},
                )
            )
        yield workloads


def _model_workload(folder: Path, name: str, path: Path) -> Workload:
    shape = MODEL_FILES[name][1]
    request = _by_bytes(folder, name, shape)
    requests = dict.fromkeys((IN_PROCESS, BARE, OURS, OURS_TWO, OURS_DEFAULT), request)
    return Workload(name, path.name, {**requests, OURS_V2: _by_v2(folder, name, shape)}, path)


def _by_bytes(folder: Path, model: str, shape: tuple[int, ...]) -> Path:
    content = _PIXEL * prod(shape)
    return _write(folder / f"{model}-{prod(shape)}", model, shape, dtype=_DT_UINT8, tensor_content=content)


def _shared_memory(size: int, stack: contextlib.ExitStack) -> str:
    """Create a shared memory object with an input in it, and return its name. It lives as long as `stack` is open."""
    name = f"acap-benchmark-{os.getpid()}-{size}"
    memory = _SHARED_MEMORY / name
    stack.callback(memory.unlink, missing_ok=True)
    memory.write_bytes(_PIXEL * size)
    return name


def _by_shared_memory(folder: Path, model: str, shape: tuple[int, ...], name: str) -> Path:
    return _write(folder / name, model, shape, dtype=_DT_STRING, string_val=[f"/{name}".encode()])


def _by_v2(folder: Path, model: str, shape: tuple[int, ...], region: str | None = None) -> Path:
    """Write a ModelInferRequest, with its input in raw_input_contents or in a region of shared memory."""
    request = ModelInferRequest(model_name=model, outputs=[{"name": "big"}] if model == "input" else [])
    tensor = request.inputs.add(name="data", datatype="UINT8", shape=shape)
    if region is None:
        request.raw_input_contents.append(_PIXEL * prod(shape))
    else:
        tensor.parameters["shared_memory_region"].string_param = region
        tensor.parameters["shared_memory_byte_size"].int64_param = prod(shape)
    target = folder / f"v2-{region or model}-{prod(shape)}"
    target.write_bytes(request.SerializeToString())
    return target


def _registration(folder: Path, name: str, size: int) -> Path:
    target = folder / f"register-{name}"
    request = SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", byte_size=size)
    target.write_bytes(request.SerializeToString())
    return target


def _write(target: Path, model: str, shape: tuple[int, ...], **fields: Any) -> Path:
    wanted = ["big"] if model == "input" else []
    request = PredictRequest(model_spec={"name": model}, inputs={"data": fields}, output_filter=wanted)
    for size in shape:
        request.inputs["data"].tensor_shape.dim.add(size=size)
    target.write_bytes(request.SerializeToString())
    return target
