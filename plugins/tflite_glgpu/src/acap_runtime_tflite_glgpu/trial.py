"""A trial run on the GPU, in a process that its driver may crash: ``python -m acap_runtime_tflite_glgpu.trial``.

The exit code is 0 if the GPU can add. The driver and LiteRT write their messages to stderr, for `adapter` to read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import acap_runtime as acap
import numpy as np

from acap_runtime_tflite_glgpu.compiler import compile_for_gpu

MODEL: Final = Path(__file__).with_name("trial.tflite")
"""One operator: float32 z [1, 4] = x + y."""


def main() -> str | None:
    """Return the problem, or None."""
    try:
        compiled = compile_for_gpu(MODEL.read_bytes())
    except acap.NotReady as error:
        return str(error)
    if not compiled.is_fully_accelerated():
        return "LiteRT left an addition to the CPU"
    inputs, outputs = compiled.create_input_buffers(0), compiled.create_output_buffers(0)
    values = np.arange(4, dtype=np.float32)
    for buffer in inputs:
        buffer.write(values)
    compiled.run_by_index(0, inputs, outputs)
    got = outputs[0].read(values.size, values.dtype)
    return None if np.allclose(got, values + values) else f"{values} + {values} gave {got}"


if __name__ == "__main__":
    sys.exit(main())
