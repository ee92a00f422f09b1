"""Chip 2 of larod's table: the CPU, with the TensorFlow Lite runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import acap_runtime as acap

from acap_runtime_tflite_cpu.model import TfliteModel
from acap_runtime_tflite_cpu.model_file import read_model_file
from acap_runtime_tflite_cpu.runtime import find_interpreter, reason

MOST_THREADS: Final = 64
DEFAULT_THREADS: Final = 4


class TfliteCpuBackend(acap.InferenceBackend):
    """Runs TensorFlow Lite models on the CPU with XNNPACK, where the runtime has it.

    The default is one thread per processor of the machine, at most 4. In the repository's benchmarks, a single client
    then waits little more than half as long on two processors. For many clients at once, several instances with one
    thread each are best.
    """

    chip_id = 2
    name = "cpu-tflite"
    aliases = ("LAROD_CHIP_TFLITE_CPU",)
    options = MappingProxyType(
        {"threads": f"threads per request, 1 to {MOST_THREADS}; default: one per processor up to {DEFAULT_THREADS}"}
    )

    def probe(self) -> None:
        find_interpreter()

    def load(self, path: Path, options: Mapping[str, str]) -> acap.Model:
        usual = min(len(os.sched_getaffinity(0)), DEFAULT_THREADS)
        threads = _threads(options.get("threads", str(usual)))
        content = read_model_file(path)
        interpreter_type = find_interpreter()
        try:
            interpreter = interpreter_type(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
            return TfliteModel(interpreter)
        except (RuntimeError, ValueError) as error:
            raise acap.InvalidRequest(f"{path}: {_explained(reason(error))}") from error


def _threads(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_THREADS)) and 1 <= int(text) <= MOST_THREADS:
        return int(text)
    raise acap.InvalidRequest(f"threads: expected a number from 1 to {MOST_THREADS}, got {text!r:.80}")


def _explained(reason: str) -> str:
    if "edgetpu-custom-op" in reason:
        return "the model is compiled for the Edge TPU, chip 4 (google-edge-tpu-tflite); expected a model for the CPU"
    return f"expected a TensorFlow Lite model that runs on the CPU: {reason}"
